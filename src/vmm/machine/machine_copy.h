/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory into a snapshot's file: pages that are still to be written, RAM above the hole
 * behind that below it, and what was taken of them while the guest stood still. By a snapshot's
 * thread.
 */
#ifndef VMM_MACHINE_COPY_H
#define VMM_MACHINE_COPY_H

#include "vmm/machine/machine_parts.h"

struct machine_copy {
	struct machine *m;
	int fd;
	const atomic_bool *cancel;
	uint64_t *pending;     /* a bit per page that is to be written */
	uint64_t pages;
	unsigned char *piece;
	unsigned char *kept;   /* the content of kept_pages, in their order; NULL: none */
	uint64_t *kept_pages;
	uint64_t ahead;        /* pages from here on are not on their way yet */
	bool fresh;            /* the file is one hole: zeroes need not be written */
	/*
	 * Of 100 parts of the time, while it writes, the guest stands still for so many, a moment
	 * each: it writes faster than can be written.
	 */
	unsigned slow;
	bool stands;
	uint64_t turn_ns;
};

/* Makes the file as long as memory. After a failure, too, close is to follow. */
int machine_copy_open(struct machine_copy *c, struct machine *m, int fd, const atomic_bool *cancel,
		      struct err *e);
void machine_copy_close(struct machine_copy *c);
void machine_copy_all(struct machine_copy *c);
/* Pages in `pending`. */
uint64_t machine_copy_count(const struct machine_copy *c);
/* Writes what is pending, which is none then. -ECANCELED, -EINTR: the VM ends; others: the host. */
int machine_copy_write(struct machine_copy *c, struct err *e);
/*
 * While nobody writes to memory: the content of what is pending is kept, to be written afterwards.
 * -ETIME: that would last until after until_ns (of CLOCK_MONOTONIC); nothing is changed.
 */
int machine_copy_keep(struct machine_copy *c, uint64_t until_ns, struct err *e);
int machine_copy_write_kept(struct machine_copy *c, struct err *e);

#endif
