/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page ready: the queue in order of completion, the wake-all within it, and when
 * the next one may go out. Tests: tests/unit/engine_ready_test.c.
 *
 * The slot is the gate. By interrupt: the word that carries the event is 0, the token
 * for int, the reason for pf2. The guest frees it by a plain write, and KVM keeps int's
 * acknowledgement to itself, so somebody has to look (docs/decisions/0003). By #PF (legacy,
 * pf2 with EN bit 3 clear): no slot test, but the CPU must take the exception now.
 */
#include "base/assert.h"
#include "engine/internal.h"

/* Vectors 0-15 are exceptions; a local APIC does not deliver them (SDM 3A, 11.5.2). */
#define VECTOR_MIN 16

void eng_ready_push(struct eng_vcpu *v, uint32_t index)
{
	v->faults[index].state = ENG_FAULT_READY;
	v->faults[index].ready_next = ENG_NIL;
	if (v->ready_tail == ENG_NIL)
		v->ready_head = index;
	else
		v->faults[v->ready_tail].ready_next = index;
	v->ready_tail = index;
	v->ready_len++;
}

static void ready_pop(struct eng_vcpu *v)
{
	uint32_t ix = v->ready_head;

	ASSERT(ix != ENG_NIL && v->faults[ix].state == ENG_FAULT_READY);
	v->ready_head = v->faults[ix].ready_next;
	if (v->ready_head == ENG_NIL)
		v->ready_tail = ENG_NIL;
	v->ready_len--;
	if (v->wake_all_due && v->wake_all_after > 0)
		v->wake_all_after--;
	eng_fault_free(v, ix);
}

void eng_queue_wake_all(struct eng_vcpu *v)
{
	/* One suffices: a second request moves it behind what became ready since. */
	v->wake_all_due = true;
	v->wake_all_after = v->ready_len;
}

bool eng_page_ready(struct eng_vcpu *v, uint32_t index)
{
	struct eng_fault *f = &v->faults[index];

	ASSERT(index < v->cfg.faults_max);
	ASSERT(f->state == ENG_FAULT_WAITING || f->state == ENG_FAULT_HALTED ||
	       f->state == ENG_FAULT_RETIRED);
	if (f->state == ENG_FAULT_RETIRED) {
		eng_fault_free(v, index);
		return false;
	}
	eng_ready_push(v, index);
	return true;
}

/* Notices what the guest did to the slot since the last look. */
static void look_at_slot(struct eng_vcpu *v, struct eng_slot slot)
{
	uint32_t word = v->cfg.rev == APF_REV_INT ? slot.token : slot.reason;

	if (slot.readable && word == 0)
		v->wake_all_in_slot = false;
}

static enum eng_ready gate_by_pf(const struct eng_vcpu *v, const struct cpu_state *cpu,
				 uint32_t token, struct eng_event *ev)
{
	if (!cpu)
		return ENG_READY_NO_CPU;
	if (v->cfg.rev == APF_REV_LEGACY && cpu->untaken_token == token && token != 0) {
		/* The guest has seen nothing yet: both halves of this token are withdrawn. */
		ev->how = ENG_HOW_CANCEL_PF;
		ev->store = (struct eng_store){.off = 0, .len = 4, .value = 0};
		return ENG_READY_SEND;
	}
	if (eng_cpu_accepts(v, cpu) != ENG_MAY_SEND)
		return ENG_READY_NOT_NOW;
	/* Old kernels emptied the queue when paging went off: no #PF could come then (B22). */
	if (!cpu->paging && v->cfg.rev != APF_REV_PF2_STRICT)
		return ENG_READY_NOT_NOW;
	ev->how = ENG_HOW_PF;
	return ENG_READY_SEND;
}

static enum eng_ready gate_by_irq(const struct eng_vcpu *v, const struct cpu_state *cpu,
				  struct eng_slot slot, struct eng_event *ev)
{
	bool strict = v->cfg.rev == APF_REV_PF2_STRICT;
	uint8_t vector = (uint8_t)(v->ctl & APF_CTL_VECTOR_MASK);
	bool on = v->cfg.rev == APF_REV_INT || (v->ctl & APF_PF2_ENABLED);

	if (strict) {
		/* Hazard S3: an interrupt, held back as if it were an exception. */
		if (!cpu)
			return ENG_READY_NO_CPU;
		if (eng_cpu_accepts(v, cpu) != ENG_MAY_SEND)
			return ENG_READY_NOT_NOW;
	}
	/* An area that cannot be read may come back: the event waits, as in kvm's can_dequeue. */
	if (!slot.readable)
		return ENG_READY_SLOT_BUSY;
	if (v->cfg.rev == APF_REV_INT ? slot.token != 0 : slot.reason != 0)
		return ENG_READY_SLOT_BUSY;
	if (!strict && (!on || vector < VECTOR_MIN))
		return ENG_READY_OFF;
	/* Hazards S1, S8: strict fills the slot although no interrupt will tell. */
	ev->how = on ? ENG_HOW_IRQ : ENG_HOW_NOTHING;
	ev->vector = vector;
	return ENG_READY_SEND;
}

enum eng_ready eng_next_ready(struct eng_vcpu *v, const struct cpu_state *cpu,
			      struct eng_slot slot, struct eng_event *ret_ev)
{
	bool wake_all = v->wake_all_due && v->wake_all_after == 0;
	struct eng_event ev = {.how = ENG_HOW_NOTHING};
	enum eng_ready r;

	look_at_slot(v, slot);
	if (!wake_all && v->ready_head == ENG_NIL)
		return ENG_READY_NONE;
	ev.token = wake_all ? APF_TOKEN_WAKE_ALL : v->faults[v->ready_head].token;
	ev.gfn.v = wake_all ? 0 : v->faults[v->ready_head].gfn;
	if (!eng_enabled(v) || (!slot.readable && !eng_ready_by_irq(v))) {
		/* Nobody to tell, or no slot test and nowhere to write: the event ends here. */
		*ret_ev = ev;
		return ENG_READY_SEND;
	}
	switch (v->cfg.rev) {
	case APF_REV_INT:
		ev.store = (struct eng_store){.off = 4, .len = 4, .value = ev.token};
		break;
	case APF_REV_PF2:
	case APF_REV_PF2_STRICT:
		ev.store = (struct eng_store){
			.off = 0, .len = 8, .value = (uint64_t)ev.token << 32 | APF_REASON_READY};
		break;
	case APF_REV_LEGACY:
	case APF_REV_OFF:
		ev.store = (struct eng_store){.off = 0, .len = 4, .value = APF_REASON_READY};
		break;
	}
	if (eng_ready_by_irq(v))
		r = gate_by_irq(v, cpu, slot, &ev);
	else
		r = gate_by_pf(v, cpu, wake_all ? 0 : ev.token, &ev);
	if (r == ENG_READY_SEND)
		*ret_ev = ev;
	return r;
}

void eng_ready_sent(struct eng_vcpu *v, const struct eng_event *ev)
{
	bool in_slot = ev->how == ENG_HOW_IRQ;

	v->sent_token = ev->token;
	if (!v->wake_all_due || v->wake_all_after > 0) {
		ASSERT(v->faults[v->ready_head].token == ev->token);
		ready_pop(v);
		return;
	}
	ASSERT(ev->token == APF_TOKEN_WAKE_ALL);
	v->wake_all_due = false;
	/*
	 * The wake-all releases everybody who was told "page missing" so far: a page-ready of
	 * his own on top would find no sleeper. The founding text sends both. A wake-all that
	 * was dropped released nobody.
	 */
	if (v->cfg.rev != APF_REV_PF2_STRICT && ev->how != ENG_HOW_NOTHING)
		eng_retire_all(v);
	v->wake_all_in_slot = in_slot;
}

/* Out of the queue of what is due; the fault stays. */
static void ready_unlink(struct eng_vcpu *v, uint32_t index)
{
	uint32_t prev = ENG_NIL, place = 0;

	for (uint32_t ix = v->ready_head; ix != index; ix = v->faults[ix].ready_next, place++)
		prev = ix;
	if (prev == ENG_NIL)
		v->ready_head = v->faults[index].ready_next;
	else
		v->faults[prev].ready_next = v->faults[index].ready_next;
	if (v->ready_tail == index)
		v->ready_tail = prev;
	v->ready_len--;
	if (v->wake_all_due && v->wake_all_after > place)
		v->wake_all_after--;
}

static uint32_t missing_taken_back(struct eng_vcpu *v, uint32_t token)
{
	uint32_t ix = v->issue_tail;

	/* From the newest: it is the one that was told last. */
	while (ix != ENG_NIL && v->faults[ix].token != token)
		ix = v->faults[ix].prev;
	if (ix == ENG_NIL)
		return ENG_NIL;
	if (v->faults[ix].state == ENG_FAULT_READY)
		ready_unlink(v, ix);
	eng_fault_free(v, ix);
	return ix;
}

/* Due again, before all others. */
static void ready_taken_back(struct eng_vcpu *v, const struct eng_event *ev)
{
	uint32_t ix;

	if (ev->token == APF_TOKEN_WAKE_ALL) {
		v->wake_all_due = true;
		v->wake_all_after = 0;
		return;
	}
	ix = eng_fault_alloc(v, ev->gfn, ev->token);
	v->faults[ix].state = ENG_FAULT_READY;
	v->faults[ix].ready_next = v->ready_head;
	v->ready_head = ix;
	if (v->ready_tail == ENG_NIL)
		v->ready_tail = ix;
	v->ready_len++;
	if (v->wake_all_due)
		v->wake_all_after++;
}

uint32_t eng_take_back(struct eng_vcpu *v, const struct eng_event *ev, struct eng_slot slot,
		       struct eng_store *ret_store)
{
	uint32_t reason = (uint32_t)ev->store.value;
	bool in_slot = slot.readable && slot.reason == reason && reason != 0 &&
		       (ev->store.len == 4 || slot.token == ev->token);

	*ret_store = (struct eng_store){.len = in_slot ? ev->store.len : 0};
	if (reason == APF_REASON_MISSING)
		return missing_taken_back(v, ev->token);
	ready_taken_back(v, ev);
	return ENG_NIL;
}
