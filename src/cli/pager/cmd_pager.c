/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf pager`: the page fault handler of VMs that are other processes (src/pager), with the
 * control socket that `asyncpf run` has, and what the user sees of it. Test:
 * tests/integration/pager_test.py.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control/control_show.h"
#include "cli/file_roles.h"
#include "cli/json/json.h"
#include "cli/json/json_counters.h"
#include "cli/json/json_file.h"
#include "cli/pager/pager_cmd.h"
#include "cli/stop_signals.h"
#include "vmm/control/control.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_socket.h"
#include "vmm/disk/file_use.h"

#define READ_AHEAD_PAGES 4096u

struct pager {
	struct pager_opts o;
	struct pager_rules rules; /* the map's */
	struct pager_files files; /* that later rules may name; not changed once they may come */
	struct sandbox *sandbox;  /* NULL: there is none */
	struct pgr *pgr;
	struct control *control;
	struct stop_signals signals;
	struct stop_signals_job on_signal;
	struct json_file json;
	/* The control socket's thread's, then ours. */
	struct pgr_vm_status vms[CONTROL_SERVED_MAX];
	struct pgr_source_status sources[CONTROL_SOURCES_MAX];
	struct control_socket *sockets[RULES_MAX];
	unsigned socket_count;
	atomic_bool stopped; /* by 'asyncpf stop' */
};

static const struct opt rows[] = {
	{OPT_TEXT(struct pager_opts, listen), .name = "listen", .arg = "SOCKET",
	 .help = "Make a socket there, for VMMs to come to; for you alone."},
	{OPT_TEXT(struct pager_opts, source), .name = "source", .arg = "URI",
	 .help = "The page source of VMs that come to --listen: a path, or one of "
		 "asyncpf-sources(7)."},
	{OPT_TEXT(struct pager_opts, map), .name = "map", .arg = "FILE",
	 .help = "More of both: a JSON array of {\"listen\": SOCKET, \"source\": URI}."},
	{OPT_TEXT(struct pager_opts, control), .name = "control", .arg = "SOCKET",
	 .help = "Make a control socket there, for 'asyncpf status' and stop, and for rules that "
		 "come later; for you alone."},
	{OPT_U32(struct pager_opts, read_ahead), .name = "read-ahead", .arg = "PAGES",
	 .max = READ_AHEAD_PAGES,
	 .help = "Read so many pages ahead of even streams at most; fewer of a source that is "
		 "near; 0: none; default 4096."},
	{OPT_U32(struct pager_opts, handshake_s), .name = "handshake-timeout", .arg = "SECONDS",
	 .min = 1, .max = 3600,
	 .help = "Hang up on a VMM that has not said what it has to; default 10."},
	{OPT_CHOICE(struct pager_opts, io), .name = "io", .arg = "WORD", .choices = cli_io_names,
	 .help = "What reads page sources: uring, threads, or auto, the first of them that the "
		 "system lets be used; default auto."},
	{OPT_LIST(struct pager_opts, allow), .name = "allow", .arg = "WHAT", .max = OPTS_LIST_MAX,
	 .help = "What rules that come later may name, besides the folders of what is named now: a "
		 "folder for sources, 'socket:DIR', 'cache:DIR', or 'network'. May be repeated."},
	{OPT_TEXT(struct pager_opts, user), .name = "user", .arg = "USER",
	 .help = "Become USER (a name or number, with ':GID' another group) once everything is "
		 "open; for root."},
	{OPT_CHOICE(struct pager_opts, sandbox), .name = "sandbox", .arg = "WORD",
	 .choices = cli_sandbox_names,
	 .help = "on: give up what the pager does not need, as far as the host can take it away; "
		 "strict: refuse to run where it cannot; off, for debugging; default on."},
	{OPT_FLAG(struct pager_opts, stats), .name = "stats",
	 .help = "Show how touches were served at the end, on standard error."},
	{OPT_TEXT(struct pager_opts, json), .name = "json", .arg = "FILE",
	 .help = "Write how it ended and the statistics to FILE as JSON; with -, to standard "
		 "output."},
	{OPT_FLAG(struct pager_opts, quiet), .name = "quiet",
	 .help = "Do not say which VMs come and go."},
	{.name = NULL},
};

static const struct opts table = {
	.verb = "pager",
	.about = "Serves the memory of VMs that other programs run: Firecracker hands it over\n"
		 "when it loads a snapshot with the memory backend 'Uffd'. Ctrl-C or 'asyncpf\n"
		 "stop' ends it; VMs that are there then wait for memory for ever.",
	.rows = rows,
};

/* ---- what the pager asks for ---- */

static void say(void *ctx, const char *text)
{
	const struct pager *p = ctx;

	if (!p->o.quiet)
		cli_note("%s", text);
}

/* Under the pager's lock. */
static int listen_there(void *ctx, const char *path, struct err *e)
{
	struct pager *p = ctx;
	struct control_socket *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	rc = control_socket_open(s, "listening socket", path, e);
	if (rc < 0) {
		free(s);
		return rc;
	}
	p->sockets[p->socket_count++] = s;
	return s->fd;
}

/* ---- control socket ---- */

static void fill_name(char *to, size_t bytes, const char *name, uint64_t number)
{
	(void)snprintf(to, bytes, "%s.%llu", name, (unsigned long long)number);
}

static void fill_sources(struct pager *p, struct control_status *ret)
{
	ret->source_count = pgr_sources(p->pgr, p->sources, CONTROL_SOURCES_MAX);
	for (uint32_t i = 0; i < ret->source_count; i++) {
		const struct pgr_source_status *v = &p->sources[i];
		struct control_source *to = &ret->sources[i];

		*to = (struct control_source){
			.vms = v->vms, .reads = v->reads, .read_bytes = v->read_bytes,
			.read_errors = v->read_errors, .read_retries = v->read_retries,
			.read_ns = v->read_ns, .read_max_ns = v->read_max_ns,
		};
		fill_name(to->name, sizeof(to->name), v->name, v->number);
	}
}

static void fill_status(struct pager *p, struct control_status *ret)
{
	struct pgr_status s;
	uint32_t count;

	pgr_status(p->pgr, &s, p->vms, CONTROL_SERVED_MAX, &count);
	(void)snprintf(ret->state, sizeof(ret->state), "serving");
	(void)snprintf(ret->why, sizeof(ret->why), "%s", s.trouble);
	(void)snprintf(ret->note, sizeof(ret->note),
		       "%llu VMs now, %llu in all; %llu connections refused",
		       (unsigned long long)s.vms, (unsigned long long)s.vms_total,
		       (unsigned long long)s.refused);
	(void)snprintf(ret->faults, sizeof(ret->faults), "userfaultfd");
	(void)snprintf(ret->io, sizeof(ret->io), "%s", s.io);
	(void)snprintf(ret->version, sizeof(ret->version), "%s", APF_VERSION_TEXT);
	ret->protocol = CONTROL_VERSION;
	ret->pid = (uint64_t)getpid();
	ret->uptime_ns = s.uptime_ns;
	ret->block_bytes = PAGE_BYTES;
	ret->counters = s.counters;
	ret->served_count = count;
	for (uint32_t i = 0; i < count; i++) {
		const struct pgr_vm_status *v = &p->vms[i];
		struct control_served *to = &ret->served[i];

		*to = (struct control_served){
			.pid = v->pid, .memory_bytes = v->memory_bytes,
			.placed_bytes = v->placed_bytes, .removed_bytes = v->removed_bytes,
			.faults_total = v->faults_total, .read_errors = v->read_errors,
		};
		fill_name(to->name, sizeof(to->name), v->name, v->number);
	}
	fill_sources(p, ret);
}

static void status(void *ctx, struct control_status *ret)
{
	fill_status(ctx, ret);
}

static void shared(void *ctx, struct control_status *ret)
{
	struct pager *p = ctx;

	pgr_shared(p->pgr, p->sources, (uint32_t)ret->source_count);
	for (uint32_t i = 0; i < ret->source_count; i++) {
		int64_t bytes = p->sources[i].shared_bytes;

		ret->sources[i].has_shared = bytes >= 0;
		ret->sources[i].shared_bytes = bytes >= 0 ? (uint64_t)bytes : 0;
	}
}

static int no_pause(void *ctx, struct err *e)
{
	(void)ctx;
	return err_set(e, -EOPNOTSUPP, "a pager pauses nobody; ask the VM's own program");
}

static int no_evict(void *ctx, uint64_t bytes, const atomic_bool *cancel, uint64_t *ret_resident,
		    struct err *e)
{
	(void)ctx;
	(void)bytes;
	(void)cancel;
	(void)ret_resident;
	return err_set(e, -EOPNOTSUPP, "a pager takes no memory away; use the VM's balloon");
}

static int no_limit(void *ctx, uint64_t bytes, struct err *e)
{
	return no_evict(ctx, bytes, NULL, NULL, e);
}

static int no_balloon(void *ctx, uint64_t bytes, struct err *e)
{
	(void)ctx;
	(void)bytes;
	return err_set(e, -EOPNOTSUPP, "a pager has no balloon; ask the VM's own program");
}

static int no_balloon_wait(void *ctx, uint64_t bytes, const atomic_bool *cancel, struct err *e)
{
	(void)cancel;
	return no_balloon(ctx, bytes, e);
}

static int no_snapshot(void *ctx, const struct control_request *r, const int *fds,
		       const atomic_bool *cancel, struct err *e)
{
	(void)ctx;
	(void)r;
	(void)fds;
	(void)cancel;
	return err_set(e, -EOPNOTSUPP, "a pager saves nobody; ask the VM's own program");
}

static int stop(void *ctx, struct err *e)
{
	struct pager *p = ctx;

	(void)e;
	p->stopped = true;
	pgr_stop(p->pgr);
	return 0;
}

static int serve(void *ctx, const char *text, struct err *e)
{
	struct pager *p = ctx;
	struct rule r;
	int rc = rule_parse(text, strlen(text), &r, e);

	if (rc == 0 && p->sandbox)
		rc = pager_files_check(&p->files, r.socket, r.uri, e);
	return rc < 0 ? rc : pgr_add_rule(p->pgr, r.socket, r.uri, e);
}

static const struct control_ops control_ops = {
	.status = status,
	.shared = shared,
	.pause = no_pause,
	.resume = no_pause,
	.evict = no_evict,
	.balloon_set = no_balloon,
	.balloon = no_balloon_wait,
	.stop = stop,
	.limit = no_limit,
	.snapshot = no_snapshot,
	.serve = serve,
};

/* ---- threads ---- */

static void thread_begins(void *ctx, enum pgr_thread which, const char *name)
{
	const struct pager *p = ctx;

	pager_sandbox_thread(p->sandbox, which, name);
}

static void signals_begin(void *ctx)
{
	const struct pager *p = ctx;

	sandbox_thread(p->sandbox, SANDBOX_SIGNALS);
}

static void control_begins(void *ctx)
{
	const struct pager *p = ctx;

	sandbox_thread(p->sandbox, SANDBOX_RULES);
}

/* ---- beginning and end ---- */

/* A socket of the map's may be --listen's, too. */
static int check_files(const struct pager_opts *o, const struct pager_rules *map, struct err *e)
{
	struct file_roles f = {.count = 0};
	int rc;

	file_roles_add(&f, "map", o->map, false);
	file_roles_add(&f, "control", o->control, true);
	rc = file_roles_add_words(&f, "json", json_file_is_stdout(o->json) ? NULL : o->json, e);
	for (unsigned i = 0; rc == 0 && i < map->count; i++)
		rc = file_roles_check_read(&f, "listen", map->list[i].socket, e);
	file_roles_add(&f, "listen", o->listen, true);
	if (rc == 0)
		rc = file_roles_check(&f, e);
	if (rc == 0)
		rc = file_roles_check_source(&f, "source", o->source, e);
	for (unsigned i = 0; rc == 0 && i < map->count; i++)
		rc = file_roles_check_source(&f, "source", map->list[i].uri, e);
	return rc;
}

static int say_which(const struct pager *p, struct err *e)
{
	const struct err why = *e;

	return err_set(e, why.code, "map %.100s: %s", p->o.map, why.text);
}

/* What is opened now, and what may be named later. */
static int look_at_files(struct pager *p, struct err *e)
{
	const struct pager_opts *o = &p->o;
	int rc = pager_files_given(&p->files, o->control, NULL, e);

	for (unsigned i = 0; rc == 0 && i < o->allow.count; i++)
		rc = pager_files_allow(&p->files, o->allow.text[i], e);
	if (rc == 0)
		rc = pager_files_given(&p->files, o->listen, o->source, e);
	for (unsigned i = 0; rc == 0 && i < p->rules.count; i++) {
		const struct rule *r = &p->rules.list[i];

		rc = pager_files_given(&p->files, r->socket, r->uri, e);
		/* As opening it would say. */
		if (rc < 0)
			return say_which(p, e);
	}
	return rc;
}

static int begin_itself(struct pager *p, struct err *e)
{
	int rc = check_files(&p->o, &p->rules, e);

	if (rc == 0 && p->o.map)
		rc = pager_map_read(p->o.map, &p->rules, e);
	if (rc == 0 && p->o.map && p->rules.count == 0 && !p->o.listen && !p->o.control)
		rc = err_set(e, -EINVAL, "map %.100s: it has no rule: nobody could come; give it "
			     "one, or --listen or --control", p->o.map);
	if (rc == 0)
		rc = check_files(&p->o, &p->rules, e);
	if (rc == 0)
		rc = look_at_files(p, e);
	if (rc == 0)
		rc = pager_sandbox_open(&p->o, &p->rules, &p->files, &p->sandbox, e);
	if (rc == 0)
		rc = json_file_open(&p->json, p->o.json, "json", file_use_is_taken, e);
	if (rc < 0)
		return rc;
	p->on_signal = (struct stop_signals_job){.begins = signals_begin, .ctx = p};
	p->signals.job = &p->on_signal;
	return stop_signals_start(&p->signals, e);
}

static bool is_told_to_end(const struct pager *p)
{
	struct pollfd fd = {.fd = p->signals.fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

static int add_rules(struct pager *p, struct err *e)
{
	int rc = p->o.listen ? pgr_add_rule(p->pgr, p->o.listen, p->o.source, e) : 0;

	for (unsigned i = 0; rc == 0 && i < p->rules.count; i++) {
		const struct rule *r = &p->rules.list[i];

		if (is_told_to_end(p))
			return -ECANCELED;
		rc = pgr_add_rule(p->pgr, r->socket, r->uri, e);
		if (rc < 0)
			return say_which(p, e);
	}
	return rc;
}

static int begin(struct pager *p, struct err *e)
{
	const struct pgr_cfg cfg = {
		.io = (enum ioq_way)p->o.io,
		.handshake_ms = p->o.handshake_s * 1000,
		.read_ahead = p->o.read_ahead,
		.listen = listen_there,
		.say = say,
		.begins = thread_begins,
		.ctx = p,
	};
	int rc = begin_itself(p, e);

	if (rc == 0)
		rc = pgr_open(&cfg, &p->pgr, e);
	if (rc == 0)
		rc = add_rules(p, e);
	/* Whoever adds rules later is bound by then. */
	if (rc == 0 && p->sandbox && p->o.control)
		rc = pgr_start(p->pgr, p->files.network, e);
	if (rc == 0 && p->o.control) {
		const struct control_cfg control = {.path = p->o.control, .begins = control_begins,
						    .begins_ctx = p};

		rc = control_start(&control, &control_ops, p, &p->control, e);
	}
	if (rc == 0)
		pager_sandbox_opened(&p->o, &p->rules, &p->files, p->sandbox);
	return rc;
}

static int write_json(struct pager *p, const struct control_status *s, struct err *e)
{
	struct json j;
	int rc = json_file_begin(&p->json, e);

	if (rc < 0)
		return rc;
	json_init(&j, p->json.out);
	j.compact = json_file_is_stdout(p->o.json);
	json_object_open(&j, NULL);
	json_text(&j, "version", APF_VERSION_TEXT);
	json_text(&j, "io", s->io);
	json_text(&j, "end", p->stopped ? "stop" : "signal");
	json_text(&j, "trouble", *s->why ? s->why : NULL);
	json_f64(&j, "wall_s", (double)s->uptime_ns / 1e9);
	json_counters(&j, "stats", &s->counters);
	control_show_served_json(&j, "served", s->served, s->served_count);
	control_show_sources_json(&j, "sources", s->sources, s->source_count);
	json_close(&j);
	return json_file_written(&p->json, json_end(&j), e);
}

static int report(struct pager *p, const struct control_status *s)
{
	struct err e = {0};

	if (p->o.stats) {
		control_show_counters(&s->counters, PAGE_BYTES, stderr);
		if (s->served_count)
			control_show_served(s->served, s->served_count, stderr);
		control_show_sources(s->sources, s->source_count, stderr);
	}
	if (p->json.out && write_json(p, s, &e) < 0)
		return cli_failed(&e);
	return CLI_OK;
}

static void end(struct pager *p)
{
	for (unsigned i = 0; i < p->socket_count; i++) {
		control_socket_close(p->sockets[i]);
		free(p->sockets[i]);
	}
	/* Who waits for the end hears of it now that the sockets are gone; nobody asks any more. */
	control_stop(p->control);
	pgr_close(p->pgr);
	stop_signals_end(&p->signals);
	json_file_close(&p->json);
	pager_files_free(&p->files);
	free(p->rules.list);
}

static int run(struct pager *p)
{
	struct control_status *s = calloc(1, sizeof(*s));
	struct err e = {0};
	int r, rc = s ? begin(p, &e) : err_set(&e, -ENOMEM, "out of memory");

	if (rc == -ECANCELED) {
		r = CLI_REFUSED; /* a signal: it ends by that */
	} else if (rc < 0) {
		r = cli_refused(&e);
	} else {
		if (!p->o.quiet)
			fprintf(stderr, "asyncpf: serving\n");
		rc = pgr_run(p->pgr, p->signals.fd, &e);
		if (p->control)
			control_tell(p->control, CONTROL_EVENT_ENDED,
				     rc < 0 ? e.text : p->stopped ? "stop" : "signal");
		fill_status(p, s);
		r = rc < 0 ? cli_failed(&e) : report(p, s);
	}
	end(p);
	free(s);
	if (rc == 0 || rc == -ECANCELED)
		stop_signals_die(&p->signals);
	return r;
}

int cmd_pager(int argc, char **argv)
{
	struct pager p = {
		.o = {.read_ahead = READ_AHEAD_PAGES, .sandbox = APF_SANDBOX_DEFAULT},
		.signals = {.fd = -1},
	};
	struct sandbox_user user;
	struct err e;
	int operand;
	int r = cli_begin(&table, argc, argv, &p.o, &operand);

	if (r >= 0)
		return r;
	if (!p.o.listen != !p.o.source) {
		cli_error("missing option: --%s: --listen and --source belong together; see "
			  "'asyncpf pager --help'", p.o.listen ? "source" : "listen");
		return CLI_USAGE;
	}
	if (!p.o.listen && !p.o.map && !p.o.control) {
		cli_error("missing option: --listen, --map or --control: nobody could come; see "
			  "'asyncpf pager --help'");
		return CLI_USAGE;
	}
	if (p.o.user && p.o.sandbox == CLI_SANDBOX_OFF) {
		cli_error(CLI_USER_NEEDS_SANDBOX);
		return CLI_USAGE;
	}
	if (p.o.user && sandbox_user_parse(p.o.user, &user, &e) < 0) {
		cli_error("%s", e.text);
		return CLI_USAGE;
	}
	return run(&p);
}
