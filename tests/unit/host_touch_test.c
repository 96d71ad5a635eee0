/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/touch.c: touches that the kernel reports (userfaultfd). */
#include "host/drive.h"
#include "host_fixture.h"

static bool ensure(struct rig *x, uint64_t page, struct hst_waiter *w)
{
	return hst_ensure(&x->h, (roff_t){page << PAGE_SHIFT}, w);
}

static int touch(struct rig *x, uint64_t page)
{
	struct err e = {0};
	int rc = rig_kernel_touch(&x->h, (roff_t){page << PAGE_SHIFT}, &e);

	assert_true((rc < 0) == (e.text[0] != 0));
	rig_assert_sound(x);
	return rc;
}

static void a_touch_poisons_its_chunk_once(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_BLOCK,
						HST_FAULTS_STALL};

	(void)state;
	for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
		struct hst_cfg cfg = rig_cfg(modes[m], APF_REV_OFF);
		struct rig *x = rig_open_pages(&cfg, 512 + 10);

		assert_int_equal(touch(x, 7), 0);
		assert_int_equal(x->counts[RIG_POISON], 1);
		assert_int_equal(rig_entry(x, RIG_POISON, 0)->a, 0);
		assert_int_equal(rig_entry(x, RIG_POISON, 0)->b, CHUNK_BYTES);
		assert_int_equal(touch(x, 8), 0);
		/* It came just before the poison, or met what was discarded: its own page. */
		assert_int_equal(x->counts[RIG_POISON], 2);
		assert_int_equal(rig_entry(x, RIG_POISON, 1)->a, 8 * PAGE_BYTES);
		assert_int_equal(rig_entry(x, RIG_POISON, 1)->b, PAGE_BYTES);
		/* The last chunk ends where RAM does. */
		assert_int_equal(touch(x, 520), 0);
		assert_int_equal(rig_entry(x, RIG_POISON, 2)->a, CHUNK_BYTES);
		assert_int_equal(rig_entry(x, RIG_POISON, 2)->b, 10 * PAGE_BYTES);
		assert_int_equal(x->counts[RIG_READ], 0);
		rig_close(x);
	}
}

/* Of a source 21 ms away: three of 16 pages, in no even steps. */
static void what_lies_around_dense_touches_comes_along(void **state)
{
	static const uint8_t pages[] = {17, 30, 22};
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_KERNEL, APF_REV_OFF);
	struct rig *x;

	(void)state;
	cfg.ahead_max = 1024;
	cfg.queue_depth = 64;
	x = rig_open(&cfg);
	for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
		assert_int_equal(x->h.stats.read_ahead, 0);
		assert_int_equal(touch(x, pages[i]), 0);
		rig_after(x, 21 * NS_PER_MS);
		rig_bring(x, pages[i]);
	}
	assert_int_equal(x->h.stats.read_ahead, 13);
	while (x->src.count > 0)
		rig_answer(x, 0, 0);
	rig_pump(x);
	rig_close(x);
}

static void poison_spares_what_is_present(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 512);
	struct hst_waiter w = {0};

	(void)state;
	rig_populate(x, 0);
	rig_populate(x, 100);
	rig_populate(x, 101);
	rig_populate(x, 511);
	ensure(x, 200, &w); /* on its way is not present */
	rig_log_clear(x);
	assert_int_equal(touch(x, 50), 0);
	assert_int_equal(x->counts[RIG_POISON], 2);
	assert_int_equal(rig_entry(x, RIG_POISON, 0)->a, 1 * PAGE_BYTES);
	assert_int_equal(rig_entry(x, RIG_POISON, 0)->b, 99 * PAGE_BYTES);
	assert_int_equal(rig_entry(x, RIG_POISON, 1)->a, 102 * PAGE_BYTES);
	assert_int_equal(rig_entry(x, RIG_POISON, 1)->b, (511 - 102) * PAGE_BYTES);
	hst_forget(&w);
	rig_close(x);
}

/* RAM without a source: the VMM has filled it, and two vCPUs meet it before it is shown. */
static void what_the_vmm_filled_is_not_poisoned(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_prepare(512 * PAGE_BYTES);

	(void)state;
	assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, 512 * PAGE_BYTES, PAGE_BYTES),
			 RAM_ADDED);
	rig_start(x, &cfg);
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(touch(x, 8), 0);
	rig_pump(x);
	assert_true(rig_present(x, 7) && rig_present(x, 8));
	assert_int_equal(x->counts[RIG_POISON], 0);
	rig_close(x);
}

/* The host has reclaimed it: to wake the guest would have it sleep again, for ever. */
static void what_is_there_is_shown_again(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 512);

	(void)state;
	rig_populate(x, 9);
	for (unsigned poisoned = 0; poisoned < 2; poisoned++) {
		rig_log_clear(x);
		assert_int_equal(touch(x, 9), 0);
		assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->a, 9 * PAGE_BYTES);
		assert_int_equal(x->counts[RIG_PRESENT], 1);
		assert_int_equal(touch(x, 7), 0); /* poisons the chunk */
	}
	rig_close(x);
}

static void poison_that_fails_is_tried_again(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 512);

	(void)state;
	rig_populate(x, 9);
	rig_log_clear(x);
	x->mem_faults = (struct rig_mem_faults){.at = 2}; /* the second of two runs */
	assert_int_equal(touch(x, 7), -ENOMEM);
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(x->counts[RIG_POISON], 4);
	rig_close(x);
}

/* Nothing is fetched any more, and the kernel does not let go of a vCPU that waits for it. */
static void after_the_end_a_touch_is_refused(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_BLOCK,
						HST_FAULTS_STALL, HST_FAULTS_KERNEL};

	(void)state;
	for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
		struct hst_cfg cfg = rig_cfg(modes[m], APF_REV_OFF);
		struct rig *x = rig_prepare(512 * PAGE_BYTES);

		/* Without a source: what the VMM may have filled is not poisoned before. */
		assert_int_equal(ram_add_region(&x->h.ram, (gpa_t){RIG_GPA}, 512 * PAGE_BYTES,
						PAGE_BYTES), RAM_ADDED);
		rig_start(x, &cfg);
		assert_int_equal(touch(x, 7), 0); /* is on its way when the end comes */
		hst_stop(&x->h);
		rig_log_clear(x);
		for (uint64_t page = 7; page < 9; page++)
			assert_int_equal(touch(x, page), 0);
		assert_int_equal(x->counts[RIG_POISON], 2);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(rig_entry(x, RIG_POISON, i)->a, (7 + i) * PAGE_BYTES);
			assert_int_equal(rig_entry(x, RIG_POISON, i)->b, PAGE_BYTES);
		}
		rig_close(x);
	}
}

static void kernel_faults_are_fetched(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_KERNEL, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	(void)state;
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(touch(x, 7), 0); /* another vCPU, the same page */
	assert_int_equal(x->counts[RIG_READ], 1);
	assert_int_equal(x->h.stats.joined, 1);
	rig_bring(x, 7);
	assert_int_equal(x->counts[RIG_POISON], 0);
	/* Reported before, read after: it must not sleep on. */
	rig_log_clear(x);
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->a, 7 * PAGE_BYTES);
	assert_int_equal(x->h.stats.redundant, 1);
	assert_int_equal(x->h.stats.faults_total, 3);
	rig_close(x);
}

/* There was no room for the touch of the page, and there is. */
static void served_now(struct rig *x, uint64_t page)
{
	assert_false(rig_present(x, page));
	assert_true(hst_touch_due(&x->h));
	hst_serve_step(&x->h, NULL, 0, NULL);
	assert_int_equal(x->h.later_count, 0);
	assert_false(hst_touch_due(&x->h));
	rig_pump(x);
	assert_true(rig_present(x, page));
}

static void kernel_faults_leave_room_for_those_with_a_claim(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_KERNEL, APF_REV_OFF);
	struct hst_waiter w[HST_OUTSIDE_MAX] = {0};
	unsigned page = 0;

	(void)state;
	cfg.vcpus = 2;
	struct rig *x = rig_open_pages(&cfg, 1024);

	while (x->h.later_count == 0)
		assert_int_equal(touch(x, page++), 0);
	assert_true(page > 128);
	/* No room is no failure: it waits. The joined ones need none. */
	assert_int_equal(touch(x, 3), 0);
	assert_int_equal(x->h.later_count, 1);
	assert_int_equal(x->h.stats.faults_total, page);
	assert_false(hst_touch_due(&x->h));
	for (unsigned i = 0; i < HST_OUTSIDE_MAX; i++)
		assert_false(ensure(x, 600 + i, &w[i]));
	for (unsigned i = 0; i < 2; i++) {
		rig_exit(x, i, false);
		rig_load(rig_v(x, i), (roff_t){(700 + i) << PAGE_SHIFT});
		assert_int_equal(rig_next(x, i), HST_WAIT);
	}
	x->src.answers = RIG_AT_ONCE;
	while (x->src.count)
		rig_answer(x, 0, 0);
	rig_pump(x);
	assert_int_equal(x->counts[RIG_OUTSIDE], HST_OUTSIDE_MAX);
	served_now(x, page - 1);
	assert_int_equal(x->h.stats.faults_total, page + 1);
	rig_close(x);
}

/* Who has a signal pending is sent back to touch again by the kernel, as fast as it is told. */
static void what_comes_again_and_again_is_read_slowly(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_KERNEL, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 512);

	(void)state;
	for (unsigned i = 0; i < 65; i++) {
		assert_int_equal(hst_touch_pause_ns(&x->h), 0);
		assert_int_equal(touch(x, 7), 0);
	}
	assert_int_equal(hst_touch_pause_ns(&x->h), 0);
	assert_int_equal(touch(x, 7), 0);
	assert_int_equal(hst_touch_pause_ns(&x->h), NS_PER_MS);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(touch(x, 7), 0);
	assert_int_equal(hst_touch_pause_ns(&x->h), 16 * NS_PER_MS);
	/* Another block. */
	assert_int_equal(touch(x, 8), 0);
	assert_int_equal(hst_touch_pause_ns(&x->h), 0);
	rig_close(x);
}

/* ---- the VMM's view ---- */

#define BOTH (MEM_VIEW_GUEST | MEM_VIEW_VMM)

static int vmm_touch(struct rig *x, uint64_t page)
{
	struct err e = {0};
	int rc = rig_vmm_touch(&x->h, (roff_t){page << PAGE_SHIFT}, &e);

	assert_true((rc < 0) == (e.text[0] != 0));
	rig_assert_sound(x);
	return rc;
}

static void one_read_serves_both_views(void **state)
{
	static const enum hst_faults modes[] = {HST_FAULTS_USER, HST_FAULTS_KERNEL};

	(void)state;
	for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
		struct hst_cfg cfg = rig_cfg(modes[m], APF_REV_OFF);
		struct rig *x = rig_open(&cfg);

		assert_int_equal(vmm_touch(x, 7), 0);
		assert_int_equal(vmm_touch(x, 7), 0); /* another thread */
		assert_int_equal(x->counts[RIG_READ], 1);
		assert_int_equal(x->h.stats.vmm_touches, 2);
		rig_bring(x, 7);
		assert_int_equal(x->counts[RIG_PRESENT], 1);
		assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->vcpu, BOTH);
		assert_true(block_is(&x->h, 7, BLOCK_VMM));
		/* No vCPU has touched anything. */
		assert_int_equal(x->h.stats.faults_total + x->counts[RIG_POISON], 0);
		rig_close(x);
	}
}

static void what_the_guest_sees_is_shown_to_the_vmm(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_populate(x, 7);
	assert_false(block_is(&x->h, 7, BLOCK_VMM));
	rig_log_clear(x);
	assert_int_equal(vmm_touch(x, 7), 0);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->vcpu, MEM_VIEW_VMM);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->a, 7 * PAGE_BYTES);
	assert_true(block_is(&x->h, 7, BLOCK_VMM));
	assert_false(block_is(&x->h, 7, BLOCK_WRITTEN));
	/* The host has taken it out there: who knows what was written to it before. */
	assert_int_equal(vmm_touch(x, 7), 0);
	assert_int_equal(x->counts[RIG_PRESENT], 2);
	assert_true(block_is(&x->h, 7, BLOCK_WRITTEN));
	assert_int_equal(x->counts[RIG_READ], 0);
	rig_close(x);
}

/* The guest's fetch is being made visible when the VMM wants the block, too. */
static void who_comes_late_is_not_forgotten(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);
	struct hst_waiter w = {0};
	struct hst_fetch *f;
	struct err e;

	(void)state;
	ensure(x, 7, &w);
	rig_answer(x, 0, 0);
	f = hst_take_filled(&x->h);
	assert_int_equal(vmm_touch(x, 7), 0);
	assert_int_equal(hst_make_visible(f, &e), 0);
	hst_shown(f, NULL);
	assert_false(rig_present(x, 7));
	assert_non_null(w.fetch);
	rig_pump(x);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 0)->vcpu, MEM_VIEW_GUEST);
	assert_int_equal(rig_entry(x, RIG_PRESENT, 1)->vcpu, BOTH);
	assert_true(rig_present(x, 7) && block_is(&x->h, 7, BLOCK_VMM));
	assert_null(w.fetch);
	assert_int_equal(x->counts[RIG_READ], 1);
	rig_close(x);
}

static void what_cannot_be_shown_pauses_and_is_shown_later(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open(&cfg);

	(void)state;
	rig_populate(x, 7);
	rig_log_clear(x);
	x->mem_faults = (struct rig_mem_faults){.at = 1, .on = true};
	assert_int_equal(vmm_touch(x, 7), 0);
	assert_false(rig_present(x, 7));
	rig_pump(x);
	assert_true(hst_is_paused(&x->h));
	x->mem_faults.at = 0;
	hst_resume(&x->h);
	rig_pump(x);
	assert_true(rig_present(x, 7) && block_is(&x->h, 7, BLOCK_VMM));
	assert_int_equal(rig_entry(x, RIG_PRESENT, 2)->vcpu, BOTH);
	assert_int_equal(x->counts[RIG_READ], 0);
	rig_close(x);
}

static void the_vmms_touches_leave_room_for_those_with_a_claim(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);
	struct rig *x = rig_open_pages(&cfg, 1024);
	struct hst_waiter w[HST_OUTSIDE_MAX] = {0};
	unsigned page = 1;

	(void)state;
	rig_populate(x, 0);
	while (x->h.later_count == 0)
		assert_int_equal(vmm_touch(x, page++), 0);
	assert_true(page > 128);
	assert_int_equal(vmm_touch(x, 3), 0); /* joined */
	assert_int_equal(x->h.later_count, 1);
	/* One that waits is no other touch when it is looked at again. */
	hst_serve_step(&x->h, NULL, 0, NULL);
	assert_int_equal(x->h.later_count, 1);
	assert_int_equal(x->h.stats.vmm_touches, page - 1);
	assert_int_equal(hst_touch_room(&x->h), HST_TOUCHES_MAX - 1);
	/* Nor is there one to show again what could not be shown. */
	x->mem_faults = (struct rig_mem_faults){.at = 1};
	assert_int_equal(vmm_touch(x, 0), 0);
	assert_int_equal(x->h.later_count, 2);
	assert_false(hst_touch_due(&x->h));
	for (unsigned i = 0; i < HST_OUTSIDE_MAX; i++)
		assert_false(ensure(x, 600 + i, &w[i]));
	x->src.answers = RIG_AT_ONCE;
	while (x->src.count)
		rig_answer(x, 0, 0);
	rig_pump(x);
	served_now(x, page - 1);
	assert_true(block_is(&x->h, 0, BLOCK_VMM));
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_touch_poisons_its_chunk_once),
		cmocka_unit_test(what_lies_around_dense_touches_comes_along),
		cmocka_unit_test(poison_spares_what_is_present),
		cmocka_unit_test(what_is_there_is_shown_again),
		cmocka_unit_test(what_the_vmm_filled_is_not_poisoned),
		cmocka_unit_test(poison_that_fails_is_tried_again),
		cmocka_unit_test(after_the_end_a_touch_is_refused),
		cmocka_unit_test(kernel_faults_are_fetched),
		cmocka_unit_test(kernel_faults_leave_room_for_those_with_a_claim),
		cmocka_unit_test(what_comes_again_and_again_is_read_slowly),
		cmocka_unit_test(one_read_serves_both_views),
		cmocka_unit_test(what_the_guest_sees_is_shown_to_the_vmm),
		cmocka_unit_test(who_comes_late_is_not_forgotten),
		cmocka_unit_test(what_cannot_be_shown_pauses_and_is_shown_later),
		cmocka_unit_test(the_vmms_touches_leave_room_for_those_with_a_claim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
