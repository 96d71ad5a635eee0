/* SPDX-License-Identifier: Apache-2.0 */
/* cli/demo/cmd_demo.c: defaults, the list of runs, what the option table cannot check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/demo/demo.h"

static struct demo_opts seen; /* what demo_main was given last */
static bool was_called;

int demo_main(const struct demo_opts *o)
{
	seen = *o;
	was_called = true;
	return CLI_OK;
}

static int run(char *a, char *b, char *c, char *d)
{
	char verb[] = "demo";
	char *argv[] = {verb, a, b, c, d, NULL};
	int argc = 1;

	while (argv[argc])
		argc++;
	was_called = false;
	return cmd_demo(argc, argv);
}

static void expect_usage(char *a, char *b, char *c, char *d)
{
	assert_int_equal(run(a, b, c, d), CLI_USAGE);
	assert_false(was_called);
}

#define W(word) ((char[]){word})

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(run(NULL, NULL, NULL, NULL), CLI_OK);
	assert_true(was_called);
	assert_int_equal(seen.vcpus, 1);
	assert_int_equal(seen.tasks, 32);
	assert_true(seen.pages == DEMO_PAGES_DEFAULT);
	assert_int_equal(seen.delay_us, 5000);
	assert_int_equal(seen.grace_us, DEMO_GRACE_AUTO);
	assert_int_equal(seen.block_bytes, 4096);
	assert_int_equal(seen.pattern, SMALL_SEQUENTIAL);
	assert_int_equal(seen.outstanding, 256);
	assert_int_equal(seen.timer_hz, 250);
	assert_null(seen.image);
	assert_null(seen.json);
	assert_null(seen.source_wrap);
	assert_false(seen.quiet);
	static const enum demo_run want[] = {
		DEMO_RUN_BLOCK, DEMO_RUN_STALL, DEMO_RUN_KERNEL, DEMO_RUN_USER_LEGACY,
		DEMO_RUN_USER_PF2, DEMO_RUN_USER_INT, DEMO_RUN_COLLISION,
	};
	assert_int_equal(seen.runs_n, ARRAY_LEN(want));
	assert_memory_equal(seen.runs, want, sizeof(want));
}

static void runs_keep_their_order(void **state)
{
	(void)state;
	assert_int_equal(run(W("--runs"), W("user:int,block"), NULL, NULL), CLI_OK);
	assert_int_equal(seen.runs_n, 2);
	assert_int_equal(seen.runs[0], DEMO_RUN_USER_INT);
	assert_int_equal(seen.runs[1], DEMO_RUN_BLOCK);
	assert_string_equal(demo_run_name(DEMO_RUN_USER_PF2_STRICT), "user:pf2-strict");
}

static void bad_runs(void **state)
{
	(void)state;
	expect_usage(W("--runs"), W("user"), NULL, NULL);
	expect_usage(W("--runs"), W("block,"), NULL, NULL);
	expect_usage(W("--runs"), W("block,stall,block"), NULL, NULL);
}

static void what_the_table_cannot_check(void **state)
{
	(void)state;
	expect_usage(W("--vcpus"), W("4"), W("--tasks"), W("3"));
	expect_usage(W("--block-bytes"), W("12K"), NULL, NULL);
	expect_usage(W("--pages"), W("0"), NULL, NULL);
	assert_int_equal(run(W("--pages"), W("0"), W("--image"), W("x")), CLI_OK);
	assert_int_equal(seen.pages, 0);
	assert_string_equal(seen.image, "x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(runs_keep_their_order),
		cmocka_unit_test(bad_runs),
		cmocka_unit_test(what_the_table_cannot_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
