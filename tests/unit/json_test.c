/* SPDX-License-Identifier: Apache-2.0 */
/* cli/json/json.c: shape, escaping, numbers, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "cli/json/json.h"

struct doc {
	struct json j;
	char *text;
	size_t len;
};

static void doc_begin(struct doc *d)
{
	FILE *f = open_memstream(&d->text, &d->len);

	assert_non_null(f);
	json_init(&d->j, f);
}

static void doc_expect(struct doc *d, const char *want)
{
	assert_int_equal(json_end(&d->j), 0);
	fclose(d->j.out);
	assert_string_equal(d->text, want);
	free(d->text);
}

static void expect_text(const char *value, const char *want)
{
	struct doc d;

	doc_begin(&d);
	json_text(&d.j, NULL, value);
	doc_expect(&d, want);
}

static void nesting(void **state)
{
	struct doc d;

	(void)state;
	doc_begin(&d);
	json_object_open(&d.j, NULL);
	json_u64(&d.j, "a", 1);
	json_array_open(&d.j, "b");
	json_bool(&d.j, NULL, true);
	json_object_open(&d.j, NULL);
	json_close(&d.j);
	json_close(&d.j);
	json_array_open(&d.j, "c");
	json_close(&d.j);
	json_close(&d.j);
	doc_expect(&d, "{\n  \"a\": 1,\n  \"b\": [\n    true,\n    {}\n  ],\n  \"c\": []\n}\n");
}

static void lines_of_outer_levels(void **state)
{
	struct doc d;

	(void)state;
	doc_begin(&d);
	d.j.compact = true;
	d.j.lines = 1;
	json_array_open(&d.j, NULL);
	for (unsigned i = 0; i < 2; i++) {
		json_object_open(&d.j, NULL);
		json_thousandths(&d.j, "a", i ? 1234567 : 5);
		json_array_open(&d.j, "b");
		json_u64(&d.j, NULL, 1);
		json_u64(&d.j, NULL, 2);
		json_close(&d.j);
		json_close(&d.j);
	}
	json_close(&d.j);
	doc_expect(&d, "[\n  {\"a\": 0.005, \"b\": [1, 2]},\n"
		       "  {\"a\": 1234.567, \"b\": [1, 2]}\n]\n");
}

static void compact(void **state)
{
	struct doc d;

	(void)state;
	doc_begin(&d);
	d.j.compact = true;
	json_object_open(&d.j, NULL);
	json_u64(&d.j, "a", 1);
	json_array_open(&d.j, "b");
	json_bool(&d.j, NULL, true);
	json_object_open(&d.j, NULL);
	json_close(&d.j);
	json_close(&d.j);
	json_close(&d.j);
	doc_expect(&d, "{\"a\": 1, \"b\": [true, {}]}\n");
}

static void strings_are_escaped(void **state)
{
	(void)state;
	expect_text("plain", "\"plain\"\n");
	expect_text("", "\"\"\n");
	expect_text(NULL, "null\n");
	expect_text("a\"b\\c/d", "\"a\\\"b\\\\c/d\"\n");
	expect_text("\n\t\x01\x7f", "\"\\u000a\\u0009\\u0001\\u007f\"\n");
}

static void bytes_that_are_not_utf8_are_replaced(void **state)
{
	(void)state;
	expect_text("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
		    "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"\n");
	expect_text("\xff", "\"\\ufffd\"\n");
	expect_text("\xc0\x80", "\"\\ufffd\\ufffd\"\n");         /* overlong NUL */
	expect_text("\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"\n"); /* surrogate */
	expect_text("\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"\n");
	expect_text("x\xe2\x82", "\"x\\ufffd\\ufffd\"\n"); /* cut short by the end */
	expect_text("\xe2\"", "\"\\ufffd\\\"\"\n");
}

static void keys_are_escaped_too(void **state)
{
	struct doc d;

	(void)state;
	doc_begin(&d);
	json_object_open(&d.j, NULL);
	json_text(&d.j, "k\"", "v");
	json_close(&d.j);
	doc_expect(&d, "{\n  \"k\\\"\": \"v\"\n}\n");
}

static void ready_made_values_stand_as_they_are(void **state)
{
	static const char value[] = "{\"a\":1} and more";
	struct doc d;

	(void)state;
	doc_begin(&d);
	json_array_open(&d.j, NULL);
	json_raw(&d.j, NULL, value, 7);
	json_object_open(&d.j, NULL);
	json_raw(&d.j, "k", value, 7);
	json_close(&d.j);
	json_close(&d.j);
	doc_expect(&d, "[\n  {\"a\":1},\n  {\n    \"k\": {\"a\":1}\n  }\n]\n");
}

static void numbers(void **state)
{
	struct doc d;

	(void)state;
	doc_begin(&d);
	json_array_open(&d.j, NULL);
	json_u64(&d.j, NULL, UINT64_MAX);
	json_i64(&d.j, NULL, INT64_MIN);
	json_f64(&d.j, NULL, 0.5);
	json_f64(&d.j, NULL, (double)NAN);
	json_f64(&d.j, NULL, (double)INFINITY);
	json_close(&d.j);
	doc_expect(&d, "[\n  18446744073709551615,\n  -9223372036854775808,\n  0.5,\n"
		       "  null,\n  null\n]\n");
}

static void a_failed_write_is_reported(void **state)
{
	char small[4];
	FILE *f = fmemopen(small, sizeof(small), "w");
	struct json j;

	(void)state;
	assert_non_null(f);
	json_init(&j, f);
	json_text(&j, NULL, "longer than four bytes");
	assert_int_equal(json_end(&j), -EIO);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nesting),
		cmocka_unit_test(compact),
		cmocka_unit_test(lines_of_outer_levels),
		cmocka_unit_test(strings_are_escaped),
		cmocka_unit_test(bytes_that_are_not_utf8_are_replaced),
		cmocka_unit_test(keys_are_escaped_too),
		cmocka_unit_test(ready_made_values_stand_as_they_are),
		cmocka_unit_test(numbers),
		cmocka_unit_test(a_failed_write_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
