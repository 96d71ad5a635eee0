/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf report`: a trace as a page with pictures. The command line only; the work is
 * tools/trace_report.py's, which this becomes. Test: tests/error/report_test.py.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/file_roles.h"
#include "cli/json/json_file.h"
#include "cli/lab/lab.h"
#include "cli/opts.h"

struct report_opts {
	const char *output;
	const char *svg;
};

static const struct opt rows[] = {
	{OPT_TEXT(struct report_opts, output), .name = "output", .arg = "FILE",
	 .help = "Where the page goes; with -, to standard output. Default: TRACE with .html at "
		 "its end instead of .json."},
	{OPT_TEXT(struct report_opts, svg), .name = "svg", .arg = "FOLDER",
	 .help = "Write each picture to a file in FOLDER instead, as SVG."},
	{.name = NULL},
};

static const struct opts table = {
	.verb = "report",
	.about = "Makes a page with pictures of a trace that 'demo --trace' or 'run --trace'\n"
		 "has written: waits over time, where vCPUs stood still, what sources did,\n"
		 "which memory was touched. One HTML file, which needs no network.",
	.operands = "TRACE",
	.operands_min = 1,
	.operands_max = 1,
	.rows = rows,
};

static void page_of(const char *trace, char *ret, size_t room)
{
	size_t len = strlen(trace);
	bool json = len > 5 && strcmp(trace + len - 5, ".json") == 0;

	snprintf(ret, room, "%.*s.html", (int)(json ? len - 5 : len), trace);
}

static int check_files(const char *trace, const char *page, struct err *e)
{
	struct file_roles f = {.count = 0};

	file_roles_add(&f, "TRACE", trace, false);
	if (file_roles_add_words(&f, "output", page, e) < 0)
		return e->code;
	return file_roles_check(&f, e);
}

int cmd_report(int argc, char **argv)
{
	char tool[LAB_PATH_BYTES], page[LAB_PATH_BYTES];
	struct report_opts o = {.output = NULL};
	struct words w = {.count = 0};
	struct err e = {0};
	int operand;
	int r = cli_begin(&table, argc, argv, &o, &operand);

	if (r >= 0)
		return r;
	if (o.output && o.svg) {
		cli_error("conflicting options: --output and --svg: it makes a page or files; "
			  "leave one out");
		return CLI_USAGE;
	}
	page_of(argv[operand], page, sizeof(page));
	if (!o.svg && !json_file_is_stdout(o.output) &&
	    check_files(argv[operand], o.output ? o.output : page, &e) < 0)
		return cli_refused(&e);
	if (lab_find_tool("trace_report.py", tool, &e) < 0)
		return cli_refused(&e);
	words_add(&w, "%s", tool);
	if (o.svg) {
		words_add(&w, "--svg=%s", o.svg);
	} else if (o.output) {
		words_add(&w, "--output=%s", o.output);
	} else {
		/* Says where the page is, so that nobody has to guess. */
		words_add(&w, "--tell");
		words_add(&w, "--output=%s", page);
	}
	words_add(&w, "--");
	words_add(&w, "%s", argv[operand]);
	(void)lab_exec(&w, &e);
	return cli_refused(&e);
}
