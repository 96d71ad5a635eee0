/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM has of a VM, into the sections of a snapshot and back: processors with their MSRs and
 * local APICs, interrupt chips, PIT, clock. Order and reasons: docs/saving.md. What the host cannot
 * be given back is refused by name.
 *
 * Threads: every vCPU is at rest (asyncpf.h, apf_vcpu_run), the VM paused; one caller.
 * Tests: tests/lab/snapshot_test.py, tests/integration/snap_kvm_test.c.
 */
#ifndef VMM_SNAP_KVM_H
#define VMM_SNAP_KVM_H

#include <asyncpf/asyncpf.h>

#include "base/err.h"
#include "vmm/snap/first_touch.h"
#include "vmm/snap/snap_state.h"

struct kvm_cpuid2;

struct snap_vcpu {
	unsigned index;
	int kvm_fd, vm_fd, fd;
	struct apf *a;
	struct apf_vcpu *v;
};

/* 0 or -Exxx: KVM has refused something; what was put is of no use. */
int snap_vcpu_save(const struct snap_vcpu *v, struct snap_out *o, struct err *e);
/* 1: at *ret SNAP_PDPT_BYTES must be present for snap_vcpu_restore; 0: nothing must; or -Exxx. */
#define SNAP_PDPT_BYTES 32u
int snap_vcpu_pdptes(const struct snap_in *in, unsigned index, uint64_t *ret, struct err *e);
/* Into a vCPU that has not run, behind snap_cpuid_restore and snap_vm_restore. */
int snap_vcpu_restore(const struct snap_vcpu *v, const struct snap_in *in, struct err *e);

/* What it touches first, as far as KVM tells its registers. */
void snap_vcpu_first(const struct snap_vcpu *v, struct first_touch *t);

/* host: what a new VM would show here. -ENOTSUP: the guest has seen more, named. */
int snap_cpuid_restore(const struct snap_vcpu *v, const struct snap_in *in,
		       const struct kvm_cpuid2 *host, struct err *e);

/* Interrupt chips, PIT, and the clock, which goes on as if the guest had slept. */
int snap_vm_save(int vm_fd, struct snap_out *o, struct err *e);
int snap_vm_restore(int vm_fd, const struct snap_in *in, struct err *e);

#endif
