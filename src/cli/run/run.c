/* SPDX-License-Identifier: Apache-2.0 */
/* See run.h. Tests: tests/error/run_test.py, run_terminal_test.py. */
#include "cli/run/run.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/json/json_file.h"
#include "cli/run/tty_guard.h"
#include "cli/stop_signals.h"
#include "cli/trace_file.h"
#include "vmm/disk/file_use.h"
#include "vmm/machine/machine_control.h"
#include "vmm/snap/work_set.h"

struct run {
	const struct run_opts *o;
	struct tty_guard guard;
	struct stop_signals signals;
	struct terminal terminal;
	struct machine *m;
	pthread_mutex_t tell_lock; /* no call of the library or the machine under it */
	struct machine_control *control; /* under tell_lock while there are other threads */
	struct sandbox *sandbox; /* NULL: there is none */
	struct json_file json;
	struct trace_file *trace;
	struct json_file record;
	struct work_recorder *recorder;
	struct err err; /* why it failed; code 0: it did not */
	atomic_bool paused; /* for trouble, and that was told */
	struct machine_outcome out;
};

/* To the clients that follow. */
static void tell(struct run *r, enum control_event_kind kind, const char *text)
{
	pthread_mutex_lock(&r->tell_lock);
	if (r->control)
		machine_control_tell(r->control, kind, text);
	pthread_mutex_unlock(&r->tell_lock);
}

/* Its control socket is there: not while the machine is being opened. */
static bool serves(struct run *r)
{
	bool ret;

	pthread_mutex_lock(&r->tell_lock);
	ret = r->control != NULL;
	pthread_mutex_unlock(&r->tell_lock);
	return ret;
}

static void goes_on(struct run *r, const char *text)
{
	atomic_store(&r->paused, false);
	tell(r, CONTROL_EVENT_RESUMED, text);
	if (!r->o->quiet)
		cli_note("the VM goes on: %s", text);
}

/* One cause stops many blocks: the first one is told. */
static void is_paused(struct run *r, const char *text)
{
	if (atomic_exchange(&r->paused, true))
		return;
	tell(r, CONTROL_EVENT_TROUBLE, text);
	if (r->o->control && !serves(r))
		cli_note("the VM is paused: %s; mend that; Ctrl-C ends it", text);
	else if (r->o->control)
		cli_note("the VM is paused: %s; mend that, then 'asyncpf resume --control %s'",
			 text, r->o->control);
	else
		cli_note("the VM is paused: %s; Ctrl-C ends it (with --control it could be "
			 "resumed)", text);
}

/* Under the library's lock. */
static void on_event(void *ctx, const struct apf_event *ev)
{
	if (ev->kind == APF_EVENT_RESUMED)
		goes_on(ctx, ev->text);
	else
		is_paused(ctx, ev->text);
}

/* By any thread. */
static void on_word(void *ctx, enum machine_word word, const char *text)
{
	struct run *r = ctx;

	switch (word) {
	case MACHINE_NOTE:
		tell(r, CONTROL_EVENT_NOTE, text);
		if (!r->o->quiet)
			cli_note("note: %s", text);
		break;
	case MACHINE_PAUSED:
		is_paused(r, text);
		break;
	case MACHINE_RESUMED:
		goes_on(r, text);
		break;
	}
}

static void trace_begins(void *ctx)
{
	struct run *r = ctx;

	sandbox_thread(r->sandbox, SANDBOX_TRACE);
}

static int open_trace(struct run *r)
{
	struct json_file file;
	int rc = json_file_open(&file, r->o->trace, "trace", file_use_is_taken, &r->err);

	return rc < 0 || !file.out ? rc : trace_file_open(&file, trace_begins, r, &r->trace,
							  &r->err);
}

static int open_record(struct run *r)
{
	const struct machine_cfg *m = &r->o->machine;
	int rc = json_file_open(&r->record, r->o->record, "record", file_use_is_taken, &r->err);

	return rc < 0 || !r->record.out
		       ? rc
		       : work_recorder_new(m->memory_bytes, m->apf.block_bytes,
					   r->o->record_s * NS_PER_S, &r->recorder, &r->err);
}

static void on_trace(void *ctx, const struct apf_trace *t)
{
	const struct run *r = ctx;

	if (r->trace)
		trace_file_tell(r->trace, t);
	if (r->recorder)
		work_recorder_tell(r->recorder, t);
}

/* Nobody tells it anything any more. Returns the exit code. */
static int write_record(struct run *r, bool ran, int code)
{
	struct err e = {0};
	int rc = 0;

	if (r->recorder && ran) {
		rc = json_file_begin(&r->record, &e);
		errno = 0;
		if (rc == 0)
			rc = json_file_written(&r->record,
					       work_recorder_write(r->recorder, r->record.out), &e);
	}
	work_recorder_free(r->recorder);
	json_file_close(&r->record);
	if (rc == 0)
		return code;
	(void)cli_failed(&e);
	return code == CLI_OK ? CLI_FAILED : code;
}

static int start_control(struct run *r)
{
	const struct apf_config *apf = &r->o->machine.apf;
	const struct machine_control_cfg cfg = {
		.path = r->o->control,
		.faults = run_faults_names[apf->faults],
		.abi = apf->faults == APF_FAULTS_USER ? run_abi_names[apf->abi] : NULL,
		.io = cli_io_names[apf_io_used(machine_apf(r->m))],
		.name = r->o->name ? r->o->name : "",
		.version = APF_VERSION_TEXT,
	};
	struct machine_control *control;
	int rc = cfg.path ? machine_control_start(r->m, &cfg, &control, &r->err) : 0;

	if (!cfg.path || rc < 0)
		return rc;
	pthread_mutex_lock(&r->tell_lock);
	r->control = control;
	pthread_mutex_unlock(&r->tell_lock);
	return 0;
}

/* Nobody tells it anything any more. */
static void stop_control(struct run *r, bool ran)
{
	struct machine_control *control;

	if (ran)
		tell(r, CONTROL_EVENT_ENDED,
		     r->err.code ? r->err.text : run_end_name(&r->out, NULL));
	pthread_mutex_lock(&r->tell_lock);
	control = r->control;
	r->control = NULL;
	pthread_mutex_unlock(&r->tell_lock);
	machine_control_stop(control);
}

static void away(void *ctx)
{
	struct run *r = ctx;

	terminal_away(&r->terminal);
}

static void back(void *ctx)
{
	struct run *r = ctx;

	terminal_back(&r->terminal);
}

static void signals_begin(void *ctx)
{
	struct run *r = ctx;

	sandbox_thread(r->sandbox, SANDBOX_SIGNALS);
}

static void guard_begins(void *ctx)
{
	struct run *r = ctx;

	sandbox_thread(r->sandbox, SANDBOX_GUARD);
}

static void thread_begins(void *ctx, enum machine_thread which)
{
	struct run *r = ctx;

	run_sandbox_machine_thread(r->sandbox, which, r->o);
}

static int start(struct run *r)
{
	struct machine_cfg cfg = r->o->machine;
	int rc = run_sandbox_open(r->o, &r->sandbox, &r->err);

	if (rc == 0)
		rc = open_trace(r);
	if (rc == 0)
		rc = open_record(r);
	if (rc == 0)
		rc = json_file_open(&r->json, r->o->json, "json", file_use_is_taken, &r->err);
	r->guard.begins = guard_begins;
	r->guard.begins_ctx = r;
	if (rc == 0)
		rc = tty_guard_start(&r->guard, STDIN_FILENO, &r->err);
	if (rc == 0)
		rc = stop_signals_start(&r->signals, &r->err);
	if (rc < 0)
		return rc;
	cfg.in_fd = STDIN_FILENO;
	cfg.out_fd = STDOUT_FILENO;
	cfg.terminal = &r->terminal;
	cfg.terminal_modes = r->guard.modes;
	cfg.stop_fd = r->signals.fd;
	cfg.apf.on_event = on_event;
	cfg.apf.on_event_ctx = r;
	cfg.apf.on_trace = r->trace || r->recorder ? on_trace : NULL;
	cfg.apf.on_trace_ctx = r;
	cfg.say = on_word;
	cfg.say_ctx = r;
	cfg.on_thread = thread_begins;
	cfg.on_thread_ctx = r;
	if (r->sandbox) {
		cfg.apf.on_thread = run_sandbox_library_thread;
		cfg.apf.on_thread_ctx = r->sandbox;
	}
	rc = machine_open(&cfg, &r->m, &r->err);
	/* Disks are ours by now, and the file is none of them. */
	if (rc == 0 && r->trace)
		trace_file_vm(r->trace, "guest");
	if (rc == 0)
		rc = start_control(r);
	if (rc == 0)
		run_sandbox_opened(r->o);
	return rc;
}

/* Returns the exit code. */
static int write_json(struct run *r, int code)
{
	struct err e = {0};
	int rc = json_file_begin(&r->json, &e);

	if (rc == 0) {
		errno = 0;
		rc = run_report_json(r->o, &r->out, r->err.code ? &r->err : NULL, r->json.out);
		rc = json_file_written(&r->json, rc, &e);
	}
	if (rc == 0)
		return code;
	(void)cli_failed(&e);
	return code == CLI_OK ? CLI_FAILED : code;
}

/* By a signal; once no more are waited for. */
static bool was_interrupted(const struct run *r, bool ran)
{
	if (ran)
		return r->err.code == 0 && r->out.end == MACHINE_INTERRUPTED;
	return r->err.code == -EINTR && r->signals.signal != 0;
}

static int report(struct run *r, bool ran, int code)
{
	if (r->err.code != 0 && ran)
		(void)cli_failed(&r->err);
	else if (r->err.code != 0 && !was_interrupted(r, ran))
		code = cli_refused(&r->err);
	else if (r->out.end == MACHINE_RESET && !r->o->quiet)
		cli_error("the guest reset the machine (a reboot, or a panic); it has ended");
	if (r->o->stats && ran)
		run_report_stats(r->o, &r->out, stderr);
	return r->json.out ? write_json(r, code) : code;
}

int run_exit_code(const struct machine_outcome *out)
{
	switch (out->end) {
	case MACHINE_POWERED_OFF:
		return CLI_OK;
	case MACHINE_ESCAPED:
	case MACHINE_STOPPED:
		return CLI_STOPPED;
	case MACHINE_RESET:
		return CLI_RESET;
	case MACHINE_EXITED:
		return CLI_GUEST + (int)min_u64(out->status, CLI_GUEST_MAX - CLI_GUEST);
	case MACHINE_INTERRUPTED: /* stop_signals_die() is to come */
		break;
	}
	return CLI_FAILED;
}

int run_main(const struct run_opts *o)
{
	struct run r = {
		.o = o, .signals.fd = -1, .tell_lock = PTHREAD_MUTEX_INITIALIZER};
	const struct stop_signals_job job = {
		.begins = signals_begin, .away = away, .back = back, .ctx = &r};
	int code = CLI_FAILED;
	bool ran;

	terminal_init(&r.terminal);
	r.signals.job = &job;
	ran = start(&r) == 0;

	if (ran && machine_run(r.m, &r.out, &r.err) == 0) {
		r.err.code = 0;
		code = run_exit_code(&r.out);
	}
	ran &= r.out.started;
	stop_control(&r, ran);
	machine_close(r.m);
	if (trace_file_close(r.trace) < 0 && code == CLI_OK)
		code = CLI_FAILED;
	code = write_record(&r, ran, code);
	stop_signals_end(&r.signals);
	terminal_fini(&r.terminal);
	tty_guard_end(&r.guard);
	code = report(&r, ran, code);
	json_file_close(&r.json);
	if (was_interrupted(&r, ran))
		stop_signals_die(&r.signals);
	return code;
}
