/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read ahead of even steps, and around what is waited for (src/host/ahead.c): which reads,
 * at whose cost, and failures.
 */
#include <errno.h>

#include "host_fixture.h"

#define MS NS_PER_MS

static struct rig *open_ahead(uint32_t ahead_max, uint32_t depth)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);

	cfg.ahead_max = ahead_max;
	cfg.queue_depth = depth;
	return rig_open(&cfg);
}

/* Waits for the page, which comes. */
static void need(struct rig *x, uint64_t page)
{
	assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
	rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
}

/* Pages 10, 11, 12: the third step is even. */
static struct rig *open_walk(uint32_t depth)
{
	struct rig *x = open_ahead(8, depth);

	need(x, 10);
	need(x, 11);
	assert_int_equal(x->counts[RIG_READ], 2);
	assert_int_equal(rig_fault_next(x, 0, 12), HST_WAIT);
	return x;
}

static void even_steps_are_read_ahead(void **state)
{
	struct rig *x = open_walk(64);
	struct hst_stats s;

	(void)state;
	assert_int_equal(x->counts[RIG_READ], 7);
	hst_stats_sum(&x->h, &s);
	assert_int_equal(s.read_ahead, 4);
	/* In any order; and they show without a touch. */
	for (uint64_t page = 16; page >= 12; page--)
		rig_bring(x, page);
	for (uint64_t page = 10; page <= 16; page++)
		assert_true(rig_present(x, page));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* The next that is waited for. */
	assert_int_equal(rig_fault_next(x, 0, 17), HST_WAIT);
	assert_int_equal(x->counts[RIG_READ], 16);
	for (uint64_t page = 17; page <= 25; page++)
		rig_bring(x, page);
	rig_close(x);
}

static void nothing_is_without_leave(void **state)
{
	struct rig *x = open_ahead(0, 64);

	(void)state;
	for (uint64_t page = 10; page < 20; page++)
		need(x, page);
	assert_int_equal(x->counts[RIG_READ], 10);
	rig_close(x);
}

/* Half of the reads are for those who wait. */
static void it_leaves_reads_to_others(void **state)
{
	struct rig *x = open_walk(6);

	(void)state;
	assert_int_equal(x->h.in_flight, 3);
	for (uint64_t page = 12; page <= 14; page++)
		rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* Who comes while it is read waits for that read, and for it the next are read. */
static void one_that_is_under_way_is_joined(void **state)
{
	struct rig *x = open_walk(64);

	(void)state;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_fault_next(x, 0, 14), HST_WAIT);
	/* 13 was not waited for: two of four are used up, and eight are to be. */
	assert_int_equal(x->counts[RIG_READ], 7 + 6);
	for (uint64_t page = 22; page >= 13; page--)
		rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* What nobody waits for fails in silence; whoever touches it reads it anew. */
static void a_failure_is_nobodys_trouble(void **state)
{
	struct rig *x = open_walk(64);

	(void)state;
	rig_answer(x, rig_read_at(x, 14 * PAGE_BYTES), -EIO);
	rig_pump(x);
	assert_false(hst_is_paused(&x->h));
	for (uint64_t page = 12; page <= 16; page++)
		if (page != 14)
			rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_false(rig_present(x, 14));
	need(x, 14);
	rig_close(x);
}

/* It is somebody's by then. */
static void a_failure_of_a_joined_one_is_tried_again(void **state)
{
	struct rig *x = open_walk(64);
	unsigned reads;

	(void)state;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_fault_next(x, 0, 13), HST_WAIT);
	reads = x->counts[RIG_READ];
	rig_answer(x, rig_read_at(x, 13 * PAGE_BYTES), -EIO);
	rig_after(x, NS_PER_S);
	rig_pump(x);
	assert_int_equal(x->counts[RIG_READ], reads + 1);
	for (uint64_t page = 13; page <= 16; page++)
		rig_bring(x, page);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* Behind the last page there is nothing to read. */
static void memory_ends(void **state)
{
	struct rig *x = open_ahead(8, 64);
	uint64_t last = x->h.mem.bytes / PAGE_BYTES - 1;

	(void)state;
	for (uint64_t page = last - 3; page < last - 1; page++)
		need(x, page);
	assert_int_equal(rig_fault_next(x, 0, last - 1), HST_WAIT);
	assert_int_equal(x->counts[RIG_READ], 4);
	rig_bring(x, last);
	rig_bring(x, last - 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* And backwards, before the first. */
	for (uint64_t page = 3; page > 1; page--)
		need(x, page);
	assert_int_equal(rig_fault_next(x, 0, 1), HST_WAIT);
	assert_int_equal(x->counts[RIG_READ], 8);
	rig_bring(x, 0);
	rig_bring(x, 1);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* A source 21 ms away, whose reads are wanted in requests of 2 MiB; pages 10 to 12 as above. */
static struct rig *open_far(uint32_t depth)
{
	struct rig *x = open_ahead(1024, depth);

	x->h.cfg.source_timeout_ns = 100 * MS;
	for (uint64_t page = 10; page <= 12; page++) {
		assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
		if (page == 12)
			break;
		rig_after(x, 21 * MS);
		rig_bring(x, page);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	return x;
}

static void of_a_far_source_neighbours_are_one_read(void **state)
{
	struct rig *x = open_far(64);

	(void)state;
	assert_int_equal(x->counts[RIG_READ], 3 + 1);
	assert_int_equal(x->h.in_flight, 2);
	assert_int_equal(x->src.reads[1]->offset, 13 * PAGE_BYTES);
	assert_int_equal(x->src.reads[1]->len, 4 * PAGE_BYTES);
	assert_int_equal(x->src.reads[1]->rank, SRC_AHEAD);
	assert_int_equal(x->src.reads[0]->rank, SRC_DEMAND);
	rig_bring(x, 13);
	rig_bring(x, 12);
	for (uint64_t page = 12; page <= 16; page++)
		assert_true(rig_present(x, page));
	assert_int_equal(x->h.stats.read_bytes, 7 * PAGE_BYTES);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* And backwards, to the first page of memory. */
static void backwards_they_are_as_well(void **state)
{
	struct rig *x = open_ahead(1024, 64);

	(void)state;
	for (uint64_t page = 5; page >= 3; page--) {
		assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
		rig_after(x, 21 * MS);
		rig_bring(x, page);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	assert_int_equal(x->h.in_flight, 1);
	assert_int_equal(x->src.reads[0]->offset, 0);
	assert_int_equal(x->src.reads[0]->len, 3 * PAGE_BYTES);
	rig_bring(x, 0);
	assert_true(rig_present(x, 0) && rig_present(x, 1) && rig_present(x, 2));
	rig_close(x);
}

/* That it was asked for together is nobody's fault who waits for one of them. */
static void what_was_read_together_fails_alone(void **state)
{
	struct rig *x = open_far(64);

	(void)state;
	x->h.cfg.retries_max = 0;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_fault_next(x, 0, 14), HST_WAIT);
	rig_answer(x, rig_read_at(x, 13 * PAGE_BYTES), -EIO);
	rig_pump(x);
	rig_assert_sound(x);
	assert_int_equal(x->h.stats.read_errors, 1);
	assert_false(hst_is_paused(&x->h));
	/* At once, by itself, as what is waited for. */
	assert_int_equal(x->src.reads[rig_read_at(x, 14 * PAGE_BYTES)]->len, PAGE_BYTES);
	assert_int_equal(x->src.reads[rig_read_at(x, 14 * PAGE_BYTES)]->rank, SRC_DEMAND);
	assert_false(rig_present(x, 13) || rig_present(x, 15));
	rig_answer(x, rig_read_at(x, 14 * PAGE_BYTES), -EIO);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	rig_bring(x, 14);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	while (x->src.count > 0)
		rig_answer(x, 0, 0);
	rig_pump(x);
	rig_close(x);
}

/* One read, one trouble, one cancellation, however many it was for. */
static void what_was_read_together_is_stuck_together(void **state)
{
	struct rig *x = open_far(64);

	(void)state;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_fault_next(x, 0, 14), HST_WAIT);
	/* 13 to 16, and 17 to 22. */
	assert_int_equal(x->src.count, 2);
	rig_after(x, 100 * MS);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_TROUBLE], 2);
	assert_true(hst_is_stuck(&x->h, (roff_t){14 * PAGE_BYTES}));
	x->src.cancels = RIG_CANCEL_ENDS;
	hst_resume(&x->h);
	rig_assert_sound(x);
	assert_int_equal(x->counts[RIG_CANCEL], 2);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->src.reads[rig_read_at(x, 14 * PAGE_BYTES)]->rank, SRC_DEMAND);
	rig_bring(x, 14);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	while (x->src.count > 0)
		rig_answer(x, 0, 0);
	rig_pump(x);
	rig_close(x);
}

/* A read that ended after the VM is none any more, and its source has forgotten it. */
static void what_ended_after_the_vm_is_not_raised(void **state)
{
	struct rig *x = open_far(64);
	struct hst_waiter device = {.v = NULL};

	(void)state;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_non_null(x->src.reads[rig_read_at(x, 13 * PAGE_BYTES)]);
	hst_stop(&x->h);
	while (x->src.count > 0)
		rig_answer(x, 0, -ECANCELED);
	assert_false(hst_ensure(&x->h, (roff_t){15 * PAGE_BYTES}, &device));
	assert_int_equal(x->src.raises, 0);
	hst_forget(&device);
	rig_close(x);
}

/* What is with the source already goes by the turn of who comes to wait for any of it. */
static void what_is_wanted_is_raised(void **state)
{
	struct rig *x = open_far(64);
	struct hst_waiter device[3] = {{.v = NULL}};
	const struct src_read *rd;

	(void)state;
	rig_bring(x, 12);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rd = x->src.reads[rig_read_at(x, 13 * PAGE_BYTES)];
	assert_int_equal(rd->len, 4 * PAGE_BYTES);
	assert_int_equal(src_turn(rd), TURN_AHEAD);
	assert_false(hst_ensure(&x->h, (roff_t){15 * PAGE_BYTES}, &device[0]));
	assert_int_equal(src_turn(rd), TURN_DEMAND);
	assert_int_equal(x->src.raises, 1);
	assert_false(hst_ensure(&x->h, (roff_t){16 * PAGE_BYTES}, &device[1]));
	assert_int_equal(x->src.raises, 1);
	/* A vCPU that can do nothing else. */
	x->vcpus[0].cpu.cpl = 0;
	assert_int_equal(rig_fault_next(x, 0, 13), HST_WAIT);
	assert_int_equal(src_turn(rd), TURN_URGENT);
	assert_int_equal(x->src.raises, 2);
	rig_bring(x, 13);
	for (uint64_t page = 13; page <= 16; page++)
		assert_true(rig_present(x, page));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* What was cancelled is left alone: it is read anew, by its turn. */
	rig_after(x, 100 * MS);
	hst_resume(&x->h);
	assert_false(hst_ensure(&x->h, (roff_t){18 * PAGE_BYTES}, &device[2]));
	assert_int_equal(x->src.raises, 2);
	while (x->src.count > 0)
		rig_answer(x, 0, x->src.cancelled[0] ? -ECANCELED : 0);
	rig_pump(x);
	rig_close(x);
}

/* What waits for its turn goes at once when somebody comes to wait for it. */
static void what_is_wanted_leaves_the_queue(void **state)
{
	/* One read ahead at a time, beside that for which somebody waits. */
	struct rig *x = open_ahead(8, 4);
	struct hst_waiter device = {.v = NULL};

	(void)state;
	for (uint64_t page = 10; page <= 12; page++) {
		if (page == 10)
			need(x, 14);
		assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
		if (page == 12)
			break;
		rig_after(x, 21 * MS);
		rig_bring(x, page);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	/* 13, and, as 14 is there, 15 and 16 by themselves. */
	assert_int_equal(x->src.count, 2);
	assert_int_equal(x->src.reads[1]->offset, 13 * PAGE_BYTES);
	assert_int_equal(x->h.ahead_queued, 2);
	assert_false(hst_ensure(&x->h, (roff_t){16 * PAGE_BYTES}, &device));
	rig_assert_sound(x);
	assert_int_equal(x->h.ahead_queued, 1);
	assert_int_equal(x->src.reads[2]->offset, 16 * PAGE_BYTES);
	assert_int_equal(x->src.reads[2]->rank, SRC_DEMAND);
	while (x->src.count > 0)
		rig_answer(x, 0, 0);
	rig_pump(x);
	for (uint64_t page = 12; page <= 16; page++)
		assert_true(rig_present(x, page));
	rig_close(x);
}

/* A read of a block took 21 ms, and the next fault is kernel mode's. */
static struct rig *open_kernel_mode(uint32_t ahead_max, uint8_t cpl)
{
	struct rig *x = open_ahead(ahead_max, 64);

	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	rig_after(x, 21 * MS);
	rig_bring(x, 5);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	x->vcpus[0].cpu.cpl = cpl;
	assert_int_equal(rig_fault_next(x, 0, 20), HST_WAIT);
	return x;
}

static void bring_all(struct rig *x)
{
	while (x->src.count > 0)
		rig_answer(x, 0, 0);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
}

/* A vCPU that is in kernel mode can do nothing else meanwhile. */
static void what_lies_around_kernel_modes_comes_along(void **state)
{
	struct rig *x = open_kernel_mode(8, 0);

	(void)state;
	/* The block itself, then what stands before it and behind it. */
	assert_int_equal(x->src.count, 3);
	assert_int_equal(x->src.reads[0]->len, PAGE_BYTES);
	assert_int_equal(x->src.reads[0]->rank, SRC_DEMAND);
	assert_int_equal(x->h.stats.read_ahead, 7);
	assert_int_equal(x->src.reads[rig_read_at(x, 16 * PAGE_BYTES)]->len, 4 * PAGE_BYTES);
	assert_int_equal(x->src.reads[rig_read_at(x, 16 * PAGE_BYTES)]->rank, SRC_FILL);
	assert_int_equal(x->src.reads[rig_read_at(x, 21 * PAGE_BYTES)]->len, 3 * PAGE_BYTES);
	bring_all(x);
	for (uint64_t page = 15; page <= 24; page++)
		assert_int_equal(rig_present(x, page), page >= 16 && page <= 23);
	rig_close(x);
}

/* User mode runs another task, and is not known there; without leave, each brings its own. */
static void no_other_mode_has_that_nor_one_without_leave(void **state)
{
	struct rig *x = open_kernel_mode(8, 3);

	(void)state;
	assert_int_equal(x->src.count, 1);
	bring_all(x);
	rig_close(x);
	x = open_kernel_mode(0, 0);
	assert_int_equal(x->src.count, 1);
	bring_all(x);
	rig_close(x);
}

/* Of a source 21 ms away, no two steps alike; the last is not brought yet. */
static struct rig *open_here_and_there(const uint8_t *pages, unsigned count)
{
	struct rig *x = open_ahead(1024, 64);

	for (unsigned i = 0; i < count; i++) {
		x->vcpus[0].cpu.cpl = 3;
		assert_int_equal(rig_fault_next(x, 0, pages[i]), HST_WAIT);
		if (i == count - 1)
			break;
		rig_after(x, 21 * MS);
		rig_bring(x, pages[i]);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
	}
	return x;
}

/* Three of the 16 pages from 16 on; of the 32 from 0 on these are not one in eight. */
static void where_user_mode_was_more_comes_along(void **state)
{
	static const uint8_t pages[] = {17, 30, 22};
	struct rig *x = open_here_and_there(pages, 2);

	(void)state;
	assert_int_equal(x->h.stats.read_ahead, 0);
	bring_all(x);
	rig_close(x);
	x = open_here_and_there(pages, 3);
	assert_int_equal(x->h.stats.read_ahead, 13);
	assert_int_equal(x->src.reads[rig_read_at(x, 22 * PAGE_BYTES)]->rank, SRC_DEMAND);
	assert_int_equal(x->src.reads[rig_read_at(x, 18 * PAGE_BYTES)]->len, 4 * PAGE_BYTES);
	assert_int_equal(x->src.reads[rig_read_at(x, 18 * PAGE_BYTES)]->rank, SRC_FILL);
	bring_all(x);
	for (uint64_t page = 0; page < 64; page++)
		assert_int_equal(rig_present(x, page), page >= 16 && page <= 31);
	rig_close(x);
}

/* Whoever is seen more is given more: five of the 32 pages from 0 on. */
static void the_denser_the_more(void **state)
{
	static const uint8_t pages[] = {2, 30, 13, 17, 7};
	struct rig *x = open_here_and_there(pages, 4);

	(void)state;
	assert_int_equal(x->h.stats.read_ahead, 0);
	bring_all(x);
	rig_close(x);
	x = open_here_and_there(pages, 5);
	assert_int_equal(x->h.stats.read_ahead, 27);
	bring_all(x);
	for (uint64_t page = 0; page < 64; page++)
		assert_int_equal(rig_present(x, page), page <= 31);
	rig_close(x);
}

/* What a block of the page cache costs is no reason to bring another. */
static void what_is_near_brings_a_block(void **state)
{
	struct rig *x = open_ahead(1024, 64);

	(void)state;
	need(x, 5);
	x->vcpus[0].cpu.cpl = 0;
	assert_int_equal(rig_fault_next(x, 0, 20), HST_WAIT);
	assert_int_equal(x->src.count, 1);
	bring_all(x);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(even_steps_are_read_ahead),
		cmocka_unit_test(nothing_is_without_leave),
		cmocka_unit_test(it_leaves_reads_to_others),
		cmocka_unit_test(one_that_is_under_way_is_joined),
		cmocka_unit_test(a_failure_is_nobodys_trouble),
		cmocka_unit_test(a_failure_of_a_joined_one_is_tried_again),
		cmocka_unit_test(memory_ends),
		cmocka_unit_test(of_a_far_source_neighbours_are_one_read),
		cmocka_unit_test(backwards_they_are_as_well),
		cmocka_unit_test(what_was_read_together_fails_alone),
		cmocka_unit_test(what_was_read_together_is_stuck_together),
		cmocka_unit_test(what_is_wanted_is_raised),
		cmocka_unit_test(what_ended_after_the_vm_is_not_raised),
		cmocka_unit_test(what_is_wanted_leaves_the_queue),
		cmocka_unit_test(what_lies_around_kernel_modes_comes_along),
		cmocka_unit_test(no_other_mode_has_that_nor_one_without_leave),
		cmocka_unit_test(where_user_mode_was_more_comes_along),
		cmocka_unit_test(the_denser_the_more),
		cmocka_unit_test(what_is_near_brings_a_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
