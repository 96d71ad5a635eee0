/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf snapshot`: makes the folder, has the VM write it, puts it in its place. The VM itself
 * may open no files (its sandbox): they are opened here and passed.
 * Tests: tests/integration/snapshot_run_test.py, tests/error/exit_codes_test.py.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/control/control_client.h"
#include "cli/opts.h"
#include "cli/snap/snap_base.h"
#include "cli/snap/snap_dir.h"
#include "cli/stop_signals.h"

struct snapshot_opts {
	const char *control;
	uint32_t timeout_s;
	bool keep_running;
	const char *base;
};

static const struct opt rows[] = {
	{OPT_TEXT(struct snapshot_opts, control), .name = "control", .arg = "SOCKET",
	 .help = "The VM's control socket, as 'asyncpf run --control' made it."},
	{OPT_FLAG(struct snapshot_opts, keep_running), .name = "keep-running",
	 .help = "The guest stands still for a moment only, and runs while its memory is written."},
	{OPT_TEXT(struct snapshot_opts, base), .name = "base", .arg = "DIR",
	 .help = "Write only memory that changed since the snapshot DIR, the last of this VM; both "
		 "are needed from then on."},
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

/* A signal ends the wait; what the VM writes then is nobody's. 0 or -Exxx. */
static int ask(struct control_client *c, const struct snapshot_opts *o, const struct snap_dir *d,
	       int stop_fd, struct err *e)
{
	struct control_request request = {.verb = CONTROL_SNAPSHOT,
					  .keep_running = o->keep_running,
					  .has_base = d->base != NULL};
	struct control_status s;
	int rc;

	if (d->base)
		memcpy(request.base, d->base->id.id, sizeof(request.base));
	c->fds = d->fds;
	c->stop_fd = stop_fd;
	rc = control_client_ask(c, &request, show_progress, &s, e);
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return rc;
}

/* The VM is there. Leaves nothing behind unless all is well. Returns an enum cli_exit. */
static int write_snapshot(struct control_client *c, const struct snapshot_opts *o, const char *path,
			  const struct stop_signals *signals)
{
	struct snap_base base = {.relative = NULL};
	struct snap_dir d;
	struct err e = {0};
	int rc;

	if ((o->base && snap_base_open(&base, o->base, path, &e) < 0) ||
	    snap_dir_begin(&d, path, o->base ? &base : NULL, &e) < 0) {
		snap_base_close(&base);
		return cli_refused(&e);
	}
	rc = ask(c, o, &d, signals->fd, &e);
	if (rc == -EINTR)
		rc = CLI_FAILED;
	else if (rc < 0)
		rc = cli_error("cannot write a snapshot: %.107s: %s", o->control, e.text);
	else if (snap_dir_finish(&d, &e) < 0)
		rc = cli_failed(&e);
	snap_dir_end(&d);
	snap_base_close(&base);
	if (rc == CLI_OK)
		printf("%s\n", path);
	return rc;
}

int cmd_snapshot(int argc, char **argv)
{
	struct snapshot_opts o = {.timeout_s = 10};
	struct stop_signals signals = {.fd = -1};
	struct control_client c;
	struct err e = {0};
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
	if (control_client_open(&c, o.control, o.timeout_s * 1000, 0, &e) < 0) {
		cli_error("cannot write a snapshot: %.107s: %s", o.control, e.text);
		return CLI_REFUSED;
	}
	if (stop_signals_start(&signals, &e) < 0)
		rc = cli_refused(&e);
	else
		rc = write_snapshot(&c, &o, argv[operand], &signals);
	control_client_close(&c);
	stop_signals_end(&signals);
	if (rc != CLI_OK)
		stop_signals_die(&signals);
	return rc;
}
