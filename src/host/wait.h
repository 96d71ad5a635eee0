/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU begins to wait for a block, and stops: the phase, and the waiter that belongs to it. */
#ifndef HOST_WAIT_H
#define HOST_WAIT_H

#include "host/host.h"

/* Begins to wait for the block of off; false: it is there. */
bool vcpu_wait_for(struct hst_vcpu *v, roff_t off, enum hst_phase phase);
/* Back to HST_PHASE_RUN; counts how long it took. */
void vcpu_wait_over(struct hst_vcpu *v, uint64_t now);

#endif
