/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP relay that brings each answer later, as a server does that is further away: what is asked
 * goes through at once, what comes back rests for so long. A connection has two threads. With a
 * percentage, so many requests go wrong: a third of them is answered by 503 (HTTP/1.1; by NBD it
 * goes well here, and nbdkit's error filter is for that), a third stands still for 2 s, by NBD
 * without those behind it, of a third half of the answer comes, and then nobody is there any more.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_S 2
/* NBD, by its specification. */
#define NBD_OPTION_BYTES 16u
#define NBD_OPTION_GO 7u
#define NBD_REQUEST_BYTES 28u

struct conn {
	atomic_bool cut; /* the next answer */
	atomic_bool nbd; /* the server has greeted as those do: before anybody asks */
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

static const struct timespec stall = {.tv_sec = STALL_S};

static void conn_leave(struct conn *c)
{
	if (atomic_fetch_sub(&c->ways, 1) == 1)
		free(c);
}

/* ---- NBD ---- */

struct late_request {
	int to;
	struct conn *conn;
	unsigned char bytes[NBD_REQUEST_BYTES];
};

/* Those few bytes go at once, and so are not mixed with another's. */
static void *ask_late(void *arg)
{
	struct late_request *l = arg;

	nanosleep(&stall, NULL);
	(void)write_all(l->to, (const char *)l->bytes, sizeof(l->bytes));
	conn_leave(l->conn);
	free(l);
	return NULL;
}

static void ask_later(const struct way *w, const unsigned char *request)
{
	struct late_request *l = malloc(sizeof(*l));
	pthread_t thread;

	if (!l)
		exit(1);
	*l = (struct late_request){.to = w->to, .conn = w->conn};
	memcpy(l->bytes, request, sizeof(l->bytes));
	atomic_fetch_add(&w->conn->ways, 1);
	if (pthread_create(&thread, NULL, ask_late, l) != 0)
		exit(1);
	pthread_detach(thread);
}

/* The next len bytes of the client's, and on to the server where that is wanted. */
static bool pass(const struct way *w, unsigned char *at, size_t len, bool on)
{
	return recv(w->from, at, len, MSG_WAITALL) == (ssize_t)len &&
	       (!on || write_all(w->to, (const char *)at, (ssize_t)len));
}

/* What a client says, piece by piece: flags, options, then requests of one size. */
static void carry_nbd(struct way *w)
{
	unsigned char at[4096];
	uint32_t option = 0, len;
	bool well = pass(w, at, 4, true);

	while (well && option != NBD_OPTION_GO) {
		well = pass(w, at, NBD_OPTION_BYTES, true);
		option = (uint32_t)at[8] << 24 | at[9] << 16 | at[10] << 8 | at[11];
		len = (uint32_t)at[12] << 24 | at[13] << 16 | at[14] << 8 | at[15];
		well = well && len <= sizeof(at) && (len == 0 || pass(w, at, len, true));
	}
	while (well && pass(w, at, NBD_REQUEST_BYTES, false)) {
		unsigned lot = (unsigned)rand_r(&w->seed) % 300;

		if (lot < 3 * w->percent && lot % 3 == 1) {
			ask_later(w, at);
			continue;
		}
		if (lot < 3 * w->percent && lot % 3 == 2)
			atomic_store(&w->conn->cut, true);
		well = write_all(w->to, (const char *)at, NBD_REQUEST_BYTES);
	}
}

/* ---- HTTP, and everything else ---- */

/*
 * A request, which is whole, as nobody sends two at a time and each is small. False: it was
 * answered here.
 */
static bool goes_on(struct way *w)
{
	static const char no[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
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
static void carry_all(struct way *w)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(w->from, buf, sizeof(buf))) > 0) {
		const struct timespec late = {.tv_nsec = w->late_ns};

		if (w->percent && !goes_on(w))
			continue;
		if (w->late_ns && n >= 8 && memcmp(buf, "NBDMAGIC", 8) == 0)
			atomic_store(&w->conn->nbd, true);
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
}

static void *carry(void *arg)
{
	struct way *w = arg;
	char first;

	/* Who is asked is known when somebody asks. */
	if (w->percent && recv(w->from, &first, 1, MSG_PEEK) == 1 && atomic_load(&w->conn->nbd))
		carry_nbd(w);
	else
		carry_all(w);
	/* The other thread ends with that, and nobody misses the descriptors of a test. */
	shutdown(w->to, SHUT_RDWR);
	shutdown(w->from, SHUT_RDWR);
	conn_leave(w->conn);
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
		    connect(server, (struct sockaddr *)&there, sizeof(there)) < 0) {
			perror("late_relay");
			return 1;
		}
		(void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		atomic_init(&c->ways, 2);
		atomic_init(&c->nbd, false);
		atomic_init(&c->cut, cut > 0);
		cut -= cut > 0;
		start((struct way){client, server, .percent = percent, .seed = seed++, .conn = c});
		start((struct way){server, client, .late_ns = atol(argv[3]) * 1000000,
				   .conn = c});
	}
}
