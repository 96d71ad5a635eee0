/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: what the driver asks of guest memory. The shipped implementation is
 * mem/uffd.c over a memfd with two mappings; the simulator has its own.
 *
 * Ranges are in RAM offsets (roff_t), aligned to pages. All calls return 0 or
 * -Exxx with text in e. Any thread.
 */
#ifndef PORT_MEM_H
#define PORT_MEM_H

#include "base/err.h"
#include "base/types.h"

/* Pages of one call of resident() or collect(): a 2 MiB chunk at most. */
#define MEM_PAGES_MAX 512u
/* A bit per page of the range, the first in bit 0 of word 0. */
typedef uint64_t mem_pages[MEM_PAGES_MAX / 64];

struct mem_ops {
	/*
	 * Makes [off, off + len) visible in the guest mapping with the content that was
	 * written through the alias, and wakes whoever waits in the kernel for it. Pages
	 * already visible are left alone (not an error). watch_writes: collect() is to tell
	 * whether the guest has written to them since.
	 */
	int (*present)(void *ctx, roff_t off, uint64_t len, bool watch_writes, struct err *e);
	/*
	 * Marks [off, off + len) so that a guest touch is reported to user space instead
	 * of waiting in the kernel. Pages already visible are left alone.
	 */
	int (*poison)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/* Wakes whoever waits in the kernel for [off, off + len), changing nothing. */
	int (*wake)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/* Whether the host has lost the page at off, which is there, to a memory error. */
	bool (*is_broken)(void *ctx, roff_t off);

	/*
	 * The rest is for taking memory away again; NULL where nothing does. What failed may be
	 * done in part, and can be done again.
	 */

	/* From now on first touches of memory that was never filled are reported, too. */
	int (*watch_all)(void *ctx, struct err *e);
	/* Which pages of [off, off + len) the guest mapping shows. */
	int (*resident)(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e);
	/*
	 * Takes [off, off + len) out of the guest mapping. The content stays in the alias, and
	 * nobody but us can change it any more. A touch waits in the kernel until collect().
	 */
	int (*unmap)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/*
	 * Of what unmap() took: touches are reported to user space from now on. ret_written:
	 * pages that the guest may have written since they were made visible; those of which
	 * that is not known are among them, and after a failure that may be all.
	 */
	int (*collect)(void *ctx, roff_t off, uint64_t len, mem_pages ret_written, struct err *e);
	/* Gives the host's memory of [off, off + len) back: the alias reads as zeroes then. */
	int (*drop)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/* Host memory that guest RAM takes up now, in bytes. */
	uint64_t (*resident_bytes)(void *ctx);
};

struct mem {
	const struct mem_ops *ops;
	void *ctx;
	unsigned char *alias; /* base of the alias mapping: alias + roff, never faults */
	uint64_t bytes;       /* of guest RAM, without holes */
};

#endif
