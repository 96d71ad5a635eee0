/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs that speak to a running VM: `asyncpf status`, events, pause, resume, evict, resize,
 * balloon and stop.
 * They differ in one request and in what is said at the end, so they are one file.
 * Tests: tests/error/control_test.py, control_server_test.py.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/control/control_client.h"
#include "cli/control/control_metrics.h"
#include "cli/control/control_show.h"
#include "cli/opts.h"
#include "vmm/machine/machine.h"

#define TIMEOUT_S 10
#define STOP_TIMEOUT_S 60
#define SECONDS_MAX 86400

struct control_opts {
	const char *path;
	uint32_t timeout_s;
	uint32_t watch_s; /* status: 0: once */
	bool json;        /* status */
	bool prometheus;  /* status */
	bool all;         /* evict */
	bool none;        /* resize */
	bool no_wait;     /* balloon */
	uint64_t to;      /* evict, resize, balloon; TO_NOT_GIVEN: without */
};

#define TO_NOT_GIVEN UINT64_MAX

#define ROW_CONTROL \
	{OPT_TEXT(struct control_opts, path), .name = "control", .arg = "SOCKET", \
	 .help = "The VM's control socket, as 'asyncpf run --control' made it."}
#define ROW_TIMEOUT(help_) \
	{OPT_U32(struct control_opts, timeout_s), .name = "timeout", .arg = "SECONDS", .min = 1, \
	 .max = SECONDS_MAX, .help = help_}
#define HELP_SILENCE "Give up when the VM is silent for this long; default 10."

static const struct opt plain_rows[] = {
	ROW_CONTROL,
	ROW_TIMEOUT(HELP_SILENCE),
	{.name = NULL},
};

static const struct opt status_rows[] = {
	ROW_CONTROL,
	{OPT_FLAG(struct control_opts, json), .name = "json",
	 .help = "Show it as JSON: one object on one line."},
	{OPT_FLAG(struct control_opts, prometheus), .name = "prometheus",
	 .help = "Show it as metrics in Prometheus' text format."},
	{OPT_U32(struct control_opts, watch_s), .name = "watch", .arg = "SECONDS", .min = 1,
	 .max = SECONDS_MAX,
	 .help = "Show it again after this time, until the VM ends, or Ctrl-C."},
	ROW_TIMEOUT(HELP_SILENCE),
	{.name = NULL},
};

static const struct opt evict_rows[] = {
	ROW_CONTROL,
	{OPT_FLAG(struct control_opts, all), .name = "all",
	 .help = "Evict everything that can be."},
	{OPT_SIZE(struct control_opts, to), .name = "to", .arg = "SIZE", .max = UINT64_MAX - 1,
	 .help = "Evict until at most this much is resident."},
	ROW_TIMEOUT(HELP_SILENCE),
	{.name = NULL},
};

static const struct opt resize_rows[] = {
	ROW_CONTROL,
	{OPT_SIZE(struct control_opts, to), .name = "resident-max", .arg = "SIZE",
	 .min = MACHINE_RESIDENT_MIN, .max = MACHINE_MEMORY_MAX,
	 .help = "Keep at most this much guest memory in host memory from now on."},
	{OPT_FLAG(struct control_opts, none), .name = "no-limit",
	 .help = "Keep as much as the guest touches."},
	ROW_TIMEOUT(HELP_SILENCE),
	{.name = NULL},
};

static const struct opt balloon_rows[] = {
	ROW_CONTROL,
	{OPT_SIZE(struct control_opts, to), .name = "to", .arg = "SIZE", .max = UINT64_MAX - 1,
	 .help = "Memory that the guest keeps; as much as it has or more: all of it."},
	{OPT_FLAG(struct control_opts, no_wait), .name = "no-wait",
	 .help = "Only ask the guest; 'asyncpf status' shows how far it is."},
	ROW_TIMEOUT(HELP_SILENCE),
	{.name = NULL},
};

static const struct opt stop_rows[] = {
	ROW_CONTROL,
	ROW_TIMEOUT("Give up when the VM has not ended after this time; default 60."),
	{.name = NULL},
};

static const struct opts status_table = {
	.verb = "status",
	.about = "Shows what a running VM does: whether it is paused and why, where its memory\n"
		 "is, how touches of absent memory were served.",
	.rows = status_rows,
};

static const struct opts pause_table = {
	.verb = "pause",
	.about = "Stops a running VM's processors, and keeps them until 'asyncpf resume'.",
	.rows = plain_rows,
};

static const struct opts resume_table = {
	.verb = "resume",
	.about = "Lets a paused VM go on. Where it was paused for trouble, such as a full swap\n"
		 "file, what failed is tried again.",
	.rows = plain_rows,
};

static const struct opts evict_table = {
	.verb = "evict",
	.about = "Takes memory away from a running VM: cold blocks become absent, and are fetched\n"
		 "again when the guest touches them. Ctrl-C ends it early. Exit code 1: more than\n"
		 "--to stayed resident.",
	.rows = evict_rows,
};

static const struct opts resize_table = {
	.verb = "resize",
	.about = "Changes how much of a running VM's memory may be resident. It returns at once:\n"
		 "what is resident beyond it is evicted as the VM runs on. Exit code 1: the VM\n"
		 "cannot work with so little.",
	.rows = resize_rows,
};

static const struct opts events_table = {
	.verb = "events",
	.about = "Tells what happens to a running VM as it happens, one JSON object on a line,\n"
		 "until the VM has ended, or Ctrl-C.",
	.rows = plain_rows,
};

static const struct opts balloon_table = {
	.verb = "balloon",
	.about = "Asks a running VM's guest to give memory back, or to have it again, and waits\n"
		 "until it has. What it gives back is discarded: it takes up no memory and no\n"
		 "place in the swap file. Ctrl-C ends the waiting; what was asked for stays so.\n"
		 "Exit code 1: the guest keeps more. The VM must run with --balloon.",
	.rows = balloon_rows,
};

static const struct opts stop_table = {
	.verb = "stop",
	.about = "Asks a running VM to end in order, and waits until it has.",
	.rows = stop_rows,
};

/* -1: go on; otherwise the exit code. */
static int begin(const struct opts *table, int argc, char **argv, struct control_opts *o)
{
	int operand;
	int r = cli_begin(table, argc, argv, o, &operand);

	if (r >= 0)
		return r;
	if (o->path)
		return -1;
	cli_error("missing option: --control: which VM is not said; see 'asyncpf %s --help'",
		  table->verb);
	return CLI_USAGE;
}

static int failed(const char *what, const struct control_opts *o, const struct err *e)
{
	return cli_error("cannot %s: %.107s: %s", what, o->path, e->text);
}

/* There is nobody to be asked. */
static int refused(const char *what, const struct control_opts *o, const struct err *e)
{
	(void)failed(what, o, e);
	return CLI_REFUSED;
}

/* One connection, one request. *asked: it was told what is wanted. 0 or -Exxx. */
static int try_ask(const struct control_opts *o, const struct control_request *r,
		   control_progress *progress, struct control_status *ret, bool *asked,
		   struct err *e)
{
	struct control_client c;
	int rc = control_client_open(&c, o->path, o->timeout_s * 1000, 0, e);

	*asked = rc == 0;
	if (rc < 0)
		return rc;
	rc = control_client_ask(&c, r, progress, ret, e);
	control_client_close(&c);
	if (progress && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return rc;
}

static int ask(const char *what, const struct control_opts *o, const struct control_request *r,
	       control_progress *progress, struct control_status *ret)
{
	struct err e = {0};
	bool asked;

	if (try_ask(o, r, progress, ret, &asked, &e) == 0)
		return CLI_OK;
	return asked ? failed(what, o, &e) : refused(what, o, &e);
}

/* ---- status ---- */

/* Whole, even if Ctrl-C comes now: nobody wants half an object. False: nobody reads it. */
static bool show(const struct control_opts *o, const struct control_status *s, bool first)
{
	sigset_t stop, old;

	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	sigprocmask(SIG_BLOCK, &stop, &old);
	if (o->json) {
		(void)control_show_json(s, stdout);
	} else if (o->prometheus) {
		control_show_metrics(s, stdout);
	} else {
		if (o->watch_s && isatty(STDOUT_FILENO))
			fputs("\033[H\033[J", stdout);
		else if (!first)
			fputc('\n', stdout);
		control_show_text(s, stdout);
	}
	bool written = fflush(stdout) == 0 && !ferror(stdout);

	sigprocmask(SIG_SETMASK, &old, NULL);
	return written;
}

#define END_PAUSE_NS (20 * NS_PER_MS)

/*
 * The next sample of one that answered before. A VM that ends hangs up first, and has taken its
 * socket away by the time that its process is gone: -ENOENT. 0 or -Exxx.
 */
static int next_sample(const struct control_opts *o, const struct control_request *r,
		       struct control_status *ret, struct err *e)
{
	static const struct timespec pause = {.tv_nsec = END_PAUSE_NS};
	uint64_t pauses = o->timeout_s * NS_PER_S / END_PAUSE_NS;
	bool asked;
	int rc;

	while ((rc = try_ask(o, r, NULL, ret, &asked, e)) == -ECONNRESET && pauses-- > 0)
		(void)nanosleep(&pause, NULL);
	return rc;
}

/* Until the VM has ended, or nobody reads it any more. */
static int watch(const struct control_opts *o, const struct control_request *r,
		 struct control_status *s)
{
	struct timespec next;
	struct err e = {0};
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &next);
	do {
		next.tv_sec += o->watch_s;
		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		rc = next_sample(o, r, s, &e);
	} while (rc == 0 && show(o, s, false));
	if (rc == -ENOENT && !o->json && !o->prometheus)
		puts("ended");
	/* What could not be written is main's to report. */
	return rc == 0 || rc == -ENOENT ? CLI_OK : failed("show the status", o, &e);
}

int cmd_status(int argc, char **argv)
{
	static const struct control_request request = {.verb = CONTROL_STATUS};
	struct control_opts o = {.timeout_s = TIMEOUT_S};
	struct control_status s;
	int r = begin(&status_table, argc, argv, &o);

	if (r >= 0)
		return r;
	if (o.prometheus && (o.json || o.watch_s)) {
		cli_error("conflicting options: --prometheus and --%s: it is one text, for a "
			  "scraper; leave one out", o.json ? "json" : "watch");
		return CLI_USAGE;
	}
	r = ask("show the status", &o, &request, NULL, &s);
	if (r != CLI_OK || !show(&o, &s, true) || !o.watch_s)
		return r;
	return watch(&o, &request, &s);
}

/* ---- pause and resume ---- */

static int change_state(const struct opts *table, enum control_verb verb, const char *want,
			int argc, char **argv)
{
	const struct control_request request = {.verb = verb};
	struct control_opts o = {.timeout_s = TIMEOUT_S};
	struct control_status s;
	int r = begin(table, argc, argv, &o);

	if (r >= 0)
		return r;
	r = ask(table->verb, &o, &request, NULL, &s);
	if (r != CLI_OK)
		return r;
	/* Resumed is what it will be then. */
	if (verb == CONTROL_RESUME && s.snapshot_running && !*s.why && strcmp(s.state, want) != 0) {
		puts("running when its snapshot is written");
		return CLI_OK;
	}
	if (strcmp(s.state, want) != 0)
		return cli_error("cannot %s: %.107s: the VM is %s%s%s", table->verb, o.path,
				 s.state, *s.why ? ": " : "", s.why);
	printf("%s\n", s.state);
	return CLI_OK;
}

int cmd_pause(int argc, char **argv)
{
	return change_state(&pause_table, CONTROL_PAUSE, "paused", argc, argv);
}

int cmd_resume(int argc, char **argv)
{
	return change_state(&resume_table, CONTROL_RESUME, "running", argc, argv);
}

/* ---- evict ---- */

static void show_progress(const struct control_status *s)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kevicting: %s resident",
			SIZE_TEXT(s->counters.resident_bytes));
}

int cmd_evict(int argc, char **argv)
{
	struct control_opts o = {.timeout_s = TIMEOUT_S, .to = TO_NOT_GIVEN};
	struct control_request request = {.verb = CONTROL_EVICT};
	struct control_status s;
	int r = begin(&evict_table, argc, argv, &o);

	if (r >= 0)
		return r;
	if (o.all == (o.to != TO_NOT_GIVEN)) {
		cli_error("%s: --all, --to: %s; see 'asyncpf evict --help'",
			  o.all ? "too many options" : "missing option",
			  o.all ? "they exclude each other" : "how much is not said");
		return CLI_USAGE;
	}
	request.bytes = o.all ? 0 : o.to;
	r = ask("evict", &o, &request, show_progress, &s);
	if (r == CLI_OK)
		printf("resident: %s of %s\n", SIZE_TEXT(s.counters.resident_bytes),
		       SIZE_TEXT(s.counters.memory_bytes));
	return r;
}

/* ---- resize ---- */

int cmd_resize(int argc, char **argv)
{
	struct control_opts o = {.timeout_s = TIMEOUT_S, .to = TO_NOT_GIVEN};
	struct control_request request = {.verb = CONTROL_LIMIT};
	struct control_status s;
	int r = begin(&resize_table, argc, argv, &o);

	if (r >= 0)
		return r;
	if (o.none == (o.to != TO_NOT_GIVEN)) {
		cli_error("%s: --resident-max, --no-limit: %s; see 'asyncpf resize --help'",
			  o.none ? "too many options" : "missing option",
			  o.none ? "they exclude each other" : "how much is not said");
		return CLI_USAGE;
	}
	request.bytes = o.none ? 0 : o.to;
	r = ask("resize", &o, &request, NULL, &s);
	if (r != CLI_OK)
		return r;
	printf("resident: %s", SIZE_TEXT(s.counters.resident_bytes));
	if (s.counters.resident_max_bytes)
		printf(", at most %s from now on", SIZE_TEXT(s.counters.resident_max_bytes));
	puts(o.none ? ", without a limit from now on" : "");
	return CLI_OK;
}

/* ---- events ---- */

/* A line at a time, so that whoever reads them from a pipe has them at once. */
static bool hear(void *ctx, const struct control_event *ev)
{
	(void)ctx;
	return control_show_event_json(ev, stdout) == 0;
}

int cmd_events(int argc, char **argv)
{
	struct control_opts o = {.timeout_s = TIMEOUT_S};
	struct control_client c;
	struct err e = {0};
	int r = begin(&events_table, argc, argv, &o);

	if (r >= 0)
		return r;
	r = control_client_open(&c, o.path, o.timeout_s * 1000, 0, &e);
	if (r < 0)
		return refused("follow", &o, &e);
	r = control_client_follow(&c, hear, NULL, &e);
	control_client_close(&c);
	return r < 0 ? failed("follow", &o, &e) : CLI_OK;
}

/* ---- balloon ---- */

/* What is left to the guest. */
static uint64_t left_bytes(const struct control_status *s)
{
	return s->counters.memory_bytes -
	       min_u64(s->balloon.balloon_bytes, s->counters.memory_bytes);
}

static void show_balloon_progress(const struct control_status *s)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[Kthe guest has %s", SIZE_TEXT(left_bytes(s)));
}

int cmd_balloon(int argc, char **argv)
{
	struct control_opts o = {.timeout_s = TIMEOUT_S, .to = TO_NOT_GIVEN};
	struct control_request request = {.verb = CONTROL_BALLOON};
	struct control_status s;
	int r = begin(&balloon_table, argc, argv, &o);

	if (r >= 0)
		return r;
	if (o.to == TO_NOT_GIVEN) {
		cli_error("missing option: --to: how much the guest keeps is not said; see "
			  "'asyncpf balloon --help'");
		return CLI_USAGE;
	}
	request.bytes = o.to;
	if (o.no_wait)
		request.verb = CONTROL_BALLOON_SET;
	r = ask("change the balloon", &o, &request, show_balloon_progress, &s);
	if (r == CLI_OK)
		printf("the guest has %s of %s\n", SIZE_TEXT(left_bytes(&s)),
		       SIZE_TEXT(s.counters.memory_bytes));
	return r;
}

/* ---- stop ---- */

int cmd_stop(int argc, char **argv)
{
	static const struct control_request request = {.verb = CONTROL_STOP};
	struct control_opts o = {.timeout_s = STOP_TIMEOUT_S};
	struct control_client c;
	struct control_status s;
	struct err e = {0};
	int r = begin(&stop_table, argc, argv, &o);

	if (r >= 0)
		return r;
	r = control_client_open(&c, o.path, (uint32_t)min_u64(o.timeout_s, TIMEOUT_S) * 1000,
				o.timeout_s * 1000ull, &e);
	if (r < 0)
		return refused("stop", &o, &e);
	r = control_client_ask(&c, &request, NULL, &s, &e);
	if (r == 0)
		r = control_client_wait_end(&c, &e);
	control_client_close(&c);
	if (r < 0)
		return failed("stop", &o, &e);
	puts("ended");
	return CLI_OK;
}
