/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card (virtio 1.2, 5.1) with one queue each way: takes frames that the driver sends to
 * a net_backend, and lays what comes from there into as many of its buffers as it needs. Frames
 * go straight between guest memory and the backend; one alone is kept, where the driver has
 * not enough room for it. What the driver does not take stays in the backend, which bounds it.
 *
 * Threads: frames on the worker of its virtio_mmio, which also waits for the backend.
 * Tests: tests/unit/virtio_net_test.c, net_user_test.c, net_tap_test.c.
 */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include "base/err.h"
#include "vmm/virtio/net_backend.h"
#include "vmm/virtio/virtio_mmio.h"

enum { VIRTIO_NET_RX, VIRTIO_NET_TX, VIRTIO_NET_QUEUES };

/* A small frame costs more than its bytes: none counts for less against the limit. */
#define VIRTIO_NET_BYTES_MIN 256u

struct virtio_net_cfg {
	const struct net_backend *backend; /* copied; what it refers to is borrowed until close */
	uint8_t mac[NET_MAC_BYTES];
	const struct guest_mem *mem; /* borrowed until close */
	struct irq_line irq;
	const char *name;            /* of the worker; borrowed until close */
	uint64_t bytes_per_s;        /* both ways together; 0: no limit */
	/* The backend has gone, which is said once; by the worker. NULL: nobody wants to know. */
	void (*lost)(void *ctx, int code);
	void *lost_ctx;
};

/* Buffers of the driver's for a frame to come. */
struct virtio_net_room {
	struct iovec v[VIRTQ_SEGS_MAX + 1]; /* the last is for what does not fit */
	unsigned segs;
	struct {
		uint16_t head;
		uint32_t len;
	} buffers[VIRTQ_SEGS_MAX];
	unsigned count; /* of buffers */
	size_t len;     /* bytes of all */
	bool is_full;   /* it takes no more buffers */
};

struct virtio_net {
	struct virtio_mmio mmio;
	struct net_backend backend;
	void (*lost)(void *ctx, int code);
	void *lost_ctx;
	int wake_fd; /* eventfd: the worker shall look at the queues */

	/* The worker's. */
	struct virtq_chain chain;
	struct virtio_net_room room;
	unsigned char *held; /* NET_FRAME_MAX bytes */
	size_t held_len;     /* of the frame in there; 0: none */
	uint64_t features;   /* that the backend was told */
	bool has_features;
	bool is_lost;
	unsigned want;       /* of enum net_ready: what a queue waits for */
	unsigned busy_count; /* frames since the backend's turn */
	bool has_sent;       /* … some of them the guest's */
	struct rate rate;
	uint64_t again_ns[VIRTIO_NET_QUEUES]; /* when the limit lets it go on; 0: it does */
	struct { /* written by the worker, read by anybody */
		_Atomic uint64_t received, received_bytes; /* by the guest */
		_Atomic uint64_t sent, sent_bytes;
		_Atomic uint64_t dropped; /* either way */
		_Atomic uint64_t throttled_ns;
		_Atomic uint64_t throttled_since_ns; /* 0: it is not held back now */
	} count;
};

/* The bus region is for &n->mmio. No worker yet: virtio_mmio_start(). */
int virtio_net_open(struct virtio_net *n, const struct virtio_net_cfg *cfg, struct err *e);
/* As virtio_mmio_close. The backend stays open. */
void virtio_net_close(struct virtio_net *n);
/* For one that was restored from where there was no link any more. Any thread. */
void virtio_net_link_up(struct virtio_net *n);
/* Any thread. */
void virtio_net_device_stats(struct virtio_net *n, struct device_stats *ret);

#endif
