/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/hist.h: buckets are gapless and ordered, the promised error holds, quantiles
 * are those of the sorted values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hist.h"

static void small_values_are_exact(void **state)
{
	(void)state;
	for (unsigned v = 0; v < 8; v++) {
		assert_int_equal(hist_bucket(v), v);
		assert_int_equal(hist_bucket_lo(v), v);
	}
}

/* Each bucket begins where the one before ends: lo(b) is in b, lo(b) - 1 in b - 1. */
static void buckets_have_no_gap(void **state)
{
	(void)state;
	for (unsigned b = 1; b < HIST_BUCKETS; b++) {
		assert_int_equal(hist_bucket(hist_bucket_lo(b)), b);
		assert_int_equal(hist_bucket(hist_bucket_lo(b) - 1), b - 1);
	}
}

static void error_is_below_an_eighth(void **state)
{
	(void)state;
	for (unsigned b = 8; b + 1 < HIST_BUCKETS; b++) {
		uint64_t lo = hist_bucket_lo(b);

		assert_true((hist_bucket_lo(b + 1) - lo) * 8 <= lo);
	}
}

static void huge_values_go_into_the_last_bucket(void **state)
{
	(void)state;
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket(1ull << 63), HIST_BUCKETS - 1);
}

static void quantiles_of_a_known_set(void **state)
{
	uint32_t hist[HIST_BUCKETS] = {0};

	(void)state;
	assert_int_equal(hist_quantile(hist, 1, 2, 0), 0);
	/* 1 x 2, 2 x 5, 1 x 1000: sorted 2 5 5 1000 */
	hist[hist_bucket(2)]++;
	hist[hist_bucket(5)] += 2;
	hist[hist_bucket(1000)]++;
	assert_int_equal(hist_quantile(hist, 1, 4, 1000), 2);
	assert_int_equal(hist_quantile(hist, 1, 2, 1000), 5);
	assert_int_equal(hist_quantile(hist, 3, 4, 1000), 5);
	assert_in_range(hist_quantile(hist, 1, 1, 1000), 875, 1000);
	assert_int_equal(hist_quantile(hist, 1, 1000000, 1000), 2);
}

/* The middle of a bucket may be above all that is in it: each value alone. */
static void no_quantile_is_above_the_largest_value(void **state)
{
	static uint32_t hist[HIST_BUCKETS];

	(void)state;
	for (uint64_t us = 0; us < 100000; us += 1 + us / 50) {
		unsigned b = hist_bucket(us);

		hist[b]++;
		assert_true(hist_quantile(hist, 99, 100, us) <= us);
		assert_true(hist_quantile(hist, 1, 1, us) >= hist_bucket_lo(b));
		hist[b]--;
	}
	hist[HIST_BUCKETS - 1] = 1;
	assert_true(hist_quantile(hist, 1, 1, UINT64_MAX) <= UINT64_MAX);
	assert_int_equal(hist_quantile(hist, 1, 1, 7), 7);
	hist[HIST_BUCKETS - 1] = 0;
}

static void last_bucket_has_a_value(void **state)
{
	uint32_t hist[HIST_BUCKETS] = {0};

	(void)state;
	hist[HIST_BUCKETS - 1] = 1;
	assert_true(hist_quantile(hist, 1, 2, UINT64_MAX) >= hist_bucket_lo(HIST_BUCKETS - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_values_are_exact),
		cmocka_unit_test(buckets_have_no_gap),
		cmocka_unit_test(error_is_below_an_eighth),
		cmocka_unit_test(huge_values_go_into_the_last_bucket),
		cmocka_unit_test(quantiles_of_a_known_set),
		cmocka_unit_test(no_quantile_is_above_the_largest_value),
		cmocka_unit_test(last_bucket_has_a_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
