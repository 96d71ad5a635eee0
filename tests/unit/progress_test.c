/* SPDX-License-Identifier: Apache-2.0 */
/* The line of progress, by a clock that the test has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/progress.h"

#define MIB (1ull << 20)

static void is(struct progress *p, uint64_t done, uint64_t total, double s, const char *want)
{
	char line[CLI_COLUMNS];

	progress_line(p, done, total, (uint64_t)(s * 1e9), line, sizeof(line));
	assert_string_equal(line, want);
}

static void how_far_how_fast_how_long(void **state)
{
	struct progress p = {.what = "packing"};

	(void)state;
	is(&p, 0, 1000 * MIB, 1, "packing [------------------------]   0 %");
	is(&p, 100 * MIB, 1000 * MIB, 2,
	   "packing [##----------------------]  10 %, 100 MiB/s, 9 s left");
	is(&p, 150 * MIB, 1000 * MIB, 2.5,
	   "packing [###---------------------]  15 %, 100 MiB/s, 9 s left");
	/* Half a second counts half. */
	is(&p, 160 * MIB, 1000 * MIB, 3,
	   "packing [###---------------------]  16 %, 88 MiB/s, 10 s left");
	p.rate = 100 * MIB;
	is(&p, 1000 * MIB, 1000 * MIB, 11.4,
	   "packing [########################] 100 %, 100 MiB/s");
}

/* Holes go by at once; the rest is not expected to. */
static void the_rate_follows(void **state)
{
	struct progress p = {.what = "packing"};
	char line[CLI_COLUMNS];

	(void)state;
	is(&p, 0, 100000 * MIB, 1, "packing [------------------------]   0 %");
	for (unsigned i = 0; i < 100; i++)
		progress_line(&p, i < 5 ? i * 10000 * MIB : (50000 + i * 10) * MIB, 100000 * MIB,
			      (2 + i) * NS_PER_S, line, sizeof(line));
	assert_non_null(strstr(line, "10 MiB/s"));
}

static void long_ones(void **state)
{
	struct progress p = {.what = "packing"};

	(void)state;
	is(&p, 0, 1u << 30, 1, "packing [------------------------]   0 %");
	is(&p, 1 * MIB, 1u << 30, 2,
	   "packing [------------------------]   0 %, 1 MiB/s, 17 min left");
	p = (struct progress){.what = "packing"};
	is(&p, 0, 1010 * MIB, 1, "packing [------------------------]   0 %");
	is(&p, 10 * MIB, 1010 * MIB, 2,
	   "packing [------------------------]   0 %, 10 MiB/s, 2 min left");
	p = (struct progress){.what = "verifying"};
	is(&p, 0, 1ull << 40, 1, "verifying [------------------------]   0 %");
	is(&p, 10 * MIB, 1ull << 40, 2,
	   "verifying [------------------------]   0 %, 10 MiB/s, 29 h left");
	p = (struct progress){.what = "unpacking"};
	is(&p, 0, UINT64_MAX / 2, 1, "unpacking [------------------------]   0 %");
	is(&p, 1, UINT64_MAX / 2, 2,
	   "unpacking [------------------------]   0 %, 1 bytes/s, long to go");
}

static void of_an_unknown_size(void **state)
{
	struct progress p = {.what = "packing"};

	(void)state;
	is(&p, 0, PROGRESS_UNKNOWN, 1, "packing: 0 bytes");
	is(&p, 30 * MIB, PROGRESS_UNKNOWN, 2, "packing: 30 MiB, 30 MiB/s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(how_far_how_fast_how_long),
		cmocka_unit_test(the_rate_follows),
		cmocka_unit_test(long_ones),
		cmocka_unit_test(of_an_unknown_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
