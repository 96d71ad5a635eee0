/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf demo`: the command line only. The work is demo_main()'s.
 * Test: tests/unit/demo_opts_test.c.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/demo/demo.h"
#include "cli/file_roles.h"
#include "cli/json/json_file.h"
#include "cli/opts.h"

/* In the order of enum small_pattern. */
static const char *const patterns[] = {"sequential", "random", "shared", "compute", "idle",
				      "rewrite", NULL};

_Static_assert(SMALL_REWRITE == ARRAY_LEN(patterns) - 2, "one word per enum small_pattern");

/* In the order of enum demo_run. */
static const char *const run_names[] = {
	"block",    "stall",           "kernel",   "user:legacy",
	"user:pf2", "user:pf2-strict", "user:int", "collision",   NULL,
};

_Static_assert(DEMO_RUN_COUNT == ARRAY_LEN(run_names) - 1, "one word per enum demo_run");

#define DEFAULT_RUNS "block,stall,kernel,user:legacy,user:pf2,user:int,collision"

/* The struct that the option table fills; what it cannot check is checked afterwards. */
struct parsed {
	struct demo_opts demo;
	const char *runs;
};

static const struct opt rows[] = {
	{OPT_TEXT(struct parsed, runs), .name = "runs", .arg = "LIST",
	 .help = "What to measure, in this order, separated by commas: block, stall, kernel, "
		 "user:legacy, user:pf2, user:pf2-strict, user:int, collision; default all but "
		 "user:pf2-strict."},
	{OPT_U32(struct parsed, demo.vcpus), .name = "vcpus", .arg = "N", .min = 1,
	 .max = SMALL_VCPUS_MAX, .help = "Virtual CPUs of the guest; default 1."},
	{OPT_U32(struct parsed, demo.tasks), .name = "tasks", .arg = "N", .min = 1,
	 .max = SMALL_TASKS_MAX, .help = "Guest tasks in all, at least one per vCPU; default 32."},
	{OPT_U64(struct parsed, demo.pages), .name = "pages", .arg = "N", .min = 0,
	 .max = 1u << 24,
	 .help = "Pages of 4 KiB that the tasks read; 0: all of the image; default 2048, "
		 "or what the image has."},
	{OPT_CHOICE(struct parsed, demo.pattern), .name = "pattern", .arg = "WORD",
	 .choices = patterns,
	 .help = "sequential, random (each task its own region), shared (all tasks all pages), "
		 "compute (task 0 counts, the others read), idle, or rewrite (each task verifies "
		 "and overwrites its own region); default sequential."},
	{OPT_U64(struct parsed, demo.delay_us), .name = "delay-us", .arg = "N", .min = 0,
	 .max = 60000000, .help = "Added to every fetch, in microseconds; default 5000."},
	{OPT_AUTO(struct parsed, demo.grace_us), .name = "grace-us", .arg = "N|auto", .min = 0,
	 .max = 60000000,
	 .help = "Wait this long for a page before the guest gets an event; default auto."},
	{OPT_SIZE(struct parsed, demo.block_bytes), .name = "block-bytes", .arg = "SIZE",
	 .min = PAGE_BYTES, .max = CHUNK_BYTES,
	 .help = "Fetched at once: a power of two from 4K to 2M; default 4K."},
	{OPT_SIZE(struct parsed, demo.read_ahead), .name = "read-ahead", .arg = "SIZE", .min = 0,
	 .max = 1u << 30,
	 .help = "Read up to so much ahead of whoever goes through memory in even steps; "
		 "default 0: each fault fetches its block."},
	{OPT_TEXT(struct parsed, demo.image), .name = "image", .arg = "FILE",
	 .help = "Memory image to read; default: one that the demo makes and removes."},
	{OPT_TEXT(struct parsed, demo.source_wrap), .name = "source-wrap", .arg = "WRAP",
	 .help = "Wrapper put around the page source, such as fault?..."},
	{OPT_U32(struct parsed, demo.outstanding), .name = "outstanding", .arg = "N", .min = 1,
	 .max = 65536, .help = "Faults in flight per vCPU; default 256."},
	{OPT_U32(struct parsed, demo.queue_depth), .name = "queue-depth", .arg = "N", .min = 1,
	 .max = 4096, .help = "Reads in flight at the source; default 256."},
	{OPT_CHOICE(struct parsed, demo.io), .name = "io", .arg = "WORD", .choices = cli_io_names,
	 .help = CLI_IO_HELP},
	{OPT_U64(struct parsed, demo.source_timeout_ms), .name = "source-timeout-ms",
	 .arg = "N", .min = 0, .max = 3600000,
	 .help = "Give a read up after this time; 0: never; default 10000."},
	{OPT_U32(struct parsed, demo.timer_hz), .name = "timer-hz", .arg = "N", .min = 0,
	 .max = 1000, .help = "The guest's preemption timer; 0: none; default 250."},
	{OPT_U64(struct parsed, demo.seed), .name = "seed", .arg = "N", .min = 0,
	 .max = UINT64_MAX,
	 .help = "Decides the image's content and every random order; default 1."},
	{OPT_FLAG(struct parsed, demo.cold), .name = "cold",
	 .help = "Take the image out of the page cache before each run, as far as its file system "
		 "does that."},
	{OPT_FLAG(struct parsed, demo.plot), .name = "plot",
	 .help = "Draw how far each run was when, below the tables."},
	{OPT_TEXT(struct parsed, demo.trace), .name = "trace", .arg = "FILE",
	 .help = "Write a timeline of every fault to FILE, for ui.perfetto.dev."},
	{OPT_TEXT(struct parsed, demo.json), .name = "json", .arg = "FILE",
	 .help = "Write the results to FILE as JSON, too; with -, to standard output, instead of "
		 "the table."},
	{OPT_FLAG(struct parsed, demo.quiet), .name = "quiet",
	 .help = "Show no progress, only the results."},
	{.name = NULL},
};

static const struct opts demo_table = {
	.verb = "demo",
	.about = "Runs one small guest on one memory image, once for each way of serving its page\n"
		 "faults, and shows the results side by side.",
	.rows = rows,
};

const char *demo_run_name(enum demo_run run)
{
	ASSERT(run < DEMO_RUN_COUNT);
	return run_names[run];
}

/* The run whose name is the first `len` bytes of text, or DEMO_RUN_COUNT. */
static enum demo_run run_by_name(const char *text, size_t len)
{
	unsigned i = 0;

	while (i < DEMO_RUN_COUNT &&
	       (strlen(run_names[i]) != len || strncmp(run_names[i], text, len) != 0))
		i++;
	return (enum demo_run)i;
}

static int unknown_run(const char *text, size_t len, struct err *e)
{
	int shown = len < 60 ? (int)len : 60;
	char word[64];
	const char *meant;

	snprintf(word, sizeof(word), "%.*s", len ? shown : 2, len ? text : "''");
	meant = opts_nearest(word, run_names);
	if (meant)
		return err_set(e, -EINVAL, "bad value: --runs %s: there is no such run; did you "
			       "mean '%s'?", word, meant);
	return err_set(e, -EINVAL, "bad value: --runs %s: there is no such run; see 'asyncpf demo "
		       "--help'", word);
}

static int parse_runs(const char *text, struct demo_opts *d, struct err *e)
{
	bool seen[DEMO_RUN_COUNT] = {false};

	d->runs_n = 0;
	for (;;) {
		size_t len = strcspn(text, ",");
		int shown = len < 60 ? (int)len : 60;
		enum demo_run run = run_by_name(text, len);

		if (run == DEMO_RUN_COUNT)
			return unknown_run(text, len, e);
		if (seen[run])
			return err_set(e, -EINVAL, "bad value: --runs %.*s: named twice; "
				       "name each run once", shown, text);
		seen[run] = true;
		d->runs[d->runs_n++] = run;
		if (!text[len])
			return 0;
		text += len + 1;
	}
}

static int check(const struct demo_opts *d, struct err *e)
{
	if (d->tasks < d->vcpus)
		return err_set(e, -EINVAL, "bad value: --tasks %u: fewer than --vcpus %u; "
			       "give every vCPU a task", d->tasks, d->vcpus);
	if (!is_pow2(d->block_bytes))
		return err_set(e, -EINVAL, "bad value: --block-bytes %s: not a power of two; "
			       "use 4K, 64K, 2M or the like", SIZE_WORD(d->block_bytes));
	if (json_file_is_stdout(d->trace))
		return err_set(e, -EINVAL, "bad value: --trace -: standard output has the "
			       "results; give --trace a file");
	if (d->pages == 0 && !d->image)
		return err_set(e, -EINVAL, "bad value: --pages 0: there is no image to take the "
			       "number from; name one with --image");
	return 0;
}

/* Before anything is opened. */
static int check_files(const struct demo_opts *d, struct err *e)
{
	const char *json = json_file_is_stdout(d->json) ? NULL : d->json;
	struct file_roles f = {.count = 0};

	file_roles_add(&f, "image", d->image, false);
	if (file_roles_add_words(&f, "json", json, e) < 0 ||
	    file_roles_add_words(&f, "trace", d->trace, e) < 0)
		return e->code;
	return file_roles_check(&f, e);
}

int cmd_demo(int argc, char **argv)
{
	struct parsed p = {
		.demo = {
			.vcpus = 1,
			.tasks = 32,
			.pages = DEMO_PAGES_DEFAULT,
			.delay_us = 5000,
			.grace_us = DEMO_GRACE_AUTO,
			.block_bytes = PAGE_BYTES,
			.pattern = SMALL_SEQUENTIAL,
			.outstanding = 256,
			.queue_depth = 256,
			.source_timeout_ms = 10000,
			.timer_hz = 250,
			.seed = 1,
		},
		.runs = DEFAULT_RUNS,
	};
	struct err e = {0};
	int operand;
	int r = cli_begin(&demo_table, argc, argv, &p, &operand);

	if (r >= 0)
		return r;
	if (parse_runs(p.runs, &p.demo, &e) < 0 || check(&p.demo, &e) < 0) {
		cli_error("%s", e.text);
		return CLI_USAGE;
	}
	if (check_files(&p.demo, &e) < 0)
		return cli_refused(&e);
	return demo_main(&p.demo);
}
