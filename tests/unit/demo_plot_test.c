/* SPDX-License-Identifier: Apache-2.0 */
/* cli/demo/demo_plot.c: samples that never run out, and the row that they make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/demo/demo_plot.h"

static void expect_row(const struct demo_plot *p, double wall_s, double span_s, bool utf8,
		       const char *want)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	demo_plot_row(p, "x", 100, wall_s, span_s, utf8, f);
	fclose(f);
	assert_string_equal(out, want);
	free(out);
}

/* Evenly, in 52 seconds: a cell each. */
static void add_even(struct demo_plot *p, unsigned steps)
{
	for (unsigned i = 1; i <= steps; i++)
		demo_plot_add(p, 100 + 52 * NS_PER_S * i / steps, 4096);
}

static void a_row(void **state)
{
	static struct demo_plot p;

	(void)state;
	add_even(&p, 104);
	/* A level has six cells and a half. */
	expect_row(&p, 52, 52, false, "x                     "
		   ".............:::::::::::::+++++++++++++####### 52.000 s\n");
}

static void its_end_is_seen(void **state)
{
	static struct demo_plot p;

	(void)state;
	demo_plot_add(&p, 100, 4096);
	expect_row(&p, 0.001, 52, false, "x               # 0.001 s\n");
	expect_row(&p, 0.001, 52, true, "x               █ 0.001 s\n");
}

/* However many: all that came is known, and the shape is the same. */
static void samples_never_run_out(void **state)
{
	static struct demo_plot few, many;
	char *out[2];
	size_t len;

	(void)state;
	add_even(&few, 104);
	add_even(&many, 104 * 1000);
	assert_int_equal(many.done, 104ull * 1000 * 4096);
	assert_true(many.count <= DEMO_PLOT_SAMPLES && many.count >= DEMO_PLOT_SAMPLES / 2);
	for (unsigned i = 0; i < 2; i++) {
		FILE *f = open_memstream(&out[i], &len);

		demo_plot_row(i ? &many : &few, "x", 100, 52, 52, false, f);
		fclose(f);
	}
	/* But for a cell here and there, where a level begins. */
	unsigned other = 0;

	assert_int_equal(strlen(out[0]), strlen(out[1]));
	for (size_t i = 0; out[0][i]; i++)
		other += out[0][i] != out[1][i];
	assert_true(other <= 8);
	free(out[0]);
	free(out[1]);
}

/* Of two the later one is kept, so that what is known ends with the last. */
static void the_last_sample_stays(void **state)
{
	static struct demo_plot p;

	(void)state;
	add_even(&p, DEMO_PLOT_SAMPLES);
	demo_plot_add(&p, 100 + 53 * NS_PER_S, 4096);
	assert_int_equal(p.count, DEMO_PLOT_SAMPLES / 2 + 1);
	assert_int_equal(p.samples[0].done, 2 * 4096);
	assert_int_equal(p.samples[p.count - 2].done, DEMO_PLOT_SAMPLES * 4096ull);
	assert_int_equal(p.samples[p.count - 1].done, p.done);
}

static void the_environment_tells(void **state)
{
	(void)state;
	assert_true(demo_plot_is_utf8(NULL, NULL, "C.UTF-8"));
	assert_true(demo_plot_is_utf8("", "de_DE.utf8", "C"));
	assert_false(demo_plot_is_utf8("C", "de_DE.UTF-8", "de_DE.UTF-8"));
	assert_false(demo_plot_is_utf8(NULL, NULL, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_row),
		cmocka_unit_test(its_end_is_seen),
		cmocka_unit_test(samples_never_run_out),
		cmocka_unit_test(the_last_sample_stays),
		cmocka_unit_test(the_environment_tells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
