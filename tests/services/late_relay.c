/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP relay that brings each answer later, as a server does that is further away: what is asked
 * goes through at once, what comes back rests for so long. A connection has two threads. With a
 * percentage, so many requests of HTTP/1.1 go wrong: a third of them is answered by 503, a third
 * stands still for 2 s, of a third half of the answer comes, and then nobody is there any more.
 * That becomes of the first answer of each of the first CUT connections, too.
 *
 * usage: late_relay PORT TARGET_PORT MILLISECONDS [PERCENT [CUT]]
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_S 2

struct conn {
	atomic_bool cut; /* the next answer */
	atomic_int ways; /* threads that are left */
};

struct way {
	int from, to;
	long late_ns; /* 0: at once */
	unsigned percent, seed;
	struct conn *conn;
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

/*
 * A request, which is whole, as nobody sends two at a time and each is small. False: it was
 * answered here.
 */
static bool goes_on(struct way *w)
{
	static const char no[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
	const struct timespec stall = {.tv_sec = STALL_S};
	unsigned lot = (unsigned)rand_r(&w->seed) % 300;

	if (lot >= 3 * w->percent)
		return true;
	switch (lot % 3) {
	case 0:
		(void)write_all(w->from, no, sizeof(no) - 1);
		return false;
	case 1:
		nanosleep(&stall, NULL);
		return true;
	default:
		atomic_store(&w->conn->cut, true);
		return true;
	}
}

/* What came while the first bytes rested has rested long enough with them. */
static void *carry(void *arg)
{
	struct way *w = arg;
	char buf[65536];
	ssize_t n;

	while ((n = read(w->from, buf, sizeof(buf))) > 0) {
		const struct timespec late = {.tv_nsec = w->late_ns};

		if (w->percent && !goes_on(w))
			continue;
		if (w->late_ns)
			nanosleep(&late, NULL);
		if (w->late_ns && atomic_load(&w->conn->cut)) {
			(void)write_all(w->to, buf, n / 2);
			break;
		}
		do {
			if (!write_all(w->to, buf, n))
				break;
			n = w->late_ns ? recv(w->from, buf, sizeof(buf), MSG_DONTWAIT) : 0;
		} while (n > 0);
	}
	/* The other thread ends with that, and nobody misses the descriptors of a test. */
	shutdown(w->to, SHUT_RDWR);
	shutdown(w->from, SHUT_RDWR);
	if (atomic_fetch_sub(&w->conn->ways, 1) == 1)
		free(w->conn);
	free(w);
	return NULL;
}

static void start(struct way way)
{
	struct way *w = malloc(sizeof(*w));
	pthread_t thread;

	if (!w)
		exit(1);
	*w = way;
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
	unsigned seed = 1, percent, cut;

	if (argc < 4 || argc > 6)
		return 2;
	/* Whoever has gone is no reason to go. */
	(void)signal(SIGPIPE, SIG_IGN);
	percent = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
	cut = argc > 5 ? (unsigned)atoi(argv[5]) : 0;
	here = local(argv[1]);
	there = local(argv[2]);
	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 256) < 0)
		return 1;
	for (;;) {
		int client = accept(listener, NULL, NULL);
		int server = socket(AF_INET, SOCK_STREAM, 0);
		struct conn *c = calloc(1, sizeof(*c));

		if (!c || client < 0 ||
		    connect(server, (struct sockaddr *)&there, sizeof(there)) < 0)
			return 1;
		(void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		atomic_init(&c->ways, 2);
		atomic_init(&c->cut, cut > 0);
		cut -= cut > 0;
		start((struct way){client, server, .percent = percent, .seed = seed++, .conn = c});
		start((struct way){server, client, .late_ns = atol(argv[3]) * 1000000,
				   .conn = c});
	}
}
