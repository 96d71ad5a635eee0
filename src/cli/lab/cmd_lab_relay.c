/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asyncpf lab-relay SOCKET`: the lab's end of a control socket that a host program connects
 * to. Standard input is the virtio port that leads to the host; the frames that it carries
 * are relay_proto.h's, and this is the sockets and the port. It runs in the lab only, started
 * by tools/lab, and is no verb for people.
 *
 * One thread. A connection whose server does not take what comes is hung up, so that none
 * waits for another. Test: tests/unit/lab_relay_test.py runs it against its counterpart,
 * tools/lab_parts/relay.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/types.h"
#include "cli/cli.h"
#include "cli/lab/relay_proto.h"
#include "cli/opts.h"

/* Until there is a server it is looked for this often; the host opens nothing before. */
#define LOOK_MS 20

struct lab_relay {
	const char *path; /* of the server's socket */
	int port;
	bool ready; /* there is a server, and the host knows */
	int server[RELAY_CONNECTIONS_MAX]; /* -1: none, as relay_has_server() says */
	struct relay relay;
};

/* The server's socket, connected; -1: there is none. */
static int connect_server(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(to.sun_path, path, strlen(path));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static void look_for_server(struct lab_relay *l)
{
	int fd = connect_server(l->path);

	if (fd < 0)
		return;
	close(fd);
	relay_ready(&l->relay);
	l->ready = true;
}

static void hang_up(struct lab_relay *l, unsigned n)
{
	if (l->server[n] >= 0)
		close(l->server[n]);
	l->server[n] = -1;
	relay_end(&l->relay, n);
}

static void tell_server(struct lab_relay *l, const struct relay_frame *f)
{
	int *fd = &l->server[f->connection];

	switch (f->type) {
	case RELAY_OPEN:
		*fd = connect_server(l->path);
		if (*fd < 0)
			hang_up(l, f->connection);
		break;
	case RELAY_DATA:
		if (send(*fd, f->data, f->len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)f->len)
			hang_up(l, f->connection);
		break;
	case RELAY_END:
		(void)shutdown(*fd, SHUT_WR);
		break;
	case RELAY_READY: /* ours alone */
		break;
	}
}

static void read_server(struct lab_relay *l, unsigned n)
{
	unsigned char data[RELAY_DATA_BYTES_MAX];
	ssize_t got = recv(l->server[n], data, sizeof(data), MSG_DONTWAIT);

	if (got > 0)
		relay_data(&l->relay, n, data, (size_t)got);
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		hang_up(l, n);
}

/* 0 or -EPROTO. */
static int tell_servers(struct lab_relay *l)
{
	struct relay_frame f;
	int rc;

	while ((rc = relay_take(&l->relay, &f)) > 0)
		tell_server(l, &f);
	return rc;
}

/* 1; 0: the host has gone; or -Exxx. */
static int read_port(struct lab_relay *l)
{
	struct relay *r = &l->relay;
	ssize_t got = read(l->port, r->in + r->in_bytes, sizeof(r->in) - r->in_bytes);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	r->in_bytes += (size_t)got;
	return got > 0;
}

static int write_port(struct lab_relay *l)
{
	ssize_t put = write(l->port, l->relay.out, l->relay.out_bytes);

	if (put < 0)
		return errno == EAGAIN || errno == EINTR ? 1 : -errno;
	relay_sent(&l->relay, (size_t)put);
	return 1;
}

/* 1; 0: the host has gone; or -Exxx. */
static int relay_step(struct lab_relay *l)
{
	struct pollfd p[1 + RELAY_CONNECTIONS_MAX];
	int rc = tell_servers(l);

	if (rc < 0)
		return rc;
	if (!l->ready)
		look_for_server(l);

	bool room = relay_has_room(&l->relay);

	p[0] = (struct pollfd){
		.fd = l->port,
		.events = (short)((room ? POLLIN : 0) | (l->relay.out_bytes ? POLLOUT : 0))};
	for (unsigned n = 0; n < RELAY_CONNECTIONS_MAX; n++)
		p[1 + n] = (struct pollfd){.fd = room ? l->server[n] : -1, .events = POLLIN};
	if (poll(p, ARRAY_LEN(p), l->ready ? -1 : LOOK_MS) < 0)
		return errno == EINTR ? 1 : -errno;
	for (unsigned n = 0; n < RELAY_CONNECTIONS_MAX; n++)
		if (p[1 + n].revents && relay_has_room(&l->relay))
			read_server(l, n);
	rc = 1;
	if (p[0].revents & POLLOUT)
		rc = write_port(l);
	if (rc > 0 && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
		rc = read_port(l);
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
	struct lab_relay l = {.port = STDIN_FILENO};
	int operand, rc = cli_begin(&relay_table, argc, argv, NULL, &operand);

	if (rc >= 0)
		return rc;
	l.path = argv[operand];
	if (strlen(l.path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return cli_error("cannot connect: %.60s: the name is too long; use a shorter one",
				 l.path);
	for (unsigned n = 0; n < RELAY_CONNECTIONS_MAX; n++)
		l.server[n] = -1;
	if (fcntl(l.port, F_SETFL, O_NONBLOCK) < 0)
		return cli_error("cannot relay: standard input: %s; start it by tools/lab",
				 strerror(errno));
	do
		rc = relay_step(&l);
	while (rc > 0);
	if (rc < 0)
		return cli_error("cannot relay: standard input: %s; start it by tools/lab",
				 strerror(-rc));
	return CLI_OK;
}
