/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP relay that brings each answer later, as a server does that is further away: what is asked
 * goes through at once, what comes back rests for so long. A connection has two threads.
 *
 * usage: late_relay PORT TARGET_PORT MILLISECONDS
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct way {
	int from, to;
	long late_ns; /* 0: at once */
};

static bool write_all(int fd, const char *at, ssize_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, at, (size_t)len);

		if (n <= 0)
			return false;
		at += n;
		len -= n;
	}
	return true;
}

/* What came while the first bytes rested has rested long enough with them. */
static void *carry(void *arg)
{
	struct way *w = arg;
	char buf[65536];
	ssize_t n;

	while ((n = read(w->from, buf, sizeof(buf))) > 0) {
		const struct timespec late = {.tv_nsec = w->late_ns};

		if (w->late_ns)
			nanosleep(&late, NULL);
		do {
			if (!write_all(w->to, buf, n))
				break;
			n = w->late_ns ? recv(w->from, buf, sizeof(buf), MSG_DONTWAIT) : 0;
		} while (n > 0);
	}
	/* The other thread ends with that, and nobody misses the descriptors of a test. */
	shutdown(w->to, SHUT_RDWR);
	shutdown(w->from, SHUT_RDWR);
	free(w);
	return NULL;
}

static void start(int from, int to, long late_ns)
{
	struct way *w = malloc(sizeof(*w));
	pthread_t thread;

	if (!w)
		exit(1);
	*w = (struct way){from, to, late_ns};
	if (pthread_create(&thread, NULL, carry, w) != 0)
		exit(1);
	pthread_detach(thread);
}

static struct sockaddr_in local(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons((uint16_t)atoi(port)),
				    .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in here, there;

	if (argc != 4)
		return 2;
	here = local(argv[1]);
	there = local(argv[2]);
	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 256) < 0)
		return 1;
	for (;;) {
		int client = accept(listener, NULL, NULL);
		int server = socket(AF_INET, SOCK_STREAM, 0);

		if (client < 0 || connect(server, (struct sockaddr *)&there, sizeof(there)) < 0)
			return 1;
		(void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		start(client, server, 0);
		start(server, client, atol(argv[3]) * 1000000);
	}
}
