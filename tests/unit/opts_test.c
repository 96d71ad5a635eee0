/* SPDX-License-Identifier: Apache-2.0 */
/* cli/opts.c: numbers, sizes, every kind of option, the wording of every refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "cli/opts.h"

struct values {
	bool flag;
	const char *text;
	uint32_t small;
	uint64_t large;
	uint64_t size;
	int64_t automatic;
	unsigned choice;
	struct opts_list list;
	const char *any;
};

static const char *const words[] = {"red", "green", NULL};

static const struct opt rows[] = {
	{OPT_FLAG(struct values, flag), .name = "flag", .help = "A flag."},
	{OPT_TEXT(struct values, text), .name = "text", .arg = "T", .help = "A text."},
	{OPT_U32(struct values, small), .name = "small", .arg = "N", .min = 1, .max = 8,
	 .help = "A small number."},
	{OPT_U64(struct values, large), .name = "large", .arg = "N", .max = UINT64_MAX,
	 .help = "A number."},
	{OPT_SIZE(struct values, size), .name = "size", .arg = "SIZE", .min = 4096,
	 .max = 1ull << 40, .help = "A size."},
	{OPT_AUTO(struct values, automatic), .name = "grace", .arg = "N|auto", .max = 100,
	 .help = "A number or a word, with a help text that is much too long for one line of a "
		 "terminal of the usual width."},
	{OPT_CHOICE(struct values, choice), .name = "colour", .arg = "WORD", .choices = words,
	 .help = "One of a few words."},
	{OPT_LIST(struct values, list), .name = "layer", .arg = "T", .max = 3,
	 .help = "A layer; may be repeated."},
	{OPT_ANY(struct values, any), .name = "any", .arg = "T", .help = "A text, or none."},
	{.name = NULL},
};

static const struct opts table = {.verb = "paint", .about = "Paints.", .rows = rows};
static const struct opts table_with_operand = {
	.verb = "paint", .about = "Paints.", .operands = "FILE",
	.operands_min = 1, .operands_max = 1, .rows = rows,
};

/* Splits `line` at spaces and parses it; a text is compared before its memory goes. */
static enum opts_outcome parse(const struct opts *o, const char *line, struct values *v,
			       int *ret_operand, struct err *e)
{
	static const char verb[] = "paint";
	char *argv[16] = {(char *)(uintptr_t)verb};
	int argc = 1;
	char *copy = strdup(line);

	assert_non_null(copy);
	for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
		argv[argc++] = strcmp(w, "''") == 0 ? w + 2 : w;
	enum opts_outcome r = opts_parse(o, argc, argv, v, ret_operand, e);
	if (v->text) /* points into copy */
		v->text = strcmp(v->text, "a=b") == 0 ? "a=b" : "?";
	free(copy);
	return r;
}

static void expect_bad_of(const struct opts *o, const char *line, const char *text)
{
	struct values v = {0};
	struct err e = {0};
	int operand;

	assert_int_equal(parse(o, line, &v, &operand, &e), OPTS_BAD);
	assert_int_equal(e.code, -EINVAL);
	assert_string_equal(e.text, text);
}

static void expect_bad(const char *line, const char *text)
{
	expect_bad_of(&table, line, text);
}

static void numbers(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(opts_number("0", &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(opts_number("18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(opts_number("18446744073709551616", &v), -ERANGE);
	assert_int_equal(opts_number("99999999999999999999999", &v), -ERANGE);
	static const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x10", "1.5", "1K", "x"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(opts_number(bad[i], &v), -EINVAL);
	assert_true(v == UINT64_MAX); /* untouched on failure */
}

static void sizes(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(opts_size("512", &v), 0);
	assert_int_equal(v, 512);
	assert_int_equal(opts_size("4k", &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(opts_size("512M", &v), 0);
	assert_int_equal(v, 512ull << 20);
	assert_int_equal(opts_size("2G", &v), 0);
	assert_int_equal(v, 2ull << 30);
	assert_int_equal(opts_size("16777215T", &v), 0);
	assert_true(v == 16777215ull << 40);
	assert_int_equal(opts_size("0K", &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(opts_size("0004k", &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(opts_size("16777216T", &v), -ERANGE);
	assert_int_equal(opts_size("100000000000000000000000000", &v), -ERANGE);
	static const char *const bad[] = {"", "K", "1KB", "1Kk", "-1K", "1.5G", "1 K", "1P"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(opts_size(bad[i], &v), -EINVAL);
}

static void nearest(void **state)
{
	static const char *const verbs[] = {"doctor", "demo", NULL};

	(void)state;
	assert_string_equal(opts_nearest("docter", verbs), "doctor");
	assert_string_equal(opts_nearest("DOCTOR", verbs), "doctor");
	assert_string_equal(opts_nearest("doc", verbs), "doctor");
	assert_string_equal(opts_nearest("dmeo", (const char *const[]){"dmo", NULL}), "dmo");
	assert_null(opts_nearest("frobnicate", verbs));
	assert_null(opts_nearest("x", verbs));
	assert_null(opts_nearest("", verbs));
	assert_null(opts_nearest("a-word-that-is-longer-than-any-option-may-be", verbs));
}

static void every_kind_is_stored(void **state)
{
	struct values v = {0};
	struct err e = {0};
	int operand = 0;

	(void)state;
	assert_int_equal(parse(&table, "--flag --text a=b --small 8 --large=18446744073709551615 "
				       "--size 64K --grace 100 --colour green",
			       &v, &operand, &e), OPTS_RUN);
	assert_true(v.flag);
	assert_string_equal(v.text, "a=b");
	assert_int_equal(v.small, 8);
	assert_true(v.large == UINT64_MAX);
	assert_int_equal(v.size, 65536);
	assert_int_equal(v.automatic, 100);
	assert_int_equal(v.choice, 1);
	assert_int_equal(parse(&table, "--grace auto", &v, &operand, &e), OPTS_RUN);
	assert_int_equal(v.automatic, -1);
}

static void lists_keep_their_order(void **state)
{
	char *argv[] = {(char[]){"paint"}, (char[]){"--layer"}, (char[]){"a"}, (char[]){"--flag"},
			(char[]){"--layer=b=c"}, (char[]){"--any"}, (char[]){""}, NULL};
	struct values v = {0};
	struct err e = {0};
	int operand;

	(void)state;
	assert_int_equal(opts_parse(&table, 7, argv, &v, &operand, &e), OPTS_RUN);
	assert_int_equal(v.list.count, 2);
	assert_string_equal(v.list.text[0], "a");
	assert_string_equal(v.list.text[1], "b=c");
	assert_string_equal(v.any, "");
	expect_bad("--layer a --layer b --layer c --layer d",
		   "bad value: --layer d: given more than 3 times; see 'asyncpf paint --help'");
	expect_bad("--layer ''", "bad value: --layer '': it must not be empty; "
				 "see 'asyncpf paint --help'");
}

static void help_and_version_win(void **state)
{
	struct values v = {0};
	struct err e = {0};
	int operand;

	(void)state;
	assert_int_equal(parse(&table, "--flag --help", &v, &operand, &e), OPTS_HELP);
	assert_int_equal(parse(&table, "-h", &v, &operand, &e), OPTS_HELP);
	assert_int_equal(parse(&table, "--version", &v, &operand, &e), OPTS_VERSION);
}

static void bad_values(void **state)
{
	(void)state;
	expect_bad("--small 9", "bad value: --small 9: it must lie between 1 and 8; "
				"see 'asyncpf paint --help'");
	expect_bad("--small 0", "bad value: --small 0: it must lie between 1 and 8; "
				"see 'asyncpf paint --help'");
	expect_bad("--small 4294967297", "bad value: --small 4294967297: it must lie between 1 "
					 "and 8; see 'asyncpf paint --help'");
	expect_bad("--large -1", "bad value: --large -1: not a decimal number; "
				 "see 'asyncpf paint --help'");
	expect_bad("--size 12Q", "bad value: --size 12Q: not a size such as 4096, 64K, 512M or "
				 "2G; see 'asyncpf paint --help'");
	expect_bad("--grace soon", "bad value: --grace soon: neither a decimal number nor "
				   "'auto'; see 'asyncpf paint --help'");
	expect_bad("--colour blue", "bad value: --colour blue: it must be one of red, green; "
				    "see 'asyncpf paint --help'");
	expect_bad("--text ''", "bad value: --text '': it must not be empty; "
				"see 'asyncpf paint --help'");
}

static void bad_options(void **state)
{
	(void)state;
	expect_bad("--small", "missing value: --small: the option needs one; "
			      "see 'asyncpf paint --help'");
	expect_bad("--flag=1", "unexpected value: --flag=1: the option takes none; "
			       "see 'asyncpf paint --help'");
	expect_bad("--colur red", "unknown option: --colur: 'asyncpf paint' does not have it; "
				  "did you mean '--colour'?");
	expect_bad("--zebra", "unknown option: --zebra: 'asyncpf paint' does not have it; "
			      "see 'asyncpf paint --help'");
	expect_bad("--s 1", "ambiguous option: --s: more than one option starts so; "
			    "see 'asyncpf paint --help'");
	expect_bad("-x -y", "unknown option: -x: 'asyncpf paint' does not have it; "
			    "see 'asyncpf paint --help'");
	expect_bad("-xh", "unknown option: -x: 'asyncpf paint' does not have it; "
			  "see 'asyncpf paint --help'");
}

static void operands(void **state)
{
	struct values v = {0};
	struct err e = {0};
	int operand = 0;

	(void)state;
	expect_bad("stray", "unexpected operand: stray: 'asyncpf paint' takes none; "
			    "see 'asyncpf paint --help'");
	expect_bad_of(&table_with_operand, "--flag", "missing operand: FILE: 'asyncpf paint' "
						     "needs it; see 'asyncpf paint --help'");
	expect_bad_of(&table_with_operand, "a b", "unexpected operand: b: 'asyncpf paint' takes "
						  "fewer; see 'asyncpf paint --help'");
	/* An operand before an option is moved behind it. */
	assert_int_equal(parse(&table_with_operand, "file --flag", &v, &operand, &e), OPTS_RUN);
	assert_int_equal(operand, 2);
	assert_true(v.flag);
	assert_int_equal(parse(&table_with_operand, "-- --flag", &v, &operand, &e), OPTS_RUN);
	assert_int_equal(operand, 2);
}

static void a_long_word_does_not_hide_the_reason(void **state)
{
	char line[400] = "--small ";

	(void)state;
	memset(line + 8, 'q', 300);
	line[308] = '\0';
	struct values v = {0};
	struct err e = {0};
	int operand;
	assert_int_equal(parse(&table, line, &v, &operand, &e), OPTS_BAD);
	assert_non_null(strstr(e.text, "qqq: not a decimal number; see 'asyncpf paint --help'"));
}

static void help_names_every_option(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	assert_non_null(f);
	opts_help(&table_with_operand, f);
	fclose(f);
	assert_memory_equal(text, "usage: asyncpf paint [OPTION]... FILE\n\nPaints.\n", 46);
	for (const struct opt *row = rows; row->name; row++)
		assert_non_null(strstr(text, row->name));
	assert_non_null(strstr(text, "\n  -h, --help              Show this text"));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		assert_in_range(strlen(line), 0, 88);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(sizes),
		cmocka_unit_test(nearest),
		cmocka_unit_test(every_kind_is_stored),
		cmocka_unit_test(lists_keep_their_order),
		cmocka_unit_test(help_and_version_win),
		cmocka_unit_test(bad_values),
		cmocka_unit_test(bad_options),
		cmocka_unit_test(operands),
		cmocka_unit_test(a_long_word_does_not_hide_the_reason),
		cmocka_unit_test(help_names_every_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
