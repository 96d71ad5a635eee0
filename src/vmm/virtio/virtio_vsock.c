/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_vsock.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/virtio_vsock.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define F_STREAM (1ull << 0) /* 5.10.3 */
/* However much the guest sends, the host's programs have their turn after so many packets. */
#define LOOK_AFTER 32u

enum {
	VSOCK_DEVICE_ID = 19, /* 5.10.1 */

	/* 5.10.2; the last one is for a guest that was restored. */
	QUEUE_RX = 0,
	QUEUE_TX = 1,
	QUEUE_EVENT = 2,
	QUEUES = 3,

	EVENT_TRANSPORT_RESET = 0, /* 5.10.6.7 */
};

static void hear(struct virtio_vsock *s)
{
	uint32_t next_port = atomic_exchange(&s->restored, 0);

	if (next_port) {
		s->mux.next_port = next_port;
		s->says_lost = true;
	}
	if (atomic_exchange(&s->was_reset, false)) {
		vsock_mux_reset(&s->mux);
		s->says_lost = false;
	}
}

void virtio_vsock_look(struct virtio_vsock *s, int timeout_ms)
{
	hear(s);
	s->served = 0;
	vsock_mux_poll(&s->mux, s->wake_fd, timeout_ms);
	hear(s);
	if (!s->mux.no_room && vsock_mux_pending(&s->mux))
		virtio_mmio_kick(&s->mmio, QUEUE_RX);
}

/* ---- queues ---- */

/* To the guest: a buffer is taken only for a packet. */
static int serve_rx(struct virtio_vsock *s, struct virtq *ring, bool *ret_tell)
{
	struct vsock_header h;
	int rc;

	s->mux.no_room = false;
	if (!vsock_mux_pending(&s->mux))
		return 0;
	rc = virtq_pop(ring, &s->chain);
	if (rc == 0) {
		s->mux.no_room = true;
		return virtq_rearm(ring);
	}
	if (rc < 0)
		return rc;
	/* 5.10.6.1.1: whole packets, of a header at least. */
	if (s->chain.in_len < sizeof(h) || s->chain.out_len)
		return VIRTQ_MALFORMED;
	if (!vsock_mux_next(&s->mux, (uint32_t)(s->chain.in_len - sizeof(h)), &h)) {
		virtq_unpop(ring);
		/* A buffer for headers alone, and there are data: the driver's affair. */
		return s->chain.in_len == sizeof(h) && vsock_mux_pending(&s->mux)
			       ? VIRTQ_MALFORMED : 0;
	}
	virtq_chain_write(&s->chain, 0, &h, sizeof(h));
	virtq_chain_write(&s->chain, sizeof(h), s->mux.packet, h.len);
	*ret_tell = virtq_push(ring, s->chain.head, (uint32_t)sizeof(h) + h.len);
	s->mmio.count.requests++;
	return 1;
}

/* From the guest. What is shorter than it says is no packet, and passed over. */
static int serve_tx(struct virtio_vsock *s, struct virtq *ring, bool *ret_tell)
{
	struct vsock_header h;
	int rc = virtq_pop(ring, &s->chain);

	if (rc == 0)
		return virtq_rearm(ring);
	if (rc < 0)
		return rc;
	if (s->chain.out_len < sizeof(h) || s->chain.in_len)
		return VIRTQ_MALFORMED;
	virtq_chain_read(&s->chain, 0, &h, sizeof(h));
	if (h.len <= s->chain.out_len - sizeof(h)) {
		virtq_chain_read(&s->chain, sizeof(h), s->mux.packet,
				 vsock_mux_wants_data(&s->mux, &h));
		vsock_mux_take(&s->mux, &h, s->mux.packet);
	}
	*ret_tell = virtq_push(ring, s->chain.head, 0);
	s->mmio.count.requests++;
	return 1;
}

/* An event takes a buffer, which is there sooner or later. */
static int serve_event(struct virtio_vsock *s, struct virtq *ring, bool *ret_tell)
{
	static const uint32_t event = EVENT_TRANSPORT_RESET;
	int rc;

	if (!s->says_lost)
		return 0;
	rc = virtq_pop(ring, &s->chain);
	if (rc == 0)
		return virtq_rearm(ring);
	if (rc < 0)
		return rc;
	if (s->chain.in_len < sizeof(event) || s->chain.out_len)
		return VIRTQ_MALFORMED;
	virtq_chain_write(&s->chain, 0, &event, sizeof(event));
	*ret_tell = virtq_push(ring, s->chain.head, sizeof(event));
	s->says_lost = false;
	return 0;
}

static int vsock_serve(void *dev, unsigned queue, struct virtq *ring,
		       const struct virtio_request *rq, bool *ret_tell)
{
	struct virtio_vsock *s = dev;
	int rc = 0;

	(void)rq;
	hear(s);
	/* Its driver is there, even if it has sent nothing yet. */
	s->mux.driven = true;
	if (++s->served >= LOOK_AFTER)
		virtio_vsock_look(s, 0);
	if (queue == QUEUE_RX)
		rc = serve_rx(s, ring, ret_tell);
	else if (queue == QUEUE_TX)
		rc = serve_tx(s, ring, ret_tell);
	else
		rc = serve_event(s, ring, ret_tell);
	/* An answer to what was just taken. */
	if (queue == QUEUE_TX && rc >= 0 && !s->mux.no_room && vsock_mux_pending(&s->mux))
		virtio_mmio_kick(&s->mmio, QUEUE_RX);
	return rc;
}

static void vsock_wait(void *dev)
{
	virtio_vsock_look(dev, -1);
}

static void vsock_wake(void *dev)
{
	static const uint64_t one = 1;
	struct virtio_vsock *s = dev;

	/* Fails only if it is full, and then the reader is on its way. */
	(void)!write(s->wake_fd, &one, sizeof(one));
}

/* The connections are the worker's: it ends them before it does anything else. */
static void vsock_stopped(void *dev, unsigned queue)
{
	struct virtio_vsock *s = dev;

	(void)queue;
	atomic_store(&s->was_reset, true);
}

static const struct virtio_dev_ops vsock_dev_ops = {
	.device_id = VSOCK_DEVICE_ID,
	.queues = QUEUES,
	.serve = vsock_serve,
	.wait = vsock_wait,
	.wake = vsock_wake,
	.stopped = vsock_stopped,
};

/* ---- for others ---- */

void virtio_vsock_stats_get(struct virtio_vsock *s, struct vsock_stats *ret)
{
	*ret = (struct vsock_stats){
		.vsock_connections = s->mux.count.open,
		.vsock_opened = s->mux.count.opened,
		.vsock_refused = s->mux.count.refused,
		.vsock_resets = s->mux.count.resets,
	};
}

void virtio_vsock_device_stats(struct virtio_vsock *s, struct device_stats *ret)
{
	virtio_mmio_stats_get(&s->mmio, ret);
	ret->read_bytes = s->mux.count.to_guest;
	ret->written_bytes = s->mux.count.from_guest;
}

void virtio_vsock_save(const struct virtio_vsock *s, struct vsock_saved *ret)
{
	*ret = (struct vsock_saved){s->mux.cid, s->mux.next_port};
}

void virtio_vsock_restore(struct virtio_vsock *s, const struct vsock_saved *from)
{
	atomic_store(&s->restored, from->next_port);
}

void virtio_vsock_restored(struct virtio_vsock *s, const struct vsock_saved *from)
{
	const uint64_t config = s->mux.cid;

	if (from->cid != s->mux.cid)
		virtio_mmio_config_set(&s->mmio, 0, &config, sizeof(config));
}

int virtio_vsock_open(struct virtio_vsock *s, const struct virtio_vsock_cfg *c, struct err *e)
{
	const uint64_t config = c->cid; /* 5.10.4 */
	const struct virtio_mmio_cfg cfg = {
		.ops = &vsock_dev_ops,
		.dev = s,
		.mem = c->mem,
		.irq = c->irq,
		.features = F_STREAM,
		.config = &config,
		.config_len = sizeof(config),
		.threaded = c->threaded,
		.name = c->name,
	};
	int rc;

	memset(s, 0, sizeof(*s));
	vsock_mux_init(&s->mux, c->cid, c->path, c->listen_fd, c->pause);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return err_sys(e, -errno, "virtio device %s: eventfd", c->name);
	rc = virtio_mmio_open(&s->mmio, &cfg, e);
	if (rc < 0)
		close(s->wake_fd);
	return rc;
}

void virtio_vsock_close(struct virtio_vsock *s)
{
	if (!s || !s->mmio.cfg.ops)
		return;
	virtio_mmio_close(&s->mmio);
	vsock_mux_fini(&s->mux);
	close(s->wake_fd);
}
