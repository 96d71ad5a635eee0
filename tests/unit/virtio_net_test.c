/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/virtio/net.c before a backend that is an array of frames: registers, headers, frames over
 * several buffers, what does not fit, limits, a driver that breaks the rules, a backend that goes.
 */
#include <errno.h>

#include "virtio_net_fixture.h"

#define FRAMES_MAX 400u

struct fake {
	uint32_t in[FRAMES_MAX]; /* lengths of frames to come, with header */
	unsigned in_count, in_next;
	uint32_t out[FRAMES_MAX]; /* of those that went */
	unsigned out_count;
	unsigned char last[NET_FRAME_MAX];
	int fail;          /* what every frame meets; 0: nothing */
	bool busy;         /* cannot send now */
	bool echoes;       /* what goes comes again */
	uint64_t features; /* that were told */
	unsigned told, waits;
	ssize_t room;      /* in the last call */
};

/* Byte `off` of the nth frame. */
static unsigned char byte_of(unsigned nth, size_t off)
{
	return (unsigned char)(off < 10 ? nth : off * 7 + nth);
}

static int fake_features_set(void *ctx, uint64_t features)
{
	struct fake *k = ctx;

	k->features = features;
	k->told++;
	return 0;
}

static int fake_send(void *ctx, const struct iovec *v, unsigned count, size_t len)
{
	struct fake *k = ctx;
	size_t done = 0;

	if (k->fail)
		return k->fail;
	if (k->busy)
		return -EAGAIN;
	for (unsigned i = 0; i < count; i++) {
		memcpy(k->last + done, v[i].iov_base, v[i].iov_len);
		done += v[i].iov_len;
	}
	assert_int_equal(done, len);
	assert_true(k->out_count < FRAMES_MAX);
	k->out[k->out_count++] = (uint32_t)len;
	if (k->echoes && k->in_count < FRAMES_MAX)
		k->in[k->in_count++] = (uint32_t)len;
	return 0;
}

static ssize_t fake_receive(void *ctx, const struct iovec *v, unsigned count)
{
	struct fake *k = ctx;
	unsigned nth = k->in_next;
	size_t off = 0, len;

	if (k->fail)
		return k->fail;
	if (nth == k->in_count)
		return -EAGAIN;
	len = k->in[k->in_next++];
	for (unsigned i = 0; i < count; i++)
		for (size_t at = 0; at < v[i].iov_len && off < len; at++, off++)
			((unsigned char *)v[i].iov_base)[at] = byte_of(nth, off);
	return (ssize_t)len;
}

static unsigned fake_wait(void *ctx, int wake_fd, unsigned want, uint64_t until_ns)
{
	struct fake *k = ctx;

	(void)wake_fd;
	(void)want;
	(void)until_ns;
	k->waits++;
	if (k->fail)
		return want;
	return (k->busy ? 0 : NET_CAN_SEND) | (k->in_next < k->in_count ? NET_CAN_RECEIVE : 0);
}

static const struct net_backend_ops fake_ops = {
	.features_set = fake_features_set,
	.send = fake_send,
	.receive = fake_receive,
	.wait = fake_wait,
};

struct fixture {
	struct nx n;
	struct fake k;
	unsigned char frame[NET_FRAME_MAX];
};

static struct fixture *init(uint64_t features, uint16_t size, uint32_t buffer_bytes,
			    uint64_t bytes_per_s)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct net_backend b = {
		.ops = &fake_ops,
		.features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4,
		.frame_max = 1518,
	};

	assert_non_null(f);
	b.ctx = &f->k;
	nx_open(&f->n, &b, bytes_per_s);
	f->n.buffer_bytes = buffer_bytes;
	nx_up(&f->n, features, size);
	return f;
}

static void fini(struct fixture *f)
{
	nx_close(&f->n);
	free(f);
}

static void comes(struct fixture *f, uint32_t len)
{
	assert_true(f->k.in_count < FRAMES_MAX);
	f->k.in[f->k.in_count++] = len;
}

/* The next frame is the nth, of that length, byte for byte. */
static void check_frame(struct fixture *f, unsigned nth, uint32_t len, unsigned buffers)
{
	assert_int_equal(nx_receive(&f->n, f->frame, false), len);
	for (uint32_t i = 0; i < len; i++)
		if (i < 10 || i >= NET_HEADER_BYTES)
			assert_int_equal(f->frame[i], byte_of(nth, i));
	assert_int_equal(f->frame[10] | f->frame[11] << 8, buffers);
}

static void post(struct fixture *f, unsigned from, unsigned count)
{
	for (unsigned i = from; i < from + count; i++)
		nx_post(&f->n, (uint16_t)i);
	nx_work(&f->n);
}

/* ---- what it says of itself ---- */

static void registers(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);
	struct vx *x = &f->n.x;

	(void)state;
	assert_int_equal(vx_reg(x, 0x008), 1);
	/* MAC, merged buffers, status, and what the backend has. */
	assert_int_equal(vx_offered(x) & 0xffffff,
			 1 << 5 | 1 << 15 | 1 << 16 | NET_F_CSUM | NET_F_GUEST_CSUM |
				 NET_F_GUEST_TSO4);
	assert_int_equal(vx_reg(x, 0x100), 2);
	assert_int_equal(vx_reg(x, 0x104), 0x00010700);
	vx_set(x, 0x030, 1);
	assert_int_equal(vx_reg(x, 0x034), VIRTQ_SIZE_MAX);
	vx_set(x, 0x030, 2); /* no control queue */
	assert_int_equal(vx_reg(x, 0x034), 0);
	fini(f);
}

static void features_reach_the_backend(void **state)
{
	struct fixture *f = init(NX_MRG | NET_F_GUEST_CSUM, 8, 2048, 0);

	(void)state;
	assert_int_equal(f->k.told, 0); /* not before the driver has something to do */
	post(f, 0, 1);
	assert_int_equal(f->k.told, 1);
	assert_true(f->k.features & NET_F_GUEST_CSUM);
	nx_up(&f->n, 0, 8);
	post(f, 0, 1);
	assert_int_equal(f->k.told, 2);
	assert_false(f->k.features & NET_F_GUEST_CSUM);
	fini(f);
}

/* ---- to the guest ---- */

static void one_buffer(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);

	(void)state;
	comes(f, 12 + 60);
	comes(f, 12 + 1514);
	nx_work(&f->n);
	assert_false(nx_has(&f->n, &f->n.rx)); /* nowhere to lay them */
	assert_int_equal(f->k.in_next, 0);
	post(f, 0, 1);
	check_frame(f, 0, 72, 1);
	assert_int_equal(f->n.x.irq.rises, 1);
	post(f, 1, 1);
	check_frame(f, 1, 1526, 1);
	assert_int_equal(nx_stats(&f->n).read_bytes, 60 + 1514);
	assert_int_equal(nx_stats(&f->n).requests, 2);
	fini(f);
}

/* Later ones come as soon as they are there, without the driver's asking. */
static void comes_later(void **state)
{
	struct fixture *f = init(NX_MRG, 8, 2048, 0);

	(void)state;
	post(f, 0, 4);
	assert_int_equal(f->n.n.want, NET_CAN_RECEIVE);
	comes(f, 100);
	nx_work(&f->n);
	check_frame(f, 0, 100, 1);
	fini(f);
}

static void several_buffers(void **state)
{
	struct fixture *f = init(NX_MRG | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4, 256, 1536, 0);

	(void)state;
	comes(f, 1536);
	comes(f, 1537);
	comes(f, 65550);
	comes(f, NET_FRAME_MAX);
	comes(f, 60);
	post(f, 0, 256);
	check_frame(f, 0, 1536, 1);
	check_frame(f, 1, 1537, 2);
	check_frame(f, 2, 65550, 43);
	check_frame(f, 3, NET_FRAME_MAX, 43);
	check_frame(f, 4, 60, 1);
	assert_int_equal(nx_stats(&f->n).dropped, 0);
	fini(f);
}

/* Small buffers, each of which has room for a header at least; and one that has not. */
static void smallest_buffers(void **state)
{
	struct fixture *f = init(NX_MRG, 128, 12, 0);

	(void)state;
	comes(f, 1200);
	post(f, 0, 128);
	check_frame(f, 0, 1200, 100);
	f->n.buffer_bytes = 11;
	post(f, 0, 1);
	f->n.buffer_bytes = 12;
	comes(f, 60);
	nx_work(&f->n);
	assert_int_equal(vx_reg(&f->n.x, 0x070), 0x4f);
	fini(f);
}

/* The frame is kept, whole, until there is room, and those after it stay where they are. */
static void waits_for_room(void **state)
{
	struct fixture *f = init(NX_MRG | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4, 64, 2048, 0);

	(void)state;
	comes(f, 20000);
	comes(f, 60);
	post(f, 0, 9);
	assert_false(nx_has(&f->n, &f->n.rx));
	assert_int_equal(f->k.in_next, 1);
	assert_int_equal(vx_reg(&f->n.x, 0x070), 15);
	post(f, 9, 1);
	check_frame(f, 0, 20000, 10);
	post(f, 10, 1);
	check_frame(f, 1, 60, 1);
	fini(f);
}

/* What is kept for a driver is in that one's form: the next driver gets none of it. */
static void what_is_kept_is_for_its_driver(void **state)
{
	struct fixture *f = init(NX_MRG, 8, 12, 0);

	(void)state;
	comes(f, 1500);
	post(f, 0, 7);
	assert_int_equal(f->k.in_next, 1);
	assert_false(nx_has(&f->n, &f->n.rx));
	f->n.buffer_bytes = 2048;
	nx_up(&f->n, 0, 8);
	post(f, 0, 1);
	assert_false(nx_has(&f->n, &f->n.rx));
	comes(f, 60);
	nx_work(&f->n);
	check_frame(f, 1, 60, 1);
	assert_int_equal(nx_stats(&f->n).dropped, 0);
	fini(f);
}

/* With merged buffers or without, and whichever way it was taken in. */
static void too_long_for_all(void **state)
{
	static const uint64_t features[] = {0, NX_MRG};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		struct fixture *f = init(features[i], 4, 1600, 0);

		comes(f, 9000);
		comes(f, 100);
		post(f, 0, 4);
		check_frame(f, 1, 100, 1);
		assert_int_equal(nx_stats(&f->n).dropped, 1);
		fini(f);
	}
}

/* Longer than the backend said, as on an interface with large frames: not a byte is lost. */
static void longer_than_most(void **state)
{
	struct fixture *f = init(NX_MRG, 64, 1600, 0);

	(void)state;
	comes(f, 9014);
	post(f, 0, 64);
	check_frame(f, 0, 9014, 6);
	fini(f);
}

static void no_frames_at_all(void **state)
{
	static const uint32_t lens[] = {0, 1, 11, NET_FRAME_MAX + 1, 200000};
	struct fixture *f = init(NX_MRG, 64, 2048, 0);

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(lens); i++)
		comes(f, lens[i]);
	comes(f, 12);
	post(f, 0, 64);
	check_frame(f, 5, 12, 1);
	assert_int_equal(nx_stats(&f->n).dropped, ARRAY_LEN(lens));
	fini(f);
}

/* A guest that takes nothing costs one frame of memory; the rest stays with the backend. */
static void takes_nothing(void **state)
{
	struct fixture *f = init(NX_MRG, 8, 2048, 0);

	(void)state;
	for (unsigned i = 0; i < FRAMES_MAX; i++)
		comes(f, 1526);
	post(f, 0, 2);
	assert_in_range(f->k.in_next, 2, 3);
	assert_int_equal(f->n.n.want & NET_CAN_RECEIVE, 0); /* and no time */
	fini(f);
}

/* ---- from the guest ---- */

static void sends(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);
	unsigned char frame[64] = {1, 2, 3};

	(void)state;
	nx_send(&f->n, frame, sizeof(frame));
	nx_send(&f->n, frame, 14);
	nx_work(&f->n);
	assert_int_equal(f->k.out_count, 2);
	assert_int_equal(f->k.out[0], 12 + 64);
	assert_int_equal(f->k.last[12], 1);
	assert_int_equal(vx_get16(&f->n.x, f->n.tx.at + 0x2002), 2);
	assert_int_equal(nx_stats(&f->n).written_bytes, 64 + 14);
	fini(f);
}

static void send_is_dropped(void **state)
{
	static const int codes[] = {-EINVAL, -EIO, -ENOBUFS, -EPROTO};
	struct fixture *f = init(0, 8, 2048, 0);
	unsigned char frame[64] = {0};

	(void)state;
	nx_send(&f->n, frame, 13); /* not even Ethernet */
	for (unsigned i = 0; i < ARRAY_LEN(codes); i++) {
		f->k.fail = codes[i];
		nx_send(&f->n, frame, sizeof(frame));
		while (virtio_mmio_work(&f->n.n.mmio))
			;
	}
	assert_int_equal(nx_stats(&f->n).dropped, 1 + ARRAY_LEN(codes));
	assert_int_equal(vx_get16(&f->n.x, f->n.tx.at + 0x2002), 1 + ARRAY_LEN(codes));
	assert_int_equal(vx_reg(&f->n.x, 0x070), 15);
	fini(f);
}

/* What cannot go now goes later, in order, and nothing twice. */
static void send_waits(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);
	unsigned char frame[64] = {0};

	(void)state;
	f->k.busy = true;
	nx_send(&f->n, frame, 50);
	nx_send(&f->n, frame, 60);
	nx_work(&f->n);
	assert_int_equal(f->k.out_count, 0);
	assert_int_equal(f->n.n.want, NET_CAN_SEND);
	f->k.busy = false;
	nx_work(&f->n);
	assert_int_equal(f->k.out_count, 2);
	assert_int_equal(f->k.out[0], 62);
	assert_int_equal(f->k.out[1], 72);
	fini(f);
}

/* A network in user space: the answer is there by the time that the worker would wait. */
static void answers_come_at_once(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);
	const unsigned char frame[60] = {1};

	(void)state;
	f->n.n.backend.answers = true;
	f->k.echoes = true;
	post(f, 0, 4);
	assert_int_equal(f->n.n.want, NET_CAN_RECEIVE);
	f->k.waits = 0;
	nx_send(&f->n, frame, 50);
	nx_send(&f->n, frame, 60);
	while (virtio_mmio_work(&f->n.n.mmio))
		;
	/* One turn for both. */
	assert_int_equal(f->k.waits, 1);
	assert_int_equal(f->k.out_count, 2);
	check_frame(f, 0, 62, 1);
	check_frame(f, 1, 72, 1);
	/* Nothing has gone since: no turn. */
	virtio_mmio_kick(&f->n.n.mmio, VIRTIO_NET_TX);
	assert_true(virtio_mmio_work(&f->n.n.mmio));
	assert_int_equal(f->k.waits, 1);
	fini(f);
}

/* However much the guest sends, the backend's own work is done between. */
static void flood_lets_the_backend_work(void **state)
{
	struct fixture *f = init(0, 256, 2048, 0);
	unsigned char frame[64] = {0};

	(void)state;
	for (unsigned i = 0; i < 128; i++)
		nx_send(&f->n, frame, 60);
	while (virtio_mmio_work(&f->n.n.mmio))
		;
	assert_int_equal(f->k.out_count, 128);
	assert_true(f->k.waits >= 1);
	fini(f);
}

/* ---- drivers that break the rules ---- */

static void hostile(void **state)
{
	static const struct {
		unsigned queue;
		uint32_t len;
		unsigned flags;
	} rows[] = {
		{VIRTIO_NET_RX, 2048, 0},          /* a frame to come, that we cannot write */
		{VIRTIO_NET_RX, 4, DESC_WRITE},    /* no room for the header */
		{VIRTIO_NET_TX, 100, DESC_WRITE},  /* a frame to go, that we cannot read */
		{VIRTIO_NET_TX, 11, 0},            /* no whole header */
		{VIRTIO_NET_TX, 0x7fffffff, 0},    /* beyond memory */
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct fixture *f = init(NX_MRG, 8, 2048, 0);
		struct nx_ring *r = rows[i].queue == VIRTIO_NET_RX ? &f->n.rx : &f->n.tx;
		unsigned char frame[64] = {0};

		comes(f, 100);
		vx_desc_at(&f->n.x, r->at, 0, NX_BUFFERS, rows[i].len, rows[i].flags, 0);
		nx_offer(&f->n, rows[i].queue, r, 0);
		nx_work(&f->n);
		assert_int_equal(vx_reg(&f->n.x, 0x070), 0x4f);
		assert_int_equal(f->k.out_count, 0);
		/* And works again after a reset. */
		nx_up(&f->n, NX_MRG, 8);
		nx_send(&f->n, frame, 60);
		post(f, 0, 1);
		assert_int_equal(f->k.out_count, 1);
		assert_int_equal(nx_receive(&f->n, f->frame, false), 100);
		fini(f);
	}
}

/*
 * However many are offered while a frame takes some: a ring of one has one, or a wrong index. The
 * map of what devices write lies over the driver's ring here: as buffer 0 is taken, page 16 is
 * marked, which is bit 0 of the index.
 */
static void offers_while_one_is_taken(void **state)
{
	struct fixture *f = init(NX_MRG, 1, 1000, 0);
	uint32_t avail = f->n.rx.at + 0x1000;
	struct dirty_map map = {
		.on = true, .high_gpa = GUEST_HIGH_GPA, .pages = DIRTY_WORD_PAGES,
		.bits = (_Atomic uint64_t *)(void *)vx_at(&f->n.x, avail, 8)};

	(void)state;
	comes(f, 60);
	post(f, 0, 1);
	check_frame(f, 0, 60, 1);
	comes(f, 1512);
	comes(f, 60);
	f->n.x.mem.dirty = &map;
	post(f, 0, 1);
	f->n.x.mem.dirty = NULL;
	assert_int_equal(vx_get16(&f->n.x, avail + 2), 3);
	assert_false(nx_has(&f->n, &f->n.rx));
	assert_int_equal(vx_reg(&f->n.x, 0x070), 0x4f);
	nx_up(&f->n, NX_MRG, 1);
	post(f, 0, 1);
	check_frame(f, 2, 60, 1);
	assert_int_equal(nx_stats(&f->n).dropped, 1);
	fini(f);
}

/* 64 KiB go, what is longer does not. */
static void longest_that_goes(void **state)
{
	struct fixture *f = init(0, 8, 2048, 0);

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		vx_desc_at(&f->n.x, f->n.tx.at, i, NX_BUFFERS, NET_FRAME_MAX + i, 0, 0);
		nx_offer(&f->n, VIRTIO_NET_TX, &f->n.tx, (uint16_t)i);
	}
	nx_work(&f->n);
	assert_int_equal(f->k.out_count, 1);
	assert_int_equal(nx_stats(&f->n).dropped, 1);
	fini(f);
}

/* Memory that is lost while a frame is laid there: the device needs a reset, no more. */
static void memory_is_lost(void **state)
{
	struct fixture *f = init(NX_MRG, 8, 2048, 0);

	(void)state;
	comes(f, 1500);
	comes(f, 1500);
	vx_lose(&f->n.x, NX_BUFFERS);
	post(f, 0, 1);
	assert_int_equal(vx_reg(&f->n.x, 0x070), 0x4f);
	vx_find(&f->n.x, NX_BUFFERS);
	nx_up(&f->n, NX_MRG, 8);
	post(f, 0, 1);
	check_frame(f, 1, 1500, 1);
	fini(f);
}

/* ---- the backend goes ---- */

static void backend_goes(void **state)
{
	static const bool by_sending[] = {false, true};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(by_sending); i++) {
		struct fixture *f = init(NX_MRG, 8, 2048, 0);
		unsigned char frame[64] = {0};

		post(f, 0, 2);
		f->k.fail = -ENODEV;
		if (by_sending[i])
			nx_send(&f->n, frame, 60);
		nx_work(&f->n);
		assert_int_equal(f->n.lost, -ENODEV); /* asserted: once */
		assert_int_equal(vx_reg(&f->n.x, 0x104) >> 16, 0); /* no link */
		assert_true(vx_reg(&f->n.x, 0x060) & VIRTIO_INT_CONFIG);
		/* What is sent is taken and lost. */
		nx_send(&f->n, frame, 60);
		nx_work(&f->n);
		assert_int_equal(nx_stats(&f->n).dropped, by_sending[i] + 1);
		assert_int_equal(f->n.n.want & NET_CAN_RECEIVE, 0);
		fini(f);
	}
}

/* ---- limits ---- */

/* A tenth of a second's worth goes at once, or one frame; the rest as the rate lets it. */
static void limited(void **state)
{
	const uint64_t before = 1000 * NS_PER_S;
	struct fixture *f = init(0, 256, 2048, 1 << 20);
	unsigned char frame[1514] = {0};

	(void)state;
	for (unsigned i = 0; i < 150; i++)
		nx_send(&f->n, frame, 60); /* each counts for VIRTIO_NET_BYTES_MIN */
	for (unsigned i = 0; i < 100; i++)
		nx_send(&f->n, frame, 1014);
	while (virtio_mmio_work(&f->n.n.mmio))
		;
	assert_in_range(f->k.out_count, 65, 249);
	assert_int_not_equal(f->n.n.again_ns[VIRTIO_NET_TX], 0);
	f->n.n.count.throttled_ns = before; /* it was held back before */
	while (f->k.out_count < 250) {
		nx_stats(&f->n);
		f->n.n.mmio.cfg.ops->wait(&f->n.n);
		while (virtio_mmio_work(&f->n.n.mmio))
			;
	}
	assert_true(nx_stats(&f->n).throttled_ns > before);
	assert_int_equal(f->n.n.count.throttled_since_ns, 0);
	fini(f);
}

/* Both ways together. What has not come is not held back. */
static void limited_both_ways(void **state)
{
	struct fixture *f = init(0, 256, 2048, 1 << 20);
	unsigned char frame[1514] = {0};

	(void)state;
	post(f, 0, 8);
	for (unsigned i = 0; i < 200; i++)
		nx_send(&f->n, frame, 1014);
	while (virtio_mmio_work(&f->n.n.mmio))
		;
	assert_in_range(f->k.out_count, 65, 199);
	comes(f, 100);
	virtio_mmio_kick(&f->n.n.mmio, VIRTIO_NET_RX);
	while (virtio_mmio_work(&f->n.n.mmio))
		;
	assert_int_equal(f->k.in_next, 0);
	assert_int_not_equal(f->n.n.again_ns[VIRTIO_NET_RX], 0);
	while (f->k.in_next == 0) {
		f->n.n.mmio.cfg.ops->wait(&f->n.n);
		while (virtio_mmio_work(&f->n.n.mmio))
			;
	}
	check_frame(f, 0, 100, 1);
	fini(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers),
		cmocka_unit_test(features_reach_the_backend),
		cmocka_unit_test(one_buffer),
		cmocka_unit_test(comes_later),
		cmocka_unit_test(several_buffers),
		cmocka_unit_test(smallest_buffers),
		cmocka_unit_test(waits_for_room),
		cmocka_unit_test(what_is_kept_is_for_its_driver),
		cmocka_unit_test(too_long_for_all),
		cmocka_unit_test(longer_than_most),
		cmocka_unit_test(no_frames_at_all),
		cmocka_unit_test(takes_nothing),
		cmocka_unit_test(sends),
		cmocka_unit_test(send_is_dropped),
		cmocka_unit_test(send_waits),
		cmocka_unit_test(answers_come_at_once),
		cmocka_unit_test(flood_lets_the_backend_work),
		cmocka_unit_test(hostile),
		cmocka_unit_test(offers_while_one_is_taken),
		cmocka_unit_test(longest_that_goes),
		cmocka_unit_test(memory_is_lost),
		cmocka_unit_test(backend_goes),
		cmocka_unit_test(limited),
		cmocka_unit_test(limited_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
