/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/engine/msr.c: each row of the register tables (docs/engine.md, "Registers"), then
 * every combination of switches against a second reading of the same tables, then what
 * an accepted write sets off. Invariants 20-25.
 */
#include "engine_fixture.h"

#define ALL_FEATURES (APF_CPUID_ASYNC_PF | APF_CPUID_ASYNC_PF_VMEXIT | APF_CPUID_ASYNC_PF_INT)
#define GP ENG_WRMSR_GP
#define OK ENG_WRMSR_OK
#define ENABLED ENG_WRMSR_ENABLED
#define RESCAN ENG_WRMSR_RESCAN
#define VMEXIT APF_EN_PF_VMEXIT

struct write_row {
	const char *name;
	enum apf_rev rev;
	uint32_t msr;
	uint64_t value;
	enum eng_wrmsr want;
	uint32_t withheld; /* features not offered, out of all */
	bool no_lapic;
	bool bad_area;
	bool stored_anyway; /* pf2-strict: #GP, and yet the value is there */
};

#define ROW(id, r, m, val, w, ...) \
	{.name = #id, .rev = APF_REV_##r, .msr = APF_MSR_##m, .value = (val), .want = (w), \
	 __VA_ARGS__}

static const struct write_row write_rows[] = {
	/* EN, int: the conditions in their order. */
	ROW(int_en_feature_4_not_offered_is_gp, INT, EN, 0, GP, .withheld = APF_CPUID_ASYNC_PF),
	ROW(int_en_bit_4_is_gp, INT, EN, FX_EN_IRQ | 1 << 4, GP),
	ROW(int_en_bit_5_is_gp, INT, EN, FX_EN_IRQ | 1 << 5, GP),
	ROW(int_en_bit_5_alone_is_gp, INT, EN, 1 << 5, GP),
	ROW(int_en_bit_2_without_feature_10_is_gp, INT, EN, FX_EN_IRQ | VMEXIT, GP,
	    .withheld = APF_CPUID_ASYNC_PF_VMEXIT),
	ROW(int_en_bit_2_with_feature_10, INT, EN, FX_EN_IRQ | VMEXIT, ENABLED),
	ROW(int_en_bit_3_without_feature_14_is_gp, INT, EN, FX_EN_IRQ, GP,
	    .withheld = APF_CPUID_ASYNC_PF_INT),
	ROW(int_en_bit_3_alone_without_feature_14_is_gp, INT, EN, APF_EN_INT, GP,
	    .withheld = APF_CPUID_ASYNC_PF_INT),
	ROW(int_en_nonzero_without_lapic_is_gp, INT, EN, FX_EN_IRQ, GP, .no_lapic = true),
	ROW(int_en_address_alone_without_lapic_is_gp, INT, EN, FX_GPA, GP, .no_lapic = true),
	ROW(int_en_0_without_lapic, INT, EN, 0, OK, .no_lapic = true),
	ROW(int_en_0, INT, EN, 0, OK),
	ROW(int_en_bit_0_without_bit_3_is_stored, INT, EN, FX_EN_PF, OK),
	ROW(int_en_bit_3_without_bit_0_is_stored, INT, EN, FX_GPA | APF_EN_INT, OK),
	ROW(int_en_off_does_not_look_at_the_area, INT, EN, FX_EN_PF, OK, .bad_area = true),
	ROW(int_en_both_bits_area_not_mappable_is_gp, INT, EN, FX_EN_IRQ, GP, .bad_area = true),
	ROW(int_en_both_bits, INT, EN, FX_EN_IRQ, ENABLED),
	ROW(int_en_all_defined_bits, INT, EN, FX_GPA | 0xf, ENABLED),
	ROW(int_en_highest_address, INT, EN, ~0ull << 6 | 9, ENABLED),
	/* INT */
	ROW(int_ctl_feature_14_not_offered_is_gp, INT, CTL, FX_VECTOR, GP,
	    .withheld = APF_CPUID_ASYNC_PF_INT),
	ROW(int_ctl_bit_8_is_gp, INT, CTL, 0x1f3, GP),
	ROW(int_ctl_bit_63_is_gp, INT, CTL, 1ull << 63 | FX_VECTOR, GP),
	ROW(int_ctl_without_lapic_is_gp, INT, CTL, FX_VECTOR, GP, .no_lapic = true),
	ROW(int_ctl_vector, INT, CTL, FX_VECTOR, RESCAN),
	ROW(int_ctl_vector_255, INT, CTL, 0xff, RESCAN),
	ROW(int_ctl_vector_below_16_is_stored, INT, CTL, 15, RESCAN),
	/* ACK; it reads 0 whatever was written, see the readback test. */
	ROW(int_ack_feature_14_not_offered_is_gp, INT, ACK, 1, GP,
	    .withheld = APF_CPUID_ASYNC_PF_INT),
	ROW(int_ack_bit_0, INT, ACK, 1, RESCAN),
	ROW(int_ack_upper_bits_are_ignored, INT, ACK, ~0ull, RESCAN),
	ROW(int_ack_bit_0_clear_is_a_no_op, INT, ACK, ~1ull, OK),
	/* EN, pf2: reserved bits, store, then bit 0, then the area. */
	ROW(pf2_en_feature_4_not_offered_is_gp, PF2, EN, 0, GP, .withheld = APF_CPUID_ASYNC_PF),
	ROW(pf2_en_bit_4_is_gp, PF2, EN, FX_EN_IRQ | 1 << 4, GP),
	ROW(pf2_en_bit_5_is_gp, PF2, EN, FX_EN_IRQ | 1 << 5, GP),
	ROW(pf2_en_bit_3, PF2, EN, FX_EN_IRQ, ENABLED),
	ROW(pf2_en_bit_3_needs_no_feature_14, PF2, EN, FX_EN_IRQ, ENABLED,
	    .withheld = APF_CPUID_ASYNC_PF_INT),
	ROW(pf2_en_bit_2_needs_no_feature_10, PF2, EN, FX_EN_IRQ | VMEXIT, ENABLED,
	    .withheld = APF_CPUID_ASYNC_PF_VMEXIT),
	ROW(pf2_en_bit_3_clear_enables_by_pf, PF2, EN, FX_EN_PF, ENABLED),
	ROW(pf2_en_without_lapic, PF2, EN, FX_EN_IRQ, ENABLED, .no_lapic = true),
	ROW(pf2_en_bit_0_clear_is_stored, PF2, EN, FX_GPA | APF_EN_INT, OK),
	ROW(pf2_en_off_does_not_look_at_the_area, PF2, EN, FX_GPA, OK, .bad_area = true),
	ROW(pf2_en_area_not_mappable_is_gp, PF2, EN, FX_EN_IRQ, GP, .bad_area = true),
	ROW(pf2_strict_en_area_not_mappable_is_gp_but_stored, PF2_STRICT, EN, FX_EN_IRQ, GP,
	    .bad_area = true, .stored_anyway = true),
	/* PF2 */
	ROW(pf2_ctl_bit_9_is_gp, PF2, CTL, 1 << 9 | FX_PF2_ON, GP),
	ROW(pf2_ctl_bit_63_is_gp, PF2, CTL, 1ull << 63, GP),
	ROW(pf2_ctl_without_lapic_is_gp, PF2, CTL, FX_PF2_ON, GP, .no_lapic = true),
	ROW(pf2_ctl_0_without_lapic_is_gp, PF2, CTL, 0, GP, .no_lapic = true),
	ROW(pf2_ctl_bit_8, PF2, CTL, FX_PF2_ON, RESCAN),
	ROW(pf2_ctl_all_defined_bits, PF2, CTL, 0x1ff, RESCAN),
	ROW(pf2_ctl_bit_8_clear, PF2, CTL, FX_VECTOR, RESCAN),
	ROW(pf2_ctl_needs_no_feature, PF2, CTL, FX_PF2_ON, RESCAN, .withheld = ALL_FEATURES),
	ROW(pf2_has_no_ack, PF2, ACK, 1, GP),
	ROW(pf2_strict_has_no_ack, PF2_STRICT, ACK, 1, GP),
	/* EN, legacy */
	ROW(legacy_en_feature_4_not_offered_is_gp, LEGACY, EN, 0, GP,
	    .withheld = APF_CPUID_ASYNC_PF),
	ROW(legacy_en_bit_3_is_gp, LEGACY, EN, FX_EN_IRQ, GP),
	ROW(legacy_en_bit_4_is_gp, LEGACY, EN, FX_EN_PF | 1 << 4, GP),
	ROW(legacy_en_bit_5_is_gp, LEGACY, EN, FX_EN_PF | 1 << 5, GP),
	ROW(legacy_en_bit_0, LEGACY, EN, FX_EN_PF, ENABLED),
	ROW(legacy_en_all_defined_bits, LEGACY, EN, FX_GPA | 7, ENABLED),
	ROW(legacy_en_bit_0_clear_is_stored, LEGACY, EN, FX_GPA, OK),
	ROW(legacy_en_area_not_mappable_is_gp, LEGACY, EN, FX_EN_PF, GP, .bad_area = true),
	ROW(legacy_en_without_lapic, LEGACY, EN, FX_EN_PF, ENABLED, .no_lapic = true),
	ROW(legacy_has_no_ctl, LEGACY, CTL, FX_VECTOR, GP),
	ROW(legacy_has_no_ack, LEGACY, ACK, 1, GP),
	/* off */
	ROW(off_has_no_en, OFF, EN, 0, GP),
	ROW(off_has_no_ctl, OFF, CTL, 0, GP),
	ROW(off_has_no_ack, OFF, ACK, 0, GP),
};

static bool is_readable(enum apf_rev rev, uint32_t msr, uint32_t features)
{
	switch (msr) {
	case APF_MSR_EN:
		return rev != APF_REV_OFF && (features & APF_CPUID_ASYNC_PF);
	case APF_MSR_CTL:
		return fx_is_pf2(rev) ||
		       (rev == APF_REV_INT && (features & APF_CPUID_ASYNC_PF_INT));
	default:
		return rev == APF_REV_INT && (features & APF_CPUID_ASYNC_PF_INT);
	}
}

/* One write to a fresh vCPU: the answer, what reads back, and nothing at all after #GP. */
static void check_write(const struct write_row *row)
{
	struct eng_cfg cfg = {
		.rev = row->rev,
		.vcpu_id = FX_VCPU,
		.features = ALL_FEATURES & ~row->withheld,
		.has_lapic = !row->no_lapic,
		.faults_max = 4,
	};
	struct eng_wrmsr_in in = {
		.msr = row->msr, .value = row->value, .area_ok = !row->bad_area};
	struct fx fx;
	struct fx_state before;
	uint64_t value = 0x5555, want = 0;

	fx_init_cfg(&fx, &cfg);
	fx_keep(&fx, &before);
	assert_int_equal(eng_wrmsr(&fx.v, &in), row->want);
	if (row->want == GP && !row->stored_anyway)
		assert_true(fx_same(&fx, &before));
	if ((row->want != GP || row->stored_anyway) && row->msr != APF_MSR_ACK)
		want = row->value;
	bool readable = is_readable(row->rev, row->msr, cfg.features);
	assert_int_equal(eng_rdmsr(&fx.v, row->msr, &value), readable);
	assert_int_equal(value, readable ? want : 0x5555);
	fx_assert_sound(&fx);
}

static void run_write_row(void **state)
{
	check_write(*state);
}

/* The table once more, as one expression per condition. */
static enum eng_wrmsr en_oracle(const struct write_row *r)
{
	bool b0 = r->value & 1, b2 = r->value & 4, b3 = r->value & 8, b45 = r->value & 0x30;
	bool has4 = !(r->withheld & 1u << 4), has10 = !(r->withheld & 1u << 10);
	bool has14 = !(r->withheld & 1u << 14);
	bool want_on = r->rev == APF_REV_INT ? b0 && b3 : b0;

	if (r->rev == APF_REV_OFF || !has4 || b45 || (r->rev == APF_REV_LEGACY && b3))
		return GP;
	if (r->rev == APF_REV_INT &&
	    ((b2 && !has10) || (b3 && !has14) || (r->no_lapic && r->value != 0)))
		return GP;
	if (!want_on)
		return OK;
	return r->bad_area ? GP : ENABLED;
}

static void en_every_combination_of_flags_features_lapic_and_area(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5u << 12; i++) {
		struct write_row r = {
			.rev = (enum apf_rev)(i >> 12),
			.msr = APF_MSR_EN,
			.value = (i & 0x3f) | (i & 0x800 ? FX_GPA : 0),
			.withheld = (i & 0x40 ? APF_CPUID_ASYNC_PF : 0) |
				    (i & 0x80 ? APF_CPUID_ASYNC_PF_VMEXIT : 0) |
				    (i & 0x100 ? APF_CPUID_ASYNC_PF_INT : 0),
			.no_lapic = i & 0x200,
			.bad_area = i & 0x400,
		};

		r.want = en_oracle(&r);
		/* #GP by the area comes last: without the other conditions it is the only cause. */
		r.stored_anyway = r.rev == APF_REV_PF2_STRICT && r.want == GP && r.bad_area &&
				  !(r.value & 0x30) && !(r.withheld & APF_CPUID_ASYNC_PF);
		check_write(&r);
	}
}

static void ctl_every_single_bit(void **state)
{
	(void)state;
	for (int rev = APF_REV_OFF; rev <= APF_REV_INT; rev++)
		for (unsigned bit = 0; bit < 64; bit++) {
			unsigned top = rev == APF_REV_INT ? 7 : fx_is_pf2(rev) ? 8 : 0;
			struct write_row r = {
				.rev = (enum apf_rev)rev,
				.msr = APF_MSR_CTL,
				.value = 1ull << bit,
				.want = top && bit <= top ? RESCAN : GP,
			};

			check_write(&r);
		}
}

static void unknown_msrs_are_gp(void **state)
{
	static const uint32_t msrs[] = {0, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d05,
					0x4b564d08, 0xffffffff};
	struct fx fx;

	(void)state;
	for (int rev = APF_REV_OFF; rev <= APF_REV_INT; rev++)
		for (size_t i = 0; i < ARRAY_LEN(msrs); i++) {
			uint64_t value;

			fx_init(&fx, (enum apf_rev)rev);
			assert_int_equal(fx_wrmsr(&fx, msrs[i], 1), GP);
			assert_false(eng_rdmsr(&fx.v, msrs[i], &value));
		}
}

static void cpuid_announces_per_revision(void **state)
{
	(void)state;
	assert_int_equal(eng_features(APF_REV_OFF), 0);
	assert_int_equal(eng_features(APF_REV_LEGACY), 1u << 4);
	assert_int_equal(eng_features(APF_REV_PF2), 1u << 4);
	assert_int_equal(eng_features(APF_REV_PF2_STRICT), 1u << 4);
	assert_int_equal(eng_features(APF_REV_INT), 1u << 4 | 1u << 14);
	assert_int_equal(eng_features((enum apf_rev)77), 0);
}

/* "Enabled" means EN.0 in legacy and pf2, EN.0 and EN.3 in int. */
static void enabled_means(void **state)
{
	struct fx fx;

	(void)state;
	for (int rev = APF_REV_OFF; rev <= APF_REV_INT; rev++)
		for (uint64_t en = 0; en < 16; en++) {
			fx_init(&fx, (enum apf_rev)rev);
			fx.v.en = FX_GPA | en;
			bool want = rev == APF_REV_INT ? (en & 9) == 9
						       : rev != APF_REV_OFF && (en & 1);
			assert_int_equal(eng_enabled(&fx.v), want);
			assert_int_equal(eng_area_gpa(fx.v.en).v, FX_GPA);
			assert_int_equal(eng_zeroes_area(&fx.v),
					 rev == APF_REV_PF2 || rev == APF_REV_INT);
		}
}

/* Invariant 21, and 20 on a vCPU that has something to lose. */
static void registers_read_the_last_accepted_value(void **state)
{
	struct fx fx;
	struct fx_state before;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	fx_sleeper(&fx, 1);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 2));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND); /* unacknowledged */
	fx_sleeper(&fx, 3);
	fx_keep(&fx, &before);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ | 0x20), GP);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, 0x10), GP);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_CTL, 0x100), GP);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_ACK, 0), OK);
	struct eng_wrmsr_in in = {.msr = APF_MSR_EN, .value = 0xabc000 | 9};
	assert_int_equal(eng_wrmsr(&fx.v, &in), GP); /* B12: the area is not mappable */
	assert_true(fx_same(&fx, &before));
	assert_int_equal(fx_rdmsr(&fx, APF_MSR_EN), FX_EN_IRQ);
	assert_int_equal(fx_rdmsr(&fx, APF_MSR_CTL), FX_VECTOR);
	assert_int_equal(fx_rdmsr(&fx, APF_MSR_ACK), 0);
}

/* ---- what an accepted write sets off ---- */

/* A waiting, a ready and a retired fault, a token in the slot. */
static void make_busy(struct fx *fx, uint32_t *ret_waiting)
{
	eng_page_ready(&fx->v, fx_sleeper(fx, 1));
	assert_int_equal(fx_scan(fx), ENG_READY_SEND);
	if (fx->ev.how == ENG_HOW_PF)
		fx_take_pf(fx);
	if (!fx_is_pf2(fx->v.cfg.rev) || !(fx->v.en & APF_EN_INT)) {
		*ret_waiting = fx_sleeper(fx, 2);
		eng_page_ready(&fx->v, fx_sleeper(fx, 3));
	} else {
		fx->area.reason = 0;
		*ret_waiting = fx_sleeper(fx, 2);
		eng_page_ready(&fx->v, fx_sleeper(fx, 3));
		assert_int_equal(fx_scan(fx), ENG_READY_SEND);
	}
	assert_true(fx->v.outstanding >= 1);
}

struct off_row {
	const char *name;
	enum apf_rev rev;
	uint64_t en;
};

static const struct off_row off_rows[] = {
	{"int_en_bits_0_and_3_not_both_set_clears_queue_0", APF_REV_INT, 0},
	{"int_en_bits_0_and_3_not_both_set_clears_queue_bit_0", APF_REV_INT, FX_EN_PF},
	{"int_en_bits_0_and_3_not_both_set_clears_queue_bit_3", APF_REV_INT, FX_GPA | 8},
	{"int_en_bits_0_and_3_not_both_set_clears_queue_gpa", APF_REV_INT, FX_GPA | 2},
	{"pf2_en_bit_0_clear_clears_queue_0", APF_REV_PF2, 0},
	{"pf2_en_bit_0_clear_clears_queue_bit_3", APF_REV_PF2, FX_GPA | 8},
	{"pf2_strict_en_bit_0_clear_clears_queue", APF_REV_PF2_STRICT, FX_GPA},
	{"legacy_en_bit_0_clear_clears_queue", APF_REV_LEGACY, FX_GPA | 2},
};

/* Invariants 23, 24: nothing due, nothing sent, the late page finds nobody. */
static void run_off_row(void **state)
{
	const struct off_row *row = *state;
	struct fx fx;
	uint32_t waiting;
	uint64_t ctl = 0;

	fx_init_on(&fx, row->rev);
	make_busy(&fx, &waiting);
	uint32_t next_id = fx.v.next_id;
	eng_rdmsr(&fx.v, APF_MSR_CTL, &ctl);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, row->en), OK);
	assert_int_equal(fx_rdmsr(&fx, APF_MSR_EN), row->en);
	assert_false(eng_enabled(&fx.v));
	assert_false(fx.v.wake_all_due || fx.v.wake_all_in_slot);
	assert_int_equal(fx.v.next_id, next_id);
	assert_int_equal(fx.v.ctl, ctl);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_int_equal(fx_may(&fx), ENG_NOT_ENABLED);
	assert_int_equal(eng_first_waiting(&fx.v), ENG_NIL);
	assert_int_equal(fx.v.outstanding, 1); /* the one whose fetch still runs */
	assert_int_equal(fx.v.faults[waiting].state, ENG_FAULT_RETIRED);
	fx_assert_sound(&fx);
	assert_false(eng_page_ready(&fx.v, waiting));
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	assert_int_equal(fx.v.outstanding, 0);
	fx_assert_sound(&fx);
}

/* Invariant 25: after every enable, also when the ready queue is not empty (B34). */
static void every_enable_sends_a_wake_all(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_INT};
	struct fx fx;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(revs); i++) {
		fx_init_on(&fx, revs[i]);
		eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
		uint32_t first = fx.ev.token;
		assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, fx.v.en), ENABLED);
		fx_expect_ready(&fx, first);
		fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, 0), OK);
		fx_enable_en(&fx, revs[i] == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
		fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	}
}

/* Rewriting EN while enabled: the queue stays, the area and the latched bits follow. */
static void int_en_rewrite_rebinds_and_keeps_the_queue(void **state)
{
	struct fx fx;
	uint32_t ready, waiting;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	waiting = fx_sleeper(&fx, 1);
	ready = fx_sleeper(&fx, 2);
	uint32_t token = fx.ev.token;
	eng_page_ready(&fx.v, ready);
	fx.cpu.cpl = 0;
	assert_int_equal(fx_may(&fx), ENG_KERNEL_MODE);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, 0x777000 | 0xb), ENABLED);
	assert_int_equal(eng_area_gpa(fx.v.en).v, 0x777000);
	assert_int_equal(fx_may(&fx), ENG_MAY_SEND); /* SEND_ALWAYS is latched */
	assert_int_equal(fx.v.outstanding, 2);
	assert_int_equal(eng_first_waiting(&fx.v), waiting);
	fx_expect_ready(&fx, token);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_false(eng_page_ready(&fx.v, waiting)); /* covered by the wake-all */
}

/* Invariant 24: a fresh enable frees the slot. */
static void int_enable_asks_for_a_clean_area(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND); /* token in the slot, not taken */
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, FX_EN_IRQ), ENABLED);
	assert_true(eng_zeroes_area(&fx.v));
	assert_int_equal(fx.area.token, 0);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
}

static void int_ctl_takes_effect_for_the_next_ready(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	eng_page_ready(&fx.v, fx_sleeper(&fx, 2));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.vector, FX_VECTOR);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_CTL, 0x41), RESCAN);
	fx_consume(&fx);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx.ev.vector, 0x41);
}

static void int_ack_bit_0_asks_for_a_look_and_no_other_does(void **state)
{
	struct fx fx;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	eng_page_ready(&fx.v, fx_sleeper(&fx, 1));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_ACK, 0xfe), OK);
	assert_int_equal(fx_wrmsr(&fx, APF_MSR_ACK, 0xff), RESCAN);
}

/* ---- pf2: which write sends the wake-all ---- */

struct wake_row {
	const char *name;
	uint64_t first_ctl, en, then_ctl; /* NONE: not written */
	bool after_en, after_ctl;
};

#define NONE UINT64_MAX

static const struct wake_row wake_rows[] = {
	{"pf2_en_bit_3_waits_for_pf2_bit_8", NONE, FX_EN_IRQ, FX_PF2_ON, false, true},
	{"pf2_en_bit_3_ctl_without_bit_8_sends_none", NONE, FX_EN_IRQ, FX_VECTOR, false, false},
	{"pf2_en_bit_3_with_pf2_bit_8_set_sends", FX_PF2_ON, FX_EN_IRQ, NONE, true, true},
	{"pf2_en_bit_3_with_vector_but_no_bit_8", FX_VECTOR, FX_EN_IRQ, NONE, false, false},
	{"pf2_en_bit_3_clear_sends_whatever_pf2", NONE, FX_EN_PF, NONE, true, true},
	{"pf2_ctl_bit_8_sends_also_with_bit_3_clear", NONE, FX_EN_PF, FX_PF2_ON, true, true},
	{"pf2_ctl_bit_8_clear_sends_none_of_its_own", NONE, FX_EN_PF, FX_VECTOR, true, false},
};

static void run_wake_row(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_PF2, APF_REV_PF2_STRICT};
	const struct wake_row *row = *state;
	struct fx fx;

	for (size_t i = 0; i < ARRAY_LEN(revs); i++) {
		fx_init(&fx, revs[i]);
		if (row->first_ctl != NONE)
			assert_int_equal(fx_wrmsr(&fx, APF_MSR_CTL, row->first_ctl), RESCAN);
		assert_int_equal(fx_wrmsr(&fx, APF_MSR_EN, row->en), ENABLED);
		assert_int_equal(fx.v.wake_all_due, row->after_en);
		if (row->then_ctl == NONE)
			continue;
		if (row->after_en)
			fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
		assert_int_equal(fx_wrmsr(&fx, APF_MSR_CTL, row->then_ctl), RESCAN);
		assert_int_equal(fx.v.wake_all_due, row->after_ctl);
	}
}

/* ---- reset ---- */

static void reset_turns_off_and_keeps_the_id(void **state)
{
	struct fx fx;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		uint32_t waiting, next_id;
		uint64_t ctl;

		fx_init_on(&fx, (enum apf_rev)rev);
		make_busy(&fx, &waiting);
		next_id = fx.v.next_id;
		ctl = fx.v.ctl;
		eng_reset(&fx.v);
		fx.cpu.untaken_token = 0;
		assert_int_equal(fx_rdmsr(&fx, APF_MSR_EN), 0);
		/* PF2 survives INIT, vector and enable bit; INT reads 0. */
		assert_int_equal(fx.v.ctl, fx_is_pf2(rev) ? ctl : 0);
		assert_true(!fx_is_pf2(rev) || ctl == FX_PF2_ON);
		assert_false(fx.v.wake_all_due || fx.v.wake_all_in_slot);
		assert_int_equal(fx.v.next_id, next_id);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
		assert_int_equal(fx_may(&fx), ENG_NOT_ENABLED);
		assert_false(eng_page_ready(&fx.v, waiting));
		assert_int_equal(fx.v.outstanding, 0);
		fx_assert_sound(&fx);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(en_every_combination_of_flags_features_lapic_and_area),
		cmocka_unit_test(ctl_every_single_bit),
		cmocka_unit_test(unknown_msrs_are_gp),
		cmocka_unit_test(cpuid_announces_per_revision),
		cmocka_unit_test(enabled_means),
		cmocka_unit_test(registers_read_the_last_accepted_value),
		cmocka_unit_test(every_enable_sends_a_wake_all),
		cmocka_unit_test(int_en_rewrite_rebinds_and_keeps_the_queue),
		cmocka_unit_test(int_enable_asks_for_a_clean_area),
		cmocka_unit_test(int_ctl_takes_effect_for_the_next_ready),
		cmocka_unit_test(int_ack_bit_0_asks_for_a_look_and_no_other_does),
		cmocka_unit_test(reset_turns_off_and_keeps_the_id),
	};
	int failed = FX_RUN_ROWS(write_rows, run_write_row);

	failed += FX_RUN_ROWS(off_rows, run_off_row);
	failed += FX_RUN_ROWS(wake_rows, run_wake_row);
	failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed != 0;
}
