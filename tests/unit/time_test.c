/* SPDX-License-Identifier: Apache-2.0 */
/* Times in nanoseconds, there and back, and clocks that there are not. Test of base/time.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>
#include <time.h>

#include "base/time.h"
#include "base/types.h"

static void there_and_back(void **state)
{
	const uint64_t rows[] = {0, 1, NS_PER_S - 1, NS_PER_S, NS_PER_S + 1, 1234567890123456789ull,
				 NS_NEVER};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct timespec ts = timespec_of_ns(rows[i]);

		assert_in_range(ts.tv_nsec, 0, NS_PER_S - 1);
		assert_int_equal(ts.tv_sec, rows[i] / NS_PER_S);
		assert_int_equal(ns_of_timespec(ts), rows[i]);
	}
}

static void time_goes_on(void **state)
{
	uint64_t first = monotonic_ns(), next = monotonic_ns();

	(void)state;
	assert_true(first > 0);
	assert_true(next >= first);
}

static void no_such_clock_is_zero(void **state)
{
	(void)state;
	assert_int_equal(clock_ns((clockid_t)1000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(time_goes_on),
		cmocka_unit_test(no_such_clock_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
