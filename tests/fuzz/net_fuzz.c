/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a driver that writes whatever it likes into the rings of a network device, while
 * frames come for it. The input is six bytes of set-up and then guest memory from address 0: for
 * frames that come, descriptors at 0, available ring at 0x400, used ring at 0x500; for those that
 * go, the same from 0x800 on; the rest as those say.
 * What must hold: no access outside guest memory, no frame to the backend that is longer or
 * shorter than a frame, an end, and a device that works again after a reset.
 */
#include <errno.h>

#include "rings.h"
#include "vmm/virtio/net.h"

#define SETUP_BYTES 6u
#define RAM_BYTES 16384u
#define RX 0u
#define TX 0x800u
#define FRAMES_MAX 64u

struct world {
	uint8_t *ram; /* of its own: a sanitizer sees what goes beyond */
	struct virtio_net net;
	uint32_t len;    /* of the frames that come */
	unsigned left;   /* that still come */
	unsigned sent;
	unsigned waits;
};

static int take_features(void *ctx, uint64_t features)
{
	(void)ctx;
	(void)features;
	return 0;
}

static int send_frame(void *ctx, const struct iovec *v, unsigned count, size_t len)
{
	struct world *w = ctx;
	size_t all = 0;

	must(count > 0 && count <= VIRTQ_SEGS_MAX);
	for (unsigned i = 0; i < count; i++) {
		uint8_t *at = v[i].iov_base;

		must(at >= w->ram && v[i].iov_len > 0 &&
		     v[i].iov_len <= (size_t)(w->ram + RAM_BYTES - at));
		all += v[i].iov_len;
	}
	must(all == len && len >= NET_HEADER_BYTES + NET_ETHERNET_BYTES && len <= NET_FRAME_MAX);
	w->sent++;
	return w->sent % 7 == 3 ? -EAGAIN : w->sent % 5 == 4 ? -EIO : 0;
}

static ssize_t receive_frame(void *ctx, const struct iovec *v, unsigned count)
{
	struct world *w = ctx;
	size_t left = w->len;

	if (w->left == 0)
		return -EAGAIN;
	w->left--;
	for (unsigned i = 0; i < count; i++) {
		size_t n = min_u64(left, v[i].iov_len);

		memset(v[i].iov_base, 0x5a, n);
		left -= n;
	}
	return w->len;
}

static unsigned wait_for(void *ctx, int wake_fd, unsigned want, uint64_t until_ns)
{
	struct world *w = ctx;

	(void)wake_fd;
	(void)want;
	(void)until_ns;
	w->waits++;
	return NET_CAN_SEND | (w->left ? NET_CAN_RECEIVE : 0);
}

static const struct net_backend_ops ops = {
	.features_set = take_features,
	.send = send_frame,
	.receive = receive_frame,
	.wait = wait_for,
};

static void bring_up(struct world *w, uint32_t features_low, uint32_t queue_size)
{
	ring_begin(&w->net.mmio, features_low);
	ring_queue(&w->net.mmio, VIRTIO_NET_RX, RX, queue_size);
	ring_queue(&w->net.mmio, VIRTIO_NET_TX, TX, queue_size);
	ring_go(&w->net.mmio);
}

/* A guest could go on for ever: no more than so much at once. */
static void work(struct world *w)
{
	ring_set(&w->net.mmio, 0x050, VIRTIO_NET_RX);
	ring_set(&w->net.mmio, 0x050, VIRTIO_NET_TX);
	for (unsigned i = 0; i < 8; i++) {
		(void)virtio_mmio_work(&w->net.mmio);
		w->net.mmio.cfg.ops->wait(&w->net);
	}
}

/* One frame each way, as a well-behaved driver has them. */
static void check_alive(struct world *w)
{
	static const uint64_t in[2] = {0x1000, 2048 | 2ull << 32};
	static const uint64_t out[2] = {0x2000, 100};
	static const uint16_t avail[3] = {0, 1, 0};
	unsigned sent;

	memset(w->ram, 0, RAM_BYTES);
	memcpy(w->ram + RX, in, sizeof(in));
	memcpy(w->ram + TX, out, sizeof(out));
	memcpy(w->ram + RX + RING_AVAIL, avail, sizeof(avail));
	memcpy(w->ram + TX + RING_AVAIL, avail, sizeof(avail));
	w->len = 80;
	w->left = 1;
	sent = w->sent = 0;
	bring_up(w, 0, 4);
	work(w);
	must(ring_status(&w->net.mmio) == 15);
	must(w->sent == sent + 1 && w->ram[TX + RING_USED + 2] == 1);
	must(w->ram[RX + RING_USED + 2] == 1 && w->ram[RX + RING_USED + 8] == 80);
	must(w->ram[0x1000] == 0x5a && w->ram[0x1000 + 79] == 0x5a && w->ram[0x1000 + 80] == 0);
	must(w->ram[0x100a] == 1 && w->ram[0x100b] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = calloc(1, sizeof(*w));
	const struct net_backend backend = {
		.ops = &ops, .ctx = w, .features = NET_F_GUEST_CSUM | NET_F_GUEST_TSO4,
		.frame_max = 1518};
	struct virtio_net_cfg cfg = {.backend = &backend, .name = "net0"};
	struct guest_mem mem;
	unsigned rounds;

	must(w != NULL);
	if (size < SETUP_BYTES) {
		free(w);
		return 0;
	}
	w->ram = calloc(1, RAM_BYTES);
	must(w->ram != NULL);
	mem = (struct guest_mem){.low = w->ram, .low_bytes = RAM_BYTES};
	cfg.mem = &mem;
	must(virtio_net_open(&w->net, &cfg, NULL) == 0);
	memcpy(w->ram, data + SETUP_BYTES, min_u64(size - SETUP_BYTES, RAM_BYTES));
	w->len = data[2] | (uint32_t)data[3] << 8 | (uint32_t)(data[0] & 0x80) << 9;
	w->left = data[4] % FRAMES_MAX;
	/* Indirect, event index; merged buffers; checksums and segments. */
	bring_up(w, (uint32_t)(data[0] & 3) << 28 | (uint32_t)(data[0] & 4) << 13 |
			    (data[0] & 8 ? NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 : 0), data[1]);
	rounds = data[5] % 8u;
	do
		work(w);
	while (rounds-- > 0);
	check_alive(w);
	virtio_net_close(&w->net);
	free(w->ram);
	free(w);
	return 0;
}
