/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_rng.h. */
#include "vmm/virtio_rng.h"

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
	count = virtq_chain_in(rq->chain, 0, n, v);
	for (unsigned i = 0; rc == 0 && i < count; i++)
		rc = r->fill(r->ctx, v[i].iov_base, v[i].iov_len);
	*ret_written = n;
	return rc;
}

static const struct virtio_dev_ops rng_dev_ops = {
	.device_id = RNG_DEVICE_ID,
	.queues = 1,
	.request = rng_request,
};

int virtio_rng_open(struct virtio_rng *r, virtio_rng_fill fill, void *ctx,
		    const struct guest_mem *mem, const struct irq_line *irq, bool threaded,
		    struct err *e)
{
	const struct virtio_mmio_cfg cfg = {
		.ops = &rng_dev_ops,
		.dev = r,
		.mem = mem,
		.irq = *irq,
		.threaded = threaded,
		.name = "virtio-rng",
	};

	memset(r, 0, sizeof(*r));
	r->fill = fill ? fill : fill_from_kernel;
	r->ctx = ctx;
	return virtio_mmio_open(&r->mmio, &cfg, e);
}

void virtio_rng_close(struct virtio_rng *r)
{
	if (r)
		virtio_mmio_close(&r->mmio);
}
