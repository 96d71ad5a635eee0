/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eng_take_back: a #PF that was queued and taken out of the CPU before the guest saw it is as if
 * it had never been sent, or is due again.
 */
#include "engine_fixture.h"

/* Takes the #PF at hand back. Returns the fault's index, or ENG_NIL. */
static uint32_t take_back(struct fx *fx, const struct eng_event *ev)
{
	struct eng_store store;
	uint32_t ix = eng_take_back(&fx->v, ev, fx_slot(fx), &store);

	fx->cpu.untaken_token = 0;
	if (store.len)
		memset((char *)&fx->area + store.off, 0, store.len);
	fx_assert_sound(fx);
	return ix;
}

static void page_missing_was_never_sent(void **state)
{
	static const enum apf_rev revs[] = {APF_REV_LEGACY, APF_REV_PF2, APF_REV_PF2_STRICT,
					    APF_REV_INT};

	(void)state;
	for (size_t r = 0; r < ARRAY_LEN(revs); r++) {
		struct fx fx;
		uint32_t ix;

		fx_init_on(&fx, revs[r]);
		fx_sleeper(&fx, 1);
		ix = fx_missing(&fx, 2);
		assert_int_equal(take_back(&fx, &fx.ev), ix);
		assert_int_equal(fx.area.reason, 0);
		assert_int_equal(fx.v.outstanding, 1);
		/* The other one is told of its page, and nobody else is. */
		assert_int_equal(fx_may(&fx), ENG_MAY_SEND);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	}
}

static void its_page_may_have_come(void **state)
{
	struct eng_event missing;
	struct fx fx;
	uint32_t a, b, c;

	(void)state;
	fx_init_on(&fx, APF_REV_INT);
	a = fx_sleeper(&fx, 1);
	c = fx_sleeper(&fx, 3);
	b = fx_missing(&fx, 2);
	missing = fx.ev;
	assert_true(eng_page_ready(&fx.v, a));
	assert_true(eng_page_ready(&fx.v, b));
	assert_true(eng_page_ready(&fx.v, c));
	assert_int_equal(take_back(&fx, &missing), b);
	fx_expect_ready(&fx, fx.v.faults[a].token);
	fx_expect_ready(&fx, fx.v.faults[c].token);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

static void page_ready_is_due_again_before_all_others(void **state)
{
	(void)state;
	for (int rev = 0; rev < 2; rev++) {
		struct eng_event ready;
		struct fx fx;
		uint32_t a, b, ta, tb;

		if (rev == 0)
			fx_init_on(&fx, APF_REV_LEGACY);
		else
			fx_init_on_by_pf(&fx, APF_REV_PF2);
		a = fx_sleeper(&fx, 1);
		ta = fx.ev.token;
		b = fx_sleeper(&fx, 2);
		tb = fx.ev.token;
		fx_sleeper(&fx, 3);
		assert_true(eng_page_ready(&fx.v, a));
		assert_true(eng_page_ready(&fx.v, b));
		assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
		ready = fx.ev;
		assert_int_equal(take_back(&fx, &ready), ENG_NIL);
		assert_int_equal(fx.area.reason, 0);
		fx_expect_ready(&fx, ta);
		fx_expect_ready(&fx, tb);
		assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
	}
}

static void a_wake_all_is_due_again(void **state)
{
	struct fx fx;

	(void)state;
	fx_init(&fx, APF_REV_LEGACY);
	fx_enable_en(&fx, FX_EN_PF);
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	assert_int_equal(take_back(&fx, &fx.ev), ENG_NIL);
	assert_int_equal(fx.area.reason, 0);
	fx_expect_ready(&fx, APF_TOKEN_WAKE_ALL);
	assert_int_equal(fx_scan(&fx), ENG_READY_NONE);
}

/* Ids come up again in the order of the issue list: what comes back goes to its place. */
static void order_of_issue_is_kept_over_the_wrap(void **state)
{
	struct eng_event ready;
	struct fx fx;
	uint32_t first, ix, token;

	(void)state;
	fx_init_on(&fx, APF_REV_LEGACY);
	fx.v.next_id = 0xffffe;
	first = fx_sleeper(&fx, 1);
	token = fx.ev.token;
	fx_sleeper(&fx, 2);
	fx_sleeper(&fx, 3);
	assert_true(eng_page_ready(&fx.v, first));
	assert_int_equal(fx_scan(&fx), ENG_READY_SEND);
	ready = fx.ev;
	take_back(&fx, &ready);
	assert_int_equal(fx.v.faults[fx.v.issue_head].token, token);
	/* Its id comes up: it is passed over. */
	fx.v.next_id = 0xffffe;
	ix = fx_missing(&fx, 4);
	assert_int_not_equal(fx.v.faults[ix].token, token);
	fx_assert_sound(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_missing_was_never_sent),
		cmocka_unit_test(its_page_may_have_come),
		cmocka_unit_test(page_ready_is_due_again_before_all_others),
		cmocka_unit_test(a_wake_all_is_due_again),
		cmocka_unit_test(order_of_issue_is_kept_over_the_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
