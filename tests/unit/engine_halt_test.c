/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eng_halt: which faults that only halt their vCPU pf2-strict has in its books, as the founding
 * text does, and that their page ready is due like any other. Invariants 3, 6, 15, 16, 23; B7.
 */
#include "engine_fixture.h"

static enum eng_halt halt(struct fx *fx, uint64_t gfn, uint32_t *ret_ix)
{
	return eng_halt(&fx->v, &fx->cpu, fx_slot(fx), (gfn_t){gfn}, ret_ix);
}

/* A fault of kernel mode that is in the books. */
static uint32_t halted(struct fx *fx, uint64_t gfn)
{
	uint32_t ix = ENG_NIL;

	fx->cpu.cpl = 0;
	assert_int_equal(fx_may(fx), ENG_KERNEL_MODE);
	assert_int_equal(halt(fx, gfn, &ix), ENG_HALT_ENTERED);
	fx->cpu.cpl = 3;
	fx_assert_sound(fx);
	return ix;
}

/* ---- which ---- */

struct row {
	const char *name;
	enum apf_rev rev;
	enum eng_halt want;
	bool off, by_pf, area_lost, user;
	bool no_lapic, pending, irqs_off, shadow, nested;
	uint32_t untaken, reason;
};

#define ROW(n, r, w, ...) {.name = #n, .rev = APF_REV_##r, .want = ENG_HALT_##w, __VA_ARGS__}

static const struct row rows[] = {
	ROW(kernel_mode, PF2_STRICT, ENTERED),
	ROW(kernel_mode_by_pf, PF2_STRICT, ENTERED, .by_pf = true),
	ROW(nested, PF2_STRICT, ENTERED, .user = true, .nested = true),
	ROW(events_off, PF2_STRICT, ENTERED, .user = true, .off = true),
	ROW(events_off_kernel_mode, PF2_STRICT, ENTERED, .off = true),
	ROW(events_off_has_no_slot, PF2_STRICT, ENTERED, .off = true, .reason = 2),
	ROW(by_pf_area_lost, PF2_STRICT, ENTERED, .user = true, .by_pf = true, .area_lost = true),
	ROW(by_pf_has_no_slot_test, PF2_STRICT, ENTERED, .by_pf = true, .reason = 2),
	/* Where nothing could be begun the text waits for the page, and for nothing else. */
	ROW(no_lapic, PF2_STRICT, SILENT, .no_lapic = true),
	ROW(exception_pending, PF2_STRICT, SILENT, .pending = true),
	ROW(own_pf_not_taken, PF2_STRICT, SILENT, .untaken = 0x9005),
	ROW(if_0, PF2_STRICT, SILENT, .irqs_off = true),
	ROW(shadow, PF2_STRICT, SILENT, .shadow = true),
	ROW(unread_missing, PF2_STRICT, SILENT, .reason = 1),
	ROW(unread_ready, PF2_STRICT, SILENT, .reason = 2),
	ROW(area_lost, PF2_STRICT, SILENT, .area_lost = true),
	ROW(events_off_if_0, PF2_STRICT, SILENT, .off = true, .irqs_off = true),
	/* The others never. */
	ROW(pf2_kernel_mode, PF2, SILENT),
	ROW(pf2_events_off, PF2, SILENT, .off = true),
	ROW(legacy_kernel_mode, LEGACY, SILENT),
	ROW(int_kernel_mode, INT, SILENT),
	ROW(int_nested, INT, SILENT, .user = true, .nested = true),
};

static void run_row(void **state)
{
	const struct row *row = *state;
	struct fx_state before;
	struct fx fx;
	uint32_t ix = ENG_NIL;

	if (row->by_pf)
		fx_init_on_by_pf(&fx, row->rev);
	else
		fx_init_on(&fx, row->rev);
	if (row->off)
		fx_wrmsr(&fx, APF_MSR_EN, 0);
	fx.v.cfg.has_lapic = !row->no_lapic;
	fx.area_lost = row->area_lost;
	fx.area.reason = row->reason;
	fx.cpu.cpl = row->user ? 3 : 0;
	fx.cpu.event_pending = row->pending;
	fx.cpu.untaken_token = row->untaken;
	fx.cpu.interrupts_on = !row->irqs_off;
	fx.cpu.shadow = row->shadow;
	fx.cpu.nested = row->nested;
	assert_int_not_equal(fx_may(&fx), ENG_MAY_SEND);
	fx_keep(&fx, &before);
	assert_int_equal(halt(&fx, 7, &ix), row->want);
	if (row->want == ENG_HALT_ENTERED) {
		assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_HALTED);
		assert_int_equal(fx.v.faults[ix].gfn, 7);
		assert_int_equal(fx.v.outstanding, 1);
	} else {
		assert_int_equal(ix, ENG_NIL);
		assert_true(fx_same(&fx, &before));
	}
	fx_assert_sound(&fx);
}

/* ---- what becomes of them ---- */

static void page_ready_is_sent_though_nobody_was_told(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	uint32_t ix = halted(&fx, 7), token = fx.v.faults[ix].token;

	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_true(eng_page_ready(&fx.v, ix));
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_READY);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.how, ENG_HOW_IRQ);
	assert_int_equal(fx.ev.vector, FX_VECTOR);
	assert_int_equal(fx.area.reason, APF_REASON_READY);
	assert_int_equal(fx.area.token, token);
	assert_int_equal(fx.v.outstanding, 0);
	fx_consume(&fx);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

static void sent_in_the_order_of_the_pages(void **state)
{
	struct fx fx;
	uint32_t token[3];

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	uint32_t told = fx_sleeper(&fx, 1);

	token[0] = fx.ev.token;
	uint32_t a = halted(&fx, 2), b = halted(&fx, 3);

	token[1] = fx.v.faults[a].token;
	token[2] = fx.v.faults[b].token;
	assert_true(token[0] != token[1] && token[1] != token[2] && token[0] != token[2]);
	eng_page_ready(&fx.v, b);
	eng_page_ready(&fx.v, told);
	eng_page_ready(&fx.v, a);
	fx_expect_ready(&fx, token[2]);
	fx_expect_ready(&fx, token[0]);
	fx_expect_ready(&fx, token[1]);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

/* Once for each page in flight, whether its vCPU was halted for it or told. */
static void a_page_in_flight_is_joined(void **state)
{
	struct fx_state before;
	struct fx fx;
	uint32_t ix = ENG_NIL;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	uint32_t first = halted(&fx, 7);
	uint32_t told = fx_sleeper(&fx, 8);

	fx_keep(&fx, &before);
	fx.cpu.cpl = 0;
	assert_int_equal(halt(&fx, 7, &ix), ENG_HALT_JOINED);
	assert_int_equal(halt(&fx, 8, &ix), ENG_HALT_JOINED);
	assert_true(fx_same(&fx, &before));
	/* The page came, and was taken away again before the guest got on: a new fault. */
	assert_true(eng_page_ready(&fx.v, first));
	assert_int_equal(halt(&fx, 7, &ix), ENG_HALT_ENTERED);
	assert_int_not_equal(ix, first);
	/* Somebody who may be told is, also about a page that a halt waits for. */
	fx.cpu.cpl = 3;
	fx_sleeper(&fx, 7);
	assert_int_equal(fx.v.outstanding, 4);
	assert_true(eng_page_ready(&fx.v, told));
	fx_assert_sound(&fx);
}

static void no_more_than_the_limit(void **state)
{
	struct fx fx;
	uint32_t ix = ENG_NIL;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	for (uint32_t i = 0; i < fx.v.cfg.faults_max; i++)
		halted(&fx, i);
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	assert_int_equal(halt(&fx, 1000, &ix), ENG_HALT_SILENT);
	assert_int_equal(halt(&fx, 3, &ix), ENG_HALT_JOINED);
	assert_int_equal(ix, ENG_NIL);
}

static void disable_and_reset_leave_nothing_due(void **state)
{
	struct fx fx;

	(void)state;
	for (unsigned reset = 0; reset < 2; reset++) {
		fx_init_on(&fx, APF_REV_PF2_STRICT);
		uint32_t a = halted(&fx, 7), b = halted(&fx, 8);

		eng_page_ready(&fx.v, b);
		if (reset)
			eng_reset(&fx.v);
		else
			fx_wrmsr(&fx, APF_MSR_EN, 0);
		assert_int_equal(fx.v.faults[a].state, ENG_FAULT_RETIRED);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		assert_false(eng_page_ready(&fx.v, a));
		assert_int_equal(fx.v.outstanding, 0);
		fx_assert_sound(&fx);
	}
}

/* A retired one is not in the text's gfn set: the next life's fault is a new one. */
static void retired_is_not_joined(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	halted(&fx, 7);
	eng_reset(&fx.v);
	fx_enable_en(&fx, FX_EN_IRQ);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	halted(&fx, 7);
	assert_int_equal(fx.v.outstanding, 2);
}

/* Nothing is sent while events are off; if they were switched on meanwhile it is. */
static void what_began_while_off(void **state)
{
	struct fx fx;
	uint32_t ix[2] = {ENG_NIL, ENG_NIL};

	(void)state;
	fx_init(&fx, APF_REV_PF2_STRICT);
	assert_int_equal(fx_may(&fx), ENG_NOT_ENABLED);
	assert_int_equal(halt(&fx, 1, &ix[0]), ENG_HALT_ENTERED);
	assert_int_equal(halt(&fx, 2, &ix[1]), ENG_HALT_ENTERED);
	eng_page_ready(&fx.v, ix[0]);
	fx.no_cpu = true;
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.how, ENG_HOW_NOTHING);
	assert_int_equal(fx.ev.store.len, 0);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	fx.no_cpu = false;
	uint32_t token = fx.v.faults[ix[1]].token;

	fx_enable_en(&fx, FX_EN_IRQ);
	eng_page_ready(&fx.v, ix[1]);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	fx_expect_ready(&fx, token);
	assert_int_equal(fx.v.outstanding, 0);
}

/* Ids come round: neither it nor one told later has a token that is still out. */
static void tokens_are_not_issued_twice(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	fx.v.next_id = 1;
	uint32_t first = fx.v.faults[halted(&fx, 1)].token;

	fx.v.next_id = 0xfffff;
	uint32_t last = fx.v.faults[halted(&fx, 2)].token;
	uint32_t third = fx.v.faults[halted(&fx, 3)].token;

	fx_sleeper(&fx, 4);
	assert_int_equal(first, 1u << 12 | FX_VCPU);
	assert_int_equal(last, 0xfffffu << 12 | FX_VCPU);
	assert_int_equal(third, 2u << 12 | FX_VCPU);
	assert_int_equal(fx.ev.token, 3u << 12 | FX_VCPU);
	fx_assert_sound(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_ready_is_sent_though_nobody_was_told),
		cmocka_unit_test(sent_in_the_order_of_the_pages),
		cmocka_unit_test(a_page_in_flight_is_joined),
		cmocka_unit_test(no_more_than_the_limit),
		cmocka_unit_test(disable_and_reset_leave_nothing_due),
		cmocka_unit_test(retired_is_not_joined),
		cmocka_unit_test(what_began_while_off),
		cmocka_unit_test(tokens_are_not_issued_twice),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	return failed + FX_RUN_ROWS(rows, run_row) != 0;
}
