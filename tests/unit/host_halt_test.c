/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pf2-strict: a fault that halts its vCPU has its page ready, and whatever becomes ready ends a
 * halt. The other revisions as the contrast. Invariants 15, 23, 29, 32, 40; B7, S1.
 */
#include "host_fixture.h"

#define MS NS_PER_MS

static void kernel_mode(struct rig *x, unsigned vcpu, bool on)
{
	x->vcpus[vcpu].cpu.cpl = on ? 0 : 3;
}

/* The kernel touches a page, and its vCPU is halted. */
static void halts(struct rig *x, uint64_t page)
{
	kernel_mode(x, 0, true);
	assert_int_equal(rig_fault_next(x, 0, page), HST_ENTER_HALTED);
	assert_int_equal(x->counts[RIG_INJECT], 0);
}

/* It is kicked, and what comes of it. */
static enum hst_next kicked(struct rig *x, unsigned vcpu)
{
	assert_true(x->vcpus[vcpu].kicked);
	x->vcpus[vcpu].kicked = false;
	rig_exit(x, vcpu, true);
	return rig_next(x, vcpu);
}

static uint32_t outstanding(struct rig *x)
{
	return rig_v(x, 0)->eng.outstanding;
}

static void own_page_ends_it_with_an_event(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);
	roff_t arrived[HST_ARRIVED_MAX];

	(void)state;
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	x->now += MS;
	rig_bring(x, 5);
	assert_int_equal(x->counts[RIG_IRQ], 0); /* S5: not before an exit */
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	assert_int_equal(hst_take_arrived(rig_v(x, 0), arrived), 1);
	uint32_t token = rig_take_irq(x, 0);

	assert_true(token != 0 && token != APF_TOKEN_WAKE_ALL);
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	assert_int_equal(outstanding(x), 0);
	assert_int_equal(rig_v(x, 0)->stats.missing_events, 0);
	assert_int_equal(rig_v(x, 0)->stats.ready_events, 1);
	assert_int_equal(rig_v(x, 0)->stats.stall_kernel_mode_ns, MS);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_close(x);
}

static void the_others_send_nothing(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct rig *x = rig_open_on(revs[r], 1);

		rig_sleeper(x, 0, 4);
		rig_log_clear(x);
		halts(x, 5);
		assert_int_equal(outstanding(x), 1);
		x->vcpus[0].apic_off = true;
		rig_bring(x, 4);
		/* Refused, or told: its own page alone, or the event itself, ends the halt. */
		if (x->vcpus[0].kicked)
			assert_int_equal(kicked(x, 0), revs[r] == APF_REV_LEGACY
							       ? HST_ENTER_RUNNABLE : HST_ENTER);
		rig_close(x);
	}
}

/* Its own page is absent still: it comes back, and is the same fault. */
static void another_page_ends_it(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	uint32_t other = rig_sleeper(x, 0, 4);

	rig_log_clear(x);
	halts(x, 5);
	assert_int_equal(outstanding(x), 2);
	rig_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(rig_take_irq(x, 0), other);
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(outstanding(x), 1);
	assert_int_equal(x->src.count, 1); /* one read */
	rig_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 2);
	assert_int_not_equal(rig_take_irq(x, 0), other);
	assert_int_equal(rig_pass(x, 0), HST_ENTER);
	assert_int_equal(outstanding(x), 0);
	rig_close(x);
}

/* What became ready while the fault was within its grace window counts as well. */
static void ready_in_the_window_ends_it(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct rig *x;

	(void)state;
	cfg.grace_ns = MS;
	x = rig_open(&cfg);
	rig_enable(x, 0);
	assert_int_equal(rig_fault_next(x, 0, 4), HST_WAIT);
	rig_after(x, MS);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	uint32_t other = rig_take_pf(x, 0);

	kernel_mode(x, 0, true);
	assert_int_equal(rig_fault_next(x, 0, 5), HST_WAIT);
	rig_bring(x, 4);
	assert_int_equal(rig_next(x, 0), HST_WAIT);
	rig_after(x, MS);
	assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_take_irq(x, 0), other);
	assert_int_equal(outstanding(x), 1);
	rig_close(x);
}

/* A local APIC that is off takes no event, and the halt ends all the same. */
static void a_refused_event_ends_it(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	uint32_t other = rig_sleeper(x, 0, 4);

	rig_log_clear(x);
	halts(x, 5);
	x->vcpus[0].apic_off = true;
	rig_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_false(rig_slot_full(x, 0));
	/* It touches the page again, and stands until something comes. */
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	x->vcpus[0].apic_off = false;
	rig_after(x, NS_PER_S);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_take_irq(x, 0), other);
	rig_close(x);
}

static void an_interrupt_ends_the_halt_and_not_the_fault(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	halts(x, 5);
	assert_int_equal(rig_pass(x, 0), HST_ENTER); /* a handler's exit */
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	rig_bring(x, 5);
	/* As any page ready: a vCPU that runs is kicked for it. */
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_close(x);
}

/* IF=0: the text waits in the fault itself. No event, and no page but its own ends that. */
static void what_had_to_wait_is_silent(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	rig_sleeper(x, 0, 4);
	rig_log_clear(x);
	x->vcpus[0].cpu.interrupts_on = false;
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	rig_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_STALL);
	rig_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	x->vcpus[0].cpu.interrupts_on = true;
	rig_pass(x, 0);
	assert_int_equal(x->counts[RIG_IRQ], 1); /* the sleeper's */
	rig_take_irq(x, 0);
	rig_pass(x, 0);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_close(x);
}

static void beyond_the_limit_it_is_silent(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct rig *x;

	(void)state;
	cfg.faults_max = 1;
	x = rig_open(&cfg);
	rig_enable(x, 0);
	rig_sleeper(x, 0, 4);
	rig_log_clear(x);
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	rig_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	rig_close(x);
}

/* Events off: the halt has its entry, and nothing is sent; unless they are on by then. */
static void events_off(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);

	(void)state;
	for (unsigned on = 0; on < 2; on++) {
		struct rig *x = rig_open(&cfg);

		assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
		assert_int_equal(outstanding(x), 1);
		if (on)
			rig_enable(x, 0); /* by an interrupt's handler */
		rig_log_clear(x);
		rig_bring(x, 5);
		assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
		assert_int_equal(x->counts[RIG_IRQ], on);
		assert_int_equal(outstanding(x), 0);
		rig_close(x);
	}
}

/* S1, S8: nothing tells of the event, but a HLT ends with it. */
static void a_hlt_ends_without_an_interrupt(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	rig_sleeper(x, 0, 4);
	rig_wrmsr_ok(x, 0, APF_MSR_CTL, RIG_VECTOR);
	rig_log_clear(x);
	x->vcpus[0].kicked = false;
	rig_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_true(rig_slot_full(x, 0));
	assert_int_equal(x->counts[RIG_IRQ], 0);
	/* Once. */
	rig_exit(x, 0, true);
	assert_int_equal(rig_next(x, 0), HST_ENTER);
	rig_close(x);
}

static void after_disable_or_reset_nothing_comes(void **state)
{
	(void)state;
	for (unsigned reset = 0; reset < 2; reset++) {
		struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

		halts(x, 5);
		if (reset) {
			hst_vcpu_reset(rig_v(x, 0));
			rig_exit(x, 0, true);
			assert_int_equal(rig_next(x, 0), HST_ENTER_RUNNABLE);
		} else {
			rig_wrmsr_ok(x, 0, APF_MSR_EN, 0);
		}
		rig_log_clear(x);
		rig_bring(x, 5);
		assert_int_equal(x->counts[RIG_KICK], 0);
		rig_pass(x, 0);
		assert_int_equal(x->counts[RIG_IRQ], 0);
		assert_false(rig_slot_full(x, 0));
		assert_int_equal(outstanding(x), 0);
		rig_close(x);
	}
}

/* Nothing happens to a VM that stands still; then both, the halt's end and the event. */
static void paused(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	halts(x, 5);
	hst_pause(&x->h);
	rig_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_WAIT);
	assert_int_equal(x->counts[RIG_IRQ], 0);
	hst_resume(&x->h);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[RIG_IRQ], 1);
	rig_close(x);
}

/* The halt stays behind, its event comes along. */
static void saved_and_restored(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 1), *y = rig_open(&cfg);
	unsigned char bytes[256];

	(void)state;
	halts(x, 5);
	uint32_t token = rig_v(x, 0)->eng.faults[rig_v(x, 0)->eng.issue_head].token;
	size_t len = hst_vcpu_save(rig_v(x, 0), bytes);

	assert_true(len <= sizeof(bytes));
	rig_populate(y, RIG_AREA_PAGE);
	memcpy(rig_area(y, 0), rig_area(x, 0), sizeof(struct apf_area));
	rig_log_clear(y);
	assert_true(hst_vcpu_restore(rig_v(y, 0), bytes, len));
	assert_int_equal(y->src.count, 1); /* fetched again */
	assert_int_equal(rig_next(y, 0), HST_ENTER);
	rig_bring(y, 5);
	assert_int_equal(kicked(y, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(rig_take_irq(y, 0), token);
	rig_free(x);
	rig_close(y);
}

/* Other vCPUs' pages are none of its business. */
static void another_vcpus_page_does_not_end_it(void **state)
{
	struct rig *x = rig_open_on(APF_REV_PF2_STRICT, 2);

	(void)state;
	rig_sleeper(x, 1, 4);
	rig_log_clear(x);
	halts(x, 5);
	rig_bring(x, 4);
	assert_false(x->vcpus[0].kicked);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_STALL);
	rig_close(x);
}

/* Without events of ours a halt is a halt, whatever revision is set. */
static void stall_has_no_books(void **state)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_STALL, APF_REV_PF2_STRICT);
	struct rig *x = rig_open(&cfg);

	(void)state;
	assert_int_equal(rig_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(outstanding(x), 0);
	rig_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_page_ends_it_with_an_event),
		cmocka_unit_test(the_others_send_nothing),
		cmocka_unit_test(another_page_ends_it),
		cmocka_unit_test(ready_in_the_window_ends_it),
		cmocka_unit_test(a_refused_event_ends_it),
		cmocka_unit_test(an_interrupt_ends_the_halt_and_not_the_fault),
		cmocka_unit_test(what_had_to_wait_is_silent),
		cmocka_unit_test(beyond_the_limit_it_is_silent),
		cmocka_unit_test(events_off),
		cmocka_unit_test(a_hlt_ends_without_an_interrupt),
		cmocka_unit_test(after_disable_or_reset_nothing_comes),
		cmocka_unit_test(paused),
		cmocka_unit_test(saved_and_restored),
		cmocka_unit_test(another_vcpus_page_does_not_end_it),
		cmocka_unit_test(stall_has_no_books),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
