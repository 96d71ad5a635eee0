/* SPDX-License-Identifier: Apache-2.0 */
/* base/sum.h: every bit of a page counts, and so does where things are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/sum.h"
#include "base/types.h"

static _Alignas(8) unsigned char page[PAGE_BYTES];

static void fill(uint64_t seed)
{
	struct prng rng;

	prng_init(&rng, seed);
	for (size_t at = 0; at < sizeof(page); at += 8) {
		uint64_t word = seed ? prng_next(&rng) : 0;

		memcpy(page + at, &word, sizeof(word));
	}
}

static void each_bit_counts(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 2; seed++) {
		fill(seed);
		uint32_t sum = sum_of(page, sizeof(page));

		for (unsigned bit = 0; bit < 8 * PAGE_BYTES; bit++) {
			page[bit / 8] ^= (unsigned char)(1u << bit % 8);
			assert_int_not_equal(sum_of(page, sizeof(page)), sum);
			page[bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
		assert_int_equal(sum_of(page, sizeof(page)), sum);
	}
}

/* Which a multiplication alone would carry nowhere, or a plain sum would not tell apart. */
static void changes_do_not_make_up_for_each_other(void **state)
{
	uint32_t sum;

	(void)state;
	fill(1);
	sum = sum_of(page, sizeof(page));
	for (size_t at = 7; at + 32 < sizeof(page); at += 8) {
		page[at] ^= 0x80;
		page[at + 32] ^= 0x80;
		assert_int_not_equal(sum_of(page, sizeof(page)), sum);
		page[at] ^= 0x80;
		page[at + 32] ^= 0x80;
	}
	for (size_t at = 0; at + 16 <= sizeof(page); at += 8) {
		unsigned char words[16], swapped[16];

		memcpy(words, page + at, 16);
		memcpy(swapped, words + 8, 8);
		memcpy(swapped + 8, words, 8);
		memcpy(page + at, swapped, 16);
		assert_int_not_equal(sum_of(page, sizeof(page)), sum);
		memcpy(page + at, words, 16);
	}
}

static void the_length_counts(void **state)
{
	(void)state;
	fill(0);
	assert_int_not_equal(sum_of(page, PAGE_BYTES), sum_of(page, PAGE_BYTES / 2));
	assert_int_not_equal(sum_of(page, 0), sum_of(page, 32));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_bit_counts),
		cmocka_unit_test(changes_do_not_make_up_for_each_other),
		cmocka_unit_test(the_length_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
