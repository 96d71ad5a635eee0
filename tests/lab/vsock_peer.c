/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a guest's sockets, for snapshot_test.py: echoes what comes to PATH_52, and has
 * the guest's echo server at port 1024 return what it sends there, in rounds of many connections at
 * once.
 *
 * usage: vsock_peer PATH [ROUNDS]    a line of JSON; exit code 0: every byte came back
 *        vsock_peer PATH once        exit code 0: that server takes a connection at the first try
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ROUNDS 4u
#define CONNECTIONS 24u
#define BYTES 150000u
#define RETRY_MS 200
#define RETRIES 600

struct one {
	pthread_t thread;
	const char *path;
	unsigned number;
	const char *wrong; /* NULL: nothing */
	unsigned at;
};

static unsigned char content(unsigned number, unsigned at)
{
	return (unsigned char)(at * 13 + at / 257 + number * 3);
}

static struct sockaddr_un address(const char *path, const char *end)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%.90s%s", path, end);
	return a;
}

/* ---- the echo server ---- */

static void *echo(void *arg)
{
	int fd = (int)(long)arg;
	char buf[16384];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t done = 0, m; done < n; done += m) {
			m = write(fd, buf + done, (size_t)(n - done));
			if (m <= 0) {
				close(fd);
				return NULL;
			}
		}
	close(fd);
	return NULL;
}

static void *serve(void *arg)
{
	int listening = (int)(long)arg;

	for (;;) {
		int fd = accept(listening, NULL, NULL);
		pthread_t t;

		if (fd >= 0 && pthread_create(&t, NULL, echo, (void *)(long)fd) == 0)
			(void)pthread_detach(t);
	}
	return NULL;
}

static int start_server(const char *path)
{
	struct sockaddr_un a = address(path, "_52");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pthread_t t;

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0)
		return -1;
	return pthread_create(&t, NULL, serve, (void *)(long)fd);
}

/* ---- our own connections ---- */

/* "OK PORT\n"; 0, or -1: the guest does not take it (yet). */
static int greet(int fd)
{
	static const char hello[] = "CONNECT 1024\n";
	char text[32] = "";

	if (write(fd, hello, sizeof(hello) - 1) != sizeof(hello) - 1)
		return -1;
	for (unsigned i = 0; i < sizeof(text) - 1; i++) {
		if (read(fd, text + i, 1) != 1)
			return -1;
		if (text[i] == '\n')
			return strncmp(text, "OK ", 3) == 0 ? 0 : -1;
	}
	return -1;
}

static int connect_once(const char *path)
{
	struct sockaddr_un a = address(path, "");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && greet(fd) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int connect_to_guest(const char *path)
{
	for (unsigned i = 0; i < RETRIES; i++) {
		int fd = connect_once(path);

		if (fd >= 0)
			return fd;
		(void)poll(NULL, 0, RETRY_MS);
	}
	return -1;
}

static void *run_one(void *arg)
{
	unsigned char out[4096], in[4096];
	struct one *o = arg;
	int fd = connect_to_guest(o->path);
	unsigned sent = 0;

	o->wrong = fd < 0 ? "no connection" : NULL;
	while (!o->wrong) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (sent < BYTES)
			p.events |= POLLOUT;
		(void)poll(&p, 1, -1);
		if (p.revents & POLLOUT) {
			size_t len = BYTES - sent < sizeof(out) ? BYTES - sent : sizeof(out);

			for (size_t i = 0; i < len; i++)
				out[i] = content(o->number, sent + (unsigned)i);
			n = send(fd, out, len, MSG_DONTWAIT);
			sent += n > 0 ? (unsigned)n : 0;
			if (sent == BYTES)
				(void)shutdown(fd, SHUT_WR);
		}
		if (!(p.revents & (POLLIN | POLLHUP | POLLERR)))
			continue;
		n = recv(fd, in, sizeof(in), MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n < 0 && errno != EAGAIN)
			o->wrong = "an error";
		for (ssize_t i = 0; i < n && !o->wrong; i++, o->at++)
			if (in[i] != content(o->number, o->at))
				o->wrong = "a wrong byte";
	}
	if (!o->wrong && o->at != BYTES)
		o->wrong = "an early end";
	if (fd >= 0)
		close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct one ones[CONNECTIONS];
	unsigned done = 0, failed = 0, rounds;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[2], "once") == 0)
		return connect_once(argv[1]) < 0;
	rounds = argc > 2 ? (unsigned)atoi(argv[2]) : ROUNDS;
	if (argc < 2 || start_server(argv[1]) != 0) {
		printf("{\"wrong\": \"no server: %s\"}\n", strerror(errno));
		return 1;
	}
	/* Before them all one alone, which takes it that nobody may be there yet. */
	fd = connect_to_guest(argv[1]);
	if (fd >= 0)
		close(fd);
	for (unsigned round = 0; round < rounds && failed == 0; round++) {
		for (unsigned i = 0; i < CONNECTIONS; i++) {
			ones[i] = (struct one){.path = argv[1], .number = done + i};
			(void)pthread_create(&ones[i].thread, NULL, run_one, &ones[i]);
		}
		for (unsigned i = 0; i < CONNECTIONS; i++) {
			(void)pthread_join(ones[i].thread, NULL);
			if (!ones[i].wrong)
				continue;
			failed++;
			fprintf(stderr, "connection %u: %s at byte %u\n", ones[i].number,
				ones[i].wrong, ones[i].at);
		}
		done += CONNECTIONS;
	}
	printf("{\"connections\": %u, \"failed\": %u}\n", done, failed);
	fflush(stdout);
	/* The guest's own connections come to us until it ends us. */
	if (failed == 0)
		(void)poll(NULL, 0, -1);
	return failed > 0;
}
