/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of KVM's own that mean something to us: those that name memory which KVM writes,
 * and its copies of the protocol's, which the guest cannot reach, since its accesses come to us.
 *
 * The copies have two uses. While the vCPU is at rest they hold the guest's values, so that a VMM
 * saves and restores them with KVM_GET_MSRS and KVM_SET_MSRS like any other. While the guest runs
 * EN is 0, which keeps KVM's own async page faults out, and CTL holds a mark, which an INIT clears
 * that KVM's local APIC carries out without an exit. A second mark spares the call that reads the
 * first: the AVL bit of the task register's hidden part, which means nothing to the processor
 * (SDM 3A, 3.4.5), which the guest cannot see, and which INIT clears, too; kvm_run has it at every
 * exit. Gone, or with another base, it says no more than that CTL is to be looked at: the guest may
 * have loaded its task register. It stays when the vCPU is at rest.
 *
 * The vCPU's thread only: the calls wait for KVM_RUN to be left. What sets EN may wait longer: KVM
 * then ends the work that it has begun for touches of the guest's, and that may wait for us to
 * answer its touch of memory (kvm_clear_async_pf_completion_queue). No lock is held for it.
 * Test: tests/integration/areas_test.c, check_test.py (reset.registers).
 */
#ifndef KVM_REGISTERS_H
#define KVM_REGISTERS_H

#include "kvm/vcpu.h"

/* As KVM_SET_MSRS of one register; 0, or -Exxx: the value is not acceptable. */
int kvmp_msr_set(int vcpu_fd, uint32_t msr, uint64_t value);

/* Only looks. */
void kvmp_registers_take(struct kvmp_vcpu *v, bool protocol, struct plat_registers *ret);
/* Sets EN: before the guest runs, what was taken is to go; at rest, the guest's is to be seen. */
void kvmp_registers_clear(struct kvmp_vcpu *v);
void kvmp_registers_show(struct kvmp_vcpu *v, uint64_t en, uint64_t ctl);

/* Notices an INIT from here on, if this KVM can; harmless when it does already. */
void kvmp_reset_watch(struct kvmp_vcpu *v);
/*
 * After an exit: whether there was one since. Once true, kvmp_reset_watch is to be called again.
 * nested: what kvm_run holds is a guest's guest.
 */
bool kvmp_reset_seen(struct kvmp_vcpu *v, bool nested);

/* Whether KVM has memory at gpa that the guest may write to. */
bool kvmp_is_writable(struct kvmp_vcpu *v, gpa_t gpa);

/* Finds out at which local APIC a message reaches the vCPU. */
void kvmp_apic_id_find(const struct kvmp *k, struct kvmp_vcpu *v);

#endif
