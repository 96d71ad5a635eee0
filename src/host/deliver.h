/* SPDX-License-Identifier: Apache-2.0 */
/* Events into the guest's area. */
#ifndef HOST_DELIVER_H
#define HOST_DELIVER_H

#include "host/host.h"

/* What the guest's area holds now. */
struct eng_slot slot_read(struct hst_vcpu *v);
/* Writes an event into it. */
void slot_store(struct hst_vcpu *v, const struct eng_store *st);
/* Sends whatever page-ready events may go out now. cpu: as for eng_next_ready. */
void deliver(struct hst_vcpu *v, struct cpu_state *cpu);
void deliver_init(struct hst_vcpu *v);
/* Queues a #PF of ours. cpu: the vCPU's, at an exit. */
void pf_queue(struct hst_vcpu *v, struct cpu_state *cpu, const struct eng_event *ev);
/* After an exit: KVM still has one that a reset by another thread has made void. */
void pf_drop_forgotten(struct hst_vcpu *v);
/*
 * The guest may yet be found not to have taken the one that v->stats has counted: takes it out of
 * s, so that what is told of never falls.
 */
void pf_leave_out(const struct hst_vcpu *v, struct hst_stats *s);
/* Takes one that the guest has not taken back from it: page missing never was, ready is due. */
void pf_take_back(struct hst_vcpu *v);

#endif
