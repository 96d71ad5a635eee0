/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/prng.h: the published splitmix64 sequence (so that a seed keeps its meaning),
 * and the range and rough evenness of prng_below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"

static void matches_published_sequence(void **state)
{
	static const uint64_t expect[] = {
		6457827717110365317ull, 3203168211198807973ull, 9817491932198370423ull,
		4593380528125082431ull, 16408922859458223821ull,
	};
	struct prng p;

	(void)state;
	prng_init(&p, 1234567);
	for (size_t i = 0; i < sizeof(expect) / sizeof(expect[0]); i++)
		assert_true(prng_next(&p) == expect[i]);
}

static void below_stays_below_and_is_even(void **state)
{
	unsigned count[10] = {0};
	struct prng p;

	(void)state;
	prng_init(&p, 0);
	for (int i = 0; i < 100000; i++) {
		uint64_t v = prng_below(&p, 10);

		assert_true(v < 10);
		count[v]++;
	}
	/* 10000 expected, standard deviation about 95. */
	for (int i = 0; i < 10; i++)
		assert_in_range(count[i], 9500, 10500);
	assert_int_equal(prng_below(&p, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches_published_sequence),
		cmocka_unit_test(below_stays_below_and_is_even),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
