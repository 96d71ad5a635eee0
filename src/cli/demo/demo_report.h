/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's results: the table for people, the file for programs. Prints nothing else. */
#ifndef CLI_DEMO_REPORT_H
#define CLI_DEMO_REPORT_H

#include <stdio.h>

#include "cli/demo/demo.h"
#include "cli/demo/demo_plot.h"
#include "cli/json/json_file.h"
#include "vmm/small/small.h"

/* One run as it was measured. */
struct demo_result {
	enum demo_run run;
	const char *faults; /* "block", … */
	const char *abi;    /* "int", … or "off" */
	uint64_t pages;     /* that the tasks read */
	uint64_t bad;
	uint64_t missing, ready, wake_alls; /* as the guest itself counted */
	bool verified;      /* every task finished, every page held what it must */
	struct small_outcome out;
	uint64_t start_ns;  /* when it was begun; CLOCK_MONOTONIC */
	struct demo_plot *plot; /* NULL: it was not asked for */
};

/* What one revision made of a ready event that met a real page fault. */
struct demo_collision {
	const char *abi;
	uint64_t open_ok, open_wrong, open_lost; /* handler interruptible before it reads CR2 */
	uint64_t masked_ok, masked_wrong, masked_lost; /* event due while interrupts are off */
};

struct demo_report {
	const struct demo_opts *opts;
	uint64_t pages; /* of the image that are read */
	struct demo_result results[DEMO_RUN_COUNT];
	unsigned count;
	struct demo_collision collisions[4];
	unsigned collision_count;
	struct demo_plot plots[DEMO_RUN_COUNT];
};

/* One sentence: what was shown. "": nothing. */
void demo_sentence(const struct demo_report *r, char *ret, size_t room);
/* For people, within 80 columns. */
void demo_print(const struct demo_report *r, FILE *out);
/* Writes the results as JSON instead of what f holds. 0 or -Exxx with text. */
int demo_write_json(const struct demo_report *r, struct json_file *f, struct err *e);

#endif
