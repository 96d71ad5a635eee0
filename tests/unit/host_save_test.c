/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/save.c: what the guest has stored goes along with the engine's state, and a saved state
 * is hostile input. (The engine's part of it: engine_save_test.c.)
 */
#include "drive_fixture.h"

#define OFF(page) ((uint64_t)(page) << PAGE_SHIFT)
#define SAVE_MAX 2048u
#define STORE_BYTES 20u /* u64 gpa, u64 data, u32 length; then u32 count, u32 magic */
#define TRAILER 8u

struct saved {
	unsigned char bytes[SAVE_MAX];
	size_t len;
};

static struct rig *open_off(void)
{
	struct hst_cfg cfg = rig_cfg(HST_FAULTS_USER, APF_REV_INT);

	return rig_open(&cfg);
}

static void save(struct rig *x, struct saved *ret)
{
	assert_true(hst_vcpu_save_bytes(rig_v(x, 0)) <= SAVE_MAX);
	ret->len = hst_vcpu_save(rig_v(x, 0), ret->bytes);
	assert_true(ret->len <= hst_vcpu_save_bytes(rig_v(x, 0)));
}

static void put(unsigned char *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

/* Place of a saved state's store i of n. */
static unsigned char *store_at(struct saved *s, uint32_t i, uint32_t n)
{
	return s->bytes + s->len - TRAILER - (n - i) * STORE_BYTES;
}

/* A guest with two sleepers and two stores to pages that are not there, at rest. */
static struct rig *open_busy(struct saved *ret)
{
	struct rig *x = rig_open_on(APF_REV_INT, 1);
	unsigned char a[8], b[8];

	memset(a, 0xa1, 8);
	memset(b, 0xb2, 8);
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_enter(dx_fault(x, 3), PLAT_ENTER);
	(void)rig_take_pf(x, 0);
	dx_must_enter(dx_fault(x, 4), PLAT_ENTER);
	(void)rig_take_pf(x, 0);
	dx_must_wait(dx_io(x, OFF(5) + 8, a, 8, true));
	dx_must_enter(dx_did(x, 0, HST_DID_WAIT, true), PLAT_COMPLETE);
	dx_must_enter(dx_io(x, OFF(5) + 12, b, 3, true), PLAT_COMPLETE);
	dx_must_return(dx_kicked(x), -EINTR);
	save(x, ret);
	return x;
}

/* Everything comes, and nothing is left. */
static void live_on(struct rig *x)
{
	struct hst_step s = dx_call(x);

	for (unsigned i = 0; i < 64 && (x->src.count || s.next == HST_DO_WAIT); i++) {
		while (x->src.count)
			rig_answer(x, 0, 0);
		rig_pump(x);
		rig_after(x, NS_PER_S);
		s = s.next == HST_DO_WAIT ? dx_did(x, 0, HST_DID_WAIT, false) : dx_kicked(x);
	}
	dx_must_enter(s, PLAT_ENTER);
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	assert_int_equal(eng_first_waiting(&rig_v(x, 0)->eng), ENG_NIL);
}

static void stores_are_carried_out_where_the_guest_goes_on(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s), *y = open_off();

	(void)state;
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	assert_int_equal(rig_v(y, 0)->store_count, 2);
	/* At rest, without the vCPU: whoever copies the memory next finds them. */
	rig_bring(y, 5);
	assert_int_equal(rig_v(y, 0)->store_count, 0);
	assert_int_equal(y->alias[OFF(5) + 8], 0xa1);
	assert_int_equal(y->alias[OFF(5) + 11], 0xa1);
	/* In the order of the program. */
	assert_int_equal(y->alias[OFF(5) + 12], 0xb2);
	assert_int_equal(y->alias[OFF(5) + 14], 0xb2);
	assert_int_equal(y->alias[OFF(5) + 15], 0xa1);
	assert_int_equal(y->alias[OFF(5) + 16], rig_byte(OFF(5)));
	live_on(y);
	rig_close(x);
	rig_close(y);
}

static void the_guest_does_not_run_before_its_stores(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s), *y = open_off();

	(void)state;
	rig_populate(y, RIG_AREA_PAGE);
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	dx_must_wait(dx_call(y));
	rig_bring(y, 5);
	dx_must_enter(dx_did(y, 0, HST_DID_WAIT, false), PLAT_ENTER);
	assert_int_equal(y->alias[OFF(5) + 12], 0xb2);
	rig_close(x);
	rig_close(y);
}

static void a_store_to_memory_that_is_there_is_made_at_once(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s), *y = open_off();

	(void)state;
	rig_populate(y, 5);
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	assert_int_equal(rig_v(y, 0)->store_count, 0);
	assert_int_equal(rig_v(y, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(y->alias[OFF(5) + 12], 0xb2);
	rig_close(x);
	rig_close(y);
}

static void what_was_awaited_is_fetched_or_ready(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s), *y = open_off();

	(void)state;
	rig_populate(y, 3);
	rig_log_clear(y);
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	assert_int_equal(rig_v(y, 0)->eng.ready_len, 1);
	(void)rig_read_at(y, OFF(4));
	live_on(y);
	rig_close(x);
	rig_close(y);
}

static void a_load_is_not_saved_the_guest_makes_it_again(void **state)
{
	struct rig *x = open_off(), *y = open_off();
	unsigned char data[8] = {0};
	struct saved s;

	(void)state;
	dx_must_enter(dx_call(x), PLAT_ENTER);
	dx_must_wait(dx_io(x, OFF(5), data, 8, false));
	dx_must_return(dx_did(x, 0, HST_DID_WAIT, true), -EINTR);
	save(x, &s);
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	assert_int_equal(rig_v(y, 0)->phase, HST_PHASE_RUN);
	dx_must_enter(dx_call(y), PLAT_ENTER);
	assert_int_equal(y->counts[RIG_READ], 0);
	rig_close(x);
	rig_close(y);
}

static void the_same_bytes_come_out_again(void **state)
{
	struct saved s, again;
	struct rig *x = open_busy(&s), *y = open_off();

	(void)state;
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	save(y, &again);
	assert_int_equal(again.len, s.len);
	assert_memory_equal(again.bytes, s.bytes, s.len);
	rig_close(x);
	rig_close(y);
}

static void a_busy_vcpu_is_not_restored_over(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s);

	(void)state;
	assert_false(hst_vcpu_restore(rig_v(x, 0), s.bytes, s.len));
	assert_int_equal(rig_v(x, 0)->store_count, 2);
	assert_int_equal(rig_v(x, 0)->eng.outstanding, 2);
	rig_close(x);
}

/* ---- other faults than before ---- */

static struct rig *open_as(enum hst_faults faults, bool told_before)
{
	struct hst_cfg cfg = rig_cfg(faults, APF_REV_INT);

	cfg.told_before = told_before;
	return rig_open(&cfg);
}

static void who_waits_is_told_by_a_host_that_tells_of_nothing_new(void **state)
{
	static const enum hst_faults ways[] = {HST_FAULTS_STALL, HST_FAULTS_BLOCK};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
		struct saved s;
		struct rig *x = open_busy(&s), *y = open_as(ways[i], true);

		assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
		assert_int_equal(rig_v(y, 0)->eng.outstanding, 2);
		live_on(y);
		/* Its slot, which the memory here has as busy. */
		memset(y->alias + OFF(RIG_AREA_PAGE), 0, 8);
		dx_must_enter(dx_kicked(y), PLAT_ENTER);
		assert_int_equal(rig_v(y, 0)->stats.all.ready_events, 1);
		(void)rig_take_irq(y, 0);
		(void)dx_fault(y, 7);
		assert_int_equal(rig_v(y, 0)->stats.all.missing_events, 0);
		rig_close(x);
		rig_close(y);
	}
}

static void the_kernel_takes_over_who_waits_and_gets_the_stores(void **state)
{
	struct saved s, t;
	struct rig *x = open_busy(&s), *y = open_as(HST_FAULTS_KERNEL, false);

	(void)state;
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	assert_int_equal(rig_v(y, 0)->eng.outstanding, 0);
	assert_int_equal(rig_v(y, 0)->store_count, 2);
	live_on(y);
	assert_int_equal(y->alias[OFF(5) + 12], 0xb2);
	rig_close(y);
	/* Its tokens are checked all the same. */
	t = s;
	t.bytes[56 + 8] ^= 1;
	y = open_as(HST_FAULTS_KERNEL, false);
	assert_false(hst_vcpu_restore(rig_v(y, 0), t.bytes, t.len));
	rig_close(y);
	rig_close(x);
}

static void a_guest_without_a_protocol_goes_to_any(void **state)
{
	struct rig *x = open_as(HST_FAULTS_STALL, false), *y = open_off();
	struct saved s;

	(void)state;
	save(x, &s);
	assert_true(hst_vcpu_set_msr(rig_v(y, 0), APF_MSR_CTL, 0xf3));
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	/* What the VMM has set stays. */
	assert_int_equal(rig_v(y, 0)->eng.ctl, 0xf3);
	rig_close(y);
	y = open_as(HST_FAULTS_KERNEL, false);
	assert_true(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	rig_close(y);
	rig_close(x);
}

static void who_waits_is_not_forgotten_where_nobody_would_tell(void **state)
{
	struct saved s;
	struct rig *x = open_busy(&s), *y = open_as(HST_FAULTS_STALL, false);

	(void)state;
	assert_false(hst_vcpu_restore(rig_v(y, 0), s.bytes, s.len));
	rig_close(x);
	rig_close(y);
}

/* ---- hostile bytes ---- */

static void must_refuse(const struct saved *s)
{
	struct rig *x = open_off();

	assert_false(hst_vcpu_restore(rig_v(x, 0), s->bytes, s->len));
	assert_int_equal(rig_v(x, 0)->store_count, 0);
	assert_int_equal(rig_v(x, 0)->eng.outstanding, 0);
	assert_int_equal(rig_v(x, 0)->eng.en, 0);
	assert_int_equal(rig_v(x, 0)->phase, HST_PHASE_RUN);
	assert_int_equal(x->counts[RIG_READ], 0);
	rig_close(x);
}

static void every_truncation_is_refused(void **state)
{
	struct saved s, t;
	struct rig *x = open_busy(&s);

	(void)state;
	for (size_t len = 0; len < s.len; len++) {
		t = s;
		t.len = len;
		must_refuse(&t);
		/* The front is missing, the end is right. */
		memmove(t.bytes, s.bytes + s.len - len, len);
		must_refuse(&t);
	}
	rig_close(x);
}

static void every_flipped_bit_is_refused_or_a_state_like_another(void **state)
{
	struct saved s, t;
	struct rig *x = open_busy(&s);
	unsigned accepted = 0;

	(void)state;
	for (size_t bit = 0; bit < 8 * s.len; bit++) {
		struct rig *y = open_off();

		t = s;
		t.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		if (hst_vcpu_restore(rig_v(y, 0), t.bytes, t.len)) {
			accepted++;
			rig_assert_sound(y);
			hst_stop(&y->h);
		}
		rig_free(y);
	}
	/* Data, addresses within RAM, registers: there are states like that. */
	assert_in_range(accepted, 1, 8 * s.len / 2);
	rig_close(x);
}

static void stores_that_no_guest_can_have_made_are_refused(void **state)
{
	static const struct {
		uint64_t gpa;
		uint32_t len;
	} bad[] = {
		{RIG_GPA - 8, 8},
		{RIG_GPA - 4, 8},                                /* begins before RAM */
		{RIG_GPA + OFF(RIG_PAGES), 1},                    /* behind it */
		{RIG_GPA + OFF(RIG_PAGES) - 4, 8},                /* ends behind it */
		{UINT64_MAX, 8},                                /* wraps */
		{UINT64_MAX - 7, 8},
		{0, 8},
		{RIG_GPA + OFF(6) - 1, 2},                       /* of two blocks */
		{RIG_GPA + OFF(6) - 7, 8},
		{RIG_GPA + OFF(5), 0},
		{RIG_GPA + OFF(5), 9},
		{RIG_GPA + OFF(5), UINT32_MAX},
	};
	struct saved s, t;
	struct rig *x = open_busy(&s);

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		for (unsigned at = 0; at < 2; at++) {
			t = s;
			put(store_at(&t, at, 2), bad[i].gpa, 8);
			put(store_at(&t, at, 2) + 16, bad[i].len, 4);
			must_refuse(&t);
		}
	rig_close(x);
}

static void as_many_stores_as_an_instruction_can_make_and_no_more(void **state)
{
	struct rig *x = open_off(), *y = open_off();
	struct saved s;
	unsigned char *p;

	(void)state;
	save(x, &s);
	p = s.bytes + s.len - TRAILER;
	for (uint32_t i = 0; i <= HST_STORES_MAX; i++, p += STORE_BYTES) {
		put(p, RIG_GPA + OFF(20 + i), 8);
		put(p + 8, i, 8);
		put(p + 16, 8, 4);
		put(p + STORE_BYTES, i + 1, 4);
		put(p + STORE_BYTES + 4, 0x53465041u, 4);
		if (i + 1 < HST_STORES_MAX)
			continue;
		struct saved t = s;

		t.len = (size_t)(p + STORE_BYTES + TRAILER - s.bytes);
		if (i + 1 > HST_STORES_MAX) {
			must_refuse(&t);
			continue;
		}
		assert_true(hst_vcpu_restore(rig_v(y, 0), t.bytes, t.len));
		assert_int_equal(rig_v(y, 0)->store_count, HST_STORES_MAX);
		live_on(y);
		for (uint32_t n = 0; n < HST_STORES_MAX; n++)
			assert_int_equal(y->alias[OFF(20 + n)], n);
	}
	rig_close(x);
	rig_close(y);
}

static void a_count_that_does_not_fit_is_refused(void **state)
{
	static const uint32_t counts[] = {0, 1, 3, HST_STORES_MAX, HST_STORES_MAX + 1, UINT32_MAX,
					  0x0ccccccd /* times 20: wraps around 32 bits */};
	struct saved s, t;
	struct rig *x = open_busy(&s);

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(counts); i++) {
		t = s;
		put(t.bytes + t.len - TRAILER, counts[i], 4);
		must_refuse(&t);
	}
	rig_close(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores_are_carried_out_where_the_guest_goes_on),
		cmocka_unit_test(the_guest_does_not_run_before_its_stores),
		cmocka_unit_test(a_store_to_memory_that_is_there_is_made_at_once),
		cmocka_unit_test(what_was_awaited_is_fetched_or_ready),
		cmocka_unit_test(a_load_is_not_saved_the_guest_makes_it_again),
		cmocka_unit_test(the_same_bytes_come_out_again),
		cmocka_unit_test(a_busy_vcpu_is_not_restored_over),
		cmocka_unit_test(who_waits_is_told_by_a_host_that_tells_of_nothing_new),
		cmocka_unit_test(the_kernel_takes_over_who_waits_and_gets_the_stores),
		cmocka_unit_test(a_guest_without_a_protocol_goes_to_any),
		cmocka_unit_test(who_waits_is_not_forgotten_where_nobody_would_tell),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(every_flipped_bit_is_refused_or_a_state_like_another),
		cmocka_unit_test(stores_that_no_guest_can_have_made_are_refused),
		cmocka_unit_test(as_many_stores_as_an_instruction_can_make_and_no_more),
		cmocka_unit_test(a_count_that_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
