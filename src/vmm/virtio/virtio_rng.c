/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_rng.h. */
#include "vmm/virtio/virtio_rng.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define RNG_DEVICE_ID 4u /* virtio 1.2, 5.4.1 */

static int fill_from_kernel(void *ctx, void *buf, size_t len)
{
	unsigned char *to = buf;

	(void)ctx;
	while (len) {
		ssize_t n = getrandom(to, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		to += n;
		len -= (size_t)n;
	}
	return 0;
}

static int rng_request(void *dev, unsigned queue, const struct virtio_request *rq,
		       uint32_t *ret_written)
{
	struct iovec v[VIRTQ_SEGS_MAX];
	struct virtio_rng *r = dev;
	uint32_t n = (uint32_t)min_u64(rq->chain->in_len, VIRTIO_RNG_BYTES_MAX);
	unsigned count;
	int rc = 0;

	(void)queue;
	if (n == 0 || rq->chain->out_len) /* 5.4.6.1: one buffer, only to be written */
		return VIRTQ_MALFORMED;
	rc = virtio_mmio_throttle(&r->mmio, 0, max_u64(n, VIRTIO_RNG_BYTES_MIN));
	if (rc < 0)
		return rc;
	count = virtq_chain_in(rq->chain, 0, n, v);
	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = r->fill(r->ctx, v[i].iov_base, v[i].iov_len);
	*ret_written = n;
	r->bytes += rc == 0 ? n : 0;
	return rc;
}

static const struct virtio_dev_ops rng_dev_ops = {
	.device_id = RNG_DEVICE_ID,
	.queues = 1,
	.request = rng_request,
};

int virtio_rng_open(struct virtio_rng *r, const struct virtio_rng_cfg *c, struct err *e)
{
	const struct virtio_mmio_cfg cfg = {
		.ops = &rng_dev_ops,
		.dev = r,
		.mem = c->mem,
		.irq = c->irq,
		.threaded = c->threaded,
		.name = c->name,
		.limits = {.bytes_per_s = c->bytes_per_s},
	};

	memset(r, 0, sizeof(*r));
	r->fill = c->fill ? c->fill : fill_from_kernel;
	r->ctx = c->ctx;
	return virtio_mmio_open(&r->mmio, &cfg, e);
}

void virtio_rng_close(struct virtio_rng *r)
{
	if (r)
		virtio_mmio_close(&r->mmio);
}

void virtio_rng_device_stats(struct virtio_rng *r, struct device_stats *ret)
{
	virtio_mmio_stats_get(&r->mmio, ret);
	ret->read_bytes = r->bytes;
}
