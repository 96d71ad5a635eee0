/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a vCPU's thread is reached. Between begin() and rest() the thread has all signals blocked
 * but those of its own mistakes; inside KVM_RUN, and while it waits, the VMM's are let through,
 * and inside KVM_RUN ours. Whatever ends one of the two stays pending until somebody looks, so
 * nothing is lost between a test and a sleep, and no handler runs before the call returns.
 *
 * A kick is a signal inside KVM_RUN and an event descriptor in a wait. A real-time signal can be
 * refused where RLIMIT_SIGPENDING is used up; then it is SIGURG, which takes no queue.
 */
#ifndef KVM_SIGNALS_H
#define KVM_SIGNALS_H

#include "kvm/vcpu.h"

int kvmp_signals_init(struct kvmp_vcpu *v, struct err *e);
void kvmp_signals_fini(struct kvmp_vcpu *v);

/* The vCPU's thread: from here on it can be kicked (0, or -Exxx); and no more. */
int kvmp_signals_begin(struct kvmp *k, struct kvmp_vcpu *v);
void kvmp_signals_end(struct kvmp *k, struct kvmp_vcpu *v);

enum kvmp_signal {
	KVMP_SIGNAL_NONE,
	KVMP_SIGNAL_KICK,
	KVMP_SIGNAL_FAULT, /* v->fault says where */
	KVMP_SIGNAL_VMM,   /* one of the VMM's pends, or immediate_exit is set */
};
/* What ended KVM_RUN; ours is taken, the VMM's stays. */
enum kvmp_signal kvmp_signal_take(struct kvmp *k, struct kvmp_vcpu *v);
/* Waits for a kick. True: the VMM wants its thread. */
bool kvmp_signal_wait(struct kvmp *k, struct kvmp_vcpu *v);
/* Any thread. By the vCPU's own the next KVM_RUN executes nothing. */
void kvmp_signal_kick(struct kvmp *k, struct kvmp_vcpu *v);
/* The SIGBUS taken last was not for us: it is delivered once the VMM's mask is back. */
void kvmp_signal_pass_fault(struct kvmp_vcpu *v);

#endif
