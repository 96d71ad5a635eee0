/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf lab-relay SOCKET`: the lab's end of a control socket that a host program connects
 * to. Standard input is the virtio port that leads to the host; the frames that it carries
 * are described in tools/lab_parts/relay.py, whose counterpart this is. It runs in the lab
 * only, started by tools/lab, and is no verb for people.
 *
 * One thread. A connection whose server does not take what comes is hung up, so that none
 * waits for another. Test: tests/unit/lab_relay_test.py runs it against its counterpart.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "cli/cli.h"
#include "cli/opts.h"

enum frame_type { FRAME_OPEN = 1, FRAME_DATA = 2, FRAME_END = 3 };

#define HEAD_BYTES 4u /* type, connection, length (2) */
#define FRAME_BYTES_MAX 4096u
#define CONNECTIONS_MAX 16u
#define OUT_BYTES (16u * FRAME_BYTES_MAX)
/* The server may be made a moment after the host's program connects. */
#define CONNECT_MS_MAX 10000u
#define CONNECT_MS_STEP 20u

struct connection {
	int fd;          /* -1: none */
	bool host_ended; /* the host sends no more */
	bool ended;      /* nor do we */
};

struct relay {
	const char *path; /* of the server's socket */
	int port;
	struct connection conn[CONNECTIONS_MAX];
	size_t in_bytes;
	size_t out_bytes;
	unsigned char in[HEAD_BYTES + FRAME_BYTES_MAX];
	unsigned char out[OUT_BYTES];
};

static bool has_room(const struct relay *r)
{
	/* Beside the data: every connection can always say that it has ended. */
	return sizeof(r->out) - r->out_bytes >=
	       HEAD_BYTES + FRAME_BYTES_MAX + CONNECTIONS_MAX * HEAD_BYTES;
}

static unsigned char *put_head(struct relay *r, enum frame_type type, unsigned n, size_t len)
{
	unsigned char *head = r->out + r->out_bytes;

	ASSERT(r->out_bytes + HEAD_BYTES + len <= sizeof(r->out));
	head[0] = (unsigned char)type;
	head[1] = (unsigned char)n;
	head[2] = (unsigned char)len;
	head[3] = (unsigned char)(len >> 8);
	r->out_bytes += HEAD_BYTES + len;
	return head + HEAD_BYTES;
}

static void close_if_over(struct connection *c)
{
	if (c->fd < 0 || !c->ended || !c->host_ended)
		return;
	close(c->fd);
	c->fd = -1;
}

static void end(struct relay *r, unsigned n)
{
	struct connection *c = &r->conn[n];

	if (c->ended)
		return;
	put_head(r, FRAME_END, n, 0);
	c->ended = true;
	close_if_over(c);
}

/* The server's socket, connected; -1: there is none. */
static int connect_server(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timespec step = {.tv_nsec = CONNECT_MS_STEP * 1000000};

	memcpy(to.sun_path, path, strlen(path));
	for (unsigned ms = 0; ms < CONNECT_MS_MAX; ms += CONNECT_MS_STEP) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return -1;
		if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
			return fd;
		close(fd);
		nanosleep(&step, NULL);
	}
	return -1;
}

static void open_connection(struct relay *r, unsigned n)
{
	struct connection *c = &r->conn[n];

	if (c->fd >= 0)
		close(c->fd);
	*c = (struct connection){.fd = connect_server(r->path)};
	if (c->fd < 0)
		end(r, n);
}

/* One whole frame of the host's. Frames of connections that are over come late: no error. */
static int take_frame(struct relay *r, unsigned type, unsigned n, const void *bytes, size_t len)
{
	if (n >= CONNECTIONS_MAX)
		return -EPROTO;

	struct connection *c = &r->conn[n];

	switch (type) {
	case FRAME_OPEN:
		open_connection(r, n);
		return 0;
	case FRAME_DATA:
		if (c->fd >= 0 && !c->ended &&
		    send(c->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
			end(r, n);
		return 0;
	case FRAME_END:
		c->host_ended = true;
		if (c->fd >= 0)
			(void)shutdown(c->fd, SHUT_WR);
		close_if_over(c);
		return 0;
	}
	return -EPROTO;
}

/* All whole frames that came, as long as their answers have room. 0 or -EPROTO. */
static int take_frames(struct relay *r)
{
	size_t at = 0;

	while (r->in_bytes - at >= HEAD_BYTES && has_room(r)) {
		const unsigned char *head = r->in + at;
		size_t len = head[2] | (size_t)head[3] << 8;

		if (len > FRAME_BYTES_MAX)
			return -EPROTO;
		if (r->in_bytes - at < HEAD_BYTES + len)
			break;
		if (take_frame(r, head[0], head[1], head + HEAD_BYTES, len) < 0)
			return -EPROTO;
		at += HEAD_BYTES + len;
	}
	memmove(r->in, r->in + at, r->in_bytes - at);
	r->in_bytes -= at;
	return 0;
}

/* 1; 0: the host has gone; or -Exxx. Only where take_frames() has left no whole frame. */
static int read_port(struct relay *r)
{
	ssize_t got = read(r->port, r->in + r->in_bytes, sizeof(r->in) - r->in_bytes);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	r->in_bytes += (size_t)got;
	return got > 0;
}

static int write_port(struct relay *r)
{
	ssize_t put = write(r->port, r->out, r->out_bytes);

	if (put < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	r->out_bytes -= (size_t)put;
	memmove(r->out, r->out + put, r->out_bytes);
	return 1;
}

static void read_server(struct relay *r, unsigned n)
{
	unsigned char bytes[FRAME_BYTES_MAX];
	ssize_t got = recv(r->conn[n].fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got > 0)
		memcpy(put_head(r, FRAME_DATA, n, (size_t)got), bytes, (size_t)got);
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		end(r, n);
}

/* 1; 0: the host has gone; or -Exxx. */
static int relay_step(struct relay *r)
{
	struct pollfd p[1 + CONNECTIONS_MAX];
	int rc = take_frames(r);

	if (rc < 0)
		return rc;

	bool room = has_room(r);

	p[0] = (struct pollfd){.fd = r->port, .events = (short)((room ? POLLIN : 0) |
								(r->out_bytes ? POLLOUT : 0))};
	for (unsigned n = 0; n < CONNECTIONS_MAX; n++)
		p[1 + n] = (struct pollfd){
			.fd = room && !r->conn[n].ended ? r->conn[n].fd : -1, .events = POLLIN};
	if (poll(p, ARRAY_LEN(p), -1) < 0)
		return errno == EINTR ? 1 : -errno;
	for (unsigned n = 0; n < CONNECTIONS_MAX; n++)
		if (p[1 + n].revents && has_room(r))
			read_server(r, n);
	rc = 1;
	if (p[0].revents & POLLOUT)
		rc = write_port(r);
	if (rc > 0 && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
		rc = read_port(r);
	return rc;
}

static const struct opt rows[] = {{.name = NULL}};

static const struct opts relay_table = {
	.verb = "lab-relay",
	.about = "Used by the lab alone: connects the port that is its standard input with SOCKET.",
	.operands = "SOCKET",
	.operands_min = 1,
	.operands_max = 1,
	.rows = rows,
};

int cmd_lab_relay(int argc, char **argv)
{
	struct relay r = {.port = STDIN_FILENO};
	int operand, rc = cli_begin(&relay_table, argc, argv, NULL, &operand);

	if (rc >= 0)
		return rc;
	r.path = argv[operand];
	if (strlen(r.path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return cli_error("cannot connect: %.60s: the name is too long; use a shorter one",
				 r.path);
	for (unsigned n = 0; n < CONNECTIONS_MAX; n++)
		r.conn[n] = (struct connection){.fd = -1, .ended = true, .host_ended = true};
	if (fcntl(r.port, F_SETFL, O_NONBLOCK) < 0)
		return cli_error("cannot relay: standard input: %s; start it by tools/lab",
				 strerror(errno));
	do
		rc = relay_step(&r);
	while (rc > 0);
	if (rc < 0)
		return cli_error("cannot relay: standard input: %s; start it by tools/lab",
				 strerror(-rc));
	return CLI_OK;
}
