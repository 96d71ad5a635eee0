/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: who can go on, one of them goes, time passes. First with everything that may
 * break (safety), then with everybody fair (liveness): within a budget of events every task
 * must come to its end and nothing may be left over.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/world.h"

#define STATE_EVERY 128u /* events between two looks at everything */
#define ACTORS_MAX (SIM_VCPUS_MAX + ACTOR_WRITERS + SIM_WRITERS_MAX)

enum {
	ACTOR_LIB,
	ACTOR_EVICT,
	ACTOR_DEVICE,
	ACTOR_VMM,
	ACTOR_DIRECTOR,
	ACTOR_DISCARD,
	ACTOR_HOLDER,
	ACTOR_PLUG,
	ACTOR_OFFER,
	ACTOR_SNAP,
	ACTOR_WRITERS, /* the first of them */
};

void sim_broken(struct sim *w, unsigned invariant, const char *what, uint64_t a, uint64_t b)
{
	struct sim_verdict *v = &w->verdict;

	if (v->broken)
		return;
	v->broken = true;
	v->invariant = invariant;
	(void)snprintf(v->what, sizeof(v->what), "%s (%llx, %llx)", what, (unsigned long long)a,
		       (unsigned long long)b);
	sim_log_add(w->log, w->now_ns, SIM_OP_BROKEN, w->actor < 0 ? SIM_LOG_NOBODY
								   : (unsigned)w->actor, a, b);
}

/* ---- time ---- */

static void ticks(struct sim *w)
{
	if (w->cfg.tick_ns == 0)
		return;
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		struct sim_vcpu *v = &w->vcpus[i];

		if (v->tick_ns > w->now_ns)
			continue;
		v->tick_ns = w->now_ns + w->cfg.tick_ns;
		if (v->cpu.apic_on)
			sim_cpu_irq(v, SIM_VECTOR_TICK);
	}
}

/* What is due by now and still did not make anybody runnable is waited for by nobody. */
static void sooner(const struct sim *w, uint64_t ns, uint64_t *next)
{
	if (ns > w->now_ns && ns < *next)
		*next = ns;
}

static uint64_t next_ns(const struct sim *w)
{
	uint64_t next = NS_NEVER;

	sooner(w, timers_next_ns(&w->host->hst.timers), &next);
	sooner(w, sim_io_next_ns(w->host), &next);
	sooner(w, w->host->lib_late_ns, &next);
	sooner(w, w->resume_ns, &next);
	if (w->cfg.evict)
		sooner(w, w->host->evict.look_ns, &next);
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct sim_vcpu *v = &w->vcpus[i];

		sooner(w, v->busy_until_ns, &next);
		sooner(w, v->late_until_ns, &next);
		if (w->cfg.tick_ns && v->cpu.apic_on)
			sooner(w, v->tick_ns, &next);
	}
	if (!w->fair && w->cfg.faults_on)
		sooner(w, w->director_ns, &next);
	if (!w->fair && (w->cfg.faults_on >> SIM_FAULT_DEVICE & 1))
		sooner(w, w->device.due_ns, &next);
	sooner(w, sim_vmm_threads_next_ns(w), &next);
	return next;
}

/* ---- who is next ---- */

static unsigned runnable(const struct sim *w, unsigned char *who)
{
	unsigned n = 0;

	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		if (sim_vcpu_runnable(&w->vcpus[i]))
			who[n++] = (unsigned char)i;
	if (sim_lib_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_LIB;
	if (sim_evict_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_EVICT;
	if (sim_device_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_DEVICE;
	if (sim_vmm_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_VMM;
	if (!w->fair && w->cfg.faults_on && w->director_ns <= w->now_ns)
		who[n++] = SIM_VCPUS_MAX + ACTOR_DIRECTOR;
	if (sim_discard_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_DISCARD;
	if (sim_holder_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_HOLDER;
	if (sim_plug_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_PLUG;
	if (sim_offer_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_OFFER;
	if (sim_snap_runnable(w))
		who[n++] = SIM_VCPUS_MAX + ACTOR_SNAP;
	for (unsigned i = 0; i < w->cfg.writers; i++)
		if (sim_writer_runnable(w, i))
			who[n++] = (unsigned char)(SIM_VCPUS_MAX + ACTOR_WRITERS + i);
	return n;
}

static void act(struct sim *w, unsigned who)
{
	if (who < SIM_VCPUS_MAX) {
		w->actor = (int)who;
		sim_vcpu_step(&w->vcpus[who]);
		return;
	}
	w->actor = -1;
	switch (who - SIM_VCPUS_MAX) {
	case ACTOR_LIB:
		sim_lib_step(w);
		break;
	case ACTOR_EVICT:
		sim_evict_step(w);
		break;
	case ACTOR_DEVICE:
		sim_device_step(w);
		break;
	case ACTOR_VMM:
		sim_vmm_step(w);
		break;
	case ACTOR_DIRECTOR:
		sim_faults_step(w);
		break;
	case ACTOR_DISCARD:
		sim_discard_step(w);
		break;
	case ACTOR_HOLDER:
		sim_holder_step(w);
		break;
	case ACTOR_PLUG:
		sim_plug_step(w);
		break;
	case ACTOR_OFFER:
		sim_offer_step(w);
		break;
	case ACTOR_SNAP:
		sim_snap_step(w);
		break;
	default:
		sim_writer_step(w, who - SIM_VCPUS_MAX - ACTOR_WRITERS);
	}
}

/* One event. False: nobody can go on, ever. */
bool sim_step(struct sim *w)
{
	unsigned char who[ACTORS_MAX];
	unsigned n;

	ticks(w);
	n = runnable(w, who);
	if (n == 0) {
		/* Time passes: an event too, or ticks for nobody would go on for ever. */
		w->now_ns = next_ns(w);
		if (w->now_ns == NS_NEVER)
			return false;
	} else {
		act(w, who[sim_pick(w, n)]);
		w->now_ns += sim_rnd(w, w->cfg.step_ns + 1);
	}
	w->events++;
	w->log->events++;
	if (w->events % STATE_EVERY == 0)
		sim_chk_state(w);
	return true;
}

/* ---- a run ---- */

static void begin(struct sim *w, const struct sim_cfg *c)
{
	struct sim_log *log = w->log;

	w->cfg = *c;
	prng_init(&w->rng, c->seed ^ 0x5eed5eed5eed5eedull);
	w->now_ns = NS_PER_S;
	w->events = 0;
	w->fair = false;
	w->hold = false;
	w->next_value = 1ull << 32;
	w->ready_seq = 0;
	w->director_ns = w->now_ns;
	w->resume_ns = NS_NEVER;
	w->paused = false;
	w->job = SIM_VMM_NONE;
	w->present_fails = 0;
	w->unmap_fails = 0;
	w->vmm_pump = (struct sim_pump){.shows = false};
	w->vmm_pumping = false;
	w->device = (struct sim_device){.due_ns = w->now_ns};
	for (unsigned i = 0; i < SIM_WRITERS_MAX; i++)
		w->writers[i] = (struct sim_writer){.due_ns = w->now_ns};
	w->discard = (struct sim_discard){.t.due_ns = w->now_ns};
	w->holder = (struct sim_holder){.t.due_ns = w->now_ns};
	w->plug = (struct sim_plug){.d.t.due_ns = w->now_ns};
	w->offer = (struct sim_offer){.due_ns = w->now_ns};
	sim_snap_init(w);
	w->discarding = false;
	w->counts = (struct sim_counts){0};
	w->actor = -1;
	w->verdict = (struct sim_verdict){.broken = false};
	sim_log_clear(log);
	log->seed = c->seed;
	memset(w->areas, 0, sizeof(w->areas));
	memset(w->areas_expect, 0, sizeof(w->areas_expect));
	w->source_pages = c->source_pages;
	for (uint32_t p = SIM_PAGE_FIRST; p < SIM_PAGE_FIRST + SIM_USED_PAGES; p++) {
		w->image[p] = p < c->source_pages ? 0x1000000u + p : 0;
		w->expect[p] = w->image[p];
	}
}

static void begin_vcpu(struct sim *w, unsigned i)
{
	struct sim_vcpu *v = &w->vcpus[i];
	unsigned char *stack = v->co.stack;
	bool apic_off = sim_has(w, SIM_FAULT_APIC) && sim_chance(w, 2);

	memset(v, 0, sizeof(*v));
	v->w = w;
	v->index = i;
	v->co.stack = stack;
	v->cpu = (struct sim_cpu){.paging = true, .apic_on = !apic_off};
	v->wishes = apic_off ? SIM_WISH_APIC_ON : 0;
	v->tick_ns = w->now_ns + w->cfg.tick_ns;
	/* Behind what tasks touch. */
	v->area_page = SIM_PAGE_FIRST + SIM_USED_PAGES - 16;
	v->clock_page = v->area_page + 1;
	v->stack_page = SIM_PAGE_FIRST + SIM_USED_PAGES - 12 + i;
}

void sim_begin(struct sim *w, const struct sim_cfg *c)
{
	begin(w, c);
	for (unsigned i = 0; i < c->vcpus; i++)
		begin_vcpu(w, i);
	w->host = &w->hosts[0];
	sim_host_start(w, w->host);
	sim_host_age(w, w->host);
	sim_guest_init(w);
}

/* Until all tasks are done and the host is quiet, within the budget. */
bool sim_quiet(const struct sim *w)
{
	const struct hst *h = &w->host->hst;

	if (!sim_tasks_done(w) || hst_is_paused(h) || !hst_is_idle(h))
		return false;
	if (h->free_count != h->fetch_count ||
	    w->job != SIM_VMM_NONE || sim_vmm_threads_busy(w))
		return false;
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct eng_vcpu *e = &h->vcpus[i].eng;

		if (e->outstanding || e->wake_all_due || w->vcpus[i].th != SIM_TH_GUEST)
			return false;
	}
	return true;
}

/* Guests whose ticks are short do much in the time that a slow source needs. */
#define LIVE_NS (5 * NS_PER_S)

static void live(struct sim *w)
{
	uint64_t end, end_ns;

	sim_faults_end(w);
	end = w->events + w->cfg.live_events;
	end_ns = sim_strict(w) ? 0 : w->now_ns + LIVE_NS;
	while (!sim_quiet(w) && !w->verdict.broken) {
		for (unsigned i = 0; i < w->cfg.vcpus; i++)
			if (w->vcpus[i].reset && w->job == SIM_VMM_NONE) {
				w->vcpus[i].reset = false;
				sim_vmm_want(w, SIM_VMM_RESET, i);
			}
		if (sim_step(w) && (w->events < end || w->now_ns < end_ns))
			continue;
		if (sim_strict(w)) {
			w->counts.hazards++;
			return;
		}
		sim_broken(w, 36, "somebody waits for ever", w->events < end, 0);
	}
	sim_chk_state(w);
	sim_chk_end(w);
}

static void end_counts(struct sim *w)
{
	w->counts.evicted += w->host->hst.stats.evicted;
	w->counts.swapped += w->host->hst.stats.swapped;
}

void sim_run(struct sim *w, const struct sim_cfg *c, struct sim_verdict *ret,
	     struct sim_counts *ret_counts)
{
	sim_begin(w, c);
	while (w->events < c->safety_events && !w->verdict.broken && !sim_quiet(w))
		if (!sim_step(w))
			break;
	if (!w->verdict.broken)
		live(w);
	end_counts(w);
	sim_host_stop(w, w->host);
	w->counts.events = w->events;
	*ret = w->verdict;
	*ret_counts = w->counts;
}

/* ---- memory ---- */

static size_t space_bytes(void)
{
	const struct hst_cfg most = {
		.faults = HST_FAULTS_USER,
		.vcpus = SIM_VCPUS_MAX,
		.block_shift = PAGE_SHIFT,
		.faults_max = SIM_FAULTS_MAX,
		.queue_depth = SIM_QUEUE_MAX,
		.ahead_max = SIM_AHEAD_MAX,
		.evict = true,
	};

	return hst_bytes(&most, SIM_SPAN_BYTES);
}

struct sim *sim_new(struct sim_log *log)
{
	struct sim *w = calloc(1, sizeof(*w));
	bool ok = w != NULL;

	for (unsigned i = 0; ok && i < ARRAY_LEN(w->hosts); i++) {
		struct sim_host *h = &w->hosts[i];

		h->space_bytes = space_bytes();
		h->space = calloc(1, h->space_bytes);
		h->alias = aligned_alloc(PAGE_BYTES, SIM_SPAN_BYTES);
		ok = h->space && h->alias;
		if (ok)
			memset(h->alias, 0, SIM_SPAN_BYTES);
	}
	for (unsigned i = 0; ok && i < SIM_VCPUS_MAX; i++) {
		w->vcpus[i].co.stack = aligned_alloc(64, SIM_COROUTINE_STACK_BYTES);
		ok = w->vcpus[i].co.stack != NULL;
	}
	if (!ok || !sim_snap_alloc(w)) {
		sim_delete(w);
		return NULL;
	}
	w->log = log;
	return w;
}

void sim_delete(struct sim *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(w->hosts); i++) {
		free(w->hosts[i].space);
		free(w->hosts[i].alias);
	}
	for (unsigned i = 0; i < SIM_VCPUS_MAX; i++)
		free(w->vcpus[i].co.stack);
	sim_snap_free(w);
	free(w);
}
