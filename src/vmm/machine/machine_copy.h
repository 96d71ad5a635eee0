/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory into a snapshot's file, RAM above the hole behind that below it: the steps of
 * snap_plan.h that read and write. What is taken while the guest stands still is kept in memory. By
 * a snapshot's thread.
 */
#ifndef VMM_MACHINE_COPY_H
#define VMM_MACHINE_COPY_H

#include "vmm/machine/machine_parts.h"
#include "vmm/snap/snap_plan.h"

struct machine_copy {
	struct machine *m;
	int fd;
	const atomic_bool *cancel;
	unsigned char *piece;
	unsigned char *kept; /* NULL: nothing */
	uint64_t ahead;      /* pages from here on are not on their way yet */
};

/* Makes the file as long as memory. After a failure, too, close is to follow. */
int machine_copy_open(struct machine_copy *c, struct machine *m, int fd, const atomic_bool *cancel,
		      struct err *e);
void machine_copy_close(struct machine_copy *c);
/* Where page n of the file is in the guest. */
gpa_t machine_copy_gpa(const struct machine_copy *c, uint64_t page);
/* SNAP_TODO_COPY, _KEEP and _PUT. -ECANCELED: nobody waits any more; others: as the step says. */
int machine_copy_run(struct machine_copy *c, const struct snap_step *s, struct err *e);
int machine_copy_keep(struct machine_copy *c, const struct snap_step *s, struct err *e);
int machine_copy_put(struct machine_copy *c, const struct snap_step *s, struct err *e);

#endif
