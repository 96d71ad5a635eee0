/* SPDX-License-Identifier: Apache-2.0 */
/* cli/check/check_tap.c: what a guest's lines add up to, and which failures are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/check/check.h"

/* Defined by cli/check/check.c, which this program is without. */
int check_main(const struct check_opts *o)
{
	(void)o;
	return 0;
}

static char *shown;
static size_t shown_len;

static void feed(struct check_tap *t, const char *const *lines)
{
	FILE *out = open_memstream(&shown, &shown_len);

	assert_non_null(out);
	for (; *lines; lines++)
		check_tap_line(t, *lines, out);
	fclose(out);
}

static void fails(const struct check_tap *t, const char *why)
{
	const char *said = check_tap_fault(t);

	assert_non_null(said);
	assert_non_null(strstr(said, why));
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static int teardown(void **state)
{
	(void)state;
	free(shown);
	shown = NULL;
	return 0;
}

static void all_pass(void **state)
{
	struct check_tap t = {.faults = APF_FAULTS_USER, .abi = APF_ABI_INT};

	(void)state;
	feed(&t, LINES("TAP version 13", "ok 1 - a.b: text", "ok 2 - a.c: text # SKIP why",
		       "1..2"));
	assert_int_equal(t.passed, 1);
	assert_int_equal(t.skipped, 1);
	assert_null(check_tap_fault(&t));
	assert_string_equal(shown, "TAP version 13\nok 1 - a.b: text\n"
				   "ok 2 - a.c: text # SKIP why\n1..2\n");
}

static void a_failure(void **state)
{
	struct check_tap t = {.faults = APF_FAULTS_USER, .abi = APF_ABI_INT};

	(void)state;
	/* What KVM fails by design, ours does not. */
	feed(&t, LINES("ok 1 - a: text", "not ok 2 - enable.dirty: text", "1..2"));
	assert_int_equal(t.failed, 1);
	assert_int_equal(t.expected, 0);
	fails(&t, "a promise is not kept");
	assert_non_null(strstr(shown, "not ok 2 - enable.dirty: text\n"));
}

static void a_known_difference(void **state)
{
	struct check_tap t = {.faults = APF_FAULTS_KERNEL, .abi = APF_ABI_INT};
	const char *mark;

	(void)state;
	feed(&t, LINES("not ok 1 - enable.dirty: text", "# enable.dirty: why", "1..1"));
	assert_int_equal(t.failed, 0);
	assert_int_equal(t.expected, 1);
	assert_null(check_tap_fault(&t));
	mark = strchr(shown, '#');
	assert_non_null(mark);
	assert_int_equal(strncmp(mark + 2, "TO" "DO KVM does not empty", 22), 0);
}

/* A name is compared as a whole. */
static void a_longer_name(void **state)
{
	struct check_tap t = {.faults = APF_FAULTS_KERNEL, .abi = APF_ABI_INT};

	(void)state;
	feed(&t, LINES("not ok 1 - enable.dirty-too: text", "1..1"));
	assert_int_equal(t.failed, 1);
}

static void cut_short(void **state)
{
	const struct check_tap fresh = {.faults = APF_FAULTS_USER, .abi = APF_ABI_INT};
	struct check_tap t = fresh;

	(void)state;
	feed(&t, LINES("ok 1 - a: text"));
	fails(&t, "its end");
	teardown(NULL);
	t = fresh;
	feed(&t, LINES("ok 1 - a: text", "1..2"));
	fails(&t, "another number of checks");
	teardown(NULL);
	t = fresh;
	feed(&t, LINES("ok 1 - a: text", "Bail out! why", "1..1"));
	fails(&t, "its end");
	teardown(NULL);
	t = fresh;
	feed(&t, LINES("1..0"));
	fails(&t, "nothing was checked");
	teardown(NULL);
	t = fresh;
	feed(&t, LINES("ok 1 - a: text # SKIP why", "1..1"));
	fails(&t, "every check was skipped");
}

static void names_of_differences(void **state)
{
	char text[256];

	(void)state;
	check_tap_differences(APF_FAULTS_USER, APF_ABI_INT, text, sizeof(text));
	assert_string_equal(text, "");
	check_tap_differences(APF_FAULTS_KERNEL, APF_ABI_INT, text, sizeof(text));
	assert_int_equal(strncmp(text, "area.outside-kept,", 18), 0);
	assert_null(strstr(text, "ready.ctl-never"));
	check_tap_differences(APF_FAULTS_USER, APF_ABI_PF2_STRICT, text, sizeof(text));
	assert_non_null(strstr(text, ",ready.ctl-never,"));
	assert_non_null(strstr(text, ",ready.untold,"));
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, teardown)
	const struct CMUnitTest tests[] = {
		T(all_pass),
		T(a_failure),
		T(a_known_difference),
		T(a_longer_name),
		T(cut_short),
		T(names_of_differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
