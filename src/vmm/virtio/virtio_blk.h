/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk (virtio 1.2, 5.2): turns the buffers of one queue into reads, writes, flushes,
 * discards and zeroing of a blk_backing. Decides what a request may touch before it touches
 * it; trouble with the backing is a status byte, never more. Data goes straight between the
 * backing and guest memory, in pieces, between which a request can be cancelled.
 *
 * Without VIRTIO_BLK_F_FLUSH the driver takes writes for durable when they end (5.2.6.2), so
 * each is then flushed.
 *
 * Threads: requests on the worker of its virtio_mmio. Tests: tests/unit/virtio_blk_test.c,
 * virtio_blk_model_test.c.
 */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include <stdatomic.h>

#include "base/err.h"
#include "vmm/disk/blk_file.h"
#include "vmm/virtio/virtio_mmio.h"

#define VIRTIO_BLK_ID_BYTES 20u
#define VIRTIO_BLK_PIECE_BYTES 65536u

struct virtio_blk_stats {
	uint64_t reads, writes, flushes, others, errors;
	uint64_t bytes_read, bytes_written;
};

struct virtio_blk {
	struct virtio_mmio mmio;
	struct blk_backing backing;
	char id[VIRTIO_BLK_ID_BYTES];
	struct { /* written by the worker, read by anybody */
		_Atomic uint64_t reads, writes, flushes, others, errors;
		_Atomic uint64_t bytes_read, bytes_written;
	} count;
};

struct virtio_blk_cfg {
	const struct blk_backing *backing; /* copied; what it refers to is borrowed until close */
	const char *id;              /* what the guest sees as serial number, cut to 20 bytes */
	const struct guest_mem *mem; /* borrowed until close */
	struct irq_line irq;
	bool threaded;
	const char *name;            /* of the worker; borrowed until close */
	/*
	 * Of all its requests. A flush is one, and does not wait: what it has to make durable has
	 * waited before.
	 */
	struct virtio_limits limits;
};

/* The bus region is for &b->mmio with virtio_mmio_bus_ops. */
int virtio_blk_open(struct virtio_blk *b, const struct virtio_blk_cfg *c, struct err *e);
/* As virtio_mmio_close; then flushes what was written. The backing stays open. */
void virtio_blk_close(struct virtio_blk *b);

/* Any thread. */
void virtio_blk_stats_get(struct virtio_blk *b, struct virtio_blk_stats *ret);
void virtio_blk_device_stats(struct virtio_blk *b, struct device_stats *ret);

#endif
