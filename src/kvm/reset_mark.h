/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notices an INIT that KVM's local APIC carried out by itself, without an exit: a mark in a
 * register that INIT clears is gone. The register is KVM's own 0x4b564d06, which the guest
 * cannot reach, since its accesses come to us, and which means nothing while KVM's EN is 0.
 *
 * The vCPU's thread only: the calls wait for KVM_RUN to be left.
 * Test: tests/integration/check_test.py, reset.registers.
 */
#ifndef KVM_RESET_MARK_H
#define KVM_RESET_MARK_H

#include <stdbool.h>

/* False: this KVM does not take it, and an INIT cannot be noticed. */
bool kvmp_reset_mark_set(int vcpu_fd);
/* Whether it was cleared since it was set. */
bool kvmp_reset_mark_is_gone(int vcpu_fd);

#endif
