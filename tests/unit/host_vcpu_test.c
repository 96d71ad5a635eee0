/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/vcpu.c: one fault from the exit to the decision how to go on, in each way of
 * serving it; registers; kicks.
 */
#include "host_fixture.h"

#define MS NS_PER_MS
#define US NS_PER_US

static struct rig *open_faults(enum hst_faults faults)
{
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_OFF);

	return rig_open(&cfg);
}

static struct rig *open_grace(uint64_t grace_ns)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);

	x->h.cfg.grace_ns = grace_ns;
	grace_init(&x->h.ram.inline_backings[0].grace);
	return x;
}

/* ---- block ---- */

static void block_waits_outside_until_the_page_is_there(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_BLOCK, HST_FAULTS_KERNEL};

	(void)state;
	for (unsigned m = 0; m < 2; m++) {
		struct rig *x = open_faults(modes[m]);

		assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
		assert_int_equal(x->until, NS_NEVER);
		assert_int_equal(rig_v(x, 0)->where, HST_IN_WAIT);
		x->now += 3 * MS;
		assert_int_equal(rig_next(x, 0), HST_WAIT); /* woken for no reason */
		assert_int_equal(x->until, NS_NEVER);
		rig_bring(x, 5);
		assert_int_equal(x->counts[RIG_KICK], 1);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(rig_v(x, 0)->where, HST_IN_GUEST);
		assert_int_equal(rig_v(x, 0)->stats.blocked, 1);
		assert_int_equal(rig_v(x, 0)->stats.graced, 0);
		assert_int_equal(rig_v(x, 0)->stats.stalls, 0);
		assert_int_equal(rig_v(x, 0)->stats.host_wait_ns, 3 * MS);
		assert_int_equal(rig_v(x, 0)->wait_hist[hist_bucket(3000)], 1);
		rig_close(x);
	}
}

/* ---- stall ---- */

static void stall_halts_until_the_page_is_there(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(rig_v(x, 0)->where, HST_IN_GUEST);
	/* A kick for something else: it stays halted. */
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_STALL);
	x->now += 2 * MS;
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(rig_v(x, 0)->stats.stalls, 1);
	assert_int_equal(rig_v(x, 0)->stats.stall_why[ENG_NOT_ENABLED], 1);
	assert_int_equal(rig_v(x, 0)->stats.host_wait_ns, 2 * MS);
	assert_int_equal(rig_v(x, 0)->stats.blocked + rig_v(x, 0)->stats.graced, 0);
	rig_close(x);
}

static void an_interrupt_ends_a_stall(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	x->now += MS;
	/* The handler ran and scheduled another task, which touches another page. */
	assert_int_equal(rig_fault_next(x, 0, 6), HST_ENTER_HALTED);
	assert_int_equal(rig_v(x, 0)->stats.host_wait_ns, MS);
	/* The first one's page does not end this stall. */
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 0);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_bring(x, 6);
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	/* And it does not disturb a guest that has gone on. */
	assert_int_equal(rig_fault_next(x, 0, 7), HST_ENTER_HALTED);
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	rig_bring(x, 7);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_fault_next(x, 0, 7), HST_ENTER); /* redundant by now */
	assert_int_equal(rig_v(x, 0)->stats.redundant, 1);
	rig_close(x);
}

static void the_task_that_comes_back_joins_its_own_read(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	rig_fault_next(x, 0, 5);
	rig_fault_next(x, 0, 6);
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(rig_v(x, 0)->stats.joined, 1);
	rig_bring(x, 5);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	rig_bring(x, 6);
	rig_close(x);
}

static void a_stall_with_an_event_half_delivered_waits_outside(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	x->vcpus[0].cpu.event_pending = true;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	assert_int_equal(x->until, NS_NEVER);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_STALL);
	assert_int_equal(rig_next(x, 0), HST_WAIT); /* whatever wakes it */
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	rig_close(x);
}

static void so_does_one_that_hits_the_delivery_of_our_own_event(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = rig_open_on(revs[r], 1);

		assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER);
		uint32_t token = x->vcpus[0].untaken;

		/* The handler's stack is absent: entering would only bring the same fault. */
		assert_int_equal(rig_fault_next(x, 0, 6), HST_WAIT);
		assert_int_equal(x->until, NS_NEVER);
		rig_bring(x, 6);
		assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
		assert_int_equal(rig_take_pf(x, 0), token);
		assert_int_equal(rig_v(x, 0)->stats.stall_why[ENG_EVENT_PENDING], 1);
		rig_bring(x, 5);
		rig_close(x);
	}
}

static void a_ready_pf_for_another_task_ends_a_stall(void **state)
{
	struct rig *x = rig_open_on(APF_REV_LEGACY, 1);
	uint32_t token = rig_sleeper(x, 0, 5);

	(void)state;
	x->vcpus[0].cpu.cpl = 0;
	assert_int_equal(rig_fault_next(x, 0, 6), HST_ENTER_HALTED);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_take_pf(x, 0), token);
	/* The fault at hand comes back after it. */
	assert_int_equal(rig_fault_next(x, 0, 6), HST_ENTER_HALTED);
	rig_bring(x, 6);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	rig_close(x);
}

/*
 * Each interrupt that ends a stall leaves a read behind that nobody waits for. A guest with
 * many tasks and a slow source makes any number of them.
 */
static void stalls_given_up_do_not_use_up_the_driver(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_STALL, APF_REV_OFF);
	struct hst_waiter w[HST_OUTSIDE_MAX] = {0};
	uint64_t page = 0;

	(void)state;
	cfg.faults_max = 1;
	struct rig *x = rig_open_pages(&cfg, 1024);

	while (rig_fault_next(x, 0, page) != HST_WAIT)
		assert_true(++page < 1000);
	/* It looks again soon, but not at once, and the guest then touches it again. */
	assert_true(x->until > x->now && x->until <= x->now + 10 * MS);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	x->now = x->until;
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* One that is on its way can be joined, a device and the host find room. */
	assert_int_equal(rig_fault_next(x, 0, 3), HST_ENTER_HALTED);
	for (unsigned i = 0; i < HST_OUTSIDE_MAX; i++)
		assert_false(hst_ensure(&x->h, (roff_t){(800 + i) * PAGE_BYTES}, &w[i]));
	rig_exit(x, 0, false);
	rig_load(rig_v(x, 0), (roff_t){900 * PAGE_BYTES});
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	x->src.answers = RIG_AT_ONCE;
	while (x->src.count)
		rig_answer(x, 0, 0);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_fault(x, 0, page);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_true(rig_present(x, page));
	rig_close(x);
}

/* ---- user: event or stall ---- */

static void each_verdict_stalls_and_is_counted(void **state)
{
	(void)state;
	for (enum eng_verdict w = ENG_NOT_ENABLED; w < ENG_VERDICTS; w++) {
		struct rig *x = rig_open_on(APF_REV_INT, 1);
		struct cpu_state *cpu = &x->vcpus[0].cpu;
		struct hst_vcpu *v = rig_v(x, 0);

		cpu->interrupts_on = w != ENG_IRQS_OFF;
		cpu->event_pending = w == ENG_EVENT_PENDING;
		cpu->cpl = w == ENG_KERNEL_MODE ? 0 : 3;
		cpu->nested = w == ENG_NESTED;
		cpu->paging = w != ENG_NO_PAGING;
		if (w == ENG_NO_LAPIC)
			v->eng.cfg.has_lapic = false;
		if (w == ENG_NOT_ENABLED)
			v->eng.en = 0;
		if (w == ENG_SLOT_BUSY)
			rig_area(x, 0)->reason = 1;
		if (w == ENG_AREA_LOST)
			v->eng.en = (0x99ull << 40) | APF_EN_ENABLED | APF_EN_INT;
		for (uint64_t page = 10; w == ENG_TOO_MANY && page < 18; page++)
			rig_sleeper(x, 0, page);
		assert_int_equal(rig_fault_next(x, 0, 5),
				 w == ENG_EVENT_PENDING ? HST_WAIT : HST_ENTER_HALTED);
		assert_int_equal(v->stats.stalls, 1);
		assert_int_equal(v->stats.stall_why[w], 1);
		assert_int_equal(x->vcpus[0].untaken, 0);
		rig_bring(x, 5);
		rig_exit(x, 0, true);
		assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
		rig_close(x);
	}
}

static void faults_max_is_a_limit_that_comes_and_goes(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);

	(void)state;
	for (uint64_t page = 10; page < 18; page++)
		rig_sleeper(x, 0, page);
	assert_int_equal(rig_fault_next(x, 0, 20), HST_ENTER_HALTED);
	rig_bring(x, 12);
	/* Its own page-ready interrupt is one that ends the halt. */
	rig_take_ready(x, 0);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	rig_sleeper(x, 0, 20);
	assert_int_equal(rig_v(x, 0)->stats.missing_events, 9);
	assert_int_equal(rig_v(x, 0)->stats.stall_why[ENG_TOO_MANY], 1);
	rig_close(x);
}

/* ---- the grace window ---- */

static void a_fast_answer_is_no_event(void **state)
{
	struct rig *x = open_grace(HST_GRACE_AUTO);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	assert_int_equal(x->until, x->now + GRACE_WORTH_NS);
	x->now += GRACE_WORTH_NS - 1;
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->stats.graced, 1);
	assert_int_equal(rig_v(x, 0)->stats.blocked + rig_v(x, 0)->stats.missing_events, 0);
	assert_int_equal(x->counts[RIG_INJECT] + x->counts[RIG_IRQ], 0);
	assert_true(x->h.ram.inline_backings[0].grace.fast > GRACE_ONE * 5 / 8); /* learnt */
	rig_close(x);
}

/* The vCPU thread waits without a time-out of its own: the driver's timer ends it. */
static void the_end_of_the_window_kicks(void **state)
{
	struct rig *x = open_grace(5 * MS);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	timers_run(&x->h.timers, x->now + 5 * MS - 1);
	assert_int_equal(x->counts[RIG_KICK], 0);
	x->now += 5 * MS;
	timers_run(&x->h.timers, x->now);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_take_pf(x, 0);
	rig_bring(x, 5);
	rig_take_ready(x, 0);
	/* Answered in time: no timer stays behind. */
	assert_int_equal(rig_fault_next(x, 0, 6), HST_WAIT);
	rig_bring(x, 6);
	assert_false(timer_armed(&rig_v(x, 0)->wake));
	rig_close(x);
}

static void a_slow_answer_is_an_event_and_is_learnt_once(void **state)
{
	struct rig *x = open_grace(HST_GRACE_AUTO);
	struct grace g = x->h.ram.inline_backings[0].grace;

	(void)state;
	rig_fault_next(x, 0, 5);
	x->now += GRACE_WORTH_NS;
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_take_pf(x, 0);
	grace_sample(&g, NS_NEVER);
	assert_int_equal(x->h.ram.inline_backings[0].grace.fast, g.fast);
	/* A second task on the same page: that read has had its window. */
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER);
	rig_take_pf(x, 0);
	x->now += 5 * MS;
	rig_bring(x, 5);
	assert_int_equal(x->h.ram.inline_backings[0].grace.fast, g.fast);
	assert_int_equal(rig_v(x, 0)->stats.missing_events, 2);
	rig_close(x);
}

static void the_window_shuts_for_a_slow_source_and_opens_again(void **state)
{
	struct rig *x = open_grace(HST_GRACE_AUTO);
	uint64_t page = 5;

	(void)state;
	for (; x->h.ram.inline_backings[0].grace.fast >= GRACE_ONE / 2; page++) {
		assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
		x->now += 10 * MS;
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		rig_take_pf(x, 0);
		rig_bring(x, page);
		rig_take_ready(x, 0);
	}
	assert_true(page > 7 && page < 12);
	/* Shut: told at once; the read itself tells that it has become fast. */
	for (; rig_fault_next(x, 0, page) == HST_ENTER; page++) {
		rig_take_pf(x, 0);
		rig_bring(x, page);
		rig_take_ready(x, 0);
		assert_true(page < 30);
	}
	assert_int_equal(x->until, x->now + GRACE_WORTH_NS);
	rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

static void an_explicit_window_is_kept(void **state)
{
	struct rig *x = open_grace(5 * MS);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	assert_int_equal(x->until, x->now + 5 * MS);
	x->now += 5 * MS - 1;
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	assert_int_equal(x->until, x->now + 1);
	x->now += 1;
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_take_pf(x, 0);
	rig_bring(x, 5);
	rig_take_ready(x, 0);
	assert_int_equal(rig_v(x, 0)->stats.host_wait_ns, 5 * MS);
	/* However often the source has been slow. */
	x->h.ram.inline_backings[0].grace.fast = 0;
	assert_int_equal(rig_fault_next(x, 0, 6), HST_WAIT);
	assert_int_equal(x->until, x->now + 5 * MS);
	rig_bring(x, 6);
	rig_close(x);
}

static void a_window_too_short_to_tell_teaches_nothing(void **state)
{
	struct rig *x = open_grace(GRACE_WORTH_NS / 2);
	struct grace g = x->h.ram.inline_backings[0].grace;

	(void)state;
	rig_fault_next(x, 0, 5);
	x->now += GRACE_WORTH_NS / 2;
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_take_pf(x, 0);
	assert_int_equal(x->h.ram.inline_backings[0].grace.fast, g.fast);
	x->now += GRACE_WORTH_NS / 4;
	rig_bring(x, 5); /* it was fast after all */
	assert_true(x->h.ram.inline_backings[0].grace.fast > g.fast);
	rig_close(x);
}

static void the_read_latency_counts_from_its_own_start(void **state)
{
	struct rig *x = open_grace(HST_GRACE_AUTO);
	struct grace *g = &x->h.ram.inline_backings[0].grace;
	struct hst_waiter w = {0};
	uint32_t before = g->fast;

	(void)state;
	x->h.cfg.queue_depth = 1;
	assert_false(hst_ensure(&x->h, (roff_t){5 * PAGE_BYTES}, &w));
	x->now += MS;
	struct hst_waiter q = {0};
	assert_false(hst_ensure(&x->h, (roff_t){6 * PAGE_BYTES}, &q));
	x->now += MS;
	rig_bring(x, 5);
	assert_true(g->fast < before);
	before = g->fast;
	x->now += 100 * US;
	rig_bring(x, 6); /* waited for its turn, but was read fast */
	assert_true(g->fast > before);
	rig_close(x);
}

/* ---- kicks ---- */

static void a_spurious_kick_changes_nothing(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);

	(void)state;
	rig_pass(x, 0);
	for (unsigned i = 0; i < 3; i++) {
		rig_exit(x, 0, true);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	assert_int_equal(x->log_len, 0);
	rig_close(x);
}

static void one_kick_until_it_has_looked(void **state)
{
	struct rig *x = rig_open_on(APF_REV_LEGACY, 1);

	(void)state;
	for (uint64_t page = 5; page < 9; page++)
		rig_sleeper(x, 0, page);
	rig_bring(x, 5);
	rig_bring(x, 6);
	assert_int_equal(x->counts[RIG_KICK], 1);
	rig_exit(x, 0, true);
	rig_bring(x, 7); /* it is here, and will look by itself */
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_take_pf(x, 0);
	rig_bring(x, 8);
	assert_int_equal(x->counts[RIG_KICK], 2);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->stats.ready_events, 2);
	rig_close(x);
}

static void one_that_waits_is_kicked_once(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_BLOCK);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	hst_pause(&x->h);
	hst_pause(&x->h);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	hst_resume(&x->h);
	assert_int_equal(x->counts[RIG_KICK], 2);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* ---- faults on memory that is there ---- */

static void a_redundant_fault_goes_on(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	rig_populate(x, 5);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER);
	assert_int_equal(rig_pump(x), 0);
	assert_int_equal(rig_v(x, 0)->stats.redundant, 15);
	/* Sixteen in a row: it is shown once more, and not read again. */
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER);
	assert_int_equal(rig_pump(x), 1);
	assert_int_equal(x->counts[RIG_PRESENT], 2);
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(x->h.blocks_present, 1);
	/* A fault on something absent begins the count afresh. */
	for (uint64_t page = 6; page < 8; page++) {
		rig_fault_next(x, 0, page);
		rig_bring(x, page);
		rig_exit(x, 0, true);
		rig_next(x, 0);
		for (unsigned i = 0; i < 10; i++)
			rig_fault_next(x, 0, 5);
		assert_int_equal(rig_pump(x), 0);
	}
	rig_close(x);
}

static void one_that_waits_while_it_is_shown_again_is_served(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);

	(void)state;
	cfg.vcpus = 2;
	struct rig *x = rig_open(&cfg);

	rig_populate(x, 5);
	for (unsigned i = 0; i < 16; i++)
		rig_fault_next(x, 0, 5);
	assert_false(rig_present(x, 5));
	assert_int_equal(rig_fault_next(x, 1, 5), HST_WAIT);
	assert_int_equal(rig_pump(x), 1);
	assert_int_equal(rig_next(x, 1), HST_ENTER);
	rig_close(x);
}

static void a_guest_that_faults_for_ever_is_paused(void **state)
{
	struct rig *x = open_faults(HST_FAULTS_STALL);

	(void)state;
	rig_populate(x, 5);
	for (unsigned i = 0; i < 4095; i++) {
		rig_fault(x, 0, 5);
		rig_pump(x);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	rig_fault(x, 0, 5);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_TROUBLE], 1);
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + 5 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, 4096);
	assert_string_equal(x->trouble.why.text,
			    "the kernel keeps reporting a page as missing that is there");
	hst_resume(&x->h);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* ---- accesses that the host carries out ---- */

static void ram_io_waits_until_it_can_be_carried_out(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	uint64_t data = 5;

	(void)state;
	rig_exit(x, 0, false);
	rig_load(rig_v(x, 0), (roff_t){5 * PAGE_BYTES + 8});
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	assert_int_equal(x->until, NS_NEVER);
	x->now += MS;
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_INJECT], 0); /* half an instruction: never an event */
	assert_int_equal(rig_v(x, 0)->stats.blocked, 1);
	assert_int_equal(rig_v(x, 0)->stats.host_wait_ns, MS);
	rig_exit(x, 0, false);
	rig_load(rig_v(x, 0), (roff_t){5 * PAGE_BYTES});
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->stats.redundant, 1);
	assert_int_equal(rig_v(x, 0)->stats.faults_total, 2);
	assert_int_equal(rig_v(x, 0)->stats.blocked, 1); /* that load waited for nothing */
	rig_exit(x, 0, false);
	hst_ram_io(rig_v(x, 0), (roff_t){6 * PAGE_BYTES},
		   &(struct plat_io){.data = &data, .len = 8, .write = true});
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_bring(x, 6);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->stats.blocked, 2);
	rig_close(x);
}

/* ---- registers ---- */

static void enabling_waits_for_the_area_and_empties_it(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_PF2_STRICT,
					    APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, revs[r]);
		struct rig *x = rig_open(&cfg);
		bool empties = revs[r] == APF_REV_PF2 || revs[r] == APF_REV_INT;

		rig_wrmsr(x, 0, APF_MSR_EN, rig_en(x, 0));
		assert_false(x->vcpus[0].msr_done);
		assert_int_equal(rig_next(x, 0), HST_WAIT);
		assert_int_equal(x->until, NS_NEVER);
		assert_false(eng_enabled(&rig_v(x, 0)->eng));
		rig_bring(x, RIG_AREA_PAGE); /* its content: not zero */
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(x->counts[RIG_MSR], 1);
		assert_false(x->vcpus[0].msr_gp);
		assert_true(eng_enabled(&rig_v(x, 0)->eng));
		assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
		assert_int_equal(rig_v(x, 0)->stats.blocked, 1);
		if (rig_by_irq(x)) {
			assert_int_equal(rig_area(x, 0)->reason, empties ? 0 : 0x01010101);
			assert_int_equal(rig_area(x, 0)->token, empties ? 0 : 0x01010101);
		}
		assert_int_equal(rig_area(x, 0)->pad[0], 0x01010101);
		assert_int_equal(rig_rdmsr(x, 0, APF_MSR_EN), rig_en(x, 0));
		rig_close(x);
	}
}

static void writes_that_do_not_enable_wait_for_nothing(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_wrmsr_ok(x, 0, APF_MSR_EN, RIG_GPA);
	rig_wrmsr_ok(x, 0, APF_MSR_CTL, RIG_VECTOR);
	rig_wrmsr_ok(x, 0, APF_MSR_ACK, 1);
	assert_int_equal(x->counts[RIG_READ], 0);
	assert_int_equal(rig_rdmsr(x, 0, APF_MSR_CTL), RIG_VECTOR);
	assert_int_equal(rig_rdmsr(x, 0, APF_MSR_ACK), 0);
	/* Refused: no such RAM, reserved bits, unknown register. */
	rig_wrmsr(x, 0, APF_MSR_EN, 0x1000 | APF_EN_ENABLED | APF_EN_INT);
	assert_true(x->vcpus[0].msr_done && x->vcpus[0].msr_gp);
	rig_next(x, 0);
	rig_wrmsr(x, 0, APF_MSR_CTL, 0x100);
	assert_true(x->vcpus[0].msr_done && x->vcpus[0].msr_gp);
	rig_next(x, 0);
	rig_exit(x, 0, false);
	hst_rdmsr(rig_v(x, 0), 0x4b564d05);
	assert_true(x->vcpus[0].msr_gp);
	rig_next(x, 0);
	assert_int_equal(rig_rdmsr(x, 0, APF_MSR_EN), RIG_GPA);
	rig_close(x);
}

static void no_registers_without_user_faults(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_STALL, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_wrmsr(x, 0, APF_MSR_CTL, RIG_VECTOR);
	assert_true(x->vcpus[0].msr_gp);
	rig_next(x, 0);
	rig_exit(x, 0, false);
	hst_rdmsr(rig_v(x, 0), APF_MSR_EN);
	assert_true(x->vcpus[0].msr_gp);
	rig_close(x);
}

static void enabling_again_wakes_all_and_rebinds(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);

	(void)state;
	rig_sleeper(x, 0, 9);
	rig_area(x, 0)->token = 0x1234;
	rig_wrmsr_ok(x, 0, APF_MSR_EN, rig_en(x, 0));
	assert_int_equal(rig_take_ready(x, 0), APF_TOKEN_WAKE_ALL);
	assert_int_equal(rig_v(x, 0)->stats.wake_alls, 2);
	rig_bring(x, 9);
	assert_int_equal(rig_v(x, 0)->stats.ready_late, 1);
	assert_int_equal(rig_v(x, 0)->stats.ready_events, 0);
	rig_close(x);
}

static void registers_restored_one_by_one(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_populate(x, RIG_AREA_PAGE);
	rig_area(x, 0)->reason = 0;
	rig_area(x, 0)->token = 0x9000; /* not taken yet when the state was saved */
	assert_false(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_CTL, 0x100));
	assert_false(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_EN, 0x1000 | 9));
	assert_false(hst_vcpu_set_msr(rig_v(x, 0), 0x10, 0));
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_CTL, RIG_VECTOR));
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_EN, rig_en(x, 0)));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_area(x, 0)->token, 0x9000);
	x->vcpus[0].irr = true;
	assert_int_equal(rig_take_ready(x, 0), 0x9000);
	assert_int_equal(rig_take_ready(x, 0), APF_TOKEN_WAKE_ALL);
	rig_close(x);
}

static void the_guest_does_not_run_before_its_area_is_there(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_CTL, RIG_VECTOR));
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_EN, rig_en(x, 0)));
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_answer(x, rig_read_at(x, RIG_AREA_PAGE << PAGE_SHIFT), 0);
	memset(rig_area(x, 0), 0, sizeof(struct apf_area));
	rig_pump(x);
	assert_true(x->vcpus[0].kicked);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_take_ready(x, 0), APF_TOKEN_WAKE_ALL);
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER);
	assert_int_equal(rig_area(x, 0)->reason, APF_REASON_MISSING);
	rig_bring(x, 5);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(block_waits_outside_until_the_page_is_there),
		cmocka_unit_test(stall_halts_until_the_page_is_there),
		cmocka_unit_test(an_interrupt_ends_a_stall),
		cmocka_unit_test(the_task_that_comes_back_joins_its_own_read),
		cmocka_unit_test(a_stall_with_an_event_half_delivered_waits_outside),
		cmocka_unit_test(so_does_one_that_hits_the_delivery_of_our_own_event),
		cmocka_unit_test(a_ready_pf_for_another_task_ends_a_stall),
		cmocka_unit_test(stalls_given_up_do_not_use_up_the_driver),
		cmocka_unit_test(each_verdict_stalls_and_is_counted),
		cmocka_unit_test(faults_max_is_a_limit_that_comes_and_goes),
		cmocka_unit_test(a_fast_answer_is_no_event),
		cmocka_unit_test(the_end_of_the_window_kicks),
		cmocka_unit_test(a_slow_answer_is_an_event_and_is_learnt_once),
		cmocka_unit_test(the_window_shuts_for_a_slow_source_and_opens_again),
		cmocka_unit_test(an_explicit_window_is_kept),
		cmocka_unit_test(a_window_too_short_to_tell_teaches_nothing),
		cmocka_unit_test(the_read_latency_counts_from_its_own_start),
		cmocka_unit_test(a_spurious_kick_changes_nothing),
		cmocka_unit_test(one_kick_until_it_has_looked),
		cmocka_unit_test(one_that_waits_is_kicked_once),
		cmocka_unit_test(a_redundant_fault_goes_on),
		cmocka_unit_test(one_that_waits_while_it_is_shown_again_is_served),
		cmocka_unit_test(a_guest_that_faults_for_ever_is_paused),
		cmocka_unit_test(ram_io_waits_until_it_can_be_carried_out),
		cmocka_unit_test(enabling_waits_for_the_area_and_empties_it),
		cmocka_unit_test(writes_that_do_not_enable_wait_for_nothing),
		cmocka_unit_test(no_registers_without_user_faults),
		cmocka_unit_test(enabling_again_wakes_all_and_rebinds),
		cmocka_unit_test(registers_restored_one_by_one),
		cmocka_unit_test(the_guest_does_not_run_before_its_area_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
