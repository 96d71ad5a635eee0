/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/net_user.c behind a network device with its worker: the test is the guest, by rings
 * in memory, and the world outside, by sockets. Without libslirp0 it is skipped.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtio_net_fixture.h"
#include "vmm/virtio/net_user.h"

#define SKIPPED 77
#define GUEST_IP 0x0a00020fu /* 10.0.2.15 */
#define ETHER 14u
#define IP 20u
#define UDP 8u
#define SIZE 256u
#define FLOOD 40000u
/* 136 MiB if all of it is kept; a sanitizer keeps half as much of what was freed. */
#define FLOOD_KIB 98304u

static const unsigned char guest_mac[6] = {2, 0, 0, 0, 0, 7};

struct fixture {
	struct nx n;
	struct net_user *user;
	unsigned char frame[NET_FRAME_MAX];
	uint32_t len; /* of the frame, without header */
};

static void put16(unsigned char *to, unsigned v)
{
	to[0] = (unsigned char)(v >> 8);
	to[1] = (unsigned char)v;
}

static void put32(unsigned char *to, uint32_t v)
{
	put16(to, v >> 16);
	put16(to + 2, v & 0xffff);
}

static unsigned get16(const unsigned char *from)
{
	return (unsigned)from[0] << 8 | from[1];
}

static uint32_t get32(const unsigned char *from)
{
	return (uint32_t)get16(from) << 16 | get16(from + 2);
}

static struct fixture *init(const struct net_user_cfg *cfg, uint64_t features)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct net_backend b;
	struct net_user *user;
	struct err e = {0};

	assert_non_null(f);
	assert_int_equal(net_user_open(cfg, &user, &b, &e), 0);
	nx_open(&f->n, &b, 0);
	f->user = user;
	f->n.buffer_bytes = 2048;
	assert_int_equal(virtio_mmio_start(&f->n.n.mmio, NULL, NULL, &e), 0);
	nx_up(&f->n, features | NX_MRG | VIRTIO_F_EVENT_IDX, 64);
	for (uint16_t i = 0; i < 64; i++)
		nx_post(&f->n, i);
	return f;
}

static void fini(struct fixture *f)
{
	nx_close(&f->n);
	net_user_close(f->user);
	free(f);
}

/* The next frame for the guest; waits for it. */
static void next(struct fixture *f)
{
	while (!(f->len = nx_receive(&f->n, f->frame, true)))
		sched_yield();
	f->len -= NET_HEADER_BYTES;
	memmove(f->frame, f->frame + NET_HEADER_BYTES, f->len);
}

static void room_to_send(struct fixture *f)
{
	uint32_t len;

	while ((uint16_t)(f->n.tx.avail - f->n.tx.used) >= f->n.tx.size)
		if (nx_take(&f->n, &f->n.tx, &len) == NX_NONE)
			sched_yield();
}

static unsigned sum_of(const unsigned char *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += get16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static void send_udp(struct fixture *f, uint32_t from, uint32_t to, unsigned from_port,
		     unsigned to_port, const void *data, size_t len)
{
	unsigned char frame[ETHER + IP + UDP + 1472] = {0x52, 0x55, 10, 0, 2, 2};
	unsigned char *ip = frame + ETHER, *udp = ip + IP;

	assert_true(len <= 1472);
	if (to == 0xffffffff)
		memset(frame, 0xff, 6);
	memcpy(frame + 6, guest_mac, 6);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(IP + UDP + len));
	ip[8] = 64;
	ip[9] = IPPROTO_UDP;
	put32(ip + 12, from);
	put32(ip + 16, to);
	put16(ip + 10, sum_of(ip, IP));
	put16(udp, from_port);
	put16(udp + 2, to_port);
	put16(udp + 4, (unsigned)(UDP + len)); /* no checksum: it need not have one */
	memcpy(udp + UDP, data, len);
	room_to_send(f);
	nx_send(&f->n, frame, (uint32_t)(ETHER + IP + UDP + len));
}

/* Answers who has 10.0.2.15. */
static void answer_arp(struct fixture *f)
{
	unsigned char a[42];

	memcpy(a, f->frame + 6, 6);
	memcpy(a + 6, guest_mac, 6);
	memcpy(a + 12, f->frame + 12, 8);
	put16(a + 20, 2);
	memcpy(a + 22, guest_mac, 6);
	put32(a + 28, GUEST_IP);
	memcpy(a + 32, f->frame + 22, 10);
	room_to_send(f);
	nx_send(&f->n, a, sizeof(a));
}

/* The next datagram for the guest's port; its data, in place. */
static const unsigned char *next_udp(struct fixture *f, unsigned port, size_t *ret_len)
{
	for (;;) {
		const unsigned char *ip = f->frame + ETHER, *udp = ip + IP;

		next(f);
		if (get16(f->frame + 12) == 0x0806 && get32(f->frame + 38) == GUEST_IP)
			answer_arp(f);
		if (get16(f->frame + 12) != 0x0800 || ip[9] != IPPROTO_UDP ||
		    get16(udp + 2) != port)
			continue;
		*ret_len = get16(udp + 4) - UDP;
		assert_true(*ret_len <= f->len - ETHER - IP - UDP);
		return udp + UDP;
	}
}

static int udp_socket(uint16_t *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

/* A port that nobody has, a moment ago. */
static uint16_t free_port(int type)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	return ntohs(a.sin_port);
}

/* ---- tests ---- */

static void dhcp(void **state)
{
	/* Discover, of 10.0.2.15's owner to be: BOOTP, its magic, option 53. */
	unsigned char ask[300] = {1, 1, 6, 0, 1, 2, 3, 4};
	const struct net_user_cfg cfg = {.index = 0};
	struct fixture *f = init(&cfg, 0);
	const unsigned char *said;
	size_t len;

	(void)state;
	memcpy(ask + 28, guest_mac, 6);
	memcpy(ask + 236, (unsigned char[]){99, 130, 83, 99, 53, 1, 1, 255}, 8);
	send_udp(f, 0, 0xffffffff, 68, 67, ask, sizeof(ask));
	said = next_udp(f, 68, &len);
	assert_true(len >= 240);
	assert_int_equal(said[0], 2);
	assert_int_equal(get32(said + 16), GUEST_IP);
	fini(f);
}

/* Another network for each device. */
static void second_network(void **state)
{
	unsigned char ask[300] = {1, 1, 6, 0, 1, 2, 3, 4};
	const struct net_user_cfg cfg = {.index = 1};
	struct fixture *f = init(&cfg, 0);
	size_t len;

	(void)state;
	memcpy(ask + 28, guest_mac, 6);
	memcpy(ask + 236, (unsigned char[]){99, 130, 83, 99, 53, 1, 1, 255}, 8);
	send_udp(f, 0, 0xffffffff, 68, 67, ask, sizeof(ask));
	assert_int_equal(get32(next_udp(f, 68, &len) + 16), 0x0a00030f);
	fini(f);
}

static void echo(struct fixture *f, int fd, uint16_t host_port)
{
	unsigned char data[1400], back[1500];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	const unsigned char *said;
	size_t size;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 13);
	send_udp(f, GUEST_IP, 0x0a000202, 4000, host_port, data, sizeof(data));
	assert_int_equal(recvfrom(fd, back, sizeof(back), 0, (struct sockaddr *)&from, &len),
			 sizeof(data));
	assert_memory_equal(back, data, sizeof(data));
	data[0] ^= 0xff;
	assert_int_equal(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&from, len),
			 sizeof(data));
	said = next_udp(f, 4000, &size);
	assert_int_equal(size, sizeof(data));
	assert_memory_equal(said, data, sizeof(data));
}

/* Out, and the answer back. */
static void to_the_host(void **state)
{
	const struct net_user_cfg cfg = {.host = true};
	struct fixture *f = init(&cfg, 0);
	uint16_t port;
	int fd = udp_socket(&port);

	(void)state;
	echo(f, fd, port);
	assert_true(nx_stats(&f->n).read_bytes >= 1400);
	close(fd);
	fini(f);
}

/* What was sent before the answer that comes has not arrived: `host` was not given. */
static void not_to_the_host(void **state)
{
	static const bool restricted[] = {false, true};
	unsigned char ask[300] = {1, 1, 6, 0, 1, 2, 3, 4};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(restricted); i++) {
		const struct net_user_cfg cfg = {.restricted = restricted[i]};
		struct fixture *f = init(&cfg, 0);
		struct pollfd p = {.events = POLLIN};
		uint16_t port;
		size_t len;

		p.fd = udp_socket(&port);
		send_udp(f, GUEST_IP, 0x0a000202, 4000, port, "x", 1);
		memcpy(ask + 28, guest_mac, 6);
		memcpy(ask + 236, (unsigned char[]){99, 130, 83, 99, 53, 1, 1, 255}, 8);
		send_udp(f, 0, 0xffffffff, 68, 67, ask, sizeof(ask));
		(void)next_udp(f, 68, &len);
		assert_int_equal(poll(&p, 1, 0), 0);
		close(p.fd);
		fini(f);
	}
}

/* From outside, to a forwarded port, and the answer. */
static void forwarded(void **state)
{
	const struct net_forward fwd = {
		.udp = true, .host_addr = INADDR_LOOPBACK, .host_port = free_port(SOCK_DGRAM),
		.guest_port = 7};
	const struct net_user_cfg cfg = {.host = true, .forwards = &fwd, .forwards_count = 1};
	struct fixture *f = init(&cfg, NET_F_GUEST_CSUM);
	const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(fwd.host_port),
				       .sin_addr = {htonl(INADDR_LOOPBACK)}};
	const unsigned char *said;
	uint16_t port;
	int fd = udp_socket(&port);
	unsigned char back[16];
	size_t len;

	(void)state;
	assert_int_equal(sendto(fd, "hello", 5, 0, (const struct sockaddr *)&to, sizeof(to)), 5);
	said = next_udp(f, 7, &len);
	assert_int_equal(len, 5);
	assert_memory_equal(said, "hello", 5);
	send_udp(f, GUEST_IP, get32(f->frame + ETHER + 12), 7, get16(f->frame + ETHER + IP),
		 "there", 5);
	assert_int_equal(recv(fd, back, sizeof(back), 0), 5);
	assert_memory_equal(back, "there", 5);
	close(fd);
	fini(f);
}

/* A restored guest may take longer to answer than libslirp keeps what is for it. */
static void a_restored_guest_is_not_asked_who_it_is(void **state)
{
	const struct net_forward fwd = {
		.udp = true, .host_addr = INADDR_LOOPBACK, .host_port = free_port(SOCK_DGRAM),
		.guest_port = 7};
	const struct net_user_cfg cfg = {
		.index = 1, .forwards = &fwd, .forwards_count = 1, .guest_mac = guest_mac};
	struct fixture *f = init(&cfg, 0);
	const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(fwd.host_port),
				       .sin_addr = {htonl(INADDR_LOOPBACK)}};
	uint16_t port;
	int fd = udp_socket(&port);

	(void)state;
	assert_int_equal(sendto(fd, "hello", 5, 0, (const struct sockaddr *)&to, sizeof(to)), 5);
	next(f);
	assert_memory_equal(f->frame, guest_mac, sizeof(guest_mac));
	assert_int_equal(get16(f->frame + 12), 0x0800);
	assert_int_equal(get32(f->frame + ETHER + 16), GUEST_IP + 0x100);
	assert_memory_equal(f->frame + ETHER + IP + UDP, "hello", 5);
	close(fd);
	fini(f);
}

/* Said before any guest runs, with what to do. */
static void port_is_taken(void **state)
{
	uint16_t port;
	int fd = udp_socket(&port);
	const struct net_forward fwd = {
		.udp = true, .host_addr = INADDR_LOOPBACK, .host_port = port, .guest_port = 7};
	const struct net_user_cfg cfg = {.forwards = &fwd, .forwards_count = 1};
	struct net_backend b;
	struct net_user *user = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(net_user_open(&cfg, &user, &b, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, "it is taken"));
	assert_null(user);
	close(fd);
	net_user_close(NULL);
}

/*
 * A flood for a guest that takes nothing: what is kept is bounded, the rest waits in the host's
 * kernel or is lost; and once it takes its frames again, it gets what comes then.
 */
static void flood_to_the_guest(void **state)
{
	const struct net_user_cfg cfg = {.host = true};
	struct fixture *f = init(&cfg, 0);
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	unsigned char data[1400] = {0};
	uint16_t port;
	int fd = udp_socket(&port);
	unsigned last = 0;
	uint64_t before;
	size_t size;

	(void)state;
	send_udp(f, GUEST_IP, 0x0a000202, 4000, port, "x", 1);
	assert_int_equal(recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &len), 1);
	/* The first one asks for the guest's hardware address. */
	assert_int_equal(sendto(fd, data, 4, 0, (struct sockaddr *)&from, len), 4);
	(void)next_udp(f, 4000, &size);
	before = nx_stats(&f->n).requests;
	for (unsigned i = 1; i <= 3000; i++) {
		put32(data, i);
		(void)sendto(fd, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from, len);
	}
	/* The driver takes 64 frames, and no more until now. */
	while (nx_stats(&f->n).requests < before + 64)
		sched_yield();
	while (last < 3000) {
		unsigned n = get32(next_udp(f, 4000, &size));

		assert_true(n > last); /* in order, none twice */
		last = n;
		/* Those at the end may be lost: another one. */
		put32(data, 3000);
		(void)sendto(fd, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from, len);
	}
	close(fd);
	fini(f);
}

/* A guest that begins more streams than there may be: the others go on. */
static void flood_of_sockets(void **state)
{
	const struct net_user_cfg cfg = {.host = true};
	struct fixture *f = init(&cfg, 0);
	uint16_t port;
	int fd = udp_socket(&port);
	unsigned char byte;

	(void)state;
	send_udp(f, GUEST_IP, 0x0a000202, 3999, port, "a", 1);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	for (unsigned i = 0; i < 2 * NET_USER_SOCKETS_MAX; i++)
		send_udp(f, GUEST_IP, 0x0a000202, 10000 + i, port, "b", 1);
	/* The first one's is one of them. */
	while (nx_stats(&f->n).dropped < NET_USER_SOCKETS_MAX + 1)
		sched_yield();
	assert_int_equal(nx_stats(&f->n).dropped, NET_USER_SOCKETS_MAX + 1);
	close(fd);
	fini(f);
}

/* What this process has of memory, in KiB. */
static unsigned long rss_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long size, pages;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &size, &pages), 2);
	fclose(file);
	return pages * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

/* Part of a datagram whose rest never comes. */
static void send_fragment(struct fixture *f, unsigned id)
{
	unsigned char frame[ETHER + IP + UDP + 1400] = {0x52, 0x55, 10, 0, 2, 2};
	unsigned char *ip = frame + ETHER;

	memcpy(frame + 6, guest_mac, 6);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, sizeof(frame) - ETHER);
	put16(ip + 4, id);
	put16(ip + 6, 0x2000); /* more of it follow */
	ip[8] = 64;
	ip[9] = IPPROTO_UDP;
	put32(ip + 12, GUEST_IP);
	put32(ip + 16, 0x0a000202);
	put16(ip + 10, sum_of(ip, IP));
	room_to_send(f);
	nx_send(&f->n, frame, sizeof(frame));
}

/*
 * A guest that sends what libslirp keeps until more of it comes, and takes nothing of what comes
 * for it meanwhile: it does not even say where it is. Afterwards it may behave.
 */
static void flood_both_ways(void **state)
{
	uint16_t port = free_port(SOCK_DGRAM);
	const struct net_forward forward = {
		.udp = true, .host_addr = INADDR_LOOPBACK, .host_port = port, .guest_port = 7};
	const struct net_user_cfg cfg = {.host = true, .forwards = &forward, .forwards_count = 1};
	struct fixture *f = init(&cfg, 0);
	const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port),
				       .sin_addr = {htonl(INADDR_LOOPBACK)}};
	unsigned char data[1400] = {0};
	uint16_t echo_port, from_port;
	int out = udp_socket(&from_port), fd;
	unsigned long before = rss_kib();

	(void)state;
	for (unsigned i = 0; i < FLOOD; i++) {
		send_fragment(f, i);
		(void)sendto(out, data, sizeof(data), MSG_DONTWAIT, (const struct sockaddr *)&to,
			     sizeof(to));
	}
	while (nx_stats(&f->n).requests + nx_stats(&f->n).dropped < FLOOD)
		sched_yield();
	assert_true(rss_kib() < before + FLOOD_KIB);
	fd = udp_socket(&echo_port);
	echo(f, fd, echo_port);
	close(fd);
	close(out);
	fini(f);
}

/* Segments and checksums left to us were not offered; nor are frames longer than any. */
static void refused_frames(void **state)
{
	const struct net_user_cfg cfg = {.host = true};
	struct fixture *f = init(&cfg, 0);
	static const unsigned char flags[NET_HEADER_BYTES] = {1}, gso[NET_HEADER_BYTES] = {0, 1};
	unsigned char frame[64] = {0};

	(void)state;
	nx_send_with(&f->n, flags, frame, sizeof(frame));
	nx_send_with(&f->n, gso, frame, sizeof(frame));
	while (nx_stats(&f->n).dropped < 2)
		sched_yield();
	/* Rubbish is taken, and nothing comes of it. */
	for (unsigned i = 0; i < 40; i++) {
		memset(frame, (int)i * 7, sizeof(frame));
		put16(frame + 12, i & 1 ? 0x0800 : 0x0806);
		room_to_send(f);
		nx_send(&f->n, frame, 14 + i);
	}
	while (nx_stats(&f->n).requests < 40)
		sched_yield();
	assert_int_equal(vx_reg(&f->n.x, 0x070), 15);
	fini(f);
}

/* In the middle of a flood, and again and again. */
static void reset_in_flight(void **state)
{
	const struct net_user_cfg cfg = {.host = true};
	struct fixture *f = init(&cfg, 0);
	uint16_t port;
	int fd = udp_socket(&port);

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 30; i++)
			send_udp(f, GUEST_IP, 0x0a000202, 4000, port, "flood", 5);
		nx_up(&f->n, NX_MRG, 64);
		for (uint16_t i = 0; i < 64; i++)
			nx_post(&f->n, i);
	}
	close(fd);
	fd = udp_socket(&port);
	echo(f, fd, port);
	close(fd);
	fini(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dhcp),
		cmocka_unit_test(second_network),
		cmocka_unit_test(to_the_host),
		cmocka_unit_test(not_to_the_host),
		cmocka_unit_test(forwarded),
		cmocka_unit_test(a_restored_guest_is_not_asked_who_it_is),
		cmocka_unit_test(port_is_taken),
		cmocka_unit_test(flood_to_the_guest),
		cmocka_unit_test(flood_of_sockets),
		cmocka_unit_test(flood_both_ways),
		cmocka_unit_test(refused_frames),
		cmocka_unit_test(reset_in_flight),
	};
	const struct net_user_cfg cfg = {.index = 0};
	struct net_user *user;
	struct net_backend b;
	struct err e = {0};

	if (net_user_open(&cfg, &user, &b, &e) == -ENOENT) {
		print_message("SKIP: %s\n", e.text);
		return SKIPPED;
	}
	net_user_close(user);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
