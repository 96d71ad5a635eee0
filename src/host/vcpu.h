/* SPDX-License-Identifier: Apache-2.0 */
/* One fault, from the exit to the decision how to go on; more of it is in host.h. */
#ifndef HOST_VCPU_H
#define HOST_VCPU_H

#include "host/host.h"

void vcpu_init(struct hst_vcpu *v);
/* A fault waits for a read that will not end soon. */
bool vcpu_is_late(const struct hst_vcpu *v);
/* What the guest has stored is carried out as soon as its blocks are there. */
void vcpu_stores_begin(struct hst_vcpu *v);
/* The fault is a memory error of the host's own, which only the VMM can do something about. */
bool vcpu_fault_is_error(struct hst_vcpu *v, roff_t off);
/* The blocks [from, end) have left: to what it is in the middle of, there is no memory there. */
void vcpu_memory_left(struct hst_vcpu *v, uint32_t from, uint32_t end);
/* On the way back to the VMM. */
void vcpu_rest(struct hst_vcpu *v);

#endif
