/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source by NBD whose server answers what it was not asked for, or not at all: no such byte
 * reaches a reader, who is told what is wrong; and when the server is well again, so is the source.
 */
#include "net_servers_fixture.h"

#include <arpa/inet.h>
#include <endian.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LIAR_BYTES (1u << 20)

static bool liar_hears(int fd, void *to, size_t len)
{
	return len == 0 || recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

static void liar_says(int fd, const void *what, size_t len)
{
	(void)send(fd, what, len, MSG_NOSIGNAL);
}

/* NBD's fixed newstyle handshake, with structured replies and nothing else. */
static bool liar_agrees(int fd, bool refuses)
{
	static const unsigned char hello[18] = "NBDMAGICIHAVEOPT\0\3";
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, len;
	} ask;
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, type, len;
		uint16_t info;
		uint64_t size;
		uint16_t flags;
	} reply = {.magic = htobe64(0x3e889045565a9), .size = htobe64(LIAR_BYTES),
		   .flags = htobe16(0x81)};
	const size_t head = 20;
	char rest[1024];

	liar_says(fd, hello, sizeof(hello));
	if (!liar_hears(fd, rest, 4))
		return false;
	while (liar_hears(fd, &ask, sizeof(ask)) && be32toh(ask.len) <= sizeof(rest) &&
	       liar_hears(fd, rest, be32toh(ask.len))) {
		reply.option = ask.option;
		reply.len = 0;
		reply.type = htobe32(be32toh(ask.option) == 8 ? 1 : 0x80000001);
		if (be32toh(ask.option) != 7) {
			liar_says(fd, &reply, head);
			continue;
		}
		if (refuses) {
			reply.type = htobe32(0x80000006);
			liar_says(fd, &reply, head);
			continue;
		}
		reply.type = htobe32(3);
		reply.len = htobe32(12);
		liar_says(fd, &reply, sizeof(reply));
		reply.type = htobe32(1);
		reply.len = 0;
		liar_says(fd, &reply, head);
		return true;
	}
	return false;
}

/* What comes of a read, as offset and length in halves of it. */
struct lie {
	uint32_t offset, len;
};

enum liar_way {
	LIAR_WELL,
	LIAR_SAYS_NONSENSE, /* to each read */
	LIAR_SAYS_GOODBYE,  /* the same, and does not go */
	LIAR_HANGS_UP,      /* at each read */
	LIAR_REFUSES,       /* the same, and then has no such export */
};

struct liar {
	int listens;
	const struct lie *lies; /* the last has no length */
	unsigned forgets;       /* the first so many reads */
	enum liar_way way;      /* atomic, and the next */
	unsigned connections;   /* that there were */
	unsigned reads;         /* the same */
	pthread_t thread;
};

static enum liar_way liar_way(struct liar *l)
{
	return __atomic_load_n(&l->way, __ATOMIC_SEQ_CST);
}

static void liar_serves(struct liar *l, int fd)
{
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t handle, offset;
		uint32_t len;
	} ask;
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t handle;
		uint32_t len;
		uint64_t offset;
	} chunk = {.magic = htobe32(0x668e33ef)};
	static char bytes[LIAR_BYTES];

	memset(bytes, 'A', sizeof(bytes));
	if (!liar_agrees(fd, liar_way(l) == LIAR_REFUSES))
		return;
	while (liar_hears(fd, &ask, sizeof(ask)) && ask.type == 0) {
		uint32_t half = be32toh(ask.len) / 2;

		__atomic_add_fetch(&l->reads, 1, __ATOMIC_SEQ_CST);
		if (l->forgets > 0) {
			l->forgets--;
			continue;
		}
		if (liar_way(l) == LIAR_SAYS_NONSENSE)
			liar_says(fd, bytes, sizeof(chunk));
		if (liar_way(l) >= LIAR_HANGS_UP)
			return;
		chunk.handle = ask.handle;
		if (liar_way(l) == LIAR_SAYS_GOODBYE) {
			/* ESHUTDOWN, and no words. */
			chunk.flags = htobe16(1);
			chunk.type = htobe16(0x8001);
			chunk.len = htobe32(6);
			chunk.offset = htobe64(108ull << 32);
			liar_says(fd, &chunk, sizeof(chunk) - 2);
			continue;
		}
		chunk.flags = 0;
		chunk.type = htobe16(1);
		for (const struct lie *lie = l->lies; lie->len; lie++) {
			chunk.offset = htobe64(be64toh(ask.offset) + lie->offset * half);
			chunk.len = htobe32(lie->len * half + 8);
			liar_says(fd, &chunk, sizeof(chunk));
			liar_says(fd, bytes, lie->len * half);
		}
		/* That was all. */
		chunk.flags = htobe16(1);
		chunk.type = 0;
		chunk.len = 0;
		liar_says(fd, &chunk, sizeof(chunk) - sizeof(chunk.offset));
	}
}

static void *liar(void *arg)
{
	struct liar *l = arg;
	int fd;

	while ((fd = accept(l->listens, NULL, NULL)) >= 0) {
		__atomic_add_fetch(&l->connections, 1, __ATOMIC_SEQ_CST);
		liar_serves(l, fd);
		close(fd);
	}
	return NULL;
}

static void liar_begins(struct liar *l, struct site *n, const struct lie *lies, char uri[256])
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char path[SVC_PATH_MAX];

	*l = (struct liar){.listens = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
			   .lies = lies, .forgets = l->forgets};
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", svc_path(&n->s, "liar", path));
	(void)unlink(path);
	assert_int_equal(bind(l->listens, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(l->listens, 8), 0);
	assert_int_equal(pthread_create(&l->thread, NULL, liar, l), 0);
	snprintf(uri, 256, "nbd+unix:///?socket=%s&net-connections=1&net-stall-ms=200", path);
}

static void liar_ends(struct liar *l)
{
	assert_int_equal(shutdown(l->listens, SHUT_RDWR), 0);
	pthread_join(l->thread, NULL);
	close(l->listens);
}

static void liar_free_reads(struct hub *h)
{
	for (unsigned i = 0; i < h->count; i++)
		free(h->reads[i].rd.buf);
}

/* Neither zeroes nor what this process had in its memory stands for what it leaves out. */
static void each_byte_comes_once(void **state)
{
	static const struct {
		struct lie lies[4];
		bool good;
	} runs[] = {
		{{{0, 1}, {1, 1}}, true},
		{{{1, 1}, {0, 1}}, true},
		{{{0, 2}}, true},
		{{{0, 1}, {0, 1}}, false}, /* as many bytes as were asked for */
		{{{0, 1}, {0, 2}}, false},
		{{{0, 1}}, false},
		{{{1, 1}}, false},
		{{{0, 0}}, false},
	};
	static struct hub h;
	char uri[256];
	struct site n;
	struct liar l;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		const unsigned char *got;

		l.forgets = 0;
		liar_begins(&l, &n, runs[i].lies, uri);
		hub_open(&h, uri);
		(void)hub_read(&h, 0, PAGE_BYTES, true);
		hub_wait(&h, 1);
		assert_int_equal(h.reads[0].code, runs[i].good ? 0 : -EPROTO);
		got = h.reads[0].rd.buf;
		for (unsigned k = 0; runs[i].good && k < PAGE_BYTES; k++)
			assert_int_equal(got[k], 'A');
		liar_free_reads(&h);
		hub_close(&h);
		liar_ends(&l);
	}
	site_close(&n);
}

/*
 * What no waiting mends is an error, after some tries and with what was wrong; and when the server
 * is well again, so is the source.
 */
static void a_server_that_is_always_wrong(void **state)
{
	static const struct lie whole[] = {{0, 2}, {0, 0}};
	static const struct {
		enum liar_way way;
		int code;
		const char *why;
	} runs[] = {
		{LIAR_SAYS_NONSENSE, -EPROTO,
		 "the server breaks the protocol (6 times): invalid reply magic"},
		{LIAR_HANGS_UP, -EPROTO,
		 "the server closes the connection and does not answer (6 times)"},
		{LIAR_REFUSES, -ENOENT, "server has no export named"},
	};
	static struct hub h;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		struct liar l = {.forgets = 0};
		char uri[256];
		struct site n;

		site_open(&n, APF_FAULTS_USER);
		liar_begins(&l, &n, whole, uri);
		hub_open(&h, uri);
		(void)hub_read(&h, 0, PAGE_BYTES, true);
		hub_wait(&h, 1);
		__atomic_store_n(&l.way, runs[i].way, __ATOMIC_SEQ_CST);
		/* One behind the other: what it is told of one is not the other's. */
		for (unsigned k = 1; k < 3; k++) {
			(void)hub_read(&h, k * 64 * PAGE_BYTES, PAGE_BYTES, true);
			hub_wait(&h, k + 1);
			print_message("%s\n", h.reads[k].why);
			assert_int_equal(h.reads[k].code, runs[i].code);
			assert_non_null(strstr(h.reads[k].why, runs[i].why));
			assert_non_null(strstr(h.reads[k].why, "nbd+unix:///?socket="));
		}
		assert_in_range(__atomic_load_n(&l.connections, __ATOMIC_SEQ_CST), 12, 14);
		__atomic_store_n(&l.way, LIAR_WELL, __ATOMIC_SEQ_CST);
		(void)hub_read(&h, 0, PAGE_BYTES, true);
		hub_wait(&h, 4);
		assert_int_equal(h.reads[0].code, 0);
		assert_int_equal(h.reads[3].code, 0);
		liar_free_reads(&h);
		hub_close(&h);
		liar_ends(&l);
		site_close(&n);
	}
}

/* It is waited for, with pauses. */
static void a_server_that_is_about_to_go(void **state)
{
	static const struct lie whole[] = {{0, 2}, {0, 0}};
	struct liar l = {.forgets = 0};
	static struct hub h;
	char uri[256];
	struct site n;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	liar_begins(&l, &n, whole, uri);
	hub_open(&h, uri);
	__atomic_store_n(&l.way, LIAR_SAYS_GOODBYE, __ATOMIC_SEQ_CST);
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	while (net_hub_pump(h.net))
		;
	while (__atomic_load_n(&l.reads, __ATOMIC_SEQ_CST) < 4)
		usleep(1000);
	usleep(200000);
	/* Pauses double, from a twentieth of a second. */
	assert_in_range(__atomic_load_n(&l.reads, __ATOMIC_SEQ_CST), 4, 30);
	__atomic_store_n(&l.way, LIAR_WELL, __ATOMIC_SEQ_CST);
	hub_wait(&h, 1);
	assert_int_equal(h.reads[0].code, 0);
	assert_int_equal(__atomic_load_n(&l.connections, __ATOMIC_SEQ_CST), 1);
	liar_free_reads(&h);
	hub_close(&h);
	liar_ends(&l);
	site_close(&n);
}

/* A read that the server loses is asked for again, also while it answers others. */
static void what_is_lost_is_asked_again(void **state)
{
	static const struct lie whole[] = {{0, 2}, {0, 0}};
	struct liar l = {.forgets = 1};
	static struct hub h;
	char uri[256];
	struct site n;
	unsigned i;

	(void)state;
	site_open(&n, APF_FAULTS_USER);
	liar_begins(&l, &n, whole, uri);
	hub_open(&h, uri);
	(void)hub_read(&h, 0, PAGE_BYTES, true);
	for (i = 1; i < HUB_READS && !h.reads[0].order; i++) {
		(void)hub_read(&h, 8 * PAGE_BYTES, PAGE_BYTES, true);
		hub_wait(&h, i);
		usleep(10000);
	}
	assert_in_range(h.reads[0].order, 2, HUB_READS);
	hub_wait(&h, i);
	for (i = 0; i < h.count; i++)
		assert_int_equal(h.reads[i].code, 0);
	liar_free_reads(&h);
	hub_close(&h);
	liar_ends(&l);
	site_close(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_byte_comes_once),
		cmocka_unit_test(a_server_that_is_always_wrong),
		cmocka_unit_test(a_server_that_is_about_to_go),
		cmocka_unit_test(what_is_lost_is_asked_again),
	};

	setenv("ASYNCPF_NET_MODULE", NET_MODULE, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
