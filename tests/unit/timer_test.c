/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/timer.c: order, re-arming, cancelling, from outside and from callbacks; then a
 * seeded random run against a plain array that does the same by search.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/timer.h"

#define N 64

struct item;

struct fixture {
	struct timers ts;
	struct timer *heap[N];
	struct item *log[4 * N];
	unsigned logged;
};

struct item {
	struct timer tm;
	struct fixture *fx;
	/* What the callback does besides logging. */
	struct item *arm;
	uint64_t arm_due_ns;
	struct item *cancel;
	uint64_t next_ns; /* out: timers_next_ns() at its end */
};

static void item_fire(struct timer *tm, uint64_t now_ns)
{
	struct item *it = CONTAINER_OF(tm, struct item, tm);

	assert_false(timer_armed(tm));
	assert_true(tm->due_ns <= now_ns);
	it->fx->log[it->fx->logged++] = it;
	if (it->arm)
		timer_arm(&it->fx->ts, &it->arm->tm, it->arm_due_ns);
	if (it->cancel)
		timer_cancel(&it->fx->ts, &it->cancel->tm);
	it->next_ns = timers_next_ns(&it->fx->ts);
}

static void fixture_init(struct fixture *fx, struct item *items, unsigned n, uint32_t cap)
{
	*fx = (struct fixture){.logged = 0};
	timers_init(&fx->ts, fx->heap, cap);
	for (unsigned i = 0; i < n; i++)
		items[i] = (struct item){.tm.fire = item_fire, .fx = fx};
}

static void fires_in_order_and_only_what_is_due(void **state)
{
	static const uint64_t due_ns[] = {50, 10, 40, 20, 30};
	struct item it[5];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 5, 5);
	assert_true(timers_next_ns(&fx.ts) == NS_NEVER);
	assert_int_equal(timers_run(&fx.ts, NS_NEVER - 1), 0);
	for (int i = 0; i < 5; i++)
		timer_arm(&fx.ts, &it[i].tm, due_ns[i]);
	assert_int_equal(timers_next_ns(&fx.ts), 10);
	assert_int_equal(timers_run(&fx.ts, 9), 0);
	assert_int_equal(timers_run(&fx.ts, 30), 3);
	assert_ptr_equal(fx.log[0], &it[1]);
	assert_ptr_equal(fx.log[1], &it[3]);
	assert_ptr_equal(fx.log[2], &it[4]);
	assert_int_equal(timers_next_ns(&fx.ts), 40);
	assert_int_equal(timers_run(&fx.ts, 1000), 2);
	assert_int_equal(timers_run(&fx.ts, 1000), 0);
}

static void rearm_moves_both_ways(void **state)
{
	struct item it[3];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 3, 3);
	for (unsigned i = 0; i < 3; i++)
		timer_arm(&fx.ts, &it[i].tm, 10 * (i + 1));
	timer_arm(&fx.ts, &it[0].tm, 100);
	timer_arm(&fx.ts, &it[2].tm, 5);
	assert_int_equal(timers_next_ns(&fx.ts), 5);
	assert_int_equal(timers_run(&fx.ts, 20), 2);
	assert_ptr_equal(fx.log[0], &it[2]);
	assert_ptr_equal(fx.log[1], &it[1]);
	assert_true(timer_armed(&it[0].tm));
}

static void cancel_is_harmless_twice(void **state)
{
	struct item it[2];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 2, 2);
	timer_cancel(&fx.ts, &it[0].tm);
	timer_arm(&fx.ts, &it[0].tm, 1);
	timer_arm(&fx.ts, &it[1].tm, 2);
	timer_cancel(&fx.ts, &it[0].tm);
	timer_cancel(&fx.ts, &it[0].tm);
	assert_false(timer_armed(&it[0].tm));
	assert_int_equal(timers_run(&fx.ts, 5), 1);
	assert_ptr_equal(fx.log[0], &it[1]);
}

/* A timer that arms itself for the past would otherwise keep the run going for ever. */
static void rearmed_for_the_past_waits_for_the_next_run(void **state)
{
	struct item it[2];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 2, 2); /* full: no spare slot hides an overlap */
	it[0].arm = &it[0];
	it[0].arm_due_ns = 3;
	timer_arm(&fx.ts, &it[0].tm, 1);
	timer_arm(&fx.ts, &it[1].tm, 2);
	assert_int_equal(timers_run(&fx.ts, 10), 2);
	assert_int_equal(it[0].next_ns, 2);
	assert_int_equal(it[1].next_ns, 3);
	assert_ptr_equal(fx.log[0], &it[0]);
	assert_ptr_equal(fx.log[1], &it[1]);
	assert_true(timer_armed(&it[0].tm));
	assert_int_equal(timers_next_ns(&fx.ts), 3);
	assert_int_equal(timers_run(&fx.ts, 10), 1);
	assert_ptr_equal(fx.log[2], &it[0]);
}

static void callback_arms_for_later_and_it_fires_later(void **state)
{
	struct item it[1];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 1, 1);
	it[0].arm = &it[0];
	it[0].arm_due_ns = 11;
	timer_arm(&fx.ts, &it[0].tm, 1);
	assert_int_equal(timers_run(&fx.ts, 10), 1);
	assert_int_equal(timers_run(&fx.ts, 10), 0);
	assert_int_equal(timers_run(&fx.ts, 11), 1);
}

static void callback_cancels_one_that_is_due(void **state)
{
	struct item it[3];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 3, 3);
	it[0].cancel = &it[1];
	for (unsigned i = 0; i < 3; i++)
		timer_arm(&fx.ts, &it[i].tm, i + 1);
	assert_int_equal(timers_run(&fx.ts, 10), 2);
	assert_ptr_equal(fx.log[1], &it[2]);
	assert_false(timer_armed(&it[1].tm));
}

/* 0 arms 2 for the past (set aside), 1 cancels it again: neither run may fire it. */
static void callback_cancels_one_set_aside(void **state)
{
	struct item it[4];
	struct fixture fx;

	(void)state;
	fixture_init(&fx, it, 4, 4);
	it[0].arm = &it[2];
	it[0].arm_due_ns = 1;
	it[1].arm = &it[3];
	it[1].arm_due_ns = 2;
	it[1].cancel = &it[2];
	timer_arm(&fx.ts, &it[0].tm, 1);
	timer_arm(&fx.ts, &it[1].tm, 2);
	assert_int_equal(timers_run(&fx.ts, 10), 2);
	assert_false(timer_armed(&it[2].tm));
	assert_int_equal(timers_run(&fx.ts, 10), 1);
	assert_ptr_equal(fx.log[2], &it[3]);
}

/*
 * Random arms, re-arms, cancels and runs over N timers, each step compared with a search
 * over all. Some timers re-arm themselves for the past from their callback.
 */
static void random_run_equals_search(void **state)
{
	struct item it[N];
	bool armed[N] = {false};
	struct fixture fx;
	struct prng p;
	uint64_t now_ns = 0;

	(void)state;
	prng_init(&p, 42);
	fixture_init(&fx, it, N, N);
	for (int step = 0; step < 200000; step++) {
		unsigned i = (unsigned)prng_below(&p, N);

		switch (prng_below(&p, 8)) {
		case 0: case 1: case 2: case 3:
			timer_arm(&fx.ts, &it[i].tm, now_ns + prng_below(&p, 100));
			armed[i] = true;
			it[i].arm = prng_below(&p, 4) ? NULL : &it[i];
			it[i].arm_due_ns = now_ns;
			break;
		case 4: case 5:
			timer_cancel(&fx.ts, &it[i].tm);
			armed[i] = false;
			break;
		default: {
			unsigned due = 0;

			now_ns += prng_below(&p, 30);
			for (unsigned k = 0; k < N; k++)
				due += armed[k] && it[k].tm.due_ns <= now_ns;
			fx.logged = 0;
			assert_int_equal(timers_run(&fx.ts, now_ns), due);
			for (unsigned k = 0; k < fx.logged; k++) {
				struct item *fired = fx.log[k];

				assert_true(armed[fired - it]);
				armed[fired - it] = fired->arm != NULL;
				fired->arm = NULL;
			}
		}
		}
		uint64_t next_ns = NS_NEVER;

		for (unsigned k = 0; k < N; k++) {
			assert_true(armed[k] == timer_armed(&it[k].tm));
			if (armed[k])
				next_ns = min_u64(next_ns, it[k].tm.due_ns);
		}
		assert_true(timers_next_ns(&fx.ts) == next_ns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fires_in_order_and_only_what_is_due),
		cmocka_unit_test(rearm_moves_both_ways),
		cmocka_unit_test(cancel_is_harmless_twice),
		cmocka_unit_test(rearmed_for_the_past_waits_for_the_next_run),
		cmocka_unit_test(callback_arms_for_later_and_it_fires_later),
		cmocka_unit_test(callback_cancels_one_that_is_due),
		cmocka_unit_test(callback_cancels_one_set_aside),
		cmocka_unit_test(random_run_equals_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
