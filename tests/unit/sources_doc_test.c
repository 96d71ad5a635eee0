/* SPDX-License-Identifier: Apache-2.0 */
/* Each URI in docs/sources.md and in asyncpf-sources(7) is one that the shipped code takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "source/source.h"

static void each_uri_is_taken(void **state)
{
	FILE *f = fopen(SOURCES_DOC, "r");
	unsigned count = 0;
	bool within = false;
	char line[1024];

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		struct err e = {.text = ""};

		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "```", 3) == 0) {
			within = strcmp(line, "```uri") == 0;
			continue;
		}
		if (!within)
			continue;
		count++;
		if (src_check(line, &e) != 0)
			fail_msg("%s: %s", line, e.text);
	}
	fclose(f);
	assert_true(count >= 5);
}

static void each_example_of_the_manual_is_taken(void **state)
{
	static const char mark[] = ".Dl ";
	FILE *f = fopen(SOURCES_MAN, "r");
	unsigned count = 0;
	char line[1024];

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		struct err e = {.text = ""};

		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, mark, strlen(mark)) != 0)
			continue;
		count++;
		if (src_check(line + strlen(mark), &e) != 0)
			fail_msg("%s: %s", line, e.text);
	}
	fclose(f);
	assert_true(count >= 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_uri_is_taken),
		cmocka_unit_test(each_example_of_the_manual_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
