/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory is taken away, how much, and on command: the rules at the head of evict.c. A block
 * is a page unless a test says otherwise; limits are in blocks.
 */
#include "host_swap_fixture.h"

/* ---- which, in which order ---- */

static void the_oldest_go_first(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_check_pages(x, 20, 10);
	rig_check_pages(x, 10, 10);
	hst_evict_to(&x->h, 12 * PAGE_BYTES);
	rig_evict(x);
	for (uint64_t p = 20; p < 28; p++)
		assert_int_equal(rig_kind(x, p), BLOCK_ABSENT);
	for (uint64_t p = 10; p < 20; p++)
		assert_int_equal(rig_kind(x, p), BLOCK_PRESENT);
	assert_int_equal(hst_resident_bytes(&x->h), 12 * PAGE_BYTES);
	rig_swap_close(x);
}

static void a_touch_in_time_is_a_second_chance(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t reads;

	(void)state;
	rig_write_pages(x, 10, 8);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_STANDBY);
	assert_false(rig_visible(x, 12));
	reads = x->h.stats.reads;
	rig_touch(x, 12, 3);
	assert_int_equal(rig_kind(x, 12), BLOCK_PRESENT);
	assert_int_equal(x->h.stats.rescued, 1);
	assert_int_equal(x->h.stats.reads, reads);
	rig_swap(x)->later = false;
	rig_evict(x);
	assert_int_equal(x->h.stats.evicted, 7);
	/* It is the youngest now. */
	rig_check_pages(x, 10, 2);
	hst_evict_to(&x->h, 2 * PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 12), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 10), BLOCK_PRESENT);
	rig_check_pages(x, 10, 8);
	rig_swap_close(x);
}

/* Not by its first touch, which is always the kernel's, but when it was wanted back. */
static void kernel_goes_last(uint64_t limit)
{
	struct rig *x = rig_plain(true, limit);

	for (uint64_t p = 10; p < 20; p++)
		rig_touch(x, p, 0);
	assert_int_equal(x->h.evict.lists[HST_LIST_KERNEL].len, 0);
	rig_evict_all(x);
	rig_touch(x, 15, 0);
	for (uint64_t p = 10; p < 20; p++)
		if (p != 15)
			rig_touch(x, p, 3);
	assert_int_equal(x->h.evict.lists[HST_LIST_KERNEL].len, 1);
	assert_int_equal(rig_v(x, 0)->stats.refaults_kernel_mode, 1);
	hst_evict_to(&x->h, PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(rig_kind(x, 15), BLOCK_PRESENT);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 15), BLOCK_ABSENT);
	/* User mode wants it this time: no longer special. */
	rig_touch(x, 15, 3);
	assert_int_equal(x->h.evict.lists[HST_LIST_KERNEL].len, 0);
	rig_swap_close(x);
}

static void what_kernel_mode_wanted_back_goes_last(void **state)
{
	(void)state;
	kernel_goes_last(0);
	kernel_goes_last(RIG_LIMIT);
}

/* Under a limit, when few of the others are left. */
static void kernel_blocks_do_go_when_others_are_few(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	for (uint64_t p = 0; p < 60; p++)
		rig_touch(x, p, 3);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 200; p++)
		rig_touch(x, p % 60, 0); /* refaults of kernel mode: all of them are its */
	assert_true(x->h.evict.lists[HST_LIST_KERNEL].len > 50);
	for (uint64_t p = 100; p < 200; p++) {
		rig_evict(x);
		rig_touch(x, p, 3);
	}
	/* A few of the others were kept all the same: a list of one is no order. */
	assert_true(x->h.evict.lists[HST_LIST_KERNEL].len < 60);
	assert_true(x->h.evict.resident <= RIG_LIMIT);
	rig_swap_close(x);
}

/* Two blocks that are wanted by turns do not displace each other for ever. */
static void two_come_to_stay(struct rig *x, uint64_t first, unsigned cpl)
{
	for (unsigned round = 0; round < 8; round++) {
		for (uint64_t p = first; p < first + 2; p++) {
			if (rig_kind(x, p) != BLOCK_PRESENT)
				rig_touch(x, p, cpl);
			rig_evict(x);
		}
	}
	assert_int_equal(rig_kind(x, first), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, first + 1), BLOCK_PRESENT);
}

/* Two blocks that kernel mode wants by turns, beside as few others. */
static void few_kernel_blocks_do_not_displace_each_other(void **state)
{
	struct rig *x = rig_plain(true, 9);

	(void)state;
	rig_touch(x, 20, 0);
	rig_touch(x, 21, 0);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 4; p++)
		rig_touch(x, p, 3);
	two_come_to_stay(x, 20, 0);
	rig_swap_close(x);
}

/* Two blocks that are wanted by turns, and as many of kernel mode's lie idle as are few. */
static void idle_kernel_blocks_go_at_last(void **state)
{
	struct rig *x = rig_plain(true, 9);

	(void)state;
	for (uint64_t p = 20; p < 24; p++)
		rig_touch(x, p, 0);
	rig_evict_all(x);
	for (uint64_t p = 20; p < 24; p++)
		rig_touch(x, p, 0);
	assert_int_equal(x->h.evict.lists[HST_LIST_KERNEL].len, 4);
	two_come_to_stay(x, 0, 3);
	assert_true(x->h.evict.resident <= 9);
	rig_swap_close(x);
}

static void neighbours_are_taken_together_up_to_the_chunk(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 1024, true, 0);
	struct hst_job job;

	(void)state;
	rig_check_pages(x, 500, 20);
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_int_equal(job.run_count, 2);
	assert_int_equal(job.runs[0].block, 500);
	assert_int_equal(job.runs[0].count, 12);
	assert_int_equal(job.runs[1].block, 512);
	assert_int_equal(job.runs[1].count, 8);
	rig_end_job(x, &job);
	job = rig_take_job(x, HST_JOB_COLLECT);
	assert_int_equal(job.blocks, 20);
	rig_end_job(x, &job);
	job = rig_take_job(x, HST_JOB_DROP);
	assert_int_equal(job.blocks, 12);
	rig_end_job(x, &job);
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_swap_close(x);
}

/* ---- how much ---- */

static void below_the_limit_nothing_is_dropped(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);

	(void)state;
	rig_check_pages(x, 0, 60);
	rig_evict(x);
	assert_int_equal(x->h.stats.evicted, 0);
	rig_check_pages(x, 60, 1);
	rig_evict(x);
	assert_int_equal(x->h.stats.evicted, 1);
	assert_int_equal(x->h.evict.resident, 60);
	rig_swap_close(x);
}

/* A working set that fits is left alone, however often it is touched. */
static void rescues_grant_no_credit(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	uint64_t before;

	(void)state;
	for (uint64_t p = 0; p < 60; p++) {
		rig_touch(x, p, 3);
		rig_evict(x);
	}
	assert_true(x->h.stats.unmapped > 0); /* ahead of demand */
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t p = 0; p < 60; p++)
			if (!rig_visible(x, p)) {
				rig_touch(x, p, 3);
				rig_evict(x);
			}
	before = x->h.stats.unmapped;
	for (unsigned round = 0; round < 10; round++)
		for (uint64_t p = 0; p < 60; p++)
			if (!rig_visible(x, p)) {
				rig_touch(x, p, 3);
				rig_evict(x);
			}
	assert_int_equal(x->h.stats.unmapped, before);
	assert_int_equal(x->h.stats.evicted, 0);
	rig_swap_close(x);
}

static void fetches_wait_for_room_and_go_on(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	struct hst_waiter w[8] = {{.v = NULL}};
	unsigned waiting = 0;

	(void)state;
	rig_write_pages(x, 0, RIG_LIMIT);
	for (unsigned i = 0; i < ARRAY_LEN(w); i++)
		assert_false(hst_ensure(&x->h, (roff_t){(100 + i) * PAGE_BYTES}, &w[i]));
	rig_pump(x);
	for (unsigned i = 0; i < ARRAY_LEN(w); i++)
		waiting += w[i].fetch != NULL;
	assert_int_equal(waiting, 8);
	assert_int_equal(x->h.evict.resident, RIG_LIMIT);
	for (unsigned i = 0; waiting > 0; i++) {
		(void)rig_job(x);
		while (rig_swap(x)->count)
			rig_write_ok(x, 0);
		rig_pump(x);
		waiting = 0;
		for (unsigned k = 0; k < ARRAY_LEN(w); k++)
			waiting += w[k].fetch != NULL;
		assert_true(x->h.evict.resident <= RIG_LIMIT && i < 100);
	}
	rig_evict(x);
	rig_check_pages(x, 100, 8);
	for (uint64_t p = 0; p < RIG_LIMIT; p++) {
		rig_evict(x);
		rig_check_pages(x, p, 1);
	}
	rig_swap_close(x);
}

/* Or each block would displace the one before, which nobody has touched yet. */
static void reads_take_up_no_more_than_half(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	struct hst_waiter w[40] = {{.v = NULL}};

	(void)state;
	x->h.cfg.queue_depth = ARRAY_LEN(w);
	x->src.answers = RIG_LATER;
	for (unsigned i = 0; i < ARRAY_LEN(w); i++)
		assert_false(hst_ensure(&x->h, (roff_t){(100 + i) * PAGE_BYTES}, &w[i]));
	assert_int_equal(x->src.count, RIG_LIMIT / 2);
	for (unsigned i = 0; i < ARRAY_LEN(w); i++) {
		assert_true(x->src.count > 0);
		rig_answer(x, 0, 0);
		rig_pump(x);
	}
	for (unsigned i = 0; i < ARRAY_LEN(w); i++)
		assert_null(w[i].fetch);
	rig_swap_close(x);
}

/* Never touched, nothing but zeroes: 64 KiB come with one fault, as far as there is room. */
static void untouched_zeroes_come_with_their_neighbours(void **state)
{
	struct rig *x = rig_plain(false, RIG_LIMIT);

	(void)state;
	rig_touch(x, 20, 3);
	for (uint64_t p = 0; p < 48; p++)
		assert_int_equal(rig_visible(x, p), p >= 16 && p < 32);
	assert_int_equal(x->h.evict.resident, 16);
	rig_write_pages(x, 16, 16);
	rig_evict_all(x);
	/* What was there before comes alone. */
	rig_touch(x, 17, 3);
	assert_int_equal(x->h.evict.resident, 1);
	for (uint64_t p = 32; p < 80; p += 16)
		rig_touch(x, p, 3);
	for (uint64_t p = 18; p < 28; p++)
		rig_touch(x, p, 3);
	assert_true(x->h.evict.resident > 48 && x->h.evict.resident < RIG_LIMIT);
	rig_touch(x, 130, 3);
	assert_int_equal(x->h.evict.resident, RIG_LIMIT);
	rig_evict(x);
	rig_check_pages(x, 16, 1);
	rig_swap_close(x);
}

static void a_limit_as_large_as_memory_is_none(void **state)
{
	struct rig *x = rig_plain(true, 256);

	(void)state;
	rig_check_pages(x, 0, 256);
	assert_false(hst_evict_wanted(&x->h));
	rig_swap_close(x);
}

/* ---- memory that the kernel filled by itself ---- */

static void native_memory_is_found_and_taken(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	for (uint64_t p = 0; p < 30; p++) {
		rig_native(x, p);
		rig_put(x, p, p % 3 ? 0x100 + p : 1);
	}
	rig_device(x, 40, 0x40);
	assert_int_equal(x->h.evict.resident, 16); /* with its neighbours */
	rig_evict_all(x);
	assert_int_equal(hst_resident_bytes(&x->h), 0);
	assert_int_equal(x->h.stats.unmapped_zero, 10 + 15);
	assert_int_equal(x->h.stats.swapped, 21);
	rig_check_pages(x, 0, 41);
	rig_swap_close(x);
}

static void to_a_size_counts_what_nobody_knew_of(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	for (uint64_t p = 0; p < 50; p++)
		rig_native(x, p);
	hst_evict_to(&x->h, 20 * PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(hst_resident_bytes(&x->h), 20 * PAGE_BYTES);
	rig_swap_close(x);
}

static void three_quarters_of_the_limit_begin_the_watch(void **state)
{
	struct rig *x = rig_plain(false, RIG_LIMIT);

	(void)state;
	for (uint64_t p = 0; p < 47; p++)
		rig_native(x, p);
	assert_false(rig_job(x));
	rig_native(x, 47);
	rig_evict(x);
	assert_true(rig_swap(x)->watched);
	assert_int_equal(x->h.evict.resident, 48);
	rig_swap_close(x);
}

/* Known to us all the same: nobody has to wait for the next look at the rest. */
static void what_devices_fill_begins_the_watch_at_once(void **state)
{
	struct rig *x = rig_plain(false, RIG_LIMIT);

	(void)state;
	rig_write_pages(x, 0, 32);
	assert_false(hst_evict_wanted(&x->h));
	rig_write_pages(x, 32, 1); /* and what comes with it: 48 of 64 */
	assert_true(hst_evict_wanted(&x->h));
	rig_evict(x);
	assert_true(rig_swap(x)->watched);
	rig_swap_close(x);
}

/* Filled in part it could neither be counted nor taken. */
static void larger_blocks_are_watched_from_the_start(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x;

	(void)state;
	cfg.block_shift = 14;
	x = rig_swap_open(&cfg, 256, false, 0);
	assert_int_equal(x->h.evict.watch, HST_WATCH_ALL);
	rig_device(x, 5, 5);
	rig_evict_all(x);
	assert_int_equal(rig_swap(x)->calls[RIG_TAKE_WATCH], 0);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

/* ---- on command ---- */

static void it_ends_although_everything_is_wanted_back(void **state)
{
	struct rig *x = rig_plain(false, 0);
	unsigned rounds = 0;

	(void)state;
	rig_write_pages(x, 0, 96);
	rig_swap(x)->later = true;
	hst_evict_to(&x->h, 0);
	while (hst_evict_forced(&x->h)) {
		(void)rig_job(x);
		assert_true(rounds++ < 960);
		if (x->h.evict.hold.on)
			continue;
		for (uint64_t p = 0; p < 96; p++)
			if (rig_kind(x, p) == BLOCK_STANDBY)
				rig_touch(x, p, 3);
		while (rig_swap(x)->count)
			rig_write_ok(x, 0);
	}
	assert_int_equal(x->h.stats.evicted, 0);
	assert_int_equal(x->h.stats.rescued, 96);
	rig_swap_close(x);
}

static void the_larger_of_two_commands_counts(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_check_pages(x, 0, 100);
	hst_evict_to(&x->h, 10 * PAGE_BYTES);
	hst_evict_to(&x->h, 90 * PAGE_BYTES);
	rig_evict(x);
	assert_int_equal(x->h.evict.resident, 10);
	rig_swap_close(x);
}

static void it_works_while_the_vm_is_paused(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_write_pages(x, 0, 20);
	hst_pause(&x->h);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 20);
	hst_resume(&x->h);
	rig_swap_close(x);
}

/* ---- the VMM's view ---- */

static void what_only_the_vmm_wrote_is_written_out(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	for (uint64_t p = 10; p < 14; p++)
		rig_vmm(x, p, p % 2 ? 0x2000 + p : 0); /* absent until then */
	for (uint64_t p = 14; p < 18; p++) {
		rig_check_pages(x, p, 1); /* the guest sees it already */
		rig_vmm(x, p, p % 2 ? 0x2000 + p : 0);
	}
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 4);
	assert_int_equal(x->h.stats.unmapped_clean, 4);
	for (uint64_t p = 10; p < 18; p++)
		assert_false(rig_swap(x)->vmm[p] || rig_visible(x, p));
	/* Next time the VMM's view shows nothing: what it wrote then is no reason. */
	rig_check_pages(x, 10, 8);
	rig_evict_all(x);
	assert_int_equal(x->h.stats.swapped, 4);
	rig_swap_close(x);
}

static void a_touch_of_the_vmm_is_a_second_chance(void **state)
{
	struct rig *x = rig_plain(true, 0);
	uint64_t reads;

	(void)state;
	rig_write_pages(x, 10, 4);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	reads = x->h.stats.reads;
	rig_vmm(x, 11, 0x2000);
	assert_int_equal(x->h.stats.rescued, 1);
	assert_int_equal(x->h.stats.reads, reads);
	assert_true(rig_present(x, 11) && rig_visible(x, 11));
	rig_swap(x)->later = false;
	rig_evict(x);
	rig_check_pages(x, 10, 4);
	rig_swap_close(x);
}

/* While it is being taken away, by either of the jobs. */
static void the_vmm_waits_behind_a_job(void **state)
{
	(void)state;
	for (unsigned jobs = 0; jobs < 3; jobs++) {
		struct rig *x = rig_plain(true, 0);
		struct hst_job job;
		struct err e;

		rig_vmm(x, 10, 0x2000);
		hst_evict_to(&x->h, 0);
		job = rig_take_job(x, HST_JOB_UNMAP);
		if (jobs > 0) {
			rig_end_job(x, &job);
			job = rig_take_job(x, HST_JOB_COLLECT);
		}
		if (jobs > 1) {
			rig_end_job(x, &job);
			assert_false(rig_job(x)); /* the write begins */
			rig_write_ok(x, 0);
			job = rig_take_job(x, HST_JOB_DROP);
		}
		assert_int_equal(rig_vmm_touch(&x->h, (roff_t){10 * PAGE_BYTES}, &e), 0);
		rig_end_job(x, &job);
		while (!rig_present(x, 10) && rig_job(x))
			;
		rig_pump(x);
		assert_true(rig_present(x, 10) && rig_swap(x)->vmm[10] && rig_right(x, 10));
		rig_evict_all(x);
		rig_check_pages(x, 10, 1);
		rig_swap_close(x);
	}
}

/* ---- held for long ---- */

static void what_is_held_for_long_leaves_room_for_the_rest(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	uint32_t may = RIG_LIMIT - hst_blocks_min(1), held = 0;

	(void)state;
	for (uint64_t p = 0; p < 60; p++) {
		rig_device(x, p, 0);
		held += hst_hold_long(&x->h, (roff_t){p * PAGE_BYTES});
		rig_assert_sound(x);
	}
	assert_int_equal(held, may);
	assert_int_equal(x->h.evict.staying, may);
	assert_false(hst_pin(&x->h, (roff_t){59 * PAGE_BYTES}));
	/* What stays anyway may be held again, and pinned. */
	assert_true(hst_hold_long(&x->h, (roff_t){0}));
	assert_true(hst_pin(&x->h, (roff_t){0}));
	rig_assert_sound(x);
	assert_true(hst_resident_min(&x->h) == (uint64_t)RIG_LIMIT << PAGE_SHIFT);
	hst_release_long(&x->h, (roff_t){0}, 1);
	hst_unpin(&x->h, (roff_t){0});
	assert_int_equal(x->h.evict.staying, may);
	/* They stay, and whatever else is wanted has room. */
	for (uint64_t p = 60; p < 256; p++) {
		rig_evict(x);
		rig_device(x, p, 0);
	}
	for (uint64_t p = 0; p < may; p++) {
		assert_true(rig_present(x, p));
		hst_release_long(&x->h, (roff_t){p * PAGE_BYTES}, 1);
	}
	assert_int_equal(x->h.evict.staying, 0);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_oldest_go_first),
		cmocka_unit_test(a_touch_in_time_is_a_second_chance),
		cmocka_unit_test(what_kernel_mode_wanted_back_goes_last),
		cmocka_unit_test(kernel_blocks_do_go_when_others_are_few),
		cmocka_unit_test(few_kernel_blocks_do_not_displace_each_other),
		cmocka_unit_test(idle_kernel_blocks_go_at_last),
		cmocka_unit_test(neighbours_are_taken_together_up_to_the_chunk),
		cmocka_unit_test(below_the_limit_nothing_is_dropped),
		cmocka_unit_test(rescues_grant_no_credit),
		cmocka_unit_test(fetches_wait_for_room_and_go_on),
		cmocka_unit_test(reads_take_up_no_more_than_half),
		cmocka_unit_test(untouched_zeroes_come_with_their_neighbours),
		cmocka_unit_test(a_limit_as_large_as_memory_is_none),
		cmocka_unit_test(native_memory_is_found_and_taken),
		cmocka_unit_test(to_a_size_counts_what_nobody_knew_of),
		cmocka_unit_test(three_quarters_of_the_limit_begin_the_watch),
		cmocka_unit_test(what_devices_fill_begins_the_watch_at_once),
		cmocka_unit_test(larger_blocks_are_watched_from_the_start),
		cmocka_unit_test(it_ends_although_everything_is_wanted_back),
		cmocka_unit_test(the_larger_of_two_commands_counts),
		cmocka_unit_test(it_works_while_the_vm_is_paused),
		cmocka_unit_test(what_only_the_vmm_wrote_is_written_out),
		cmocka_unit_test(a_touch_of_the_vmm_is_a_second_chance),
		cmocka_unit_test(the_vmm_waits_behind_a_job),
		cmocka_unit_test(what_is_held_for_long_leaves_room_for_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
