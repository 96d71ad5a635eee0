/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For entries that are the driver of a virtio device: its registers, and rings at fixed places of
 * guest memory, so that an input can be that memory from address 0 on.
 */
#ifndef FUZZ_RINGS_H
#define FUZZ_RINGS_H

#include "bytes.h"
#include "vmm/virtio/virtio_mmio.h"

/* Of a queue, from where its rings begin: 64 descriptors at 0, then these. */
#define RING_AVAIL 0x400u
#define RING_USED 0x500u

static inline void ring_set(struct virtio_mmio *m, uint64_t reg, uint32_t value)
{
	virtio_mmio_bus_ops.write(m, reg, 4, value);
}

static inline uint32_t ring_status(struct virtio_mmio *m)
{
	return (uint32_t)virtio_mmio_bus_ops.read(m, 0x070, 4);
}

/* A reset, and features: these, and VIRTIO_F_VERSION_1. Queues come next, then ring_go(). */
static inline void ring_begin(struct virtio_mmio *m, uint32_t features_low)
{
	ring_set(m, 0x070, 0);
	ring_set(m, 0x070, 3);
	ring_set(m, 0x024, 0);
	ring_set(m, 0x020, features_low);
	ring_set(m, 0x024, 1);
	ring_set(m, 0x020, 1);
	ring_set(m, 0x070, 11);
}

static inline void ring_queue(struct virtio_mmio *m, uint32_t queue, uint32_t at, uint32_t size)
{
	ring_set(m, 0x030, queue);
	ring_set(m, 0x038, size);
	ring_set(m, 0x080, at);
	ring_set(m, 0x090, at + RING_AVAIL);
	ring_set(m, 0x0a0, at + RING_USED);
	ring_set(m, 0x044, 1);
}

static inline void ring_go(struct virtio_mmio *m)
{
	ring_set(m, 0x070, 15);
}

/* One call serves at most a queue's worth; a guest could go on for ever. */
static inline void ring_work(struct virtio_mmio *m, uint32_t queue)
{
	ring_set(m, 0x050, queue);
	for (unsigned i = 0; i < 8 && virtio_mmio_work(m); i++)
		;
}

#endif
