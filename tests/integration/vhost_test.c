/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's vhost (vsock) with adopted memory: it gets the addresses of the VMM's view, and its
 * worker reads and writes rings and buffers there by itself. Here the test is the guest's driver,
 * by apf_read and apf_write, which show nothing in that view: what the worker touches is absent, in
 * the source or in the swap file, and it waits for it. A socket of this machine is the other end.
 */
#include "own_fixture.h"

#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define CID 77u
#define PORT 1000u
#define HOST_CID 2u
#define QUEUE 16u /* entries */
#define LIMIT_MS 120000 /* a hang fails the test, whatever the machine's speed */
#define CREDIT (64u << 10)

/* Pages of guest memory: a ring each, the buffers of RX, headers of TX; the rest is to be sent. */
enum { RX, TX, QUEUES };
#define RING_PAGE(q) (1 + 4 * (q))
#define RX_PAGE 16u
#define TX_HEADERS 48u
#define SENT_PAGE 64u
#define SENT_PAGES 512u

struct ring {
	int kick, call;
	uint64_t desc, avail, used; /* guest addresses, a page each */
	uint16_t avail_idx, used_idx;
};

struct guest {
	struct own o;
	int vhost;
	struct ring q[QUEUES];
	struct virtio_vsock_hdr peer; /* of what came last: who the other end is */
	uint32_t taken; /* bytes of data, in all */
};

static uint64_t gpa_of(uint64_t page)
{
	return GPA + page * PAGE_BYTES;
}

static void put(struct guest *g, uint64_t gpa, const void *from, size_t len)
{
	assert_int_equal(apf_write(g->o.a, gpa, from, len), 0);
}

static void get(struct guest *g, uint64_t gpa, void *to, size_t len)
{
	assert_int_equal(apf_read(g->o.a, gpa, to, len), 0);
}

/* ---- the driver ---- */

static void add(struct guest *g, unsigned queue, uint16_t id, const struct vring_desc *desc,
		unsigned count)
{
	struct ring *q = &g->q[queue];
	uint64_t one = 1;

	put(g, q->desc + id * sizeof(*desc), desc, count * sizeof(*desc));
	put(g, q->avail + 4 + q->avail_idx % QUEUE * 2ull, &id, sizeof(id));
	q->avail_idx++;
	put(g, q->avail + 2, &q->avail_idx, sizeof(q->avail_idx));
	assert_int_equal(write(q->kick, &one, sizeof(one)), sizeof(one));
}

/* Until the device has used one. */
static struct vring_used_elem next_used(struct guest *g, unsigned queue)
{
	struct ring *q = &g->q[queue];
	struct pollfd p = {.fd = q->call, .events = POLLIN};
	struct vring_used_elem e;
	uint64_t count;
	uint16_t idx;

	for (;;) {
		get(g, q->used + 2, &idx, sizeof(idx));
		if (idx != q->used_idx)
			break;
		if (poll(&p, 1, LIMIT_MS) != 1)
			fail_msg("queue %u stands still: %u offered, %u used, peer's credit %u - "
				 "(sent - %u)", queue, q->avail_idx, q->used_idx,
				 g->peer.buf_alloc, g->peer.fwd_cnt);
		assert_int_equal(read(q->call, &count, sizeof(count)), sizeof(count));
	}
	get(g, q->used + 4 + q->used_idx % QUEUE * sizeof(e), &e, sizeof(e));
	q->used_idx++;
	return e;
}

static void offer(struct guest *g, uint16_t id)
{
	/* Across the end of a page. */
	const struct vring_desc d = {.addr = gpa_of(RX_PAGE + 2 * id) + 512, .len = PAGE_BYTES,
				     .flags = VRING_DESC_F_WRITE};

	add(g, RX, id, &d, 1);
}

/* One packet from the guest; its data, if any, is guest memory. */
static void send_packet(struct guest *g, uint16_t op, uint64_t data, uint32_t len)
{
	const struct virtio_vsock_hdr h = {
		.src_cid = CID,
		.dst_cid = HOST_CID,
		.src_port = PORT,
		.dst_port = g->peer.src_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = CREDIT,
		.fwd_cnt = g->taken,
	};
	const struct vring_desc d[2] = {
		{.addr = gpa_of(TX_HEADERS), .len = sizeof(h),
		 .flags = len ? VRING_DESC_F_NEXT : 0, .next = 1},
		{.addr = data, .len = len},
	};

	put(g, gpa_of(TX_HEADERS), &h, sizeof(h));
	add(g, TX, 0, d, len ? 2 : 1);
	assert_int_equal(next_used(g, TX).id, 0);
}

/*
 * One packet for the guest. Returns its operation; *ret_data: where in guest memory its data is.
 * An end of an earlier connection that nobody answered is reset 8 s later, to whoever has the CID.
 */
static uint16_t take_packet(struct guest *g, uint16_t *ret_id, uint64_t *ret_data)
{
	struct virtio_vsock_hdr h;

	for (;;) {
		struct vring_used_elem e = next_used(g, RX);
		uint64_t at = gpa_of(RX_PAGE + 2 * e.id) + 512;

		get(g, at, &h, sizeof(h));
		assert_int_equal(e.len, sizeof(h) + h.len);
		*ret_id = (uint16_t)e.id;
		*ret_data = at + sizeof(h);
		if (h.op == VIRTIO_VSOCK_OP_REQUEST || h.src_port == g->peer.src_port)
			break;
		offer(g, *ret_id);
	}
	g->peer = h;
	return h.op;
}

/* Until a packet that means something to this test; buffers go back. */
static void until(struct guest *g, uint16_t op)
{
	uint16_t id, got;
	uint64_t data;

	do {
		got = take_packet(g, &id, &data);
		offer(g, id);
	} while (got != op);
}

/* ---- set-up ---- */

#define MUST(call) must((call) >= 0, #call)

static void must(bool right, const char *what)
{
	if (!right)
		fail_msg("%s: %s", what, strerror(errno));
}

static void set_up_ring(struct guest *g, unsigned queue)
{
	struct ring *q = &g->q[queue];
	char *at = (char *)page_of(&g->o, RING_PAGE(queue));
	struct vhost_vring_state state = {.index = queue, .num = QUEUE};
	struct vhost_vring_addr addr = {
		.index = queue,
		.desc_user_addr = (uintptr_t)at,
		.avail_user_addr = (uintptr_t)at + PAGE_BYTES,
		.used_user_addr = (uintptr_t)at + 2 * PAGE_BYTES,
	};
	struct vhost_vring_file file = {.index = queue};
	static const unsigned char zeroes[3 * PAGE_BYTES];

	*q = (struct ring){
		.kick = eventfd(0, EFD_CLOEXEC),
		.call = eventfd(0, EFD_CLOEXEC),
		.desc = gpa_of(RING_PAGE(queue)),
		.avail = gpa_of(RING_PAGE(queue) + 1),
		.used = gpa_of(RING_PAGE(queue) + 2),
	};
	put(g, q->desc, zeroes, sizeof(zeroes));
	MUST(ioctl(g->vhost, VHOST_SET_VRING_NUM, &state));
	state.num = 0;
	MUST(ioctl(g->vhost, VHOST_SET_VRING_BASE, &state));
	MUST(ioctl(g->vhost, VHOST_SET_VRING_ADDR, &addr));
	file.fd = q->kick;
	MUST(ioctl(g->vhost, VHOST_SET_VRING_KICK, &file));
	file.fd = q->call;
	MUST(ioctl(g->vhost, VHOST_SET_VRING_CALL, &file));
}

static void open_guest(struct guest *g)
{
	union {
		struct vhost_memory table;
		char bytes[sizeof(struct vhost_memory) + sizeof(struct vhost_memory_region)];
	} m = {.table = {.nregions = 1}};
	uint64_t features = 1ull << VIRTIO_F_VERSION_1, cid = CID;
	int on = 1;

	*g = (struct guest){.vhost = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC)};
	must(g->vhost >= 0, "/dev/vhost-vsock");
	open_own(&g->o, image_uri(), true);
	m.table.regions[0] = (struct vhost_memory_region){
		.guest_phys_addr = GPA, .memory_size = RAM,
		.userspace_addr = (uintptr_t)g->o.m.vmm};
	MUST(ioctl(g->vhost, VHOST_SET_OWNER, NULL));
	MUST(ioctl(g->vhost, VHOST_SET_FEATURES, &features));
	MUST(ioctl(g->vhost, VHOST_SET_MEM_TABLE, &m));
	MUST(ioctl(g->vhost, VHOST_VSOCK_SET_GUEST_CID, &cid));
	for (unsigned q = 0; q < QUEUES; q++)
		set_up_ring(g, q);
	MUST(ioctl(g->vhost, VHOST_VSOCK_SET_RUNNING, &on));
	for (uint16_t id = 0; id < QUEUE; id++)
		offer(g, id);
}

static void close_guest(struct guest *g)
{
	close(g->vhost);
	for (unsigned q = 0; q < QUEUES; q++) {
		close(g->q[q].kick);
		close(g->q[q].call);
	}
	close_own(&g->o);
}

/* ---- the other end ---- */

struct host {
	pthread_t thread;
	uint64_t to_guest; /* bytes that it sends; then it receives the pages */
	uint64_t wrong;    /* words of them */
};

static unsigned char byte_of(uint64_t at)
{
	return (unsigned char)(at * 7 + at / 255);
}

static void *be_the_host(void *arg)
{
	const struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = CID, .svm_port = PORT};
	static uint64_t words[PAGE_BYTES / 8];
	unsigned char buf[5000];
	struct host *h = arg;
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0, "a socket of AF_VSOCK");
	MUST(connect(fd, (const struct sockaddr *)&to, sizeof(to)));
	for (uint64_t at = 0, n; at < h->to_guest; at += n) {
		ssize_t sent;

		n = min_u64(sizeof(buf), h->to_guest - at);
		for (uint64_t i = 0; i < n; i++)
			buf[i] = byte_of(at + i);
		sent = send(fd, buf, n, 0);
		must(sent > 0, "send");
		n = (uint64_t)sent;
	}
	for (uint64_t page = SENT_PAGE; page < SENT_PAGE + SENT_PAGES; page++) {
		must(recv(fd, words, sizeof(words), MSG_WAITALL) == sizeof(words), "recv");
		for (unsigned i = 0; i < ARRAY_LEN(words); i++)
			h->wrong += words[i] != word_of(page);
	}
	close(fd);
	return NULL;
}

/* ---- the tests ---- */

/* What the host sends, byte by byte. */
static void receive(struct guest *g, uint64_t bytes)
{
	static unsigned char buf[PAGE_BYTES];
	uint64_t data, at = 0;
	uint16_t id;

	while (at < bytes) {
		if (take_packet(g, &id, &data) == VIRTIO_VSOCK_OP_RW) {
			get(g, data, buf, g->peer.len);
			for (uint32_t i = 0; i < g->peer.len; i++, at++)
				if (buf[i] != byte_of(at))
					fail_msg("byte %llu", (unsigned long long)at);
			g->taken += g->peer.len;
			offer(g, id);
			send_packet(g, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
		} else {
			offer(g, id);
		}
	}
	assert_int_equal(at, bytes);
}

/* Pages that nobody has touched yet, or that have been evicted; as the host has room for them. */
static void send_pages(struct guest *g)
{
	uint32_t sent = 0;

	for (uint64_t page = SENT_PAGE; page < SENT_PAGE + SENT_PAGES; page++) {
		while (g->peer.buf_alloc - (sent - g->peer.fwd_cnt) < PAGE_BYTES) {
			uint64_t data;
			uint16_t id;

			/* It tells by itself when little is left. */
			(void)take_packet(g, &id, &data);
			offer(g, id);
		}
		send_packet(g, VIRTIO_VSOCK_OP_RW, gpa_of(page), PAGE_BYTES);
		sent += PAGE_BYTES;
	}
}

static void all_of_it(struct guest *g, uint64_t bytes)
{
	struct host h = {.to_guest = bytes};

	assert_int_equal(pthread_create(&h.thread, NULL, be_the_host, &h), 0);
	until(g, VIRTIO_VSOCK_OP_REQUEST);
	send_packet(g, VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
	receive(g, bytes);
	send_pages(g);
	pthread_join(h.thread, NULL);
	assert_int_equal(h.wrong, 0);
}

static void absent_memory_waits(void **state)
{
	struct guest g;
	uint64_t touches;

	(void)state;
	open_guest(&g);
	do
		assert_int_equal(apf_evict(g.o.a, 0, NULL, &error), 0);
	while (residency(&g.o, RING_PAGE(RX)) & APF_BLOCK_PRESENT);
	touches = counter(&g.o, APF_COUNTER_ID_vmm_touches);
	all_of_it(&g, 1 << 20);
	/* Each page that was sent, at the least. */
	assert_true(counter(&g.o, APF_COUNTER_ID_vmm_touches) - touches >= SENT_PAGES);
	close_guest(&g);
}

struct evictor {
	struct own *o;
	pthread_t thread;
	int stop; /* atomic */
};

static void *evict_again_and_again(void *arg)
{
	struct evictor *e = arg;

	while (!__atomic_load_n(&e->stop, __ATOMIC_ACQUIRE)) {
		must(apf_evict(e->o->a, 0, NULL, &error) == 0, error.text);
		usleep(2000);
	}
	return NULL;
}

/* Nothing of it is pinned: no hold is needed. */
static void nothing_is_lost_under_eviction(void **state)
{
	struct evictor e = {.stop = 0};
	struct guest g;

	(void)state;
	open_guest(&g);
	e.o = &g.o;
	assert_int_equal(pthread_create(&e.thread, NULL, evict_again_and_again, &e), 0);
	all_of_it(&g, 256 << 10);
	__atomic_store_n(&e.stop, 1, __ATOMIC_RELEASE);
	pthread_join(e.thread, NULL);
	print_message("%llu blocks evicted, %llu touches\n",
		      (unsigned long long)counter(&g.o, APF_COUNTER_ID_evicted),
		      (unsigned long long)counter(&g.o, APF_COUNTER_ID_vmm_touches));
	close_guest(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_memory_waits),
		cmocka_unit_test(nothing_is_lost_under_eviction),
	};

	if (access("/dev/vhost-vsock", R_OK | W_OK) < 0) {
		printf("SKIP: /dev/vhost-vsock: %s\n", strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
