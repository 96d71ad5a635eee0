/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/plan.c: what is read before anybody waits for it, from a list and after it. */
#include "host_swap_fixture.h"

#define MS NS_PER_MS
#define DEPTH 8u

static struct rig *open_depth(enum rig_answers answers)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	cfg.queue_depth = DEPTH;
	cfg.vcpus = 1;
	x = rig_open(&cfg);
	x->src.answers = answers;
	return x;
}

/* What the serving thread does until nothing is due at this moment. */
static void serve(struct rig *x)
{
	for (unsigned i = 0; i < 1000 && hst_next_timer_ns(&x->h) <= x->now; i++) {
		hst_run_timers(&x->h);
		rig_pump(x);
	}
	rig_assert_sound(x);
}

static struct hst_stats stats(const struct rig *x)
{
	struct hst_stats s;

	hst_stats_sum(&x->h, &s);
	return s;
}

static bool ensure(struct rig *x, uint64_t page, struct hst_waiter *w)
{
	*w = (struct hst_waiter){.v = NULL};
	return hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, w);
}

/* ---- the list ---- */

static void the_list_is_read_in_its_order_with_half_of_the_reads(void **state)
{
	static const struct hst_run runs[] = {{20, 3}, {5, 1}, {30, 2}};
	static const uint64_t order[] = {20, 21, 22, 5, 30, 31};
	struct rig *x = open_depth(RIG_LATER);

	(void)state;
	hst_plan(&x->h, runs, ARRAY_LEN(runs));
	assert_int_equal(x->src.count, 0);
	serve(x);
	assert_int_equal(x->src.count, DEPTH / 2);
	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		assert_int_equal(x->src.reads[0]->offset, order[i] * PAGE_BYTES);
		rig_answer(x, 0, 0);
		serve(x);
		assert_int_equal(rig_kind(x, order[i]), BLOCK_STANDBY);
	}
	assert_int_equal(x->counts[RIG_READ], ARRAY_LEN(order));
	assert_int_equal(x->counts[RIG_PRESENT], 0);
	assert_int_equal(stats(x).prefetched, ARRAY_LEN(order));
	assert_int_equal(stats(x).prefetched_unused, ARRAY_LEN(order));
	rig_close(x);
}

static void a_touch_of_what_came_in_time_takes_no_read(void **state)
{
	static const struct hst_run runs[] = {{20, 2}};
	struct rig *x = open_depth(RIG_AT_ONCE);

	(void)state;
	hst_plan(&x->h, runs, 1);
	serve(x);
	rig_fault_next(x, 0, 20);
	rig_pump(x);
	assert_true(rig_present(x, 20));
	assert_int_equal(x->alias[20 * PAGE_BYTES], rig_byte(20 * PAGE_BYTES));
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(stats(x).prefetched_used, 1);
	assert_int_equal(stats(x).prefetched_late, 0);
	assert_int_equal(stats(x).prefetched_unused, 1);
	assert_int_equal(stats(x).rescued, 0);
	rig_close(x);
}

static void what_is_on_its_way_when_it_is_touched_is_late_once(void **state)
{
	static const struct hst_run runs[] = {{20, 1}};
	struct rig *x = open_depth(RIG_LATER);
	struct hst_waiter w;

	(void)state;
	hst_plan(&x->h, runs, 1);
	serve(x);
	assert_int_equal(rig_fault_next(x, 0, 20), HST_WAIT);
	assert_false(ensure(x, 20, &w));
	rig_bring(x, 20);
	assert_null(w.fetch);
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(stats(x).prefetched_late, 1);
	assert_int_equal(stats(x).prefetched_used, 0);
	assert_int_equal(stats(x).prefetched_unused, 0);
	rig_close(x);
}

static void who_waits_goes_first(void **state)
{
	static const struct hst_run runs[] = {{20, 20}};
	struct rig *x = open_depth(RIG_LATER);
	struct hst_waiter w[DEPTH + 1];

	(void)state;
	hst_plan(&x->h, runs, 1);
	for (unsigned i = 0; i <= DEPTH; i++)
		assert_false(ensure(x, 1 + i, &w[i]));
	serve(x);
	/* One waits for its turn: nothing is prefetched, although a read has ended. */
	assert_int_equal(stats(x).prefetched, 0);
	rig_bring(x, 1);
	serve(x);
	assert_int_equal(stats(x).prefetched, 0);
	/* Only half of the reads are ever used for what nobody waits for. */
	for (unsigned i = 1; i <= DEPTH / 2; i++)
		rig_bring(x, 1 + i);
	serve(x);
	assert_int_equal(stats(x).prefetched, 0);
	rig_bring(x, 2 + DEPTH / 2);
	serve(x);
	assert_int_equal(stats(x).prefetched, 1);
	rig_close(x);
}

static void what_fails_is_left_to_who_touches_it(void **state)
{
	static const struct hst_run runs[] = {{20, 2}};
	struct rig *x = open_depth(RIG_LATER);

	(void)state;
	hst_plan(&x->h, runs, 1);
	serve(x);
	rig_answer(x, rig_read_at(x, 20 * PAGE_BYTES), -EIO);
	serve(x);
	assert_int_equal(rig_kind(x, 20), BLOCK_ABSENT);
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(x->counts[RIG_TROUBLE], 0);
	rig_close(x);
}

static void what_is_there_or_is_no_ram_is_passed_over(void **state)
{
	static const struct hst_run runs[] = {{3, 2}, {100000, 7}, {UINT32_MAX - 5, 5}, {5, 1}};
	struct rig *x = open_depth(RIG_AT_ONCE);

	(void)state;
	rig_populate(x, 4);
	hst_plan(&x->h, runs, ARRAY_LEN(runs));
	serve(x);
	assert_int_equal(stats(x).prefetched, 2);
	assert_true(rig_present(x, 4));
	rig_close(x);
}

static void a_second_list_replaces_the_first(void **state)
{
	static const struct hst_run first[] = {{20, 20}}, second[] = {{5, 1}};
	struct rig *x = open_depth(RIG_LATER);

	(void)state;
	hst_plan(&x->h, first, 1);
	serve(x);
	hst_plan(&x->h, second, 1);
	while (x->src.count > 0) {
		rig_answer(x, 0, 0);
		serve(x);
	}
	assert_int_equal(stats(x).prefetched, DEPTH / 2 + 1);
	assert_int_equal(rig_kind(x, 5), BLOCK_STANDBY);
	rig_close(x);
}

/* While the VM is paused for a read that fails, nothing is read for nobody. */
static void nothing_is_read_ahead_in_trouble(void **state)
{
	static const struct hst_run runs[] = {{20, 3}};
	struct rig *x = open_depth(RIG_LATER);
	struct hst_waiter w;

	(void)state;
	x->h.cfg.retries_max = 0;
	assert_false(ensure(x, 1, &w));
	rig_answer(x, 0, -EIO);
	assert_int_equal(x->h.troubled, 1);
	hst_plan(&x->h, runs, 1);
	for (unsigned i = 0; i < 5; i++) {
		serve(x);
		rig_after(x, 10 * MS);
	}
	assert_int_equal(x->src.count, 0);
	assert_int_equal(stats(x).prefetched, 0);
	hst_resume(&x->h);
	rig_bring(x, 1);
	assert_int_equal(x->h.troubled, 0);
	rig_after(x, 10 * MS);
	serve(x);
	assert_int_equal(stats(x).prefetched, 3);
	rig_close(x);
}

/* ---- the rest, and the end of the source ---- */

static bool let_go(struct rig *x)
{
	bool whole;

	return hst_let_go(&x->h, &whole) && whole;
}

static void all_comes_and_the_source_is_let_go_of(void **state)
{
	static const struct hst_run runs[] = {{20, 2}};
	struct rig *x = open_depth(RIG_AT_ONCE);
	struct hst_waiter w;

	(void)state;
	hst_plan(&x->h, runs, 1);
	hst_fill(&x->h);
	assert_false(let_go(x));
	for (unsigned i = 0; i < 3; i++) {
		rig_after(x, 10 * MS);
		serve(x);
	}
	assert_true(let_go(x));
	assert_false(let_go(x));
	for (uint64_t page = 0; page < RIG_PAGES; page++) {
		assert_true(rig_present(x, page));
		assert_int_equal(x->alias[page * PAGE_BYTES], rig_byte(page * PAGE_BYTES));
		assert_true(ensure(x, page, &w));
	}
	assert_int_equal(x->counts[RIG_READ], RIG_PAGES);
	assert_null(fetch_backing(&x->h, 7));
	assert_int_equal(hst_next_timer_ns(&x->h), NS_NEVER);
	rig_close(x);
}

static void add_source(struct rig *x, uint64_t page, uint64_t pages)
{
	assert_int_equal(ram_add_backing(&x->h.ram, (gpa_t){RIG_GPA + page * PAGE_BYTES},
					 pages * PAGE_BYTES, &x->src.src, page * PAGE_BYTES,
					 PAGE_BYTES),
			 RAM_ADDED);
}

/* Each source is read to its end, and what none stands behind is left out. */
static void all_of_each_source_comes(void **state)
{
	static const struct {
		uint64_t page, pages;
	} parts[] = {{5, 3}, {8, 1}, {30, 4}};
	struct rig *x = open_depth(RIG_AT_ONCE);

	(void)state;
	ram_drop_backings(&x->h.ram);
	for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
		add_source(x, parts[i].page, parts[i].pages);
	hst_fill(&x->h);
	for (unsigned i = 0; i < 3; i++) {
		serve(x);
		rig_after(x, 10 * MS);
	}
	assert_true(let_go(x));
	assert_int_equal(x->counts[RIG_READ], 8);
	for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
		for (uint64_t page = 0; page < parts[i].pages; page++)
			assert_true(rig_present(x, parts[i].page + page));
	assert_int_equal(rig_kind(x, 4), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 9), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 34), BLOCK_ABSENT);
	rig_close(x);
}

/* The end is not reached before what fails has come. */
static void a_source_that_fails_is_asked_again_and_not_at_once(void **state)
{
	struct rig *x = open_depth(RIG_FAILS_AT_ONCE);
	unsigned reads;

	(void)state;
	hst_fill(&x->h);
	serve(x);
	rig_after(x, 10 * MS);
	serve(x);
	reads = x->counts[RIG_READ];
	assert_true(reads > 0 && reads <= 3 * RIG_PAGES);
	for (unsigned i = 0; i < 5; i++) {
		rig_after(x, 10 * MS);
		serve(x);
		assert_false(let_go(x));
	}
	assert_int_equal(x->counts[RIG_TROUBLE], 0);
	x->src.answers = RIG_AT_ONCE;
	for (unsigned i = 0; i < 10; i++) {
		rig_after(x, 10 * MS);
		serve(x);
	}
	assert_true(let_go(x));
	rig_close(x);
}

static void nothing_is_let_go_of_while_a_fetch_is_under_way(void **state)
{
	struct rig *x = open_depth(RIG_AT_ONCE);

	(void)state;
	hst_fill(&x->h);
	for (unsigned i = 0; i < 4; i++) {
		rig_after(x, 10 * MS);
		serve(x);
	}
	assert_true(x->h.plan.filled);
	/* The VMM's view is shown a block that the guest has. */
	fetch_present_again(&x->h, 3, MEM_VIEW_VMM);
	assert_false(let_go(x));
	rig_pump(x);
	assert_true(let_go(x));
	rig_close(x);
}

/* Until it is let go of: where the round has passed already, or when all of the rest is there. */
static void a_source_that_comes_late_is_read_too(void **state)
{
	(void)state;
	for (unsigned filled = 0; filled < 2; filled++) {
		struct rig *x = open_depth(RIG_AT_ONCE);

		ram_drop_backings(&x->h.ram);
		add_source(x, 20, 4);
		hst_fill(&x->h);
		serve(x);
		assert_true(x->h.plan.filled);
		if (filled) {
			/* What must end first. */
			fetch_present_again(&x->h, 20, MEM_VIEW_VMM);
		} else {
			hst_fill(&x->h);
			x->h.plan.block = 21;
		}
		add_source(x, 5, 3);
		hst_source_added(&x->h);
		rig_pump(x);
		assert_false(let_go(x));
		for (unsigned i = 0; i < 4; i++) {
			rig_after(x, 10 * MS);
			rig_pump(x);
		}
		assert_true(let_go(x));
		for (uint64_t page = 5; page < 8; page++)
			assert_true(rig_present(x, page));
		rig_close(x);
	}
}

/* Its part was not watched as it was made visible, and who touches it now waits in the kernel. */
static void what_is_being_shown_as_a_source_comes_is_shown_again(void **state)
{
	struct rig *x = open_depth(RIG_AT_ONCE);
	struct hst_fetch *f;

	(void)state;
	ram_drop_backings(&x->h.ram);
	add_source(x, 20, 4);
	hst_fill(&x->h);
	serve(x);
	assert_true(rig_present(x, 20));
	fetch_present_again(&x->h, 20, MEM_VIEW_VMM);
	f = hst_take_filled(&x->h);
	assert_non_null(f);
	add_source(x, 5, 3);
	hst_source_added(&x->h);
	hst_shown(f, NULL);
	assert_false(rig_present(x, 20));
	assert_ptr_equal(hst_take_filled(&x->h), f);
	hst_shown(f, NULL);
	assert_true(rig_present(x, 20));
	rig_close(x);
}

/* ---- where memory is taken away ---- */

static void with_a_limit_only_what_there_is_room_for_comes(void **state)
{
	static const struct hst_run runs[] = {{100, 200}};
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	x->src.answers = RIG_AT_ONCE;
	hst_plan(&x->h, runs, 1);
	hst_fill(&x->h);
	for (unsigned i = 0; i < 20; i++) {
		serve(x);
		rig_after(x, 10 * MS);
	}
	assert_true(x->h.evict.resident > 0 && x->h.evict.resident <= RIG_LIMIT);
	assert_int_equal(rig_kind(x, 100), BLOCK_STANDBY);
	assert_false(let_go(x));
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_list_is_read_in_its_order_with_half_of_the_reads),
		cmocka_unit_test(a_touch_of_what_came_in_time_takes_no_read),
		cmocka_unit_test(what_is_on_its_way_when_it_is_touched_is_late_once),
		cmocka_unit_test(who_waits_goes_first),
		cmocka_unit_test(what_fails_is_left_to_who_touches_it),
		cmocka_unit_test(what_is_there_or_is_no_ram_is_passed_over),
		cmocka_unit_test(a_second_list_replaces_the_first),
		cmocka_unit_test(nothing_is_read_ahead_in_trouble),
		cmocka_unit_test(all_comes_and_the_source_is_let_go_of),
		cmocka_unit_test(all_of_each_source_comes),
		cmocka_unit_test(a_source_that_fails_is_asked_again_and_not_at_once),
		cmocka_unit_test(nothing_is_let_go_of_while_a_fetch_is_under_way),
		cmocka_unit_test(a_source_that_comes_late_is_read_too),
		cmocka_unit_test(what_is_being_shown_as_a_source_comes_is_shown_again),
		cmocka_unit_test(with_a_limit_only_what_there_is_room_for_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
