/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page missing: may it be sent, under which token, and the pool of faults that
 * the guest was told about; in pf2-strict, what is owed where it was not told.
 * Tests: tests/unit/engine_fault_test.c, engine_halt_test.c.
 */
#include "base/assert.h"
#include "engine/internal.h"

#define ID_MASK 0xfffffu /* 32 bits less the 12 of the vCPU id */

const char *eng_verdict_name(enum eng_verdict w)
{
	static const char *const names[ENG_VERDICTS] = {
		[ENG_MAY_SEND] = "may-send",
		[ENG_NOT_ENABLED] = "not-enabled",
		[ENG_NO_LAPIC] = "no-lapic",
		[ENG_EVENT_PENDING] = "event-pending",
		[ENG_IRQS_OFF] = "irqs-off",
		[ENG_KERNEL_MODE] = "kernel-mode",
		[ENG_NESTED] = "nested",
		[ENG_NO_PAGING] = "no-paging",
		[ENG_SLOT_BUSY] = "slot-busy",
		[ENG_AREA_LOST] = "area-lost",
		[ENG_TOO_MANY] = "too-many",
	};

	return w < ENG_VERDICTS ? names[w] : "?";
}

void eng_init(struct eng_vcpu *v, const struct eng_cfg *cfg, struct eng_fault *faults)
{
	ASSERT(cfg->faults_max >= 1 && cfg->faults_max <= ENG_FAULTS_MAX);
	ASSERT(cfg->vcpu_id <= APF_TOKEN_VCPU_MASK);
	*v = (struct eng_vcpu){
		.cfg = *cfg,
		.next_id = 1,
		.faults = faults,
		.issue_head = ENG_NIL,
		.issue_tail = ENG_NIL,
		.ready_head = ENG_NIL,
		.ready_tail = ENG_NIL,
	};
	for (uint32_t i = 0; i < cfg->faults_max; i++)
		faults[i] = (struct eng_fault){
			.ready_next = i + 1 < cfg->faults_max ? i + 1 : ENG_NIL,
		};
}

/* Behind `after`; ENG_NIL: as the first. */
static void issue_insert(struct eng_vcpu *v, uint32_t ix, uint32_t after)
{
	uint32_t before = after == ENG_NIL ? v->issue_head : v->faults[after].next;

	v->faults[ix].prev = after;
	v->faults[ix].next = before;
	if (after == ENG_NIL)
		v->issue_head = ix;
	else
		v->faults[after].next = ix;
	if (before == ENG_NIL)
		v->issue_tail = ix;
	else
		v->faults[before].prev = ix;
}

/* How many ids from now on until this token comes up again. */
static uint32_t ids_until(const struct eng_vcpu *v, uint32_t token)
{
	return ((token >> APF_TOKEN_VCPU_BITS) - v->next_id) & ID_MASK;
}

static void issue_unlink(struct eng_vcpu *v, uint32_t ix)
{
	const struct eng_fault *f = &v->faults[ix];

	if (f->prev == ENG_NIL)
		v->issue_head = f->next;
	else
		v->faults[f->prev].next = f->next;
	if (f->next == ENG_NIL)
		v->issue_tail = f->prev;
	else
		v->faults[f->next].prev = f->prev;
}

uint32_t eng_fault_alloc(struct eng_vcpu *v, gfn_t gfn, uint32_t token)
{
	uint32_t ix = v->free_head;

	ASSERT(ix != ENG_NIL);
	struct eng_fault *f = &v->faults[ix];
	ASSERT(f->state == ENG_FAULT_FREE);
	v->free_head = f->ready_next;
	*f = (struct eng_fault){
		.gfn = gfn.v,
		.token = token,
		.ready_next = ENG_NIL,
		.state = ENG_FAULT_WAITING,
	};
	/*
	 * A token that was issued just now is the last one to come up again. One that is due once
	 * more (eng_take_back) has its place before it; restored ones come in order.
	 */
	uint32_t after = v->issue_tail;

	while (after != ENG_NIL && ids_until(v, v->faults[after].token) > ids_until(v, token))
		after = v->faults[after].prev;
	issue_insert(v, ix, after);
	v->outstanding++;
	return ix;
}

void eng_fault_free(struct eng_vcpu *v, uint32_t index)
{
	struct eng_fault *f = &v->faults[index];

	issue_unlink(v, index);
	f->state = ENG_FAULT_FREE;
	f->token = 0;
	f->ready_next = v->free_head;
	v->free_head = index;
	v->outstanding--;
}

void eng_retire_all(struct eng_vcpu *v)
{
	uint32_t next;

	for (uint32_t ix = v->issue_head; ix != ENG_NIL; ix = next) {
		next = v->faults[ix].next;
		if (v->faults[ix].state == ENG_FAULT_READY)
			eng_fault_free(v, ix);
		else
			v->faults[ix].state = ENG_FAULT_RETIRED;
	}
	v->ready_head = ENG_NIL;
	v->ready_tail = ENG_NIL;
	v->ready_len = 0;
	v->wake_all_due = false;
	v->wake_all_after = 0;
	v->wake_all_in_slot = false;
}

enum eng_verdict eng_cpu_accepts(const struct eng_vcpu *v, const struct cpu_state *cpu)
{
	if (!v->cfg.has_lapic)
		return ENG_NO_LAPIC;
	if (cpu->event_pending || cpu->untaken_token)
		return ENG_EVENT_PENDING;
	if (!cpu->interrupts_on || cpu->shadow)
		return ENG_IRQS_OFF;
	return ENG_MAY_SEND;
}

/* kvm_can_deliver_async_pf: the guest's own conditions. */
static enum eng_verdict guest_accepts(const struct eng_vcpu *v, const struct cpu_state *cpu)
{
	/* legacy and the founding text know neither hidden registers nor the paging test. */
	bool newer = v->cfg.rev == APF_REV_INT || v->cfg.rev == APF_REV_PF2;

	if (!(v->en & APF_EN_SEND_ALWAYS)) {
		if (cpu->cpl == 0 || (newer && cpu->protected_state))
			return ENG_KERNEL_MODE;
	}
	if (cpu->nested)
		return (v->en & APF_EN_PF_VMEXIT) ? ENG_MAY_SEND : ENG_NESTED;
	if (newer && !cpu->paging)
		return ENG_NO_PAGING;
	return ENG_MAY_SEND;
}

/* The previous event must have been consumed; what that means differs. */
static enum eng_verdict slot_accepts(const struct eng_vcpu *v, struct eng_slot slot)
{
	if (!slot.readable)
		return ENG_AREA_LOST;
	if (eng_pf2_wire(v))
		return (v->en & APF_EN_INT) && slot.reason != 0 ? ENG_SLOT_BUSY : ENG_MAY_SEND;
	if (v->cfg.rev == APF_REV_INT) {
		/* A set flag is an event that the handler has not consumed. */
		if (slot.reason != 0)
			return ENG_SLOT_BUSY;
		/*
		 * A wake-all on its way releases every sleeper there is when the guest takes it. A
		 * fault announced in between would be released by it and later by its own token.
		 */
		if (v->wake_all_in_slot && slot.token == APF_TOKEN_WAKE_ALL)
			return ENG_SLOT_BUSY;
	}
	return ENG_MAY_SEND;
}

enum eng_verdict eng_may_send_missing(const struct eng_vcpu *v, const struct cpu_state *cpu,
				      struct eng_slot slot)
{
	enum eng_verdict w;

	if (!eng_enabled(v))
		return ENG_NOT_ENABLED;
	w = eng_cpu_accepts(v, cpu);
	if (w == ENG_MAY_SEND)
		w = guest_accepts(v, cpu);
	if (w == ENG_MAY_SEND)
		w = slot_accepts(v, slot);
	if (w == ENG_MAY_SEND && v->free_head == ENG_NIL)
		w = ENG_TOO_MANY;
	return w;
}

/*
 * token = id << 12 | vCPU id. Never 0 and never the wake-all. After the 20-bit id has
 * wrapped, a token that is still out must not be issued again. The issue list is in the
 * order in which ids come up again, so only its head can clash. A clashing head is passed
 * over for a whole round: it goes to the tail, and the order holds.
 */
static uint32_t next_token(struct eng_vcpu *v)
{
	for (;;) {
		uint32_t id = v->next_id & ID_MASK;
		uint32_t head = v->issue_head;
		uint32_t token;

		if (id == 0)
			id = 1;
		v->next_id = (id + 1) & ID_MASK;
		token = id << APF_TOKEN_VCPU_BITS | v->cfg.vcpu_id;
		if (head != ENG_NIL && v->faults[head].token == token) {
			issue_unlink(v, head);
			issue_insert(v, head, v->issue_tail);
			continue;
		}
		/* The last that was sent may be in the slot: nobody says that it was read. */
		if (token != APF_TOKEN_WAKE_ALL && token != v->sent_token)
			return token;
	}
}

uint32_t eng_send_missing(struct eng_vcpu *v, gfn_t gfn, struct eng_event *ret_ev)
{
	uint32_t token = next_token(v);
	uint32_t ix = eng_fault_alloc(v, gfn, token);

	*ret_ev = (struct eng_event){
		.store = {.off = 0, .len = 4, .value = APF_REASON_MISSING},
		.how = ENG_HOW_PF,
		.token = token,
		.gfn = gfn,
	};
	if (eng_pf2_wire(v)) {
		ret_ev->store.len = 8;
		ret_ev->store.value = (uint64_t)token << 32 | APF_REASON_MISSING;
	}
	return ix;
}

/* Its page is not there yet, and somebody is owed its page ready. */
static bool in_flight(const struct eng_fault *f)
{
	return f->state == ENG_FAULT_WAITING || f->state == ENG_FAULT_HALTED;
}

/* The gfn set of the founding text: a second halt for the same page is no second fault. */
static bool gfn_in_flight(const struct eng_vcpu *v, gfn_t gfn)
{
	for (uint32_t ix = v->issue_head; ix != ENG_NIL; ix = v->faults[ix].next)
		if (in_flight(&v->faults[ix]) && v->faults[ix].gfn == gfn.v)
			return true;
	return false;
}

enum eng_halt eng_halt(struct eng_vcpu *v, const struct cpu_state *cpu, struct eng_slot slot,
		       gfn_t gfn, uint32_t *ret_index)
{
	bool by_slot = eng_enabled(v) && eng_ready_by_irq(v);

	if (v->cfg.rev != APF_REV_PF2_STRICT || eng_cpu_accepts(v, cpu) != ENG_MAY_SEND)
		return ENG_HALT_SILENT;
	if (by_slot && (!slot.readable || slot.reason != 0))
		return ENG_HALT_SILENT;
	if (gfn_in_flight(v, gfn))
		return ENG_HALT_JOINED;
	if (v->free_head == ENG_NIL)
		return ENG_HALT_SILENT;
	*ret_index = eng_fault_alloc(v, gfn, next_token(v));
	v->faults[*ret_index].state = ENG_FAULT_HALTED;
	return ENG_HALT_ENTERED;
}

static uint32_t waiting_from(const struct eng_vcpu *v, uint32_t ix)
{
	while (ix != ENG_NIL && !in_flight(&v->faults[ix]))
		ix = v->faults[ix].next;
	return ix;
}

uint32_t eng_first_waiting(const struct eng_vcpu *v)
{
	return waiting_from(v, v->issue_head);
}

uint32_t eng_next_waiting(const struct eng_vcpu *v, uint32_t index)
{
	return waiting_from(v, v->faults[index].next);
}
