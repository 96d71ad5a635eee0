/* SPDX-License-Identifier: Apache-2.0 */
/* net/aws_config.c: what counts in the files that Amazon's programs have their settings in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/types.h"
#include "net/aws_config.h"

static char a[8], b[16];

static bool reads(const char *text, const char *section, bool *bad)
{
	struct aws_wanted wanted[] = {{.key = "a", .to = a, .room = sizeof(a)},
				      {.key = "b_c", .to = b, .room = sizeof(b)}};
	bool found;

	a[0] = b[0] = '\0';
	found = aws_config_read(text, strlen(text), section, wanted, ARRAY_LEN(wanted));
	*bad = wanted[0].bad || wanted[1].bad;
	return found;
}

static void what_is_read(void **state)
{
	static const struct {
		const char *text, *section;
		bool found, bad;
		const char *a, *b;
	} cases[] = {
		{"[x]\na=1\nb_c=2\n", "x", true, false, "1", "2"},
		{"[x]\r\na = 1 2\t\r\n\r\nb_c\t=\t=2=", "x", true, false, "1 2", "=2="},
		{"a=0\n[y]\na=1\n[x]\nb_c=2\n[y]\nb_c=3", "y", true, false, "1", "3"},
		{"[x]\na=1\na=2\n", "x", true, false, "2", ""},
		{"# [x]\n[x] # a\n;a=1\n#a=2\nb_c=3#4\n", "x", true, false, "", "3#4"},
		{"[x]\ns3 =\n  a = 9\n\tb_c = 8\nb_c=7\n", "x", true, false, "", "7"},
		{"[ profile \t x ]\na=1\n", "profile x", true, false, "1", ""},
		{"[profilex]\na=1\n", "profile x", false, false, "", ""},
		{"[profile x]\na=1\n", "x", false, false, "", ""},
		{"[x]\nab=2\nb=3\n=4\n[]\n[\n", "x", true, false, "", ""},
		{"[x]\nA=1\nB_c=2\n", "x", true, false, "1", "2"},
		/* All keys of a section may be indented alike. */
		{"[x]\n  a=1\n  b_c=2\n", "x", true, false, "1", "2"},
		{"[x]\n\ta=1\n\n# x\n\t\tb_c=2\n", "x", true, false, "1", ""},
		{"[x]\n  s3 =\n    a=9\n  b_c=2\n [y]\n  a=3\n", "x", true, false, "", "2"},
		{"[x]\na=1 # one\nb_c = 2;3\t;4\n", "x", true, false, "1", "2;3"},
		{"[x]\na=# one\nb_c = ;\n", "x", true, true, "# one", ""},
		{"[profile 'x']\na=1\n[profile \"y\"]\na=2\n", "profile x", true, false, "1", ""},
		{"[default]\na=1\n", "profile default", true, false, "1", ""},
		{"[profile default]\na=1\n", "profile default", true, false, "1", ""},
		{"[profile default]\na=1\n", "default", false, false, "", ""},
		{"[xy]\na=1\n", "x", false, false, "", ""},
		{"[x\na=1\n", "x", false, false, "", ""},
		{"[x]\na=12345678\nb_c=1\n", "x", true, true, "", "1"},
		{"[x]\na=1234567\n", "x", true, false, "1234567", ""},
		{"[x]\na=\nb_c=1\001\n", "x", true, true, "", ""},
		{"[x]\na: 1\nb_c:2:=3\n", "x", true, false, "1", "2:=3"},
		{"[x]\na=1:2\nb_c :3=\n", "x", true, false, "1:2", "3="},
		{"[x]\r\na: 1 \r\ns3 =\r\n  a: 9\r\nb_c: 2\r\n", "x", true, false, "1", "2"},
		{"\xef\xbb\xbf[x]\r\na = 1\r\n", "x", true, false, "1", ""},
		{"\xef\xbb\xbf# x\n[x]\na = 1", "x", true, false, "1", ""},
		{"\xef\xbb", "x", false, false, "", ""},
		{"", "x", false, false, "", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		bool bad = false;

		print_message("%zu\n", i);
		assert_int_equal(reads(cases[i].text, cases[i].section, &bad), cases[i].found);
		assert_int_equal(bad, cases[i].bad);
		assert_string_equal(a, cases[i].a);
		assert_string_equal(b, cases[i].b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
