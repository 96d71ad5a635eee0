/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of network devices: the driver's side of both queues, with as many buffers as
 * they have entries, and waiting without a bound of time that a slow machine would miss.
 */
#ifndef VIRTIO_NET_FIXTURE_H
#define VIRTIO_NET_FIXTURE_H

#include <sched.h>

#include "virtio_fixture.h"
#include "vmm/virtio/net.h"

#define NX_RX 0x1000u /* descriptors; the rings follow, 0x1000 apart */
#define NX_TX 0x4000u
#define NX_BUFFERS 0x10000u /* for frames that come; those that go are behind */
#define NX_OUT 0xc0000u
#define NX_MRG (1ull << 15)
#define NX_NONE UINT32_MAX

struct nx_ring {
	uint32_t at; /* of its descriptors */
	uint16_t size, avail, used;
};

struct nx {
	struct vx x;
	struct virtio_net n;
	struct nx_ring rx, tx;
	uint32_t buffer_bytes; /* of each that is posted */
	int lost;              /* the code that was told; 0: none */
};

void nx_open(struct nx *f, const struct net_backend *backend, uint64_t bytes_per_s);
void nx_close(struct nx *f);
void nx_up(struct nx *f, uint64_t features, uint16_t size);
void nx_offer(struct nx *f, unsigned queue, struct nx_ring *r, uint16_t head);
/* A buffer for what comes: descriptor i, at its place. */
void nx_post(struct nx *f, uint16_t i);
/* A frame that goes, of one descriptor; of more than 128 at once, some are in the same place. */
void nx_send_with(struct nx *f, const unsigned char header[NET_HEADER_BYTES],
		  const void *frame, uint32_t len);
void nx_send(struct nx *f, const void *frame, uint32_t len);
bool nx_has(struct nx *f, const struct nx_ring *r);
/* The next used buffer's head, or NX_NONE. */
uint32_t nx_take(struct nx *f, struct nx_ring *r, uint32_t *ret_len);
/*
 * A frame that has come, with its header, put together of its buffers, which are posted anew if
 * `again`. Its length; 0: none.
 */
uint32_t nx_receive(struct nx *f, unsigned char *ret, bool again);
/* Everything that is there to do, without a worker. */
void nx_work(struct nx *f);
struct device_stats nx_stats(struct nx *f);

#endif
