/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf demo`: the same guest on the same image, once for each way of serving its page
 * faults. See demo.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/apf.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/demo/demo.h"
#include "cli/demo/demo_image.h"
#include "cli/demo/demo_report.h"
#include "cli/progress.h"
#include "cli/stop_signals.h"
#include "cli/trace_file.h"
#include "source/source.h"
#include "vmm/disk/file_use.h"

#define URI_MAX 8192
#define READY_VECTOR 0xec
#define ALONE_MS 2000 /* how long a guest idles, or a task counts with no other */

struct demo {
	const struct demo_opts *o;
	struct demo_image image;
	struct demo_report report;
	char uri[URI_MAX];
	struct stop_signals signals;
	bool progress; /* there is somebody to watch */
	const char *doing;
	bool begun;   /* a guest has run */
	bool stopped; /* by a signal, before all was done */
	struct json_file json;
	struct trace_file *trace;
	struct demo_plot *plot; /* of the run that goes on; NULL: none */
	struct progress bar;
	/* Under the library's lock while a machine runs. */
	unsigned paused; /* blocks that could not be had since the machine last went on */
};

/* How a run is made: the library's words and the guest's. */
struct run_kind {
	enum apf_faults faults;
	enum apf_abi abi;     /* the library's, with APF_FAULTS_USER */
	uint32_t rev;         /* what the guest registers for */
	const char *faults_name;
	const char *abi_name;
};

static const struct run_kind kinds[DEMO_RUN_COUNT] = {
	[DEMO_RUN_BLOCK] = {APF_FAULTS_BLOCK, APF_ABI_OFF, APF_REV_OFF, "block", "off"},
	[DEMO_RUN_STALL] = {APF_FAULTS_STALL, APF_ABI_OFF, APF_REV_OFF, "stall", "off"},
	[DEMO_RUN_KERNEL] = {APF_FAULTS_KERNEL, APF_ABI_INT, APF_REV_INT, "kernel", "int"},
	[DEMO_RUN_USER_LEGACY] = {APF_FAULTS_USER, APF_ABI_LEGACY, APF_REV_LEGACY, "user",
				  "legacy"},
	[DEMO_RUN_USER_PF2] = {APF_FAULTS_USER, APF_ABI_PF2, APF_REV_PF2, "user", "pf2"},
	[DEMO_RUN_USER_PF2_STRICT] = {APF_FAULTS_USER, APF_ABI_PF2_STRICT, APF_REV_PF2_STRICT,
				      "user", "pf2-strict"},
	[DEMO_RUN_USER_INT] = {APF_FAULTS_USER, APF_ABI_INT, APF_REV_INT, "user", "int"},
};

/* What the guest reads, where that has an end that is known. */
static uint64_t bytes_expected(const struct demo *d)
{
	const struct demo_opts *o = d->o;
	bool all = o->pattern != SMALL_IDLE && (o->pattern != SMALL_COMPUTE || o->tasks > 1);

	return all && strcmp(d->doing, "collision") != 0 ? d->image.pages * PAGE_BYTES
							  : PROGRESS_UNKNOWN;
}

static void show_progress(void *ctx, const struct apf_counters *c)
{
	struct demo *d = ctx;

	if (d->progress)
		progress_show(&d->bar, min_u64(c->read_bytes, bytes_expected(d)),
			      bytes_expected(d));
}

static void end_progress(struct demo *d)
{
	progress_end(&d->bar);
	d->bar = (struct progress){.what = d->doing};
}

/* Under the library's lock. */
static void on_step(void *ctx, const struct apf_trace *t)
{
	struct demo *d = ctx;

	if (d->plot && t->kind == APF_TRACE_SHOWN)
		demo_plot_add(d->plot, t->ns, t->bytes);
	if (d->trace)
		trace_file_tell(d->trace, t);
}

static void show_event(void *ctx, const struct apf_event *ev)
{
	struct demo *d = ctx;

	/* One call, one line, whichever thread it comes from; one line for one pause. */
	if (ev->kind != APF_EVENT_PAUSED) {
		d->paused = 0;
		fprintf(stderr, "%sasyncpf: going on: %s: %s\n", d->progress ? "\r\033[K" : "",
			d->doing, ev->text);
	} else if (d->paused++ == 0) {
		fprintf(stderr, "%sasyncpf: paused: %s: %s; waiting for it, Ctrl-C ends the run\n",
			d->progress ? "\r\033[K" : "", d->doing, ev->text);
	}
}

static void tell_failure(const struct demo *d, const struct err *e)
{
	if (e->code != -EINTR)
		cli_error("run failed: %s: %s%s", d->doing, e->text, cli_advice(e));
	else if (d->paused)
		cli_error("run stopped: %s: by a signal, while it was paused for want of %u "
			  "block%s; see why above", d->doing, d->paused,
			  d->paused == 1 ? "" : "s");
	else
		cli_error("run stopped: %s: by a signal; its result is left out", d->doing);
}

/* `to` has room for three bytes for each of `from`. */
static void escape_path(char *to, const char *from)
{
	static const char hex[] = "0123456789abcdef";

	for (; *from; from++) {
		if (strchr("%?#&+: ", *from)) {
			*to++ = '%';
			*to++ = hex[(unsigned char)*from >> 4];
			*to++ = hex[*from & 15];
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
}

/*
 * "delay+<wrappers>+file:PATH?us=N&<their keys>". The path is written with %XX where a URI
 * would read more into it.
 */
static int build_uri(struct demo *d, struct err *e)
{
	const struct demo_opts *o = d->o;
	const char *wrap = o->source_wrap ? o->source_wrap : "";
	size_t names = strcspn(wrap, "?");
	const char *keys = wrap[names] ? wrap + names + 1 : "";
	char path[3 * sizeof(d->image.path)];
	int n;

	escape_path(path, d->image.path);
	n = snprintf(d->uri, sizeof(d->uri), "%s%.*s%sfile:%s%s", o->delay_us ? "delay+" : "",
		     (int)names, wrap, names ? "+" : "", path, o->delay_us || *keys ? "?" : "");
	if (n > 0 && (size_t)n < sizeof(d->uri) && o->delay_us)
		n += snprintf(d->uri + n, sizeof(d->uri) - (size_t)n, "us=%llu%s",
			      (unsigned long long)o->delay_us, *keys ? "&" : "");
	if (n > 0 && (size_t)n < sizeof(d->uri))
		n += snprintf(d->uri + n, sizeof(d->uri) - (size_t)n, "%s", keys);
	if (n < 0 || (size_t)n >= sizeof(d->uri))
		return err_set(e, -ENAMETOOLONG, "bad value: --source-wrap %.40s...: it and the "
			       "image's name are too long; use a shorter path", wrap);
	return 0;
}

/* What the user wrapped around the image is wrong usage when it is wrong. */
static int check_uri(const struct demo *d)
{
	struct err e = {0};

	if (!d->o->source_wrap || src_check(d->uri, &e) == 0)
		return CLI_OK;
	if (d->o->delay_us && strstr(d->o->source_wrap, "delay")) {
		cli_error("bad value: --source-wrap %.80s: the demo delays every fetch itself; "
			  "use --delay-us 0 with a delay of your own", d->o->source_wrap);
		return CLI_USAGE;
	}
	cli_error("bad value: --source-wrap %.80s: %s%s", d->o->source_wrap, e.text,
		  strstr(e.text, "; ") ? "" : "; see docs/sources.md");
	return CLI_USAGE;
}

static struct small_cfg small_config(struct demo *d, const struct run_kind *k)
{
	const struct demo_opts *o = d->o;
	struct small_cfg c = {
		.boot = {
			.vcpus = o->vcpus,
			.tasks = o->tasks,
			.rev = k->rev,
			.vector = READY_VECTOR,
			.timer_hz = o->timer_hz,
			.pattern = o->pattern,
			.scenario = SMALL_WALK,
			.pages = d->image.pages,
			.seed = o->seed,
			.idle_ms = ALONE_MS,
			.rounds = 1,
			/* With nobody to wait for, the counting task needs an end of its own. */
			.run_ms = o->pattern == SMALL_COMPUTE && o->tasks == 1 ? ALONE_MS : 0,
		},
		.source_uri = d->uri,
		.expect = d->image.expect,
		.stop_fd = d->signals.fd,
		.progress = show_progress,
		.event = show_event,
		.ctx = d,
	};

	apf_config_init(&c.apf);
	c.apf.faults = k->faults;
	c.apf.abi = k->abi;
	c.apf.sigbus_handler = 1;
	c.apf.block_bytes = (uint32_t)o->block_bytes;
	c.apf.read_ahead_bytes = (uint32_t)o->read_ahead;
	c.apf.on_trace = d->trace || d->plot ? on_step : NULL;
	c.apf.on_trace_ctx = d;
	c.apf.faults_max = o->outstanding;
	c.apf.queue_depth = o->queue_depth;
	c.apf.io = (enum apf_io)o->io;
	c.apf.grace_us = o->grace_us;
	c.apf.source_timeout_ms = (uint32_t)o->source_timeout_ms;
	return c;
}

static uint64_t pages_expected(const struct demo *d)
{
	const struct demo_opts *o = d->o;

	switch (o->pattern) {
	case SMALL_SHARED:
		return d->image.pages * o->tasks;
	case SMALL_COMPUTE:
		return o->tasks > 1 ? d->image.pages : 0;
	case SMALL_IDLE:
		return 0;
	default:
		return d->image.pages;
	}
}

static void take_results(struct demo *d, struct demo_result *r)
{
	const struct small_results *g = &r->out.results;

	for (unsigned t = 0; t < d->o->tasks; t++) {
		r->pages += g->task[t].pages_done;
		r->bad += g->task[t].pages_bad;
	}
	for (unsigned c = 0; c < d->o->vcpus; c++) {
		r->missing += g->cpu[c].missing;
		r->ready += g->cpu[c].ready;
		r->wake_alls += g->cpu[c].wake_all;
	}
	r->verified = r->out.status == 0 && r->bad == 0 && r->pages == pages_expected(d);
}

static int run_one(struct demo *d, enum demo_run run)
{
	const struct run_kind *k = &kinds[run];
	struct demo_result *r = &d->report.results[d->report.count];
	struct small_cfg cfg;
	struct err e = {0};
	int rc;

	*r = (struct demo_result){.run = run, .faults = k->faults_name, .abi = k->abi_name};
	d->plot = r->plot = d->o->plot ? &d->report.plots[d->report.count] : NULL;
	cfg = small_config(d, k);
	d->doing = demo_run_name(run);
	d->bar.what = d->doing;
	if (d->trace)
		trace_file_vm(d->trace, d->doing);
	d->paused = 0;
	rc = d->o->cold ? demo_image_cool(&d->image, &e) : 0;
	r->start_ns = monotonic_ns();
	if (rc == 0)
		rc = small_run(&cfg, &r->out, &e);
	d->plot = NULL;
	d->begun |= r->out.started;
	end_progress(d);
	if (rc < 0) {
		tell_failure(d, &e);
		return rc;
	}
	take_results(d, r);
	d->report.count++;
	if (!r->verified)
		cli_error("not verified: %s: the guest ended with status %u, %llu bad pages; it "
			  "said: %s", d->doing, r->out.status, (unsigned long long)r->bad,
			  r->out.console);
	return 0;
}

/* One guest in which events and real faults meet; adds up what its CPU saw. */
static int collide(struct demo *d, const struct run_kind *k, uint32_t scenario, uint64_t *ret_ok,
		   uint64_t *ret_wrong, uint64_t *ret_lost)
{
	struct small_cfg cfg = small_config(d, k);
	struct small_outcome out;
	struct err e = {0};
	int rc;

	cfg.boot.vcpus = 1;
	cfg.boot.tasks = 2;
	cfg.boot.pages = min_u64(cfg.boot.pages, 16);
	cfg.boot.pattern = SMALL_SEQUENTIAL;
	cfg.boot.scenario = scenario;
	cfg.time_limit_ms = 30000;
	rc = small_run(&cfg, &out, &e);
	d->begun |= out.started;
	end_progress(d);
	if (rc < 0) {
		tell_failure(d, &e);
		return rc;
	}
	*ret_ok = out.results.cpu[0].probe_ok;
	*ret_wrong = out.results.cpu[0].probe_wrong;
	*ret_lost = out.results.cpu[0].probe_lost;
	return 0;
}

static int run_collision(struct demo *d)
{
	static const enum demo_run revisions[] = {DEMO_RUN_USER_LEGACY, DEMO_RUN_USER_PF2_STRICT,
						  DEMO_RUN_USER_PF2, DEMO_RUN_USER_INT};
	int rc = 0;

	d->doing = "collision";
	d->bar.what = d->doing;
	for (unsigned i = 0; i < ARRAY_LEN(revisions) && rc == 0; i++) {
		const struct run_kind *k = &kinds[revisions[i]];
		struct demo_collision *c = &d->report.collisions[i];

		*c = (struct demo_collision){.abi = k->abi_name};
		rc = collide(d, k, SMALL_COLLIDE_A, &c->open_ok, &c->open_wrong, &c->open_lost);
		if (rc == 0)
			rc = collide(d, k, SMALL_COLLIDE_B, &c->masked_ok, &c->masked_wrong,
				     &c->masked_lost);
		if (rc == 0)
			d->report.collision_count++;
	}
	return rc;
}

static int prepare(struct demo *d)
{
	const struct demo_opts *o = d->o;
	struct json_file trace = {.out = NULL};
	struct err e = {0};
	int rc = stop_signals_start(&d->signals, &e);

	if (rc == 0)
		rc = json_file_open(&d->json, o->json, "json", file_use_is_taken, &e);
	if (rc == 0)
		rc = json_file_open(&trace, o->trace, "trace", file_use_is_taken, &e);
	if (rc == 0 && trace.out)
		rc = trace_file_open(&trace, NULL, NULL, &d->trace, &e);
	if (rc == 0)
		rc = demo_image_open(&d->image, o->image, o->pages, o->seed, d->signals.fd, &e);
	d->stopped = rc == -EINTR;
	if (d->stopped)
		return cli_error("%s", e.text);
	if (rc < 0)
		return cli_refused(&e);
	if (build_uri(d, &e) == 0)
		return check_uri(d);
	cli_error("%s", e.text);
	return CLI_USAGE;
}

static int run_all(struct demo *d)
{
	const struct demo_opts *o = d->o;
	struct err e = {0};
	int rc = prepare(d);

	if (rc != CLI_OK)
		return rc;
	d->report.pages = d->image.pages;
	for (uint32_t i = 0; i < o->runs_n && rc == 0; i++)
		rc = o->runs[i] == DEMO_RUN_COLLISION ? run_collision(d) : run_one(d, o->runs[i]);
	d->stopped = rc == -EINTR;
	if ((d->report.count || d->report.collision_count) && !json_file_is_stdout(o->json))
		demo_print(&d->report, stdout);
	/* Also after a failure: what was measured before it is not lost. */
	if (d->json.out && demo_write_json(&d->report, &d->json, &e) < 0)
		return cli_failed(&e);
	for (unsigned i = 0; i < d->report.count; i++)
		if (!d->report.results[i].verified)
			return CLI_FAILED;
	if (rc < 0 && !d->begun)
		return CLI_REFUSED;
	return rc < 0 ? CLI_FAILED : CLI_OK;
}

int demo_main(const struct demo_opts *o)
{
	struct demo *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return cli_refused(&(struct err){-ENOMEM, "cannot start: demo: no memory"});
	d->o = o;
	d->report.opts = o;
	d->signals.fd = -1;
	d->image.fd = -1;
	d->progress = !o->quiet && isatty(STDERR_FILENO);
	rc = run_all(d);
	if (trace_file_close(d->trace) < 0 && rc == CLI_OK)
		rc = CLI_FAILED;
	demo_image_close(&d->image);
	json_file_close(&d->json);
	stop_signals_end(&d->signals);
	if (d->stopped)
		stop_signals_die(&d->signals);
	free(d);
	return rc;
}
