/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/fetch.c, read.c, show.c, trouble.c, outside.c: reading, trouble, waiters. What the
 * kernel reports is in host_touch_test.c.
 */
#include "host_fixture.h"

#define MS NS_PER_MS

static struct rig *open_depth(enum hst_faults faults, uint32_t depth, unsigned vcpus)
{
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_OFF);

	cfg.queue_depth = depth;
	cfg.vcpus = vcpus;
	return rig_open(&cfg);
}

static bool ensure(struct rig *x, uint64_t page, struct hst_waiter *w)
{
	return hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, w);
}

/* ---- one fetch, its order and its waiters ---- */

static void one_read_however_many_wait(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 4);
	struct hst_waiter w[5] = {0};
	struct hst_stats s;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rig_fault_next(x, i, 7), HST_WAIT);
	for (unsigned i = 0; i < 5; i++)
		assert_false(ensure(x, 7, &w[i]));
	assert_int_equal(x->counts[RIG_READ], 1);
	x->now += 700;
	rig_bring(x, 7);
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(x->counts[RIG_PRESENT], 1);
	assert_int_equal(x->counts[RIG_OUTSIDE], 5);
	assert_int_equal(x->counts[RIG_KICK], 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(rig_next(x, i), HST_ENTER);
	for (unsigned i = 0; i < 5; i++)
		assert_null(w[i].fetch);
	assert_true(ensure(x, 7, &w[0]));
	hst_stats_sum(&x->h, &s);
	assert_int_equal(s.faults_total, 4);
	assert_int_equal(s.joined, 3);
	assert_int_equal(s.blocked, 4);
	assert_int_equal(s.reads, 1);
	assert_int_equal(s.read_bytes, PAGE_BYTES);
	assert_int_equal(s.source_reads, 1);
	assert_int_equal(s.source_read_bytes, PAGE_BYTES);
	assert_int_equal(s.source_read_ns, 700);
	assert_int_equal(s.source_read_max_ns, 700);
	rig_close(x);
}

/* Nobody hears of a block before it is readable, and it is readable with its content. */
static void see_present(struct rig *x, roff_t off, uint64_t len)
{
	assert_int_equal(len, PAGE_BYTES);
	assert_int_equal(x->alias[off.v], rig_byte(off.v));
	assert_int_equal(x->alias[off.v + len - 1], rig_byte(off.v));
	assert_false(rig_present(x, off.v >> PAGE_SHIFT));
	assert_int_equal(x->counts[RIG_OUTSIDE] + x->counts[RIG_KICK] + x->counts[RIG_IRQ], 0);
}

static void see_outside_ready(void *ctx)
{
	struct rig *x = ctx;

	assert_true(rig_present(x, 9));
	rig_log(x, RIG_OUTSIDE, 0, 0, 0);
}

static void content_then_visible_then_present_then_waiters(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	struct hst_waiter w = {0};

	(void)state;
	rig_sleeper(x, 0, 9);
	assert_false(ensure(x, 9, &w));
	assert_int_equal(rig_area(x, 0)->token, 0);
	rig_log_clear(x);
	x->on_present = see_present;
	x->h.hooks.outside_ready = see_outside_ready;
	rig_answer(x, 0, 0);
	assert_int_equal(x->log_len, 0);
	rig_pump(x);
	assert_int_equal(rig_nth(x, RIG_PRESENT, 0), 0);
	/* First come, first served: the task, then the device. */
	assert_true(rig_nth(x, RIG_IRQ, 0) < rig_nth(x, RIG_OUTSIDE, 0));
	rig_close(x);
}

static struct hst_waiter *first, *second;

static void see_first_come_first_served(void *ctx)
{
	struct rig *x = ctx;

	assert_null(first->fetch);
	if (x->counts[RIG_OUTSIDE]++ == 0)
		assert_non_null(second->fetch);
}

static void waiters_are_served_in_order(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 16, 1);
	struct hst_waiter a = {0}, b = {0};

	(void)state;
	first = &a;
	second = &b;
	x->h.hooks.outside_ready = see_first_come_first_served;
	ensure(x, 3, &a);
	ensure(x, 3, &b);
	rig_bring(x, 3);
	assert_int_equal(x->counts[RIG_OUTSIDE], 2);
	rig_close(x);
}

static void forgotten_waiters_are_not_told(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 16, 1);
	struct hst_waiter w[3] = {0};

	(void)state;
	for (unsigned gone = 0; gone < 3; gone++) {
		for (unsigned i = 0; i < 3; i++)
			ensure(x, gone, &w[i]);
		hst_forget(&w[gone]);
		hst_forget(&w[gone]); /* harmless */
		rig_assert_sound(x);
		assert_null(w[gone].fetch);
		rig_bring(x, gone);
		assert_int_equal(x->counts[RIG_OUTSIDE], 2 * (gone + 1));
	}
	/* Nobody waits any more; the block comes all the same. */
	ensure(x, 5, &w[0]);
	hst_forget(&w[0]);
	rig_bring(x, 5);
	assert_true(rig_present(x, 5));
	rig_close(x);
}

/* ---- the queue ---- */

static void reads_in_flight_are_bounded(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 4, 1);
	struct hst_waiter w[20] = {0};

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		ensure(x, i, &w[i]);
	assert_int_equal(x->src.count, 4);
	for (unsigned left = 19; x->src.count > 0; left--) {
		/* Not in order: the last of them first. */
		rig_answer(x, x->src.count - 1, 0);
		assert_int_equal(x->src.count, left < 4 ? left : 4);
	}
	assert_int_equal(x->src.count_max, 4);
	assert_int_equal(rig_pump(x), 20);
	assert_int_equal(x->counts[RIG_OUTSIDE], 20);
	rig_close(x);
}

static void vcpus_take_turns(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 3);
	struct hst_waiter w = {0};

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 15; page++)
		rig_sleeper(x, 0, page);
	rig_sleeper(x, 1, 20);
	rig_sleeper(x, 2, 30);
	ensure(x, 40, &w);
	rig_sleeper(x, 1, 21);
	while (x->src.count)
		rig_answer(x, 0, 0);
	/* The greedy one, which came first, has one read of each round. */
	static const unsigned want[] = {10, 11, 20, 30, 40, 12, 21, 13, 14};

	for (unsigned i = 0; i < ARRAY_LEN(want); i++)
		assert_int_equal(rig_entry(x, RIG_READ, i)->a, want[i] << PAGE_SHIFT);
	rig_pump(x);
	rig_close(x);
}

/* Answers all; the pages in the order in which they were read. */
static void expect_reads(struct rig *x, const unsigned *want, unsigned count)
{
	while (x->src.count)
		rig_answer(x, 0, 0);
	assert_int_equal(x->counts[RIG_READ], count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(rig_entry(x, RIG_READ, i)->a, want[i] << PAGE_SHIFT);
	rig_pump(x);
}

static void kernel_mode_goes_first(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 3);

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 12; page++) {
		rig_sleeper(x, 0, page);
		rig_sleeper(x, 1, page + 10);
	}
	x->vcpus[2].cpu.cpl = 0;
	rig_fault(x, 2, 30);
	rig_exit(x, 1, false);
	rig_load(rig_v(x, 1), (roff_t){40 << PAGE_SHIFT});
	expect_reads(x, (const unsigned[]){10, 30, 40, 20, 11, 21}, 6);
	rig_close(x);
}

/* The same block, asked for by user mode first, and the neighbours in its queue stay in order. */
static void kernel_mode_takes_a_queued_fetch_along(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 3);

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 15; page++)
		rig_sleeper(x, 0, page);
	x->vcpus[2].cpu.cpl = 0;
	rig_fault(x, 2, 14);
	x->vcpus[1].cpu.cpl = 0;
	rig_fault(x, 1, 12);
	rig_sleeper(x, 0, 15);
	expect_reads(x, (const unsigned[]){10, 14, 12, 11, 13, 15}, 6);
	rig_close(x);
}

/* Kernel mode that never stops faulting leaves a read for a device now and then. */
static void kernel_mode_leaves_some_for_others(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 2);
	struct hst_waiter w = {0};
	unsigned reads = 0;

	(void)state;
	x->h.cfg.queue_depth = 1;
	x->vcpus[0].cpu.cpl = 0;
	rig_fault(x, 0, 10);
	x->vcpus[1].cpu.cpl = 0;
	rig_fault(x, 1, 11);
	ensure(x, 60, &w);
	for (unsigned page = 12; w.fetch && page < 50; page++, reads++) {
		unsigned who;

		rig_answer(x, 0, 0);
		rig_pump(x);
		who = rig_v(x, 0)->sync.fetch ? 1 : 0;
		if (rig_v(x, who)->sync.fetch)
			continue;
		rig_next(x, who);
		rig_fault(x, who, page);
	}
	assert_null(w.fetch);
	assert_in_range(reads, 16, 20);
	rig_close(x);
}

static void sources_that_answer_at_once_do_not_recurse(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 1, 1);
	struct hst_waiter w[50] = {0};

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		ensure(x, i, &w[i]);
	x->src.answers = RIG_AT_ONCE; /* the fixture fails on a read within a read */
	rig_answer(x, 0, 0);
	assert_int_equal(rig_pump(x), 50);
	assert_int_equal(x->h.in_flight, 0);
	rig_close(x);
}

static void all_may_fail_at_once(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 1, 1);
	struct hst_waiter w[50] = {0};

	(void)state;
	x->src.answers = RIG_FAILS_AT_ONCE;
	for (unsigned i = 0; i < 50; i++)
		ensure(x, i, &w[i]);
	rig_after(x, 10 * MS);
	rig_after(x, 20 * MS);
	assert_int_equal(x->counts[RIG_TROUBLE], 50);
	assert_int_equal(x->h.troubled, 50);
	hst_resume(&x->h); /* and again */
	rig_after(x, 10 * MS);
	rig_after(x, 20 * MS);
	assert_int_equal(x->counts[RIG_TROUBLE], 100);
	x->src.answers = RIG_AT_ONCE;
	hst_resume(&x->h);
	assert_int_equal(rig_pump(x), 50);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->h.stats.reads, 50 * 7);
	assert_int_equal(x->h.stats.read_errors, 50 * 6);
	assert_int_equal(x->h.stats.read_retries, 50 * 4);
	rig_close(x);
}

/* ---- what is read ---- */

static void zeroes_beyond_the_backing(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_prepare(16 * PAGE_BYTES);

	(void)state;
	cfg.block_shift = 13;
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, 16 * PAGE_BYTES, 8192),
			 RAM_ADDED);
	/* From page 4 on, three pages and 100 bytes, of a source that begins at its page 1. */
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA + 4 * PAGE_BYTES},
					 3 * PAGE_BYTES + 100, &x->src.src, PAGE_BYTES, 8192),
			 RAM_ADDED);
	rig_start(x, &cfg);
	for (unsigned page = 0; page < 16; page += 2) {
		struct hst_waiter w = {0};

		assert_false(ensure(x, page, &w));
		if (page == 4 || page == 6)
			rig_answer(x, 0, 0);
		assert_int_equal(rig_pump(x), 1);
	}
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(x->log[rig_nth(x, RIG_READ, 0)].a, PAGE_BYTES);
	assert_int_equal(x->log[rig_nth(x, RIG_READ, 0)].b, 8192);
	assert_int_equal(x->log[rig_nth(x, RIG_READ, 1)].a, 3 * PAGE_BYTES);
	assert_int_equal(x->log[rig_nth(x, RIG_READ, 1)].b, PAGE_BYTES + 100);
	assert_int_equal(x->alias[4 * PAGE_BYTES], rig_byte(PAGE_BYTES));
	assert_int_equal(x->alias[7 * PAGE_BYTES + 99], rig_byte(4 * PAGE_BYTES));
	assert_int_equal(x->alias[7 * PAGE_BYTES + 100], 0);
	assert_int_equal(x->alias[3 * PAGE_BYTES], 0);
	assert_int_equal(x->alias[8 * PAGE_BYTES], 0);
	rig_close(x);
}

static void zeroes_beyond_the_source(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	(void)state;
	x->src.src.size = 2 * PAGE_BYTES + 1;
	rig_populate(x, 1);
	assert_int_equal(rig_entry(x, RIG_READ, 0)->b, PAGE_BYTES);
	rig_populate(x, 2);
	assert_int_equal(rig_entry(x, RIG_READ, 1)->b, 1);
	rig_populate(x, 3);
	rig_populate(x, 63);
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(x->counts[RIG_PRESENT], 4);
	/* A source that ends with the page before has nothing for this one. */
	x->src.src.size = 5 * PAGE_BYTES;
	rig_populate(x, 5);
	assert_int_equal(x->counts[RIG_READ], 2);
	rig_close(x);
}

static void every_block_size(void **state)
{
	(void)state;
	for (uint32_t shift = 12; shift <= 21; shift++) {
		struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
		uint64_t bytes = 1ull << shift, pages = bytes >> PAGE_SHIFT;

		cfg.block_shift = shift;
		struct rig *x = rig_open_pages(&cfg, 3 * pages);

		assert_int_equal(rig_fault_next(x, 0, 2 * pages - 1), HST_WAIT);
		assert_int_equal(rig_entry(x, RIG_READ, 0)->a, bytes);
		assert_int_equal(rig_entry(x, RIG_READ, 0)->b, bytes);
		rig_bring(x, pages);
		assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->a, bytes);
		assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->b, bytes);
		assert_true(rig_present(x, pages));
		assert_true(rig_present(x, 2 * pages - 1));
		assert_false(rig_present(x, pages - 1));
		assert_false(rig_present(x, 2 * pages));
		assert_int_equal(x->alias[bytes], rig_byte(bytes));
		assert_int_equal(x->alias[2 * bytes - 1], rig_byte(2 * bytes - 1));
		rig_close(x);
	}
}

/* ---- retries ---- */

static void retries_wait_longer_each_time_then_the_vm_is_paused(void **state)
{
	static const uint64_t delays[] = {10, 20, 40, 80, 160, 320, 640, 1000, 1000};
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 2);

	(void)state;
	x->h.cfg.retries_max = ARRAY_LEN(delays);
	assert_int_equal(rig_fault_next(x, 0, 3), HST_WAIT);
	for (unsigned i = 0; i < ARRAY_LEN(delays); i++) {
		rig_answer(x, 0, -EIO);
		assert_int_equal(timers_next_ns(&x->h.timers), x->now + delays[i] * MS);
		rig_after(x, delays[i] * MS - 1);
		assert_int_equal(x->src.count, 0);
		assert_false(hst_is_paused(&x->h));
		rig_after(x, 1);
		assert_int_equal(x->src.count, 1);
	}
	assert_int_equal(rig_pass(x, 1), HST_ENTER);
	rig_answer(x, 0, -EBADMSG);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_TROUBLE], 1);
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + 3 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, ARRAY_LEN(delays) + 1);
	assert_int_equal(x->trouble.why.code, -EBADMSG);
	assert_string_equal(x->trouble.why.text, "fake source: error 74 at 12288");
	assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	/* Everybody stands still, also who does not want that page. */
	assert_int_equal(x->counts[RIG_KICK], 2);
	rig_exit(x, 1, true);
	assert_int_equal(rig_next(x, 1), HST_WAIT);
	assert_int_equal(x->until, NS_NEVER);
	assert_int_equal(x->h.stats.read_errors, ARRAY_LEN(delays) + 1);
	assert_int_equal(x->h.stats.read_retries, ARRAY_LEN(delays));
	rig_close(x);
}

/* A timeline shows that the whole VM stands still, whoever holds it, from the first to the last. */
static void assert_pauses(const struct rig *x, unsigned paused, unsigned resumed)
{
	assert_int_equal(x->traced[APF_TRACE_PAUSED], paused);
	assert_int_equal(x->traced[APF_TRACE_RESUMED], resumed);
}

static void resume_starts_the_retries_afresh(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	x->h.cfg.retries_max = 1;
	assert_int_equal(rig_fault_next(x, 0, 3), HST_WAIT);
	rig_answer(x, 0, -EIO);
	rig_after(x, 10 * MS);
	rig_answer(x, 0, -EIO);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_log_clear(x);
	hst_resume(&x->h);
	assert_false(hst_is_paused(&x->h));
	assert_pauses(x, 1, 1);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	assert_int_equal(x->counts[RIG_KICK], 1);
	assert_int_equal(x->src.count, 1);
	rig_answer(x, 0, -EIO);
	assert_false(hst_is_paused(&x->h)); /* one retry is left again */
	rig_after(x, 10 * MS);
	rig_bring(x, 3);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_READ], 2);
	rig_close(x);
}

static void the_vm_goes_on_when_the_last_trouble_is_over(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 1);
	struct hst_waiter w[3] = {0};

	(void)state;
	x->h.cfg.retries_max = 0;
	x->h.cfg.source_timeout_ns = 100 * MS;
	ensure(x, 1, &w[0]);
	ensure(x, 2, &w[1]);
	rig_after(x, 100 * MS);
	assert_int_equal(x->h.troubled, 2);
	rig_answer(x, 0, 0);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_GOES_ON], 0);
	assert_pauses(x, 1, 0);
	rig_answer(x, 0, 0);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	assert_pauses(x, 1, 1);
	/* By the VMM's wish meanwhile, which has it stand still for longer. */
	ensure(x, 4, &w[2]);
	rig_after(x, 100 * MS);
	hst_pause(&x->h);
	assert_pauses(x, 2, 1);
	rig_answer(x, 0, 0);
	assert_pauses(x, 2, 1);
	hst_resume(&x->h);
	assert_pauses(x, 2, 2);
	hst_resume(&x->h);
	assert_pauses(x, 2, 2);
	rig_pump(x);
	rig_close(x);
}

/* ---- sources that do not answer ---- */

static struct rig *open_stuck(void)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	x->h.cfg.source_timeout_ns = 100 * MS;
	assert_int_equal(rig_fault_next(x, 0, 3), HST_WAIT);
	rig_after(x, 100 * MS - 1);
	assert_false(hst_is_paused(&x->h));
	rig_after(x, 1);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_TROUBLE], 1);
	assert_int_equal(x->trouble.why.code, 0);
	assert_int_equal(x->trouble.gpa.v, RIG_GPA + 3 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, 1);
	assert_int_equal(x->counts[RIG_CANCEL], 0); /* it may yet answer */
	assert_int_equal(x->h.stats.read_timeouts, 1);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	return x;
}

static void a_late_answer_resumes_by_itself(void **state)
{
	struct rig *x = open_stuck();
	unsigned kicks = x->counts[RIG_KICK];

	(void)state;
	rig_answer(x, 0, 0);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	/* Everybody stood still, and goes on at once: the block itself tells only its waiters. */
	assert_int_equal(x->counts[RIG_KICK], kicks + 1);
	rig_pump(x);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_READ], 1);
	rig_close(x);
}

static void a_late_error_is_retried(void **state)
{
	struct rig *x = open_stuck();

	(void)state;
	rig_answer(x, 0, -EIO);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	assert_false(hst_is_paused(&x->h));
	rig_after(x, 10 * MS);
	rig_bring(x, 3);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

static void a_late_error_after_the_last_retry_keeps_the_pause(void **state)
{
	struct rig *x = open_stuck();

	(void)state;
	x->h.cfg.retries_max = 0;
	rig_answer(x, 0, -EIO);
	assert_int_equal(x->counts[RIG_GOES_ON], 0);
	assert_int_equal(x->counts[RIG_TROUBLE], 2);
	assert_int_equal(x->trouble.why.code, -EIO);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	rig_bring(x, 3);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

static void resume_cancels_a_stuck_read_and_reads_again(void **state)
{
	(void)state;
	for (enum rig_cancels how = RIG_CANCEL_ENDS; how <= RIG_CANCEL_DEAF; how++) {
		struct rig *x = open_stuck();

		x->src.cancels = how;
		hst_resume(&x->h);
		rig_assert_sound(x);
		assert_int_equal(x->counts[RIG_CANCEL], 1);
		if (how != RIG_CANCEL_ENDS) {
			/* Paused until the read has ended: its buffer is the page. */
			assert_true(hst_is_paused(&x->h));
			assert_pauses(x, 1, 0);
			assert_int_equal(x->counts[RIG_READ], 1);
			hst_resume(&x->h); /* impatient: no second cancel */
			assert_int_equal(x->counts[RIG_CANCEL], 1);
			rig_answer(x, 0, how == RIG_CANCEL_DEAF ? 0 : -ECANCELED);
		}
		assert_false(hst_is_paused(&x->h));
		assert_pauses(x, 1, 1);
		assert_int_equal(x->counts[RIG_GOES_ON], 1);
		assert_int_equal(x->counts[RIG_READ], how == RIG_CANCEL_DEAF ? 1 : 2);
		if (how == RIG_CANCEL_DEAF)
			rig_pump(x);
		else
			rig_bring(x, 3);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(x->h.stats.read_errors, 0); /* ending it was our wish */
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		rig_close(x);
	}
}

static void an_answer_in_time_disarms_the_time_out(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	x->h.cfg.source_timeout_ns = 100 * MS;
	rig_fault_next(x, 0, 3);
	rig_bring(x, 3);
	assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_fault_next(x, 0, 4);
	rig_answer(x, 0, -EIO);
	rig_after(x, 10 * MS);
	/* The second try has the whole time for itself. */
	rig_after(x, 100 * MS - 1);
	assert_false(hst_is_paused(&x->h));
	rig_bring(x, 4);
	rig_close(x);
}

/* ---- the end ---- */

static void stop_ends_reads_in_every_state(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 4, 1);
	struct hst_waiter w[8] = {0};

	(void)state;
	x->h.cfg.retries_max = 1;
	x->h.cfg.source_timeout_ns = 15 * MS;
	x->src.cancels = RIG_CANCEL_ENDS_LATER;
	ensure(x, 0, &w[0]);
	ensure(x, 1, &w[1]);
	rig_after(x, 15 * MS); /* both stuck */
	hst_resume(&x->h);    /* both cancelled, and they take their time */
	ensure(x, 2, &w[2]);
	ensure(x, 3, &w[3]);
	rig_after(x, 15 * MS); /* both stuck */
	rig_answer(x, rig_read_at(x, 3 << PAGE_SHIFT), -EIO); /* back-off */
	ensure(x, 4, &w[4]);
	rig_answer(x, rig_read_at(x, 4 << PAGE_SHIFT), 0); /* filled */
	ensure(x, 5, &w[5]); /* reading */
	ensure(x, 6, &w[6]); /* queued */
	rig_log_clear(x);
	hst_stop(&x->h);
	assert_int_equal(x->counts[RIG_CANCEL], 4);
	for (unsigned i = 0; i < x->src.count; i++)
		assert_true(x->src.cancelled[i]);
	rig_after(x, NS_PER_S); /* neither the back-off nor a time-out does anything */
	rig_answer(x, rig_read_at(x, 5 << PAGE_SHIFT), 0); /* too late to be cancelled */
	while (x->src.count)
		rig_answer(x, 0, -ECANCELED);
	assert_int_equal(x->h.in_flight, 0);
	assert_int_equal(x->counts[RIG_READ], 0);
	assert_int_equal(x->counts[RIG_TROUBLE], 0);
	rig_pump(x); /* what was filled may still be shown */
	assert_int_equal(x->counts[RIG_OUTSIDE], 1);
	for (unsigned i = 0; i < 8; i++)
		hst_forget(&w[i]);
	rig_close(x);
}

static void stop_with_reads_that_end_at_once(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_USER, 2, 1);
	struct hst_waiter w[6] = {0};

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		ensure(x, i, &w[i]);
	hst_stop(&x->h);
	assert_int_equal(x->h.in_flight, 0);
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(x->counts[RIG_TROUBLE], 0);
	/* A device that still asks waits; the layer around tells it otherwise. */
	hst_forget(&w[5]);
	assert_false(ensure(x, 9, &w[5]));
	assert_int_equal(x->counts[RIG_READ], 2);
	for (unsigned i = 0; i < 6; i++)
		hst_forget(&w[i]);
	rig_close(x);
}

/* ---- making visible fails ---- */

static void what_cannot_be_made_visible_pauses_and_is_not_read_again(void **state)
{
	struct rig *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	rig_fault_next(x, 0, 3);
	x->mem_faults = (struct rig_mem_faults){.at = 1};
	rig_bring(x, 3);
	assert_true(hst_is_paused(&x->h));
	assert_string_equal(x->trouble.why.text, "fake memory: present");
	assert_false(rig_present(x, 3));
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	/*
	 * A part of the block may be visible: the guest may have written there, and reading
	 * once more would undo it.
	 */
	x->alias[3 * PAGE_BYTES + 5] = 0x77;
	hst_resume(&x->h);
	rig_pump(x);
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(x->counts[RIG_PRESENT], 2);
	assert_int_equal(x->alias[3 * PAGE_BYTES + 5], 0x77);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_read_however_many_wait),
		cmocka_unit_test(content_then_visible_then_present_then_waiters),
		cmocka_unit_test(waiters_are_served_in_order),
		cmocka_unit_test(forgotten_waiters_are_not_told),
		cmocka_unit_test(reads_in_flight_are_bounded),
		cmocka_unit_test(vcpus_take_turns),
		cmocka_unit_test(kernel_mode_goes_first),
		cmocka_unit_test(kernel_mode_takes_a_queued_fetch_along),
		cmocka_unit_test(kernel_mode_leaves_some_for_others),
		cmocka_unit_test(sources_that_answer_at_once_do_not_recurse),
		cmocka_unit_test(all_may_fail_at_once),
		cmocka_unit_test(zeroes_beyond_the_backing),
		cmocka_unit_test(zeroes_beyond_the_source),
		cmocka_unit_test(every_block_size),
		cmocka_unit_test(retries_wait_longer_each_time_then_the_vm_is_paused),
		cmocka_unit_test(resume_starts_the_retries_afresh),
		cmocka_unit_test(the_vm_goes_on_when_the_last_trouble_is_over),
		cmocka_unit_test(a_late_answer_resumes_by_itself),
		cmocka_unit_test(a_late_error_is_retried),
		cmocka_unit_test(a_late_error_after_the_last_retry_keeps_the_pause),
		cmocka_unit_test(resume_cancels_a_stuck_read_and_reads_again),
		cmocka_unit_test(an_answer_in_time_disarms_the_time_out),
		cmocka_unit_test(stop_ends_reads_in_every_state),
		cmocka_unit_test(stop_with_reads_that_end_at_once),
		cmocka_unit_test(what_cannot_be_made_visible_pauses_and_is_not_read_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
