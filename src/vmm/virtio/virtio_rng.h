/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entropy source (virtio 1.2, 5.4): fills buffers of one queue with random bytes, of one
 * buffer no more than VIRTIO_RNG_BYTES_MAX (5.4.6.2 allows less than was asked for).
 * Threads: requests on the worker of its virtio_mmio. Test: tests/unit/virtio_rng_test.c.
 */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "base/err.h"
#include "vmm/virtio/virtio_mmio.h"

#define VIRTIO_RNG_BYTES_MAX 4096u

/* 0, or -Exxx. Must fill all of buf, which is guest memory; may block. */
typedef int (*virtio_rng_fill)(void *ctx, void *buf, size_t len);

/* A small request costs more than its bytes: none counts for less against the limit. */
#define VIRTIO_RNG_BYTES_MIN 256u

struct virtio_rng_cfg {
	virtio_rng_fill fill; /* NULL: the kernel's generator */
	void *ctx;
	const struct guest_mem *mem; /* borrowed until close */
	struct irq_line irq;
	bool threaded;
	const char *name; /* of the worker; borrowed until close */
	uint64_t bytes_per_s; /* 0: no limit */
};

struct virtio_rng {
	struct virtio_mmio mmio;
	virtio_rng_fill fill;
	void *ctx;
	_Atomic uint64_t bytes; /* given; written by the worker */
};

int virtio_rng_open(struct virtio_rng *r, const struct virtio_rng_cfg *c, struct err *e);
/* As virtio_mmio_close. */
void virtio_rng_close(struct virtio_rng *r);
/* Any thread. */
void virtio_rng_device_stats(struct virtio_rng *r, struct device_stats *ret);

#endif
