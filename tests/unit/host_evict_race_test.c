/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is wanted, named or pinned while it is being taken away, and steps that fail half-way
 * (src/host/evict.c). A block is a page; limits are in blocks.
 */
#include "host_swap_fixture.h"

/* ---- wanted while it is being taken ---- */

/* KVM is to map ahead what came for the guest. */
static void what_came_is_told_once(void **state)
{
	roff_t arrived[HST_ARRIVED_MAX];
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	rig_bring(x, 5);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 1);
	assert_int_equal(arrived[0].v, 5 * PAGE_BYTES);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 0);
	rig_close(x);

	/* Told "page missing", the guest goes on; the blocks come meanwhile. */
	x = rig_open_on(APF_REV_INT, 1);
	for (uint64_t page = 10; page < 12; page++) {
		assert_int_equal(rig_fault_next(x, 0, page), HST_ENTER);
		rig_take_pf(x, 0);
	}
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 0);
	rig_bring(x, 11);
	rig_bring(x, 10);
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 2);
	assert_int_equal(arrived[0].v, 11 * PAGE_BYTES);
	assert_int_equal(arrived[1].v, 10 * PAGE_BYTES);
	rig_close(x);
}

/* What was taken away again since must not be mapped. */
static void what_came_and_went_is_not_told(void **state)
{
	struct rig *x = rig_sized(HST_FAULTS_BLOCK, 64, true, 0);
	roff_t arrived[HST_ARRIVED_MAX];

	(void)state;
	rig_fault(x, 0, 5);
	rig_pump(x);
	assert_true(rig_visible(x, 5));
	rig_evict_all(x);
	assert_false(rig_visible(x, 5));
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 0);
	rig_swap_close(x);
}

static void a_touch_during_unmapping_waits_behind_it(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w = {.v = NULL};
	struct hst_job job;

	(void)state;
	rig_check_pages(x, 0, 4);
	hst_evict_to(&x->h, 0);
	job = rig_take_job(x, HST_JOB_UNMAP);
	assert_false(hst_ensure(&x->h, (roff_t){PAGE_BYTES}, &w));
	rig_pump(x);
	rig_end_job(x, &job);
	/* What is left to do is done beside the vCPUs. */
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	job = rig_take_job(x, HST_JOB_COLLECT);
	rig_fault(x, 0, 2);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	assert_non_null(w.fetch);
	rig_end_job(x, &job);
	rig_pump(x);
	assert_null(w.fetch);
	assert_int_equal(x->h.stats.rescued, 2);
	assert_int_equal(x->h.stats.reads, 4); /* as before */
	rig_evict(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(rig_kind(x, 0), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 2), BLOCK_PRESENT);
	rig_check_pages(x, 0, 4);
	rig_swap_close(x);
}

static void a_touch_during_dropping_is_read_again(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_job job;

	(void)state;
	rig_write_pages(x, 0, 4);
	hst_evict_to(&x->h, 0);
	while (x->h.evict.lists[HST_LIST_CLEAN].len == 0) {
		(void)rig_job(x);
		while (rig_swap(x)->count)
			rig_write_ok(x, 0);
	}
	job = rig_take_job(x, HST_JOB_DROP);
	rig_fault(x, 0, 2);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_end_job(x, &job);
	rig_pump(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_true(rig_right(x, 2));
	assert_int_equal(x->h.stats.refaulted, 1);
	assert_int_equal(x->h.evict.resident, 1);
	rig_check_pages(x, 0, 4);
	rig_swap_close(x);
}

/* At the limit, too: its own memory was given back just now, it takes its turn. */
static void a_touch_during_dropping_keeps_the_limit(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	struct hst_waiter w = {.v = NULL}, other = {.v = NULL};
	struct hst_job job;

	(void)state;
	rig_check_pages(x, 0, RIG_LIMIT);
	while (x->h.evict.lists[HST_LIST_CLEAN].len == 0)
		assert_true(rig_job(x));
	job = rig_take_job(x, HST_JOB_DROP);
	assert_false(hst_ensure(&x->h, (roff_t){200 * PAGE_BYTES}, &other));
	assert_false(hst_ensure(&x->h, (roff_t){(uint64_t)job.runs[0].block * PAGE_BYTES}, &w));
	rig_end_job(x, &job);
	rig_pump(x);
	assert_true(x->h.evict.resident <= RIG_LIMIT);
	rig_evict(x);
	assert_true(!w.fetch && !other.fetch);
	rig_swap_close(x);
}

static void a_device_write_before_the_copy_is_not_lost(void **state)
{
	struct rig *x = rig_plain(true, 0);
	struct hst_waiter w = {.v = NULL};
	roff_t off = {3 * PAGE_BYTES};

	(void)state;
	assert_false(hst_ensure(&x->h, off, &w));
	rig_pump(x);
	/* The device's thread wakes up late: the block is gone again. */
	rig_evict_all(x);
	assert_false(hst_ensure(&x->h, off, &w));
	rig_pump(x);
	assert_true(hst_ensure(&x->h, off, &w));
	rig_device(x, 3, 0x42);
	rig_evict_all(x);
	rig_check_pages(x, 3, 1);
	rig_swap_close(x);
}

/* The host carries the access out after it has let go of the lock: it must look again. */
static void an_access_of_the_host_finds_its_block_there(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	for (unsigned there = 0; there < 2; there++) {
		if (there)
			rig_check_pages(x, 5, 1);
		rig_exit(x, 0, false);
		rig_load(rig_v(x, 0), (roff_t){5 * PAGE_BYTES});
		rig_pump(x);
		rig_evict_all(x);
		assert_int_equal(rig_next(x, 0), HST_WAIT);
		rig_pump(x);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		hst_wrote(&x->h, (roff_t){5 * PAGE_BYTES}, 1);
		rig_put(x, 5, 0x600 + there);
		rig_evict_all(x);
		rig_check_pages(x, 5, 1);
		rig_evict_all(x);
	}
	rig_swap_close(x);
}

/* ---- what stays ---- */

static void pinned_blocks_stay(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 20);
	for (uint64_t p = 0; p < 20; p += 3)
		assert_true(hst_pin(&x->h, (roff_t){p * PAGE_BYTES}));
	assert_true(hst_pin(&x->h, (roff_t){0})); /* twice is once */
	rig_assert_sound(x);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 20; p++)
		assert_int_equal(rig_kind(x, p), p % 3 ? BLOCK_ABSENT : BLOCK_PRESENT);
	rig_check_pages(x, 0, 20);
	rig_swap_close(x);
}

/* While its write is under way, and shown once more. */
static void a_block_can_be_pinned_at_any_time(void **state)
{
	struct rig *x = rig_plain(false, 0);

	(void)state;
	rig_write_pages(x, 0, 2);
	rig_swap(x)->later = true;
	rig_evict_all(x);
	rig_check_pages(x, 0, 2);
	assert_true(hst_pin(&x->h, (roff_t){0}));
	rig_write_ok(x, 0);
	rig_assert_sound(x);
	fetch_present_again(&x->h, 0, MEM_VIEW_GUEST);
	rig_pump(x);
	rig_swap(x)->later = false;
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, 0), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 1), BLOCK_ABSENT);
	rig_swap_close(x);
}

/* With everything pinned the rest would wait for ever. */
static void pins_leave_room(void **state)
{
	struct rig *x = rig_plain(true, RIG_LIMIT);
	uint64_t p;

	(void)state;
	for (p = 0; p < RIG_LIMIT; p++) {
		rig_check_pages(x, p, 1);
		if (!hst_pin(&x->h, (roff_t){p * PAGE_BYTES}))
			break;
	}
	assert_int_equal(p, RIG_LIMIT - hst_blocks_min(1));
	for (p = 100; p < 200; p++) {
		rig_evict(x);
		rig_check_pages(x, p, 1);
	}
	assert_true(x->h.evict.resident <= RIG_LIMIT);
	rig_swap_close(x);
}

static struct rig *open_user(unsigned vcpus)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x;

	cfg.vcpus = vcpus;
	x = rig_swap_open(&cfg, 256, false, 0);
	for (unsigned i = 0; i < vcpus; i++)
		rig_enable(x, i);
	return x;
}

static void the_area_stays_while_it_is_named(void **state)
{
	struct rig *x = open_user(2);

	(void)state;
	rig_swap(x)->want[RIG_AREA_PAGE] = 1;
	rig_write_pages(x, 10, 4);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, RIG_AREA_PAGE), BLOCK_PRESENT);
	assert_int_equal(rig_kind(x, 10), BLOCK_ABSENT);
	/* One of two lets go of it: still there. */
	rig_wrmsr_ok(x, 0, APF_MSR_EN, 0);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, RIG_AREA_PAGE), BLOCK_PRESENT);
	hst_vcpu_reset(rig_v(x, 1));
	rig_assert_sound(x);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, RIG_AREA_PAGE), BLOCK_ABSENT);
	rig_swap_close(x);
}

static void a_moved_area_lets_the_old_block_go(void **state)
{
	struct rig *x = open_user(1);
	uint64_t en = (RIG_GPA + 7 * PAGE_BYTES) | APF_EN_ENABLED | APF_EN_INT;

	(void)state;
	rig_swap(x)->want[RIG_AREA_PAGE] = 1;
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_CTL, 0)); /* nothing is delivered */
	assert_true(hst_vcpu_set_msr(rig_v(x, 0), APF_MSR_EN, en));
	rig_assert_sound(x);
	rig_write_pages(x, 7, 1); /* it was absent when it was named */
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, RIG_AREA_PAGE), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, 7), BLOCK_PRESENT);
	rig_swap_close(x);
}

/* Each in zeroes of its own: neighbours come with them. */
#define AREA_PAGE(i) (32u + 16u * (i))

static void what_kvm_writes_to_stays(void **state)
{
	static const uint32_t msrs[] = {PV_MSR_WALL_CLOCK, PV_MSR_SYSTEM_TIME, PV_MSR_STEAL_TIME,
					PV_MSR_EOI};
	struct rig *x = open_user(1);

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++) {
		uint64_t gpa = RIG_GPA + AREA_PAGE(i) * PAGE_BYTES;

		rig_wrmsr(x, 0, msrs[i], gpa | (msrs[i] != PV_MSR_WALL_CLOCK));
		/* KVM is told when the memory is there, not before. */
		assert_int_equal(x->counts[RIG_SET_MSR], i);
		rig_pump(x);
		assert_int_equal(rig_next(x, 0), HST_ENTER);
		assert_int_equal(x->counts[RIG_SET_MSR], i + 1);
	}
	rig_evict_all(x);
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++)
		assert_int_equal(rig_kind(x, AREA_PAGE(i)), BLOCK_PRESENT);
	/* Refused by KVM: as before. */
	x->set_msr_rc = -EINVAL;
	rig_wrmsr(x, 0, PV_MSR_STEAL_TIME, 0);
	assert_true(x->vcpus[0].msr_gp);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, AREA_PAGE(2)), BLOCK_PRESENT);
	x->set_msr_rc = 0;
	rig_wrmsr_ok(x, 0, PV_MSR_STEAL_TIME, 0);
	rig_evict_all(x);
	assert_int_equal(rig_kind(x, AREA_PAGE(2)), BLOCK_ABSENT);
	assert_int_equal(rig_kind(x, AREA_PAGE(1)), BLOCK_PRESENT);
	rig_swap_close(x);
}

/* Its area is in standby, and being unmapped, when it is restored. */
static void a_restored_vcpu_holds_its_area(void **state)
{
	unsigned char state_of[4096];
	struct rig *from = open_user(1), *to;
	size_t len = hst_vcpu_save(rig_v(from, 0), state_of);

	(void)state;
	rig_swap_close(from);
	for (unsigned unmapping = 0; unmapping < 2; unmapping++) {
		struct hst_job job;

		to = rig_sized(HST_FAULTS_USER, 64, false, 0);
		rig_device(to, RIG_AREA_PAGE, 5);
		hst_evict_to(&to->h, 0);
		rig_swap(to)->later = true;
		if (unmapping) {
			while (to->h.evict.watch != HST_WATCH_ALL)
				assert_true(rig_job(to));
			job = rig_take_job(to, HST_JOB_UNMAP);
		} else {
			rig_evict(to);
		}
		assert_true(hst_vcpu_restore(rig_v(to, 0), state_of, len));
		rig_assert_sound(to);
		if (unmapping)
			rig_end_job(to, &job);
		while (rig_swap(to)->count)
			rig_write_ok(to, 0);
		rig_evict(to);
		assert_int_not_equal(rig_kind(to, RIG_AREA_PAGE), BLOCK_ABSENT);
		rig_pass(to, 0);
		rig_pump(to);
		rig_device(to, RIG_AREA_PAGE, 5);
		rig_evict_all(to);
		assert_int_equal(rig_kind(to, RIG_AREA_PAGE), BLOCK_PRESENT);
		rig_swap_close(to);
	}
}

static void a_command_ends_with_nothing_to_take(void **state)
{
	struct rig *x = open_user(1);

	(void)state;
	rig_evict_all(x); /* the area is all there is */
	rig_evict_all(x);
	assert_false(hst_evict_forced(&x->h));
	assert_int_equal(x->h.evict.resident, 1);
	rig_swap_close(x);
}

/* ---- jobs that fail ---- */

/* Half of it was done; a device wants a block of each half; then it is done again. */
static void failed_and_repaired(enum rig_take what, unsigned half)
{
	struct rig *x = rig_plain(false, 0);
	struct hst_waiter w[2] = {{.v = NULL}, {.v = NULL}};

	rig_write_pages(x, 0, 8);
	rig_swap(x)->fail[what] = 2;
	rig_swap(x)->half = half;
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(hst_is_paused(&x->h));
		assert_int_equal(x->counts[RIG_TROUBLE], i + 1);
		assert_int_equal(x->trouble.why.code, -ENOMEM);
		assert_false(hst_evict_forced(&x->h));
		assert_int_equal(rig_swap(x)->calls[what], i + 1); /* not again and again */
		if (i == 0)
			for (unsigned k = 0; k < 2; k++)
				(void)hst_ensure(&x->h, (roff_t){k * 7 * PAGE_BYTES}, &w[k]);
		rig_pump(x);
		hst_resume(&x->h);
		rig_evict(x);
	}
	assert_false(hst_is_paused(&x->h));
	assert_true(!w[0].fetch && !w[1].fetch);
	assert_int_equal(x->counts[RIG_GOES_ON], 2);
	rig_check_pages(x, 0, 8);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

static void failing_jobs_pause_and_are_repeated(void **state)
{
	(void)state;
	for (unsigned half = 0; half <= 8; half += 4)
		for (enum rig_take what = 0; what < RIG_TAKES; what++)
			failed_and_repaired(what, half);
}

/* Whoever pauses the VM again at once does not keep what failed from being done again. */
static void failing_jobs_are_repeated_in_a_paused_vm(void **state)
{
	struct rig *x = rig_plain(false, 0);
	struct hst_waiter w = {.v = NULL};

	(void)state;
	rig_write_pages(x, 0, 8);
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	(void)hst_ensure(&x->h, (roff_t){0}, &w);
	assert_true(hst_is_stuck(&x->h, (roff_t){0}));
	hst_resume(&x->h);
	hst_pause(&x->h);
	assert_false(hst_is_stuck(&x->h, (roff_t){0}));
	rig_evict(x);
	rig_pump(x);
	assert_null(w.fetch);
	hst_resume(&x->h);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

/* What failed to go may still be seen, and written to, until it is gone. */
static void a_write_after_a_failed_unmapping_is_not_lost(void **state)
{
	struct rig *x = rig_plain(true, 0);

	(void)state;
	rig_check_pages(x, 0, 8);
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	rig_swap(x)->half = 4;
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	rig_guest_writes(x, 6, 0x66);
	hst_resume(&x->h);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

/* Neither shown nor poisoned: woken, the guest would only touch it again. */
static void a_touch_after_half_an_unmapping_is_poisoned(void **state)
{
	struct rig *x = rig_plain(false, 0);
	struct err e;

	(void)state;
	assert_int_equal(rig_kernel_touch(&x->h, (roff_t){9 * PAGE_BYTES}, &e), 0);
	rig_write_pages(x, 0, 8);
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	rig_swap(x)->half = 4;
	hst_evict_to(&x->h, 0);
	rig_evict(x);
	assert_int_equal(rig_swap(x)->pages[3], RIG_HOLE);
	assert_int_equal(rig_kernel_touch(&x->h, (roff_t){3 * PAGE_BYTES}, &e), 0);
	assert_int_equal(rig_swap(x)->pages[3], RIG_POISONED);
	hst_resume(&x->h);
	rig_evict_all(x);
	rig_check_pages(x, 0, 8);
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_came_is_told_once),
		cmocka_unit_test(what_came_and_went_is_not_told),
		cmocka_unit_test(a_touch_during_unmapping_waits_behind_it),
		cmocka_unit_test(a_touch_during_dropping_is_read_again),
		cmocka_unit_test(a_touch_during_dropping_keeps_the_limit),
		cmocka_unit_test(a_device_write_before_the_copy_is_not_lost),
		cmocka_unit_test(an_access_of_the_host_finds_its_block_there),
		cmocka_unit_test(pinned_blocks_stay),
		cmocka_unit_test(a_block_can_be_pinned_at_any_time),
		cmocka_unit_test(pins_leave_room),
		cmocka_unit_test(the_area_stays_while_it_is_named),
		cmocka_unit_test(a_command_ends_with_nothing_to_take),
		cmocka_unit_test(a_moved_area_lets_the_old_block_go),
		cmocka_unit_test(what_kvm_writes_to_stays),
		cmocka_unit_test(a_restored_vcpu_holds_its_area),
		cmocka_unit_test(failing_jobs_pause_and_are_repeated),
		cmocka_unit_test(failing_jobs_are_repeated_in_a_paused_vm),
		cmocka_unit_test(a_write_after_a_failed_unmapping_is_not_lost),
		cmocka_unit_test(a_touch_after_half_an_unmapping_is_poisoned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
