/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/msr.c: what a VMM has set in KVM's own registers counts when the vCPU runs, what they
 * hold is shown there at rest, and memory that they name is there before the guest runs.
 */
#include "drive_fixture.h"

#define OFF(page) ((uint64_t)(page) << PAGE_SHIFT)
#define CLOCK_PAGE 9u
#define CLOCK ((RIG_GPA + OFF(CLOCK_PAGE) + 32) | 1)

static struct rig *open_off(enum apf_rev rev)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, rev);

	return rig_open(&cfg);
}

static void set_in_kvm(struct rig *x, uint64_t en, uint64_t ctl)
{
	x->vcpus[0].in_kvm.en = en;
	x->vcpus[0].in_kvm.ctl = ctl;
	x->vcpus[0].in_kvm.changed = true;
}

/* The VMM takes its thread, and calls again. */
static struct hst_step called_again(struct rig *x)
{
	const struct plat_exit signal = {.kind = PLAT_EXIT_SIGNAL};

	dx_must_return(dx_exit(x, signal), -EINTR);
	return dx_call(x);
}

/* ---- the protocol's registers ---- */

static void registers_found_in_kvm_are_taken_over(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	set_in_kvm(x, rig_en(x, 0), RIG_VECTOR);
	/* The area first: events go into it. */
	dx_must_wait(dx_call(x));
	rig_answer(x, rig_read_at(x, OFF(RIG_AREA_PAGE)), 0);
	memset(rig_area(x, 0), 0, sizeof(struct apf_area));
	rig_pump(x);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	/* Whoever slept on the other host is released, by the vector that the guest has set. */
	assert_int_equal(x->counts[RIG_IRQ], 1);
	assert_int_equal(rig_entry(x, RIG_IRQ, 0)->a, RIG_VECTOR);
	assert_int_equal(rig_take_irq(x, 0), APF_TOKEN_WAKE_ALL);
	assert_true(rig_v(x, 0)->eng.ctl == RIG_VECTOR);
	assert_true(rig_v(x, 0)->eng.en == rig_en(x, 0));
	rig_close(x);
}

static void the_control_register_is_taken_over_first(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	struct hst_step s = dx_call(x);

	(void)state;
	dx_must_enter(s, PLAT_ENTER);
	/* Restoring does not empty the area, which may hold an event of the other host's. */
	rig_area(x, 0)->token = 0x5000;
	set_in_kvm(x, rig_en(x, 0), 0x51);
	dx_must_enter(called_again(x), PLAT_ENTER);
	assert_int_equal(rig_area(x, 0)->token, 0x5000);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	rig_area(x, 0)->token = 0;
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	assert_int_equal(rig_entry(x, RIG_IRQ, 0)->a, 0x51);
	rig_close(x);
}

static void registers_that_are_as_they_were_shown_change_nothing(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	uint32_t token;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_fault(x, 5), PLAT_ENTER);
	token = rig_take_pf(x, 0);
	set_in_kvm(x, rig_en(x, 0), RIG_VECTOR);
	x->vcpus[0].in_kvm.changed = false;
	dx_must_enter(called_again(x), PLAT_ENTER);
	/* No wake-all: nobody's books were lost. */
	assert_int_equal(x->counts[RIG_IRQ], 0);
	rig_bring(x, 5);
	assert_int_equal(rig_take_irq(x, 0), token);
	rig_close(x);
}

static void a_vcpu_that_only_handed_out_an_exit_is_not_asked(void **state)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_return(dx_exit(x, (struct plat_exit){.kind = PLAT_EXIT_VMM}), 0);
	set_in_kvm(x, 0, 0);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_true(eng_enabled(&rig_v(x, 0)->eng));
	dx_must_enter(called_again(x), PLAT_ENTER);
	assert_false(eng_enabled(&rig_v(x, 0)->eng));
	rig_close(x);
}

static void values_that_are_not_acceptable_are_not_taken_over(void **state)
{
	static const uint64_t bad[] = {0x30 | APF_EN_ENABLED, 0xdead000000ull | 9,
					 (1ull << 52) | 9};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *x = open_off(APF_REV_INT);

		set_in_kvm(x, bad[i], 1ull << 9);
		dx_must_enter(dx_call(x), PLAT_ENTER);
		assert_int_equal(rig_v(x, 0)->eng.en, 0);
		assert_int_equal(rig_v(x, 0)->eng.ctl, 0);
		assert_int_equal(x->counts[RIG_READ], 0);
		rig_close(x);
	}
}

static void registers_are_shown_at_rest(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = rig_open_on(revs[r], 1);

		dx_must_enter(dx_call(x), PLAT_ENTER);
		hst_vcpu_call_back(rig_v(x, 0));
		dx_must_return(dx_kicked(x), -EINTR);
		assert_int_equal(x->counts[RIG_SHOW], 1);
		assert_true(rig_entry(x, RIG_SHOW, 0)->a == rig_en(x, 0));
		assert_true(rig_entry(x, RIG_SHOW, 0)->b == (rig_by_irq(x) ? rig_ctl(x) : 0));
		rig_close(x);
	}
}

/* ---- memory that the kernel writes ---- */

static void an_area_set_while_absent_is_fetched_and_told_again(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	x->vcpus[0].in_kvm.area[PV_SYSTEM_TIME] = CLOCK;
	dx_must_wait(dx_call(x));
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_AREA);
	assert_int_equal(x->counts[RIG_SET_MSR], 0);
	rig_bring(x, CLOCK_PAGE);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	/* The kernel could not write there when it was first told. */
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	assert_int_equal(rig_entry(x, RIG_SET_MSR, 0)->a, PV_MSR_SYSTEM_TIME);
	assert_true(rig_entry(x, RIG_SET_MSR, 0)->b == CLOCK);
	assert_int_equal(rig_v(x, 0)->kept[PV_SYSTEM_TIME], CLOCK_PAGE);
	/* Once. */
	dx_must_enter(dx_kicked(x), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	rig_close(x);
}

static void several_areas_are_fetched_one_after_the_other(void **state)
{
	struct rig *x = open_off(APF_REV_INT);
	struct rig_vcpu *g = &x->vcpus[0];

	(void)state;
	g->in_kvm.area[PV_SYSTEM_TIME] = CLOCK;
	g->in_kvm.area[PV_STEAL_TIME] = (RIG_GPA + OFF(10)) | 1;
	g->in_kvm.area[PV_EOI] = (RIG_GPA + OFF(11)) | 1;
	dx_must_wait(dx_call(x));
	rig_bring(x, CLOCK_PAGE);
	dx_must_wait(dx_did(x, 0, HST_DID_WAIT, false));
	rig_bring(x, 10);
	dx_must_wait(dx_did(x, 0, HST_DID_WAIT, false));
	rig_bring(x, 11);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 3);
	rig_close(x);
}

/* The VMM told of it before it came: the clocks of all vCPUs may lie in one page. */
static void an_area_that_came_before_the_call_is_told_again_once(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	rig_populate(x, CLOCK_PAGE);
	x->vcpus[0].in_kvm.area[PV_SYSTEM_TIME] = CLOCK;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	assert_true(rig_entry(x, RIG_SET_MSR, 0)->b == CLOCK);
	assert_int_equal(rig_v(x, 0)->kept[PV_SYSTEM_TIME], CLOCK_PAGE);
	dx_must_enter(called_again(x), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	/* The VMM clears it again. */
	x->vcpus[0].in_kvm.area[PV_SYSTEM_TIME] = 0;
	dx_must_enter(called_again(x), PLAT_ENTER);
	assert_true(rig_v(x, 0)->kept[PV_SYSTEM_TIME] == BLOCK_NONE);
	rig_close(x);
}

static void what_is_off_or_no_ram_is_not_waited_for(void **state)
{
	struct rig *x = open_off(APF_REV_INT);
	struct rig_vcpu *g = &x->vcpus[0];

	(void)state;
	g->in_kvm.area[PV_SYSTEM_TIME] = CLOCK & ~1ull;
	g->in_kvm.area[PV_STEAL_TIME] = 1;
	g->in_kvm.area[PV_EOI] = UINT64_MAX;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_READ], 0);
	rig_close(x);
}

static void a_guests_write_waits_until_the_kernel_can_write_there(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_wait(dx_wrmsr(x, PV_MSR_SYSTEM_TIME_OLD, CLOCK));
	assert_int_equal(x->counts[RIG_SET_MSR], 0);
	rig_bring(x, CLOCK_PAGE);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(rig_entry(x, RIG_SET_MSR, 0)->a, PV_MSR_SYSTEM_TIME_OLD);
	assert_true(x->vcpus[0].msr_done && !x->vcpus[0].msr_gp);
	assert_int_equal(rig_v(x, 0)->kept[PV_SYSTEM_TIME], CLOCK_PAGE);
	rig_close(x);
}

static void what_the_guest_has_told_is_not_told_again(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	rig_populate(x, CLOCK_PAGE);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_wrmsr(x, PV_MSR_SYSTEM_TIME, CLOCK), PLAT_ENTER);
	x->vcpus[0].in_kvm.area[PV_SYSTEM_TIME] = CLOCK;
	dx_must_enter(called_again(x), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	rig_close(x);
}

static void a_write_that_kvm_refuses_is_a_gp_and_keeps_nothing(void **state)
{
	struct rig *x = open_off(APF_REV_INT);

	(void)state;
	rig_populate(x, CLOCK_PAGE);
	x->set_msr_rc = -EINVAL;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_wrmsr(x, PV_MSR_SYSTEM_TIME, CLOCK), PLAT_ENTER);
	assert_true(x->vcpus[0].msr_done && x->vcpus[0].msr_gp);
	assert_true(rig_v(x, 0)->kept[PV_SYSTEM_TIME] == BLOCK_NONE);
	rig_close(x);
}

/* As Linux's own: part of it, and then nothing, is what the kernel would write. */
static void a_wall_clock_over_a_pages_end_waits_for_both(void **state)
{
	struct rig *x = open_off(APF_REV_INT);
	const uint64_t at = RIG_GPA + OFF(CLOCK_PAGE + 1) - 4;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_wait(dx_wrmsr(x, PV_MSR_WALL_CLOCK, at));
	rig_bring(x, CLOCK_PAGE);
	dx_must_wait(dx_did(x, 0, HST_DID_WAIT, false));
	assert_int_equal(x->counts[RIG_SET_MSR], 0);
	rig_bring(x, CLOCK_PAGE + 1);
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 1);
	assert_true(x->vcpus[0].msr_done && !x->vcpus[0].msr_gp);

	/* Over the end of RAM: the kernel writes what it can. */
	rig_populate(x, RIG_PAGES - 1);
	dx_must_enter(dx_wrmsr(x, PV_MSR_WALL_CLOCK_OLD, RIG_GPA + OFF(RIG_PAGES) - 4), PLAT_ENTER);
	assert_int_equal(x->counts[RIG_SET_MSR], 2);
	rig_close(x);
}

/* RAM of ours behind no memslot, or a read-only one: the guest would never see an event there. */
static void an_area_that_the_guest_cannot_write_is_a_gp(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = open_off(revs[r]);

		rig_populate(x, RIG_AREA_PAGE);
		memset(rig_area(x, 0), 0x5a, sizeof(struct apf_area));
		x->rom = true;
		dx_must_enter(dx_call(x), PLAT_ENTER);
		dx_must_enter(dx_wrmsr(x, APF_MSR_EN, rig_en(x, 0)), PLAT_ENTER);
		assert_true(x->vcpus[0].msr_done && x->vcpus[0].msr_gp);
		assert_int_equal(rig_v(x, 0)->eng.en, 0);
		assert_int_equal(rig_area(x, 0)->reason, 0x5a5a5a5a);
		assert_true(rig_v(x, 0)->kept[HST_KEPT_AREA] == BLOCK_NONE);
		/* Switching off names no area. */
		dx_must_enter(dx_wrmsr(x, APF_MSR_EN, rig_en(x, 0) & ~APF_EN_ENABLED), PLAT_ENTER);
		assert_false(x->vcpus[0].msr_gp);
		rig_close(x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_found_in_kvm_are_taken_over),
		cmocka_unit_test(the_control_register_is_taken_over_first),
		cmocka_unit_test(registers_that_are_as_they_were_shown_change_nothing),
		cmocka_unit_test(a_vcpu_that_only_handed_out_an_exit_is_not_asked),
		cmocka_unit_test(values_that_are_not_acceptable_are_not_taken_over),
		cmocka_unit_test(registers_are_shown_at_rest),
		cmocka_unit_test(an_area_set_while_absent_is_fetched_and_told_again),
		cmocka_unit_test(several_areas_are_fetched_one_after_the_other),
		cmocka_unit_test(an_area_that_came_before_the_call_is_told_again_once),
		cmocka_unit_test(what_the_guest_has_told_is_not_told_again),
		cmocka_unit_test(what_is_off_or_no_ram_is_not_waited_for),
		cmocka_unit_test(a_guests_write_waits_until_the_kernel_can_write_there),
		cmocka_unit_test(a_write_that_kvm_refuses_is_a_gp_and_keeps_nothing),
		cmocka_unit_test(a_wall_clock_over_a_pages_end_waits_for_both),
		cmocka_unit_test(an_area_that_the_guest_cannot_write_is_a_gp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
