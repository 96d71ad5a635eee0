/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/vsock_mux.c where it is at its limits: a buffer that is full to the last byte, the
 * last port, who waits for ever unless a deadline ends it, and what is counted then. Deadlines and
 * looks are put into the past, so that no test waits for one.
 */
#include "virtio_vsock_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include "base/time.h"

/* Half a minute that has passed for connection 0. */
static void let_expire(struct fixture *f)
{
	struct vsock_connection *c = &f->s.mux.connections[0];

	assert_true(c->deadline_ns != NS_NEVER);
	c->deadline_ns = 0;
	virtio_vsock_look(&f->s, 0);
}

static uint32_t waits(const struct fixture *f)
{
	return f->s.mux.connections[0].received - f->s.mux.connections[0].forwarded;
}

/* As much as the guest was told it may send, while the host's program reads nothing. */
static void fill(struct fixture *f, uint32_t port)
{
	static const unsigned char page[4000];

	for (uint32_t n; (n = VSOCK_BUFFER_BYTES - waits(f)) > 0;) {
		send_data(f, GUEST_PORT, port, page, n < sizeof(page) ? n : sizeof(page));
		while (hear(f))
			assert_int_equal(f->h.op, VSOCK_CREDIT_UPDATE);
	}
}

/* The room that was promised is to be had to the last byte, and not one more. */
static void full_to_the_last_byte(void **state)
{
	struct vsock_stats s;
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	fill(&f, port);
	assert_int_equal(waits(&f), VSOCK_BUFFER_BYTES);
	virtio_vsock_stats_get(&f.s, &s);
	assert_int_equal(s.vsock_resets, 0);
	assert_int_equal(s.vsock_connections, 1);
	send_data(&f, GUEST_PORT, port, "x", 1);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	virtio_vsock_stats_get(&f.s, &s);
	assert_int_equal(s.vsock_resets, 1);
	assert_int_equal(s.vsock_connections, 0);
	close(fd);
	fini(&f);
}

/* The guest has closed; the program that was to read the rest never does. */
static void guest_closed_and_nobody_reads(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	fill(&f, port);
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_SEND);
	assert_true(f.s.mux.connections[0].deadline_ns == NS_NEVER); /* it may still hear */
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_RECEIVE);
	expect_nothing(&f);
	let_expire(&f);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	assert_int_equal(f.s.mux.count.open, 0);
	close(fd);
	fini(&f);
}

/* All that the program has until its end. */
static uint64_t read_all(struct fixture *f, int fd)
{
	unsigned char got[4000];
	uint64_t total = 0;
	ssize_t n;

	while ((n = recv(fd, got, sizeof(got), MSG_DONTWAIT)) > 0) {
		total += (uint64_t)n;
		work(f);
	}
	assert_int_equal(n, 0);
	return total;
}

/*
 * Linux closes, and has forgotten its connection when it was not answered in 8 s: what it sent is
 * for the program all the same. Its ports are free by then.
 */
static void guest_forgot_and_somebody_reads(void **state)
{
	char path[64];
	struct fixture f;
	uint64_t sent;
	int server, old, new;

	(void)state;
	init(&f, BUFFERS);
	snprintf(path, sizeof(path), "%s_52", f.path);
	server = listen_at(path);
	say(&f, VSOCK_REQUEST, GUEST_PORT, 52, 0);
	expect(&f, VSOCK_RESPONSE, GUEST_PORT, 52);
	old = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	fill(&f, 52);
	sent = f.s.mux.connections[0].received;
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, 52, VSOCK_NO_SEND | VSOCK_NO_RECEIVE);
	say(&f, VSOCK_RST, GUEST_PORT, 52, 0);
	expect_nothing(&f);
	assert_true(send(old, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	say(&f, VSOCK_RW, GUEST_PORT, 52, 0);
	expect(&f, VSOCK_RST, GUEST_PORT, 52);
	say(&f, VSOCK_REQUEST, GUEST_PORT, 52, 0);
	expect(&f, VSOCK_RESPONSE, GUEST_PORT, 52);
	new = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	send_data(&f, GUEST_PORT, 52, "new", 3);
	expect_text(new, "new");
	assert_int_equal(read_all(&f, old), sent);
	assert_int_equal(f.s.mux.count.from_guest, sent + 3);
	assert_int_equal(f.s.mux.count.open, 1);
	expect_nothing(&f);
	send_data(&f, GUEST_PORT, 52, "more", 4);
	expect_text(new, "more");
	close(old);
	close(new);
	close(server);
	unlink(path);
	fini(&f);
}

/* It waits no longer than for a guest; nor for a program that has gone, or a driver. */
static void guest_forgot_and_nobody_reads(void **state)
{
	enum end { LATE, GONE, RESET, ENDS };
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	for (enum end how = LATE; how < ENDS; how++) {
		fd = open_from_host(&f, &port);
		fill(&f, port);
		say(&f, VSOCK_RST, GUEST_PORT, port, 0);
		expect_nothing(&f);
		assert_int_equal(f.s.mux.count.open, 1);
		if (how == LATE)
			let_expire(&f);
		else if (how == GONE)
			close(fd);
		else
			bring_up(&f, BUFFERS);
		expect_nothing(&f);
		assert_int_equal(f.s.mux.count.open, 0);
		if (how != GONE) {
			assert_true(read_all(&f, fd) > 0);
			close(fd);
		}
	}
	assert_int_equal(f.s.mux.count.refused, 0);
	assert_int_equal(f.s.mux.count.resets, 0);
	fini(&f);
}

/* The program has gone, and the guest never answers to that. */
static void host_gone_and_guest_silent(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	close(fd);
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	expect_nothing(&f);
	let_expire(&f);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	assert_int_equal(f.s.mux.count.open, 0);
	assert_int_equal(f.s.mux.count.refused, 0);
	fini(&f);
}

/* A request that the guest never answers is refused, and so is a greeting that never ends. */
static void nobody_answers(void **state)
{
	struct vsock_stats s;
	struct fixture f;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000);
	let_expire(&f);
	expect(&f, VSOCK_RST, GUEST_PORT, 0x40000000);
	expect_end(fd);
	close(fd);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 10");
	expect_nothing(&f);
	let_expire(&f);
	expect_nothing(&f);
	expect_gone(fd);
	close(fd);
	virtio_vsock_stats_get(&f.s, &s);
	assert_int_equal(s.vsock_refused, 2);
	assert_int_equal(s.vsock_opened, 0);
	assert_int_equal(s.vsock_resets, 0);
	assert_int_equal(s.vsock_connections, 0);
	fini(&f);
}

/* Whether a look finds nothing to do for all of its time. */
static bool look_waits(struct fixture *f)
{
	const unsigned ms = 50;
	uint64_t from = monotonic_ns();

	virtio_vsock_look(&f->s, (int)ms);
	return monotonic_ns() - from >= ms * NS_PER_MS;
}

/* Half a line is looked at once, not again and again until the rest has come. */
static void half_a_greeting(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = connect_to(f.path);
	for (const char *s = "CONNECT 1024"; *s; s++) {
		assert_int_equal(send(fd, s, 1, MSG_NOSIGNAL), 1);
		work(&f);
	}
	assert_true(look_waits(&f));
	put_text(fd, "\nat once");
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000);
	say(&f, VSOCK_RESPONSE, GUEST_PORT, 0x40000000, 0);
	expect(&f, VSOCK_RW, GUEST_PORT, 0x40000000);
	assert_int_equal(f.h.len, 7);
	assert_memory_equal(f.data, "at once", 7);
	close(fd);
	/* Who goes in the middle of it is gone. */
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1");
	work(&f);
	assert_int_equal(f.s.mux.count.refused, 0);
	close(fd);
	work(&f);
	assert_int_equal(f.s.mux.count.refused, 1);
	fini(&f);
}

/* Without a descriptor for who has come, nobody is taken, and nobody is asked all the time. */
static void no_descriptor(void **state)
{
	int fd, fds[512];
	struct rlimit before, few;
	struct fixture f;
	unsigned n = 0;

	(void)state;
	init(&f, BUFFERS);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = ARRAY_LEN(fds); /* poll() needs as many as it has places */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while ((fds[n] = dup(fd)) >= 0)
		n++;
	assert_int_equal(errno, EMFILE);
	/* The first finds that there is none; on a busy machine it may be found once more. */
	for (unsigned looks = 0; !look_waits(&f); looks++)
		assert_true(looks < 10);
	assert_int_equal(f.s.mux.count.open, 0);
	while (n > 0)
		close(fds[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	/* Nobody tells of a descriptor that is free again. */
	for (uint64_t from = monotonic_ns(); f.s.mux.count.open == 0;) {
		assert_true(monotonic_ns() - from < 10 * NS_PER_S);
		virtio_vsock_look(&f.s, -1);
	}
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000);
	close(fd);
	fini(&f);
}

/* The worker looks as often as it does, until `ms` have passed. */
static void let_pass(struct fixture *f, uint64_t ms)
{
	for (; ms > 0; ms -= VSOCK_LOOK_MS) {
		f->s.mux.looked_ns -= VSOCK_LOOK_MS * NS_PER_MS;
		virtio_vsock_look(&f->s, 0);
	}
}

/*
 * While the VM stands still nobody is given up who waits for the guest, before and after a look
 * that came late, and all of the guest's time is left; a greeting is the host's affair.
 */
static void a_pause_costs_no_patience(void **state)
{
	struct fixture f;
	uint32_t port;
	int asks, left, silent;

	(void)state;
	init(&f, BUFFERS);
	left = open_from_host(&f, &port);
	close(left);
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	f.stands = true;
	asks = connect_to(f.path);
	put_text(asks, "CONNECT 1024\n");
	expect(&f, VSOCK_REQUEST, GUEST_PORT, port + 1);
	silent = connect_to(f.path);
	let_pass(&f, 2 * VSOCK_PATIENCE_MS);
	assert_int_equal(f.s.mux.count.open, 3);
	f.s.mux.connections[2].deadline_ns = 0;
	virtio_vsock_look(&f.s, 0);
	expect_end(silent);
	f.stands = false;
	let_pass(&f, 2 * VSOCK_LOOK_MS);
	/* This process stood still, and the VM with it. */
	f.s.mux.looked_ns -= 2 * VSOCK_PATIENCE_MS * NS_PER_MS;
	virtio_vsock_look(&f.s, 0);
	let_pass(&f, VSOCK_PATIENCE_MS - 4 * VSOCK_LOOK_MS);
	assert_int_equal(f.s.mux.count.open, 2);
	expect_nothing(&f);
	say(&f, VSOCK_RESPONSE, GUEST_PORT, port + 1, 0);
	expect_text(asks, "OK 1073741825\n");
	let_pass(&f, 4 * VSOCK_LOOK_MS);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	assert_int_equal(f.s.mux.count.open, 1);
	close(asks);
	close(silent);
	fini(&f);
}

/* Behind the last port of ours comes the first, and one that is in use is passed over. */
static void ports_begin_again(void **state)
{
	struct fixture f;
	uint32_t port;
	int fds[3];

	(void)state;
	init(&f, BUFFERS);
	fds[0] = open_from_host(&f, &port);
	assert_int_equal(port, 0x40000000);
	f.s.mux.next_port = 0x7fffffff;
	fds[1] = open_from_host(&f, &port);
	assert_int_equal(port, 0x7fffffff);
	fds[2] = open_from_host(&f, &port);
	assert_int_equal(port, 0x40000001);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	fini(&f);
}

/* A buffer for a header alone does for what has no data. */
static void a_buffer_for_a_header(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	bring_up(&f, 0);
	for (unsigned i = 0; i < 2; i++) {
		vx_desc_at(&f.x, f.q[RX].desc, i, VX_DATA + i * BUFFER_BYTES,
			   sizeof(struct vsock_header), DESC_WRITE, 0);
		offer_at(&f, RX, (uint16_t)i);
	}
	notify(&f, RX);
	say(&f, VSOCK_RW, 7, 8, 0); /* of no connection */
	expect(&f, VSOCK_RST, 7, 8);
	assert_int_equal(vx_reg(&f.x, 0x070), 15);
	close(fd);
	fini(&f);
}

/* However much the guest sends, the host's programs have their turn. */
static void a_guest_that_never_stops(void **state)
{
	struct vsock_header h;
	struct fixture f;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	h = header(&f, VSOCK_RST, 1, 2); /* which needs no answer */
	for (unsigned i = 0; i < 40; i++) {
		vx_put(&f.x, TX_DATA, &h, sizeof(h));
		vx_desc_at(&f.x, f.q[TX].desc, i, TX_DATA, sizeof(h), 0, 0);
		offer_at(&f, TX, (uint16_t)i);
	}
	notify(&f, TX);
	assert_int_equal(f.s.mux.count.open, 0);
	while (virtio_mmio_work(&f.s.mmio))
		;
	assert_int_equal(f.s.mux.count.open, 1);
	close(fd);
	fini(&f);
}

#define PAIRS 8u
#define FLOOD_ROUNDS 10000u

static unsigned char content(unsigned pair, uint64_t at)
{
	return (unsigned char)(at * 11 + at / 253 + pair);
}

/* The next bytes of a pair, from `at` on. */
static void make(unsigned char *to, unsigned len, unsigned pair, uint64_t at)
{
	for (unsigned i = 0; i < len; i++)
		to[i] = content(pair, at + i);
}

static void compare(const unsigned char *got, uint64_t len, unsigned pair, uint64_t *at)
{
	for (uint64_t i = 0; i < len; i++)
		assert_int_equal(got[i], content(pair, *at + i));
	*at += len;
}

/* What the guest takes of it, with the room that this makes. */
static void guest_takes(struct fixture *f, uint32_t first_port, uint64_t taken[PAIRS])
{
	while (hear(f)) {
		unsigned pair = f->h.src_port - first_port;

		assert_true(pair < PAIRS);
		if (f->h.op == VSOCK_RW)
			compare(f->data, f->h.len, pair, &taken[pair]);
		f->fwd_cnt = (uint32_t)taken[pair];
		if (f->h.op == VSOCK_RW || f->h.op == VSOCK_CREDIT_REQUEST)
			say(f, VSOCK_CREDIT_UPDATE, GUEST_PORT, f->h.src_port, 0);
	}
	f->fwd_cnt = 0;
}

static void host_takes(int fd, unsigned pair, uint64_t *taken)
{
	unsigned char got[4000];
	ssize_t n;

	while ((n = recv(fd, got, sizeof(got), MSG_DONTWAIT)) > 0)
		compare(got, (uint64_t)n, pair, taken);
}

/*
 * Both sides send all that goes on many connections, and neither takes any: what is kept is what
 * each was promised, and there is nothing to do. Once they take it, every byte is there.
 */
static void flood_both_ways(void **state)
{
	uint64_t to_guest[PAIRS] = {0}, to_host[PAIRS] = {0};
	uint64_t by_guest[PAIRS] = {0}, by_host[PAIRS] = {0};
	unsigned char page[4000];
	uint32_t port, first = 0;
	struct fixture f;
	int fds[PAIRS];

	(void)state;
	init(&f, BUFFERS);
	for (unsigned i = 0; i < PAIRS; i++) {
		fds[i] = open_from_host(&f, &port);
		first = i ? first : port;
	}
	for (unsigned i = 0; i < PAIRS; i++) {
		struct vsock_connection *c = &f.s.mux.connections[i];
		ssize_t n;

		do {
			make(page, sizeof(page), i, to_guest[i]);
			n = send(fds[i], page, sizeof(page), MSG_DONTWAIT | MSG_NOSIGNAL);
			to_guest[i] += n > 0 ? (uint64_t)n : 0;
		} while (n > 0);
		while (VSOCK_BUFFER_BYTES - (c->received - c->forwarded) >= sizeof(page)) {
			make(page, sizeof(page), i, to_host[i]);
			send_data(&f, GUEST_PORT, first + i, page, sizeof(page));
			to_host[i] += sizeof(page);
		}
	}
	assert_false(virtio_mmio_work(&f.s.mmio));
	assert_true(f.s.mux.no_room);
	assert_true(f.s.mux.count.to_guest <= BUFFERS * BUFFER_BYTES);
	assert_int_equal(f.s.mux.count.resets, 0);
	for (unsigned round = 0, all = false; !all; round++) {
		assert_true(round < FLOOD_ROUNDS);
		all = true;
		guest_takes(&f, first, by_guest);
		for (unsigned i = 0; i < PAIRS; i++) {
			host_takes(fds[i], i, &by_host[i]);
			all &= by_guest[i] == to_guest[i] && by_host[i] == to_host[i];
		}
		work(&f);
	}
	for (unsigned i = 0; i < PAIRS; i++)
		close(fds[i]);
	fini(&f);
}

/* A program of the host's that connects, sends and goes, again and again. */
struct pest {
	const char *path;
	atomic_bool stop;
	pthread_t thread;
};

static void *pester(void *arg)
{
	static const char greeting[] = "CONNECT 1024\n", text[1024];
	struct pest *p = arg;
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strncpy(a.sun_path, p->path, sizeof(a.sun_path) - 1);
	while (!atomic_load(&p->stop)) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 &&
		    send(fd, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL) > 0)
			for (unsigned i = 0; i < 64; i++)
				if (send(fd, text, sizeof(text), MSG_NOSIGNAL) < 0)
					(void)sched_yield();
		close(fd);
	}
	return NULL;
}

/* Who has asked, and is to be let in when there is room for two packets; the newest are kept. */
struct door {
	uint32_t ports[VSOCK_CONNECTIONS_MAX];
	unsigned asked, answered;
};

/* The guest lets in who asks, and sends them something; of others it does not hear. */
static void let_in(struct fixture *f, struct door *d)
{
	bool heard = hear(f);
	uint32_t port;

	if (heard && f->h.op == VSOCK_REQUEST)
		d->ports[d->asked++ % ARRAY_LEN(d->ports)] = f->h.src_port;
	else if (heard)
		assert_true(d->asked > 0 || f->h.op == VSOCK_RST);
	if (d->asked - d->answered > VSOCK_CONNECTIONS_MAX)
		d->answered = d->asked - VSOCK_CONNECTIONS_MAX;
	if (d->answered == d->asked || room_to_send(f) < 2)
		return;
	port = d->ports[d->answered++ % ARRAY_LEN(d->ports)];
	say(f, VSOCK_RESPONSE, GUEST_PORT, port, 0);
	send_data(f, GUEST_PORT, port, "to the host", 11);
}

/*
 * The driver resets its device while its worker has connections in hand, which come and go, with
 * bytes both ways: the next driver has a device that works.
 */
static void a_reset_takes_connections_from_the_worker(void **state)
{
	char got[64] = "";
	struct door door;
	struct fixture f;
	struct pest p;
	ssize_t n;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	assert_int_equal(virtio_mmio_start(&f.s.mmio, NULL, NULL, NULL), 0);
	f.threaded = true;
	p = (struct pest){.path = f.path};
	assert_int_equal(pthread_create(&p.thread, NULL, pester, &p), 0);
	for (unsigned round = 0; round < 100; round++) {
		door = (struct door){.asked = 0};
		for (unsigned i = 0; i < round; i++)
			let_in(&f, &door);
		bring_up(&f, BUFFERS);
	}
	door = (struct door){.asked = 0};
	atomic_store(&p.stop, true);
	assert_int_equal(pthread_join(p.thread, NULL), 0);
	assert_int_equal(vx_reg(&f.x, 0x070), 15);
	/* Answered, the worker has heard of the reset: who comes now is not one from before. */
	say(&f, VSOCK_RW, 7, 8, 0);
	while (f.h.op != VSOCK_RST || f.h.dst_port != 7)
		let_in(&f, &door);
	/* Until those who went are no longer in line. */
	while ((fd = connect_or_not(f.path)) < 0)
		let_in(&f, &door);
	put_text(fd, "CONNECT 1024\n");
	for (size_t len = 0; !strstr(got, "\nto the host"); len += n > 0 ? (size_t)n : 0) {
		let_in(&f, &door);
		n = recv(fd, got + len, sizeof(got) - 1 - len, MSG_DONTWAIT);
		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
	}
	close(fd);
	fini(&f);
}

/* Bytes each way, without headers; packets of both. */
static void what_the_device_counts(void **state)
{
	struct device_stats before, after;
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	virtio_vsock_device_stats(&f.s, &before);
	assert_int_equal(before.read_bytes, 0);
	assert_int_equal(before.written_bytes, 0);
	put_text(fd, "to the guest");
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	send_data(&f, GUEST_PORT, port, "to the host", 11);
	expect_text(fd, "to the host");
	virtio_vsock_device_stats(&f.s, &after);
	assert_int_equal(after.read_bytes, 12);
	assert_int_equal(after.written_bytes, 11);
	assert_int_equal(after.requests - before.requests, 2);
	close(fd);
	fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_to_the_last_byte),
		cmocka_unit_test(guest_closed_and_nobody_reads),
		cmocka_unit_test(guest_forgot_and_somebody_reads),
		cmocka_unit_test(guest_forgot_and_nobody_reads),
		cmocka_unit_test(host_gone_and_guest_silent),
		cmocka_unit_test(nobody_answers),
		cmocka_unit_test(half_a_greeting),
		cmocka_unit_test(no_descriptor),
		cmocka_unit_test(a_pause_costs_no_patience),
		cmocka_unit_test(ports_begin_again),
		cmocka_unit_test(a_buffer_for_a_header),
		cmocka_unit_test(a_guest_that_never_stops),
		cmocka_unit_test(flood_both_ways),
		cmocka_unit_test(a_reset_takes_connections_from_the_worker),
		cmocka_unit_test(what_the_device_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
