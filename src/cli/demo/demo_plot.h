/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a run had come, when: samples while it runs, and a row of a terminal afterwards. Test:
 * tests/unit/demo_plot_test.c.
 */
#ifndef CLI_DEMO_PLOT_H
#define CLI_DEMO_PLOT_H

#include <stdio.h>

#include "base/types.h"

#define DEMO_PLOT_SAMPLES 512u /* even: every second one goes when they are full */

/* Zeroed, it has no sample. One thread at a time. */
struct demo_plot {
	uint64_t done;   /* so far */
	uint64_t skip;   /* calls per sample, less one */
	uint64_t skipped;
	unsigned count;
	struct {
		uint64_t ns, done;
	} samples[DEMO_PLOT_SAMPLES];
};

/* So much more is there, at that time, which never falls. */
void demo_plot_add(struct demo_plot *p, uint64_t ns, uint64_t more);

/* The words of the environment that name a character set: can it show more than ASCII? */
bool demo_plot_is_utf8(const char *lc_all, const char *lc_ctype, const char *lang);

/*
 * One row: NAME, a cell for each part of span_s, as high as what was there at its end, and the
 * time of the run, which began at start_ns and took wall_s.
 */
void demo_plot_row(const struct demo_plot *p, const char *name, uint64_t start_ns, double wall_s,
		   double span_s, bool utf8, FILE *out);

#endif
