/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small scopes, all interleavings: 2 vCPUs, 2 tasks each, 2 pages. Depth first over the
 * choices "who is next", "which read ends", "which task runs", by running again from the
 * start; a state that was seen before is not gone into again (state_hash.c). The kernels'
 * start is one fixed order; from then on every choice is tried.
 *
 * What is bounded is said in the result: the number of states, and that time passes only when
 * nobody can go on (a timer does not overtake anybody).
 */
#include "sim/exhaustive.h"

#include <stdlib.h>
#include <string.h>

#include "sim/world.h"

#define DEPTH_MAX 4096u
#define EVENTS_MAX 20000u

struct explorer {
	unsigned char choice[DEPTH_MAX], of[DEPTH_MAX];
	unsigned len, pos;
	uint64_t *seen; /* open addressing; 0: free */
	uint64_t mask;
	uint64_t round_robin;
	bool started; /* choices are tried */
	struct sim_explored *ret;
};

static unsigned pick(void *ctx, struct sim *w, unsigned n)
{
	struct explorer *x = ctx;

	(void)w;
	if (!x->started)
		return (unsigned)(x->round_robin++ % n);
	if (x->pos == DEPTH_MAX) {
		x->ret->cut = true;
		return 0;
	}
	if (x->pos == x->len) {
		x->choice[x->len] = 0;
		x->of[x->len] = (unsigned char)n;
		x->len++;
	}
	return x->choice[x->pos++];
}

/* True when the state is new. */
static bool is_new(struct explorer *x, uint64_t hash)
{
	uint64_t at = hash & x->mask;

	hash |= 1; /* 0 is free */
	while (x->seen[at] && x->seen[at] != hash)
		at = (at + 1) & x->mask;
	if (x->seen[at] == hash)
		return false;
	x->seen[at] = hash;
	x->ret->states++;
	return true;
}

/* Events are on everywhere and the wake-alls of the start are through. */
static bool all_up(const struct sim *w)
{
	for (unsigned i = 0; i < w->cfg.vcpus; i++) {
		const struct sim_vcpu *v = &w->vcpus[i];

		if (!v->up || v->chk.wake_all_owed || v->chk.eoi_due || v->cpu.pf.kind ||
		    sim_area(v)->reason || v->cpu.in_service ||
		    (w->cfg.rev == APF_REV_INT && sim_area(v)->token))
			return false;
	}
	return true;
}

/* The tasks may run: a timer interrupt tells the processors. */
static void start(struct explorer *x, struct sim *w)
{
	x->started = true;
	w->hold = false;
	for (unsigned i = 0; i < w->cfg.vcpus; i++)
		sim_cpu_irq(&w->vcpus[i], SIM_VECTOR_TICK);
}

static void run_once(struct explorer *x, struct sim *w, const struct sim_cfg *c)
{
	x->started = false;
	x->round_robin = 0;
	x->pos = 0;
	w->pick = pick;
	w->pick_ctx = x;
	sim_begin(w, c);
	w->hold = true;
	while (!w->verdict.broken && !sim_quiet(w)) {
		if (!x->started && all_up(w))
			start(x, w);
		/* Beyond what is being repeated, a state that was seen leads nowhere new. */
		if (x->started && x->pos == x->len && !is_new(x, sim_state_hash(w)))
			break;
		if (!sim_step(w) || w->events > EVENTS_MAX)
			sim_broken(w, 36, "somebody waits for ever", w->events, 0);
	}
	if (!w->verdict.broken && sim_quiet(w)) {
		x->ret->ends++;
		sim_chk_state(w);
		sim_chk_end(w);
	}
	x->ret->runs++;
	x->ret->events += w->events;
	sim_host_stop(w, w->host);
	w->pick = NULL;
}

/* The next untried choice, the deepest first. False: all were tried. */
static bool next_choice(struct explorer *x)
{
	while (x->len > 0 && x->choice[x->len - 1] + 1 == x->of[x->len - 1])
		x->len--;
	if (x->len == 0)
		return false;
	x->choice[x->len - 1]++;
	return true;
}

static void small_scope(struct sim_cfg *c, enum apf_rev rev)
{
	*c = (struct sim_cfg){
		.faults = HST_FAULTS_USER,
		.rev = rev,
		.vcpus = 2,
		.tasks = 2,
		.pages = 2,
		.accesses = 1,
		.nodes = 8,
		.block_shift = PAGE_SHIFT,
		.faults_max = 4,
		.queue_depth = 4,
		.retries_max = 1,
		.source_timeout_ns = NS_NEVER,
		.source_pages = SIM_PAGE_FIRST + SIM_USED_PAGES,
		.sequential = true,
		.next_id = 1,
	};
}

bool sim_explore(struct sim *w, enum apf_rev rev, uint64_t states_max, struct sim_explored *ret)
{
	struct explorer x = {.ret = ret};
	struct sim_cfg c;
	uint64_t slots = 1024;

	*ret = (struct sim_explored){.runs = 0};
	while (slots < 2 * states_max)
		slots *= 2;
	x.mask = slots - 1;
	x.seen = calloc(slots, sizeof(*x.seen));
	if (!x.seen)
		return false;
	small_scope(&c, rev);
	do {
		run_once(&x, w, &c);
		ret->depth = (uint32_t)max_u64(ret->depth, x.len);
	} while (!w->verdict.broken && ret->states < states_max && next_choice(&x));
	ret->complete = !w->verdict.broken && x.len == 0 && !ret->cut;
	ret->verdict = w->verdict;
	free(x.seen);
	return true;
}
