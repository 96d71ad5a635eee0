/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are made visible together (src/host/show.c): which ones, and what a failure does. */
#include <errno.h>

#include "host_fixture.h"

static struct rig *open_depth(uint32_t depth)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);

	cfg.queue_depth = depth;
	return rig_open(&cfg);
}

static bool ensure(struct rig *x, uint64_t page, struct hst_waiter *w)
{
	return hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, w);
}

/* Pages from `from` on are asked for, and come in this order. */
static void bring_all(struct rig *x, struct hst_waiter *w, uint64_t from, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_false(ensure(x, from + i, &w[i]));
	for (unsigned i = 0; i < count; i++)
		rig_answer(x, 0, 0);
	assert_int_equal(rig_pump(x), count);
	for (unsigned i = 0; i < count; i++)
		assert_true(rig_present(x, from + i));
}

static void neighbours_are_shown_by_one_call(void **state)
{
	struct rig *x = open_depth(64);
	struct hst_waiter w[40] = {0};

	(void)state;
	bring_all(x, w, 3, 5);
	assert_int_equal(x->counts[RIG_PRESENT], 1);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->b, 5 * PAGE_BYTES);
	assert_int_equal(x->counts[RIG_OUTSIDE], 5);
	/* 64 KiB at a time: who waits for the first waits for all of them. */
	bring_all(x, w, 16, 40);
	assert_int_equal(x->counts[RIG_PRESENT], 1 + 3);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 1)->b, 16 * PAGE_BYTES);
	rig_close(x);
}

static void what_is_no_neighbour_is_shown_alone(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 2 * CHUNK_BYTES / PAGE_BYTES);
	uint64_t border = CHUNK_BYTES / PAGE_BYTES;
	struct hst_waiter w[4] = {0};

	(void)state;
	/* A gap; the other way round. */
	(void)ensure(x, 7, &w[0]);
	(void)ensure(x, 9, &w[1]);
	(void)ensure(x, 6, &w[2]);
	for (unsigned i = 0; i < 3; i++)
		rig_answer(x, 0, 0);
	assert_int_equal(rig_pump(x), 3);
	assert_int_equal(x->counts[RIG_PRESENT], 3);
	/* Another part of memory may begin there. */
	bring_all(x, w, border - 2, 4);
	assert_int_equal(x->counts[RIG_PRESENT], 3 + 2);
	rig_close(x);
}

/* What is visible of it by then, nobody knows: all are tried again. */
static void a_failure_is_all_of_theirs(void **state)
{
	struct rig *x = open_depth(16);
	struct hst_waiter w[3] = {0};

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		(void)ensure(x, i, &w[i]);
	for (unsigned i = 0; i < 3; i++)
		rig_answer(x, 0, 0);
	x->mem_faults.at = x->mem_faults.calls + 1;
	rig_pump(x);
	assert_int_equal(x->h.troubled, 3);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	assert_int_equal(rig_pump(x), 3);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_READ], 3);
	assert_int_equal(x->counts[RIG_OUTSIDE], 3);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(neighbours_are_shown_by_one_call),
		cmocka_unit_test(what_is_no_neighbour_is_shown_alone),
		cmocka_unit_test(a_failure_is_all_of_theirs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
