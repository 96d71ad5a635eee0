/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/fetch.c, trouble.c, outside.c: reading, trouble, waiters. What the kernel reports is in
 * host_touch_test.c.
 */
#include "host_fixture.h"

#define MS NS_PER_MS

static struct hx *open_depth(enum hst_faults faults, uint32_t depth, unsigned vcpus)
{
	struct hst_cfg cfg = hx_cfg(faults, APF_REV_OFF);

	cfg.queue_depth = depth;
	cfg.vcpus = vcpus;
	return hx_open(&cfg);
}

static bool ensure(struct hx *x, uint64_t page, struct hst_waiter *w)
{
	return hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, w);
}

/* ---- one fetch, its order and its waiters ---- */

static void one_read_however_many_wait(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 4);
	struct hst_waiter w[5] = {0};
	struct hst_stats s;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(hx_fault_next(x, i, 7), HST_WAIT);
	for (unsigned i = 0; i < 5; i++)
		assert_false(ensure(x, 7, &w[i]));
	assert_int_equal(x->counts[HX_READ], 1);
	hx_bring(x, 7);
	assert_int_equal(x->counts[HX_READ], 1);
	assert_int_equal(x->counts[HX_PRESENT], 1);
	assert_int_equal(x->counts[HX_OUTSIDE], 5);
	assert_int_equal(x->counts[HX_KICK], 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(hx_next(x, i), HST_ENTER);
	for (unsigned i = 0; i < 5; i++)
		assert_null(w[i].fetch);
	assert_true(ensure(x, 7, &w[0]));
	hst_stats_sum(&x->h, &s);
	assert_int_equal(s.faults_total, 4);
	assert_int_equal(s.joined, 3);
	assert_int_equal(s.blocked, 4);
	assert_int_equal(s.reads, 1);
	assert_int_equal(s.read_bytes, PAGE_BYTES);
	hx_close(x);
}

/* Nobody hears of a block before it is readable, and it is readable with its content. */
static void see_present(struct hx *x, roff_t off, uint64_t len)
{
	assert_int_equal(len, PAGE_BYTES);
	assert_int_equal(x->alias[off.v], hx_byte(off.v));
	assert_int_equal(x->alias[off.v + len - 1], hx_byte(off.v));
	assert_false(hx_present(x, off.v >> PAGE_SHIFT));
	assert_int_equal(x->counts[HX_OUTSIDE] + x->counts[HX_KICK] + x->counts[HX_IRQ], 0);
}

static void see_outside_ready(void *ctx)
{
	struct hx *x = ctx;

	assert_true(hx_present(x, 9));
	hx_log(x, HX_OUTSIDE, 0, 0, 0);
}

static void content_then_visible_then_present_then_waiters(void **state)
{
	struct hx *x = hx_open_on(APF_REV_INT, 1);
	struct hst_waiter w = {0};

	(void)state;
	hx_sleeper(x, 0, 9);
	assert_false(ensure(x, 9, &w));
	assert_int_equal(hx_area(x, 0)->token, 0);
	hx_log_clear(x);
	x->on_present = see_present;
	x->h.hooks.outside_ready = see_outside_ready;
	hx_answer(x, 0, 0);
	assert_int_equal(x->log_len, 0);
	hx_pump(x);
	assert_int_equal(hx_nth(x, HX_PRESENT, 0), 0);
	/* First come, first served: the task, then the device. */
	assert_true(hx_nth(x, HX_IRQ, 0) < hx_nth(x, HX_OUTSIDE, 0));
	hx_close(x);
}

static struct hst_waiter *first, *second;

static void see_first_come_first_served(void *ctx)
{
	struct hx *x = ctx;

	assert_null(first->fetch);
	if (x->counts[HX_OUTSIDE]++ == 0)
		assert_non_null(second->fetch);
}

static void waiters_are_served_in_order(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 16, 1);
	struct hst_waiter a = {0}, b = {0};

	(void)state;
	first = &a;
	second = &b;
	x->h.hooks.outside_ready = see_first_come_first_served;
	ensure(x, 3, &a);
	ensure(x, 3, &b);
	hx_bring(x, 3);
	assert_int_equal(x->counts[HX_OUTSIDE], 2);
	hx_close(x);
}

static void forgotten_waiters_are_not_told(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 16, 1);
	struct hst_waiter w[3] = {0};

	(void)state;
	for (unsigned gone = 0; gone < 3; gone++) {
		for (unsigned i = 0; i < 3; i++)
			ensure(x, gone, &w[i]);
		hst_forget(&w[gone]);
		hst_forget(&w[gone]); /* harmless */
		hx_assert_sound(x);
		assert_null(w[gone].fetch);
		hx_bring(x, gone);
		assert_int_equal(x->counts[HX_OUTSIDE], 2 * (gone + 1));
	}
	/* Nobody waits any more; the block comes all the same. */
	ensure(x, 5, &w[0]);
	hst_forget(&w[0]);
	hx_bring(x, 5);
	assert_true(hx_present(x, 5));
	hx_close(x);
}

/* ---- the queue ---- */

static void reads_in_flight_are_bounded(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 4, 1);
	struct hst_waiter w[20] = {0};

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		ensure(x, i, &w[i]);
	assert_int_equal(x->src.count, 4);
	for (unsigned left = 19; x->src.count > 0; left--) {
		/* Not in order: the last of them first. */
		hx_answer(x, x->src.count - 1, 0);
		assert_int_equal(x->src.count, left < 4 ? left : 4);
	}
	assert_int_equal(x->src.count_max, 4);
	assert_int_equal(hx_pump(x), 20);
	assert_int_equal(x->counts[HX_OUTSIDE], 20);
	hx_close(x);
}

static void vcpus_take_turns(void **state)
{
	struct hx *x = hx_open_on(APF_REV_INT, 3);
	struct hst_waiter w = {0};

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 15; page++)
		hx_sleeper(x, 0, page);
	hx_sleeper(x, 1, 20);
	hx_sleeper(x, 2, 30);
	ensure(x, 40, &w);
	hx_sleeper(x, 1, 21);
	while (x->src.count)
		hx_answer(x, 0, 0);
	/* The greedy one, which came first, has one read of each round. */
	static const unsigned want[] = {10, 11, 20, 30, 40, 12, 21, 13, 14};

	for (unsigned i = 0; i < ARRAY_LEN(want); i++)
		assert_int_equal(hx_entry(x, HX_READ, i)->a, want[i] << PAGE_SHIFT);
	hx_pump(x);
	hx_close(x);
}

/* Answers all; the pages in the order in which they were read. */
static void expect_reads(struct hx *x, const unsigned *want, unsigned count)
{
	while (x->src.count)
		hx_answer(x, 0, 0);
	assert_int_equal(x->counts[HX_READ], count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(hx_entry(x, HX_READ, i)->a, want[i] << PAGE_SHIFT);
	hx_pump(x);
}

static void kernel_mode_goes_first(void **state)
{
	struct hx *x = hx_open_on(APF_REV_INT, 3);

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 12; page++) {
		hx_sleeper(x, 0, page);
		hx_sleeper(x, 1, page + 10);
	}
	x->vcpus[2].cpu.cpl = 0;
	hx_fault(x, 2, 30);
	hx_exit(x, 1, false);
	hx_load(hx_v(x, 1), (roff_t){40 << PAGE_SHIFT});
	expect_reads(x, (const unsigned[]){10, 30, 40, 20, 11, 21}, 6);
	hx_close(x);
}

/* The same block, asked for by user mode first, and the neighbours in its queue stay in order. */
static void kernel_mode_takes_a_queued_fetch_along(void **state)
{
	struct hx *x = hx_open_on(APF_REV_INT, 3);

	(void)state;
	x->h.cfg.queue_depth = 1;
	for (unsigned page = 10; page < 15; page++)
		hx_sleeper(x, 0, page);
	x->vcpus[2].cpu.cpl = 0;
	hx_fault(x, 2, 14);
	x->vcpus[1].cpu.cpl = 0;
	hx_fault(x, 1, 12);
	hx_sleeper(x, 0, 15);
	expect_reads(x, (const unsigned[]){10, 14, 12, 11, 13, 15}, 6);
	hx_close(x);
}

/* Kernel mode that never stops faulting leaves a read for a device now and then. */
static void kernel_mode_leaves_some_for_others(void **state)
{
	struct hx *x = hx_open_on(APF_REV_INT, 2);
	struct hst_waiter w = {0};
	unsigned reads = 0;

	(void)state;
	x->h.cfg.queue_depth = 1;
	x->vcpus[0].cpu.cpl = 0;
	hx_fault(x, 0, 10);
	x->vcpus[1].cpu.cpl = 0;
	hx_fault(x, 1, 11);
	ensure(x, 60, &w);
	for (unsigned page = 12; w.fetch && page < 50; page++, reads++) {
		unsigned who;

		hx_answer(x, 0, 0);
		hx_pump(x);
		who = hx_v(x, 0)->sync.fetch ? 1 : 0;
		if (hx_v(x, who)->sync.fetch)
			continue;
		hx_next(x, who);
		hx_fault(x, who, page);
	}
	assert_null(w.fetch);
	assert_in_range(reads, 16, 20);
	hx_close(x);
}

static void sources_that_answer_at_once_do_not_recurse(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 1, 1);
	struct hst_waiter w[50] = {0};

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		ensure(x, i, &w[i]);
	x->src.answers = HX_AT_ONCE; /* the fixture fails on a read within a read */
	hx_answer(x, 0, 0);
	assert_int_equal(hx_pump(x), 50);
	assert_int_equal(x->h.in_flight, 0);
	hx_close(x);
}

static void all_may_fail_at_once(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 1, 1);
	struct hst_waiter w[50] = {0};

	(void)state;
	x->src.answers = HX_FAILS_AT_ONCE;
	for (unsigned i = 0; i < 50; i++)
		ensure(x, i, &w[i]);
	hx_after(x, 10 * MS);
	hx_after(x, 20 * MS);
	assert_int_equal(x->counts[HX_TROUBLE], 50);
	assert_int_equal(x->h.troubled, 50);
	hst_resume(&x->h); /* and again */
	hx_after(x, 10 * MS);
	hx_after(x, 20 * MS);
	assert_int_equal(x->counts[HX_TROUBLE], 100);
	x->src.answers = HX_AT_ONCE;
	hst_resume(&x->h);
	assert_int_equal(hx_pump(x), 50);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->h.stats.reads, 50 * 7);
	assert_int_equal(x->h.stats.read_errors, 50 * 6);
	assert_int_equal(x->h.stats.read_retries, 50 * 4);
	hx_close(x);
}

/* ---- what is read ---- */

static void zeroes_beyond_the_backing(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct hx *x = hx_prepare(16 * PAGE_BYTES);

	(void)state;
	cfg.block_shift = 13;
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){HX_GPA}, 16 * PAGE_BYTES, 8192),
			 RAM_ADDED);
	/* From page 4 on, three pages and 100 bytes, of a source that begins at its page 1. */
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){HX_GPA + 4 * PAGE_BYTES},
					 3 * PAGE_BYTES + 100, &x->src.src, PAGE_BYTES, 8192),
			 RAM_ADDED);
	hx_start(x, &cfg);
	for (unsigned page = 0; page < 16; page += 2) {
		struct hst_waiter w = {0};

		assert_false(ensure(x, page, &w));
		if (page == 4 || page == 6)
			hx_answer(x, 0, 0);
		assert_int_equal(hx_pump(x), 1);
	}
	assert_int_equal(x->counts[HX_READ], 2);
	assert_int_equal(x->log[hx_nth(x, HX_READ, 0)].a, PAGE_BYTES);
	assert_int_equal(x->log[hx_nth(x, HX_READ, 0)].b, 8192);
	assert_int_equal(x->log[hx_nth(x, HX_READ, 1)].a, 3 * PAGE_BYTES);
	assert_int_equal(x->log[hx_nth(x, HX_READ, 1)].b, PAGE_BYTES + 100);
	assert_int_equal(x->alias[4 * PAGE_BYTES], hx_byte(PAGE_BYTES));
	assert_int_equal(x->alias[7 * PAGE_BYTES + 99], hx_byte(4 * PAGE_BYTES));
	assert_int_equal(x->alias[7 * PAGE_BYTES + 100], 0);
	assert_int_equal(x->alias[3 * PAGE_BYTES], 0);
	assert_int_equal(x->alias[8 * PAGE_BYTES], 0);
	hx_close(x);
}

static void zeroes_beyond_the_source(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct hx *x = hx_open(&cfg);

	(void)state;
	x->src.src.size = 2 * PAGE_BYTES + 1;
	hx_populate(x, 1);
	assert_int_equal(hx_entry(x, HX_READ, 0)->b, PAGE_BYTES);
	hx_populate(x, 2);
	assert_int_equal(hx_entry(x, HX_READ, 1)->b, 1);
	hx_populate(x, 3);
	hx_populate(x, 63);
	assert_int_equal(x->counts[HX_READ], 2);
	assert_int_equal(x->counts[HX_PRESENT], 4);
	/* A source that ends with the page before has nothing for this one. */
	x->src.src.size = 5 * PAGE_BYTES;
	hx_populate(x, 5);
	assert_int_equal(x->counts[HX_READ], 2);
	hx_close(x);
}

static void every_block_size(void **state)
{
	(void)state;
	for (uint32_t shift = 12; shift <= 21; shift++) {
		struct hst_cfg cfg = hx_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
		uint64_t bytes = 1ull << shift, pages = bytes >> PAGE_SHIFT;

		cfg.block_shift = shift;
		struct hx *x = hx_open_pages(&cfg, 3 * pages);

		assert_int_equal(hx_fault_next(x, 0, 2 * pages - 1), HST_WAIT);
		assert_int_equal(hx_entry(x, HX_READ, 0)->a, bytes);
		assert_int_equal(hx_entry(x, HX_READ, 0)->b, bytes);
		hx_bring(x, pages);
		assert_int_equal(hx_entry(x, HX_PRESENT, 0)->a, bytes);
		assert_int_equal(hx_entry(x, HX_PRESENT, 0)->b, bytes);
		assert_true(hx_present(x, pages));
		assert_true(hx_present(x, 2 * pages - 1));
		assert_false(hx_present(x, pages - 1));
		assert_false(hx_present(x, 2 * pages));
		assert_int_equal(x->alias[bytes], hx_byte(bytes));
		assert_int_equal(x->alias[2 * bytes - 1], hx_byte(2 * bytes - 1));
		hx_close(x);
	}
}

/* ---- retries ---- */

static void retries_wait_longer_each_time_then_the_vm_is_paused(void **state)
{
	static const uint64_t delays[] = {10, 20, 40, 80, 160, 320, 640, 1000, 1000};
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 2);

	(void)state;
	x->h.cfg.retries_max = ARRAY_LEN(delays);
	assert_int_equal(hx_fault_next(x, 0, 3), HST_WAIT);
	for (unsigned i = 0; i < ARRAY_LEN(delays); i++) {
		hx_answer(x, 0, -EIO);
		assert_int_equal(timers_next_ns(&x->h.timers), x->now + delays[i] * MS);
		hx_after(x, delays[i] * MS - 1);
		assert_int_equal(x->src.count, 0);
		assert_false(hst_is_paused(&x->h));
		hx_after(x, 1);
		assert_int_equal(x->src.count, 1);
	}
	assert_int_equal(hx_pass(x, 1), HST_ENTER);
	hx_answer(x, 0, -EBADMSG);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[HX_TROUBLE], 1);
	assert_int_equal(x->trouble.gpa.v, HX_GPA + 3 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, ARRAY_LEN(delays) + 1);
	assert_int_equal(x->trouble.why.code, -EBADMSG);
	assert_string_equal(x->trouble.why.text, "fake source: error 74 at 12288");
	assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	/* Everybody stands still, also who does not want that page. */
	assert_int_equal(x->counts[HX_KICK], 2);
	hx_exit(x, 1, true);
	assert_int_equal(hx_next(x, 1), HST_WAIT);
	assert_int_equal(x->until, NS_NEVER);
	assert_int_equal(x->h.stats.read_errors, ARRAY_LEN(delays) + 1);
	assert_int_equal(x->h.stats.read_retries, ARRAY_LEN(delays));
	hx_close(x);
}

static void resume_starts_the_retries_afresh(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	x->h.cfg.retries_max = 1;
	assert_int_equal(hx_fault_next(x, 0, 3), HST_WAIT);
	hx_answer(x, 0, -EIO);
	hx_after(x, 10 * MS);
	hx_answer(x, 0, -EIO);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	hx_log_clear(x);
	hst_resume(&x->h);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[HX_GOES_ON], 1);
	assert_int_equal(x->counts[HX_KICK], 1);
	assert_int_equal(x->src.count, 1);
	hx_answer(x, 0, -EIO);
	assert_false(hst_is_paused(&x->h)); /* one retry is left again */
	hx_after(x, 10 * MS);
	hx_bring(x, 3);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[HX_READ], 2);
	hx_close(x);
}

static void the_vm_goes_on_when_the_last_trouble_is_over(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 1);
	struct hst_waiter w[2] = {0};

	(void)state;
	x->h.cfg.retries_max = 0;
	x->h.cfg.source_timeout_ns = 100 * MS;
	ensure(x, 1, &w[0]);
	ensure(x, 2, &w[1]);
	hx_after(x, 100 * MS);
	assert_int_equal(x->h.troubled, 2);
	hx_answer(x, 0, 0);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[HX_GOES_ON], 0);
	hx_answer(x, 0, 0);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[HX_GOES_ON], 1);
	hx_pump(x);
	hx_close(x);
}

/* ---- sources that do not answer ---- */

static struct hx *open_stuck(void)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	x->h.cfg.source_timeout_ns = 100 * MS;
	assert_int_equal(hx_fault_next(x, 0, 3), HST_WAIT);
	hx_after(x, 100 * MS - 1);
	assert_false(hst_is_paused(&x->h));
	hx_after(x, 1);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[HX_TROUBLE], 1);
	assert_int_equal(x->trouble.why.code, 0);
	assert_int_equal(x->trouble.gpa.v, HX_GPA + 3 * PAGE_BYTES);
	assert_int_equal(x->trouble.tries, 1);
	assert_int_equal(x->counts[HX_CANCEL], 0); /* it may yet answer */
	assert_int_equal(x->h.stats.read_timeouts, 1);
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	return x;
}

static void a_late_answer_resumes_by_itself(void **state)
{
	struct hx *x = open_stuck();
	unsigned kicks = x->counts[HX_KICK];

	(void)state;
	hx_answer(x, 0, 0);
	assert_int_equal(x->counts[HX_GOES_ON], 1);
	/* Everybody stood still, and goes on at once: the block itself tells only its waiters. */
	assert_int_equal(x->counts[HX_KICK], kicks + 1);
	hx_pump(x);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[HX_READ], 1);
	hx_close(x);
}

static void a_late_error_is_retried(void **state)
{
	struct hx *x = open_stuck();

	(void)state;
	hx_answer(x, 0, -EIO);
	assert_int_equal(x->counts[HX_GOES_ON], 1);
	assert_false(hst_is_paused(&x->h));
	hx_after(x, 10 * MS);
	hx_bring(x, 3);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	hx_close(x);
}

static void a_late_error_after_the_last_retry_keeps_the_pause(void **state)
{
	struct hx *x = open_stuck();

	(void)state;
	x->h.cfg.retries_max = 0;
	hx_answer(x, 0, -EIO);
	assert_int_equal(x->counts[HX_GOES_ON], 0);
	assert_int_equal(x->counts[HX_TROUBLE], 2);
	assert_int_equal(x->trouble.why.code, -EIO);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	hx_bring(x, 3);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	hx_close(x);
}

static void resume_cancels_a_stuck_read_and_reads_again(void **state)
{
	(void)state;
	for (enum hx_cancels how = HX_CANCEL_ENDS; how <= HX_CANCEL_DEAF; how++) {
		struct hx *x = open_stuck();

		x->src.cancels = how;
		hst_resume(&x->h);
		hx_assert_sound(x);
		assert_int_equal(x->counts[HX_CANCEL], 1);
		if (how != HX_CANCEL_ENDS) {
			/* Paused until the read has ended: its buffer is the page. */
			assert_true(hst_is_paused(&x->h));
			assert_int_equal(x->counts[HX_READ], 1);
			hst_resume(&x->h); /* impatient: no second cancel */
			assert_int_equal(x->counts[HX_CANCEL], 1);
			hx_answer(x, 0, how == HX_CANCEL_DEAF ? 0 : -ECANCELED);
		}
		assert_false(hst_is_paused(&x->h));
		assert_int_equal(x->counts[HX_GOES_ON], 1);
		assert_int_equal(x->counts[HX_READ], how == HX_CANCEL_DEAF ? 1 : 2);
		if (how == HX_CANCEL_DEAF)
			hx_pump(x);
		else
			hx_bring(x, 3);
		assert_int_equal(hx_next(x, 0), HST_ENTER);
		assert_int_equal(x->h.stats.read_errors, 0); /* ending it was our wish */
		assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
		hx_close(x);
	}
}

static void an_answer_in_time_disarms_the_time_out(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	x->h.cfg.source_timeout_ns = 100 * MS;
	hx_fault_next(x, 0, 3);
	hx_bring(x, 3);
	assert_int_equal(timers_next_ns(&x->h.timers), NS_NEVER);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	hx_fault_next(x, 0, 4);
	hx_answer(x, 0, -EIO);
	hx_after(x, 10 * MS);
	/* The second try has the whole time for itself. */
	hx_after(x, 100 * MS - 1);
	assert_false(hst_is_paused(&x->h));
	hx_bring(x, 4);
	hx_close(x);
}

/* ---- the end ---- */

static void stop_ends_reads_in_every_state(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 4, 1);
	struct hst_waiter w[8] = {0};

	(void)state;
	x->h.cfg.retries_max = 1;
	x->h.cfg.source_timeout_ns = 15 * MS;
	x->src.cancels = HX_CANCEL_ENDS_LATER;
	ensure(x, 0, &w[0]);
	ensure(x, 1, &w[1]);
	hx_after(x, 15 * MS); /* both stuck */
	hst_resume(&x->h);    /* both cancelled, and they take their time */
	ensure(x, 2, &w[2]);
	ensure(x, 3, &w[3]);
	hx_after(x, 15 * MS); /* both stuck */
	hx_answer(x, hx_read_at(x, 3 << PAGE_SHIFT), -EIO); /* back-off */
	ensure(x, 4, &w[4]);
	hx_answer(x, hx_read_at(x, 4 << PAGE_SHIFT), 0); /* filled */
	ensure(x, 5, &w[5]); /* reading */
	ensure(x, 6, &w[6]); /* queued */
	hx_log_clear(x);
	hst_stop(&x->h);
	assert_int_equal(x->counts[HX_CANCEL], 4);
	for (unsigned i = 0; i < x->src.count; i++)
		assert_true(x->src.cancelled[i]);
	hx_after(x, NS_PER_S); /* neither the back-off nor a time-out does anything */
	hx_answer(x, hx_read_at(x, 5 << PAGE_SHIFT), 0); /* too late to be cancelled */
	while (x->src.count)
		hx_answer(x, 0, -ECANCELED);
	assert_int_equal(x->h.in_flight, 0);
	assert_int_equal(x->counts[HX_READ], 0);
	assert_int_equal(x->counts[HX_TROUBLE], 0);
	hx_pump(x); /* what was filled may still be shown */
	assert_int_equal(x->counts[HX_OUTSIDE], 1);
	for (unsigned i = 0; i < 8; i++)
		hst_forget(&w[i]);
	hx_close(x);
}

static void stop_with_reads_that_end_at_once(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_USER, 2, 1);
	struct hst_waiter w[6] = {0};

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		ensure(x, i, &w[i]);
	hst_stop(&x->h);
	assert_int_equal(x->h.in_flight, 0);
	assert_int_equal(x->counts[HX_READ], 2);
	assert_int_equal(x->counts[HX_TROUBLE], 0);
	/* A device that still asks waits; the layer around tells it otherwise. */
	hst_forget(&w[5]);
	assert_false(ensure(x, 9, &w[5]));
	assert_int_equal(x->counts[HX_READ], 2);
	for (unsigned i = 0; i < 6; i++)
		hst_forget(&w[i]);
	hx_close(x);
}

/* ---- making visible fails ---- */

static void what_cannot_be_made_visible_pauses_and_is_not_read_again(void **state)
{
	struct hx *x = open_depth(HST_FAULTS_BLOCK, 16, 1);

	(void)state;
	hx_fault_next(x, 0, 3);
	x->mem_faults = (struct hx_mem_faults){.at = 1};
	hx_bring(x, 3);
	assert_true(hst_is_paused(&x->h));
	assert_string_equal(x->trouble.why.text, "fake memory: present");
	assert_false(hx_present(x, 3));
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	/*
	 * A part of the block may be visible: the guest may have written there, and reading
	 * once more would undo it.
	 */
	x->alias[3 * PAGE_BYTES + 5] = 0x77;
	hst_resume(&x->h);
	hx_pump(x);
	assert_int_equal(x->counts[HX_READ], 1);
	assert_int_equal(x->counts[HX_PRESENT], 2);
	assert_int_equal(x->alias[3 * PAGE_BYTES + 5], 0x77);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	hx_close(x);
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
