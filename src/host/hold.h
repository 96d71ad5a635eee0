/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping vCPUs out of the guest while memory is unmapped, and KVM's emulator from what is gone. */
#ifndef HOST_HOLD_H
#define HOST_HOLD_H

#include "host/host.h"

void hold_init(struct hst *h);
/* vCPUs are to stay outside. */
bool hold_is_on(const struct hst *h);
/* hold_for would begin, go on or end something. due: blocks to be unmapped. */
bool hold_ready(const struct hst *h, uint32_t due);
/* The blocks may be unmapped now. False: not yet, or none are due any more. */
bool hold_for(struct hst *h, uint32_t due);
/* They are unmapped: vCPUs may enter the guest again. */
void hold_end(struct hst *h);
/* At an exit: the memory that KVM needs to finish the instruction stays. */
void hold_keep_instruction(struct hst_vcpu *v);
/* Before the vCPU enters the guest: it need not stay any longer. */
void hold_let_go_instruction(struct hst_vcpu *v);

#endif
