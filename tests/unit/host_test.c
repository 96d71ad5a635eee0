/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/host.c: the memory that it asks for, statistics; pausing a VM, resetting a vCPU. */
#include "host_fixture.h"

/* ---- pause by the VMM ---- */

static void a_pause_holds_every_vcpu_until_resume(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);

	(void)state;
	cfg.vcpus = 2;
	struct rig *x = rig_open(&cfg);

	rig_pass(x, 0);
	rig_pass(x, 1);
	hst_pause(&x->h);
	assert_true(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_KICK], 2);
	for (unsigned i = 0; i < 2; i++) {
		rig_exit(x, i, true);
		assert_int_equal(rig_next(x, i), HST_WAIT);
		assert_int_equal(x->until, NS_NEVER);
	}
	hst_resume(&x->h);
	assert_false(hst_is_paused(&x->h));
	assert_int_equal(x->counts[RIG_KICK], 4);
	assert_int_equal(x->counts[RIG_TROUBLE] + x->counts[RIG_GOES_ON], 0);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* A reason that was told is taken back when the VM goes on, and only then. */
static void a_pause_for_a_reason_ends_with_resume(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	struct hst_trouble t = {.why = {.code = -5, .text = "for a test"}, .tries = 1};

	(void)state;
	cfg.source_timeout_ns = 10 * NS_PER_MS;
	struct rig *x = rig_open(&cfg);

	hst_pause_for(&x->h, &t);
	assert_int_equal(x->counts[RIG_TROUBLE], 1);
	hst_resume(&x->h);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	hst_resume(&x->h);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	/* The source recovers while the VMM holds the VM: it does not go on yet. */
	rig_fault_next(x, 0, 5);
	rig_after(x, 10 * NS_PER_MS);
	assert_int_equal(x->counts[RIG_TROUBLE], 2);
	hst_pause(&x->h);
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_GOES_ON], 1);
	hst_resume(&x->h);
	assert_int_equal(x->counts[RIG_GOES_ON], 2);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

/* ---- reset ---- */

/* A reset while an EN write waits for its area: the write is not carried out afterwards. */
static void a_reset_drops_what_was_under_way(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);
	struct rig *x = rig_open(&cfg);
	struct hst_vcpu *v = rig_v(x, 0);

	(void)state;
	rig_exit(x, 0, false);
	hst_wrmsr(v, APF_MSR_EN, rig_en(x, 0));
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	hst_vcpu_reset(v);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_bring(x, RIG_AREA_PAGE);
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	assert_int_equal(x->counts[RIG_MSR], 0);
	assert_int_equal(v->eng.en, 0);
	rig_close(x);
}

/* ---- memory ---- */

/*
 * At most 16 bytes per guest page and 64 KiB per vCPU; beyond that a constant, for the
 * fetches that belong to devices and to the kernel, and for the sources' timers.
 */
#define BYTES_PER_PAGE 16u
#define BYTES_PER_VCPU (64u * 1024)
#define BYTES_CONSTANT (42u * 1024)

static void memory_is_bounded(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);

	(void)state;
	cfg.faults_max = 256;
	for (uint64_t pages = 4096; pages <= 1u << 20; pages *= 2) {
		for (cfg.vcpus = 1; cfg.vcpus <= 8; cfg.vcpus++) {
			size_t bytes = hst_bytes(&cfg, pages << PAGE_SHIFT);

			assert_true(bytes <= pages * BYTES_PER_PAGE + cfg.vcpus * BYTES_PER_VCPU +
						     BYTES_CONSTANT);
		}
	}
	/* Each part for itself, so that one cannot hide behind another. */
	size_t small = hst_bytes(&cfg, 4096 << PAGE_SHIFT);
	size_t large = hst_bytes(&cfg, (4096 + 512) << PAGE_SHIFT);

	assert_true(large - small <= 512 * BYTES_PER_PAGE);
	cfg.vcpus++;
	assert_true(hst_bytes(&cfg, 4096 << PAGE_SHIFT) - small <= BYTES_PER_VCPU);
	cfg.vcpus = 1;
	assert_true(hst_bytes(&cfg, 0) <= BYTES_PER_VCPU + BYTES_CONSTANT);
}

/* What row number i of who's counters is set to: peaks are largest with who 2. */
static uint64_t set_to(uint64_t who, uint64_t i)
{
	return (i + 1) << (8 * (who == 3 ? 1 : who));
}

#define SUM_COUNTER(i) (set_to(0, i) + set_to(1, i) + set_to(2, i) + set_to(3, i))
#define SUM_PEAK(i) set_to(2, i)
#define SUM_GAUGE(i) 0
#define CHECK(name, unit, kind, scope, help) \
	if (APF_KIND_##kind != APF_KIND_GAUGE) \
		assert_int_equal(s.name, SUM_##kind(APF_COUNTER_ID_##name));

/* Every counter of every vCPU and of the rest; peaks are not added up. */
static void statistics_are_added_up(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_OFF);

	(void)state;
	cfg.vcpus = 3;
	struct rig *x = rig_open(&cfg);
	uint64_t part[APF_COUNTER_IDS];
	struct hst_stats s;

	for (uint64_t who = 0; who < 4; who++) {
		struct hst_stats *to = who < 3 ? &rig_v(x, (unsigned)who)->stats : &x->h.stats;

		for (uint64_t i = 0; i < ARRAY_LEN(part); i++)
			part[i] = set_to(who, i);
		memcpy(&to->all, part, sizeof(part));
		/* As the driver keeps them: by reason, and not in the table's own words. */
		to->stall_why[ENG_KERNEL_MODE] = to->stalls_kernel_mode;
		to->stall_why[ENG_IRQS_OFF] = to->stalls_irqs_off;
		to->stall_why[ENG_SLOT_BUSY] = to->stalls_slot_busy;
		to->stalls = to->stalls_kernel_mode + to->stalls_irqs_off + to->stalls_slot_busy +
			     to->stalls_other;
		to->faults_outstanding = 0;
	}
	hst_stats_sum(&x->h, &s);
	assert_int_equal(s.stalls, s.stalls_kernel_mode + s.stalls_irqs_off + s.stalls_slot_busy +
					   s.stalls_other);
	s.stalls = SUM_COUNTER(APF_COUNTER_ID_stalls);
	APF_COUNTER_TABLE(CHECK)
	assert_int_equal(s.memory_bytes, x->h.mem.bytes);
	assert_int_equal(s.faults_outstanding, 0);
	rig_close(x);
}

/* No quantile is above the longest wait, which is exact. */
static void waits_are_what_they_were(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_BLOCK, APF_REV_OFF);
	/* Its bucket reaches from 1792 to 2047 us. */
	const uint64_t ns = 1800 * NS_PER_US + 321;

	(void)state;
	struct rig *x = rig_open(&cfg);
	struct hst_stats all, one;

	for (unsigned i = 0; i < 3; i++) {
		struct hst_waiter *w = &rig_v(x, 0)->sync;

		w->since_ns = x->now;
		x->now += ns;
		w->ready(&x->h, w, x->now);
	}
	hst_stats_sum(&x->h, &all);
	hst_vcpu_stats(rig_v(x, 0), &one);
	assert_int_equal(all.wait_max_ns, ns);
	assert_int_equal(one.wait_max_ns, ns);
	assert_in_range(all.wait_p99_ns, 1792 * NS_PER_US, ns);
	assert_in_range(one.wait_p50_ns, 1792 * NS_PER_US, ns);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pause_holds_every_vcpu_until_resume),
		cmocka_unit_test(a_pause_for_a_reason_ends_with_resume),
		cmocka_unit_test(a_reset_drops_what_was_under_way),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(statistics_are_added_up),
		cmocka_unit_test(waits_are_what_they_were),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
