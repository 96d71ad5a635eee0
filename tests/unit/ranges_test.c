/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/ranges.c, against a map of bytes: what is added at random, and refused where it meets what
 * is there, or where there is no room.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/prng.h"
#include "base/ranges.h"
#include "base/types.h"

#define BYTES 64u
#define ROOM 6u

static bool any(const bool *map, uint64_t from, uint64_t to, bool want)
{
	for (uint64_t i = from; i < to; i++)
		if (map[i] == want)
			return true;
	return false;
}

static size_t runs(const bool *map)
{
	size_t n = 0;

	for (unsigned i = 0; i < BYTES; i++)
		n += map[i] && (i == 0 || !map[i - 1]);
	return n;
}

static void compare(const struct ranges *r, const bool *map)
{
	assert_int_equal(r->count, runs(map));
	for (uint64_t from = 0; from < BYTES; from++)
		for (uint64_t to = from + 1; to <= BYTES; to++)
			assert_int_equal(ranges_have(r, from, to), !any(map, from, to, false));
}

static void as_a_map_has_it(void **state)
{
	struct prng random;

	(void)state;
	prng_init(&random, 19);
	for (unsigned round = 0; round < 300; round++) {
		struct range at[ROOM];
		struct ranges r = {.at = at, .max = ROOM};
		bool map[BYTES] = {false}, more[BYTES];

		for (unsigned i = 0; i < 40; i++) {
			uint64_t from = prng_below(&random, BYTES);
			uint64_t to = from + 1 + prng_below(&random, min_u64(BYTES - from, 6));
			enum ranges_added want = RANGES_ADDED;

			memcpy(more, map, sizeof(more));
			memset(more + from, true, to - from);
			if (any(map, from, to, true))
				want = RANGES_OVERLAP;
			else if (runs(more) > ROOM)
				want = RANGES_FULL;
			assert_int_equal(ranges_add(&r, from, to), want);
			if (want == RANGES_ADDED)
				memcpy(map, more, sizeof(map));
			compare(&r, map);
		}
	}
}

static void at_the_ends(void **state)
{
	struct range at[2];
	struct ranges r = {.at = at, .max = 2};

	(void)state;
	assert_false(ranges_have(&r, 0, 1));
	assert_int_equal(ranges_add(&r, UINT64_MAX - 1, UINT64_MAX), RANGES_ADDED);
	assert_int_equal(ranges_add(&r, 0, UINT64_MAX - 1), RANGES_ADDED);
	assert_int_equal(r.count, 1);
	assert_true(ranges_have(&r, 0, UINT64_MAX));
	assert_int_equal(ranges_add(&r, 5, 6), RANGES_OVERLAP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_a_map_has_it),
		cmocka_unit_test(at_the_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
