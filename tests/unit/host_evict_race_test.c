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
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct hx *x = hx_open(&cfg);

	(void)state;
	assert_int_equal(hx_fault_next(x, 0, 5), HST_WAIT);
	hx_bring(x, 5);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 1);
	assert_int_equal(arrived[0].v, 5 * PAGE_BYTES);
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 0);
	hx_close(x);

	/* Told "page missing", the guest goes on; the blocks come meanwhile. */
	x = hx_open_on(APF_REV_INT, 1);
	for (uint64_t page = 10; page < 12; page++) {
		assert_int_equal(hx_fault_next(x, 0, page), HST_ENTER);
		hx_take_pf(x, 0);
	}
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 0);
	hx_bring(x, 11);
	hx_bring(x, 10);
	assert_int_equal(hx_pass(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 2);
	assert_int_equal(arrived[0].v, 11 * PAGE_BYTES);
	assert_int_equal(arrived[1].v, 10 * PAGE_BYTES);
	hx_close(x);
}

/* What was taken away again since must not be mapped. */
static void what_came_and_went_is_not_told(void **state)
{
	struct hx *x = hxs_sized(HST_FAULTS_BLOCK, 64, true, 0);
	roff_t arrived[HST_ARRIVED_MAX];

	(void)state;
	hx_fault(x, 0, 5);
	hx_pump(x);
	assert_true(hxs_visible(x, 5));
	hxs_evict_all(x);
	assert_false(hxs_visible(x, 5));
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 0);
	hxs_close(x);
}

static void a_touch_during_unmapping_waits_behind_it(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct hst_waiter w = {.v = NULL};
	struct hst_job job;

	(void)state;
	hxs_check_pages(x, 0, 4);
	hst_evict_to(&x->h, 0);
	job = hxs_take_job(x, HST_JOB_UNMAP);
	assert_false(hst_ensure(&x->h, (roff_t){PAGE_BYTES}, &w));
	hx_pump(x);
	hxs_end_job(x, &job);
	/* What is left to do is done beside the vCPUs. */
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	job = hxs_take_job(x, HST_JOB_COLLECT);
	hx_fault(x, 0, 2);
	hx_pump(x);
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	assert_non_null(w.fetch);
	hxs_end_job(x, &job);
	hx_pump(x);
	assert_null(w.fetch);
	assert_int_equal(x->h.stats.rescued, 2);
	assert_int_equal(x->h.stats.reads, 4); /* as before */
	hxs_evict(x);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_int_equal(hxs_kind(x, 0), BLOCK_ABSENT);
	assert_int_equal(hxs_kind(x, 2), BLOCK_PRESENT);
	hxs_check_pages(x, 0, 4);
	hxs_close(x);
}

static void a_touch_during_dropping_is_read_again(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct hst_job job;

	(void)state;
	hxs_write_pages(x, 0, 4);
	hst_evict_to(&x->h, 0);
	while (x->h.evict.lists[HST_LIST_CLEAN].len == 0) {
		(void)hxs_job(x);
		while (hxs(x)->count)
			hxs_write_ok(x, 0);
	}
	job = hxs_take_job(x, HST_JOB_DROP);
	hx_fault(x, 0, 2);
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	hxs_end_job(x, &job);
	hx_pump(x);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	assert_true(hxs_right(x, 2));
	assert_int_equal(x->h.stats.refaulted, 1);
	assert_int_equal(x->h.evict.resident, 1);
	hxs_check_pages(x, 0, 4);
	hxs_close(x);
}

/* At the limit, too: its own memory was given back just now, it takes its turn. */
static void a_touch_during_dropping_keeps_the_limit(void **state)
{
	struct hx *x = hxs_plain(true, HXS_LIMIT);
	struct hst_waiter w = {.v = NULL}, other = {.v = NULL};
	struct hst_job job;

	(void)state;
	hxs_check_pages(x, 0, HXS_LIMIT);
	while (x->h.evict.lists[HST_LIST_CLEAN].len == 0)
		assert_true(hxs_job(x));
	job = hxs_take_job(x, HST_JOB_DROP);
	assert_false(hst_ensure(&x->h, (roff_t){200 * PAGE_BYTES}, &other));
	assert_false(hst_ensure(&x->h, (roff_t){(uint64_t)job.runs[0].block * PAGE_BYTES}, &w));
	hxs_end_job(x, &job);
	hx_pump(x);
	assert_true(x->h.evict.resident <= HXS_LIMIT);
	hxs_evict(x);
	assert_true(!w.fetch && !other.fetch);
	hxs_close(x);
}

static void a_device_write_before_the_copy_is_not_lost(void **state)
{
	struct hx *x = hxs_plain(true, 0);
	struct hst_waiter w = {.v = NULL};
	roff_t off = {3 * PAGE_BYTES};

	(void)state;
	assert_false(hst_ensure(&x->h, off, &w));
	hx_pump(x);
	/* The device's thread wakes up late: the block is gone again. */
	hxs_evict_all(x);
	assert_false(hst_ensure(&x->h, off, &w));
	hx_pump(x);
	assert_true(hst_ensure(&x->h, off, &w));
	hxs_device(x, 3, 0x42);
	hxs_evict_all(x);
	hxs_check_pages(x, 3, 1);
	hxs_close(x);
}

/* The host carries the access out after it has let go of the lock: it must look again. */
static void an_access_of_the_host_finds_its_block_there(void **state)
{
	struct hx *x = hxs_plain(true, 0);

	(void)state;
	for (unsigned there = 0; there < 2; there++) {
		if (there)
			hxs_check_pages(x, 5, 1);
		hx_exit(x, 0, false);
		hx_load(hx_v(x, 0), (roff_t){5 * PAGE_BYTES});
		hx_pump(x);
		hxs_evict_all(x);
		assert_int_equal(hx_next(x, 0), HST_WAIT);
		hx_pump(x);
		assert_int_equal(hx_next(x, 0), HST_ENTER);
		hst_wrote(&x->h, (roff_t){5 * PAGE_BYTES}, 1);
		hxs_put(x, 5, 0x600 + there);
		hxs_evict_all(x);
		hxs_check_pages(x, 5, 1);
		hxs_evict_all(x);
	}
	hxs_close(x);
}

/* ---- what stays ---- */

static void pinned_blocks_stay(void **state)
{
	struct hx *x = hxs_plain(false, 0);

	(void)state;
	hxs_write_pages(x, 0, 20);
	for (uint64_t p = 0; p < 20; p += 3)
		assert_true(hst_pin(&x->h, (roff_t){p * PAGE_BYTES}));
	assert_true(hst_pin(&x->h, (roff_t){0})); /* twice is once */
	hx_assert_sound(x);
	hxs_evict_all(x);
	for (uint64_t p = 0; p < 20; p++)
		assert_int_equal(hxs_kind(x, p), p % 3 ? BLOCK_ABSENT : BLOCK_PRESENT);
	hxs_check_pages(x, 0, 20);
	hxs_close(x);
}

/* While its write is under way, and shown once more. */
static void a_block_can_be_pinned_at_any_time(void **state)
{
	struct hx *x = hxs_plain(false, 0);

	(void)state;
	hxs_write_pages(x, 0, 2);
	hxs(x)->later = true;
	hxs_evict_all(x);
	hxs_check_pages(x, 0, 2);
	assert_true(hst_pin(&x->h, (roff_t){0}));
	hxs_write_ok(x, 0);
	hx_assert_sound(x);
	fetch_present_again(&x->h, 0, MEM_VIEW_GUEST);
	hx_pump(x);
	hxs(x)->later = false;
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, 0), BLOCK_PRESENT);
	assert_int_equal(hxs_kind(x, 1), BLOCK_ABSENT);
	hxs_close(x);
}

/* With everything pinned the rest would wait for ever. */
static void pins_leave_room(void **state)
{
	struct hx *x = hxs_plain(true, HXS_LIMIT);
	uint64_t p;

	(void)state;
	for (p = 0; p < HXS_LIMIT; p++) {
		hxs_check_pages(x, p, 1);
		if (!hst_pin(&x->h, (roff_t){p * PAGE_BYTES}))
			break;
	}
	assert_int_equal(p, HXS_LIMIT - hst_blocks_min(1));
	for (p = 100; p < 200; p++) {
		hxs_evict(x);
		hxs_check_pages(x, p, 1);
	}
	assert_true(x->h.evict.resident <= HXS_LIMIT);
	hxs_close(x);
}

static struct hx *open_user(unsigned vcpus)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct hx *x;

	cfg.vcpus = vcpus;
	x = hxs_open(&cfg, 256, false, 0);
	for (unsigned i = 0; i < vcpus; i++)
		hx_enable(x, i);
	return x;
}

static void the_area_stays_while_it_is_named(void **state)
{
	struct hx *x = open_user(2);

	(void)state;
	hxs(x)->want[HX_AREA_PAGE] = 1;
	hxs_write_pages(x, 10, 4);
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, HX_AREA_PAGE), BLOCK_PRESENT);
	assert_int_equal(hxs_kind(x, 10), BLOCK_ABSENT);
	/* One of two lets go of it: still there. */
	hx_wrmsr_ok(x, 0, APF_MSR_EN, 0);
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, HX_AREA_PAGE), BLOCK_PRESENT);
	hst_vcpu_reset(hx_v(x, 1));
	hx_assert_sound(x);
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, HX_AREA_PAGE), BLOCK_ABSENT);
	hxs_close(x);
}

static void a_moved_area_lets_the_old_block_go(void **state)
{
	struct hx *x = open_user(1);
	uint64_t en = (HX_GPA + 7 * PAGE_BYTES) | APF_EN_ENABLED | APF_EN_INT;

	(void)state;
	hxs(x)->want[HX_AREA_PAGE] = 1;
	assert_true(hst_vcpu_set_msr(hx_v(x, 0), APF_MSR_CTL, 0)); /* nothing is delivered */
	assert_true(hst_vcpu_set_msr(hx_v(x, 0), APF_MSR_EN, en));
	hx_assert_sound(x);
	hxs_write_pages(x, 7, 1); /* it was absent when it was named */
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, HX_AREA_PAGE), BLOCK_ABSENT);
	assert_int_equal(hxs_kind(x, 7), BLOCK_PRESENT);
	hxs_close(x);
}

/* Each in zeroes of its own: neighbours come with them. */
#define AREA_PAGE(i) (32u + 16u * (i))

static void what_kvm_writes_to_stays(void **state)
{
	static const uint32_t msrs[] = {PV_MSR_WALL_CLOCK, PV_MSR_SYSTEM_TIME, PV_MSR_STEAL_TIME,
					PV_MSR_EOI};
	struct hx *x = open_user(1);

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++) {
		uint64_t gpa = HX_GPA + AREA_PAGE(i) * PAGE_BYTES;

		hx_wrmsr(x, 0, msrs[i], gpa | (msrs[i] != PV_MSR_WALL_CLOCK));
		/* KVM is told when the memory is there, not before. */
		assert_int_equal(x->counts[HX_SET_MSR], i);
		hx_pump(x);
		assert_int_equal(hx_next(x, 0), HST_ENTER);
		assert_int_equal(x->counts[HX_SET_MSR], i + 1);
	}
	hxs_evict_all(x);
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++)
		assert_int_equal(hxs_kind(x, AREA_PAGE(i)), BLOCK_PRESENT);
	/* Refused by KVM: as before. */
	x->set_msr_rc = -EINVAL;
	hx_wrmsr(x, 0, PV_MSR_STEAL_TIME, 0);
	assert_true(x->vcpus[0].msr_gp);
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, AREA_PAGE(2)), BLOCK_PRESENT);
	x->set_msr_rc = 0;
	hx_wrmsr_ok(x, 0, PV_MSR_STEAL_TIME, 0);
	hxs_evict_all(x);
	assert_int_equal(hxs_kind(x, AREA_PAGE(2)), BLOCK_ABSENT);
	assert_int_equal(hxs_kind(x, AREA_PAGE(1)), BLOCK_PRESENT);
	hxs_close(x);
}

/* Its area is in standby, and being unmapped, when it is restored. */
static void a_restored_vcpu_holds_its_area(void **state)
{
	unsigned char state_of[4096];
	struct hx *from = open_user(1), *to;
	size_t len = hst_vcpu_save(hx_v(from, 0), state_of);

	(void)state;
	hxs_close(from);
	for (unsigned unmapping = 0; unmapping < 2; unmapping++) {
		struct hst_job job;

		to = hxs_sized(HST_FAULTS_USER, 64, false, 0);
		hxs_device(to, HX_AREA_PAGE, 5);
		hst_evict_to(&to->h, 0);
		hxs(to)->later = true;
		if (unmapping) {
			while (to->h.evict.watch != HST_WATCH_ALL)
				assert_true(hxs_job(to));
			job = hxs_take_job(to, HST_JOB_UNMAP);
		} else {
			hxs_evict(to);
		}
		assert_true(hst_vcpu_restore(hx_v(to, 0), state_of, len));
		hx_assert_sound(to);
		if (unmapping)
			hxs_end_job(to, &job);
		while (hxs(to)->count)
			hxs_write_ok(to, 0);
		hxs_evict(to);
		assert_int_not_equal(hxs_kind(to, HX_AREA_PAGE), BLOCK_ABSENT);
		hx_pass(to, 0);
		hx_pump(to);
		hxs_device(to, HX_AREA_PAGE, 5);
		hxs_evict_all(to);
		assert_int_equal(hxs_kind(to, HX_AREA_PAGE), BLOCK_PRESENT);
		hxs_close(to);
	}
}

static void a_command_ends_with_nothing_to_take(void **state)
{
	struct hx *x = open_user(1);

	(void)state;
	hxs_evict_all(x); /* the area is all there is */
	hxs_evict_all(x);
	assert_false(hst_evict_forced(&x->h));
	assert_int_equal(x->h.evict.resident, 1);
	hxs_close(x);
}

/* ---- jobs that fail ---- */

/* Half of it was done; a device wants a block of each half; then it is done again. */
static void failed_and_repaired(enum hx_take what, unsigned half)
{
	struct hx *x = hxs_plain(false, 0);
	struct hst_waiter w[2] = {{.v = NULL}, {.v = NULL}};

	hxs_write_pages(x, 0, 8);
	hxs(x)->fail[what] = 2;
	hxs(x)->half = half;
	hst_evict_to(&x->h, 0);
	hxs_evict(x);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(hst_is_paused(&x->h));
		assert_int_equal(x->counts[HX_TROUBLE], i + 1);
		assert_int_equal(x->trouble.why.code, -ENOMEM);
		assert_false(hst_evict_forced(&x->h));
		assert_int_equal(hxs(x)->calls[what], i + 1); /* not again and again */
		if (i == 0)
			for (unsigned k = 0; k < 2; k++)
				(void)hst_ensure(&x->h, (roff_t){k * 7 * PAGE_BYTES}, &w[k]);
		hx_pump(x);
		hst_resume(&x->h);
		hxs_evict(x);
	}
	assert_false(hst_is_paused(&x->h));
	assert_true(!w[0].fetch && !w[1].fetch);
	assert_int_equal(x->counts[HX_GOES_ON], 2);
	hxs_check_pages(x, 0, 8);
	hxs_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	hxs_check_pages(x, 0, 8);
	hxs_close(x);
}

static void failing_jobs_pause_and_are_repeated(void **state)
{
	(void)state;
	for (unsigned half = 0; half <= 8; half += 4)
		for (enum hx_take what = 0; what < HX_TAKES; what++)
			failed_and_repaired(what, half);
}

/* What failed to go may still be seen, and written to, until it is gone. */
static void a_write_after_a_failed_unmapping_is_not_lost(void **state)
{
	struct hx *x = hxs_plain(true, 0);

	(void)state;
	hxs_check_pages(x, 0, 8);
	hxs(x)->fail[HX_TAKE_UNMAP] = 1;
	hxs(x)->half = 4;
	hst_evict_to(&x->h, 0);
	hxs_evict(x);
	hxs_guest_writes(x, 6, 0x66);
	hst_resume(&x->h);
	hxs_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	hxs_check_pages(x, 0, 8);
	hxs_close(x);
}

/* Neither shown nor poisoned: woken, the guest would only touch it again. */
static void a_touch_after_half_an_unmapping_is_poisoned(void **state)
{
	struct hx *x = hxs_plain(false, 0);
	struct err e;

	(void)state;
	assert_int_equal(hx_kernel_touch(&x->h, (roff_t){9 * PAGE_BYTES}, &e), 0);
	hxs_write_pages(x, 0, 8);
	hxs(x)->fail[HX_TAKE_UNMAP] = 1;
	hxs(x)->half = 4;
	hst_evict_to(&x->h, 0);
	hxs_evict(x);
	assert_int_equal(hxs(x)->pages[3], HX_HOLE);
	assert_int_equal(hx_kernel_touch(&x->h, (roff_t){3 * PAGE_BYTES}, &e), 0);
	assert_int_equal(hxs(x)->pages[3], HX_POISONED);
	hst_resume(&x->h);
	hxs_evict_all(x);
	hxs_check_pages(x, 0, 8);
	hxs_close(x);
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
		cmocka_unit_test(a_write_after_a_failed_unmapping_is_not_lost),
		cmocka_unit_test(a_touch_after_half_an_unmapping_is_poisoned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
