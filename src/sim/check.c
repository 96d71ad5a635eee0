/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold whenever the driver acts: called from the simulated tables and around every
 * call of the driver. Numbers are those of the specification's invariants; docs/sim.md says
 * for each of them where it is checked. The checkers look at the simulated processor and the
 * guest's memory, not at what the engine believes.
 *
 * A hostile guest can make most of this untrue; then only the host's own safety is looked at
 * (check_state.c). pf2-strict is exempt from what its hazards break.
 */
#include <string.h>

#include "host/block.h"
#include "sim/world.h"

static uint64_t words(const struct sim_vcpu *v)
{
	return *(const uint64_t *)(const void *)sim_area(v);
}

static void must(struct sim_vcpu *v, bool ok, unsigned invariant, const char *what, uint64_t b)
{
	if (__builtin_expect(!ok, 0))
		sim_broken(v->w, invariant, what, v->index, b);
}

static bool by_irq(const struct sim_vcpu *v)
{
	return v->w->cfg.rev != APF_REV_LEGACY;
}

/* The word that says whether the slot is free. */
static uint32_t gate(const struct sim_vcpu *v, uint64_t both)
{
	return v->w->cfg.rev == APF_REV_INT ? (uint32_t)(both >> 32) : (uint32_t)both;
}

bool sim_chk_enabled(const struct sim_vcpu *v)
{
	uint64_t need = APF_EN_ENABLED | (v->w->cfg.rev == APF_REV_INT ? APF_EN_INT : 0);

	return (v->chk.en & need) == need;
}

static struct sim_missing *missing_find(struct sim_vcpu *v, uint32_t token)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (v->chk.missing[i].token == token)
			return &v->chk.missing[i];
	return NULL;
}

void sim_chk_forget(struct sim_vcpu *v)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		v->chk.missing[i].token = 0;
	v->chk.wake_all_owed = false;
	v->chk.unhalted = false;
	v->chk.in_slot = 0;
}

void sim_chk_moved(struct sim_vcpu *v)
{
	v->chk.in_slot = 0;
	v->chk.unhalted = false;
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		v->chk.missing[i].moved = v->chk.missing[i].ready != 0;
}

/* ---- around the driver ---- */

void sim_chk_enter(struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_check_vcpu *c = &w->vcpus[i].chk;

		c->slot = words(&w->vcpus[i]);
		c->before = c->slot;
		c->stalls = sim_hv(&w->vcpus[i])->stats.stalls;
		c->outstanding = sim_hv(&w->vcpus[i])->eng.outstanding;
		c->wrote_en = false;
		c->injected = false;
		c->taken_back = false;
	}
}

void sim_chk_leave(struct sim *w)
{
	sim_page_ios(w);
	if (sim_hostile(w))
		return;
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];
		uint64_t now = words(v);

		if (sim_strict(w))
			sim_chk_strict_leave(v);
		/* What a read leaves in a page that is not there is nobody's event. */
		if (!w->host->visible[v->area_page])
			continue;
		/* pf2: a token without its reason means nothing. */
		if (now != v->chk.slot && v->w->cfg.rev != APF_REV_INT && !gate(v, now) &&
		    !gate(v, v->chk.slot))
			continue;
		/* 23, 39 when events are off, else 7: a word changed without its event. */
		if (now != v->chk.slot && !(v->chk.wrote_en && now == 0) && !sim_strict(w))
			sim_broken(w, sim_chk_enabled(v) ? 7 : 23,
				   "the area changed without an event", i, now);
	}
}

/* ---- page missing, and page ready by #PF ---- */

/* 9: the processor could take it, by its own state. */
static void accepts_pf(struct sim_vcpu *v, bool missing)
{
	const struct sim_cpu *c = &v->cpu;
	const struct sim_cfg *cfg = &v->w->cfg;

	must(v, c->pf.kind == SIM_EV_NONE, 48, "two #PF of ours pend at a time", c->pf.cr2);
	must(v, c->reinject.kind == SIM_EV_NONE, 9, "a #PF on top of a half-delivered event", 0);
	must(v, c->interrupts_on, 9, "a #PF with interrupts off", 0);
	must(v, !c->shadow, 9, "a #PF in an interrupt shadow", 0);
	must(v, sim_chk_enabled(v), 9, "a #PF while events are off", v->chk.en);
	if (!missing)
		return;
	must(v, c->cpl == 3 || cfg->send_always, 9, "page missing at CPL 0", 0);
	must(v, c->paging || cfg->rev == APF_REV_LEGACY || sim_strict(v->w), 9,
	     "page missing with paging off", 0);
	must(v, !cfg->protected_state || cfg->send_always, 9,
	     "page missing where the CPL is hidden", 0);
}

static void missing_sent(struct sim_vcpu *v, uint32_t token)
{
	struct sim_missing *m = missing_find(v, 0);
	uint32_t page = sim_page(sim_hv(v)->fault_off);
	uint64_t now = words(v);

	must(v, token != 0 && token != APF_TOKEN_WAKE_ALL, 2, "a token that means something else",
	     token);
	for (unsigned i = 0; i < v->w->cfg.vcpus; i++)
		must(v, !missing_find(&v->w->vcpus[i], token), 3, "two faults under one token",
		     token);
	if (by_irq(v))
		must(v, (uint32_t)v->chk.slot == 0, v->w->cfg.rev == APF_REV_INT ? 11 : 8,
		     "page missing over an unread word", v->chk.slot);
	if (v->w->cfg.rev == APF_REV_INT)
		must(v, now >> 32 == v->chk.slot >> 32, 8, "page missing changed the token", now);
	else if (by_irq(v))
		must(v, now >> 32 == token, 8, "reason and token were not stored at once", now);
	must(v, (uint32_t)now == APF_REASON_MISSING, 10, "no reason beside the #PF", now);
	must(v, m != NULL, 16, "more faults than faults_max", 0);
	if (m)
		*m = (struct sim_missing){.token = token, .page = page};
	v->w->counts.missing++;
	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_MISSING, v->index, token, page);
}

/* ---- page ready ---- */

/* 6: in the order in which the pages came. */
static bool first_ready(const struct sim_vcpu *v, const struct sim_missing *m)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++) {
		const struct sim_missing *o = &v->chk.missing[i];

		if (o->token && o->ready && o->ready < m->ready)
			return false;
	}
	return m->ready != 0;
}

static void ready_sent(struct sim_vcpu *v, uint32_t token, uint8_t vector)
{
	struct sim_missing *m = missing_find(v, token);

	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_READY, v->index, token, vector);
	v->chk.in_slot = token;
	v->chk.unhalted = true;
	if (token == APF_TOKEN_WAKE_ALL) {
		v->w->counts.wake_alls++;
		if (!sim_strict(v->w))
			sim_chk_forget(v);
		v->chk.wake_all_owed = false;
		v->chk.in_slot = token;
		return;
	}
	v->w->counts.ready++;
	must(v, token != 0 && m != NULL, 4, "page ready without page missing, or twice", token);
	if (!token || !m)
		return;
	/* Taken away again since: then it was there (first_ready), and comes again (45). */
	must(v, m->moved || sim_may_be_gone(v->w, m->page) ||
	     v->w->host->visible[m->page], 0, "page ready before the page is visible", m->page);
	must(v, first_ready(v, m), 6, "page ready out of order", token);
	v->chk.in_slot_page = m->page;
	if (m->moved)
		v->chk.in_slot = 0;
	v->chk.queued = *m;
	m->token = 0;
}

void sim_chk_inject(struct sim_vcpu *v, uint32_t token, enum sim_event_kind *ret_kind)
{
	uint64_t now = words(v);
	bool missing = (uint32_t)now != APF_REASON_READY;

	*ret_kind = missing ? SIM_EV_MISSING : SIM_EV_READY;
	if (sim_hostile(v->w))
		return;
	must(v, !hst_is_paused(&v->w->host->hst), 41, "an event for a VM that stands still", token);
	must(v, v->w->actor == (int)v->index && v->th != SIM_TH_GUEST, 19,
	     "a #PF queued by another thread", token);
	accepts_pf(v, missing);
	if (missing)
		missing_sent(v, token);
	else
		ready_sent(v, token, 0);
	v->chk.injected = true;
	v->chk.slot = now;
}

/* Page ready is due again: as if it had never been sent. */
static void ready_taken_back(struct sim_vcpu *v, uint32_t token)
{
	struct sim_missing *m = missing_find(v, 0);

	if (token == APF_TOKEN_WAKE_ALL) {
		v->chk.wake_all_owed = true;
		v->w->counts.wake_alls--;
		return;
	}
	v->w->counts.ready--;
	if (m && v->chk.queued.token == token)
		*m = v->chk.queued;
}

void sim_chk_cancel(struct sim_vcpu *v)
{
	uint32_t token = (uint32_t)v->cpu.pf.cr2;
	struct sim_missing *m = missing_find(v, token);

	sim_log_add(v->w->log, v->w->now_ns, SIM_OP_CANCEL, v->index, token, 0);
	if (sim_hostile(v->w))
		return;
	v->chk.slot = words(v);
	if (v->cpu.pf.kind == SIM_EV_READY) {
		v->chk.taken_back = true;
		ready_taken_back(v, token);
		return;
	}
	v->chk.taken_back = !m || !m->ready;
	if (m) {
		m->token = 0;
	} else {
		/* A wake-all covers it; its own page ready cannot be out before it was seen. */
		must(v, v->chk.in_slot != token, 48,
		     "page missing is withdrawn, its page ready is not", token);
	}
	v->w->counts.missing--;
}

void sim_chk_irq(struct sim_vcpu *v, uint8_t vector, bool accepted)
{
	uint64_t now = words(v);

	if (!accepted)
		v->w->counts.refused++;
	if (sim_hostile(v->w))
		return;
	must(v, gate(v, v->chk.slot) == 0, 1, "page ready over an unread slot", v->chk.slot);
	must(v, gate(v, now) != 0, 7, "an interrupt before its slot is filled", vector);
	must(v, now >> 32 != 0, 2, "page ready with token 0", now);
	must(v, sim_chk_enabled(v), 23, "an interrupt while events are off", v->chk.en);
	must(v, vector == (v->chk.ctl & APF_CTL_VECTOR_MASK), 7, "not the guest's vector", vector);
	must(v, vector >= 16, 22, "a vector that is an exception's", vector);
	if (v->w->cfg.rev == APF_REV_INT)
		must(v, (uint32_t)now == (uint32_t)v->chk.slot, 8, "page ready changed the flags",
		     now);
	else
		must(v, (uint32_t)now == APF_REASON_READY && (v->chk.ctl & APF_PF2_ENABLED), 47,
		     "the slot is filled while its interrupt is off", now);
	must(v, !hst_is_paused(&v->w->host->hst), 41, "an event for a VM that stands still", now);
	if (!accepted) {
		sim_log_add(v->w->log, v->w->now_ns, SIM_OP_REFUSED, v->index, now >> 32, 0);
		return;
	}
	ready_sent(v, (uint32_t)(now >> 32), vector);
	v->chk.slot = now;
}

/* ---- how the vCPU goes on ---- */

/* int: the guest is yet to find page missing of the token that is due. */
static bool missing_unread(const struct sim_vcpu *v)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;
	bool wake_all = e->wake_all_due && e->wake_all_after == 0;

	return !wake_all && (uint32_t)words(v) == APF_REASON_MISSING &&
	       e->faults[e->ready_head].token == sim_hv(v)->queued.token;
}

/* Something is due and nothing stands in its way: it must be out by now. */
static bool left_lying(const struct sim_vcpu *v)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;
	const struct hst *h = &v->w->host->hst;

	if (!by_irq(v) || (!e->ready_len && !e->wake_all_due))
		return false;
	if (sim_strict(v->w))
		return sim_chk_strict_lying(v);
	if (v->w->cfg.rev != APF_REV_INT && !(v->chk.ctl & APF_PF2_ENABLED))
		return false;
	if (missing_unread(v))
		return false;
	return sim_chk_enabled(v) && v->cpu.apic_on && gate(v, words(v)) == 0 &&
	       (v->chk.ctl & APF_CTL_VECTOR_MASK) >= 16 &&
	       block_kind(h, block_of(h, sim_roff(v->area_page))) == BLOCK_PRESENT;
}

static bool area_is_there(const struct sim_vcpu *v)
{
	const struct hst *h = &v->w->host->hst;

	return sim_hostile(v->w) || sim_strict(v->w) || !sim_chk_enabled(v) ||
	       !eng_enabled(&sim_hv(v)->eng) ||
	       block_kind(h, block_of(h, sim_roff(v->area_page))) == BLOCK_PRESENT;
}

#define FUTILE_MAX 2000u

static void enters(struct sim_vcpu *v)
{
	const struct hst_step *step = &v->step;
	struct sim_check_vcpu *c = &v->chk;

	if (step->entry.how == PLAT_ENTER_HALTED) {
		v->w->counts.stalls++;
		must(v, sim_hostile(v->w) || !c->injected, 14, "halted, and told all the same", 0);
	}
	/* What KVM is in the middle of writes nothing, and what is due may wait for it. */
	if (step->entry.how != PLAT_COMPLETE && !sim_hostile(v->w))
		must(v, !left_lying(v), 31, "a due event was left lying", sim_hv(v)->eng.ready_len);
	/* KVM takes what is in kvm_run for the answer. */
	must(v, sim_hv(v)->phase != HST_PHASE_LOAD && sim_hv(v)->phase != HST_PHASE_WRMSR, 0,
	     "KVM goes on without what it waits for", sim_hv(v)->phase);
	must(v, !v->incomplete || v->msr_done ||
	     (v->exit.kind != PLAT_EXIT_WRMSR && v->exit.kind != PLAT_EXIT_RDMSR), 0,
	     "KVM goes on without what a register holds", v->exit.kind);
	/* Nobody waits for anything, and interrupts that the guest does not expect end it. */
	must(v, step->entry.how != PLAT_ENTER || !v->cpu.halted || !v->cpu.halted_by_host ||
	     sim_hv(v)->phase == HST_PHASE_STALL, 0, "halted by the host, for nothing", 0);
	must(v, step->entry.how == PLAT_COMPLETE || area_is_there(v), 0,
	     "the guest runs before its area is there", v->chk.en);
	/* The guest sees its own stores. */
	must(v, step->entry.how == PLAT_COMPLETE || sim_hv(v)->store_count == 0, 0,
	     "the guest runs before its store is there", sim_hv(v)->store_count);
}

/* KVM must not be asked to map what is not there: it would not come back. */
void sim_chk_ahead(struct sim_vcpu *v)
{
	const struct sim_host *h = v->w->host;

	for (unsigned i = 0; i < v->step.ahead_count; i++) {
		uint32_t page = 0;
		bool ram = sim_gpa_page(v->w, v->step.ahead[i], &page);

		/* Without a memslot it has nothing to do. */
		must(v, !ram || sim_page_left(v->w, page) || h->visible[page] ||
		     sim_shown_late(v->w), 0, "KVM is to map a page that is not there", page);
	}
}

void sim_chk_step(struct sim_vcpu *v)
{
	struct sim_check_vcpu *c = &v->chk;

	if (v->w->now_ns - c->futile_ns > NS_PER_MS) {
		c->futile = 0;
		c->futile_ns = v->w->now_ns;
	}
	/* 48: only both halves of one token, but for a vCPU that goes back to the VMM. */
	must(v, !c->taken_back || v->step.next == HST_DO_RETURN, 48,
	     "an event is withdrawn, and the guest goes on", v->cpu.pf.cr2);
	if (v->step.next == HST_DO_PUMP)
		return;
	c->futile++;
	must(v, c->futile <= FUTILE_MAX, 30, "the vCPU is entered again and again", c->futile);
	if (sim_strict(v->w) && !sim_hostile(v->w))
		sim_chk_strict_step(v);
	if (v->step.next == HST_DO_RUN)
		enters(v);
}

/* It writes without asking: nobody fetches what is not there, and nobody notes what is taken. */
void sim_chk_clock(struct sim_vcpu *v)
{
	uint32_t page;

	/* Without a memslot it does not write. */
	if (!(v->kvm_clock & 1) || sim_shown_late(v->w) || v->clock_left ||
	    !sim_gpa_page(v->w, (gpa_t){v->kvm_clock & ~1ull}, &page) || sim_page_left(v->w, page))
		return;
	must(v, v->clock_there, 0, "the kernel has no place for its clock", v->kvm_clock);
	must(v, v->w->host->visible[page], 0, "the kernel's clock was taken away", v->kvm_clock);
}

void sim_chk_rest(struct sim_vcpu *v)
{
	const struct sim_cpu *c = &v->cpu;

	must(v, c->pf.kind == SIM_EV_NONE, 0, "at rest with an event that the guest has not seen",
	     c->pf.cr2);
	must(v, !c->halted_by_host, 0, "at rest, and halted by the host", 0);
	must(v, sim_hv(v)->phase != HST_PHASE_GRACE && sim_hv(v)->phase != HST_PHASE_STALL, 0,
	     "at rest in the middle of a fault", sim_hv(v)->phase);
	must(v, !v->incomplete || v->exit.kind != PLAT_EXIT_VMM || v->step.result == 0, 0,
	     "at rest before KVM has seen what the VMM did", 0);
	/* Half an instruction is one that has had no effect. */
	must(v, !v->incomplete || (v->exit.kind != PLAT_EXIT_WRMSR &&
				   v->exit.kind != PLAT_EXIT_RDMSR) || !v->msr_done, 0,
	     "at rest in the middle of an instruction", v->exit.kind);
	must(v, !v->incomplete || v->exit.kind != PLAT_EXIT_RAM_IO || !v->io_write ||
	     v->step.result == 0, 0,
	     "at rest in the middle of a store", 0);
}

/* Through the alias: the block must be the driver's to give, not on its way anywhere. */
void sim_chk_host_access(struct sim *w, uint32_t page)
{
	const struct hst *h = &w->host->hst;

	if (block_kind(h, block_of(h, sim_roff(page))) != BLOCK_PRESENT)
		sim_broken(w, 0, "the host accesses a block that is not there", page, 0);
}

/* ---- a block is visible, and nobody knows yet ---- */

void sim_chk_shown(struct sim *w, const struct hst_fetch *f)
{
	uint32_t page = (uint32_t)((uint64_t)f->first << w->cfg.block_shift >> PAGE_SHIFT);
	uint32_t end = page + (f->count << (w->cfg.block_shift - PAGE_SHIFT));

	uint32_t first = page;

	sim_log_add(w->log, w->now_ns, SIM_OP_SHOWN, SIM_LOG_NOBODY, f->block, 0);
	for (; page < end; page++) {
		if (!w->host->visible[page] ||
		    ((f->views & MEM_VIEW_VMM & f->showing) && !w->host->vmm_visible[page]))
			sim_broken(w, 0, "a block counts as visible that is not", page, 0);
		if (sim_page_get(w->host, page) != w->expect[page])
			sim_broken(w, 0, "a block is visible without its content", page,
				   w->expect[page]);
	}
	/* Wanted in the other view as well by now: nobody is told before it is there, too. */
	if (f->views & ~f->showing)
		return;
	for (struct list_link *at = f->waiters.first; at; at = at->next) {
		const struct hst_waiter *x = hst_waiter_of(at);
		struct sim_missing *m;

		if (!x->v || x == &x->v->sync)
			continue;
		m = missing_find(&w->vcpus[x->v->index], x->v->eng.faults[x - x->v->tokens].token);
		if (m && m->token) {
			m->ready = ++w->ready_seq;
			w->vcpus[x->v->index].chk.unhalted = true;
		}
	}
	if (sim_strict(w) && !sim_hostile(w))
		sim_chk_strict_shown(w, first, end);
}

/* ---- registers ---- */

static void en_written(struct sim_vcpu *v, uint64_t value)
{
	struct sim_check_vcpu *c = &v->chk;

	must(v, (value & 0x30) == 0, 22, "reserved bits were accepted", value);
	c->en = value;
	c->wrote_en = true;
	if (!sim_chk_enabled(v)) {
		sim_chk_forget(v);
		return;
	}
	/* 25; pf2: CTL's enabling write brings it when it comes second. */
	c->wake_all_owed = !(value & APF_EN_INT) || v->w->cfg.rev == APF_REV_INT ||
			   (c->ctl & APF_PF2_ENABLED);
	must(v, !c->wake_all_owed || sim_hv(v)->eng.wake_all_due, 25,
	     "no wake-all after an enabling write", value);
	if (!eng_zeroes_area(&sim_hv(v)->eng))
		return;
	must(v, words(v) == 0, 24, "a dirty area after an enabling write", words(v));
	/* What was in it unread is covered by the wake-all, which may follow at once. */
	c->slot = 0;
}

void sim_chk_written(struct sim_vcpu *v, uint32_t msr, uint64_t value, bool gp)
{
	struct sim_check_vcpu *c = &v->chk;

	if (sim_hostile(v->w))
		return;
	if (gp) {
		must(v, sim_strict(v->w) || !memcmp(&c->eng, &sim_hv(v)->eng, sizeof(c->eng)), 20,
		     "a refused write changed something", msr);
		return;
	}
	switch (msr) {
	case APF_MSR_EN:
		en_written(v, value);
		break;
	case APF_MSR_CTL:
		must(v, value < 0x200, 22, "reserved bits were accepted", value);
		c->ctl = value;
		if (v->w->cfg.rev != APF_REV_INT && (value & APF_PF2_ENABLED) && sim_chk_enabled(v))
			c->wake_all_owed = true;
		break;
	default:
		break;
	}
}
