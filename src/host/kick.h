/* SPDX-License-Identifier: Apache-2.0 */
/* Getting a vCPU's thread to look. Touches `where` and `kicked` of a vCPU, and nothing else. */
#include "host/host.h"

/* Makes the thread look, wherever it is. */
#ifndef HOST_KICK_H
#define HOST_KICK_H

void vcpu_kick(struct hst_vcpu *v);
void vcpu_kick_all(struct hst *h);
/* It looks: a kick that was on its way has done its work. */
void vcpu_back_in_host(struct hst_vcpu *v);

#endif
