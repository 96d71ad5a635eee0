/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories of memory that is taken away while it is used: every way of serving faults,
 * one to three vCPUs that read and write, devices, threads of the VMM's with their own view, a
 * balloon, memory that is held, a source and a swap file that fail, tear and hang, content that
 * comes unasked, an evictor with its own thread, limits, commands, pins, memory that the kernel
 * fills by itself, jobs that fail in part, pauses. Whoever reads sees what was written last; the
 * limit is kept; then, in a time in which everybody is fair, everybody gets on. Failures name the
 * seed.
 *
 * One episode in detail: EVICT_SEED=n ./host_evict_property_test
 * The actors are host_evict_world.c.
 */
#include <stdio.h>

#include "host_evict_world.h"

#define EPISODES 500u
#define STEPS 400u
#define FAIR_ROUNDS 3000u

static void check(struct world *w)
{
	struct rig *x = w->x;
	const struct hst_evict *ev = &x->h.evict;

	evw_must(w, !rig_broken(&x->h, x->discards), rig_broken(&x->h, x->discards));
	evw_must(w, !rig_swap(x)->broken_drop, "memory was given back that could be seen");
	evw_must(w, w->native || ev->resident <= ev->limit, "the limit was not kept");
	evw_must(w, w->native || hst_resident_bytes(&x->h) >> x->h.cfg.block_shift <= ev->limit,
		 "memory beyond the limit");
}

static void step(struct world *w)
{
	struct rig *x = w->x;

	switch (evw_rnd(w, 20)) {
	case 16:
	case 17:
		evw_thread_step(w);
		break;
	case 18:
		evw_balloon_step(w);
		break;
	case 19:
		evw_hold_step(w);
		break;
	case 0:
	case 1:
		evw_source_step(w);
		break;
	case 2:
	case 3:
		evw_write_step(w);
		break;
	case 4:
	case 5:
	case 6:
		evw_evictor_step(w);
		break;
	case 7:
		evw_device_step(w);
		break;
	case 8:
		evw_visible_step(w);
		break;
	case 9:
		evw_time_step(w);
		break;
	case 10:
		evw_trouble_step(w);
		break;
	case 11:
		evw_offer_step(w);
		break;
	default:
		evw_guest_step(w, (unsigned)evw_rnd(w, x->h.cfg.vcpus));
	}
	if (evw_rnd(w, 4))
		rig_pump(x);
	check(w);
}

/* ---- everybody is fair ---- */

static bool all_done(const struct world *w)
{
	const struct hst *h = &w->x->h;

	for (unsigned c = 0; c < h->cfg.vcpus; c++)
		if (w->cpus[c].parked_len || w->cpus[c].wish.page || w->cpus[c].halted ||
		    w->cpus[c].where != IN_GUEST)
			return false;
	for (unsigned i = 0; i < DEVICES; i++)
		if (w->devices[i].busy)
			return false;
	for (unsigned i = 0; i < THREADS; i++)
		if (w->threads[i].wish.page)
			return false;
	if (w->balloon.at != NO_DISCARD || w->held_page)
		return false;
	return w->evictor == NO_JOB && !hst_evict_wanted(h) && !hst_evict_forced(h) &&
	       h->free_count == h->fetch_count && h->evict.writes_used == 0;
}

static void fair_round(struct world *w)
{
	struct rig *x = w->x;

	while (x->src.count)
		rig_answer(x, 0, 0);
	while (rig_swap(x)->src.count)
		rig_src_answer(&rig_swap(x)->src, 0, 0);
	while (rig_swap(x)->count)
		rig_write_ok(x, 0);
	evw_offer_step(w);
	for (unsigned i = 0; i < 2 * HELD; i++)
		evw_visible_step(w);
	rig_pump(x);
	for (unsigned n = 0; n < 6; n++) {
		evw_evictor_step(w);
		evw_device_step(w);
		evw_thread_step(w);
		evw_balloon_step(w);
		evw_hold_step(w);
		for (unsigned c = 0; c < x->h.cfg.vcpus; c++)
			evw_guest_step(w, c);
		rig_pump(x);
	}
	evw_time_step(w);
	rig_pump(x);
}

static void live(struct world *w)
{
	struct rig *x = w->x;

	w->fair = true;
	w->offers = 40;
	memset(rig_swap(x)->fail, 0, sizeof(rig_swap(x)->fail));
	x->mem_faults = (struct rig_mem_faults){0};
	x->src.answers = rig_swap(x)->src.answers = RIG_LATER;
	x->src.cancels = rig_swap(x)->src.cancels = RIG_CANCEL_ENDS;
	for (unsigned rounds = 0; !all_done(w) && !w->broken; rounds++) {
		if (hst_is_paused(&x->h))
			hst_resume(&x->h);
		fair_round(w);
		check(w);
		evw_must(w, rounds < FAIR_ROUNDS, "somebody waits for ever");
	}
	evw_must(w, !hst_is_paused(&x->h), "paused for nothing");
	x->src.answers = rig_swap(x)->src.answers = RIG_AT_ONCE;
	for (uint64_t p = 1; p < PAGES && !w->broken; p++) {
		struct hst_waiter o = {.v = NULL};

		while (!hst_ensure(&x->h, (roff_t){p << PAGE_SHIFT}, &o))
			while (o.fetch)
				fair_round(w);
		evw_must(w, rig_right(x, p), "a page does not hold what was written last");
	}
}

/* ---- episodes ---- */

static void begin(struct world *w, uint64_t seed)
{
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_USER, HST_FAULTS_BLOCK,
						HST_FAULTS_STALL, HST_FAULTS_KERNEL};
	struct hst_cfg cfg;
	bool source;
	uint64_t blocks;

	*w = (struct world){0};
	prng_init(&w->rng, seed);
	cfg = rig_cfg(modes[evw_rnd(w, ARRAY_LEN(modes))], APF_REV_INT);
	cfg.vcpus = (uint32_t)(1 + evw_rnd(w, 3));
	cfg.block_shift = evw_rnd(w, 4) ? 12 : 13;
	cfg.faults_max = (uint32_t)(1 + evw_rnd(w, PARKED));
	cfg.queue_depth = (uint32_t)(1 + evw_rnd(w, 6));
	cfg.retries_max = (uint32_t)evw_rnd(w, 3);
	cfg.grace_ns = evw_rnd(w, 2) ? 0 : HST_GRACE_AUTO;
	cfg.source_timeout_ns = evw_rnd(w, 2) ? NS_NEVER : 20 * NS_PER_MS;
	source = evw_rnd(w, 2);
	blocks = PAGES >> (cfg.block_shift - PAGE_SHIFT);
	w->native = !source && cfg.block_shift == PAGE_SHIFT;
	w->x = rig_swap_open(&cfg, PAGES, source,
			     evw_rnd(w, 4) ? hst_blocks_min(cfg.vcpus) + evw_rnd(w,
				     blocks / 4) : 0);
	for (unsigned c = 0; c < cfg.vcpus; c++) {
		if (cfg.faults == HST_FAULTS_USER)
			rig_enable(w->x, c);
		else
			rig_pass(w->x, c);
		evw_schedule(w, &w->cpus[c]);
	}
}

/* NULL, or the promise that was broken. */
static const char *episode(struct world *w, uint64_t seed)
{
	begin(w, seed);
	for (unsigned i = 0; i < STEPS && !w->broken; i++)
		step(w);
	if (!w->broken)
		live(w);
	return w->broken;
}

static void random_histories_keep_the_promises(void **state)
{
	const char *one = getenv("EVICT_SEED");
	uint64_t first = one ? strtoull(one, NULL, 0) : 1, checked = 0;
	struct hst_stats sum = {0}, s;
	struct world w;

	(void)state;
	for (uint64_t seed = first; seed < (one ? first + 1 : EPISODES + 1); seed++) {
		const char *what = episode(&w, seed);

		if (what)
			fail_msg("EVICT_SEED=%llu: %s", (unsigned long long)seed, what);
		hst_stats_sum(&w.x->h, &s);
		sum.evicted += s.evicted;
		sum.rescued += s.rescued;
		sum.refaulted += s.refaulted;
		sum.swapped += s.swapped;
		sum.offered += s.offered;
		sum.discarded += s.discarded;
		sum.vmm_touches += s.vmm_touches;
		checked += w.checked;
		rig_free(w.x);
	}
	print_message("pages looked at %llu, evicted %llu, written out %llu, rescued %llu, "
		      "fetched again %llu, offered %llu, discarded %llu, touches of the VMM %llu\n",
		      (unsigned long long)checked,
		      (unsigned long long)sum.evicted, (unsigned long long)sum.swapped,
		      (unsigned long long)sum.rescued, (unsigned long long)sum.refaulted,
		      (unsigned long long)sum.offered, (unsigned long long)sum.discarded,
		      (unsigned long long)sum.vmm_touches);
	/* A walk on which nothing is taken away proves nothing. */
	assert_true(one || (sum.evicted > EPISODES && sum.rescued > EPISODES &&
			    sum.refaulted > EPISODES && sum.swapped > EPISODES &&
			    sum.offered > EPISODES && sum.discarded > EPISODES &&
			    sum.vmm_touches > EPISODES));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_histories_keep_the_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
