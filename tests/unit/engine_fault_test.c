/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/engine/fault.c: may "page missing" be sent (docs/engine.md, "Page missing"), what it
 * looks like on the wire, the tokens, and the life of an entry. Invariants 1-5, 8, 9, 11,
 * 14-17.
 */
#include "engine_fixture.h"

struct verdict_row {
	const char *name;
	enum apf_rev rev;
	uint64_t en; /* flags beyond what enables; bit 3 is set unless by_pf */
	enum eng_verdict want;
	bool by_pf; /* pf2: EN bit 3 clear */
	bool off, no_lapic, pending, irqs_off, shadow, kernel, nested, no_paging, hidden;
	bool area_lost;
	uint32_t untaken, reason, token;
};

#define ROW(id, r, w, ...) {.name = #id, .rev = APF_REV_##r, .want = ENG_##w, __VA_ARGS__}
#define ALWAYS APF_EN_SEND_ALWAYS

static const struct verdict_row verdict_rows[] = {
	/* 2.3, first match */
	ROW(int_no_lapic, INT, NO_LAPIC, .no_lapic = true),
	ROW(int_no_lapic_comes_before_pending, INT, NO_LAPIC, .no_lapic = true, .pending = true),
	ROW(int_exception_pending_or_reinjection, INT, EVENT_PENDING, .pending = true),
	ROW(int_own_pf_not_taken_yet, INT, EVENT_PENDING, .untaken = 0x9005),
	ROW(int_pending_comes_before_irqs_off, INT, EVENT_PENDING, .pending = true,
	    .irqs_off = true),
	ROW(int_if_0, INT, IRQS_OFF, .irqs_off = true),
	ROW(int_shadow, INT, IRQS_OFF, .shadow = true),
	ROW(int_if_0_comes_before_cpl, INT, IRQS_OFF, .irqs_off = true, .kernel = true),
	ROW(int_all_clear, INT, MAY_SEND),
	ROW(pf2_no_lapic, PF2, NO_LAPIC, .no_lapic = true),
	ROW(pf2_pending, PF2, EVENT_PENDING, .pending = true),
	ROW(pf2_if_0, PF2, IRQS_OFF, .irqs_off = true),
	ROW(pf2_shadow, PF2, IRQS_OFF, .shadow = true),
	ROW(pf2_all_clear, PF2, MAY_SEND),
	ROW(strict_pending, PF2_STRICT, EVENT_PENDING, .untaken = 0x9005),
	ROW(strict_if_0, PF2_STRICT, IRQS_OFF, .irqs_off = true),
	ROW(legacy_no_lapic, LEGACY, NO_LAPIC, .no_lapic = true),
	ROW(legacy_pending, LEGACY, EVENT_PENDING, .pending = true),
	ROW(legacy_if_0, LEGACY, IRQS_OFF, .irqs_off = true),
	ROW(legacy_all_clear, LEGACY, MAY_SEND),
	/* 2.4 */
	ROW(int_not_enabled, INT, NOT_ENABLED, .off = true),
	ROW(int_en_0_without_en_3_is_not_enabled, INT, NOT_ENABLED, .by_pf = true),
	ROW(int_not_enabled_comes_first, INT, NOT_ENABLED, .off = true, .no_lapic = true),
	ROW(int_cpl_0, INT, KERNEL_MODE, .kernel = true),
	ROW(int_cpl_0_with_send_always, INT, MAY_SEND, .kernel = true, .en = ALWAYS),
	ROW(int_hidden_registers_count_as_cpl_0, INT, KERNEL_MODE, .hidden = true),
	ROW(int_hidden_registers_with_send_always, INT, MAY_SEND, .hidden = true, .en = ALWAYS),
	ROW(int_l2_without_pf_vmexit, INT, NESTED, .nested = true),
	ROW(int_l2_with_pf_vmexit, INT, MAY_SEND, .nested = true, .en = APF_EN_PF_VMEXIT),
	ROW(int_l2_with_pf_vmexit_does_not_ask_for_paging, INT, MAY_SEND, .nested = true,
	    .no_paging = true, .en = APF_EN_PF_VMEXIT),
	ROW(int_pg_0, INT, NO_PAGING, .no_paging = true),
	ROW(int_cpl_comes_before_pg, INT, KERNEL_MODE, .kernel = true, .no_paging = true),
	ROW(pf2_bit_0_alone_is_enabled, PF2, MAY_SEND, .by_pf = true),
	ROW(pf2_not_enabled, PF2, NOT_ENABLED, .off = true),
	ROW(pf2_cpl_0, PF2, KERNEL_MODE, .kernel = true),
	ROW(pf2_cpl_0_with_send_always, PF2, MAY_SEND, .kernel = true, .en = ALWAYS),
	ROW(pf2_l2_without_pf_vmexit, PF2, NESTED, .nested = true),
	ROW(pf2_pg_0, PF2, NO_PAGING, .no_paging = true),
	ROW(pf2_hidden_registers, PF2, KERNEL_MODE, .hidden = true),
	ROW(strict_has_no_pg_test, PF2_STRICT, MAY_SEND, .no_paging = true),
	ROW(strict_has_no_hidden_register_test, PF2_STRICT, MAY_SEND, .hidden = true),
	ROW(strict_cpl_0, PF2_STRICT, KERNEL_MODE, .kernel = true),
	ROW(legacy_not_enabled, LEGACY, NOT_ENABLED, .off = true),
	ROW(legacy_has_no_pg_test, LEGACY, MAY_SEND, .no_paging = true),
	ROW(legacy_has_no_hidden_register_test, LEGACY, MAY_SEND, .hidden = true),
	ROW(legacy_cpl_0, LEGACY, KERNEL_MODE, .kernel = true),
	ROW(legacy_cpl_0_with_send_always, LEGACY, MAY_SEND, .kernel = true, .en = ALWAYS),
	ROW(legacy_l2_without_pf_vmexit, LEGACY, NESTED, .nested = true),
	ROW(legacy_l2_with_pf_vmexit, LEGACY, MAY_SEND, .nested = true, .en = APF_EN_PF_VMEXIT),
	/* The slot: invariants 1, 8, 11. */
	ROW(int_flags_set_is_an_unconsumed_event, INT, SLOT_BUSY, .reason = 1),
	ROW(int_any_flag_counts, INT, SLOT_BUSY, .reason = 0x80000000),
	ROW(int_a_token_in_the_slot_does_not_gate_page_missing, INT, MAY_SEND, .token = 0x9005),
	ROW(int_area_unreadable, INT, AREA_LOST, .area_lost = true),
	ROW(pf2_bit_3_reason_missing, PF2, SLOT_BUSY, .reason = 1),
	ROW(pf2_bit_3_reason_ready, PF2, SLOT_BUSY, .reason = 2, .token = 0x9005),
	ROW(pf2_bit_3_token_alone_is_free, PF2, MAY_SEND, .token = 0x9005),
	ROW(pf2_bit_3_clear_has_no_slot_test, PF2, MAY_SEND, .by_pf = true, .reason = 2),
	ROW(pf2_area_unreadable, PF2, AREA_LOST, .area_lost = true),
	ROW(strict_bit_3_reason_ready, PF2_STRICT, SLOT_BUSY, .reason = 2),
	ROW(strict_bit_3_clear_has_no_slot_test, PF2_STRICT, MAY_SEND, .by_pf = true, .reason = 2),
	ROW(legacy_has_no_slot_test, LEGACY, MAY_SEND, .reason = 1),
	ROW(legacy_area_unreadable, LEGACY, AREA_LOST, .area_lost = true),
	ROW(cpl_comes_before_slot, INT, KERNEL_MODE, .kernel = true, .reason = 1),
	ROW(off_is_not_enabled, OFF, NOT_ENABLED),
};

static void set_up(struct fx *fx, const struct verdict_row *row)
{
	fx_init(fx, row->rev);
	fx->v.cfg.has_lapic = !row->no_lapic;
	fx->v.en = FX_GPA | row->en | (row->off ? 0 : APF_EN_ENABLED);
	if (row->rev != APF_REV_LEGACY && !row->by_pf)
		fx->v.en |= APF_EN_INT;
	fx->v.ctl = FX_VECTOR;
	fx->cpu = (struct cpu_state){
		.cpl = row->kernel ? 0 : 3,
		.interrupts_on = !row->irqs_off,
		.shadow = row->shadow,
		.event_pending = row->pending,
		.paging = !row->no_paging,
		.nested = row->nested,
		.protected_state = row->hidden,
		.untaken_token = row->untaken,
	};
	fx->area.reason = row->reason;
	fx->area.token = row->token;
	fx->area_lost = row->area_lost;
}

/* The answer, and that asking changed nothing (invariant 14). */
static void run_verdict_row(void **state)
{
	struct fx fx;
	struct fx_state before;
	struct apf_area area;

	set_up(&fx, *state);
	fx_keep(&fx, &before);
	area = fx.area;
	assert_int_equal(fx_may(&fx), ((const struct verdict_row *)*state)->want);
	assert_true(fx_same(&fx, &before));
	assert_memory_equal(&area, &fx.area, sizeof(area));
}

/* Tables 2.3 and 2.4 and the slot rules, read a second time. */
static enum eng_verdict oracle(const struct verdict_row *r, bool wake_all_in_slot)
{
	bool enabled = !r->off && r->rev != APF_REV_OFF && !(r->rev == APF_REV_INT && r->by_pf);
	bool has_pg_test = r->rev == APF_REV_INT || r->rev == APF_REV_PF2;
	bool cpl_ok = (r->en & 2) || (!r->kernel && !(has_pg_test && r->hidden));

	if (!enabled)
		return ENG_NOT_ENABLED;
	if (r->no_lapic)
		return ENG_NO_LAPIC;
	if (r->pending || r->untaken)
		return ENG_EVENT_PENDING;
	if (r->irqs_off || r->shadow)
		return ENG_IRQS_OFF;
	if (!cpl_ok)
		return ENG_KERNEL_MODE;
	if (r->nested && !(r->en & 4))
		return ENG_NESTED;
	if (!r->nested && has_pg_test && r->no_paging)
		return ENG_NO_PAGING;
	if (r->area_lost)
		return ENG_AREA_LOST;
	if (fx_is_pf2(r->rev) && !r->by_pf && r->reason)
		return ENG_SLOT_BUSY;
	if (r->rev == APF_REV_INT &&
	    (r->reason || (wake_all_in_slot && r->token == APF_TOKEN_WAKE_ALL)))
		return ENG_SLOT_BUSY;
	return ENG_MAY_SEND;
}

static void every_combination_of_conditions(void **state)
{
	static const uint32_t words[] = {0, 1, 2, APF_TOKEN_WAKE_ALL};
	struct fx fx;

	(void)state;
	for (unsigned i = 0; i < 5u << 18; i++) {
		struct verdict_row r = {
			.rev = (enum apf_rev)(i >> 18),
			.en = (i & 3) << 1,
			.by_pf = i & 4,
			.off = i & 8,
			.no_lapic = i & 0x10,
			.pending = i & 0x20,
			.irqs_off = i & 0x40,
			.shadow = i & 0x80,
			.kernel = i & 0x100,
			.nested = i & 0x200,
			.no_paging = i & 0x400,
			.hidden = i & 0x800,
			.area_lost = i & 0x1000,
			.untaken = i & 0x2000 ? 0x9005 : 0,
			.reason = words[i >> 14 & 1],
			.token = words[i >> 15 & 3],
		};

		if (r.rev == APF_REV_LEGACY)
			r.by_pf = true; /* bit 3 is reserved there */
		set_up(&fx, &r);
		fx.v.wake_all_in_slot = i & 0x20000;
		assert_int_equal(fx_may(&fx), oracle(&r, i & 0x20000));
	}
}

static void verdict_names_are_distinct_words(void **state)
{
	(void)state;
	for (int a = 0; a < ENG_VERDICTS; a++) {
		const char *name = eng_verdict_name((enum eng_verdict)a);

		assert_non_null(name);
		assert_true(strlen(name) > 3 && strchr(name, ' ') == NULL);
		for (int b = 0; b < a; b++)
			assert_string_not_equal(name, eng_verdict_name((enum eng_verdict)b));
	}
	assert_string_equal(eng_verdict_name(ENG_VERDICTS), "?");
}

/* ---- on the wire ---- */

static void page_missing_on_the_wire(void **state)
{
	struct fx fx;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		fx_init_on(&fx, (enum apf_rev)rev);
		fx.area.token = 0x77777777;
		uint32_t ix = fx_missing(&fx, 0xabcdef);

		/* #PF with CR2 = token in every revision. */
		assert_int_equal(fx.ev.how, ENG_HOW_PF);
		assert_int_equal(fx.ev.token, fx.v.faults[ix].token);
		assert_int_equal(fx.v.faults[ix].gfn, 0xabcdef);
		assert_int_equal(fx.ev.store.off, 0);
		assert_int_equal(fx.area.reason, APF_REASON_MISSING);
		/* pf2: one store of both words. Otherwise the token word is not touched. */
		assert_int_equal(fx.ev.store.len, fx_is_pf2(rev) ? 8 : 4);
		assert_int_equal(fx.area.token, fx_is_pf2(rev) ? fx.ev.token : 0x77777777);
	}
}

/* ---- tokens ---- */

static uint32_t issue(struct fx *fx, uint32_t *ret_ix)
{
	struct eng_event ev;

	*ret_ix = eng_send_missing(&fx->v, (gfn_t){1}, &ev);
	return ev.token;
}

static void retire(struct fx *fx, uint32_t ix)
{
	struct eng_event ev;

	assert_true(eng_page_ready(&fx->v, ix));
	assert_int_equal(fx_peek(fx, &ev), ENG_READY_SEND);
	eng_ready_sent(&fx->v, &ev);
}

static void init_vcpu(struct fx *fx, uint32_t vcpu_id)
{
	struct eng_cfg cfg = {
		.rev = APF_REV_INT,
		.vcpu_id = vcpu_id,
		.features = eng_features(APF_REV_INT),
		.has_lapic = true,
		.faults_max = 8,
	};

	fx_init_cfg(fx, &cfg);
	fx_enable_en(fx, FX_EN_IRQ);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
}

static void token_is_id_then_vcpu(void **state)
{
	static const uint32_t vcpus[] = {0, 1, 5, 0x800, 4095};
	struct fx fx;
	uint32_t ix;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(vcpus); i++) {
		init_vcpu(&fx, vcpus[i]);
		for (uint32_t id = 1; id <= 8; id++)
			assert_int_equal(issue(&fx, &ix), id << 12 | vcpus[i]);
	}
}

/* A whole round of ids: each once, 0 and the wake-all never, then the round begins again. */
static void check_round(uint32_t vcpu_id, uint32_t last_id)
{
	struct fx fx;
	uint32_t ix;

	init_vcpu(&fx, vcpu_id);
	for (uint32_t id = 1; id <= last_id; id++) {
		uint32_t token = issue(&fx, &ix);

		assert_int_equal(token, id << 12 | vcpu_id);
		assert_int_not_equal(token, APF_TOKEN_WAKE_ALL);
		retire(&fx, ix);
	}
	assert_int_equal(issue(&fx, &ix), 1u << 12 | vcpu_id);
	fx_assert_sound(&fx);
}

static void id_wraps_at_2_to_20_and_skips_0(void **state)
{
	(void)state;
	check_round(0, 0xfffff);
}

static void vcpu_4095_skips_the_broadcast_value(void **state)
{
	(void)state;
	check_round(4095, 0xffffe);
}

static void wrapped_id_skips_outstanding_tokens(void **state)
{
	struct fx fx;
	uint32_t held[3], ix;

	(void)state;
	init_vcpu(&fx, 0);
	issue(&fx, &ix); /* 1 */
	retire(&fx, ix);
	issue(&fx, &held[0]); /* 2 */
	issue(&fx, &held[1]); /* 3 */
	issue(&fx, &ix); /* 4 */
	retire(&fx, ix);
	issue(&fx, &ix); /* 5: sent last */
	retire(&fx, ix);
	issue(&fx, &held[2]); /* 6 */
	fx.v.next_id = 0; /* as after 0xfffff */
	assert_int_equal(issue(&fx, &ix), 1u << 12);
	assert_int_equal(issue(&fx, &ix), 4u << 12);
	assert_int_equal(issue(&fx, &ix), 7u << 12);
	fx_assert_sound(&fx);
}

/* The two exceptions to "the next id" meet: broadcast, 0, and an outstanding 1. */
static void wrapped_id_skips_broadcast_zero_and_outstanding_together(void **state)
{
	struct fx fx;
	uint32_t ix;

	(void)state;
	init_vcpu(&fx, 4095);
	assert_int_equal(issue(&fx, &ix), 1u << 12 | 4095);
	fx.v.next_id = 0xffffe;
	assert_int_equal(issue(&fx, &ix), 0xffffeu << 12 | 4095);
	assert_int_equal(issue(&fx, &ix), 2u << 12 | 4095);
	fx_assert_sound(&fx);
}

static void wrapped_id_skips_retired_tokens(void **state)
{
	struct fx fx;
	uint32_t ix;

	(void)state;
	init_vcpu(&fx, 0);
	issue(&fx, &ix);
	eng_reset(&fx.v);
	fx_enable_en(&fx, FX_EN_IRQ);
	fx.v.next_id = 0;
	assert_int_equal(issue(&fx, &ix), 2u << 12);
}

/* Page ready is in the slot, its fault forgotten, its sleeper not yet awake (docs/model.md). */
static void wrapped_id_skips_the_token_that_was_sent_last(void **state)
{
	struct fx fx;
	uint32_t ix;

	(void)state;
	init_vcpu(&fx, 0);
	assert_int_equal(issue(&fx, &ix), 1u << 12);
	assert_true(eng_page_ready(&fx.v, ix));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.token, 1u << 12);
	fx.v.next_id = 0;
	assert_int_equal(issue(&fx, &ix), 2u << 12);
	assert_true(eng_page_ready(&fx.v, ix));
	fx_consume(&fx);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	fx.v.next_id = 0;
	assert_int_equal(issue(&fx, &ix), 1u << 12);
	fx_assert_sound(&fx);
}

static void id_survives_disable_and_reset(void **state)
{
	struct fx fx;
	uint32_t ix;

	(void)state;
	init_vcpu(&fx, 0);
	assert_int_equal(issue(&fx, &ix), 1u << 12);
	fx_wrmsr(&fx, APF_MSR_EN, 0);
	fx_enable_en(&fx, FX_EN_IRQ);
	assert_int_equal(issue(&fx, &ix), 2u << 12);
	eng_reset(&fx.v);
	fx_enable_en(&fx, FX_EN_IRQ);
	assert_int_equal(issue(&fx, &ix), 3u << 12);
}

/* ---- the pool ---- */

static void check_limit(uint32_t faults_max)
{
	struct eng_cfg cfg = {
		.rev = APF_REV_INT,
		.vcpu_id = 0,
		.features = eng_features(APF_REV_INT),
		.has_lapic = true,
		.faults_max = faults_max,
	};
	struct fx fx;
	uint32_t first = 0, ix;

	fx_init_cfg(&fx, &cfg);
	fx_enable_en(&fx, FX_EN_IRQ);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	for (uint32_t i = 0; i < faults_max; i++) {
		ix = fx_sleeper(&fx, i);
		assert_true(ix < faults_max);
		if (i == 0)
			first = ix;
	}
	assert_int_equal(fx.v.outstanding, faults_max);
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	fx_assert_sound(&fx);
	/* READY still counts: the guest has not been told. */
	assert_true(eng_page_ready(&fx.v, first));
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx_may(&fx), ENG_MAY_SEND);
	assert_int_equal(fx_sleeper(&fx, 99), first);
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	/* RETIRED counts: its fetch is still running. */
	fx_wrmsr(&fx, APF_MSR_EN, 0);
	fx_enable_en(&fx, FX_EN_IRQ);
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	assert_false(eng_page_ready(&fx.v, first));
	assert_int_equal(fx_may(&fx), ENG_MAY_SEND);
	fx_assert_sound(&fx);
}

static void faults_max_outstanding_and_no_more(void **state)
{
	(void)state;
	check_limit(1);
	check_limit(2);
	check_limit(64);
}

static void two_tasks_on_one_gfn_get_a_token_each(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	uint32_t a = fx_sleeper(&fx, 7), ta = fx.ev.token;
	uint32_t b = fx_sleeper(&fx, 7), tb = fx.ev.token;
	assert_int_not_equal(ta, tb);
	assert_true(eng_page_ready(&fx.v, a));
	assert_true(eng_page_ready(&fx.v, b));
	fx_expect_ready(&fx, ta);
	fx_expect_ready(&fx, tb);
}

static void life_of_a_fault(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	uint32_t ix = fx_sleeper(&fx, 1);
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_WAITING);
	assert_true(eng_page_ready(&fx.v, ix));
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_READY);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_FREE);
	assert_int_equal(fx.v.outstanding, 0);
	fx_consume(&fx);
	ix = fx_sleeper(&fx, 2);
	fx_wrmsr(&fx, APF_MSR_EN, 0);
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_RETIRED);
	assert_false(eng_page_ready(&fx.v, ix));
	assert_int_equal(fx.v.faults[ix].state, ENG_FAULT_FREE);
}

/* The entry of a fetch that still runs is never handed out, whatever happens to the guest. */
static void retired_entry_is_not_reused_before_its_page(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	uint32_t old = fx_sleeper(&fx, 1);
	eng_reset(&fx.v);
	fx_enable_en(&fx, FX_EN_IRQ);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	for (unsigned i = 0; i < 15; i++)
		assert_int_not_equal(fx_sleeper(&fx, 2 + i), old);
	assert_int_equal(fx_may(&fx), ENG_TOO_MANY);
	assert_false(eng_page_ready(&fx.v, old)); /* late: frees, tells nobody */
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_int_equal(fx_sleeper(&fx, 40), old);
}

static void waiting_faults_in_issue_order(void **state)
{
	struct fx fx;
	uint32_t ix[5];

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	assert_int_equal(eng_first_waiting(&fx.v), ENG_NIL);
	for (unsigned i = 0; i < 5; i++)
		ix[i] = fx_sleeper(&fx, i);
	eng_page_ready(&fx.v, ix[0]);
	eng_page_ready(&fx.v, ix[3]);
	assert_int_equal(eng_first_waiting(&fx.v), ix[1]);
	assert_int_equal(eng_next_waiting(&fx.v, ix[1]), ix[2]);
	assert_int_equal(eng_next_waiting(&fx.v, ix[2]), ix[4]);
	assert_int_equal(eng_next_waiting(&fx.v, ix[4]), ENG_NIL);
}

/* After a wake-all has been written: no new sleeper until the guest has taken it (int). */
static void int_wake_all_in_the_slot_holds_page_missing_back(void **state)
{
	struct fx fx;

	(void)state;
	fx_init(&fx, APF_REV_INT);
	fx_enable_en(&fx, FX_EN_IRQ);
	assert_int_equal(fx_may(&fx), ENG_MAY_SEND); /* due, but not on its way yet */
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.area.token, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx_may(&fx), ENG_SLOT_BUSY);
	fx_consume(&fx);
	assert_int_equal(fx_may(&fx), ENG_MAY_SEND);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_false(fx.v.wake_all_in_slot); /* the freed slot was noticed */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_combination_of_conditions),
		cmocka_unit_test(verdict_names_are_distinct_words),
		cmocka_unit_test(page_missing_on_the_wire),
		cmocka_unit_test(token_is_id_then_vcpu),
		cmocka_unit_test(id_wraps_at_2_to_20_and_skips_0),
		cmocka_unit_test(vcpu_4095_skips_the_broadcast_value),
		cmocka_unit_test(wrapped_id_skips_outstanding_tokens),
		cmocka_unit_test(wrapped_id_skips_the_token_that_was_sent_last),
		cmocka_unit_test(wrapped_id_skips_broadcast_zero_and_outstanding_together),
		cmocka_unit_test(wrapped_id_skips_retired_tokens),
		cmocka_unit_test(id_survives_disable_and_reset),
		cmocka_unit_test(faults_max_outstanding_and_no_more),
		cmocka_unit_test(two_tasks_on_one_gfn_get_a_token_each),
		cmocka_unit_test(life_of_a_fault),
		cmocka_unit_test(retired_entry_is_not_reused_before_its_page),
		cmocka_unit_test(waiting_faults_in_issue_order),
		cmocka_unit_test(int_wake_all_in_the_slot_holds_page_missing_back),
	};
	int failed = FX_RUN_ROWS(verdict_rows, run_verdict_row);

	failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed != 0;
}
