/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping vCPUs out of the guest while memory is unmapped, and KVM's emulator from what is gone. */
#include "host/host.h"

/* due: blocks to be taken. */
#ifndef HOST_HOLD_H
#define HOST_HOLD_H

void hold_init(struct hst *h);
/* vCPUs are to stay outside. */
bool hold_is_on(const struct hst *h);
/* hold_for would begin, go on or end something. */
bool hold_ready(const struct hst *h, uint32_t due);
/* They may be taken now. If not: not yet, or none are due any more. */
bool hold_for(struct hst *h, uint32_t due);
/* They are taken. */
void hold_end(struct hst *h);
/* At an exit: what KVM needs to go on with the instruction stays until it enters. */
void hold_instruction(struct hst_vcpu *v);
void hold_no_instruction(struct hst_vcpu *v);

#endif
