/* SPDX-License-Identifier: Apache-2.0 */
/* See net.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/time.h"

/* 5.1.3 */
#define F_MAC (1ull << 5)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)

enum {
	NET_DEVICE_ID = 1, /* 5.1.1 */
	LINK_UP = 1,       /* 5.1.4 */
};

/* So many frames in a row, then the backend's own work. */
#define BUSY_MAX 64u

/* 5.1.4, as far as our features make it valid. */
struct wire_config {
	uint8_t mac[NET_MAC_BYTES];
	uint16_t status;
};
_Static_assert(sizeof(struct wire_config) == 8, "virtio 1.2, 5.1.4");

/* 5.1.6 */
struct wire_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};
_Static_assert(sizeof(struct wire_header) == NET_HEADER_BYTES, "virtio 1.2, 5.1.6");

/* ---- the limit ---- */

/* May a frame go now? */
static bool may_go(struct virtio_net *n)
{
	uint64_t since = n->count.throttled_since_ns, now;

	if (n->rate.per_s == 0)
		return true;
	now = monotonic_ns();
	if (rate_wait_ns(&n->rate, now) > 0)
		return false;
	if (since) {
		/* Read the other way round: it may be counted too late, and never twice. */
		n->count.throttled_since_ns = 0;
		n->count.throttled_ns += now - since;
	}
	return true;
}

/* It may not: the queue is served again when it may. is_there: and there is one that waits. */
static void hold_back(struct virtio_net *n, unsigned queue, bool is_there)
{
	uint64_t now = monotonic_ns(), wait = rate_wait_ns(&n->rate, now);

	n->again_ns[queue] = wait < NS_NEVER - now ? now + wait : NS_NEVER;
	if (is_there && !n->count.throttled_since_ns)
		n->count.throttled_since_ns = now;
}

static void has_gone(struct virtio_net *n, size_t bytes)
{
	if (n->rate.per_s)
		rate_take(&n->rate, max_u64(bytes, VIRTIO_NET_BYTES_MIN), monotonic_ns());
}

/* ---- the backend ---- */

/* It has gone: the driver sees no link any more, and what it sends is lost. */
static void lose(struct virtio_net *n, int code)
{
	static const uint16_t down;

	if (n->is_lost)
		return;
	n->is_lost = true;
	virtio_mmio_config_set(&n->mmio, offsetof(struct wire_config, status), &down,
			       sizeof(down));
	if (n->lost)
		n->lost(n->lost_ctx, code);
}

/* What a driver before this one left behind is not in this one's form. */
static void take_features(struct virtio_net *n, uint64_t features)
{
	int rc;

	if (n->has_features && n->features == features)
		return;
	n->has_features = true;
	n->features = features;
	n->held_len = 0;
	rc = n->backend.ops->features_set(n->backend.ctx, features);
	if (rc < 0)
		lose(n, rc);
}

/* The backend's turn. What comes of it makes a queue one to be served. True: we are woken. */
static bool backend_turn(struct virtio_net *n, uint64_t until_ns)
{
	unsigned ready = n->backend.ops->wait(n->backend.ctx, n->wake_fd, n->want, until_ns);
	bool again = n->again_ns[VIRTIO_NET_RX] || n->again_ns[VIRTIO_NET_TX];
	uint64_t now = again ? monotonic_ns() : 0;
	bool goes[VIRTIO_NET_QUEUES] = {
		[VIRTIO_NET_RX] = ready & n->want & NET_CAN_RECEIVE,
		[VIRTIO_NET_TX] = ready & n->want & NET_CAN_SEND,
	};

	n->want &= ~ready;
	n->busy_count = 0;
	n->has_sent = false;
	for (unsigned i = 0; i < VIRTIO_NET_QUEUES; i++) {
		if (n->again_ns[i] && n->again_ns[i] <= now) {
			n->again_ns[i] = 0;
			goes[i] = true;
		}
		if (goes[i])
			virtio_mmio_kick(&n->mmio, i);
	}
	return ready & NET_WOKEN;
}

static void net_wait(void *dev)
{
	struct virtio_net *n = dev;
	uint64_t until = NS_NEVER, count;

	for (unsigned i = 0; i < VIRTIO_NET_QUEUES; i++)
		if (n->again_ns[i])
			until = min_u64(until, n->again_ns[i]);
	if (backend_turn(n, until))
		(void)!read(n->wake_fd, &count, sizeof(count));
}

static void net_wake(void *dev)
{
	static const uint64_t one = 1;
	struct virtio_net *n = dev;

	(void)!write(n->wake_fd, &one, sizeof(one));
}

/* ---- to the guest ---- */

static void give_back(struct virtq *ring, unsigned count)
{
	while (count--)
		virtq_unpop(ring);
}

/* Another buffer of the driver's. 1: it is in the room; 0: none is left, or the room is full. */
static int add_buffer(struct virtio_net *n, struct virtq *ring)
{
	struct virtio_net_room *r = &n->room;
	int rc = virtq_pop(ring, &n->chain);

	if (rc <= 0)
		return rc;
	/* 5.1.6.3.1: each has room for a header; and the driver reads them all. */
	if (n->chain.out_len || n->chain.in_len < NET_HEADER_BYTES)
		return VIRTQ_MALFORMED;
	if (r->segs + n->chain.in_count > VIRTQ_SEGS_MAX) {
		virtq_unpop(ring);
		r->is_full = true;
		return 0;
	}
	memcpy(&r->v[r->segs], n->chain.segs, n->chain.in_count * sizeof(*r->v));
	r->segs += n->chain.in_count;
	r->len += n->chain.in_len;
	r->buffers[r->count].head = n->chain.head;
	r->buffers[r->count].len = (uint32_t)n->chain.in_len;
	r->count++;
	return 1;
}

/*
 * Buffers for one frame of `len` bytes, or as many as there are. A driver that has not asked for
 * it gets no frame in more than one. None is given back meanwhile, and the driver may offer more:
 * virtq_pop does not see that there are more than the ring has.
 */
static int make_room(struct virtio_net *n, struct virtq *ring, size_t len)
{
	struct virtio_net_room *r = &n->room;
	unsigned most = n->features & F_MRG_RXBUF ? ring->size : 1;
	int rc = 1;

	r->segs = r->count = 0;
	r->len = 0;
	r->is_full = false;
	while (rc > 0 && r->len < len && !r->is_full) {
		rc = add_buffer(n, ring);
		r->is_full |= r->count == most;
	}
	return rc < 0 ? rc : 0;
}

/* Copies into the room, from its offset on. */
static void room_write(const struct virtio_net_room *r, size_t off, const void *from, size_t len)
{
	const unsigned char *at = from;

	for (unsigned i = 0; len; i++) {
		size_t size = r->v[i].iov_len, part;

		if (off >= size) {
			off -= size;
			continue;
		}
		part = min_u64(len, size - off);
		memcpy((unsigned char *)r->v[i].iov_base + off, at, part);
		at += part;
		len -= part;
		off = 0;
	}
}

/* The frame is in the room: the buffers it takes are the driver's, all at once. */
static bool deliver(struct virtio_net *n, struct virtq *ring, size_t len)
{
	struct virtio_net_room *r = &n->room;
	size_t left = len;
	uint16_t used = 0;

	for (; left; used++) {
		uint32_t part = (uint32_t)min_u64(left, r->buffers[used].len);

		virtq_fill(ring, used, r->buffers[used].head, part);
		left -= part;
	}
	room_write(r, offsetof(struct wire_header, num_buffers), &used, sizeof(used));
	give_back(ring, r->count - used);
	n->count.received++;
	n->count.received_bytes += len - NET_HEADER_BYTES;
	has_gone(n, len);
	return virtq_publish(ring, used);
}

/* The longest frame that may come, with its header. */
static size_t longest(const struct virtio_net *n)
{
	return n->features & (NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6)
		       ? NET_FRAME_MAX : NET_HEADER_BYTES + n->backend.frame_max;
}

/* What of a frame is in the room belongs before what of it we hold. */
static void hold_all(struct virtio_net *n, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n->room.segs; i++) {
		guest_mem_once(n->held + done, n->room.v[i].iov_base, n->room.v[i].iov_len);
		done += n->room.v[i].iov_len;
	}
	n->held_len = len;
}

/*
 * A frame into the room, where that is large enough for most, or else into what we hold.
 * Its length, or -Exxx.
 */
static ssize_t take_frame(struct virtio_net *n)
{
	const struct net_backend *b = &n->backend;
	struct virtio_net_room *r = &n->room;
	bool fits = r->len >= longest(n);
	size_t at = fits ? min_u64(r->len, NET_FRAME_MAX) : 0;
	const struct iovec rest = {.iov_base = n->held + at, .iov_len = NET_FRAME_MAX - at};
	ssize_t len;

	if (fits) {
		r->v[r->segs] = rest;
		len = b->ops->receive(b->ctx, r->v, r->segs + 1);
		if (len > (ssize_t)r->len && (size_t)len <= NET_FRAME_MAX)
			hold_all(n, (size_t)len);
		return len;
	}
	len = b->ops->receive(b->ctx, &rest, 1);
	if (len > 0 && (size_t)len <= NET_FRAME_MAX)
		n->held_len = (size_t)len;
	return len;
}

/* No room for what we hold. Later, or never if more buffers would not help. */
static int wait_for_room(struct virtio_net *n, struct virtq *ring)
{
	bool never = n->room.is_full;
	int more = never ? 1 : virtq_rearm(ring);

	give_back(ring, n->room.count);
	if (never) {
		n->held_len = 0;
		n->count.dropped++;
	}
	return more;
}

static bool is_there(struct virtio_net *n)
{
	const struct net_backend *b = &n->backend;

	return n->held_len || (b->ops->wait(b->ctx, n->wake_fd, NET_CAN_RECEIVE, 0) &
			       NET_CAN_RECEIVE);
}

static int failed_to_take(struct virtio_net *n, struct virtq *ring, int rc)
{
	give_back(ring, n->room.count);
	if (rc == -EFAULT)
		return rc;
	if (rc == -EAGAIN)
		n->want |= NET_CAN_RECEIVE;
	else if (rc == -ENODEV)
		lose(n, rc);
	else
		n->count.dropped++;
	return rc != -EAGAIN && rc != -ENODEV;
}

static int serve_rx(struct virtio_net *n, struct virtq *ring, bool *ret_tell)
{
	size_t len = n->held_len;
	int rc = make_room(n, ring, len ? len : longest(n));

	if (rc < 0)
		return rc;
	if (n->room.count == 0)
		return virtq_rearm(ring);
	if (n->is_lost) {
		give_back(ring, n->room.count);
		return 0;
	}
	if (!may_go(n)) {
		give_back(ring, n->room.count);
		hold_back(n, VIRTIO_NET_RX, is_there(n));
		return 0;
	}
	if (!len) {
		ssize_t got = take_frame(n);

		if (got < 0)
			return failed_to_take(n, ring, (int)got);
		len = (size_t)got;
		if (len < NET_HEADER_BYTES || (!n->held_len && len > n->room.len)) {
			give_back(ring, n->room.count);
			n->held_len = 0;
			n->count.dropped++;
			return 1;
		}
	}
	if (n->held_len) {
		if (len > n->room.len)
			return wait_for_room(n, ring);
		room_write(&n->room, 0, n->held, len);
		n->held_len = 0;
	}
	*ret_tell = deliver(n, ring, len);
	return 1;
}

/* ---- from the guest ---- */

static int serve_tx(struct virtio_net *n, struct virtq *ring, bool *ret_tell)
{
	const struct virtq_chain *c = &n->chain;
	int rc = virtq_pop(ring, &n->chain);

	if (rc == 0)
		return virtq_rearm(ring);
	if (rc < 0)
		return rc;
	if (c->in_len || c->out_len < NET_HEADER_BYTES) /* 5.1.6.2 */
		return VIRTQ_MALFORMED;
	if (!may_go(n)) {
		virtq_unpop(ring);
		hold_back(n, VIRTIO_NET_TX, true);
		return 0;
	}
	rc = -EMSGSIZE;
	if (n->is_lost)
		rc = -ENODEV;
	else if (c->out_len >= NET_HEADER_BYTES + NET_ETHERNET_BYTES &&
		 c->out_len <= NET_FRAME_MAX)
		rc = n->backend.ops->send(n->backend.ctx, c->segs, c->out_count,
					  (size_t)c->out_len);
	if (rc == -EAGAIN) {
		virtq_unpop(ring);
		n->want |= NET_CAN_SEND;
		return 0;
	}
	if (rc == -EFAULT)
		return rc;
	if (rc == -ENODEV)
		lose(n, rc);
	if (rc < 0) {
		n->count.dropped++;
	} else {
		n->has_sent = true;
		n->count.sent++;
		n->count.sent_bytes += c->out_len - NET_HEADER_BYTES;
	}
	has_gone(n, (size_t)c->out_len);
	*ret_tell = virtq_push(ring, c->head, 0);
	return 1;
}

static int net_serve(void *dev, unsigned queue, struct virtq *ring,
		     const struct virtio_request *rq, bool *ret_tell)
{
	struct virtio_net *n = dev;
	int rc;

	take_features(n, rq->features);
	if (++n->busy_count > BUSY_MAX)
		backend_turn(n, 0);
	n->again_ns[queue] = 0;
	if (queue == VIRTIO_NET_TX) {
		rc = serve_tx(n, ring, ret_tell);
		/* What comes of it goes with the same interrupt. */
		if (rc == 0 && n->has_sent && n->backend.answers)
			backend_turn(n, 0);
		return rc;
	}
	n->want &= ~(unsigned)NET_CAN_RECEIVE;
	return serve_rx(n, ring, ret_tell);
}

static const struct virtio_dev_ops net_dev_ops = {
	.device_id = NET_DEVICE_ID,
	.queues = VIRTIO_NET_QUEUES,
	.serve = net_serve,
	.wait = net_wait,
	.wake = net_wake,
};

/* ---- life ---- */

int virtio_net_open(struct virtio_net *n, const struct virtio_net_cfg *c, struct err *e)
{
	struct wire_config config = {.status = LINK_UP};
	const struct virtio_mmio_cfg cfg = {
		.ops = &net_dev_ops,
		.dev = n,
		.mem = c->mem,
		.irq = c->irq,
		.features = F_MAC | F_MRG_RXBUF | F_STATUS | c->backend->features,
		.config = &config,
		.config_len = sizeof(config),
		.name = c->name,
	};
	int rc;

	memset(n, 0, sizeof(*n));
	memcpy(config.mac, c->mac, sizeof(config.mac));
	n->backend = *c->backend;
	n->lost = c->lost;
	n->lost_ctx = c->lost_ctx;
	rate_init(&n->rate, c->bytes_per_s, NET_FRAME_MAX);
	n->held = malloc(NET_FRAME_MAX);
	n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!n->held || n->wake_fd < 0)
		rc = err_sys(e, n->held ? -errno : -ENOMEM, "network device %s", c->name);
	else
		rc = virtio_mmio_open(&n->mmio, &cfg, e);
	if (rc == 0)
		return 0;
	free(n->held);
	if (n->wake_fd >= 0)
		close(n->wake_fd);
	memset(n, 0, sizeof(*n));
	return rc;
}

void virtio_net_close(struct virtio_net *n)
{
	if (!n || !n->mmio.cfg.ops)
		return;
	virtio_mmio_close(&n->mmio);
	close(n->wake_fd);
	free(n->held);
	memset(n, 0, sizeof(*n));
}

void virtio_net_link_up(struct virtio_net *n)
{
	static const uint16_t up = LINK_UP;

	virtio_mmio_config_set(&n->mmio, offsetof(struct wire_config, status), &up, sizeof(up));
}

void virtio_net_device_stats(struct virtio_net *n, struct device_stats *ret)
{
	uint64_t throttled = n->count.throttled_ns, since = n->count.throttled_since_ns;

	virtio_mmio_stats_get(&n->mmio, ret);
	ret->requests = n->count.received + n->count.sent;
	ret->read_bytes = n->count.received_bytes;
	ret->written_bytes = n->count.sent_bytes;
	ret->dropped = n->count.dropped;
	ret->throttled_ns = throttled + (since ? monotonic_ns() - since : 0);
}
