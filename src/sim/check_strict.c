/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pf2-strict to the letter: which halts are faults in the host's books, that their page ready
 * comes though nobody was told of them, and that whatever becomes ready ends a halt. The rules
 * are those of the text, worked out from the simulated processor and the guest's memory.
 */
#include "host/block.h"
#include "sim/world.h"

static void must(struct sim_vcpu *v, bool ok, unsigned invariant, const char *what, uint64_t b)
{
	if (__builtin_expect(!ok, 0))
		sim_broken(v->w, invariant, what, v->index, b);
}

static bool accepts(const struct sim_vcpu *v)
{
	const struct sim_cpu *c = &v->cpu;

	return c->interrupts_on && !c->shadow && c->pf.kind == SIM_EV_NONE &&
	       c->reinject.kind == SIM_EV_NONE && !v->incomplete;
}

/* By the engine's EN: a value that raised #GP is stored in pf2-strict. */
static bool area_is_read(const struct sim_vcpu *v)
{
	const struct hst *h = &v->w->host->hst;

	return eng_area_gpa(sim_hv(v)->eng.en).v == sim_area_gpa(v) &&
	       block_kind(h, block_of(h, sim_roff(v->area_page))) == BLOCK_PRESENT;
}

static bool by_slot(const struct sim_vcpu *v)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;

	return eng_enabled(e) && (e->en & APF_EN_INT);
}

static struct sim_missing *missing_in_flight(struct sim_vcpu *v, uint32_t page)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (v->chk.missing[i].token && !v->chk.missing[i].ready &&
		    v->chk.missing[i].page == page)
			return &v->chk.missing[i];
	return NULL;
}

static struct sim_missing *missing_free(struct sim_vcpu *v)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (!v->chk.missing[i].token)
			return &v->chk.missing[i];
	return NULL;
}

static const struct eng_fault *halted_for(const struct sim_vcpu *v, uint32_t page)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;

	for (uint32_t i = e->issue_head; i != ENG_NIL; i = e->faults[i].next)
		if (e->faults[i].state == ENG_FAULT_HALTED &&
		    e->faults[i].gfn == sim_gpa(v->w, page).v >> PAGE_SHIFT)
			return &e->faults[i];
	return NULL;
}

/* The driver has just decided to halt the vCPU. */
static void stalled(struct sim_vcpu *v)
{
	uint32_t page = sim_page(sim_hv(v)->fault_off);
	const struct eng_fault *f = halted_for(v, page);
	bool queued = accepts(v) &&
		      (!by_slot(v) || (area_is_read(v) && (uint32_t)v->chk.before == 0));
	struct sim_missing *m;

	v->chk.halt_by_text = queued;
	if (missing_in_flight(v, page))
		return;
	if (!queued) {
		must(v, !f, 0, "a fault that had to wait is in the books", page);
		return;
	}
	if (!f) {
		v->chk.halt_by_text = false;
		must(v, v->chk.outstanding == v->w->cfg.faults_max, 0,
		     "a fault that halts is not in the books", page);
		return;
	}
	m = missing_free(v);
	must(v, m != NULL, 16, "more faults than faults_max", 0);
	if (m)
		*m = (struct sim_missing){.token = f->token, .page = page, .halted = true};
}

void sim_chk_strict_step(struct sim_vcpu *v)
{
	struct sim_check_vcpu *c = &v->chk;
	enum plat_enter how = v->step.entry.how;

	if (v->w->cfg.faults != HST_FAULTS_USER)
		return;
	if (sim_hv(v)->stats.stalls != c->stalls)
		stalled(v);
	if (v->step.next != HST_DO_RUN || how == PLAT_COMPLETE)
		return;
	must(v, !c->unhalted || !c->halt_by_text ||
	     !(how == PLAT_ENTER_HALTED || (how == PLAT_ENTER && v->cpu.halted_by_host)), 29,
	     "the vCPU stays halted though something became ready", 0);
	must(v, !c->unhalted || how != PLAT_ENTER || !v->cpu.halted || v->cpu.halted_by_host, 29,
	     "a HLT goes on though something became ready", 0);
	c->unhalted = false;
}

/* Where a page ready that is due may end without an event. */
static bool may_be_dropped(const struct sim_vcpu *v, const struct sim_missing *m)
{
	/* S1, S8: the slot is filled, and nobody told. */
	if (v->chk.before >> 32 != m->token && *(const uint64_t *)(const void *)sim_area(v) ==
	    ((uint64_t)m->token << 32 | APF_REASON_READY))
		return true;
	return !eng_enabled(&sim_hv(v)->eng) || (!by_slot(v) && !area_is_read(v));
}

void sim_chk_strict_leave(struct sim_vcpu *v)
{
	const struct eng_vcpu *e = &sim_hv(v)->eng;

	for (unsigned k = 0; k < SIM_FAULTS_MAX; k++) {
		struct sim_missing *m = &v->chk.missing[k];
		uint32_t i = e->issue_head;

		if (!m->token || !m->halted)
			continue;
		while (i != ENG_NIL && (e->faults[i].token != m->token ||
					e->faults[i].state == ENG_FAULT_RETIRED))
			i = e->faults[i].next;
		if (i != ENG_NIL)
			continue;
		must(v, may_be_dropped(v, m), 0, "the page ready of a fault that halted is lost",
		     m->token);
		m->token = 0;
	}
}

void sim_chk_strict_shown(struct sim *w, uint32_t page, uint32_t end)
{
	for (; page < end; page++)
		for (unsigned i = 0; i < w->cfg.vcpus; i++) {
			struct sim_missing *m = missing_in_flight(&w->vcpus[i], page);

			must(&w->vcpus[i], !m || !m->halted, 0,
			     "the page of a fault that halted came, and it was not told", page);
		}
}

bool sim_chk_strict_lying(const struct sim_vcpu *v)
{
	const struct cpu_state *known = &sim_hv(v)->cpu;
	uint32_t word = sim_area(v)->reason;

	/* A driver that has not seen the CPU yet, as after a migration, looks at the next exit. */
	if (!known->interrupts_on || known->shadow || known->event_pending)
		return false;
	if (!accepts(v) || !by_slot(v) || !area_is_read(v) || word != 0)
		return false;
	return v->cpu.apic_on || !(sim_hv(v)->eng.ctl & APF_PF2_ENABLED);
}
