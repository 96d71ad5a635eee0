/* SPDX-License-Identifier: Apache-2.0 */
/* Where a vCPU's thread is, and getting it to look. Touches nothing else. */
#ifndef HOST_KICK_H
#define HOST_KICK_H

#include "host/host.h"

/* Makes the thread look, wherever it is. */
void vcpu_kick(struct hst_vcpu *v);
/*
 * pf2-strict: a page came, or page ready was sent. That ends a halt, ours or a HLT of the guest's
 * own, whatever the guest sees of it.
 */
void vcpu_unhalt(struct hst_vcpu *v);
void vcpu_kick_all(struct hst *h);
/* It looks: a kick that was on its way has done its work. */
void vcpu_back_in_host(struct hst_vcpu *v);
void vcpu_in_guest(struct hst_vcpu *v);
void vcpu_in_wait(struct hst_vcpu *v);

#endif
