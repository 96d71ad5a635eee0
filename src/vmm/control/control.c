/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See control.h. One poll loop; each client is a small machine (enum peer_state) with room
 * for one line from it and one answer to it. While an answer has not left, nothing more is
 * read: a client that does not read can hold up itself alone.
 *
 * Clients and everything else in struct control belong to the server's thread, but for `job`,
 * which its thread has between its start and its word over wake_fd.
 *
 * longer than 800 lines because events, jobs and requests are three ways to the same peers.
 */
#include "vmm/control/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/size.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_socket.h"
#include "vmm/control/control_told.h"

/* Where accept fails for want of descriptors or memory, it is left alone this long. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)

enum peer_state {
	PEER_FREE,
	PEER_GREETING, /* has not said which version it speaks */
	PEER_READY,    /* may ask */
	PEER_WAITING, /* has asked for the job that is under way */
	PEER_STOPPING, /* has been told that the VM will end: waits for us to hang up */
	PEER_FOLLOWING, /* hears of events, and asks nothing any more */
	PEER_CLOSING,  /* gets what is in `out`, no more */
};

struct peer {
	enum peer_state state;
	int fd;
	uint64_t deadline_ns; /* of the next whole line, or of the answer's leaving */
	uint64_t second_ns;   /* requests are counted from here */
	unsigned requests;
	uint64_t lost; /* events that a follower was too slow for */
	struct control_lines in;
	int fds[CONTROL_SNAPSHOT_FDS]; /* what has come with its lines; -1: nothing */
	size_t out_sent, out_len;
	char out[CONTROL_ANSWER_MAX + CONTROL_LINE_MAX];
};

/* An eviction, or a snapshot. */
struct job {
	bool running; /* there is a thread to join */
	pthread_t thread;
	atomic_bool cancel, done;
	struct control_request request;
	int fds[CONTROL_SNAPSHOT_FDS]; /* of a snapshot; closed when the thread is joined */
	uint64_t resident; /* of an eviction; valid when done, as are rc and e */
	int rc;
	struct err e;
};

struct control {
	const struct control_ops *ops;
	void *ctx;
	void (*begins)(void *ctx);
	void *begins_ctx;
	uint64_t idle_ns;
	struct control_socket socket;
	int wake_fd; /* written when the eviction is done, and by control_stop() */
	atomic_bool end;
	pthread_t thread;
	uint64_t accept_ns; /* not before */
	uint64_t progress_ns; /* when the evicting client hears of it next */
	uint64_t start_ns;
	uint64_t memory_ns;   /* when followers may hear of memory next */
	uint64_t evicted, refaulted; /* as they have heard */
	struct control_told told; /* on its way to the followers */
	struct job job;
	struct control_status status; /* scratch */
	struct peer peers[CONTROL_CLIENTS_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void wake(struct control *c)
{
	static const uint64_t one = 1;

	/* Fails only if it is full, and then the reader is on its way. */
	(void)!write(c->wake_fd, &one, sizeof(one));
}

/* ---- answers ---- */

static void peer_put(struct peer *p, const char *text, size_t len)
{
	ASSERT(len <= sizeof(p->out) - p->out_len);
	memcpy(p->out + p->out_len, text, len);
	p->out_len += len;
}

static void peer_put_line(struct peer *p, const char *word, const char *text)
{
	peer_put(p, word, strlen(word));
	peer_put(p, text, strlen(text));
	peer_put(p, "\n", 1);
}

/* A failure of the work: the client may ask again. */
static void peer_failed(struct peer *p, const struct err *e)
{
	peer_put_line(p, "error ", e->text);
}

/* A breach of the language, or of a limit: an error, and the end of the connection. */
static void peer_refuse(struct peer *p, const char *text)
{
	peer_put_line(p, "error ", text);
	p->state = PEER_CLOSING;
}

static void put_status(struct control *c, struct peer *p)
{
	char text[CONTROL_ANSWER_MAX];

	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	peer_put(p, text, control_status_format(&c->status, text));
}

static void peer_done(struct control *c, struct peer *p)
{
	put_status(c, p);
	peer_put(p, "ok\n", 3);
}

static void fds_close(int fds[static CONTROL_SNAPSHOT_FDS])
{
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static void peer_drop(struct control *c, struct peer *p)
{
	/* Nobody waits for the job any more: Ctrl-C of its client ends it. */
	if (p->state == PEER_WAITING)
		atomic_store(&c->job.cancel, true);
	close(p->fd);
	fds_close(p->fds);
	p->state = PEER_FREE;
}

/* False: not everything has left, or the peer is gone. */
static bool peer_flush(struct control *c, struct peer *p)
{
	while (p->out_sent < p->out_len) {
		ssize_t n = send(p->fd, p->out + p->out_sent, p->out_len - p->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			peer_drop(c, p);
		if (n < 0)
			return false;
		p->out_sent += (size_t)n;
	}
	p->out_sent = p->out_len = 0;
	return true;
}

/* ---- events ---- */

static void put_event(struct peer *p, const struct control_event *ev)
{
	char line[CONTROL_LINE_MAX];
	size_t len = control_event_format(ev, line);

	if (len > sizeof(p->out) - p->out_len)
		p->lost++;
	else
		peer_put(p, line, len);
}

static bool peer_flush(struct control *c, struct peer *p);

/* A follower that takes nothing for as long as anybody may keep silent is dropped. */
static void follower_advance(struct control *c, struct peer *p)
{
	size_t before = p->out_len - p->out_sent;
	bool all = peer_flush(c, p);

	if (p->state != PEER_FOLLOWING)
		return;
	if (all && p->lost) {
		const struct control_event ev = {.kind = CONTROL_EVENT_LOST,
						 .uptime_ns = now_ns() - c->start_ns,
						 .lost = p->lost};

		p->lost = 0;
		put_event(p, &ev);
		all = peer_flush(c, p);
	}
	if (p->state == PEER_FOLLOWING && (all || p->out_len - p->out_sent < before))
		p->deadline_ns = now_ns() + c->idle_ns;
}

static bool is_followed(const struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state == PEER_FOLLOWING)
			return true;
	return false;
}

static void tell_followers(struct control *c, const struct control_event *ev)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct peer *p = &c->peers[i];

		if (p->state != PEER_FOLLOWING)
			continue;
		if (p->out_len == 0)
			p->deadline_ns = now_ns() + c->idle_ns;
		put_event(p, ev);
		follower_advance(c, p);
	}
}

static void tell(struct control *c, struct control_event ev)
{
	ev.uptime_ns = now_ns() - c->start_ns;
	if (control_told_put(&c->told, &ev))
		wake(c);
}

void control_tell(struct control *c, enum control_event_kind kind, const char *text)
{
	struct control_event ev = {.kind = kind};

	if (text)
		snprintf(ev.text, sizeof(ev.text), "%s", text);
	tell(c, ev);
}

/* What others have told; and what memory does, now and then. */
static void tell_all(struct control *c)
{
	struct control_event ev;

	while (control_told_take(&c->told, &ev))
		tell_followers(c, &ev);
	if (!is_followed(c) || now_ns() < c->memory_ns)
		return;
	c->memory_ns = now_ns() + CONTROL_MEMORY_MS * NS_PER_MS;
	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	if (c->evicted == c->status.counters.evicted &&
	    c->refaulted == c->status.counters.refaulted)
		return;
	c->evicted = c->status.counters.evicted;
	c->refaulted = c->status.counters.refaulted;
	ev = (struct control_event){
		.kind = CONTROL_EVENT_MEMORY,
		.uptime_ns = now_ns() - c->start_ns,
		.resident_bytes = c->status.counters.resident_bytes,
		.evicted = c->evicted,
		.refaulted = c->refaulted,
	};
	tell_followers(c, &ev);
}

static void follow(struct control *c, struct peer *p)
{
	struct control_event ev = {.kind = CONTROL_EVENT_FOLLOWING};
	const struct control_status *s = &c->status;

	/* What was told before is not for this one. */
	tell_all(c);
	memset(&c->status, 0, sizeof(c->status));
	c->ops->status(c->ctx, &c->status);
	if (!is_followed(c)) {
		c->memory_ns = now_ns() + CONTROL_MEMORY_MS * NS_PER_MS;
		c->evicted = s->counters.evicted;
		c->refaulted = s->counters.refaulted;
	}
	ev.uptime_ns = now_ns() - c->start_ns;
	ev.resident_bytes = s->counters.resident_bytes;
	ev.resident_max_bytes = s->counters.resident_max_bytes;
	snprintf(ev.text, sizeof(ev.text), "%s%s%.160s", s->state, *s->why ? ": " : "", s->why);
	p->state = PEER_FOLLOWING;
	p->lost = 0;
	p->deadline_ns = now_ns() + c->idle_ns;
	put_event(p, &ev);
}

/* ---- the job ---- */

static int run_eviction(struct control *c, struct job *j)
{
	uint64_t bytes = j->request.bytes;
	int rc = c->ops->evict(c->ctx, bytes, &j->cancel, &j->resident, &j->e);

	/* Everything that can be has no goal that could be missed. */
	if (rc == 0 && bytes > 0 && j->resident > bytes)
		rc = err_set(&j->e, -EAGAIN,
			     "%s stay resident, at most %s were asked for: the guest fetched it "
			     "back meanwhile, or it is pinned; pause the VM first, or leave it "
			     "more", SIZE_WORD(j->resident), SIZE_WORD(bytes));
	return rc;
}

static void *job_thread(void *arg)
{
	struct control *c = arg;
	struct job *j = &c->job;

	if (j->request.verb == CONTROL_EVICT)
		j->rc = run_eviction(c, j);
	else
		j->rc = c->ops->snapshot(c->ctx, j->fds[0], j->fds[1], &j->cancel, &j->e);
	atomic_store(&j->done, true);
	wake(c);
	return NULL;
}

/* Signals are other threads' business. */
static int start_thread(pthread_t *t, void *(*run)(void *), void *arg)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(t, NULL, run, arg);

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

/* 0, or why not. */
static int may_begin(const struct control *c, const struct peer *p,
		     const struct control_request *r, struct err *e)
{
	if (r->verb == CONTROL_EVICT && !c->ops->evict)
		return err_set(e, -EOPNOTSUPP, "this VM cannot evict; run it with --swap");
	if (r->verb == CONTROL_SNAPSHOT && !c->ops->snapshot)
		return err_set(e, -EOPNOTSUPP, "this VM cannot be saved");
	if (r->verb == CONTROL_SNAPSHOT && p->fds[CONTROL_SNAPSHOT_FDS - 1] < 0)
		return err_set(e, -EINVAL, "a snapshot's files have not come with the request");
	if (c->job.running)
		return err_set(e, -EBUSY, "%s is under way; try again when it is done",
			       c->job.request.verb == CONTROL_EVICT ? "an eviction"
								    : "a snapshot");
	return 0;
}

static void begin_job(struct control *c, struct peer *p, const struct control_request *r)
{
	struct job *j = &c->job;
	struct err e;
	int rc = may_begin(c, p, r, &e);

	if (rc == 0) {
		atomic_store(&j->cancel, false);
		atomic_store(&j->done, false);
		j->request = *r;
		j->resident = 0;
		j->e = (struct err){0};
		memcpy(j->fds, p->fds, sizeof(j->fds));
		rc = start_thread(&j->thread, job_thread, c);
		if (rc < 0)
			(void)err_sys(&e, rc, "starting a thread");
	}
	if (rc < 0) {
		fds_close(p->fds);
		peer_failed(p, &e);
		return;
	}
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++)
		p->fds[i] = -1;
	j->running = true;
	p->state = PEER_WAITING;
	c->progress_ns = now_ns() + CONTROL_PROGRESS_MS * NS_PER_MS;
}

static struct peer *waiting_peer(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state == PEER_WAITING)
			return &c->peers[i];
	return NULL;
}

static void peer_advance(struct control *c, struct peer *p);

/* The job's end, and its progress meanwhile: its client is never left in silence. */
static void watch_job(struct control *c)
{
	struct job *j = &c->job;
	struct peer *p = waiting_peer(c);
	bool done = j->running && atomic_load(&j->done);

	if (done) {
		const struct control_event ev = {.kind = CONTROL_EVENT_EVICTED,
						 .resident_bytes = j->resident};

		pthread_join(j->thread, NULL);
		fds_close(j->fds);
		j->running = false;
		if (j->rc == 0 && j->request.verb == CONTROL_EVICT)
			tell(c, ev);
	}
	if (!p || (!done && now_ns() < c->progress_ns))
		return;
	c->progress_ns = now_ns() + CONTROL_PROGRESS_MS * NS_PER_MS;
	/* What it has not read yet is progress enough. */
	if (!done && p->out_len == 0)
		put_status(c, p);
	if (done) {
		p->state = PEER_READY;
		p->deadline_ns = now_ns() + c->idle_ns;
		/* The last progress may not have left: then there is room for the end alone. */
		if (j->rc < 0)
			peer_failed(p, &j->e);
		else if (p->out_len == 0)
			peer_done(c, p);
		else
			peer_put(p, "ok\n", 3);
	}
	peer_advance(c, p);
}

/* ---- requests ---- */

static void serve_hello(struct peer *p, const char *line)
{
	char text[ERR_TEXT_MAX];
	uint64_t version;

	if (control_hello_parse(line, &version) < 0) {
		peer_refuse(p, "no greeting: the first line must be '" CONTROL_HELLO "VERSION'");
		return;
	}
	if (version != CONTROL_VERSION) {
		snprintf(text, sizeof(text), "other version: this VM speaks %u, the client %llu; "
			 "use the asyncpf that runs the VM", CONTROL_VERSION,
			 (unsigned long long)version);
		peer_refuse(p, text);
		return;
	}
	p->state = PEER_READY;
}

static bool too_many_requests(struct peer *p)
{
	uint64_t now = now_ns();

	if (now - p->second_ns >= NS_PER_S) {
		p->second_ns = now;
		p->requests = 0;
	}
	return ++p->requests > CONTROL_REQUESTS_MAX;
}

static void serve_stop(struct control *c, struct peer *p)
{
	struct err e = {0};

	if (c->ops->stop(c->ctx, &e) < 0) {
		peer_failed(p, &e);
		return;
	}
	peer_put(p, "ok\n", 3);
	p->state = PEER_STOPPING;
}

static int set_limit(struct control *c, uint64_t bytes, struct err *e)
{
	const struct control_event ev = {.kind = CONTROL_EVENT_LIMIT, .resident_max_bytes = bytes};

	if (!c->ops->limit)
		return err_set(e, -EOPNOTSUPP, "this VM cannot evict; run it with --swap");
	int rc = c->ops->limit(c->ctx, bytes, e);

	if (rc == 0)
		tell(c, ev);
	return rc;
}

static void serve_request(struct control *c, struct peer *p, const char *line)
{
	struct control_request r;
	struct err e = {0};
	int rc = 0;

	if (too_many_requests(p)) {
		peer_refuse(p, "too many requests within a second; ask less often");
		return;
	}
	if (control_request_parse(line, &r, &e) < 0) {
		peer_refuse(p, e.text);
		return;
	}
	switch (r.verb) {
	case CONTROL_EVICT:
	case CONTROL_SNAPSHOT:
		begin_job(c, p, &r);
		return;
	case CONTROL_STOP:
		serve_stop(c, p);
		return;
	case CONTROL_FOLLOW:
		follow(c, p);
		return;
	case CONTROL_PAUSE:
		rc = c->ops->pause(c->ctx, &e);
		if (rc == 0)
			control_tell(c, CONTROL_EVENT_PAUSED, NULL);
		break;
	case CONTROL_RESUME:
		rc = c->ops->resume(c->ctx, &e);
		if (rc == 0)
			control_tell(c, CONTROL_EVENT_RESUMED, NULL);
		break;
	case CONTROL_LIMIT:
		rc = set_limit(c, r.bytes, &e);
		break;
	case CONTROL_SERVE:
		rc = c->ops->serve ? c->ops->serve(c->ctx, r.rule, &e)
				   : err_set(&e, -EOPNOTSUPP, "this is a VM; 'asyncpf pager' "
					     "serves others");
		break;
	case CONTROL_STATUS:
	case CONTROL_VERBS:
		break;
	}
	if (rc < 0)
		peer_failed(p, &e);
	else
		peer_done(c, p);
}

/* Goes on with the client until it must send, or take its answer, or wait. */
static void peer_advance(struct control *c, struct peer *p)
{
	char line[CONTROL_LINE_MAX];

	while (peer_flush(c, p)) {
		struct err e;

		if (p->state == PEER_FOLLOWING) {
			follower_advance(c, p);
			return;
		}
		if (p->state == PEER_CLOSING) {
			peer_drop(c, p);
			return;
		}
		if (p->state == PEER_WAITING || p->state == PEER_STOPPING)
			return;
		int rc = control_lines_take(&p->in, line, &e);

		if (rc == 0)
			return;
		p->deadline_ns = now_ns() + c->idle_ns;
		if (rc < 0)
			peer_refuse(p, e.text);
		else if (p->state == PEER_GREETING)
			serve_hello(p, line);
		else
			serve_request(c, p, line);
	}
}

/* Keeps a whole set of descriptors, the last; others are closed at once. */
static void take_fds(struct peer *p, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		if (bytes == sizeof(p->fds) && !(msg->msg_flags & MSG_CTRUNC)) {
			fds_close(p->fds);
			memcpy(p->fds, CMSG_DATA(c), sizeof(p->fds));
			continue;
		}
		for (size_t at = 0; at + sizeof(fd) <= bytes; at += sizeof(fd)) {
			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			close(fd);
		}
	}
}

static void peer_read(struct control *c, struct peer *p)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(CONTROL_SNAPSHOT_FDS * sizeof(int))];
	} ancillary;
	struct iovec to = {p->in.buf + p->in.len, control_lines_room(&p->in)};
	struct msghdr msg = {.msg_iov = &to, .msg_iovlen = 1, .msg_control = &ancillary,
			     .msg_controllen = sizeof(ancillary)};
	ssize_t n = recvmsg(p->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		peer_drop(c, p);
		return;
	}
	take_fds(p, &msg);
	/* It will send no more; half a line is none. */
	if (n == 0)
		p->state = PEER_CLOSING;
	p->in.len += (size_t)n;
	peer_advance(c, p);
}

/* ---- the loop ---- */

static struct peer *free_peer(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state == PEER_FREE)
			return &c->peers[i];
	return NULL;
}

/* There is no slot to keep its answer in: what does not leave at once never will. */
static void turn_away(int fd)
{
	static const char text[] = "error too many clients: try again when one has gone\n";

	(void)!send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

static void accept_peer(struct control *c)
{
	char hello[CONTROL_LINE_MAX];
	struct peer *p = free_peer(c);
	int n = snprintf(hello, sizeof(hello), CONTROL_HELLO "%u\n", CONTROL_VERSION);
	int fd = accept4(c->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* The next poll would say again at once that somebody waits. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			c->accept_ns = now_ns() + ACCEPT_PAUSE_NS;
		return;
	}
	if (!p) {
		(void)!send(fd, hello, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
		turn_away(fd);
		return;
	}
	p->state = PEER_GREETING;
	p->fd = fd;
	p->deadline_ns = now_ns() + c->idle_ns;
	p->requests = 0;
	p->in.len = 0;
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++)
		p->fds[i] = -1;
	p->out_sent = p->out_len = 0;
	peer_put(p, hello, (size_t)n);
	peer_advance(c, p);
}

/* One that waits for us has no deadline of its own. */
static bool has_deadline(const struct peer *p)
{
	return p->state == PEER_GREETING || p->state == PEER_READY || p->state == PEER_CLOSING ||
	       (p->state == PEER_FOLLOWING && p->out_len);
}

static void drop_late(struct control *c)
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (has_deadline(&c->peers[i]) && c->peers[i].deadline_ns <= now)
			peer_drop(c, &c->peers[i]);
}

static int timeout_ms(const struct control *c, bool accepting)
{
	uint64_t next = accepting ? NS_NEVER : c->accept_ns, now = now_ns();

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct peer *p = &c->peers[i];

		if (has_deadline(p))
			next = min_u64(next, p->deadline_ns);
		else if (p->state == PEER_WAITING)
			next = min_u64(next, c->progress_ns);
	}
	if (is_followed(c))
		next = min_u64(next, c->memory_ns);
	if (next == NS_NEVER)
		return -1;
	return next <= now ? 0 : (int)((next - now) / NS_PER_MS + 1);
}

static short wanted_events(const struct peer *p)
{
	if (p->out_len)
		return POLLOUT;
	return p->state == PEER_GREETING || p->state == PEER_READY ? POLLIN : 0;
}

static void serve_peer(struct control *c, struct peer *p, short events)
{
	if (events & (POLLERR | POLLNVAL))
		peer_drop(c, p);
	else if (events & POLLIN)
		peer_read(c, p);
	else if (events & POLLHUP)
		peer_drop(c, p);
	else if (events & POLLOUT)
		peer_advance(c, p);
}

static void serve_once(struct control *c)
{
	struct pollfd fds[2 + CONTROL_CLIENTS_MAX];
	bool accepting = c->accept_ns <= now_ns();
	uint64_t ticks;

	fds[0] = (struct pollfd){.fd = c->wake_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = accepting ? c->socket.fd : -1, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct peer *p = &c->peers[i];

		fds[2 + i] = (struct pollfd){.fd = p->state == PEER_FREE ? -1 : p->fd,
					     .events = wanted_events(p)};
	}
	if (poll(fds, ARRAY_LEN(fds), timeout_ms(c, accepting)) > 0) {
		if (fds[0].revents)
			(void)!read(c->wake_fd, &ticks, sizeof(ticks));
		for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
			if (fds[2 + i].revents)
				serve_peer(c, &c->peers[i], fds[2 + i].revents);
		/* After the others: the slot of one that has just gone is free. */
		if (fds[1].revents)
			accept_peer(c);
	}
	watch_job(c);
	tell_all(c);
	drop_late(c);
}

static void *control_thread(void *arg)
{
	struct control *c = arg;

	if (c->begins)
		c->begins(c->begins_ctx);
	while (!atomic_load(&c->end))
		serve_once(c);
	/* Above all that the VM has ended: what is in their sockets they still read. */
	tell_all(c);
	return NULL;
}

/* ---- start and stop ---- */

int control_start(const struct control_cfg *cfg, const struct control_ops *ops, void *ctx,
		  struct control **ret, struct err *e)
{
	struct control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_sys(e, -ENOMEM, "control socket: %.80s", cfg->path);
	c->ops = ops;
	c->ctx = ctx;
	c->begins = cfg->begins;
	c->begins_ctx = cfg->begins_ctx;
	c->idle_ns = (cfg->idle_ms ? cfg->idle_ms : CONTROL_IDLE_MS) * NS_PER_MS;
	c->start_ns = now_ns();
	control_told_init(&c->told);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = c->wake_fd < 0 ? err_sys(e, -errno, "control socket: %.80s: eventfd", cfg->path)
			    : control_socket_open(&c->socket, cfg->path, e);
	if (rc == 0) {
		rc = start_thread(&c->thread, control_thread, c);
		if (rc < 0) {
			err_sys(e, rc, "control socket: %.80s: thread", cfg->path);
			control_socket_close(&c->socket);
		}
	}
	if (rc < 0) {
		if (c->wake_fd >= 0)
			close(c->wake_fd);
		free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	atomic_store(&c->end, true);
	wake(c);
	pthread_join(c->thread, NULL);
	/* First the file: who hears us hang up may start the next VM at the same path. */
	control_socket_close(&c->socket);
	if (c->job.running) {
		atomic_store(&c->job.cancel, true);
		pthread_join(c->job.thread, NULL);
		fds_close(c->job.fds);
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state != PEER_FREE)
			peer_drop(c, &c->peers[i]);
	close(c->wake_fd);
	free(c);
}
