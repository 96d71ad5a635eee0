/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See control.h. One poll loop; each client is a small machine (enum control_peer_state) with room
 * for one line from it and one answer to it. While an answer has not left, nothing more is read.
 */
#include "vmm/control/control.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/control/control_parts.h"

/* Where accept fails for want of descriptors or memory, it is left alone this long. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)

/* ---- requests ---- */

static void serve_hello(struct control_peer *p, const char *line)
{
	char text[ERR_TEXT_MAX];
	uint64_t version;

	if (control_hello_parse(line, &version) < 0) {
		control_peer_refuse(p, "no greeting: the first line must be '" CONTROL_HELLO
				    "VERSION'");
		return;
	}
	if (version != CONTROL_VERSION) {
		snprintf(text, sizeof(text), "other version: this VM speaks %u, the client %llu; "
			 "use the asyncpf that runs the VM", CONTROL_VERSION,
			 (unsigned long long)version);
		control_peer_refuse(p, text);
		return;
	}
	p->state = PEER_READY;
}

static bool too_many_requests(struct control_peer *p)
{
	uint64_t now = monotonic_ns();

	if (now - p->second_ns >= NS_PER_S) {
		p->second_ns = now;
		p->requests = 0;
	}
	return ++p->requests > CONTROL_REQUESTS_MAX;
}

static void serve_stop(struct control *c, struct control_peer *p)
{
	struct err e = {0};

	if (c->ops->stop(c->ctx, &e) < 0) {
		control_peer_failed(p, &e);
		return;
	}
	control_peer_put(p, "ok\n", 3);
	p->state = PEER_STOPPING;
}

static int set_limit(struct control *c, uint64_t bytes, struct err *e)
{
	const struct control_event ev = {.kind = CONTROL_EVENT_LIMIT, .resident_max_bytes = bytes};

	if (!c->ops->limit)
		return err_set(e, -EOPNOTSUPP, "this VM cannot evict; run it with --swap");
	int rc = c->ops->limit(c->ctx, bytes, e);

	if (rc == 0)
		control_tell_event(c, ev);
	return rc;
}

/* Who lets the VM go on tells of it, and of what stops it again at once; else it is told here. */
static int resume(struct control *c, struct err *e)
{
	struct control_event ev = {.kind = CONTROL_EVENT_RESUMED};
	uint64_t changes = control_told_changes(&c->told);
	int rc = c->ops->resume(c->ctx, e);

	ev.uptime_ns = monotonic_ns() - c->start_ns;
	/* It is this thread that passes it on: nobody need be woken. */
	if (rc == 0)
		(void)control_told_put_since(&c->told, &ev, changes);
	return rc;
}

static void serve_request(struct control *c, struct control_peer *p, const char *line)
{
	struct control_request r;
	struct err e = {0};
	int rc = 0;

	if (too_many_requests(p)) {
		control_peer_refuse(p, "too many requests within a second; ask less often");
		return;
	}
	if (control_request_parse(line, &r, &e) < 0) {
		control_peer_refuse(p, e.text);
		return;
	}
	switch (r.verb) {
	case CONTROL_EVICT:
	case CONTROL_SNAPSHOT:
	case CONTROL_BALLOON:
		control_job_begin(c, p, &r);
		return;
	case CONTROL_STOP:
		serve_stop(c, p);
		return;
	case CONTROL_FOLLOW:
		control_follow(c, p);
		return;
	case CONTROL_PAUSE:
		rc = c->ops->pause(c->ctx, &e);
		if (rc == 0)
			control_tell(c, CONTROL_EVENT_PAUSED, NULL);
		break;
	case CONTROL_RESUME:
		rc = resume(c, &e);
		break;
	case CONTROL_LIMIT:
		rc = set_limit(c, r.bytes, &e);
		break;
	case CONTROL_SERVE:
		rc = c->ops->serve ? c->ops->serve(c->ctx, r.rule, &e)
				   : err_set(&e, -EOPNOTSUPP, "this is a VM; 'asyncpf pager' "
					     "serves others");
		break;
	case CONTROL_BALLOON_SET:
		rc = c->ops->balloon_set ? c->ops->balloon_set(c->ctx, r.bytes, &e)
					 : control_no_balloon(&e);
		break;
	case CONTROL_STATUS:
	case CONTROL_VERBS:
		break;
	}
	if (rc < 0)
		control_peer_failed(p, &e);
	else
		control_peer_done(c, p);
}

/*
 * Goes on with the client until it must send, or take its answer, or wait. One request is served
 * in a turn: nobody waits for all that another has sent at once.
 */
static void peer_advance(struct control *c, struct control_peer *p)
{
	char line[CONTROL_LINE_MAX];
	bool served = false;

	p->more = false;
	while (control_peer_flush(c, p)) {
		struct err e;

		if (p->state == PEER_FOLLOWING) {
			control_follower_advance(c, p);
			return;
		}
		if (p->state == PEER_CLOSING) {
			control_peer_drop(c, p);
			return;
		}
		if (p->state == PEER_WAITING || p->state == PEER_STOPPING)
			return;
		p->more = served;
		if (served)
			return;
		int rc = control_lines_take(&p->in, line, &e);

		if (rc == 0)
			return;
		p->deadline_ns = monotonic_ns() + c->idle_ns;
		if (rc < 0) {
			control_peer_refuse(p, e.text);
		} else if (p->state == PEER_GREETING) {
			serve_hello(p, line);
		} else {
			serve_request(c, p, line);
			served = true;
		}
	}
}

/* Keeps a whole set of descriptors, the last; others are closed at once. */
static void take_fds(struct control_peer *p, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		if (bytes == sizeof(p->fds) && !(msg->msg_flags & MSG_CTRUNC)) {
			control_fds_close(p->fds);
			memcpy(p->fds, CMSG_DATA(c), sizeof(p->fds));
			continue;
		}
		for (size_t at = 0; at + sizeof(fd) <= bytes; at += sizeof(fd)) {
			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			close(fd);
		}
	}
}

static void peer_read(struct control *c, struct control_peer *p)
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
		control_peer_drop(c, p);
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

static struct control_peer *free_peer(struct control *c)
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
	struct control_peer *p = free_peer(c);
	int n = snprintf(hello, sizeof(hello), CONTROL_HELLO "%u\n", CONTROL_VERSION);
	int fd = accept4(c->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* The next poll would say again at once that somebody waits. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			c->accept_ns = monotonic_ns() + ACCEPT_PAUSE_NS;
		return;
	}
	if (!p) {
		(void)!send(fd, hello, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
		turn_away(fd);
		return;
	}
	p->state = PEER_GREETING;
	p->fd = fd;
	p->deadline_ns = monotonic_ns() + c->idle_ns;
	p->requests = 0;
	p->in.len = 0;
	for (unsigned i = 0; i < CONTROL_SNAPSHOT_FDS; i++)
		p->fds[i] = -1;
	p->out_sent = p->out_len = 0;
	control_peer_put(p, hello, (size_t)n);
	peer_advance(c, p);
}

/* One that waits for us has no deadline of its own. */
static bool has_deadline(const struct control_peer *p)
{
	return p->state == PEER_GREETING || p->state == PEER_READY || p->state == PEER_CLOSING ||
	       (p->state == PEER_FOLLOWING && p->out_len);
}

static void drop_late(struct control *c)
{
	uint64_t now = monotonic_ns();

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (has_deadline(&c->peers[i]) && c->peers[i].deadline_ns <= now)
			control_peer_drop(c, &c->peers[i]);
}

static bool has_more(const struct control_peer *p)
{
	return p->state == PEER_READY && p->more;
}

static int timeout_ms(const struct control *c, bool accepting)
{
	uint64_t next = accepting ? NS_NEVER : c->accept_ns, now = monotonic_ns();

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct control_peer *p = &c->peers[i];

		if (has_more(p))
			return 0;
		if (has_deadline(p))
			next = min_u64(next, p->deadline_ns);
		else if (p->state == PEER_WAITING)
			next = min_u64(next, c->progress_ns);
	}
	if (control_is_followed(c))
		next = min_u64(next, c->memory_ns);
	if (next == NS_NEVER)
		return -1;
	return next <= now ? 0 : (int)((next - now) / NS_PER_MS + 1);
}

static short wanted_events(const struct control_peer *p)
{
	if (p->out_len)
		return POLLOUT;
	/* There may be no room to read more. */
	if (has_more(p))
		return 0;
	return p->state == PEER_GREETING || p->state == PEER_READY ? POLLIN : 0;
}

static void serve_peer(struct control *c, struct control_peer *p, short events)
{
	if (events & (POLLERR | POLLNVAL))
		control_peer_drop(c, p);
	else if (events & POLLIN)
		peer_read(c, p);
	else if (events & POLLHUP)
		control_peer_drop(c, p);
	else if (events & POLLOUT)
		peer_advance(c, p);
}

static void serve_once(struct control *c)
{
	struct pollfd fds[2 + CONTROL_CLIENTS_MAX];
	bool accepting = c->accept_ns <= monotonic_ns();
	struct control_peer *waiting;
	uint64_t ticks;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (has_more(&c->peers[i]))
			peer_advance(c, &c->peers[i]);
	fds[0] = (struct pollfd){.fd = c->wake_fd, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = accepting ? c->socket.fd : -1, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		const struct control_peer *p = &c->peers[i];

		fds[2 + i] = (struct pollfd){.fd = p->state == PEER_FREE ? -1 : p->fd,
					     .events = wanted_events(p)};
	}
	if (poll(fds, ARRAY_LEN(fds), timeout_ms(c, accepting)) > 0) {
		if (fds[0].revents)
			(void)!read(c->wake_fd, &ticks, sizeof(ticks));
		/* What one asks for may be told to another, and show that that one has gone. */
		for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
			if (fds[2 + i].revents && c->peers[i].state != PEER_FREE)
				serve_peer(c, &c->peers[i], fds[2 + i].revents);
		/* After the others: the slot of one that has just gone is free. */
		if (fds[1].revents)
			accept_peer(c);
	}
	waiting = control_job_watch(c);
	if (waiting)
		peer_advance(c, waiting);
	control_tell_all(c);
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
	control_tell_all(c);
	return NULL;
}

/* ---- start and stop ---- */

void control_wake(struct control *c)
{
	static const uint64_t one = 1;

	/* Fails only if it is full, and then the reader is on its way. */
	(void)!write(c->wake_fd, &one, sizeof(one));
}

int control_thread_start(pthread_t *ret, control_thread_fn *run, struct control *c)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(ret, NULL, run, c);

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

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
	c->start_ns = monotonic_ns();
	control_told_init(&c->told);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = c->wake_fd < 0 ? err_sys(e, -errno, "control socket: %.80s: eventfd", cfg->path)
			    : control_socket_open(&c->socket, "control socket", cfg->path, e);
	if (rc == 0) {
		rc = control_thread_start(&c->thread, control_thread, c);
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
	control_wake(c);
	pthread_join(c->thread, NULL);
	/* First the file: who hears us hang up may start the next VM at the same path. */
	control_socket_close(&c->socket);
	control_job_stop(c);
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (c->peers[i].state != PEER_FREE)
			control_peer_drop(c, &c->peers[i]);
	close(c->wake_fd);
	free(c);
}
