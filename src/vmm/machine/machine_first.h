/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot says that its VM will touch first (snap/first_touch.h), and the bringing of it.
 * Test: tests/lab/snapshot_test.py, tests/integration/restore_run_test.py.
 */
#ifndef VMM_MACHINE_FIRST_H
#define VMM_MACHINE_FIRST_H

#include "vmm/machine/machine_parts.h"
#include "vmm/snap/snap_kvm.h"

/* Of a machine at rest. Replaces *ret. */
void machine_first_find(struct machine *m, const struct snap_vcpu *vcpus, struct first_touch *ret);
/* The section "memory.first". */
void machine_first_save(struct machine *m, const struct first_touch *t, struct snap_out *o);

/*
 * Begins to read it, before anything of the VM is touched. and_more: with it what the command was
 * told to bring (machine_cfg.prefetch), behind it. 0 or -Exxx.
 */
int machine_first_bring(struct machine *m, bool and_more, struct err *e);

#endif
