/* SPDX-License-Identifier: Apache-2.0 */
/* base/size.c: sizes for people, and as options take them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/size.h"
#include "base/types.h"
#include "cli/opts.h"

#define KIB (1ull << 10)
#define GIB (1ull << 30)

static const struct {
	uint64_t bytes;
	const char *text, *word;
} rows[] = {
	{0, "0 bytes", "0"},
	{1, "1 bytes", "1"},
	{1023, "1023 bytes", "1023"},
	{KIB, "1 KiB", "1K"},
	{1536, "1.5 KiB", "1536"},
	{64 * MIB, "64 MiB", "64M"},
	{MIB - 1, "1.0 MiB", "1048575"},
	{12 * MIB + MIB / 4, "12.2 MiB", "12544K"},
	{4 * GIB - MIB, "4.0 GiB", "4095M"},
	{4 * GIB, "4 GiB", "4G"},
	{1024 * GIB, "1 TiB", "1T"},
	{1ull << 60, "1048576 TiB", "1048576T"},
	{UINT64_MAX, "16777216.0 TiB", "18446744073709551615"},
};

static void texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(SIZE_TEXT(rows[i].bytes), rows[i].text);
}

static void words_are_options(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t bytes = 1;

		assert_string_equal(SIZE_WORD(rows[i].bytes), rows[i].word);
		assert_int_equal(opts_size(rows[i].word, &bytes), 0);
		assert_true(bytes == rows[i].bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(words_are_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
