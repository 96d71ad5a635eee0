/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio_net_fixture.h"

static void nx_lost(void *ctx, int code)
{
	struct nx *f = ctx;

	assert_int_equal(f->lost, 0);
	f->lost = code;
}

void nx_open(struct nx *f, const struct net_backend *backend, uint64_t bytes_per_s)
{
	struct virtio_net_cfg cfg = {
		.backend = backend,
		.mac = {2, 0, 0, 0, 0, 7},
		.mem = &f->x.mem,
		.name = "net0",
		.bytes_per_s = bytes_per_s,
		.lost = nx_lost,
		.lost_ctx = f,
	};

	memset(f, 0, sizeof(*f));
	vx_init(&f->x);
	cfg.irq = fake_irq_line(&f->x.irq, VX_GSI);
	assert_int_equal(virtio_net_open(&f->n, &cfg, NULL), 0);
	vx_attach(&f->x, &f->n.mmio);
}

void nx_close(struct nx *f)
{
	virtio_net_close(&f->n);
	virtio_net_close(&f->n);
	virtio_net_close(NULL);
	vx_fini(&f->x);
}

static void nx_ring_up(struct nx *f, unsigned queue, struct nx_ring *r, uint32_t at, uint16_t size)
{
	static const unsigned char zeroes[0x3000];

	vx_put(&f->x, at, zeroes, sizeof(zeroes));
	*r = (struct nx_ring){.at = at, .size = size};
	vx_queue(&f->x, queue, size, at, at + 0x1000, at + 0x2000);
	assert_int_equal(vx_reg(&f->x, 0x044), 1);
}

void nx_up(struct nx *f, uint64_t features, uint16_t size)
{
	vx_set(&f->x, 0x070, 0);
	vx_set(&f->x, 0x070, 3);
	vx_features(&f->x, features | VIRTIO_F_VERSION_1);
	vx_set(&f->x, 0x070, 11);
	assert_int_equal(vx_reg(&f->x, 0x070), 11);
	nx_ring_up(f, VIRTIO_NET_RX, &f->rx, NX_RX, size);
	nx_ring_up(f, VIRTIO_NET_TX, &f->tx, NX_TX, size);
	vx_set(&f->x, 0x070, 15);
}

void nx_offer(struct nx *f, unsigned queue, struct nx_ring *r, uint16_t head)
{
	vx_put16(&f->x, r->at + 0x1000 + 4 + 2u * (r->avail % r->size), head);
	vx_put16(&f->x, r->at + 0x1000 + 2, ++r->avail);
	vx_set(&f->x, 0x050, queue);
}

void nx_post(struct nx *f, uint16_t i)
{
	vx_desc_at(&f->x, f->rx.at, i, NX_BUFFERS + (uint64_t)i * f->buffer_bytes,
		   f->buffer_bytes, DESC_WRITE, 0);
	nx_offer(f, VIRTIO_NET_RX, &f->rx, i);
}

void nx_send_with(struct nx *f, const unsigned char header[NET_HEADER_BYTES],
		  const void *frame, uint32_t len)
{
	uint16_t i = f->tx.avail % f->tx.size;
	uint64_t at = NX_OUT + i % 128 * 2048u;

	vx_put(&f->x, at, header, NET_HEADER_BYTES);
	vx_put(&f->x, at + NET_HEADER_BYTES, frame, len);
	vx_desc_at(&f->x, f->tx.at, i, at, NET_HEADER_BYTES + len, 0, 0);
	nx_offer(f, VIRTIO_NET_TX, &f->tx, i);
}

void nx_send(struct nx *f, const void *frame, uint32_t len)
{
	static const unsigned char header[NET_HEADER_BYTES];

	nx_send_with(f, header, frame, len);
}

bool nx_has(struct nx *f, const struct nx_ring *r)
{
	return vx_get16(&f->x, r->at + 0x2000 + 2) != r->used;
}

uint32_t nx_take(struct nx *f, struct nx_ring *r, uint32_t *ret_len)
{
	uint32_t e[2];

	if (!nx_has(f, r))
		return NX_NONE;
	vx_get(&f->x, r->at + 0x2000 + 4 + 8u * (r->used % r->size), e, sizeof(e));
	r->used++;
	*ret_len = e[1];
	return e[0];
}

uint32_t nx_receive(struct nx *f, unsigned char *ret, bool again)
{
	uint16_t buffers = 1;
	uint32_t len = 0;

	for (uint16_t k = 0; k < buffers; k++) {
		uint32_t part, head = nx_take(f, &f->rx, &part);

		if (head == NX_NONE) {
			assert_int_equal(k, 0); /* all at once or none */
			return 0;
		}
		assert_in_range(part, 1, f->buffer_bytes);
		vx_get(&f->x, NX_BUFFERS + (uint64_t)head * f->buffer_bytes, ret + len, part);
		if (k == 0)
			memcpy(&buffers, ret + 10, sizeof(buffers));
		assert_in_range(buffers, 1, f->rx.size);
		len += part;
		if (again)
			nx_post(f, (uint16_t)head);
	}
	return len;
}

void nx_work(struct nx *f)
{
	do
		while (virtio_mmio_work(&f->n.mmio))
			;
	while (f->n.want && (f->n.mmio.cfg.ops->wait(&f->n), virtio_mmio_work(&f->n.mmio)));
}

struct device_stats nx_stats(struct nx *f)
{
	struct device_stats s;

	virtio_net_device_stats(&f->n, &s);
	return s;
}
