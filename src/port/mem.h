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

struct mem_ops {
	/*
	 * Makes [off, off + len) visible in the guest mapping with the content that was
	 * written through the alias, and wakes whoever waits in the kernel for it. Pages
	 * already visible are left alone (not an error).
	 */
	int (*present)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/*
	 * Marks [off, off + len) so that a guest touch is reported to user space instead
	 * of waiting in the kernel. Pages already visible are left alone.
	 */
	int (*poison)(void *ctx, roff_t off, uint64_t len, struct err *e);
	/* Wakes whoever waits in the kernel for [off, off + len), changing nothing. */
	int (*wake)(void *ctx, roff_t off, uint64_t len, struct err *e);
};

struct mem {
	const struct mem_ops *ops;
	void *ctx;
	unsigned char *alias; /* base of the alias mapping: alias + roff, never faults */
	uint64_t bytes;       /* of guest RAM, without holes */
};

#endif
