/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine into a snapshot and out of it: which sections the file `state` has, in which order the
 * parts come to rest, and how memory is written. Files, names and the description are the
 * command's. Format: docs/snapshot-format.md. Test: tests/lab/snapshot_test.py.
 */
#ifndef VMM_MACHINE_SNAP_H
#define VMM_MACHINE_SNAP_H

#include <stdatomic.h>

#include "vmm/machine/machine.h"
#include "vmm/snap/snap_state.h"

#define MACHINE_PATH_MAX 4096u

/* Section "machine": what the machine is made with. */
struct machine_saved {
	uint64_t memory_bytes;
	uint64_t rng_bytes_per_s;
	uint32_t cpus;
	uint32_t kind; /* enum load_kind */
	uint32_t faults, abi, outstanding;
	uint32_t disks;
	uint32_t exit_port;
	uint32_t zero;
};

/* Section "machine.disk" of each disk; its path, absolute, follows. */
struct machine_disk_saved {
	uint64_t bytes; /* that the guest sees */
	uint64_t bytes_per_s, requests_per_s;
	uint8_t read_only, raw, report;
	uint8_t zero[5];
};

/* The sections that describe it, checked. *ret_path lies in `in`, ends in NUL. 0 or -Exxx. */
int machine_saved_get(const struct snap_in *in, struct machine_saved *ret, struct err *e);
int machine_disk_saved_get(const struct snap_in *in, unsigned i, struct machine_disk_saved *ret,
			   const char **ret_path, struct err *e);

/*
 * Writes the running machine: its state to state_fd, its memory to memory_fd, a flat file with
 * holes where it is zero, each from its beginning. The guest stands still meanwhile, and goes on
 * afterwards unless it was paused before. 0, -ECANCELED: *cancel became true; -EBUSY: it cannot
 * come to rest; others: the host. By a thread of its own, not twice at a time.
 */
int machine_snapshot(struct machine *m, int state_fd, int memory_fd, const atomic_bool *cancel,
		     struct err *e);

/* For machine_open, where machine_cfg.restore is set. */
int machine_restore_cpuid(struct machine *m, unsigned vcpu, const void *host, struct err *e);
int machine_restore(struct machine *m, struct err *e);

#endif
