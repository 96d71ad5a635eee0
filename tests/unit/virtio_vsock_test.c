/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/virtio_vsock.c and vsock_mux.c: connections either way, half-closed ones, credit,
 * many at once, a guest that lies or takes nothing, programs of the host that go, and a reset in
 * between.
 */
#include "virtio_vsock_fixture.h"

static void from_host(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	assert_int_equal(vx_reg(&f.x, 0x008), 19);
	assert_int_equal(vx_reg(&f.x, 0x100), CID);
	assert_int_equal(vx_reg(&f.x, 0x104), 0);
	fd = open_from_host(&f, &port);
	put_text(fd, "to the guest");
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	assert_memory_equal(f.data, "to the guest", 12);
	assert_int_equal(f.h.len, 12);
	send_data(&f, GUEST_PORT, port, "to the host", 11);
	expect_text(fd, "to the host");
	close(fd);
	/* All of it: the guest's program must see both ends. */
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	assert_int_equal(f.h.flags, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	say(&f, VSOCK_RST, GUEST_PORT, port, 0);
	expect_nothing(&f);
	assert_int_equal(f.s.mux.count.open, 0);
	fini(&f);
}

static void from_guest(void **state)
{
	char path[64];
	struct fixture f;
	int server, fd;

	(void)state;
	init(&f, BUFFERS);
	snprintf(path, sizeof(path), "%s_52", f.path);
	say(&f, VSOCK_REQUEST, 7, 52, 0); /* nobody there */
	expect(&f, VSOCK_RST, 7, 52);
	server = listen_at(path);
	say(&f, VSOCK_REQUEST, 7, 52, 0);
	expect(&f, VSOCK_RESPONSE, 7, 52);
	assert_int_equal(f.h.buf_alloc, VSOCK_BUFFER_BYTES);
	fd = accept(server, NULL, NULL);
	assert_true(fd >= 0);
	send_data(&f, 7, 52, "hello", 5);
	expect_text(fd, "hello");
	put_text(fd, "good day");
	expect(&f, VSOCK_RW, 7, 52);
	assert_int_equal(f.h.len, 8);
	assert_int_equal(f.h.fwd_cnt, 5);
	/* The guest closes: it hears when all of it has gone on. */
	say(&f, VSOCK_SHUTDOWN, 7, 52, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	expect(&f, VSOCK_RST, 7, 52);
	expect_end(fd);
	close(fd);
	close(server);
	unlink(path);
	fini(&f);
}

/* Each direction ends by itself. */
static void half_closed(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	put_text(fd, "the last");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	assert_int_equal(f.h.flags, VSOCK_NO_SEND);
	expect_nothing(&f);
	send_data(&f, GUEST_PORT, port, "answer", 6);
	expect_text(fd, "answer");
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_SEND);
	expect_end(fd);
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_RECEIVE);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	close(fd);
	/* The other way round. */
	fd = open_from_host(&f, &port);
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_SEND);
	expect_end(fd);
	put_text(fd, "still");
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	/* It sends all the same: that is no connection any more. */
	send_data(&f, GUEST_PORT, port, "x", 1);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	assert_int_equal(f.s.mux.count.resets, 1);
	close(fd);
	fini(&f);
}

/* Half a line, none, one that never ends, no number; and no driver at all. */
static void bad_greetings(void **state)
{
	static const char *const lines[] = {
		"GET / HTTP/1.1\r\n", "CONNECT\n", "CONNECT \n", "CONNECT -1\n", "CONNECT 1x\n",
		"CONNECT  5\n", "CONNECT 4294967295\n", "CONNECT 99999999999999999999\n",
		"CONNECT 00000000000000000000000000000000000", "\n"};
	struct fixture f;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		fd = connect_to(f.path);
		put_text(fd, lines[i]);
		work(&f);
		expect_nothing(&f);
		expect_gone(fd);
		close(fd);
	}
	assert_int_equal(f.s.mux.count.refused, ARRAY_LEN(lines));
	/* In pieces, and with data right behind it. */
	fd = connect_to(f.path);
	put_text(fd, "CONN");
	expect_nothing(&f);
	put_text(fd, "ECT 1024\nat once");
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000);
	expect_nothing(&f);
	say(&f, VSOCK_RESPONSE, GUEST_PORT, f.h.src_port, 0);
	expect_text(fd, "OK 1073741824\n");
	expect(&f, VSOCK_RW, GUEST_PORT, 0x40000000);
	assert_memory_equal(f.data, "at once", 7);
	close(fd);
	vx_set(&f.x, 0x070, 0);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	work(&f);
	expect_end(fd);
	close(fd);
	fini(&f);
}

/* A guest without room hears no more than it has room for, and is asked once. */
static void credit_of_the_guest(void **state)
{
	unsigned char sent[10000];
	struct fixture f;
	uint32_t port, got = 0;
	int fd;

	(void)state;
	for (unsigned i = 0; i < sizeof(sent); i++)
		sent[i] = (unsigned char)(i * 7);
	init(&f, BUFFERS);
	f.buf_alloc = 5000;
	fd = open_from_host(&f, &port);
	assert_true(send(fd, sent, sizeof(sent), 0) == sizeof(sent));
	while (hear(&f) && f.h.op == VSOCK_RW) {
		assert_memory_equal(f.data, sent + got, f.h.len);
		got += f.h.len;
	}
	assert_int_equal(got, 5000);
	assert_int_equal(f.h.op, VSOCK_CREDIT_REQUEST);
	expect_nothing(&f);
	f.fwd_cnt = 1000;
	say(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port, 0);
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	assert_int_equal(f.h.len, 1000);
	assert_memory_equal(f.data, sent + got, 1000);
	got += 1000;
	/* Counters from nowhere are no room, and no endless one. */
	f.fwd_cnt = 0x80000000;
	say(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port, 0);
	expect(&f, VSOCK_CREDIT_REQUEST, GUEST_PORT, port);
	expect_nothing(&f);
	f.fwd_cnt = got;
	say(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port, 0);
	while (hear(&f) && f.h.op == VSOCK_RW) {
		assert_memory_equal(f.data, sent + got, f.h.len);
		got += f.h.len;
	}
	assert_int_equal(got, sizeof(sent));
	close(fd);
	fini(&f);
}

/* Until the socket of the host's program is full: from then on we keep what we said we would. */
static void fill_socket(struct fixture *f, uint32_t port, const unsigned char *page)
{
	uint32_t total = 0;

	while (f->s.mux.connections[0].received - f->s.mux.connections[0].forwarded == 0) {
		assert_true(total < 64u << 20);
		send_data(f, GUEST_PORT, port, page, 4000);
		total += 4000;
		while (hear(f))
			assert_int_equal(f->h.op, VSOCK_CREDIT_UPDATE);
	}
}

/* A program of the host that does not read holds up its own connection; what is kept is bounded. */
static void credit_of_the_host(void **state)
{
	unsigned char page[4000], got[4000];
	struct fixture f;
	uint32_t port, kept, other;
	int fd, second;

	(void)state;
	memset(page, 0x5c, sizeof(page));
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	fill_socket(&f, port, page);
	kept = f.s.mux.connections[0].received - f.s.mux.connections[0].forwarded;
	while (kept + 4000 <= VSOCK_BUFFER_BYTES) {
		send_data(&f, GUEST_PORT, port, page, 4000);
		kept += 4000;
	}
	expect_nothing(&f);
	/* Asked for, the room is told: what was forwarded. */
	say(&f, VSOCK_CREDIT_REQUEST, GUEST_PORT, port, 0);
	expect(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port);
	assert_int_equal(f.h.fwd_cnt, f.s.mux.connections[0].forwarded);
	second = open_from_host(&f, &other);
	send_data(&f, GUEST_PORT, other, "free", 4);
	expect_text(second, "free");
	/* It reads: every byte is there, and the guest hears of the room. */
	for (uint64_t left = f.s.mux.connections[0].received; left > 0;) {
		ssize_t n = recv(fd, got, sizeof(got), MSG_DONTWAIT);

		if (n < 0) {
			work(&f);
			continue;
		}
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(got[i], 0x5c);
		left -= (uint64_t)n;
	}
	expect(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port);
	assert_int_equal(f.h.fwd_cnt, f.s.mux.connections[0].received);
	/* More than there is room for is a lie. */
	fill_socket(&f, port, page);
	for (unsigned i = 0; i < VSOCK_BUFFER_BYTES / 4000 + 1; i++)
		send_data(&f, GUEST_PORT, port, page, 4000);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	close(fd);
	close(second);
	fini(&f);
}

static void many(void **state)
{
	int fds[VSOCK_CONNECTIONS_MAX + 8];
	uint32_t port;
	struct fixture f;
	unsigned i;

	(void)state;
	init(&f, BUFFERS);
	for (i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		fds[i] = open_from_host(&f, &port);
	for (unsigned k = 0; k < VSOCK_CONNECTIONS_MAX; k++)
		put_text(fds[k], "all");
	for (unsigned k = 0; k < VSOCK_CONNECTIONS_MAX; k++) {
		assert_true(hear(&f));
		assert_int_equal(f.h.op, VSOCK_RW);
		assert_int_equal(f.h.src_port, 0x40000000 + k);
	}
	expect_nothing(&f);
	/* No more of them: a guest's is refused, a program's waits until one has gone. */
	say(&f, VSOCK_REQUEST, 9, 9, 0);
	expect(&f, VSOCK_RST, 9, 9);
	for (; i < ARRAY_LEN(fds); i++) {
		fds[i] = connect_to(f.path);
		put_text(fds[i], "CONNECT 1024\n");
	}
	expect_nothing(&f);
	say(&f, VSOCK_RST, GUEST_PORT, 0x40000000, 0);
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000 + VSOCK_CONNECTIONS_MAX);
	expect_nothing(&f);
	expect_end(fds[0]);
	for (i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	fini(&f);
}

/* Headers of anybody's making: an answer at most, and no access anywhere. */
static void hostile(void **state)
{
	struct fixture f;
	struct vsock_header h;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	for (unsigned op = 0; op < 12; op++) {
		h = header(&f, op, 77, 78); /* of no connection */
		send_raw(&f, &h, NULL, 0);
		if (op != VSOCK_RST)
			expect(&f, VSOCK_RST, 77, 78);
		expect_nothing(&f);
		h = header(&f, op, GUEST_PORT, port); /* in another's name */
		h.src_cid = op % 2 ? CID : CID + 1;
		h.dst_cid = op % 2 ? 1 : VSOCK_HOST_CID;
		send_raw(&f, &h, NULL, 0);
		expect_nothing(&f);
	}
	h = header(&f, VSOCK_RW, GUEST_PORT, port);
	h.len = 0xffffffff; /* more than there is: no packet */
	send_raw(&f, &h, "x", 1);
	h.len = 2;
	send_raw(&f, &h, "x", 1);
	expect_nothing(&f);
	assert_true(recv(fd, f.data, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	h.len = 1; /* and less is cut off */
	send_raw(&f, &h, "xyz", 3);
	expect_text(fd, "x");
	h = header(&f, VSOCK_RW, GUEST_PORT, port);
	h.type = 2; /* no stream */
	send_raw(&f, &h, NULL, 0);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	/* A second answer, a second request: that is no connection. */
	say(&f, VSOCK_RESPONSE, GUEST_PORT, port, 0);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	close(fd);
	fd = open_from_host(&f, &port);
	say(&f, VSOCK_REQUEST, GUEST_PORT, port, 0);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	expect_end(fd);
	close(fd);
	/* Half a header is a ring that broke the rules. */
	vx_desc_at(&f.x, f.q[TX].desc, 0, TX_DATA, 43, 0, 0);
	offer_at(&f, TX, 0);
	notify(&f, TX);
	work(&f);
	assert_int_equal(vx_reg(&f.x, 0x070), 0x4f);
	bring_up(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	close(fd);
	fini(&f);
}

/* A guest that never takes its packets: nothing is read for it, nothing grows, nobody spins. */
static void guest_takes_nothing(void **state)
{
	static const char text[1024];
	struct fixture f;
	int fd;

	(void)state;
	init(&f, 0);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	work(&f);
	for (unsigned i = 0; i < 3 * VSOCK_RESETS_MAX; i++) {
		struct vsock_header h = header(&f, VSOCK_RW, 1000 + i, 2);

		send_raw(&f, &h, NULL, 0);
	}
	assert_int_equal(f.s.mux.resets_count, VSOCK_RESETS_MAX);
	assert_false(virtio_mmio_work(&f.s.mmio));
	/* Its connection: with what it was sent, and more, in the socket. */
	offer_buffers(&f, 1);
	for (unsigned i = 0; i < VSOCK_RESETS_MAX; i++)
		assert_true(hear(&f) && f.h.op == VSOCK_RST);
	expect(&f, VSOCK_REQUEST, GUEST_PORT, 0x40000000);
	say(&f, VSOCK_RESPONSE, GUEST_PORT, 0x40000000, 0);
	expect_text(fd, "OK 1073741824\n");
	bring_up(&f, 0);
	expect_end(fd);
	close(fd);
	init(&f, 1);
	fd = connect_to(f.path);
	put_text(fd, "CONNECT 1024\n");
	work(&f);
	say(&f, VSOCK_RESPONSE, GUEST_PORT, 0x40000000, 0);
	while (send(fd, text, sizeof(text), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	work(&f);
	assert_false(virtio_mmio_work(&f.s.mmio));
	assert_int_equal(f.s.mux.count.to_guest, 0);
	/* Not even when the program has gone is there anything to do at once. */
	close(fd);
	virtio_vsock_look(&f.s, 0);
	assert_int_equal(f.s.mux.polled[2].fd, -1);
	assert_false(virtio_mmio_work(&f.s.mmio));
	fini(&f);
}

/* The host's program goes while the guest's data wait for it. */
static void host_goes(void **state)
{
	unsigned char page[4000] = {1};
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	fill_socket(&f, port, page);
	close(fd);
	while (hear(&f) && f.h.op == VSOCK_CREDIT_UPDATE)
		;
	assert_int_equal(f.h.op, VSOCK_SHUTDOWN);
	assert_int_equal(f.h.flags, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	/* What is on its way is lost, and no breach; then the guest is through. */
	send_data(&f, GUEST_PORT, port, page, 4000);
	assert_int_equal(f.s.mux.count.resets, 0);
	say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	while (hear(&f) && f.h.op == VSOCK_CREDIT_UPDATE)
		;
	assert_int_equal(f.h.op, VSOCK_RST);
	assert_int_equal(f.s.mux.count.open, 0);
	fini(&f);
}

/* What the guest takes until it has `total` bytes, with room as it takes them. */
static void take_all(struct fixture *f, uint32_t port, const unsigned char *sent, uint32_t total)
{
	for (uint32_t got = f->fwd_cnt; got < total;) {
		if (!hear(f))
			fail_msg("the guest has %u bytes of %u", got, total);
		if (f->h.op == VSOCK_CREDIT_UPDATE)
			continue;
		if (f->h.op == VSOCK_RW) {
			assert_memory_equal(f->data, sent + got, f->h.len);
			f->fwd_cnt = got += f->h.len;
		} else {
			assert_true(f->h.op == VSOCK_CREDIT_REQUEST ||
				    (f->h.op == VSOCK_SHUTDOWN && f->h.flags == VSOCK_NO_RECEIVE));
		}
		say(f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port, 0);
	}
}

static void expect_farewell(struct fixture *f)
{
	while (hear(f) && f->h.op == VSOCK_CREDIT_REQUEST)
		;
	assert_int_equal(f->h.op, VSOCK_SHUTDOWN);
	assert_int_equal(f->h.flags, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
}

/* The guest has room for a part, and sends before it has the rest of what a program left. */
static void host_goes_before_all_is_read(void **state)
{
	unsigned char sent[10000], page[4000] = {1};
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	for (unsigned i = 0; i < sizeof(sent); i++)
		sent[i] = (unsigned char)(i * 7);
	init(&f, BUFFERS);
	f.buf_alloc = 5000;
	fd = open_from_host(&f, &port);
	assert_true(send(fd, sent, sizeof(sent), 0) == sizeof(sent));
	close(fd);
	work(&f);
	send_data(&f, GUEST_PORT, port, "x", 1);
	send_data(&f, GUEST_PORT, port, "y", 1);
	take_all(&f, port, sent, sizeof(sent));
	expect_farewell(&f);
	assert_int_equal(f.s.mux.count.resets, 0);
	say(&f, VSOCK_RST, GUEST_PORT, port, 0);
	/* The same with the guest's data in line for it. */
	f.fwd_cnt = 0;
	fd = open_from_host(&f, &port);
	fill_socket(&f, port, page);
	assert_true(send(fd, sent, sizeof(sent), 0) == sizeof(sent));
	close(fd);
	take_all(&f, port, sent, sizeof(sent));
	expect_farewell(&f);
	fini(&f);
}

/* A program that reads no more goes on writing; the guest is told, and loses no room by that. */
static void host_stops_reading(void **state)
{
	unsigned char page[4000] = {1};
	struct fixture f;
	uint32_t port;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	fd = open_from_host(&f, &port);
	assert_int_equal(shutdown(fd, SHUT_RD), 0);
	send_data(&f, GUEST_PORT, port, "x", 1);
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	assert_int_equal(f.h.flags, VSOCK_NO_RECEIVE);
	assert_int_equal(f.h.fwd_cnt, 1);
	put_text(fd, "still");
	expect(&f, VSOCK_RW, GUEST_PORT, port);
	assert_memory_equal(f.data, "still", 5);
	/* What it sends before it knows is no breach. */
	for (unsigned i = 0; i < 2 * VSOCK_BUFFER_BYTES / sizeof(page); i++)
		send_data(&f, GUEST_PORT, port, page, sizeof(page));
	assert_int_equal(f.s.mux.count.resets, 0);
	assert_int_equal(f.s.mux.count.from_guest, 0);
	expect(&f, VSOCK_CREDIT_UPDATE, GUEST_PORT, port);
	put_text(fd, "more");
	while (hear(&f) && f.h.op == VSOCK_CREDIT_UPDATE)
		;
	assert_int_equal(f.h.op, VSOCK_RW);
	assert_int_equal(f.h.fwd_cnt, 1 + 2 * VSOCK_BUFFER_BYTES / sizeof(page) * sizeof(page));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
	assert_int_equal(f.h.flags, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
	say(&f, VSOCK_RST, GUEST_PORT, port, 0);
	close(fd);
	/* Where nothing comes the other way either, that is the end. */
	for (unsigned by_guest = 0; by_guest < 2; by_guest++) {
		fd = open_from_host(&f, &port);
		if (by_guest) {
			say(&f, VSOCK_SHUTDOWN, GUEST_PORT, port, VSOCK_NO_RECEIVE);
		} else {
			assert_int_equal(shutdown(fd, SHUT_WR), 0);
			expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
			assert_int_equal(f.h.flags, VSOCK_NO_SEND);
		}
		assert_int_equal(shutdown(fd, SHUT_RD), 0);
		send_data(&f, GUEST_PORT, port, "x", 1);
		expect(&f, VSOCK_SHUTDOWN, GUEST_PORT, port);
		assert_int_equal(f.h.flags, VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
		say(&f, VSOCK_RST, GUEST_PORT, port, 0);
		close(fd);
	}
	assert_int_equal(f.s.mux.count.open, 0);
	fini(&f);
}

/* In mid-flight, as often as one likes: no connection outlives it, the next driver has its own. */
static void resets(void **state)
{
	struct fixture f;
	uint32_t port;
	int fd, waiting;

	(void)state;
	init(&f, BUFFERS);
	for (unsigned round = 0; round < 5; round++) {
		fd = open_from_host(&f, &port);
		put_text(fd, "lost");
		waiting = connect_to(f.path);
		put_text(waiting, "CONNECT 1024\n");
		bring_up(&f, BUFFERS);
		expect_gone(fd);
		close(fd);
		/* It may have been the last one's, or this one's: it has an end or a request. */
		if (hear(&f))
			assert_int_equal(f.h.op, VSOCK_REQUEST);
		else
			expect_gone(waiting);
		close(waiting);
		while (hear(&f))
			;
		say(&f, VSOCK_RW, GUEST_PORT, port, 0);
		expect(&f, VSOCK_RST, GUEST_PORT, port);
		bring_up(&f, BUFFERS);
	}
	fini(&f);
}

/* ---- out of a snapshot ---- */

#define EVENT 2u
#define EVENT_DESC 0x7000u
#define EVENT_AVAIL 0x9000u
#define EVENT_USED 0xa000u
#define EVENT_AT 0xb000u
#define NO_EVENT 0x55555555u

/* Events that the guest has, and what it makes of its buffer. */
static uint16_t events(struct fixture *f, uint32_t *ret)
{
	work(f);
	vx_get(&f->x, EVENT_AT, ret, sizeof(*ret));
	return vx_get16(&f->x, EVENT_USED + 2);
}

static void offer_event(struct fixture *f, uint32_t bytes)
{
	static const uint32_t none = NO_EVENT;

	vx_put(&f->x, EVENT_AT, &none, sizeof(none));
	vx_desc_at(&f->x, EVENT_DESC, 0, EVENT_AT, bytes, DESC_WRITE, 0);
	vx_put16(&f->x, EVENT_AVAIL + 4, 0);
	vx_put16(&f->x, EVENT_AVAIL + 2, 1);
	notify(f, EVENT);
}

/* As a snapshot does it: another device takes the place of this one, in the same memory. */
static void restore(struct fixture *f, uint32_t cid)
{
	struct virtio_mmio_saved mmio;
	struct vsock_saved saved;

	virtio_mmio_hold(&f->s.mmio);
	virtio_mmio_save(&f->s.mmio, &mmio);
	virtio_vsock_save(&f->s, &saved);
	virtio_mmio_release(&f->s.mmio);
	virtio_vsock_close(&f->s);
	bus_init(&f->x.bus);
	open_device(f, cid);
	virtio_vsock_restore(&f->s, &saved);
	assert_int_equal(virtio_mmio_restore(&f->s.mmio, &mmio), 0);
	virtio_vsock_restored(&f->s, &saved);
}

/* The driver is told, once, when it has a buffer for that; old connections meet a reset. */
static void restored(void **state)
{
	uint32_t port, next, event;
	struct fixture f;
	int fd;

	(void)state;
	init(&f, BUFFERS);
	vx_queue(&f.x, EVENT, SIZE, EVENT_DESC, EVENT_AVAIL, EVENT_USED);
	fd = open_from_host(&f, &port);
	restore(&f, CID);
	expect_gone(fd);
	close(fd);
	assert_int_equal(events(&f, &event), 0);
	offer_event(&f, sizeof(event));
	assert_int_equal(events(&f, &event), 1);
	assert_int_equal(event, 0);
	say(&f, VSOCK_RW, GUEST_PORT, port, 0);
	expect(&f, VSOCK_RST, GUEST_PORT, port);
	/* A port that the guest cannot take for that of an old one. */
	fd = open_from_host(&f, &next);
	assert_int_equal(next, port + 1);
	put_text(fd, "new");
	expect(&f, VSOCK_RW, GUEST_PORT, next);
	assert_int_equal(f.s.mux.count.resets, 0);
	assert_int_equal(vx_get16(&f.x, EVENT_USED + 2), 1);
	close(fd);
	fini(&f);
}

/* It reads its address anew: it may be another one. */
static void restored_elsewhere(void **state)
{
	uint32_t event, generation;
	struct fixture f;

	(void)state;
	init(&f, BUFFERS);
	vx_queue(&f.x, EVENT, SIZE, EVENT_DESC, EVENT_AVAIL, EVENT_USED);
	generation = vx_reg(&f.x, 0x0fc);
	offer_event(&f, sizeof(event));
	assert_int_equal(events(&f, &event), 0);
	restore(&f, CID + 1);
	assert_int_equal(events(&f, &event), 1);
	assert_int_equal(event, 0);
	assert_int_equal(vx_reg(&f.x, 0x100), CID + 1);
	assert_int_not_equal(vx_reg(&f.x, 0x0fc), generation);
	fini(&f);
}

/* A driver that begins anew has nothing to be told; and none may have too small a buffer. */
static void restored_and_reset(void **state)
{
	struct fixture f;
	uint32_t event;

	(void)state;
	init(&f, BUFFERS);
	restore(&f, CID);
	bring_up(&f, BUFFERS);
	vx_queue(&f.x, EVENT, SIZE, EVENT_DESC, EVENT_AVAIL, EVENT_USED);
	offer_event(&f, sizeof(event));
	assert_int_equal(events(&f, &event), 0);
	assert_int_equal(event, NO_EVENT);
	restore(&f, CID);
	assert_int_equal(events(&f, &event), 1);
	bring_up(&f, BUFFERS);
	vx_queue(&f.x, EVENT, SIZE, EVENT_DESC, EVENT_AVAIL, EVENT_USED);
	vx_put16(&f.x, EVENT_USED + 2, 0);
	offer_event(&f, sizeof(event) - 1);
	restore(&f, CID);
	assert_int_equal(events(&f, &event), 0);
	assert_true(vx_reg(&f.x, 0x070) & VIRTIO_NEEDS_RESET);
	fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_host),
		cmocka_unit_test(from_guest),
		cmocka_unit_test(half_closed),
		cmocka_unit_test(bad_greetings),
		cmocka_unit_test(credit_of_the_guest),
		cmocka_unit_test(credit_of_the_host),
		cmocka_unit_test(many),
		cmocka_unit_test(hostile),
		cmocka_unit_test(guest_takes_nothing),
		cmocka_unit_test(host_goes),
		cmocka_unit_test(host_goes_before_all_is_read),
		cmocka_unit_test(host_stops_reading),
		cmocka_unit_test(resets),
		cmocka_unit_test(restored),
		cmocka_unit_test(restored_elsewhere),
		cmocka_unit_test(restored_and_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
