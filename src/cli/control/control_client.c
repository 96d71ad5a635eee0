/* SPDX-License-Identifier: Apache-2.0 */
/* See control_client.h. */
#include "cli/control/control_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/time.h"

/* A full backlog cannot be waited for by poll. */
#define CONNECT_PAUSE_MS 20
/* A server's socket refuses for a moment between the making of its name and its listening. */
#define YOUNG_MS 200u

static uint64_t now_ms(void)
{
	return monotonic_ns() / NS_PER_MS;
}

static int left_ms(uint64_t until_ms)
{
	uint64_t now = now_ms();

	return now >= until_ms ? 0 : (int)min_u64(until_ms - now, INT32_MAX);
}

/* The server may be silent until then. */
static uint64_t silent_until(const struct control_client *c)
{
	return min_u64(now_ms() + c->timeout_ms, c->until_ms);
}

static int silent(const struct control_client *c, struct err *e)
{
	return err_set(e, -ETIME, "no answer within %u s; the VM hangs, or give it more with "
		       "--timeout", c->timeout_ms / 1000);
}

/* ---- connecting ---- */

/* Or nothing. */
static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 || S_ISSOCK(st.st_mode);
}

static int explain_connect(int code, const char *path, struct err *e)
{
	switch (code) {
	case -ENOENT:
	case -ENOTDIR:
		return err_set(e, code, "there is no such socket; is the VM running, with "
			       "--control?");
	case -ECONNREFUSED:
		if (!is_socket(path))
			return err_set(e, code, "it is not a socket; name the VM's control socket");
		return err_set(e, code, "nobody answers; the VM has ended without removing it");
	case -EPROTOTYPE:
		return err_set(e, code, "it is a socket of another kind; name the VM's control "
			       "socket");
	case -EACCES:
		return err_set(e, code, "%s; ask as the user who runs the VM", strerror(-code));
	default:
		return err_set(e, code, "%s; name the VM's control socket", strerror(-code));
	}
}

static int dial(struct control_client *c, const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint64_t until = silent_until(c), young_until = now_ms() + YOUNG_MS;
	size_t len = strlen(path);

	if (len >= sizeof(a.sun_path))
		return err_set(e, -ENAMETOOLONG, "a path of %zu bytes; at most %zu are possible, "
			       "use a shorter one", len, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, len + 1);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return err_sys(e, -errno, "socket");
	while (connect(c->fd, (const struct sockaddr *)&a, sizeof(a)) < 0) {
		int code = -errno;
		bool begins = code == -ECONNREFUSED && left_ms(young_until) > 0 && is_socket(path);

		if (code != -EAGAIN && code != -EINTR && !begins)
			return explain_connect(code, path, e);
		if (left_ms(until) == 0)
			return silent(c, e);
		(void)poll(NULL, 0, CONNECT_PAUSE_MS);
	}
	return 0;
}

/* Only to be watched. A process that is us, or in another pid namespace, cannot be. */
static int open_server_process(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0 ||
	    peer.pid == getpid())
		return -1;
	return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

/* ---- lines ---- */

/* 1 with a line; 0: the server has hung up; or -Exxx. */
static int read_line_until(struct control_client *c, uint64_t until,
			   char line[static CONTROL_LINE_MAX], struct err *e)
{
	int rc;

	while ((rc = control_lines_take(&c->in, line, e)) == 0) {
		struct pollfd p[] = {
			{.fd = c->fd, .events = POLLIN},
			{.fd = c->stop_fd, .events = POLLIN},
		};
		int left = left_ms(until);

		if (poll(p, ARRAY_LEN(p), left) == 0 && left == 0)
			return silent(c, e);
		if (p[1].revents)
			return err_set(e, -EINTR, "interrupted");
		ssize_t n = recv(c->fd, c->in.buf + c->in.len, control_lines_room(&c->in),
				 MSG_DONTWAIT);

		if (n > 0)
			c->in.len += (size_t)n;
		else if (n == 0 || errno == ECONNRESET)
			return 0;
		else if (errno != EAGAIN && errno != EINTR)
			return err_sys(e, -errno, "reading the answer");
	}
	return rc < 0 ? err_set(e, -EPROTO, "what answers is no control socket of asyncpf; name "
				"the VM's") : 1;
}

static int read_line(struct control_client *c, char line[static CONTROL_LINE_MAX], struct err *e)
{
	return read_line_until(c, silent_until(c), line, e);
}

/*
 * A line always fits in a socket's buffer. A server that has hung up may have said why: the
 * reader will find that, or the end.
 */
static int say(struct control_client *c, const char *line, size_t len, struct err *e)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(CONTROL_SNAPSHOT_FDS * sizeof(int))];
	} ancillary = {.bytes = {0}};
	/* It is only read. */
	struct iovec from = {(void *)(uintptr_t)line, len};
	struct msghdr msg = {.msg_iov = &from, .msg_iovlen = 1};

	if (c->fds) {
		msg.msg_control = &ancillary;
		msg.msg_controllen = sizeof(ancillary);
		ancillary.head = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(CONTROL_SNAPSHOT_FDS * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&ancillary.head), c->fds, CONTROL_SNAPSHOT_FDS * sizeof(int));
		c->fds = NULL;
	}
	if (sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		return err_sys(e, -errno, "asking");
	return 0;
}

static int greet(struct control_client *c, struct err *e)
{
	char line[CONTROL_LINE_MAX];
	uint64_t version;
	int rc = read_line(c, line, e);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return err_set(e, -ECONNRESET, "it hung up without a greeting; is it the VM's "
			       "control socket, and is the VM about to end?");
	if (control_hello_parse(line, &version) < 0)
		return err_set(e, -EPROTO, "what answers is no control socket of asyncpf; name "
			       "the VM's");
	if (version != CONTROL_VERSION)
		return err_set(e, -EPROTO, "the VM's asyncpf is %s: it speaks version %llu, this "
			       "one %u; use the one that runs the VM",
			       version < CONTROL_VERSION ? "older" : "newer",
			       (unsigned long long)version, CONTROL_VERSION);
	rc = snprintf(line, sizeof(line), CONTROL_HELLO "%u\n", CONTROL_VERSION);
	return say(c, line, (size_t)rc, e);
}

int control_client_open(struct control_client *c, const char *path, uint32_t timeout_ms,
			uint64_t limit_ms, struct err *e)
{
	*c = (struct control_client){
		.fd = -1,
		.pid_fd = -1,
		.stop_fd = -1,
		.timeout_ms = timeout_ms,
		.limit_ms = limit_ms,
		.until_ms = limit_ms ? now_ms() + limit_ms : UINT64_MAX,
	};
	int rc = dial(c, path, e);

	if (rc == 0) {
		c->pid_fd = open_server_process(c->fd);
		rc = greet(c, e);
	}
	if (rc < 0)
		control_client_close(c);
	return rc;
}

void control_client_close(struct control_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->pid_fd >= 0)
		close(c->pid_fd);
	c->fd = c->pid_fd = -1;
}

/* ---- asking ---- */

static bool starts_with(const char *line, const char *word)
{
	return strncmp(line, word, strlen(word)) == 0;
}

int control_client_ask(struct control_client *c, const struct control_request *r,
		       control_progress *progress, struct control_status *ret, struct err *e)
{
	char line[CONTROL_LINE_MAX];
	int rc = say(c, line, control_request_format(r, line), e);

	memset(ret, 0, sizeof(*ret));
	while (rc == 0) {
		rc = read_line(c, line, e);
		if (rc < 0)
			return rc;
		if (rc == 0)
			return err_set(e, -ECONNRESET, "the VM ended before it answered");
		if (strcmp(line, "ok") == 0)
			return 0;
		if (starts_with(line, "error "))
			return err_set(e, -EREMOTEIO, "%s", line + strlen("error "));
		/* Each status begins with it, and is whole: its lists do not go on. */
		if (starts_with(line, "state ") && *ret->state) {
			if (progress)
				progress(ret);
			memset(ret, 0, sizeof(*ret));
		}
		rc = control_status_parse(line, ret);
		if (rc < 0)
			return err_set(e, -EPROTO, "an answer that makes no sense: %.80s", line);
	}
	return rc;
}

int control_client_follow(struct control_client *c, control_hear *hear, void *ctx,
			  struct err *e)
{
	static const struct control_request follow = {.verb = CONTROL_FOLLOW};
	char line[CONTROL_LINE_MAX];
	uint64_t until = silent_until(c); /* of the first event */
	int rc = say(c, line, control_request_format(&follow, line), e);

	while (rc == 0) {
		struct control_event ev;

		rc = read_line_until(c, until, line, e);
		until = c->until_ms;
		if (rc == 0)
			return err_set(e, -ECONNRESET, "the VM hung up without having ended");
		if (rc < 0)
			return rc;
		if (starts_with(line, "error "))
			return err_set(e, -EREMOTEIO, "%s", line + strlen("error "));
		rc = control_event_parse(line, &ev);
		if (rc == -ENOENT) {
			rc = 0; /* of a newer server */
			continue;
		}
		if (rc < 0)
			return err_set(e, -EPROTO, "an answer that makes no sense: %.80s", line);
		if (!hear(ctx, &ev) || ev.kind == CONTROL_EVENT_ENDED)
			return 0;
	}
	return rc;
}

/* ---- the end ---- */

static int wait_readable(int fd, uint64_t until_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		int left = left_ms(until_ms);

		if (poll(&p, 1, left) > 0)
			return 0;
		if (left == 0)
			return -ETIME;
	}
}

static bool has_hung_up(int fd)
{
	char rest[CONTROL_LINE_MAX];
	ssize_t n = recv(fd, rest, sizeof(rest), MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

int control_client_wait_end(struct control_client *c, struct err *e)
{
	int rc;

	do
		rc = wait_readable(c->fd, c->until_ms);
	while (rc == 0 && !has_hung_up(c->fd));
	/* Once its process has ended, too, its files are closed. */
	if (rc == 0 && c->pid_fd >= 0)
		rc = wait_readable(c->pid_fd, c->until_ms);
	if (rc < 0)
		return err_set(e, rc, "the VM was told to, and has not ended within %llu s; it may "
			       "yet, or wait longer with --timeout",
			       (unsigned long long)c->limit_ms / 1000);
	return 0;
}
