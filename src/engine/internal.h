/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's own files share: the two lists of faults and the wake-all.
 * The functions live in the file that owns the list: fault.c (issue order),
 * ready.c (ready queue).
 */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

#include "engine/engine.h"

static inline bool eng_pf2_wire(const struct eng_vcpu *v)
{
	return v->cfg.rev == APF_REV_PF2 || v->cfg.rev == APF_REV_PF2_STRICT;
}

/* Page ready travels by interrupt (int always; legacy never; pf2 as EN bit 3 says). */
static inline bool eng_ready_by_irq(const struct eng_vcpu *v)
{
	return v->cfg.rev == APF_REV_INT || (eng_pf2_wire(v) && (v->en & APF_EN_INT));
}

/*
 * The part of "may I?" that legacy and pf2 ask for both event types, int only for
 * page missing: kvm_can_do_async_pf without the slot.
 */
enum eng_verdict eng_cpu_accepts(const struct eng_vcpu *v, const struct cpu_state *cpu);

/* Releases every fault: READY ones are freed, the others become RETIRED. */
void eng_retire_all(struct eng_vcpu *v);
/* Takes a fault out of the issue list and back to the pool. */
void eng_fault_free(struct eng_vcpu *v, uint32_t index);
/* Takes a free entry and appends it to the issue list, WAITING. */
uint32_t eng_fault_alloc(struct eng_vcpu *v, gfn_t gfn, uint32_t token);

void eng_ready_push(struct eng_vcpu *v, uint32_t index);
/* Puts a wake-all behind everything that is ready now. */
void eng_queue_wake_all(struct eng_vcpu *v);

#endif
