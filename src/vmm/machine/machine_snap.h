/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine into a snapshot and out of it: which sections the file `state` has, in which order the
 * parts come to rest, and how memory is written. Files, names and the description are the
 * command's. Format: docs/snapshot-format.md. Test: tests/lab/snapshot_test.py.
 */
#ifndef VMM_MACHINE_SNAP_H
#define VMM_MACHINE_SNAP_H

#include <stdatomic.h>

#include "vmm/machine/machine_saved.h"

struct machine_snapshot {
	bool keep_running; /* the guest stands still only for what it wrote to last */
	bool changes;      /* only memory that changed since the snapshot `base` */
	unsigned char base[SNAP_ID_BYTES];
};

/*
 * Writes the running machine: its state to state_fd, its memory to memory_fd, a flat file with
 * holes where it is zero, each from its beginning. The guest stands still meanwhile, or for a
 * moment (docs/decisions/0018), and goes on afterwards unless it was paused before. 0, -ECANCELED:
 * *cancel became true; -EBUSY: it cannot come to rest; -EAGAIN: it writes too fast; -ESTALE: `base`
 * is not the last that was made of it; others: the host. By a thread of its own, not twice at a
 * time.
 */
int machine_snapshot(struct machine *m, const struct machine_snapshot *how, int state_fd,
		     int memory_fd, const atomic_bool *cancel, struct err *e);

/* For machine_open, where machine_cfg.restore is set. */
int machine_restore_cpuid(struct machine *m, unsigned vcpu, const void *host, struct err *e);
int machine_restore(struct machine *m, struct err *e);

#endif
