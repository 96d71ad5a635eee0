/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: what the driver asks of guest memory. The shipped implementation is mem/gmem_pages.c over
 * memfds that are mapped three times: for the guest, for the VMM, and for us, which is the alias,
 * where nothing is ever absent. The simulator has its own.
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

/* Mappings where memory is absent until it is made visible: bits. */
#define MEM_VIEW_GUEST 1u /* KVM's */
#define MEM_VIEW_VMM 2u   /* the VMM's, if the region has one; a touch there just waits */

/* A touch that the kernel has reported. */
struct mem_touch {
	roff_t off;
	unsigned view;
};

struct mem_ops {
	/*
	 * Makes [off, off + len) visible in the views with the content that was written through the
	 * alias, and wakes whoever waits in the kernel for it there. Pages already visible are left
	 * alone (not an error). watch_writes: collect() is to tell whether they were written to
	 * since, through any of the views. A page that the host has lost to a memory error counts
	 * as visible: a touch of it fails at once, as refuse() has it fail.
	 */
	int (*present)(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch_writes,
		       struct err *e);
	/*
	 * Marks [off, off + len) of the guest's view so that a touch is reported to user space
	 * instead of waiting in the kernel. Pages already visible are left alone.
	 */
	int (*poison)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/*
	 * From now on a touch of [off, off + len) in the VMM's view fails, and those that wait
	 * there do so at once: SIGBUS, or EFAULT of a system call. NULL: there is no such view.
	 */
	int (*refuse)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/* Whether the host has lost the page at off, which is there, to a memory error. */
	bool (*is_broken)(void *ctx, roff_t off);

	/*
	 * Takes [off, off + len) out of all views. The content stays in the alias, and nobody but
	 * us can change it any more. A touch waits in the kernel until collect().
	 * What failed, here and below, may be done in part, and can be done again.
	 */
	int (*unmap)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/*
	 * Of what unmap() took: touches are reported to user space from now on. Pages that may
	 * have been written to since they were made visible, for each view; those of which that is
	 * not known are among them, those that the view did not show, too, and after a failure
	 * that may be all.
	 */
	int (*collect)(void *ctx, roff_t off, uint64_t len, mem_pages ret_guest, mem_pages ret_vmm,
		       struct err *e);
	/* Gives the host's memory of [off, off + len) back: the alias reads as zeroes then. */
	int (*drop)(void *ctx, roff_t off, uint64_t len, struct err *e);

	/*
	 * Of [off, off + len): pages that are in memory, and of those that the guest's and the
	 * VMM's view show, pages that may have been written to since they were shown.
	 */
	int (*look)(void *ctx, roff_t off, uint64_t len, mem_pages ret_there, mem_pages ret_guest,
		    mem_pages ret_vmm, struct err *e);

	/* 0: the host gives memory for another chunk; it is given back. NULL: it always does. */
	int (*room)(void *ctx, struct err *e);

	/*
	 * [off, off + len), which a source is about to write, is in memory: who writes it by a
	 * pointer cannot be refused it then. NULL: it never is.
	 */
	int (*reserve)(void *ctx, roff_t off, uint64_t len, struct err *e);

	/* The rest is for overcommit; NULL where there is none. */

	/* From now on first touches of memory that was never filled are reported, too. */
	int (*watch_all)(void *ctx, struct err *e);
	/* Which pages of [off, off + len) the guest mapping shows. */
	int (*resident)(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e);
	/* Host memory that guest RAM takes up now, in bytes. */
	uint64_t (*resident_bytes)(void *ctx);
};

struct mem {
	const struct mem_ops *ops;
	void *ctx;
	unsigned char *alias; /* base of the alias mapping: alias + roff, never faults */
	uint64_t bytes;       /* RAM offsets that there can be */
};

#endif
