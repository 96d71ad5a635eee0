/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See trace_file.h. One tells at a time, and one thread takes: the ring needs no lock. A fault is
 * an asynchronous slice from the touch to page ready, or to where its vCPU goes on untold or page
 * missing is withdrawn; what a vCPU stands still for is a slice on its own track; reads are slices
 * below those of the library.
 */
#include "cli/trace_file.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/cli.h"
#include "cli/json/json.h"
#include "cli/trace_line.h"

#define RING (1u << 16) /* entries; a power of two */
#define VCPUS_MAX 1024u
#define OPEN_MAX (1u << 14) /* faults that wait for page ready, and reads; a power of two */
#define KIND_VM 0u          /* of an entry of ours: another VM, `name` */
#define TRACK_OF_LIBRARY 1u
#define TRACK_OF_VCPUS 2u
#define WAKE_ALL UINT32_MAX
#define PATIENCE_S 3u
#define BUFFER 65536u

struct entry {
	struct apf_trace what;
	const char *name;
};

struct open {
	uint64_t key; /* told_key(), read_key(); 0: free */
	uint64_t id;  /* of its slice */
	bool ahead;   /* of a read */
};

struct vcpu_state {
	uint64_t fault; /* that it stands still for; 0: it does not */
	bool told;
	bool named; /* its track has its name */
};

struct trace_file {
	struct json_file file;
	FILE *out; /* writes to it, never longer than its reader lets it */
	struct json json;
	struct trace_line line;
	bool is_regular; /* the file: it always has room */
	trace_file_begins *begins;
	void *begins_ctx;
	pthread_t thread;
	sem_t some;
	bool closing;           /* atomic */
	uint32_t written, read; /* atomic; entries, wrapping */
	uint64_t lost;          /* the teller's */
	struct err error;       /* the thread's: of the first write that failed */
	/* The thread's: */
	uint64_t first_ns, faults, reads;
	uint32_t vm;
	bool paused;
	struct vcpu_state vcpus[VCPUS_MAX];
	struct open opens[OPEN_MAX];
	char buffer[BUFFER]; /* of `out` */
	struct entry ring[RING];
};

/* ---- who tells ---- */

static void put(struct trace_file *t, const struct entry *e)
{
	uint32_t at = t->written;
	uint32_t used = at - __atomic_load_n(&t->read, __ATOMIC_ACQUIRE);

	if (used == RING) {
		t->lost++;
		return;
	}
	t->ring[at % RING] = *e;
	__atomic_store_n(&t->written, at + 1, __ATOMIC_RELEASE);
	/* Else it looks by itself, once in a while. */
	if (used == RING / 4)
		sem_post(&t->some);
}

void trace_file_tell(void *ctx, const struct apf_trace *what)
{
	put(ctx, &(struct entry){.what = *what});
}

void trace_file_vm(struct trace_file *t, const char *name)
{
	put(t, &(struct entry){.what = {.kind = KIND_VM}, .name = name});
}

/* ---- who writes ---- */

/*
 * What has a reader may be full. While the VM runs, the reader's time is its own; once that has
 * ended, one that takes nothing for PATIENCE_S is not waited for.
 */
static bool has_room(const struct trace_file *t)
{
	struct pollfd p = {.fd = fileno(t->file.out), .events = POLLOUT};

	for (unsigned idle = 0; poll(&p, 1, 1000) == 0;) {
		if (!__atomic_load_n(&t->closing, __ATOMIC_ACQUIRE))
			idle = 0;
		else if (++idle == PATIENCE_S)
			return false;
	}
	return true;
}

/* For fopencookie. A pipe that has room has it for a page. */
static ssize_t write_some(void *cookie, const char *bytes, size_t len)
{
	struct trace_file *t = cookie;
	const size_t piece = t->is_regular ? SIZE_MAX : PIPE_BUF;
	size_t done = 0;
	ssize_t n;

	while (done < len && t->error.code == 0) {
		if (!t->is_regular && !has_room(t)) {
			err_set(&t->error, -ETIMEDOUT, "cannot write: %.100s: its reader does not "
				"read; give --trace one that does, or a file", t->file.path);
			break;
		}
		n = write(fileno(t->file.out), bytes + done, min_u64(len - done, piece));
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			(void)json_file_written(&t->file, -EIO, &t->error);
	}
	/* Told once: the rest of it need not be tried. */
	return (ssize_t)len;
}

/* Until end(). name: NULL for none. */
static void begin(struct trace_file *t, char ph, uint32_t track, uint64_t ns, const char *name)
{
	struct trace_line *l = &t->line;

	l->len = 0;
	trace_line_put(l, "{\"ph\":\"", 7);
	trace_line_put(l, &ph, 1);
	trace_line_number(l, "\",\"pid\":", t->vm);
	trace_line_number(l, ",\"tid\":", track);
	/* Microseconds. */
	trace_line_thousandths(l, ",\"ts\":", ns - t->first_ns);
	if (name)
		trace_line_text(l, ",\"name\":", name);
}

static void end(struct trace_file *t)
{
	trace_line_put(&t->line, "}", 1);
	json_raw(&t->json, NULL, t->line.text, t->line.len);
}

/* The same, of an asynchronous slice. */
static void begin_slice(struct trace_file *t, char ph, uint32_t track, uint64_t ns,
			const char *name, const char *category, uint64_t id)
{
	begin(t, ph, track, ns, name);
	trace_line_text(&t->line, ",\"cat\":", category);
	trace_line_number(&t->line, ",\"id\":", id);
}

/* What belongs to the address: until close_args(). */
static void open_args(struct trace_file *t, uint64_t gpa)
{
	trace_line_hex(&t->line, ",\"args\":{\"gpa\":", gpa);
}

static void close_args(struct trace_file *t)
{
	trace_line_put(&t->line, "}", 1);
}

/* A name is anybody's text, unlike what begin() takes. */
static void name_track(struct trace_file *t, uint32_t track, const char *what, const char *name)
{
	struct json *j = &t->json;

	json_object_open(j, NULL);
	json_text(j, "ph", "M");
	json_u64(j, "pid", t->vm);
	json_u64(j, "tid", track);
	json_u64(j, "ts", 0);
	json_text(j, "name", what);
	json_object_open(j, "args");
	json_text(j, "name", name);
	json_close(j);
	json_close(j);
}

static void new_vm(struct trace_file *t, const char *name)
{
	if (t->vm++ == 0)
		json_array_open(&t->json, NULL);
	t->paused = false;
	memset(t->vcpus, 0, sizeof(t->vcpus));
	memset(t->opens, 0, sizeof(t->opens));
	name_track(t, 0, "process_name", name);
	name_track(t, TRACK_OF_LIBRARY, "thread_name", "memory");
}

/* The place of the key, or a free one for it; NULL: there is none. */
static struct open *open_at(struct trace_file *t, uint64_t key)
{
	uint64_t at = key * 0x9e3779b97f4a7c15ull >> 40;

	for (unsigned i = 0; i < 64; i++) {
		struct open *x = &t->opens[(at + i) % OPEN_MAX];

		if (x->key == key || x->key == 0)
			return x;
	}
	return NULL;
}

static uint64_t told_key(uint32_t vcpu, uint32_t token)
{
	return (uint64_t)(vcpu + 1) << 32 | token;
}

static uint64_t read_key(uint64_t gpa)
{
	return 1ull << 63 | gpa;
}

/* A free place ends the search for others: what was behind it is put anew. */
static void forget(struct trace_file *t, struct open *x)
{
	x->key = 0;
	for (struct open *at = x;;) {
		struct open moved;

		at = at + 1 < t->opens + OPEN_MAX ? at + 1 : t->opens;
		if (at->key == 0)
			return;
		moved = *at;
		at->key = 0;
		*open_at(t, moved.key) = moved;
	}
}

static void fault_ends(struct trace_file *t, uint64_t fault, uint32_t track, uint64_t ns)
{
	begin_slice(t, 'e', track, ns, "fault", "fault", fault);
	end(t);
}

static void fault_note(struct trace_file *t, const char *what, uint64_t fault, uint32_t track,
		       uint64_t ns)
{
	begin_slice(t, 'n', track, ns, what, "fault", fault);
	end(t);
}

static void touch(struct trace_file *t, const struct apf_trace *x, struct vcpu_state *v)
{
	uint32_t track = TRACK_OF_VCPUS + x->vcpu;

	v->fault = ++t->faults;
	v->told = false;
	begin_slice(t, 'b', track, x->ns, "fault", "fault", v->fault);
	open_args(t, x->gpa);
	trace_line_number(&t->line, ",\"cpl\":", x->value);
	close_args(t);
	end(t);
	begin(t, 'B', track, x->ns, "stands still");
	open_args(t, x->gpa);
	close_args(t);
	end(t);
}

static void told(struct trace_file *t, const struct apf_trace *x, struct vcpu_state *v)
{
	struct open *at = open_at(t, told_key(x->vcpu, x->value));

	fault_note(t, "told", v->fault, TRACK_OF_VCPUS + x->vcpu, x->ns);
	if (!at)
		return;
	*at = (struct open){.key = told_key(x->vcpu, x->value), .id = v->fault};
	v->told = true;
}

static void goes_on(struct trace_file *t, const struct apf_trace *x, struct vcpu_state *v)
{
	uint32_t track = TRACK_OF_VCPUS + x->vcpu;

	begin(t, 'E', track, x->ns, NULL);
	end(t);
	if (!v->told)
		fault_ends(t, v->fault, track, x->ns);
	v->fault = 0;
}

static void ready(struct trace_file *t, const struct apf_trace *x)
{
	uint32_t track = TRACK_OF_VCPUS + x->vcpu;
	bool all = x->value == WAKE_ALL;
	struct open *at;

	begin(t, 'i', track, x->ns, all ? "wake all" : "page ready");
	trace_line_text(&t->line, ",\"s\":", "t");
	end(t);
	at = all ? NULL : open_at(t, told_key(x->vcpu, x->value));
	if (at && at->key) {
		fault_ends(t, at->id, track, x->ns);
		forget(t, at);
	}
	for (unsigned i = 0; all && i < OPEN_MAX; i++) {
		/* Whatever takes the place of one that is forgotten is looked at, too. */
		while (t->opens[i].key >> 32 == x->vcpu + 1) {
			fault_ends(t, t->opens[i].id, track, x->ns);
			forget(t, &t->opens[i]);
		}
	}
}

static void withdrawn(struct trace_file *t, const struct apf_trace *x)
{
	uint32_t track = TRACK_OF_VCPUS + x->vcpu;
	struct open *at = open_at(t, told_key(x->vcpu, x->value));

	if (!at || !at->key)
		return;
	fault_note(t, "withdrawn", at->id, track, x->ns);
	fault_ends(t, at->id, track, x->ns);
	forget(t, at);
}

static void of_vcpu(struct trace_file *t, const struct apf_trace *x)
{
	struct vcpu_state *v = &t->vcpus[x->vcpu];
	char name[32];

	if (!v->named) {
		snprintf(name, sizeof(name), "vCPU %u", x->vcpu);
		name_track(t, TRACK_OF_VCPUS + x->vcpu, "thread_name", name);
		v->named = true;
	}
	if (x->kind == APF_TRACE_TOUCH)
		touch(t, x, v);
	else if (x->kind == APF_TRACE_READY)
		ready(t, x);
	else if (x->kind == APF_TRACE_WITHDRAWN)
		withdrawn(t, x);
	else if (v->fault == 0)
		return;
	else if (x->kind == APF_TRACE_TOLD)
		told(t, x, v);
	else if (x->kind == APF_TRACE_HALT)
		fault_note(t, "halted", v->fault, TRACK_OF_VCPUS + x->vcpu, x->ns);
	else if (x->kind == APF_TRACE_GO)
		goes_on(t, x, v);
}

/* A viewer ends what has both name and id; and to some an id is the same in each process. */
static void begin_read(struct trace_file *t, char ph, const struct apf_trace *x,
		       const struct open *at)
{
	begin_slice(t, ph, TRACK_OF_LIBRARY, x->ns, at->ahead ? "read ahead" : "read", "read",
		    at->id);
}

static void read_begins(struct trace_file *t, const struct apf_trace *x)
{
	struct open *at = open_at(t, read_key(x->gpa));

	if (!at)
		return;
	*at = (struct open){.key = read_key(x->gpa), .id = ++t->reads, .ahead = x->value != 0};
	begin_read(t, 'b', x, at);
	open_args(t, x->gpa);
	trace_line_number(&t->line, ",\"bytes\":", x->bytes);
	close_args(t);
	end(t);
}

static void read_ends(struct trace_file *t, const struct apf_trace *x)
{
	struct open *at = open_at(t, read_key(x->gpa));

	if (!at || !at->key)
		return;
	begin_read(t, 'e', x, at);
	trace_line_number(&t->line, ",\"args\":{\"error\":", x->value);
	close_args(t);
	end(t);
	forget(t, at);
}

static void memory(struct trace_file *t, const struct apf_trace *x, const char *name)
{
	begin(t, 'i', TRACK_OF_LIBRARY, x->ns, name);
	trace_line_text(&t->line, ",\"s\":", "t");
	open_args(t, x->gpa);
	trace_line_number(&t->line, ",\"bytes\":", x->bytes);
	close_args(t);
	end(t);
}

static void pause_of(struct trace_file *t, const struct apf_trace *x, bool on)
{
	if (on == t->paused)
		return;
	t->paused = on;
	begin(t, on ? 'B' : 'E', TRACK_OF_LIBRARY, x->ns, on ? "paused" : NULL);
	end(t);
}

static void write_entry(struct trace_file *t, const struct entry *e)
{
	const struct apf_trace *x = &e->what;

	if (t->vm == 0 && x->kind != KIND_VM)
		return;
	/* Not before there is something to write: a command that is refused leaves it as it was. */
	if (t->vm == 0)
		(void)json_file_begin(&t->file, &t->error);
	if (t->first_ns == 0)
		t->first_ns = x->ns;
	switch (x->kind) {
	case KIND_VM:
		new_vm(t, e->name);
		return;
	case APF_TRACE_READ:
		read_begins(t, x);
		return;
	case APF_TRACE_READ_END:
		read_ends(t, x);
		return;
	case APF_TRACE_SHOWN:
		memory(t, x, "visible");
		return;
	case APF_TRACE_TAKEN:
		memory(t, x, "taken away");
		return;
	case APF_TRACE_DROPPED:
		memory(t, x, "given back");
		return;
	case APF_TRACE_PAUSED:
	case APF_TRACE_RESUMED:
		pause_of(t, x, x->kind == APF_TRACE_PAUSED);
		return;
	default:
		if (x->vcpu < VCPUS_MAX)
			of_vcpu(t, x);
	}
}

static void drain(struct trace_file *t)
{
	uint32_t end = __atomic_load_n(&t->written, __ATOMIC_ACQUIRE), at = t->read;

	for (; at != end; at++) {
		write_entry(t, &t->ring[at % RING]);
		__atomic_store_n(&t->read, at + 1, __ATOMIC_RELEASE);
	}
}

static void *write_all(void *arg)
{
	struct trace_file *t = arg;

	(void)pthread_setname_np(pthread_self(), "trace");
	if (t->begins)
		t->begins(t->begins_ctx);
	while (!__atomic_load_n(&t->closing, __ATOMIC_ACQUIRE)) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
		(void)sem_clockwait(&t->some, CLOCK_MONOTONIC, &until);
		drain(t);
		/* What a run that is killed leaves behind ends here. */
		(void)fflush(t->out);
	}
	drain(t);
	return NULL;
}

/* ---- set-up ---- */

static void free_all(struct trace_file *t)
{
	if (t->out)
		(void)fclose(t->out);
	json_file_close(&t->file);
	free(t);
}

static int start_thread(struct trace_file *t, struct err *e)
{
	sigset_t all, old;
	int rc;

	sem_init(&t->some, 0, 0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t->thread, NULL, write_all, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? err_sys(e, -rc, "thread that writes %s", t->file.path) : 0;
}

int trace_file_open(const struct json_file *file, trace_file_begins *begins, void *ctx,
		    struct trace_file **ret, struct err *e)
{
	const cookie_io_functions_t io = {.write = write_some};
	struct trace_file *t = calloc(1, sizeof(*t));
	struct json_file mine = *file;
	struct stat st;
	int rc;

	if (t) {
		t->file = mine;
		t->begins = begins;
		t->begins_ctx = ctx;
		t->is_regular = fstat(fileno(mine.out), &st) == 0 && S_ISREG(st.st_mode);
		t->out = fopencookie(t, "w", io);
	}
	if (!t || !t->out) {
		free(t);
		json_file_close(&mine);
		return err_sys(e, -ENOMEM, "write %s", mine.path);
	}
	(void)setvbuf(t->out, t->buffer, _IOFBF, sizeof(t->buffer));
	(void)__fsetlocking(t->out, FSETLOCKING_BYCALLER); /* it is the thread's alone */
	json_init(&t->json, t->out);
	t->json.compact = true;
	t->json.lines = 1;
	rc = start_thread(t, e);
	if (rc < 0)
		free_all(t);
	else
		*ret = t;
	return rc;
}

int trace_file_close(struct trace_file *t)
{
	int rc;

	if (!t)
		return 0;
	__atomic_store_n(&t->closing, true, __ATOMIC_RELEASE);
	sem_post(&t->some);
	pthread_join(t->thread, NULL);
	if (t->json.depth > 0) {
		json_close(&t->json);
		(void)json_end(&t->json);
	}
	rc = t->error.code;
	if (rc < 0)
		(void)cli_failed(&t->error);
	else if (t->lost > 0)
		cli_error("note: %llu steps came faster than they could be written, and are not in "
			  "%s", (unsigned long long)t->lost, t->file.path);
	sem_destroy(&t->some);
	free_all(t);
	return rc;
}
