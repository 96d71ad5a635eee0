/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/engine/save.c: a save holds everything that the guest could tell apart, a restore
 * believes nothing; and what restoring by the registers alone does. Invariants 3, 20, 23,
 * 41, 42.
 */
#include "engine_fixture.h"

/* Offsets of the format, as save.c documents it. */
#define AT_REV 8
#define AT_VCPU 12
#define AT_FLAGS 16
#define AT_NEXT_ID 20
#define AT_AFTER 24
#define AT_COUNT 28
#define AT_EN 32
#define AT_CTL 40
#define AT_FAULTS 56
#define AT_FAULT(i) (AT_FAULTS + 16 * (i))

struct save {
	unsigned char bytes[FX_SAVE_MAX];
	size_t len;
};

static void save(const struct fx *fx, struct save *ret_s)
{
	memset(ret_s->bytes, 0xee, sizeof(ret_s->bytes));
	assert_true(eng_save_bytes(&fx->v) <= sizeof(ret_s->bytes));
	ret_s->len = eng_save(&fx->v, ret_s->bytes);
	assert_true(ret_s->len <= eng_save_bytes(&fx->v));
}

static void put32(struct save *s, size_t at, uint32_t x)
{
	for (unsigned i = 0; i < 4; i++)
		s->bytes[at + i] = (unsigned char)(x >> (8 * i));
}

/* A fresh vCPU of the same kind, with the same world around it. */
static void twin(const struct fx *fx, struct fx *ret_to)
{
	fx_init_cfg(ret_to, &fx->v.cfg);
	ret_to->area = fx->area;
	ret_to->cpu = fx->cpu;
	ret_to->ev = fx->ev;
}

/* ---- states ---- */

static void state_off(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
}

static void state_enabled(struct fx *fx, enum apf_rev rev)
{
	fx_init_on(fx, rev);
}

static void state_wake_all_due(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, rev == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
	fx_sleeper(fx, 11);
}

static void state_wake_all_written(struct fx *fx, enum apf_rev rev)
{
	fx_init(fx, rev);
	fx_enable_en(fx, rev == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
	assert_int_equal(fx_scan(fx), ENG_READY_SEND);
}

static void state_waiting(struct fx *fx, enum apf_rev rev)
{
	fx_init_on(fx, rev);
	for (unsigned i = 0; i < 5; i++)
		fx_sleeper(fx, 100 + i);
}

static void state_untaken(struct fx *fx, enum apf_rev rev)
{
	fx_init_on(fx, rev);
	fx_sleeper(fx, 100);
	fx_missing(fx, 101);
}

/* Ready out of issue order, a wake-all in their midst, one token in the slot. */
static void state_mixed(struct fx *fx, enum apf_rev rev)
{
	uint32_t ix[7];

	fx_init_on(fx, rev);
	for (unsigned i = 0; i < 7; i++)
		ix[i] = fx_sleeper(fx, 0xfffffffff000ull + i);
	eng_page_ready(&fx->v, ix[5]);
	eng_page_ready(&fx->v, ix[1]);
	assert_int_equal(fx_wrmsr(fx, APF_MSR_EN, fx->v.en), ENG_WRMSR_ENABLED);
	eng_page_ready(&fx->v, ix[4]);
	eng_page_ready(&fx->v, ix[0]);
	assert_int_equal(fx_scan(fx), ENG_READY_SEND);
}

static void state_with_retired(struct fx *fx, enum apf_rev rev)
{
	fx_init_on(fx, rev);
	fx_sleeper(fx, 1);
	fx_sleeper(fx, 2);
	eng_reset(&fx->v);
	fx_enable_en(fx, rev == APF_REV_LEGACY ? FX_EN_PF : FX_EN_IRQ);
	fx_expect_ready(fx, APF_TOKEN_WAKE_ALL);
	eng_page_ready(&fx->v, fx_sleeper(fx, 3));
	fx_sleeper(fx, 4);
}

/* pf2-strict: the vCPU was halted for some, between those that were told; else, for none. */
static void state_halted(struct fx *fx, enum apf_rev rev)
{
	uint32_t ix = ENG_NIL;

	fx_init_on(fx, rev);
	for (unsigned i = 0; i < 3; i++) {
		fx_sleeper(fx, 100 + i);
		fx->cpu.cpl = 0;
		eng_halt(&fx->v, &fx->cpu, fx_slot(fx), (gfn_t){200 + i}, &ix);
		fx->cpu.cpl = 3;
		if (i == 1 && ix != ENG_NIL)
			eng_page_ready(&fx->v, ix);
	}
}

/* The id has wrapped and has passed over tokens that are still out. */
static void state_wrapped(struct fx *fx, enum apf_rev rev)
{
	struct eng_event ev;

	fx_init_on(fx, rev);
	fx_sleeper(fx, 1);
	fx_sleeper(fx, 2);
	fx->v.next_id = 0xfffff;
	for (unsigned i = 0; i < 3; i++) {
		eng_send_missing(&fx->v, (gfn_t){3 + i}, &ev);
		assert_int_not_equal(ev.token >> 12, 1);
		assert_int_not_equal(ev.token >> 12, 2);
	}
	assert_int_equal(ev.token >> 12, 4);
}

static void state_reset(struct fx *fx, enum apf_rev rev)
{
	state_mixed(fx, rev);
	eng_reset(&fx->v);
	fx->cpu.untaken_token = 0;
}

struct state_row {
	const char *name;
	void (*make)(struct fx *fx, enum apf_rev rev);
};

static const struct state_row round_trip_rows[] = {
	{"round_trip_off", state_off},
	{"round_trip_enabled", state_enabled},
	{"round_trip_wake_all_due", state_wake_all_due},
	{"round_trip_wake_all_written", state_wake_all_written},
	{"round_trip_waiting", state_waiting},
	{"round_trip_page_missing_not_taken", state_untaken},
	{"round_trip_mixed", state_mixed},
	{"round_trip_retired_are_not_saved", state_with_retired},
	{"round_trip_wrapped_ids", state_wrapped},
	{"round_trip_halted", state_halted},
	{"round_trip_reset", state_reset},
};

/* The same steps on both: the same answers, until nothing is outstanding. */
static void check_same_life(struct fx *a, struct fx *b)
{
	uint32_t ia = eng_first_waiting(&a->v), ib = eng_first_waiting(&b->v);

	for (unsigned step = 0; step < 64; step++) {
		assert_int_equal(ia == ENG_NIL, ib == ENG_NIL);
		if (ia != ENG_NIL && step % 2 == 0) {
			uint32_t na = eng_next_waiting(&a->v, ia);
			uint32_t nb = eng_next_waiting(&b->v, ib);

			assert_int_equal(a->v.faults[ia].token, b->v.faults[ib].token);
			assert_int_equal(a->v.faults[ia].gfn, b->v.faults[ib].gfn);
			assert_int_equal(eng_page_ready(&a->v, ia), eng_page_ready(&b->v, ib));
			ia = na;
			ib = nb;
		}
		assert_int_equal(fx_may(a), fx_may(b));
		enum eng_ready r = fx_scan(a);

		assert_int_equal(r, fx_scan(b));
		assert_int_equal(a->ev.token, b->ev.token);
		assert_int_equal(a->ev.how, b->ev.how);
		assert_int_equal(a->ev.vector, b->ev.vector);
		if (r == ENG_READY_SLOT_BUSY) {
			fx_consume(a);
			fx_consume(b);
		} else if (a->cpu.untaken_token) {
			fx_take_pf(a);
			fx_take_pf(b);
		}
		/* A wake-all retires what waits. */
		if (a->ev.token == APF_TOKEN_WAKE_ALL && a->v.cfg.rev != APF_REV_PF2_STRICT)
			ia = ib = ENG_NIL;
	}
	assert_int_equal(fx_scan(a), ENG_READY_NONE);
}

static void run_round_trip(void **state)
{
	const struct state_row *row = *state;
	struct fx a, b;
	struct save s, again;

	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		uint64_t value;

		row->make(&a, (enum apf_rev)rev);
		save(&a, &s);
		twin(&a, &b);
		assert_true(eng_restore(&b.v, s.bytes, s.len));
		fx_assert_sound(&b);
		save(&b, &again);
		assert_int_equal(s.len, again.len);
		assert_memory_equal(s.bytes, again.bytes, s.len);
		assert_int_equal(fx_rdmsr(&a, APF_MSR_EN), fx_rdmsr(&b, APF_MSR_EN));
		if (eng_rdmsr(&a.v, APF_MSR_CTL, &value))
			assert_int_equal(value, fx_rdmsr(&b, APF_MSR_CTL));
		for (uint32_t ix = b.v.issue_head; ix != ENG_NIL; ix = b.v.faults[ix].next)
			assert_int_not_equal(b.v.faults[ix].state, ENG_FAULT_RETIRED);
		check_same_life(&a, &b);
		fx_assert_sound(&b);
	}
}

static void off_round_trip(void **state)
{
	struct fx a, b;
	struct save s;

	(void)state;
	fx_init(&a, APF_REV_OFF);
	save(&a, &s);
	twin(&a, &b);
	assert_true(eng_restore(&b.v, s.bytes, s.len));
	s.bytes[AT_EN] = 1;
	assert_false(eng_restore(&b.v, s.bytes, s.len));
}

/* A vCPU that was never offered the feature has a state, too. */
static void nothing_offered_round_trip(void **state)
{
	struct fx a, b;
	struct save s;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		fx_init(&a, (enum apf_rev)rev);
		a.v.cfg.features = 0;
		a.v.cfg.has_lapic = false;
		save(&a, &s);
		twin(&a, &b);
		assert_true(eng_restore(&b.v, s.bytes, s.len));
	}
}

static void restored_waiting_faults_can_be_found(void **state)
{
	struct fx a, b;
	struct save s;

	(void)state;
	state_mixed(&a, APF_REV_INT);
	save(&a, &s);
	twin(&a, &b);
	assert_true(eng_restore(&b.v, s.bytes, s.len));
	static const unsigned want[] = {2, 3, 6};
	unsigned n = 0;
	for (uint32_t ix = eng_first_waiting(&b.v); ix != ENG_NIL;
	     ix = eng_next_waiting(&b.v, ix)) {
		assert_true(n < ARRAY_LEN(want));
		assert_int_equal(b.v.faults[ix].gfn, 0xfffffffff000ull + want[n++]);
	}
	assert_int_equal(n, ARRAY_LEN(want));
}

/* ---- hostile bytes ---- */

/* Accepted: then it must be sound, and stay so whatever happens next. */
static void check_consistent(struct fx *fx)
{
	uint32_t next;

	fx_assert_sound(fx);
	if (!eng_enabled(&fx->v) && fx->v.cfg.rev != APF_REV_PF2_STRICT)
		assert_int_equal(fx->v.outstanding, 0);
	assert_int_equal(fx->v.en & 0x30, 0);
	for (uint32_t ix = eng_first_waiting(&fx->v); ix != ENG_NIL; ix = next) {
		next = eng_next_waiting(&fx->v, ix);
		assert_true(eng_page_ready(&fx->v, ix));
	}
	memset(&fx->area, 0, sizeof(fx->area));
	fx->cpu = fx_cpu_user();
	for (unsigned i = 0; i < 24; i++) {
		enum eng_ready r = fx_scan(fx);

		if (r == ENG_READY_SEND && fx->ev.how != ENG_HOW_NOTHING) {
			assert_int_not_equal(fx->ev.token, 0);
			fx_consume(fx);
		} else if (r == ENG_READY_SLOT_BUSY) {
			/* Hazard S1 filled the slot. */
			assert_int_equal(fx->v.cfg.rev, APF_REV_PF2_STRICT);
			fx->area.reason = 0;
		}
		fx_assert_sound(fx);
	}
	if (fx_may(fx) == ENG_MAY_SEND)
		fx_missing(fx, 1);
	eng_reset(&fx->v);
	fx_assert_sound(fx);
}

static unsigned try_bytes(const struct fx *origin, const struct save *s)
{
	struct fx fx;
	struct fx_state before;

	twin(origin, &fx);
	fx.v.next_id = 77; /* something to lose */
	fx_keep(&fx, &before);
	if (!eng_restore(&fx.v, s->bytes, s->len)) {
		assert_true(fx_same(&fx, &before));
		return 1;
	}
	check_consistent(&fx);
	return 0;
}

static void every_byte_with_every_value(void **state)
{
	static void (*const makes[])(struct fx *, enum apf_rev) = {state_mixed, state_wrapped,
								   state_off, state_halted};
	struct fx origin;
	struct save s;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++)
		for (size_t m = 0; m < ARRAY_LEN(makes); m++) {
			unsigned refused = 0;

			makes[m](&origin, (enum apf_rev)rev);
			save(&origin, &s);
			for (size_t at = 0; at < s.len; at++) {
				unsigned char was = s.bytes[at];

				for (unsigned delta = 1; delta < 256; delta++) {
					s.bytes[at] = (unsigned char)(was + delta);
					refused += try_bytes(&origin, &s);
				}
				s.bytes[at] = was;
			}
			/* The identifying fields alone refuse all but their own value. */
			assert_true(refused >= 16 * 255);
			assert_int_equal(try_bytes(&origin, &s), 0);
		}
}

static void every_length_but_its_own_is_refused(void **state)
{
	struct fx origin;
	struct save s;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		state_mixed(&origin, (enum apf_rev)rev);
		save(&origin, &s);
		size_t len = s.len;
		for (s.len = 0; s.len <= len + 40; s.len++)
			assert_int_equal(try_bytes(&origin, &s), s.len != len);
	}
}

struct patch_row {
	const char *name;
	size_t at;
	uint32_t value;
	size_t at2;
	uint32_t value2;
};

#define TOKEN(id) ((uint32_t)(id) << 12 | FX_VCPU)

/*
 * On the save of five WAITING faults (ids 1..5, next id 6), revision int. Without its
 * patch that save is accepted; each row alone must be refused.
 */
static const struct patch_row refused_rows[] = {
	{"refused_magic", 0, 0x12345678, 0, 0x12345678},
	{"refused_version", 4, 1, 4, 1},
	{"refused_revision", AT_REV, APF_REV_PF2, AT_REV, APF_REV_PF2},
	{"refused_vcpu", AT_VCPU, FX_VCPU + 1, AT_VCPU, FX_VCPU + 1},
	{"refused_unknown_flag", AT_FLAGS, 8, AT_FLAGS, 8},
	{"refused_next_id_too_large", AT_NEXT_ID, 0x100006, AT_NEXT_ID, 0x100006},
	{"refused_more_faults_than_the_limit", AT_COUNT, 17, AT_COUNT, 17},
	{"refused_fewer_faults_than_bytes", AT_COUNT, 4, AT_COUNT, 4},
	{"refused_count_that_overflows", AT_COUNT, 0x10000005, AT_COUNT, 0x10000005},
	{"refused_wake_all_behind_the_queue", AT_AFTER, 1, AT_FLAGS, 2},
	{"refused_place_of_no_wake_all", AT_AFTER, 1, AT_FAULT(0) + 12, 0},
	{"refused_page_beyond_all_addresses", AT_FAULT(1) + 4, 1u << 20, AT_FAULT(1) + 4, 1u << 20},
	{"refused_sent_token_of_another_vcpu", 48, TOKEN(1) + 1, 48, TOKEN(1) + 1},
	{"refused_sent_token_id_0", 48, FX_VCPU, 48, FX_VCPU},
	{"refused_en_reserved_bit", AT_EN, FX_EN_IRQ | 0x10, AT_EN, FX_EN_IRQ | 0x10},
	{"refused_en_feature_not_offered", AT_EN, FX_EN_IRQ | 4, AT_EN, FX_EN_IRQ | 4},
	{"refused_ctl_reserved_bit", AT_CTL, 0x1f3, AT_CTL, 0x1f3},
	{"refused_faults_while_disabled", AT_EN, FX_GPA, AT_EN, FX_GPA},
	{"refused_something_behind_the_token", 52, 1, 52, 1},
	{"refused_token_0", AT_FAULT(0) + 8, 0, AT_FAULT(0) + 8, 0},
	{"refused_token_id_0", AT_FAULT(0) + 8, FX_VCPU, AT_FAULT(0) + 8, FX_VCPU},
	{"refused_token_of_another_vcpu", AT_FAULT(0) + 8, TOKEN(1) + 1, AT_FAULT(0) + 8,
	 TOKEN(1) + 1},
	{"refused_same_token_twice", AT_FAULT(1) + 8, TOKEN(1), AT_FAULT(1) + 8, TOKEN(1)},
	{"refused_tokens_out_of_order", AT_FAULT(0) + 8, TOKEN(2), AT_FAULT(1) + 8, TOKEN(1)},
	{"refused_next_id_within_the_outstanding", AT_NEXT_ID, 3, AT_NEXT_ID, 3},
	{"refused_same_place_twice", AT_FAULT(0) + 12, 0, AT_FAULT(3) + 12, 0},
	{"refused_hole_in_the_ready_queue", AT_FAULT(0) + 12, 0, AT_FAULT(3) + 12, 2},
	{"refused_place_out_of_the_queue", AT_FAULT(2) + 12, 1, AT_FAULT(2) + 12, 1},
	{"refused_halted", AT_FAULT(2) + 12, UINT32_MAX - 1, AT_FAULT(2) + 12, UINT32_MAX - 1},
};

static void run_refused(void **state)
{
	const struct patch_row *row = *state;
	struct fx origin;
	struct save s;

	state_waiting(&origin, APF_REV_INT);
	save(&origin, &s);
	assert_int_equal(try_bytes(&origin, &s), 0);
	put32(&s, row->at, row->value);
	put32(&s, row->at2, row->value2);
	assert_int_equal(try_bytes(&origin, &s), 1);
}

static void broadcast_token_is_refused(void **state)
{
	struct fx origin;
	struct save s;

	(void)state;
	fx_init_on(&origin, APF_REV_INT);
	origin.v.cfg.vcpu_id = 4095;
	origin.v.next_id = 0xffffe;
	fx_sleeper(&origin, 1);
	save(&origin, &s);
	assert_int_equal(try_bytes(&origin, &s), 0);
	put32(&s, AT_FAULT(0) + 8, APF_TOKEN_WAKE_ALL);
	assert_int_equal(try_bytes(&origin, &s), 1);
}

static void flags_while_disabled_are_refused_but_for_s7(void **state)
{
	struct fx origin;
	struct save s;

	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++)
		for (uint32_t flags = 1; flags < 8; flags++) {
			state_off(&origin, (enum apf_rev)rev);
			save(&origin, &s);
			put32(&s, AT_FLAGS, flags);
			assert_int_equal(try_bytes(&origin, &s),
					 !(rev == APF_REV_PF2_STRICT && flags == 2));
		}
}

/* Page ready by #PF leaves nothing in a slot that has yet to be freed. */
static void a_wake_all_in_the_slot_is_not_legacys(void **state)
{
	(void)state;
	for (int rev = APF_REV_LEGACY; rev <= APF_REV_INT; rev++) {
		struct fx origin;
		struct save s;

		state_mixed(&origin, (enum apf_rev)rev);
		save(&origin, &s);
		s.bytes[AT_FLAGS] |= 4;
		assert_int_equal(try_bytes(&origin, &s), rev == APF_REV_LEGACY);
	}
}

/* The states come back, not only the bytes; the two that wait are fetched. */
static void halted_faults_come_back(void **state)
{
	struct fx a, b;
	struct save s;
	unsigned waiting = 0, halted = 0;

	(void)state;
	state_halted(&a, APF_REV_PF2_STRICT);
	save(&a, &s);
	twin(&a, &b);
	assert_true(eng_restore(&b.v, s.bytes, s.len));
	for (uint32_t ix = eng_first_waiting(&b.v); ix != ENG_NIL;
	     ix = eng_next_waiting(&b.v, ix)) {
		bool told = b.v.faults[ix].gfn < 200;

		assert_int_equal(b.v.faults[ix].state,
				 told ? ENG_FAULT_WAITING : ENG_FAULT_HALTED);
		waiting += told;
		halted += !told;
	}
	assert_int_equal(waiting, 3);
	assert_int_equal(halted, 2);
	assert_int_equal(b.v.ready_len, 1);
}

/* pf2-strict with events off: halted faults may be there, sleepers may not. */
static void halted_while_off(void **state)
{
	struct fx fx;
	struct save s;
	uint32_t ix[2];

	(void)state;
	fx_init(&fx, APF_REV_PF2_STRICT);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(eng_halt(&fx.v, &fx.cpu, fx_slot(&fx), (gfn_t){i}, &ix[i]),
				 ENG_HALT_ENTERED);
	eng_page_ready(&fx.v, ix[1]);
	save(&fx, &s);
	assert_int_equal(try_bytes(&fx, &s), 0);
	put32(&s, AT_FAULT(0) + 12, UINT32_MAX);
	assert_int_equal(try_bytes(&fx, &s), 1);
}

static void restore_over_outstanding_faults_is_refused(void **state)
{
	struct fx a, b;
	struct save s;
	struct fx_state before;

	(void)state;
	state_mixed(&a, APF_REV_INT);
	save(&a, &s);
	fx_init_on(&b, APF_REV_INT);
	fx_sleeper(&b, 1);
	fx_keep(&b, &before);
	assert_false(eng_restore(&b.v, s.bytes, s.len));
	assert_true(fx_same(&b, &before));
}

static void smaller_limit_refuses_what_does_not_fit(void **state)
{
	struct fx a, b;
	struct save s;

	(void)state;
	state_waiting(&a, APF_REV_INT);
	save(&a, &s);
	for (uint32_t max = 1; max <= 6; max++) {
		struct eng_cfg cfg = a.v.cfg;

		cfg.faults_max = max;
		fx_init_cfg(&b, &cfg);
		assert_int_equal(eng_restore(&b.v, s.bytes, s.len), max >= 5);
	}
}

/* ---- restoring by the registers alone: B16, invariants 41 and 42 ---- */

static void restore_msr(struct fx *fx, uint32_t msr)
{
	struct eng_wrmsr_in in = {.msr = msr, .area_ok = true};

	if (msr == APF_MSR_EN)
		in.value = FX_EN_IRQ;
	if (msr == APF_MSR_CTL)
		in.value = fx_is_pf2(fx->v.cfg.rev) ? FX_PF2_ON : FX_VECTOR;
	/* A snapshot reads ACK as 0 and writes that back. */
	assert_int_not_equal(eng_wrmsr(&fx->v, &in), ENG_WRMSR_GP);
}

static void registers_in_every_order(void **state)
{
	static const uint32_t orders[][3] = {
		{APF_MSR_CTL, APF_MSR_EN, APF_MSR_ACK}, {APF_MSR_EN, APF_MSR_CTL, APF_MSR_ACK},
		{APF_MSR_CTL, APF_MSR_ACK, APF_MSR_EN}, {APF_MSR_EN, APF_MSR_ACK, APF_MSR_CTL},
		{APF_MSR_ACK, APF_MSR_CTL, APF_MSR_EN}, {APF_MSR_ACK, APF_MSR_EN, APF_MSR_CTL},
	};
	static const enum apf_rev revs[] = {APF_REV_INT, APF_REV_PF2};
	struct fx fx;

	(void)state;
	for (size_t r = 0; r < ARRAY_LEN(revs); r++)
		for (size_t o = 0; o < ARRAY_LEN(orders); o++) {
			fx_init(&fx, revs[r]);
			for (unsigned i = 0; i < 3; i++) {
				if (orders[o][i] == APF_MSR_ACK && revs[r] != APF_REV_INT)
					continue;
				restore_msr(&fx, orders[o][i]);
				/* A look at every point: no interrupt until both are there. */
				fx_scan(&fx);
				assert_int_equal(fx.irqs, fx.v.en && fx.v.ctl);
			}
			assert_int_equal(fx.irqs, 1);
			assert_int_equal(fx.ev.token, APF_TOKEN_WAKE_ALL);
			assert_int_equal(fx.ev.vector, FX_VECTOR);
		}
}

static void token_in_the_restored_area_is_not_overwritten(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_INT, APF_REV_PF2};
	struct fx fx;

	(void)state;
	for (size_t r = 0; r < ARRAY_LEN(revs); r++) {
		fx_init(&fx, revs[r]);
		fx.area.token = 0x9005;
		fx.area.reason = revs[r] == APF_REV_PF2 ? APF_REASON_READY : 0;
		restore_msr(&fx, APF_MSR_CTL);
		restore_msr(&fx, APF_MSR_EN);
		assert_int_equal(fx_scan(&fx), ENG_READY_SLOT_BUSY);
		assert_int_equal(fx.area.token, 0x9005);
		fx.ev.how = ENG_HOW_IRQ;
		fx_consume(&fx);
		fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	}
}

/* The guest has yet to read the token, and the ids have come round. */
static void a_token_in_the_slot_is_not_issued_after_a_restore(void **state)
{
	struct fx a, b;
	struct save s;
	uint32_t ix, token;

	(void)state;
	fx_init_on(&a, APF_REV_INT);
	ix = fx_sleeper(&a, 1);
	token = a.ev.token;
	assert_true(eng_page_ready(&a.v, ix));
	assert_int_equal(fx_scan(&a), ENG_READY_SEND);
	a.v.next_id = token >> APF_TOKEN_VCPU_BITS;
	save(&a, &s);
	fx_init(&b, APF_REV_INT);
	b.area = a.area;
	assert_true(eng_restore(&b.v, s.bytes, s.len));
	fx_missing(&b, 2);
	assert_int_not_equal(b.ev.token, token);
}

static void the_area_of_a_save_can_be_asked_for(void **state)
{
	struct fx fx;
	struct save s;
	gpa_t gpa = {0};

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	save(&fx, &s);
	assert_true(eng_saved_area(&fx.v, s.bytes, s.len, &gpa));
	assert_int_equal(gpa.v, FX_GPA);
	assert_false(eng_saved_area(&fx.v, s.bytes, 8, &gpa));
	fx_init(&fx, APF_REV_INT);
	save(&fx, &s);
	assert_false(eng_saved_area(&fx.v, s.bytes, s.len, &gpa));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_in_the_slot_is_not_issued_after_a_restore),
		cmocka_unit_test(the_area_of_a_save_can_be_asked_for),
		cmocka_unit_test(off_round_trip),
		cmocka_unit_test(nothing_offered_round_trip),
		cmocka_unit_test(restored_waiting_faults_can_be_found),
		cmocka_unit_test(every_byte_with_every_value),
		cmocka_unit_test(every_length_but_its_own_is_refused),
		cmocka_unit_test(broadcast_token_is_refused),
		cmocka_unit_test(flags_while_disabled_are_refused_but_for_s7),
		cmocka_unit_test(a_wake_all_in_the_slot_is_not_legacys),
		cmocka_unit_test(halted_faults_come_back),
		cmocka_unit_test(halted_while_off),
		cmocka_unit_test(restore_over_outstanding_faults_is_refused),
		cmocka_unit_test(smaller_limit_refuses_what_does_not_fit),
		cmocka_unit_test(registers_in_every_order),
		cmocka_unit_test(token_in_the_restored_area_is_not_overwritten),
	};
	int failed = FX_RUN_ROWS(round_trip_rows, run_round_trip);

	failed += FX_RUN_ROWS(refused_rows, run_refused);
	failed += cmocka_run_group_tests(tests, NULL, NULL);
	return failed != 0;
}
