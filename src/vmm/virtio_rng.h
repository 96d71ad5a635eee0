/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entropy source (virtio 1.2, 5.4): fills buffers of one queue with random bytes, of one
 * buffer no more than VIRTIO_RNG_BYTES_MAX (5.4.6.2 allows less than was asked for).
 * Threads: requests on the worker of its virtio_mmio. Test: tests/unit/virtio_rng_test.c.
 */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "base/err.h"
#include "vmm/virtio_mmio.h"

#define VIRTIO_RNG_BYTES_MAX 4096u

/* 0, or -Exxx. Must fill all of buf, which is guest memory; may block. */
typedef int (*virtio_rng_fill)(void *ctx, void *buf, size_t len);

struct virtio_rng {
	struct virtio_mmio mmio;
	virtio_rng_fill fill;
	void *ctx;
};

/* fill NULL: the kernel's generator. mem is borrowed until close. */
int virtio_rng_open(struct virtio_rng *r, virtio_rng_fill fill, void *ctx,
		    const struct guest_mem *mem, const struct irq_line *irq, bool threaded,
		    struct err *e);
/* As virtio_mmio_close. */
void virtio_rng_close(struct virtio_rng *r);

#endif
