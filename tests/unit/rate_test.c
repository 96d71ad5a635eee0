/* SPDX-License-Identifier: Apache-2.0 */
/* base/rate.c: what goes at once, what goes in the long run, and numbers at their ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/rate.h"

#define START_NS (1000 * NS_PER_S)

/* Takes units as soon as it may; returns when. */
static uint64_t take(struct rate *r, uint64_t units, uint64_t now)
{
	uint64_t wait = rate_wait_ns(r, now);

	if (wait > 0) {
		assert_true(rate_wait_ns(r, now + wait - 1) == 1);
		assert_true(rate_wait_ns(r, now + wait) == 0);
	}
	rate_take(r, units, now + wait);
	return now + wait;
}

static void a_burst_then_the_rate(void **state)
{
	uint64_t now = START_NS;
	struct rate r;

	(void)state;
	/* More than comes in a tenth of a second: as it was asked for. */
	rate_init(&r, 1000, 500);
	/* Up to and including what overdraws it. */
	for (unsigned i = 0; i <= 500; i++)
		assert_true(take(&r, 1, now) == START_NS);
	for (unsigned i = 1; i <= 2000; i++) {
		now = take(&r, 1, now);
		assert_true(now == START_NS + i * NS_PER_MS);
	}
	/* However long the rest: no more than the burst. */
	now += 3600 * NS_PER_S;
	for (unsigned i = 0; i <= 500; i++)
		assert_true(take(&r, 1, now) == now);
	assert_true(rate_wait_ns(&r, now) == NS_PER_MS);
}

/* Rates that divide nothing, sizes at random, a taker that comes too late now and then. */
static void it_does_not_drift(void **state)
{
	static const uint64_t rates[] = {3, 7, 1000003, 999999937, 64 << 20};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
		uint64_t now = START_NS, all = 0, last = 0;
		struct prng p;
		struct rate r;

		prng_init(&p, i);
		rate_init(&r, rates[i], 0);
		for (unsigned n = 0; n < 200000; n++) {
			uint64_t units = 1 + prng_below(&p, rates[i] / 100 + 2);
			uint64_t late = prng_below(&p, 64) == 0 ? prng_below(&p, NS_PER_S / 20) : 0;

			now = take(&r, units, now) + late;
			all += units;
			last = units;
		}
		/* All but the last is paid for, less the burst; and nothing is lost. */
		__extension__ typedef unsigned __int128 wide;
		uint64_t owed = (uint64_t)((wide)all * NS_PER_S / rates[i]);
		uint64_t credit = NS_PER_S / 10 + (uint64_t)((wide)last * NS_PER_S / rates[i]);

		assert_true(now - START_NS + credit + 1 >= owed);
		assert_true(now - START_NS <= owed + NS_PER_S / 20);
	}
}

/* Of two that share one by turns, neither pays for more than was taken before it. */
static void who_takes_little_waits_for_what_is_taken(void **state)
{
	uint64_t now = START_NS, little = 0, much = 0;
	struct rate r;

	(void)state;
	rate_init(&r, 1000000, 0);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t before = now;

		now = take(&r, 65536, now);
		much += now - before;
		before = now;
		now = take(&r, 512, now);
		little += now - before;
		assert_true(now - before <= 65536 * 1000ull);
	}
	/* What each waits is what the other took: the debt is paid by who comes next. */
	assert_true(little > much);
	assert_true(now - START_NS + 100 * NS_PER_MS + 66048000 >= 1000 * 66048000ull);
}

static void no_rate_is_no_limit(void **state)
{
	struct rate r;

	(void)state;
	rate_init(&r, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		assert_true(take(&r, UINT64_MAX, UINT64_MAX - 1) == UINT64_MAX - 1);
}

static void numbers_at_their_ends(void **state)
{
	struct rate r;

	(void)state;
	/* As good as none. */
	rate_init(&r, UINT64_MAX, UINT64_MAX);
	for (unsigned i = 0; i < 100; i++)
		assert_true(take(&r, 1ull << 40, START_NS) == START_NS);
	rate_init(&r, UINT64_MAX, 0);
	rate_take(&r, UINT64_MAX, START_NS);
	assert_true(r.paid_ns == START_NS + NS_PER_S);
	/* Never again, and nothing wraps. */
	rate_init(&r, 1, 0);
	rate_take(&r, UINT64_MAX, START_NS);
	rate_take(&r, UINT64_MAX, START_NS);
	assert_true(r.paid_ns == UINT64_MAX);
	assert_true(rate_wait_ns(&r, START_NS) == UINT64_MAX - START_NS - NS_PER_S / 10);
	assert_true(rate_wait_ns(&r, UINT64_MAX) == 0);
	/* One unit in a second, of which the burst is one. */
	rate_init(&r, 1, 1);
	assert_true(take(&r, 1, START_NS) == START_NS);
	assert_true(take(&r, 1, START_NS) == START_NS);
	assert_true(take(&r, 1, START_NS) == START_NS + NS_PER_S);
	/* A burst that takes for ever to come together is there at the start. */
	rate_init(&r, 1, UINT64_MAX);
	assert_true(r.burst_ns == UINT64_MAX);
	assert_true(take(&r, 1ull << 30, START_NS) == START_NS);
	assert_true(take(&r, 1, START_NS) == START_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_then_the_rate),
		cmocka_unit_test(it_does_not_drift),
		cmocka_unit_test(who_takes_little_waits_for_what_is_taken),
		cmocka_unit_test(no_rate_is_no_limit),
		cmocka_unit_test(numbers_at_their_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
