/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/pace.h: how much is read at once of sources near and far, slow and fast; strays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/pace.h"

/* A source of such a latency and transfer rate, read as it wants to be until it knows it. */
static uint32_t settled(uint64_t latency_ns, uint64_t byte_ps)
{
	struct pace p = {.block_ns = 0};

	for (unsigned i = 0; i < 200; i++) {
		uint64_t bytes = max_u64(pace_bytes(&p), PAGE_BYTES);

		if (i % 4 == 0 || bytes == PAGE_BYTES)
			pace_sample(&p, PAGE_BYTES, false,
				    latency_ns + PAGE_BYTES * byte_ps / 1000);
		else
			pace_sample(&p, bytes, true, latency_ns + bytes * byte_ps / 1000);
	}
	return pace_bytes(&p);
}

static void nothing_is_known_of_a_new_source(void **state)
{
	struct pace p = {.block_ns = 0};

	(void)state;
	assert_int_equal(pace_bytes(&p), 0);
	/* One read is enough for a first guess, and one by that for the next. */
	pace_sample(&p, PAGE_BYTES, false, 21 * NS_PER_MS);
	assert_int_equal(pace_bytes(&p), PACE_BYTES_FIRST);
	pace_sample(&p, PACE_BYTES_FIRST, true, 22 * NS_PER_MS);
	assert_in_range(pace_bytes(&p), 1500000, PACE_BYTES_MAX);
	/* What is slow, and not far, is not asked for seconds of it. */
	p = (struct pace){.block_ns = 62 * NS_PER_MS};
	pace_sample(&p, PACE_BYTES_FIRST, true, 500 * NS_PER_MS);
	assert_in_range(pace_bytes(&p), 0, 2 * PACE_BYTES_FIRST);
}

static void the_way_takes_as_long_as_the_bytes(void **state)
{
	(void)state;
	/* A store that is far away: 21 ms, 100 MB/s, or more. */
	assert_in_range(settled(21 * NS_PER_MS, 10000), 2000000, PACE_BYTES_MAX);
	assert_int_equal(settled(21 * NS_PER_MS, 1000), PACE_BYTES_MAX);
	/* The same by a slow line of 8 MB/s. */
	assert_in_range(settled(21 * NS_PER_MS, 125000), 120 << 10, 220 << 10);
	/* The page cache: less than two blocks. */
	assert_in_range(settled(NS_PER_US / 2, 200), 0, 8191);
	/* An NVMe drive. */
	assert_in_range(settled(80 * NS_PER_US, 1000), 32 << 10, 128 << 10);
}

static void a_stray_does_not_count_for_a_thousand(void **state)
{
	struct pace p = {.block_ns = 0};
	uint32_t before;

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		pace_sample(&p, PAGE_BYTES, false, 20 * NS_PER_US);
	before = pace_bytes(&p);
	pace_sample(&p, PAGE_BYTES, false, NS_PER_S);
	assert_in_range(pace_bytes(&p), before, 2 * before);
}

/* Of a source 12 ms away, pieces of two blocks; one in four takes twice as long as it should. */
static void little_tells_little(void **state)
{
	struct pace p = {.block_ns = 0};

	(void)state;
	pace_sample(&p, PAGE_BYTES, false, 12 * NS_PER_MS);
	for (unsigned i = 0; i < 100; i++)
		pace_sample(&p, max_u64(pace_bytes(&p), PAGE_BYTES), true, 13 * NS_PER_MS);
	assert_int_equal(pace_bytes(&p), PACE_BYTES_MAX);
	for (unsigned i = 0; i < 100; i++)
		pace_sample(&p, 2 * PAGE_BYTES, true, (i % 4 ? 12 : 24) * NS_PER_MS);
	assert_in_range(pace_bytes(&p), PACE_BYTES_MAX / 4, PACE_BYTES_MAX);
	/* But a line that has become slow shows at once. */
	for (unsigned i = 0; i < 10; i++)
		pace_sample(&p, max_u64(pace_bytes(&p), 2 * PAGE_BYTES), true, NS_PER_S);
	assert_in_range(pace_bytes(&p), 0, 128 << 10);
}

/* No sample is too large, or too small, for a request of a sensible size. */
static void nothing_overflows(void **state)
{
	static const uint64_t times[] = {0, 1, NS_PER_S, 1ull << 40, UINT64_MAX / 2};
	struct pace p = {.block_ns = 0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(times) * ARRAY_LEN(times) * 4; i++) {
		pace_sample(&p, PAGE_BYTES, false, times[i % ARRAY_LEN(times)]);
		pace_sample(&p, PACE_BYTES_MAX, true, times[i / 4 % ARRAY_LEN(times)] >> 10);
		assert_in_range(pace_bytes(&p), 0, PACE_BYTES_MAX);
		assert_true(p.byte_ps > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_of_a_new_source),
		cmocka_unit_test(the_way_takes_as_long_as_the_bytes),
		cmocka_unit_test(a_stray_does_not_count_for_a_thousand),
		cmocka_unit_test(little_tells_little),
		cmocka_unit_test(nothing_overflows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
