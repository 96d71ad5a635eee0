/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/engine/ready.c: each row of the page-ready gates (docs/engine.md, "Page ready"), the
 * order of events, the wake-all, and the hazards of the founding text, each as a pair:
 * closed in pf2, shown in pf2-strict. Invariants 1, 2, 4-8, 22-25, 27, 28, 47, 48.
 */
#include "engine_fixture.h"

struct gate_row {
	const char *name;
	enum apf_rev rev;
	enum eng_ready want;
	enum eng_how how; /* when SEND */
	bool by_pf;       /* pf2: EN bit 3 clear */
	bool wake_all;    /* the event is the wake-all, else a token */
	bool no_cpu, no_lapic, pending, irqs_off, shadow, kernel, nested, no_paging, hidden;
	bool area_lost;
	bool untaken_own, untaken_other;
	uint32_t reason, token;
	uint64_t ctl; /* 0: left as enabled; NO_CTL: zero */
};

#define NO_CTL UINT64_MAX
#define HELD(id, r, w, ...) {.name = #id, .rev = APF_REV_##r, .want = ENG_READY_##w, __VA_ARGS__}
#define SENT(id, r, h, ...) \
	{.name = #id, .rev = APF_REV_##r, .want = ENG_READY_SEND, .how = ENG_HOW_##h, __VA_ARGS__}

static const struct gate_row gate_rows[] = {
	/* int: the token word, and no condition of the CPU. */
	SENT(int_slot_free, INT, IRQ),
	SENT(int_wake_all, INT, IRQ, .wake_all = true),
	SENT(int_from_any_thread, INT, IRQ, .no_cpu = true),
	SENT(int_with_if_0, INT, IRQ, .irqs_off = true),
	SENT(int_with_shadow, INT, IRQ, .shadow = true),
	SENT(int_with_exception_pending, INT, IRQ, .pending = true),
	SENT(int_with_page_missing_not_taken, INT, IRQ, .untaken_other = true),
	SENT(int_with_own_page_missing_not_taken, INT, IRQ, .untaken_own = true),
	SENT(int_at_cpl_0, INT, IRQ, .kernel = true),
	SENT(int_in_l2, INT, IRQ, .nested = true),
	SENT(int_with_pg_0, INT, IRQ, .no_paging = true),
	SENT(int_with_hidden_registers, INT, IRQ, .hidden = true),
	SENT(int_flags_do_not_gate_ready, INT, IRQ, .reason = 1),
	SENT(int_vector_16, INT, IRQ, .ctl = 16),
	HELD(int_token_in_slot, INT, SLOT_BUSY, .token = 0x9005),
	HELD(int_wake_all_behind_token_in_slot, INT, SLOT_BUSY, .token = 0x9005, .wake_all = true),
	HELD(int_area_unreadable_is_held_not_dropped, INT, SLOT_BUSY, .area_lost = true),
	HELD(int_wake_all_area_unreadable_is_held, INT, SLOT_BUSY, .area_lost = true,
	     .wake_all = true),
	HELD(int_vector_0, INT, OFF, .ctl = NO_CTL),
	HELD(int_vector_15, INT, OFF, .ctl = 15),
	HELD(int_wake_all_vector_0, INT, OFF, .ctl = NO_CTL, .wake_all = true),
	/* pf2, bit 3: the reason word, PF2.8, and no condition of the CPU. */
	SENT(pf2_slot_free, PF2, IRQ),
	SENT(pf2_wake_all, PF2, IRQ, .wake_all = true),
	SENT(pf2_from_any_thread, PF2, IRQ, .no_cpu = true),
	SENT(pf2_with_if_0, PF2, IRQ, .irqs_off = true),
	SENT(pf2_with_exception_pending, PF2, IRQ, .pending = true),
	SENT(pf2_at_cpl_0, PF2, IRQ, .kernel = true),
	SENT(pf2_token_word_alone_is_free, PF2, IRQ, .token = 0x9005),
	HELD(pf2_reason_ready_in_slot, PF2, SLOT_BUSY, .reason = 2),
	HELD(pf2_reason_missing_in_slot, PF2, SLOT_BUSY, .reason = 1),
	HELD(pf2_area_unreadable_is_held_not_dropped, PF2, SLOT_BUSY, .area_lost = true),
	HELD(pf2_bit_8_clear, PF2, OFF, .ctl = FX_VECTOR),
	HELD(pf2_wake_all_bit_8_clear, PF2, OFF, .ctl = FX_VECTOR, .wake_all = true),
	HELD(pf2_vector_0, PF2, OFF, .ctl = APF_PF2_ENABLED),
	HELD(pf2_vector_15, PF2, OFF, .ctl = APF_PF2_ENABLED | 15),
	SENT(pf2_vector_16, PF2, IRQ, .ctl = APF_PF2_ENABLED | 16),
	/* pf2-strict, bit 3: can_dequeue = can_do, slot included. */
	SENT(strict_slot_free, PF2_STRICT, IRQ),
	HELD(strict_needs_an_exit, PF2_STRICT, NO_CPU, .no_cpu = true),
	HELD(strict_if_0, PF2_STRICT, NOT_NOW, .irqs_off = true),
	HELD(strict_shadow, PF2_STRICT, NOT_NOW, .shadow = true),
	HELD(strict_exception_pending, PF2_STRICT, NOT_NOW, .pending = true),
	HELD(strict_no_lapic, PF2_STRICT, NOT_NOW, .no_lapic = true),
	HELD(strict_reason_in_slot, PF2_STRICT, SLOT_BUSY, .reason = 2),
	HELD(strict_area_unreadable_is_held, PF2_STRICT, SLOT_BUSY, .area_lost = true),
	SENT(strict_bit_8_clear_fills_the_slot_and_tells_nobody, PF2_STRICT, NOTHING,
	     .ctl = FX_VECTOR),
	SENT(strict_vector_0_is_raised, PF2_STRICT, IRQ, .ctl = APF_PF2_ENABLED),
	/* By #PF: can_do, no slot test. pf2 with bit 3 clear, legacy. */
	SENT(pf2_by_pf, PF2, PF, .by_pf = true),
	SENT(pf2_by_pf_wake_all, PF2, PF, .by_pf = true, .wake_all = true),
	SENT(pf2_by_pf_whatever_the_slot_holds, PF2, PF, .by_pf = true, .reason = 2),
	SENT(pf2_by_pf_does_not_look_at_pf2_register, PF2, PF, .by_pf = true, .ctl = NO_CTL),
	HELD(pf2_by_pf_needs_an_exit, PF2, NO_CPU, .by_pf = true, .no_cpu = true),
	HELD(pf2_by_pf_if_0, PF2, NOT_NOW, .by_pf = true, .irqs_off = true),
	HELD(pf2_by_pf_own_page_missing_not_taken, PF2, NOT_NOW, .by_pf = true,
	     .untaken_own = true),
	HELD(pf2_by_pf_with_pg_0, PF2, NOT_NOW, .by_pf = true, .no_paging = true),
	SENT(strict_by_pf_has_no_pg_test, PF2_STRICT, PF, .by_pf = true, .no_paging = true),
	SENT(pf2_by_pf_area_unreadable_is_dropped, PF2, NOTHING, .by_pf = true, .area_lost = true),
	SENT(strict_by_pf, PF2_STRICT, PF, .by_pf = true),
	SENT(legacy_by_pf, LEGACY, PF, .by_pf = true),
	SENT(legacy_wake_all, LEGACY, PF, .by_pf = true, .wake_all = true),
	SENT(legacy_whatever_the_slot_holds, LEGACY, PF, .reason = 1),
	SENT(legacy_at_cpl_0, LEGACY, PF, .kernel = true),
	HELD(legacy_with_pg_0, LEGACY, NOT_NOW, .no_paging = true),
	SENT(legacy_own_page_missing_with_pg_0, LEGACY, CANCEL_PF, .no_paging = true,
	     .untaken_own = true),
	HELD(legacy_needs_an_exit, LEGACY, NO_CPU, .no_cpu = true),
	HELD(legacy_no_lapic, LEGACY, NOT_NOW, .no_lapic = true),
	HELD(legacy_exception_pending, LEGACY, NOT_NOW, .pending = true),
	HELD(legacy_if_0, LEGACY, NOT_NOW, .irqs_off = true),
	HELD(legacy_shadow, LEGACY, NOT_NOW, .shadow = true),
	SENT(legacy_own_page_missing_not_taken_cancels_both, LEGACY, CANCEL_PF,
	     .untaken_own = true),
	HELD(legacy_other_page_missing_not_taken_waits, LEGACY, NOT_NOW, .untaken_other = true),
	HELD(legacy_wake_all_cancels_nothing, LEGACY, NOT_NOW, .untaken_other = true,
	     .wake_all = true),
	SENT(legacy_area_unreadable_is_dropped, LEGACY, NOTHING, .area_lost = true),
};

/* One event due, then the row's conditions. Returns the event's token. */
static uint32_t set_up(struct fx *fx, const struct gate_row *row)
{
	uint32_t token = APF_TOKEN_WAKE_ALL;

	if (row->by_pf && row->rev != APF_REV_LEGACY)
		fx_init_on_by_pf(fx, row->rev);
	else
		fx_init_on(fx, row->rev);
	if (row->wake_all) {
		assert_int_equal(fx_wrmsr(fx, APF_MSR_EN, fx->v.en), ENG_WRMSR_ENABLED);
	} else {
		assert_true(eng_page_ready(&fx->v, fx_sleeper(fx, 1)));
		token = fx->ev.token;
	}
	fx->no_cpu = row->no_cpu;
	fx->v.cfg.has_lapic = !row->no_lapic;
	fx->cpu.event_pending = row->pending;
	fx->cpu.interrupts_on = !row->irqs_off;
	fx->cpu.shadow = row->shadow;
	fx->cpu.cpl = row->kernel ? 0 : 3;
	fx->cpu.nested = row->nested;
	fx->cpu.paging = !row->no_paging;
	fx->cpu.protected_state = row->hidden;
	fx->cpu.untaken_token = row->untaken_own ? token : row->untaken_other ? 0x9005 : 0;
	fx->area_lost = row->area_lost;
	fx->area.reason = row->reason;
	fx->area.token = row->token;
	if (row->ctl)
		fx->v.ctl = row->ctl == NO_CTL ? 0 : row->ctl;
	return token;
}

/* What an event stores, per revision. */
static void check_store(const struct eng_event *ev, const struct gate_row *row)
{
	const struct eng_store *s = &ev->store;

	if (ev->how == ENG_HOW_CANCEL_PF) {
		assert_true(s->off == 0 && s->len == 4 && s->value == 0);
	} else if (row->area_lost) {
		assert_int_equal(s->len, 0);
	} else if (row->rev == APF_REV_INT) {
		assert_true(s->off == 4 && s->len == 4);
		assert_int_equal(s->value, ev->token);
	} else if (fx_is_pf2(row->rev)) {
		assert_true(s->off == 0 && s->len == 8);
		assert_int_equal(s->value, (uint64_t)ev->token << 32 | 2);
	} else {
		assert_true(s->off == 0 && s->len == 4);
		assert_int_equal(s->value, 2);
	}
}

static void run_gate_row(void **state)
{
	const struct gate_row *row = *state;
	struct fx fx;
	struct fx_state before;
	struct eng_event ev = {.token = 0x1111}, again;
	uint32_t token = set_up(&fx, row);

	fx_keep(&fx, &before);
	assert_int_equal(fx_peek(&fx, &ev), row->want);
	assert_true(fx_same(&fx, &before)); /* it is a question */
	if (row->want != ENG_READY_SEND) {
		assert_int_equal(ev.token, 0x1111);
		return;
	}
	assert_int_equal(ev.how, row->how);
	assert_int_equal(ev.token, token);
	if (ev.how == ENG_HOW_IRQ)
		assert_int_equal(ev.vector, fx.v.ctl & 0xff);
	check_store(&ev, row);
	/* Not performed: it stays due, the same event. */
	assert_int_equal(fx_peek(&fx, &again), ENG_READY_SEND);
	assert_true(ev.token == again.token && ev.how == again.how && ev.vector == again.vector);
	assert_true(ev.store.off == again.store.off && ev.store.len == again.store.len);
	assert_int_equal(ev.store.value, again.store.value);
	eng_ready_sent(&fx.v, &ev);
	fx_assert_sound(&fx);
	fx.no_cpu = false;
	assert_int_equal(fx_peek(&fx, &ev), ENG_READY_NONE);
}

static void nothing_due_is_none(void **state)
{
	struct fx fx;

	(void)state;
	for (int rev = APF_REV_OFF; rev <= APF_REV_INT; rev++) {
		fx_init(&fx, (enum apf_rev)rev);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		if (rev == APF_REV_OFF)
			continue;
		fx_init_on(&fx, (enum apf_rev)rev);
		fx_sleeper(&fx, 1);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	}
}

/* ---- order ---- */

/* Invariant 6, B24: many outstanding, one slot, in the order in which pages came. */
static void events_come_in_order_of_completion(void **state)
{
	static const unsigned order[] = {3, 0, 9, 1, 8, 2, 7, 4, 6, 5};
	struct fx fx;
	uint32_t ix[10], token[10];

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		fx_init_on(&fx, (enum apf_rev)rev);
		for (unsigned i = 0; i < 10; i++) {
			ix[i] = fx_sleeper(&fx, i);
			token[i] = fx.ev.token;
		}
		for (unsigned i = 0; i < 10; i++)
			assert_true(eng_page_ready(&fx.v, ix[order[i]]));
		for (unsigned i = 0; i < 10; i++)
			fx_expect_ready(&fx, token[order[i]]);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		assert_int_equal(fx.v.outstanding, 0);
		assert_int_equal(rev == APF_REV_LEGACY ? fx.pfs : fx.irqs,
				 rev == APF_REV_LEGACY ? 20 : 10);
	}
}

/* Invariant 27: each look that finds the slot free delivers the next, until none. */
static void int_each_free_slot_takes_the_next(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	for (unsigned i = 0; i < 8; i++)
		eng_page_ready(&fx.v, fx_sleeper(&fx, i));
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
		assert_int_equal(fx_scan(&fx), i < 7 ? ENG_READY_SLOT_BUSY : ENG_READY_NONE);
		fx.area.token = 0;
	}
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

/* Invariant 28: acknowledged first, freed later. */
static void int_acknowledge_before_clear_is_not_lost(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	eng_page_ready(&fx.v, fx_sleeper(&fx, 2));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_ACK, 1), ENG_WRMSR_RESCAN);
	assert_int_equal(fx_scan(&fx), ENG_READY_SLOT_BUSY);
	fx.area.token = 0;
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
}

/* ---- wake-all ---- */

static void wake_all_comes_after_what_was_ready_and_covers_the_rest(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};
	struct fx fx;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(revs); i++) {
		fx_init_on(&fx, revs[i]);
		uint32_t a = fx_sleeper(&fx, 1), ta = fx.ev.token;
		uint32_t b = fx_sleeper(&fx, 2), tb = fx.ev.token;
		uint32_t c = fx_sleeper(&fx, 3);
		uint32_t d = fx_sleeper(&fx, 4);
		eng_page_ready(&fx.v, b);
		eng_page_ready(&fx.v, a);
		assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, fx.v.en), ENG_WRMSR_ENABLED);
		eng_page_ready(&fx.v, c); /* after the wake-all: covered */
		fx_expect_ready(&fx, tb);
		fx_expect_ready(&fx, ta);
		fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		assert_int_equal(fx.v.faults[c].state, ENG_FAULT_FREE);
		assert_int_equal(fx.v.faults[d].state, ENG_FAULT_RETIRED);
		assert_false(eng_page_ready(&fx.v, d));
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		fx_assert_sound(&fx);
	}
}

static void second_wake_all_request_moves_it_back(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	uint32_t a = fx_sleeper(&fx, 1), ta = fx.ev.token;
	uint32_t b = fx_sleeper(&fx, 2), tb = fx.ev.token;
	eng_page_ready(&fx.v, a);
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	eng_page_ready(&fx.v, b);
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	fx_expect_ready(&fx, ta);
	fx_expect_ready(&fx, tb);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

/* A fault announced while the wake-all is queued is released by it, once. */
static void fault_announced_before_the_wake_all_is_written_is_covered(void **state)
{
	struct fx fx;

	(void)state;
	fx_init(&fx, APF_REV_INT);
	fx_enable_en(&fx, FX_EN_IRQ);
	uint32_t ix = fx_sleeper(&fx, 1);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_false(eng_page_ready(&fx.v, ix));
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

/* The founding text sends both: the waiter's own page-ready finds no sleeper. */
static void strict_wake_all_covers_nobody(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_PF2_STRICT);
	uint32_t ix = fx_sleeper(&fx, 1), token = fx.ev.token;
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_true(eng_page_ready(&fx.v, ix));
	fx_expect_ready(&fx, token);
}

/* Dropped, not delivered: the tokens still out get their own event later. */
static void wake_all_that_is_dropped_covers_nobody(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_LEGACY);
	uint32_t ix = fx_sleeper(&fx, 1), token = fx.ev.token;
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_PF);
	fx.area_lost = true;
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.how, ENG_HOW_NOTHING);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	fx.area_lost = false;
	assert_true(eng_page_ready(&fx.v, ix));
	fx_expect_ready(&fx, token);
}

static void held_events_come_when_the_area_is_back(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT, APF_REV_INT};
	struct fx fx;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(revs); i++) {
		fx_init_on(&fx, revs[i]);
		eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
		uint32_t token = fx.ev.token;
		fx.area_lost = true;
		assert_int_equal(fx_scan(&fx), ENG_READY_SLOT_BUSY);
		fx.area_lost = false;
		fx_expect_ready(&fx, token);
	}
}

/* Held by a vector below 16, released by the register write, never raised as it was. */
static void int_enabled_before_the_vector_waits_for_it(void **state)
{
	struct fx fx;

	(void)state;
	fx_init(&fx, APF_REV_INT);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ), ENG_WRMSR_ENABLED);
	assert_int_equal(fx_scan(&fx), ENG_READY_OFF);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_CTL, FX_VECTOR), ENG_WRMSR_RESCAN);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx.ev.vector, FX_VECTOR);
}

/* ---- the founding text's hazards ---- */

/* S1: a page gets ready while PF2.8 is still clear. Is its sleeper ever released? */
static bool s1_sleeper_is_released(enum apf_rev rev)
{
	struct fx fx;

	fx_init(&fx, rev);
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	uint32_t token = fx.ev.token;
	fx_scan(&fx);
	if (fx.area.reason != 0)
		assert_int_equal(fx.irqs, 0); /* filled, and no interrupt ever told */
	fx_wrmsr(&fx, APF_MSR_CTL, FX_PF2_ON); /* sends the wake-all */
	return fx_scan(&fx) == ENG_READY_SEND && fx.irqs == 1 &&
	       (fx.ev.token == token || fx.ev.token == APF_TOKEN_WAKE_ALL);
}

/* S3: the page gets ready while the guest runs with IF=0. Is the interrupt in the IRR? */
static bool s3_interrupt_is_queued_with_if_0(enum apf_rev rev)
{
	struct fx fx;

	fx_init_on(&fx, rev);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	fx.cpu.interrupts_on = false;
	fx.cpu.event_pending = true;
	return fx_scan(&fx) == ENG_READY_SEND && fx.irqs == 1;
}

/* S5: the guest stays in guest mode; only another thread can look at the slot. */
static bool s5_next_event_needs_no_exit(enum apf_rev rev)
{
	struct fx fx;

	fx_init_on(&fx, rev);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	eng_page_ready(&fx.v, fx_sleeper(&fx, 2));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	fx_consume(&fx);
	fx.no_cpu = true;
	return fx_scan(&fx) == ENG_READY_SEND;
}

/* S7: PF2.8 is written while EN.0 is clear. Is the wake-all kept from going nowhere? */
static bool s7_no_wake_all_is_drained_to_nowhere(enum apf_rev rev)
{
	struct fx fx;

	fx_init(&fx, rev);
	fx_wrmsr(&fx, APF_MSR_CTL, FX_PF2_ON);
	enum eng_ready r = fx_scan(&fx);
	if (r == ENG_READY_SEND)
		assert_true(fx.ev.how == ENG_HOW_NOTHING && fx.ev.token == APF_TOKEN_WAKE_ALL);
	return r == ENG_READY_NONE;
}

/* S8: PF2.8 is cleared with a page outstanding and set again. Is the sleeper released? */
static bool s8_sleeper_is_released(enum apf_rev rev)
{
	struct fx fx;

	fx_init_on(&fx, rev);
	uint32_t ix = fx_sleeper(&fx, 1);
	fx_wrmsr(&fx, APF_MSR_CTL, FX_VECTOR);
	eng_page_ready(&fx.v, ix);
	fx_scan(&fx);
	assert_int_equal(fx.irqs, 0);
	fx_wrmsr(&fx, APF_MSR_CTL, FX_PF2_ON);
	return fx_scan(&fx) == ENG_READY_SEND && fx.irqs == 1;
}

/* Invariant 47: by bit 3 with PF2.8 clear the slot is not filled. */
static bool slot_stays_empty_while_pf2_bit_8_is_clear(enum apf_rev rev)
{
	struct fx fx;

	fx_init(&fx, rev);
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	for (unsigned i = 0; i < 3; i++)
		fx_scan(&fx);
	return fx.area.reason == 0 && fx.v.outstanding == 1;
}

/* S6, vector 0: PF2 = bit 8 alone. (The order of registers stays as it was announced.) */
static bool vector_0_is_never_raised(enum apf_rev rev)
{
	struct fx fx;

	fx_init(&fx, rev);
	fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ);
	fx_wrmsr(&fx, APF_MSR_CTL, APF_PF2_ENABLED);
	fx_scan(&fx);
	return fx.irqs == 0;
}

#define HAZARD(function) \
	static void function##_pf2(void **state) \
	{ \
		(void)state; \
		assert_true(function(APF_REV_PF2)); \
	} \
	static void function##_not_in_pf2_strict(void **state) \
	{ \
		(void)state; \
		assert_false(function(APF_REV_PF2_STRICT)); \
	}

HAZARD(s1_sleeper_is_released)
HAZARD(s3_interrupt_is_queued_with_if_0)
HAZARD(s5_next_event_needs_no_exit)
HAZARD(s7_no_wake_all_is_drained_to_nowhere)
HAZARD(s8_sleeper_is_released)
HAZARD(slot_stays_empty_while_pf2_bit_8_is_clear)
HAZARD(vector_0_is_never_raised)

#define PAIR(function) \
	cmocka_unit_test(function##_pf2), cmocka_unit_test(function##_not_in_pf2_strict)

/* S4 stays in both: one unconsumed page-ready forbids page missing. */
static void s4_unconsumed_ready_forbids_page_missing_in_both(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT};
	struct fx fx;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(revs); i++) {
		fx_init_on(&fx, revs[i]);
		eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
		assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
		assert_int_equal(fx_may(&fx), ENG_SLOT_BUSY);
		fx_consume(&fx);
		assert_int_equal(fx_may(&fx), ENG_MAY_SEND);
	}
}

/* ---- legacy: invariant 48 ---- */

static void legacy_cancel_ends_the_fault_unseen(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_LEGACY);
	uint32_t other = fx_sleeper(&fx, 1), other_token = fx.ev.token;
	uint32_t ix = fx_missing(&fx, 2), token = fx.ev.token;
	/* The other one first: it must wait for the untaken #PF, and not cancel it. */
	eng_page_ready(&fx.v, other);
	assert_int_equal(fx_scan(&fx), ENG_READY_NOT_NOW);
	assert_int_equal(fx.cpu.untaken_token, token);
	fx_take_pf(&fx);
	fx_expect_ready(&fx, other_token);
	eng_page_ready(&fx.v, ix);
	fx_expect_ready(&fx, token);

	ix = fx_missing(&fx, 3);
	assert_int_equal(fx.area.reason, 1);
	eng_page_ready(&fx.v, ix);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.how, ENG_HOW_CANCEL_PF);
	assert_int_equal(fx.area.reason, 0);
	assert_int_equal(fx.cpu.untaken_token, 0);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_int_equal(fx.v.outstanding, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_due_is_none),
		cmocka_unit_test(events_come_in_order_of_completion),
		cmocka_unit_test(int_each_free_slot_takes_the_next),
		cmocka_unit_test(int_acknowledge_before_clear_is_not_lost),
		cmocka_unit_test(wake_all_comes_after_what_was_ready_and_covers_the_rest),
		cmocka_unit_test(second_wake_all_request_moves_it_back),
		cmocka_unit_test(fault_announced_before_the_wake_all_is_written_is_covered),
		cmocka_unit_test(strict_wake_all_covers_nobody),
		cmocka_unit_test(wake_all_that_is_dropped_covers_nobody),
		cmocka_unit_test(held_events_come_when_the_area_is_back),
		cmocka_unit_test(int_enabled_before_the_vector_waits_for_it),
		PAIR(s1_sleeper_is_released),
		PAIR(s3_interrupt_is_queued_with_if_0),
		PAIR(s5_next_event_needs_no_exit),
		PAIR(s7_no_wake_all_is_drained_to_nowhere),
		PAIR(s8_sleeper_is_released),
		PAIR(slot_stays_empty_while_pf2_bit_8_is_clear),
		PAIR(vector_0_is_never_raised),
		cmocka_unit_test(s4_unconsumed_ready_forbids_page_missing_in_both),
		cmocka_unit_test(legacy_cancel_ends_the_fault_unseen),
	};
	int failed = FX_RUN_ROWS(gate_rows, run_gate_row);

	failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed != 0;
}
