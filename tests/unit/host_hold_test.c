/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/hold.c: nobody is in the guest while memory is taken out of its mapping. */
#include "host_swap_fixture.h"

#define US NS_PER_US

static struct rig *open_with(enum hst_faults faults, unsigned vcpus, uint64_t limit)
{
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_OFF);
	struct rig *x;

	cfg.vcpus = vcpus;
	x = rig_swap_open(&cfg, 1024, true, limit);
	for (unsigned i = 0; i < vcpus; i++)
		assert_int_equal(rig_pass(x, i), HST_ENTER);
	return x;
}

/* Memory that is there is known, and `keep` pages of it are to stay. */
static void evict_to(struct rig *x, uint64_t keep)
{
	struct hst_job job;

	hst_evict_to(&x->h, keep * PAGE_BYTES);
	while (x->h.evict.watch != HST_WATCH_ALL) {
		assert_true(hst_evict_next(&x->h, &job));
		hst_evict_work(&x->h, &job);
		hst_evict_done(&x->h, &job);
	}
}

static void populate(struct rig *x, uint64_t pages)
{
	for (uint64_t p = 0; p < pages; p++)
		rig_device(x, p, 0);
}

static void come_out(struct rig *x, unsigned vcpu)
{
	assert_true(x->vcpus[vcpu].kicked);
	x->vcpus[vcpu].kicked = false;
	rig_exit(x, vcpu, true);
	assert_int_equal(rig_next(x, vcpu), HST_WAIT);
}

static void work(struct rig *x)
{
	struct hst_job job;

	assert_true(hst_evict_next(&x->h, &job));
	hst_evict_work(&x->h, &job);
	hst_evict_done(&x->h, &job);
	rig_pump(x);
}

static void the_last_to_come_out_lets_it_begin(void **state)
{
	struct rig *x = open_with(HST_FAULTS_BLOCK, 3, 0);
	struct hst_job job;

	(void)state;
	populate(x, 10);
	evict_to(x, 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_false(hst_evict_next(&x->h, &job));
		assert_false(hst_evict_wanted(&x->h));
		come_out(x, i);
	}
	assert_true(hst_evict_wanted(&x->h));
	/* One that would go on by itself meanwhile waits, too. */
	assert_int_equal(rig_next(x, 1), HST_WAIT);
	rig_log_clear(x);
	x->now += 70 * US;
	work(x);
	/* Over: they are told, and get as long as they were held for. */
	assert_int_equal(x->counts[RIG_KICK], 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_next(x, i), HST_ENTER);
	assert_int_equal(x->h.stats.holds, 1);
	assert_int_equal(x->h.stats.hold_ns, 70 * US);
	assert_int_equal(x->h.stats.hold_max_ns, 70 * US);
	work(x);
	assert_int_equal(x->h.stats.unmapped, 10);
	rig_device(x, 20, 0);
	evict_to(x, 0);
	while (x->h.evict.lists[HST_LIST_CLEAN].len)
		work(x);
	assert_false(hst_evict_next(&x->h, &job));
	assert_false(x->h.evict.hold.on);
	rig_after(x, 69 * US);
	assert_false(hst_evict_wanted(&x->h));
	rig_after(x, 1 * US);
	assert_true(hst_evict_wanted(&x->h));
	assert_false(hst_evict_next(&x->h, &job));
	assert_true(x->h.evict.hold.on);
	rig_swap_close(x);
}

/* One hold takes only so many blocks, and only so many that are scattered. */
static void a_hold_is_bounded(void **state)
{
	struct rig *x = open_with(HST_FAULTS_BLOCK, 1, 0);
	struct hst_job job;

	(void)state;
	populate(x, 1000);
	evict_to(x, 0);
	assert_false(hst_evict_next(&x->h, &job));
	come_out(x, 0);
	x->now += US;
	work(x);
	assert_false(x->h.evict.hold.on);
	work(x);
	assert_int_equal(x->h.stats.unmapped, 512);
	rig_swap_close(x);

	x = open_with(HST_FAULTS_BLOCK, 1, 0);
	for (uint64_t p = 0; p < 200; p += 2)
		rig_device(x, p, p);
	evict_to(x, 0);
	assert_false(hst_evict_next(&x->h, &job));
	come_out(x, 0);
	x->now += US;
	work(x);
	assert_false(x->h.evict.hold.on);
	work(x);
	assert_int_equal(x->h.stats.unmapped, HST_JOB_RUNS);
	rig_evict(x);
	for (uint64_t p = 0; p < 200; p += 2)
		rig_device(x, p, 0);
	rig_swap_close(x);
}

static void ahead_of_demand_a_few_are_not_worth_it(void **state)
{
	struct rig *x = open_with(HST_FAULTS_BLOCK, 1, 640);

	(void)state;
	populate(x, 500);
	rig_evict(x);
	/* 640: slack 20, goal 80; from 541 on each fetch grants credit for two. */
	for (uint64_t p = 500; p < 540 + 15; p++) {
		rig_device(x, p, 0);
		rig_evict(x);
	}
	assert_true(x->h.evict.unmap_credit > 20 && x->h.evict.unmap_credit < 32);
	assert_int_equal(x->h.stats.unmapped, 0);
	rig_device(x, 600, 0);
	rig_device(x, 601, 0);
	rig_evict(x);
	assert_true(x->h.stats.unmapped >= 32);
	assert_int_equal(x->h.stats.evicted, 0);
	rig_swap_close(x);
}

/* Also when as much is on standby as there may be, and each drop leaves room for one block. */
static void ahead_of_demand_in_batches(void **state)
{
	static const enum hst_faults ways[] = {HST_FAULTS_BLOCK, HST_FAULTS_KERNEL};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
		struct rig *x = open_with(ways[i], 1, 640);
		unsigned unmaps = 0, drops = 0;

		/* Slack 20, goal 80. */
		for (uint64_t p = 0; p < 760; p++) {
			rig_device(x, p, 0);
			rig_evict(x);
		}
		for (uint64_t p = 760; p < 1024; p++) {
			uint64_t unmapped = x->h.stats.unmapped, evicted = x->h.stats.evicted;

			rig_device(x, p, 0);
			rig_evict(x);
			unmapped = x->h.stats.unmapped - unmapped;
			evicted = x->h.stats.evicted - evicted;
			assert_true(unmapped == 0 || unmapped >= 32);
			assert_true(evicted == 0 || evicted >= 5);
			unmaps += unmapped > 0;
			drops += evicted > 0;
		}
		assert_in_range(unmaps, 4, 264 / 32 + 1);
		assert_in_range(drops, 4, 264 / 5 + 1);
		rig_swap_close(x);
	}
}

static void the_kernels_own_faults_hold_nobody(void **state)
{
	struct rig *x = open_with(HST_FAULTS_KERNEL, 2, 0);

	(void)state;
	populate(x, 10);
	evict_to(x, 0);
	rig_log_clear(x);
	work(x);
	work(x);
	assert_int_equal(x->h.stats.unmapped, 10);
	assert_int_equal(x->counts[RIG_KICK], 0);
	rig_swap_close(x);
}

/* A job that fails is done again while they are still out, whatever the VMM does meanwhile. */
static void a_failed_job_keeps_them_out(void **state)
{
	struct rig *x = open_with(HST_FAULTS_BLOCK, 1, 0);
	struct hst_job job;

	(void)state;
	populate(x, 10);
	evict_to(x, 0);
	assert_false(hst_evict_next(&x->h, &job));
	come_out(x, 0);
	rig_swap(x)->fail[RIG_TAKE_UNMAP] = 1;
	work(x);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	work(x);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	/* What comes after it does not need them out. */
	rig_swap(x)->fail[RIG_TAKE_COLLECT] = 1;
	work(x);
	assert_true(hst_is_paused(&x->h));
	hst_resume(&x->h);
	assert_false(x->h.evict.hold.on);
	work(x);
	assert_int_equal(x->h.stats.unmapped, 10);
	rig_evict(x);
	rig_swap_close(x);
}

/* The instruction at page 7, translated by tables at pages 1 to 4. */
static void what_an_instruction_under_way_needs_stays(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct rig *x = rig_swap_open(&cfg, 64, false, 0);
	struct cpu_state *cpu = &x->vcpus[0].cpu;

	(void)state;
	for (uint64_t p = 0; p < 10; p++)
		rig_device(x, p, 5);
	for (uint64_t level = 1; level <= 4; level++)
		rig_words(x, level)[0] = (RIG_GPA + (level < 4 ? level + 1 : 7) * PAGE_BYTES) | 1;
	cpu->in_instruction = true;
	cpu->efer = 1ull << 10;
	cpu->cr3 = RIG_GPA + PAGE_BYTES;
	cpu->ip = 0x123;
	rig_exit(x, 0, false);
	rig_assert_sound(x);
	rig_evict_all(x);
	for (uint64_t p = 0; p < 10; p++)
		assert_int_equal(rig_present(x, p), (p >= 1 && p <= 4) || p == 7);
	/* Until it has entered: then it is over. */
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	cpu->in_instruction = false;
	rig_exit(x, 0, false);
	rig_evict_all(x);
	assert_int_equal(x->h.evict.resident, 0);
	rig_swap_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_to_come_out_lets_it_begin),
		cmocka_unit_test(a_hold_is_bounded),
		cmocka_unit_test(ahead_of_demand_a_few_are_not_worth_it),
		cmocka_unit_test(ahead_of_demand_in_batches),
		cmocka_unit_test(the_kernels_own_faults_hold_nobody),
		cmocka_unit_test(a_failed_job_keeps_them_out),
		cmocka_unit_test(what_an_instruction_under_way_needs_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
