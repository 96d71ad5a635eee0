/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio_vsock_fixture.h"

#include <sched.h>

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	assert_true(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path));
	return a;
}

int listen_at(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 512), 0);
	return fd;
}

int connect_or_not(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	assert_int_equal(errno, EAGAIN);
	close(fd);
	return -1;
}

int connect_to(const char *path)
{
	int fd = connect_or_not(path);

	assert_true(fd >= 0);
	return fd;
}

void work(struct fixture *f)
{
	if (f->threaded)
		(void)sched_yield();
	for (unsigned i = 0; i < 3 && !f->threaded; i++) {
		while (virtio_mmio_work(&f->s.mmio))
			;
		virtio_vsock_look(&f->s, 0);
	}
}

void notify(struct fixture *f, unsigned queue)
{
	vx_set(&f->x, 0x050, queue);
}

void offer_at(struct fixture *f, unsigned queue, uint16_t head)
{
	struct queue *q = &f->q[queue];

	vx_put16(&f->x, q->avail + 4 + 2ull * (q->offered % SIZE), head);
	vx_put16(&f->x, q->avail + 2, ++q->offered);
}

void offer_buffers(struct fixture *f, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		vx_desc_at(&f->x, f->q[RX].desc, i, VX_DATA + i * BUFFER_BYTES, BUFFER_BYTES,
			   DESC_WRITE, 0);
		offer_at(f, RX, (uint16_t)i);
	}
	notify(f, RX);
}

void bring_up(struct fixture *f, unsigned buffers)
{
	static const unsigned char zeroes[0x3000];

	vx_bring_up(&f->x, 0, SIZE);
	vx_put(&f->x, f->q[TX].desc, zeroes, sizeof(zeroes));
	vx_queue(&f->x, TX, SIZE, f->q[TX].desc, f->q[TX].avail, f->q[TX].used);
	f->q[RX].offered = f->q[RX].seen = f->q[TX].offered = f->q[TX].seen = 0;
	f->fwd_cnt = 0;
	f->buf_alloc = GUEST_BUFFER;
	offer_buffers(f, buffers);
	work(f);
}

static bool stands(void *ctx)
{
	const struct fixture *f = ctx;

	return f->stands;
}

void open_device(struct fixture *f, uint32_t cid)
{
	const struct virtio_vsock_cfg cfg = {
		.cid = cid, .mem = &f->x.mem, .name = "vsock", .path = f->path,
		.listen_fd = f->listen_fd, .pause = {stands, f},
		.irq = fake_irq_line(&f->x.irq, VX_GSI)};

	assert_int_equal(virtio_vsock_open(&f->s, &cfg, NULL), 0);
	vx_attach(&f->x, &f->s.mmio);
}

void init(struct fixture *f, unsigned buffers)
{
	memset(f, 0, sizeof(*f));
	vx_init(&f->x);
	snprintf(f->folder, sizeof(f->folder), "/tmp/asyncpf-vsock-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/v", f->folder);
	f->listen_fd = listen_at(f->path);
	f->q[RX] = (struct queue){VX_DESC, VX_AVAIL, VX_USED, 0, 0};
	f->q[TX] = (struct queue){0x4000, 0x5000, 0x6000, 0, 0};
	open_device(f, CID);
	bring_up(f, buffers);
}

void fini(struct fixture *f)
{
	virtio_vsock_close(&f->s);
	virtio_vsock_close(&f->s);
	virtio_vsock_close(NULL);
	close(f->listen_fd);
	unlink(f->path);
	assert_int_equal(rmdir(f->folder), 0);
	vx_fini(&f->x);
}

unsigned room_to_send(struct fixture *f)
{
	const struct queue *q = &f->q[TX];

	return SIZE - (uint16_t)(q->offered - vx_get16(&f->x, q->used + 2));
}

void send_raw(struct fixture *f, const struct vsock_header *h, const void *data, uint32_t len)
{
	unsigned i = f->q[TX].offered % SIZE;
	uint64_t at = TX_DATA + i * 0x1000;

	assert_true(len <= 0x1000 - sizeof(*h));
	vx_put(&f->x, at, h, sizeof(*h));
	if (len)
		vx_put(&f->x, at + sizeof(*h), data, len);
	vx_desc_at(&f->x, f->q[TX].desc, i, at, (uint32_t)sizeof(*h) + len, 0, 0);
	offer_at(f, TX, (uint16_t)i);
	notify(f, TX);
	work(f);
}

struct vsock_header header(const struct fixture *f, enum vsock_op op, uint32_t guest_port,
			   uint32_t host_port)
{
	return (struct vsock_header){
		.src_cid = CID, .dst_cid = VSOCK_HOST_CID, .src_port = guest_port,
		.dst_port = host_port, .type = VSOCK_STREAM, .op = (uint16_t)op,
		.buf_alloc = f->buf_alloc, .fwd_cnt = f->fwd_cnt};
}

void say(struct fixture *f, enum vsock_op op, uint32_t guest_port, uint32_t host_port,
	 uint32_t flags)
{
	struct vsock_header h = header(f, op, guest_port, host_port);

	h.flags = flags;
	send_raw(f, &h, NULL, 0);
}

void send_data(struct fixture *f, uint32_t guest_port, uint32_t host_port, const void *data,
	       uint32_t len)
{
	struct vsock_header h = header(f, VSOCK_RW, guest_port, host_port);

	h.len = len;
	send_raw(f, &h, data, len);
}

bool hear(struct fixture *f)
{
	struct queue *q = &f->q[RX];
	uint32_t e[2];

	if (vx_get16(&f->x, q->used + 2) == q->seen)
		work(f);
	if (vx_get16(&f->x, q->used + 2) == q->seen)
		return false;
	vx_get(&f->x, q->used + 4 + 8ull * (q->seen++ % SIZE), e, sizeof(e));
	assert_true(e[1] >= sizeof(f->h) && e[1] <= BUFFER_BYTES);
	vx_get(&f->x, VX_DATA + e[0] * BUFFER_BYTES, &f->h, sizeof(f->h));
	assert_int_equal(f->h.len, e[1] - sizeof(f->h));
	vx_get(&f->x, VX_DATA + e[0] * BUFFER_BYTES + sizeof(f->h), f->data, f->h.len);
	assert_int_equal(f->h.src_cid, VSOCK_HOST_CID);
	assert_int_equal(f->h.dst_cid, CID);
	assert_int_equal(f->h.type, VSOCK_STREAM);
	offer_at(f, RX, (uint16_t)e[0]);
	notify(f, RX);
	return true;
}

void expect(struct fixture *f, enum vsock_op op, uint32_t guest_port, uint32_t host_port)
{
	if (!hear(f))
		fail_msg("the guest heard nothing instead of %d", op);
	assert_int_equal(f->h.op, op);
	assert_int_equal(f->h.dst_port, guest_port);
	assert_int_equal(f->h.src_port, host_port);
}

void expect_nothing(struct fixture *f)
{
	if (hear(f))
		fail_msg("the guest heard %d", f->h.op);
}

void expect_text(int fd, const char *text)
{
	char got[256] = "";
	ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);

	assert_true(n == (ssize_t)strlen(text));
	assert_string_equal(got, text);
}

void expect_end(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

void expect_gone(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	assert_true(n == 0 || (n < 0 && errno != EAGAIN));
}

void put_text(int fd, const char *text)
{
	assert_true(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

int open_from_host(struct fixture *f, uint32_t *ret_port)
{
	char line[32];
	int fd = connect_to(f->path);

	put_text(fd, "CONNECT 1024\n");
	work(f);
	assert_true(hear(f));
	assert_int_equal(f->h.op, VSOCK_REQUEST);
	assert_int_equal(f->h.dst_port, GUEST_PORT);
	*ret_port = f->h.src_port;
	say(f, VSOCK_RESPONSE, GUEST_PORT, *ret_port, 0);
	snprintf(line, sizeof(line), "OK %u\n", *ret_port);
	expect_text(fd, line);
	return fd;
}
