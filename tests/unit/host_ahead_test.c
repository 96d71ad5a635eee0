/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read along with a block that kernel mode waits for (src/host/ahead.c), and how long
 * kernel mode's blocks stay (src/host/evict.c).
 */
#include "host_swap_fixture.h"

#define FIRST 16u /* of the 16 blocks around */
#define AROUND 16u

/* Blocks FIRST to FIRST + AROUND - 1, written to and then evicted. */
static struct rig *open_evicted(uint64_t limit)
{
	struct rig *x = rig_plain(true, limit);

	/* Half of the reads are enough for all that lies around. */
	x->h.cfg.queue_depth = 2 * (AROUND + 1);
	rig_write_pages(x, FIRST, AROUND);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	x->h.stats.reads = 0;
	return x;
}

/* Kernel mode touches a block and waits; the reads are outstanding. */
static void touch_later(struct rig *x, uint64_t page)
{
	rig_swap(x)->src.answers = RIG_LATER;
	x->vcpus[0].cpu.cpl = 0;
	assert_int_equal(rig_fault_next(x, 0, page), HST_WAIT);
}

/* Neighbours may be of one read: nothing, where it was answered with another page. */
static void answer(struct rig *x, uint64_t page, int code)
{
	struct rig_src *s = &rig_swap(x)->src;
	uint64_t at = RIG_SWAP_HEAD + page * PAGE_BYTES;

	for (unsigned i = 0; i < s->count; i++)
		if (at - s->reads[i]->offset < s->reads[i]->len) {
			rig_src_answer(s, i, code);
			break;
		}
	rig_pump(x);
	rig_assert_sound(x);
}

/* All but `skipped` blocks from `first` on, in order. */
static void answer_but(struct rig *x, uint64_t first, uint64_t skipped)
{
	for (uint64_t p = FIRST; p < FIRST + AROUND; p++)
		if (p < first || p >= first + skipped)
			answer(x, p, 0);
}

/* They wait in a list by whether they were written to. */
static void a_release_without_its_hold_writes_to_none_of_them(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);

	(void)state;
	rig_touch(x, 20, 0);
	assert_int_equal(rig_kind(x, 21), BLOCK_STANDBY);
	hst_release_long(&x->h, (roff_t){21 * PAGE_BYTES}, PAGE_BYTES);
	rig_assert_sound(x);
	rig_evict_all(x);
	rig_check_pages(x, 20, 4);
	rig_swap_close(x);
}

static void kernel_mode_has_its_surroundings_read_to_standby(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);

	(void)state;
	rig_touch(x, 20, 0);
	assert_int_equal(x->h.stats.reads, AROUND);
	assert_int_equal(x->h.stats.read_ahead, AROUND - 1);
	assert_int_equal(x->h.evict.resident, AROUND);
	for (uint64_t p = FIRST; p < FIRST + AROUND; p++)
		assert_int_equal(rig_kind(x, p), p == 20 ? BLOCK_PRESENT : BLOCK_STANDBY);
	/* A touch takes no read, and tells whose they are. */
	rig_touch(x, 21, 0);
	rig_touch(x, 22, 3);
	assert_int_equal(x->h.stats.reads, AROUND);
	assert_int_equal(x->h.stats.rescued, 2);
	assert_int_equal(x->h.evict.lists[HST_LIST_KERNEL].len, 2);
	assert_int_equal(x->h.evict.lists[HST_LIST_USER].len, 1);
	rig_swap_close(x);
}

static void what_nobody_touches_goes_first_and_unwritten(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);
	uint64_t swapped = x->h.stats.swapped;

	(void)state;
	rig_touch(x, 20, 0);
	hst_evict_to(&x->h, PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 20), BLOCK_PRESENT);
	assert_int_equal(x->h.evict.resident, 1);
	assert_int_equal(x->h.stats.swapped, swapped);
	rig_check_pages(x, FIRST, AROUND);
	rig_swap_close(x);
}

static void user_mode_has_nothing_read_along(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);

	(void)state;
	rig_touch(x, 20, 3);
	rig_touch(x, 31, 3);
	rig_touch(x, 17, 3);
	assert_int_equal(x->h.stats.reads, 3);
	assert_int_equal(x->h.evict.resident, 3);
	rig_swap_close(x);
}

/* Neither what was never there nor what is there; nor beyond the 64 KiB or the end of RAM. */
static void only_what_is_in_the_swap_file_is_read_along(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 24, false, 12);

	(void)state;
	rig_write_pages(x, 17, 1);
	rig_write_pages(x, 20, 1);
	rig_write_pages(x, 15, 1);
	rig_evict_all(x);
	rig_write_pages(x, 22, 1);
	x->h.stats.reads = 0;
	rig_touch(x, 20, 0);
	assert_int_equal(x->h.stats.reads, 2);
	assert_int_equal(rig_kind(x, 17), BLOCK_STANDBY);
	assert_int_equal(rig_kind(x, 15), BLOCK_ABSENT);
	rig_swap_close(x);
}

static void near_the_limit_nothing_is_read_along(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);

	(void)state;
	for (uint64_t p = 64; p < 64 + RIG_LIMIT - 3; p++)
		rig_device(x, p, 0x2000 + p);
	x->h.stats.reads = 0;
	x->vcpus[0].cpu.cpl = 0;
	rig_fault(x, 0, 20);
	/* Half of the slack may be used. */
	assert_int_equal(x->h.stats.reads, 1);
	assert_int_equal(x->h.stats.read_ahead, 0);
	rig_swap_close(x);
}

static void who_waits_by_then_gets_it_mapped(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);
	struct hst_waiter w = {.v = NULL};

	(void)state;
	touch_later(x, 20);
	assert_false(hst_ensure(&x->h, (roff_t){23 * PAGE_BYTES}, &w));
	answer_but(x, 0, 0);
	assert_null(w.fetch);
	assert_int_equal(rig_kind(x, 20), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 23), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 24), BLOCK_STANDBY);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_check_pages(x, FIRST, AROUND);
	rig_swap_close(x);
}

/* Nobody has asked for it: the VM goes on, and who does want it reads it again. */
static void a_failed_read_along_is_given_up(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);
	struct hst_waiter w = {.v = NULL};

	(void)state;
	touch_later(x, 20);
	assert_false(hst_ensure(&x->h, (roff_t){24 * PAGE_BYTES}, &w));
	answer(x, 23, -EIO);
	answer(x, 24, -EIO); /* somebody waits: tried again */
	assert_int_equal(rig_kind(x, 23), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 24), BLOCK_FETCHING);
	assert_int_equal(x->h.evict.resident, AROUND - 1);
	assert_false(hst_is_paused(&x->h));
	answer_but(x, 23, 2);
	rig_swap(x)->src.answers = RIG_AT_ONCE;
	rig_after(x, NS_PER_S);
	rig_pump(x);
	assert_null(w.fetch);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_check_pages(x, FIRST, AROUND);
	rig_swap_close(x);
}

/* A stuck one pauses the VM, as the source is to blame; its failure then ends that. */
static void a_stuck_read_along_that_fails_is_given_up(void **state)
{
	struct rig *x = open_evicted(RIG_LIMIT);

	(void)state;
	x->h.cfg.source_timeout_ns = NS_PER_S;
	touch_later(x, 20);
	answer_but(x, 23, 1);
	rig_after(x, NS_PER_S);
	assert_true(hst_is_paused(&x->h));
	answer(x, 23, -EIO);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(rig_kind(x, 23), BLOCK_ABSENT);
	rig_swap(x)->src.answers = RIG_AT_ONCE;
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_check_pages(x, FIRST, AROUND);
	rig_swap_close(x);
}

/* User mode always wants the oldest back, kernel mode's are never touched again. */
static void kernel_modes_blocks_stay_longer(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, true, 256);
	const struct hst_list *kernel = &x->h.evict.lists[HST_LIST_KERNEL];
	uint64_t before;
	uint32_t had;

	(void)state;
	rig_check_pages(x, 0, 112);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 112; p++)
		rig_touch(x, p, 0);
	rig_evict(x);
	had = kernel->len;
	assert_true(had > 100);
	/* By turns so many pages that each touch displaces one. */
	before = x->h.stats.unmapped;
	for (unsigned i = 0; kernel->len > had / 2; i++) {
		assert_true(i < 10000);
		rig_touch(x, 512 + i % 512, 3);
		rig_evict(x);
	}
	/*
	 * To take one of k costs 32 u / k of the others, of which there are about u = 220 - k: from
	 * 112 to 56 it is 32 (220 ln 2 - 56) = 3088, and the 56.
	 */
	assert_in_range(x->h.stats.unmapped - before, 2900, 3700);
	rig_swap_close(x);
}

/* One job for each of them would be a hold of the vCPUs for each. */
static void where_all_are_kernel_modes_many_go_in_one_job(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, true, 256);
	struct hst_job job;

	(void)state;
	rig_check_pages(x, 0, 240);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 240; p++)
		rig_touch(x, p, 0);
	assert_int_equal(x->h.evict.lists[HST_LIST_USER].len, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_in_range(job.blocks, 16, 64);
	rig_end_job(x, &job);
	rig_evict(x);
	rig_swap_close(x);
}

/* Whoever sleeps in the kernel is no waiter of the driver's, and waits all the same. */
static void who_sleeps_in_the_kernel_by_then_gets_it_mapped(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_KERNEL, 256, true, 0);
	struct err e;

	(void)state;
	x->h.cfg.queue_depth = 2 * (AROUND + 1);
	rig_write_pages(x, FIRST, AROUND);
	rig_evict_all(x);
	rig_swap(x)->src.answers = RIG_LATER;
	x->vcpus[0].cpu.cpl = 0;
	rig_exit(x, 0, false);
	rig_load(rig_v(x, 0), (roff_t){20 * PAGE_BYTES});
	assert_int_equal(x->h.stats.read_ahead, AROUND - 1);
	assert_int_equal(rig_vmm_touch(&x->h, (roff_t){21 * PAGE_BYTES}, &e), 0);
	assert_int_equal(rig_kernel_touch(&x->h, (roff_t){22 * PAGE_BYTES}, &e), 0);
	/* Nor is it given up when it fails. */
	answer(x, 22, -EIO);
	rig_after(x, NS_PER_S);
	answer_but(x, 0, 0);
	for (uint64_t p = FIRST; p < FIRST + AROUND; p++)
		assert_int_equal(rig_kind(x, p),
				 p >= 20 && p <= 22 ? BLOCK_PRESENT : BLOCK_STANDBY);
	assert_true(rig_visible(x, 22) && rig_swap(x)->vmm[21] && !rig_swap(x)->vmm[22]);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_mode_has_its_surroundings_read_to_standby),
		cmocka_unit_test(a_release_without_its_hold_writes_to_none_of_them),
		cmocka_unit_test(what_nobody_touches_goes_first_and_unwritten),
		cmocka_unit_test(user_mode_has_nothing_read_along),
		cmocka_unit_test(only_what_is_in_the_swap_file_is_read_along),
		cmocka_unit_test(near_the_limit_nothing_is_read_along),
		cmocka_unit_test(who_waits_by_then_gets_it_mapped),
		cmocka_unit_test(who_sleeps_in_the_kernel_by_then_gets_it_mapped),
		cmocka_unit_test(a_failed_read_along_is_given_up),
		cmocka_unit_test(a_stuck_read_along_that_fails_is_given_up),
		cmocka_unit_test(kernel_modes_blocks_stay_longer),
		cmocka_unit_test(where_all_are_kernel_modes_many_go_in_one_job),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
