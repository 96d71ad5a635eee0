/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold in the guest: each #PF is what it is taken for, nobody wakes before his page
 * is readable, the words of the area are only ever cleared, in the right order.
 */
#include "sim/world.h"

static void must(struct sim_vcpu *v, bool ok, unsigned invariant, const char *what, uint64_t b)
{
	if (__builtin_expect(!ok, 0) && !sim_hostile(v->w))
		sim_broken(v->w, invariant, what, v->index, b);
}

static struct sim_missing *missing_of(struct sim_vcpu *v, uint32_t token)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (v->chk.missing[i].token == token)
			return &v->chk.missing[i];
	return NULL;
}

void sim_chk_guest_pf(struct sim_vcpu *v, const struct sim_event *ev, enum gst_pf got,
		      uint32_t token, bool may_sleep)
{
	enum gst_pf want = ev->kind == SIM_EV_MISSING ? GST_PF_MISSING
			   : ev->kind == SIM_EV_READY ? GST_PF_DONE
						      : GST_PF_REAL;
	struct sim_missing *m;

	v->chk.futile = 0;
	if (sim_strict(v->w) && want == GST_PF_REAL && got == GST_PF_DONE) {
		/* S2: a real fault swallowed an event. */
		v->w->counts.hazards++;
		return;
	}
	must(v, got == want, want == GST_PF_REAL ? 10 : 10, "a #PF is taken for another", got);
	if (got != GST_PF_MISSING)
		return;
	must(v, token == (uint32_t)ev->cr2, 10, "page missing with another's token", token);
	must(v, may_sleep && v->current, 12, "page missing where nobody may sleep", token);
	if (!v->current)
		return;
	m = missing_of(v, token);
	/* None: it came with a migration by registers, whose wake-all covers it. */
	v->current->orphan = !m;
	if (!m)
		return;
	must(v, !m->taken, 5, "page missing taken twice", token);
	m->taken = true;
}

void sim_chk_guest_wake(struct sim_vcpu *v, const struct sim_task *t)
{
	v->chk.futile = 0;
	must(v, t->state == SIM_TASK_SLEEPS, 33, "a task is woken that does not sleep", t->id);
	/* An orphan may share its token with a newer fault: it touches its page again. */
	if (v->chk.in_slot != t->token || t->orphan)
		return;
	must(v, t->page == v->chk.in_slot_page, 40, "a task wakes for another's page", t->page);
	must(v, sim_may_be_gone(v->w, t->page) || v->w->host->visible[t->page], 0,
	     "a task wakes before its page is readable", t->page);
}

void sim_chk_guest_words(struct sim_vcpu *v, uint64_t before)
{
	uint64_t now = *(const uint64_t *)(const void *)sim_area(v);

	must(v, (uint32_t)now == (uint32_t)before || (uint32_t)now == 0, 38,
	     "the guest wrote its reason word", now);
	must(v, now >> 32 == before >> 32 || now >> 32 == 0, 38, "the guest wrote its token word",
	     now);
}

void sim_chk_guest_ack(struct sim_vcpu *v)
{
	v->chk.futile = 0;
	must(v, sim_area(v)->token == 0, 37, "acknowledged before the slot is free",
	     sim_area(v)->token);
}

void sim_chk_guest_ready(struct sim_vcpu *v)
{
	/* The next event may be there already: an acknowledgement that is an exit is a look. */
	must(v, v->acks == (v->gst.rev == APF_REV_INT), 37, "not one acknowledgement", v->acks);
}

void sim_chk_guest_rdmsr(struct sim_vcpu *v, uint32_t msr, uint64_t value)
{
	uint64_t want = msr == APF_MSR_EN    ? v->chk.en
			: msr == APF_MSR_CTL ? v->chk.ctl
					     : 0;

	if (sim_strict(v->w) && msr == APF_MSR_EN)
		return; /* it keeps a value that it refused */
	must(v, value == want, 21, "a register reads back another value", value);
}
