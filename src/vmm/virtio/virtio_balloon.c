/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_balloon.h. Numbers in comments are sections of virtio 1.2. */
#include "vmm/virtio/virtio_balloon.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/time.h"

/* 5.5.3 */
#define F_STATS (1ull << 1)
#define F_DEFLATE_ON_OOM (1ull << 2)
#define F_FREE_PAGE_HINT (1ull << 3)
#define F_PAGE_POISON (1ull << 4)
#define F_REPORTING (1ull << 5)

enum {
	BALLOON_DEVICE_ID = 5, /* 5.5.1 */

	/* 5.5.2 */
	QUEUE_INFLATE = 0,
	QUEUE_DEFLATE = 1,
	QUEUE_STATS = 2,
	QUEUE_HINT = 3,
	QUEUE_REPORT = 4,
	QUEUES = 5,

	/* 5.5.6.4 */
	TAG_SWAP_IN = 0,
	TAG_SWAP_OUT = 1,
	TAG_MAJOR_FAULTS = 2,
	TAG_MINOR_FAULTS = 3,
	TAG_FREE = 4,
	TAG_TOTAL = 5,
	TAG_AVAILABLE = 6,
	TAG_CACHES = 7,
};

_Static_assert(QUEUES <= VIRTIO_QUEUES_MAX, "all of them");

/* 5.5.4 */
struct wire_config {
	uint32_t num_pages;
	uint32_t actual;
	uint32_t free_page_hint_cmd_id;
	uint32_t poison_val;
};
_Static_assert(sizeof(struct wire_config) == 16, "virtio 1.2, 5.5.4");

struct __attribute__((packed)) wire_stat {
	uint16_t tag;
	uint64_t value;
};
_Static_assert(sizeof(struct wire_stat) == 10, "virtio 1.2, 5.5.6.3");

/* More than any driver tells; the rest of a buffer is not looked at. */
#define STATS_MAX 64u

/* ---- giving memory back ---- */

static int give(struct virtio_balloon *b, gpa_t gpa, uint64_t len, _Atomic uint64_t *ret_bytes)
{
	int rc = b->discard(b->ctx, gpa, len);

	if (rc == -EINTR)
		return -ECANCELED;
	if (rc < 0)
		b->refused += len / PAGE_BYTES;
	else
		*ret_bytes += len;
	return 0;
}

/*
 * In order, which they nearly are as drivers send them. qsort() may allocate, and asks how much
 * memory the host has, which the sandbox forbids.
 */
static void sort(uint32_t *pages, unsigned count)
{
	for (unsigned i = 1; i < count; i++) {
		uint32_t page = pages[i];
		unsigned k = i;

		for (; k > 0 && pages[k - 1] > page; k--)
			pages[k] = pages[k - 1];
		pages[k] = page;
	}
}

/* A batch in order: neighbours together, none twice, what is no RAM not at all. */
static int give_pages(struct virtio_balloon *b, unsigned count)
{
	const struct guest_mem *mem = b->mmio.cfg.mem;
	int rc = 0;

	sort(b->pages, count);
	for (unsigned i = 0, next; i < count && rc == 0; i = next) {
		gpa_t gpa = {(uint64_t)b->pages[i] * PAGE_BYTES};
		uint64_t len = PAGE_BYTES;

		for (next = i + 1; next < count; next++) {
			uint64_t at = (uint64_t)b->pages[next] * PAGE_BYTES;

			if (at == gpa.v + len && guest_mem_at(mem, gpa, len + PAGE_BYTES))
				len += PAGE_BYTES;
			else if (at >= gpa.v + len)
				break;
		}
		if (guest_mem_at(mem, gpa, len))
			rc = give(b, gpa, len, &b->inflated);
		else
			b->refused++;
	}
	return rc;
}

static int inflate(struct virtio_balloon *b, const struct virtio_request *rq)
{
	uint64_t bytes = b->chain.out_len;
	int rc = 0;

	if (bytes % sizeof(b->pages[0]) || b->chain.in_len) /* 5.5.6: page numbers, to be read */
		return VIRTQ_MALFORMED;
	for (uint64_t off = 0; off < bytes && rc == 0;) {
		size_t n = (size_t)min_u64(bytes - off, sizeof(b->pages));

		if (atomic_load(rq->cancelled))
			return -ECANCELED;
		virtq_chain_read(&b->chain, off, b->pages, n);
		rc = give_pages(b, (unsigned)(n / sizeof(b->pages[0])));
		off += n;
	}
	return rc;
}

/* 5.5.6.7: whole pages of what the driver would have us write to. */
static int report(struct virtio_balloon *b, const struct virtio_request *rq)
{
	int rc = 0;

	/* 5.5.6.7.2: the pages may hold a pattern, which we would have to keep. */
	if (b->chain.out_len || ((rq->features & F_PAGE_POISON) && b->poison))
		return 0;
	for (unsigned i = 0; i < b->chain.in_count && rc == 0; i++) {
		const struct iovec *v = &b->chain.segs[i];
		gpa_t gpa = guest_mem_gpa(b->mmio.cfg.mem, v->iov_base);
		uint64_t from = align_up(gpa.v, PAGE_BYTES);
		uint64_t to = (gpa.v + v->iov_len) / PAGE_BYTES * PAGE_BYTES;

		if (atomic_load(rq->cancelled))
			return -ECANCELED;
		if (from < to)
			rc = give(b, (gpa_t){from}, to - from, &b->reported);
	}
	return rc;
}

/* ---- statistics ---- */

static void take_stats(struct virtio_balloon *b)
{
	struct wire_stat stats[STATS_MAX];
	unsigned count = (unsigned)min_u64(b->chain.out_len / sizeof(stats[0]), STATS_MAX);

	virtq_chain_read(&b->chain, 0, stats, count * sizeof(stats[0]));
	pthread_mutex_lock(&b->lock);
	for (unsigned i = 0; i < count; i++)
		if (stats[i].tag < BALLOON_TAGS)
			b->tags[stats[i].tag] = stats[i].value;
	b->told_ns = monotonic_ns();
	pthread_cond_broadcast(&b->told);
	pthread_mutex_unlock(&b->lock);
}

/*
 * 5.5.6.3: the device keeps the driver's buffer until it wants to know more. Of several the last
 * one is kept.
 */
static int serve_stats(struct virtio_balloon *b, struct virtq *ring, bool *ret_tell)
{
	uint32_t give_back = BALLOON_NO_HEAD;
	int rc;

	if (atomic_exchange(&b->refresh, false)) {
		give_back = b->held;
		b->held = BALLOON_NO_HEAD;
	}
	rc = virtq_pop(ring, &b->chain);
	if (rc == 1) {
		take_stats(b);
		b->mmio.count.requests++;
		if (give_back == BALLOON_NO_HEAD)
			give_back = b->held;
		b->held = b->chain.head;
	}
	/* Or no head; or, out of a snapshot, one that no ring of the driver's has. */
	if (give_back < ring->size)
		*ret_tell = virtq_push(ring, (uint16_t)give_back, 0);
	return rc == 0 ? virtq_rearm(ring) : rc;
}

/* ---- the device ---- */

static int serve_buffer(struct virtio_balloon *b, unsigned queue, const struct virtio_request *rq)
{
	switch (queue) {
	case QUEUE_INFLATE:
		return inflate(b, rq);
	case QUEUE_DEFLATE:
		return 0;
	case QUEUE_HINT:
		/* Where there is no hinting, some drivers put reporting here. */
		return rq->features & F_FREE_PAGE_HINT ? 0 : report(b, rq);
	default:
		return report(b, rq);
	}
}

static int balloon_serve(void *dev, unsigned queue, struct virtq *ring,
			 const struct virtio_request *rq, bool *ret_tell)
{
	struct virtio_balloon *b = dev;
	int rc;

	if (queue == QUEUE_STATS && (rq->features & F_STATS))
		return serve_stats(b, ring, ret_tell);
	rc = virtq_pop(ring, &b->chain);
	if (rc == 0)
		return virtq_rearm(ring);
	if (rc == 1)
		rc = serve_buffer(b, queue, rq);
	if (rc == -ECANCELED)
		virtq_unpop(ring);
	if (rc < 0)
		return rc;
	b->mmio.count.requests++;
	*ret_tell = virtq_push(ring, b->chain.head, 0);
	return 1;
}

static void balloon_stopped(void *dev, unsigned queue)
{
	struct virtio_balloon *b = dev;

	if (queue == QUEUE_STATS)
		b->held = BALLOON_NO_HEAD;
	if (queue == QUEUE_INFLATE) /* 5.5.6.2: after a reset the balloon is empty */
		b->actual = 0;
}

static bool balloon_config_write(void *dev, uint64_t off, unsigned width, uint32_t value)
{
	struct virtio_balloon *b = dev;

	if (width != sizeof(value))
		return false;
	if (off == offsetof(struct wire_config, actual))
		b->actual = value;
	else if (off == offsetof(struct wire_config, poison_val))
		b->poison = value;
	else
		return false;
	return true;
}

static const struct virtio_dev_ops balloon_dev_ops = {
	.device_id = BALLOON_DEVICE_ID,
	.queues = QUEUES,
	.serve = balloon_serve,
	.stopped = balloon_stopped,
	.config_write = balloon_config_write,
};

/* ---- for others ---- */

void virtio_balloon_target_set(struct virtio_balloon *b, uint64_t bytes)
{
	uint32_t pages = (uint32_t)min_u64(bytes / PAGE_BYTES, UINT32_MAX);

	b->target = pages;
	virtio_mmio_config_set(&b->mmio, offsetof(struct wire_config, num_pages), &pages,
			       sizeof(pages));
}

uint64_t virtio_balloon_target(struct virtio_balloon *b)
{
	return (uint64_t)b->target * PAGE_BYTES;
}

uint64_t virtio_balloon_actual(struct virtio_balloon *b)
{
	return (uint64_t)b->actual * PAGE_BYTES;
}

void virtio_balloon_refresh(struct virtio_balloon *b, uint64_t wait_ns)
{
	uint64_t start = monotonic_ns();
	struct timespec until = timespec_of_ns(start + wait_ns);
	bool answers;
	int rc = 0;

	if (!virtio_mmio_is_driven(&b->mmio))
		return;
	pthread_mutex_lock(&b->lock);
	/* A driver that never told any will not begin now. */
	answers = b->told_ns && b->told_ns >= b->asked_ns;
	if (answers)
		b->asked_ns = start;
	pthread_mutex_unlock(&b->lock);
	atomic_store(&b->refresh, true);
	virtio_mmio_kick(&b->mmio, QUEUE_STATS);
	pthread_mutex_lock(&b->lock);
	while (answers && b->told_ns < start && rc == 0)
		rc = pthread_cond_timedwait(&b->told, &b->lock, &until);
	pthread_mutex_unlock(&b->lock);
}

void virtio_balloon_stats_get(struct virtio_balloon *b, struct balloon_stats *ret)
{
	*ret = (struct balloon_stats){
		.balloon_target_bytes = virtio_balloon_target(b),
		.balloon_bytes = virtio_balloon_actual(b),
		.balloon_inflated_bytes = b->inflated,
		.balloon_reported_bytes = b->reported,
		.balloon_refused = b->refused,
	};
	pthread_mutex_lock(&b->lock);
	ret->guest_memory_bytes = b->tags[TAG_TOTAL];
	ret->guest_free_bytes = b->tags[TAG_FREE];
	ret->guest_available_bytes = b->tags[TAG_AVAILABLE];
	ret->guest_cache_bytes = b->tags[TAG_CACHES];
	ret->guest_major_faults = b->tags[TAG_MAJOR_FAULTS];
	ret->guest_minor_faults = b->tags[TAG_MINOR_FAULTS];
	ret->guest_swap_in_bytes = b->tags[TAG_SWAP_IN];
	ret->guest_swap_out_bytes = b->tags[TAG_SWAP_OUT];
	ret->guest_stats_age_ns = b->told_ns ? max_u64(monotonic_ns() - b->told_ns, 1) : 0;
	pthread_mutex_unlock(&b->lock);
}

void virtio_balloon_device_stats(struct virtio_balloon *b, struct device_stats *ret)
{
	virtio_mmio_stats_get(&b->mmio, ret);
	ret->written_bytes = b->inflated + b->reported;
}

void virtio_balloon_save(const struct virtio_balloon *b, struct balloon_saved *ret)
{
	*ret = (struct balloon_saved){b->target, b->actual, b->poison, b->held};
}

void virtio_balloon_restore(struct virtio_balloon *b, const struct balloon_saved *from)
{
	b->target = from->target;
	b->actual = from->actual;
	b->poison = from->poison;
	b->held = from->held;
}

static int init_told(struct virtio_balloon *b)
{
	pthread_condattr_t attr;
	int rc = -pthread_condattr_init(&attr);

	if (rc < 0)
		return rc;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	rc = -pthread_cond_init(&b->told, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

int virtio_balloon_open(struct virtio_balloon *b, const struct virtio_balloon_cfg *c,
			struct err *e)
{
	const struct wire_config config = {
		.num_pages = (uint32_t)min_u64(c->target_bytes / PAGE_BYTES, UINT32_MAX)};
	const struct virtio_mmio_cfg cfg = {
		.ops = &balloon_dev_ops,
		.dev = b,
		.mem = c->mem,
		.irq = c->irq,
		.features = F_STATS | F_DEFLATE_ON_OOM | F_FREE_PAGE_HINT | F_PAGE_POISON |
			    F_REPORTING,
		.config = &config,
		.config_len = sizeof(config),
		.threaded = c->threaded,
		.name = c->name,
	};
	int rc;

	memset(b, 0, sizeof(*b));
	b->discard = c->discard;
	b->ctx = c->ctx;
	b->held = BALLOON_NO_HEAD;
	b->target = config.num_pages;
	pthread_mutex_init(&b->lock, NULL);
	rc = init_told(b);
	if (rc < 0)
		return err_sys(e, rc, "virtio device %s", c->name);
	rc = virtio_mmio_open(&b->mmio, &cfg, e);
	if (rc < 0)
		pthread_cond_destroy(&b->told);
	return rc;
}

void virtio_balloon_close(struct virtio_balloon *b)
{
	if (!b || !b->mmio.cfg.ops)
		return;
	virtio_mmio_close(&b->mmio);
	pthread_cond_destroy(&b->told);
	pthread_mutex_destroy(&b->lock);
}
