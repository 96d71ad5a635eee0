/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf snapshot`: makes the folder, has the VM write it, puts it in its place. The VM itself
 * may open no files (its sandbox): they are opened here and passed.
 * Test: tests/lab/snapshot_test.py.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/control/control_client.h"
#include "cli/opts.h"
#include "cli/snap/snap_dir.h"
#include "cli/stop_signals.h"

struct snapshot_opts {
	const char *control;
	uint32_t timeout_s;
};

static const struct opt rows[] = {
	{OPT_TEXT(struct snapshot_opts, control), .name = "control", .arg = "SOCKET",
	 .help = "The VM's control socket, as 'asyncpf run --control' made it."},
	{OPT_U32(struct snapshot_opts, timeout_s), .name = "timeout", .arg = "SECONDS", .min = 1,
	 .max = 86400, .help = "Give up when the VM is silent for this long; default 10."},
	{.name = NULL},
};

static const struct opts table = {
	.verb = "snapshot",
	.about = "Writes a running VM to the new folder DIR: processors, devices, memory. The\n"
		 "guest stands still meanwhile, and goes on. 'asyncpf restore DIR' runs it from\n"
		 "there.",
	.operands = "DIR",
	.operands_min = 1,
	.operands_max = 1,
	.rows = rows,
};

static void show_progress(const struct control_status *s)
{
	(void)s;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kwriting the snapshot");
}

/* *asked: it was told what is wanted. 0 or -Exxx. */
static int ask(const struct snapshot_opts *o, const struct snap_dir *d, bool *asked,
	       struct err *e)
{
	static const struct control_request request = {.verb = CONTROL_SNAPSHOT};
	struct control_client c;
	struct control_status s;
	int rc = control_client_open(&c, o->control, o->timeout_s * 1000, 0, e);

	*asked = rc == 0;
	if (rc < 0)
		return rc;
	c.fds = d->fds;
	rc = control_client_ask(&c, &request, show_progress, &s, e);
	control_client_close(&c);
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return rc;
}

int cmd_snapshot(int argc, char **argv)
{
	struct snapshot_opts o = {.timeout_s = 10};
	struct snap_dir d;
	struct err e = {0};
	bool asked;
	int operand, rc;
	int r = cli_begin(&table, argc, argv, &o, &operand);

	if (r >= 0)
		return r;
	if (!o.control) {
		cli_error("missing option: --control: which VM is not said; see 'asyncpf snapshot "
			  "--help'");
		return CLI_USAGE;
	}
	if (strcmp(argv[operand], "-") == 0) {
		cli_error("bad value: -: a snapshot is a folder, not to be piped; name one");
		return CLI_USAGE;
	}
	if (snap_dir_begin(&d, argv[operand], &e) < 0)
		return cli_refused(&e);
	rc = ask(&o, &d, &asked, &e);
	if (rc < 0)
		cli_error("cannot write a snapshot: %.107s: %s", o.control, e.text);
	else if (snap_dir_finish(&d, &e) < 0)
		rc = cli_failed(&e);
	snap_dir_end(&d);
	if (rc != 0)
		return asked ? CLI_FAILED : CLI_REFUSED;
	printf("%s\n", argv[operand]);
	return CLI_OK;
}
