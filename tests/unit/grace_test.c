/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/host/grace.h: the window opens for a source that is fast, stays shut for one that is
 * slow, and changes its mind within a few reads. How a fault uses it: host_vcpu_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/grace.h"

static struct grace after(unsigned fast, unsigned slow)
{
	struct grace g;

	grace_init(&g);
	while (fast--)
		grace_sample(&g, GRACE_WORTH_NS);
	while (slow--)
		grace_sample(&g, GRACE_WORTH_NS + 1);
	return g;
}

static void a_new_source_has_the_benefit_of_the_doubt(void **state)
{
	struct grace g = after(0, 0);

	(void)state;
	assert_int_equal(grace_ns(&g), GRACE_WORTH_NS);
	/* For about three reads, the header says. */
	g = after(0, 2);
	assert_int_equal(grace_ns(&g), GRACE_WORTH_NS);
	g = after(0, 4);
	assert_int_equal(grace_ns(&g), 0);
}

static void a_fast_source_is_waited_for(void **state)
{
	struct grace g = after(100, 0);

	(void)state;
	assert_int_equal(grace_ns(&g), GRACE_WORTH_NS);
	/* One stray does not change that; a dozen in a row do. */
	grace_sample(&g, NS_NEVER);
	assert_int_equal(grace_ns(&g), GRACE_WORTH_NS);
	g = after(100, 12);
	assert_int_equal(grace_ns(&g), 0);
}

static void a_slow_source_is_believed_again_when_it_is_fast(void **state)
{
	struct grace g = after(0, 1000);
	unsigned reads = 0;

	(void)state;
	assert_int_equal(grace_ns(&g), 0);
	while (grace_ns(&g) == 0) {
		grace_sample(&g, 0);
		assert_true(++reads < 20);
	}
	assert_true(reads > 5);
}

static void half_fast_is_fast_enough(void **state)
{
	struct grace g = {.fast = GRACE_ONE / 2};

	(void)state;
	assert_int_equal(grace_ns(&g), GRACE_WORTH_NS);
	g.fast--;
	assert_int_equal(grace_ns(&g), 0);
}

static void the_share_stays_within_its_range(void **state)
{
	struct grace g = after(100000, 0);

	(void)state;
	assert_true(g.fast <= GRACE_ONE && g.fast > GRACE_ONE * 9 / 10);
	g = after(0, 100000);
	assert_int_equal(g.fast, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_source_has_the_benefit_of_the_doubt),
		cmocka_unit_test(a_fast_source_is_waited_for),
		cmocka_unit_test(a_slow_source_is_believed_again_when_it_is_fast),
		cmocka_unit_test(half_fast_is_fast_enough),
		cmocka_unit_test(the_share_stays_within_its_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
