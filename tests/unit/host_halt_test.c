/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pf2-strict: a fault that halts its vCPU has its page ready, and whatever becomes ready ends a
 * halt. The other revisions as the contrast. Invariants 15, 23, 29, 32, 40; B7, S1.
 */
#include "host_fixture.h"

#define MS NS_PER_MS

static void kernel_mode(struct hx *x, unsigned vcpu, bool on)
{
	x->vcpus[vcpu].cpu.cpl = on ? 0 : 3;
}

/* The kernel touches a page, and its vCPU is halted. */
static void halts(struct hx *x, uint64_t page)
{
	kernel_mode(x, 0, true);
	assert_int_equal(hx_fault_next(x, 0, page), HST_ENTER_HALTED);
	assert_int_equal(x->counts[HX_INJECT], 0);
}

/* It is kicked, and what comes of it. */
static enum hst_next kicked(struct hx *x, unsigned vcpu)
{
	assert_true(x->vcpus[vcpu].kicked);
	x->vcpus[vcpu].kicked = false;
	hx_exit(x, vcpu, true);
	return hx_next(x, vcpu);
}

static uint32_t outstanding(struct hx *x)
{
	return hx_v(x, 0)->eng.outstanding;
}

static void own_page_ends_it_with_an_event(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);
	roff_t arrived[HST_ARRIVED_MAX];

	(void)state;
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	x->now += MS;
	hx_bring(x, 5);
	assert_int_equal(x->counts[HX_IRQ], 0); /* S5: not before an exit */
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 1);
	assert_int_equal(hst_take_arrived(hx_v(x, 0), arrived), 1);
	uint32_t token = hx_take_irq(x, 0);

	assert_true(token != 0 && token != APF_TOKEN_WAKE_ALL);
	assert_int_equal(hx_pass(x, 0), HST_ENTER);
	assert_int_equal(outstanding(x), 0);
	assert_int_equal(hx_v(x, 0)->stats.missing_events, 0);
	assert_int_equal(hx_v(x, 0)->stats.ready_events, 1);
	assert_int_equal(hx_v(x, 0)->stats.stall_kernel_mode_ns, MS);
	assert_int_equal(x->counts[HX_IRQ], 1);
	hx_close(x);
}

static void the_others_send_nothing(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};

	(void)state;
	for (unsigned r = 0; r < ARRAY_LEN(revs); r++) {
		struct hx *x = hx_open_on(revs[r], 1);

		hx_sleeper(x, 0, 4);
		hx_log_clear(x);
		halts(x, 5);
		assert_int_equal(outstanding(x), 1);
		x->vcpus[0].apic_off = true;
		hx_bring(x, 4);
		/* Refused, or told: its own page alone, or the event itself, ends the halt. */
		if (x->vcpus[0].kicked)
			assert_int_equal(kicked(x, 0), revs[r] == APF_REV_LEGACY
							       ? HST_ENTER_RUNNABLE : HST_ENTER);
		hx_close(x);
	}
}

/* Its own page is absent still: it comes back, and is the same fault. */
static void another_page_ends_it(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	uint32_t other = hx_sleeper(x, 0, 4);

	hx_log_clear(x);
	halts(x, 5);
	assert_int_equal(outstanding(x), 2);
	hx_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(hx_v(x, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(hx_take_irq(x, 0), other);
	assert_int_equal(hx_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(outstanding(x), 1);
	assert_int_equal(x->src.count, 1); /* one read */
	hx_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 2);
	assert_int_not_equal(hx_take_irq(x, 0), other);
	assert_int_equal(hx_pass(x, 0), HST_ENTER);
	assert_int_equal(outstanding(x), 0);
	hx_close(x);
}

/* What became ready while the fault was within its grace window counts as well. */
static void ready_in_the_window_ends_it(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct hx *x;

	(void)state;
	cfg.grace_ns = MS;
	x = hx_open(&cfg);
	hx_enable(x, 0);
	assert_int_equal(hx_fault_next(x, 0, 4), HST_WAIT);
	hx_after(x, MS);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	uint32_t other = hx_take_pf(x, 0);

	kernel_mode(x, 0, true);
	assert_int_equal(hx_fault_next(x, 0, 5), HST_WAIT);
	hx_bring(x, 4);
	assert_int_equal(hx_next(x, 0), HST_WAIT);
	hx_after(x, MS);
	assert_int_equal(hx_next(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(hx_take_irq(x, 0), other);
	assert_int_equal(outstanding(x), 1);
	hx_close(x);
}

/* A local APIC that is off takes no event, and the halt ends all the same. */
static void a_refused_event_ends_it(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	uint32_t other = hx_sleeper(x, 0, 4);

	hx_log_clear(x);
	halts(x, 5);
	x->vcpus[0].apic_off = true;
	hx_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_false(hx_slot_full(x, 0));
	/* It touches the page again, and stands until something comes. */
	assert_int_equal(hx_fault_next(x, 0, 5), HST_ENTER_HALTED);
	x->vcpus[0].apic_off = false;
	hx_after(x, NS_PER_S);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(hx_take_irq(x, 0), other);
	hx_close(x);
}

static void an_interrupt_ends_the_halt_and_not_the_fault(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	halts(x, 5);
	assert_int_equal(hx_pass(x, 0), HST_ENTER); /* a handler's exit */
	assert_int_equal(hx_v(x, 0)->phase, HST_PHASE_RUN);
	hx_bring(x, 5);
	/* As any page ready: a vCPU that runs is kicked for it. */
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 1);
	hx_close(x);
}

/* IF=0: the text waits in the fault itself. No event, and no page but its own ends that. */
static void what_had_to_wait_is_silent(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	hx_sleeper(x, 0, 4);
	hx_log_clear(x);
	x->vcpus[0].cpu.interrupts_on = false;
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	hx_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER);
	assert_int_equal(hx_v(x, 0)->phase, HST_PHASE_STALL);
	hx_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 0);
	x->vcpus[0].cpu.interrupts_on = true;
	hx_pass(x, 0);
	assert_int_equal(x->counts[HX_IRQ], 1); /* the sleeper's */
	hx_take_irq(x, 0);
	hx_pass(x, 0);
	assert_int_equal(x->counts[HX_IRQ], 1);
	hx_close(x);
}

static void beyond_the_limit_it_is_silent(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct hx *x;

	(void)state;
	cfg.faults_max = 1;
	x = hx_open(&cfg);
	hx_enable(x, 0);
	hx_sleeper(x, 0, 4);
	hx_log_clear(x);
	halts(x, 5);
	assert_int_equal(outstanding(x), 1);
	hx_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 0);
	hx_close(x);
}

/* Events off: the halt has its entry, and nothing is sent; unless they are on by then. */
static void events_off(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);

	(void)state;
	for (unsigned on = 0; on < 2; on++) {
		struct hx *x = hx_open(&cfg);

		assert_int_equal(hx_fault_next(x, 0, 5), HST_ENTER_HALTED);
		assert_int_equal(outstanding(x), 1);
		if (on)
			hx_enable(x, 0); /* by an interrupt's handler */
		hx_log_clear(x);
		hx_bring(x, 5);
		assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
		assert_int_equal(x->counts[HX_IRQ], on);
		assert_int_equal(outstanding(x), 0);
		hx_close(x);
	}
}

/* S1, S8: nothing tells of the event, but a HLT ends with it. */
static void a_hlt_ends_without_an_interrupt(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	hx_sleeper(x, 0, 4);
	hx_wrmsr_ok(x, 0, APF_MSR_CTL, HX_VECTOR);
	hx_log_clear(x);
	x->vcpus[0].kicked = false;
	hx_bring(x, 4);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_true(hx_slot_full(x, 0));
	assert_int_equal(x->counts[HX_IRQ], 0);
	/* Once. */
	hx_exit(x, 0, true);
	assert_int_equal(hx_next(x, 0), HST_ENTER);
	hx_close(x);
}

static void after_disable_or_reset_nothing_comes(void **state)
{
	(void)state;
	for (unsigned reset = 0; reset < 2; reset++) {
		struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

		halts(x, 5);
		if (reset) {
			hst_vcpu_reset(hx_v(x, 0));
			hx_exit(x, 0, true);
			assert_int_equal(hx_next(x, 0), HST_ENTER_RUNNABLE);
		} else {
			hx_wrmsr_ok(x, 0, APF_MSR_EN, 0);
		}
		hx_log_clear(x);
		hx_bring(x, 5);
		assert_int_equal(x->counts[HX_KICK], 0);
		hx_pass(x, 0);
		assert_int_equal(x->counts[HX_IRQ], 0);
		assert_false(hx_slot_full(x, 0));
		assert_int_equal(outstanding(x), 0);
		hx_close(x);
	}
}

/* Nothing happens to a VM that stands still; then both, the halt's end and the event. */
static void paused(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1);

	(void)state;
	halts(x, 5);
	hst_pause(&x->h);
	hx_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_WAIT);
	assert_int_equal(x->counts[HX_IRQ], 0);
	hst_resume(&x->h);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(x->counts[HX_IRQ], 1);
	hx_close(x);
}

/* The halt stays behind, its event comes along. */
static void saved_and_restored(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_USER, APF_REV_PF2_STRICT);
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 1), *y = hx_open(&cfg);
	unsigned char bytes[256];

	(void)state;
	halts(x, 5);
	uint32_t token = hx_v(x, 0)->eng.faults[hx_v(x, 0)->eng.issue_head].token;
	size_t len = hst_vcpu_save(hx_v(x, 0), bytes);

	assert_true(len <= sizeof(bytes));
	hx_populate(y, HX_AREA_PAGE);
	memcpy(hx_area(y, 0), hx_area(x, 0), sizeof(struct apf_area));
	hx_log_clear(y);
	assert_true(hst_vcpu_restore(hx_v(y, 0), bytes, len));
	assert_int_equal(y->src.count, 1); /* fetched again */
	assert_int_equal(hx_next(y, 0), HST_ENTER);
	hx_bring(y, 5);
	assert_int_equal(kicked(y, 0), HST_ENTER_RUNNABLE);
	assert_int_equal(hx_take_irq(y, 0), token);
	hx_free(x);
	hx_close(y);
}

/* Other vCPUs' pages are none of its business. */
static void another_vcpus_page_does_not_end_it(void **state)
{
	struct hx *x = hx_open_on(APF_REV_PF2_STRICT, 2);

	(void)state;
	hx_sleeper(x, 1, 4);
	hx_log_clear(x);
	halts(x, 5);
	hx_bring(x, 4);
	assert_false(x->vcpus[0].kicked);
	assert_int_equal(hx_v(x, 0)->phase, HST_PHASE_STALL);
	hx_close(x);
}

/* Without events of ours a halt is a halt, whatever revision is set. */
static void stall_has_no_books(void **state)
{
	struct hst_cfg cfg = hx_cfg(HST_FAULTS_STALL, APF_REV_PF2_STRICT);
	struct hx *x = hx_open(&cfg);

	(void)state;
	assert_int_equal(hx_fault_next(x, 0, 5), HST_ENTER_HALTED);
	assert_int_equal(outstanding(x), 0);
	hx_bring(x, 5);
	assert_int_equal(kicked(x, 0), HST_ENTER_RUNNABLE);
	hx_close(x);
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
