/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See virtio_queue.h. Numbers in comments are sections of virtio 1.2.
 *
 * Order of memory accesses: guest memory is shared with vCPUs that run meanwhile. Indices are
 * read and written by atomic accesses with the order that 2.7.13 asks for; each names its
 * partner in the driver.
 */
#include "vmm/virtio/virtio_queue.h"

#include <errno.h>

#include "base/assert.h"

enum {
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	DESC_INDIRECT = 4,

	AVAIL_NO_INTERRUPT = 1,
};

/* 2.7.5 */
struct wire_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct wire_desc) == 16, "virtio 1.2, 2.7.5");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

/* 2.7.6; the event index follows the ring. */
struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};
_Static_assert(sizeof(struct virtq_avail) == 4, "virtio 1.2, 2.7.6");

/* 2.7.8; the event index follows the ring. */
struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct wire_used {
		uint32_t id;
		uint32_t len;
	} ring[];
};
_Static_assert(sizeof(struct virtq_used) == 4, "virtio 1.2, 2.7.8");
_Static_assert(sizeof(struct wire_used) == 8, "virtio 1.2, 2.7.8");

static void *part_at(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes, uint64_t align)
{
	return gpa.v % align == 0 ? guest_mem_at(mem, gpa, bytes) : NULL;
}

int virtq_start(struct virtq *q, const struct guest_mem *mem, uint64_t features)
{
	uint64_t n = q->size;

	if (!is_pow2(n) || n > VIRTQ_SIZE_MAX)
		return VIRTQ_MALFORMED;
	q->mem = mem;
	q->desc_at = part_at(mem, q->desc, virtq_desc_bytes(n), VIRTQ_DESC_ALIGN);
	q->avail_at = part_at(mem, q->avail, virtq_avail_bytes(n), VIRTQ_AVAIL_ALIGN);
	q->used_at = part_at(mem, q->used, virtq_used_bytes(n), VIRTQ_USED_ALIGN);
	if (!q->desc_at || !q->avail_at || !q->used_at)
		return VIRTQ_MALFORMED;
	q->event_idx = features & VIRTIO_F_EVENT_IDX;
	q->indirect = features & VIRTIO_F_INDIRECT_DESC;
	q->avail_next = 0;
	q->used_next = 0;
	return 0;
}

/* ---- walking a chain ---- */

static int chain_add(const struct virtq *q, struct virtq_chain *c, const struct wire_desc *d)
{
	void *at = guest_mem_at(q->mem, (gpa_t){d->addr}, d->len);
	bool in = d->flags & DESC_WRITE;
	unsigned n = c->out_count + c->in_count;

	/* 2.7.4.2: what the device writes comes after all that it reads. */
	if (!at || (!in && c->in_count))
		return VIRTQ_MALFORMED;
	/* 2.7.5.2: no chain is longer than 2^32 bytes. */
	if (c->out_len + c->in_len + d->len > UINT32_MAX)
		return VIRTQ_MALFORMED;
	if (d->len == 0) /* nowhere forbidden, and of no use */
		return 0;
	if (in)
		guest_mem_wrote(q->mem, at, d->len);
	if (n == VIRTQ_SEGS_MAX)
		return VIRTQ_MALFORMED;
	c->segs[n] = (struct iovec){.iov_base = at, .iov_len = d->len};
	if (in) {
		c->in_count++;
		c->in_len += d->len;
	} else {
		c->out_count++;
		c->out_len += d->len;
	}
	return 0;
}

/*
 * Follows the chain from its head through the queue's table and, where that says so, an
 * indirect one. Bounded by their lengths: whoever takes more steps is in a loop.
 */
static int walk(const struct virtq *q, struct virtq_chain *c)
{
	const unsigned char *table = q->desc_at;
	uint32_t count = q->size, i = c->head;
	bool nested = false;

	for (uint32_t left = count; left > 0 && i < count; left--) {
		struct wire_desc d;

		guest_mem_once(&d, table + i * sizeof(d), sizeof(d));
		i = d.next;
		if (d.flags & DESC_INDIRECT) {
			/* 2.7.5.3.1: negotiated, not nested, the last of its chain. */
			if (!q->indirect || nested || (d.flags & DESC_NEXT))
				return VIRTQ_MALFORMED;
			/* Its flag for writing means nothing (2.7.5.3.2). */
			table = guest_mem_at(q->mem, (gpa_t){d.addr}, d.len);
			count = d.len / (uint32_t)sizeof(d);
			if (!table || d.len % sizeof(d) || count > VIRTQ_SEGS_MAX)
				return VIRTQ_MALFORMED;
			nested = true;
			left = count + 1;
			i = 0;
			continue;
		}
		if (chain_add(q, c, &d) < 0)
			return VIRTQ_MALFORMED;
		if (!(d.flags & DESC_NEXT))
			return 0;
	}
	return VIRTQ_MALFORMED;
}

int virtq_pop(struct virtq *q, struct virtq_chain *ret)
{
	/* Pairs with the driver's barrier between ring entry and idx (2.7.13.3). */
	uint16_t idx = __atomic_load_n(&q->avail_at->idx, __ATOMIC_ACQUIRE);

	if (idx == q->avail_next)
		return 0;
	/* More buffers than the queue has descriptors: the index has jumped. */
	if ((uint16_t)(idx - q->avail_next) > q->size)
		return VIRTQ_MALFORMED;
	ret->out_count = ret->in_count = 0;
	ret->out_len = ret->in_len = 0;
	ret->head = __atomic_load_n(&q->avail_at->ring[q->avail_next % q->size],
				    __ATOMIC_RELAXED);
	if (walk(q, ret) < 0)
		return VIRTQ_MALFORMED;
	q->avail_next++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->avail_next--;
}

/* ---- giving back ---- */

/* The used ring was written to: a buffer was given back, or a notification asked for. */
static void used_written(const struct virtq *q)
{
	guest_mem_wrote(q->mem, q->used_at, virtq_used_bytes(q->size));
}

/* 2.7.7: does moving the index to `now` pass what the driver waits for? */
static bool passes_event(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

void virtq_fill(struct virtq *q, uint16_t nth, uint16_t head, uint32_t written)
{
	uint32_t at = (uint16_t)(q->used_next + nth) % q->size;

	ASSERT(head < q->size && nth < q->size);
	q->used_at->ring[at] = (struct wire_used){.id = head, .len = written};
	used_written(q);
}

bool virtq_publish(struct virtq *q, uint16_t count)
{
	const uint16_t *wish = q->event_idx ? &q->avail_at->ring[q->size] : &q->avail_at->flags;
	uint16_t before = q->used_next;
	uint16_t said;

	q->used_next = (uint16_t)(before + count);
	/*
	 * Buffers and entries before idx; pairs with the driver's read barrier (2.7.14). And idx
	 * before the wish is read: pairs with the driver's full barrier between writing used_event
	 * (or flags) and looking at idx once more, so one of us sees the other.
	 */
	__atomic_store_n(&q->used_at->idx, q->used_next, __ATOMIC_SEQ_CST);
	used_written(q);
	said = __atomic_load_n(wish, __ATOMIC_SEQ_CST);
	return q->event_idx ? passes_event(said, q->used_next, before)
			    : !(said & AVAIL_NO_INTERRUPT);
}

bool virtq_push(struct virtq *q, uint16_t head, uint32_t written)
{
	virtq_fill(q, 0, head, written);
	return virtq_publish(q, 1);
}

bool virtq_rearm(struct virtq *q)
{
	/*
	 * avail_event before idx is read; pairs with the driver's barrier in 2.7.13.4. Without
	 * event indices our flags stay 0, as the driver left them: always notify.
	 */
	if (q->event_idx) {
		__atomic_store_n((uint16_t *)&q->used_at->ring[q->size], q->avail_next,
				 __ATOMIC_SEQ_CST);
		used_written(q);
	}
	return __atomic_load_n(&q->avail_at->idx, __ATOMIC_SEQ_CST) != q->avail_next;
}

/* ---- contents ---- */

/* What is left of a range of a chain's one part. */
struct pieces {
	const struct iovec *seg;
	uint64_t off; /* from its start on */
	size_t len;
};

static struct pieces out_of(const struct virtq_chain *c, uint64_t off, size_t len)
{
	ASSERT(off <= c->out_len && len <= c->out_len - off);
	return (struct pieces){c->segs, off, len};
}

static struct pieces in_of(const struct virtq_chain *c, uint64_t off, size_t len)
{
	ASSERT(off <= c->in_len && len <= c->in_len - off);
	return (struct pieces){c->segs + c->out_count, off, len};
}

static bool next(struct pieces *p, struct iovec *ret)
{
	if (p->len == 0)
		return false;
	for (; p->off >= p->seg->iov_len; p->seg++)
		p->off -= p->seg->iov_len;
	ret->iov_base = (unsigned char *)p->seg->iov_base + p->off;
	ret->iov_len = min_u64(p->len, p->seg->iov_len - p->off);
	p->off += ret->iov_len;
	p->len -= ret->iov_len;
	return true;
}

static unsigned list(struct pieces p, struct iovec *ret)
{
	unsigned n = 0;

	while (next(&p, &ret[n]))
		n++;
	return n;
}

unsigned virtq_chain_out(const struct virtq_chain *c, uint64_t off, size_t len,
			 struct iovec ret[VIRTQ_SEGS_MAX])
{
	return list(out_of(c, off, len), ret);
}

unsigned virtq_chain_in(const struct virtq_chain *c, uint64_t off, size_t len,
			struct iovec ret[VIRTQ_SEGS_MAX])
{
	return list(in_of(c, off, len), ret);
}

void virtq_chain_read(const struct virtq_chain *c, uint64_t off, void *buf, size_t len)
{
	struct pieces p = out_of(c, off, len);
	unsigned char *to = buf;

	for (struct iovec v; next(&p, &v); to += v.iov_len)
		guest_mem_once(to, v.iov_base, v.iov_len);
}

void virtq_chain_write(const struct virtq_chain *c, uint64_t off, const void *buf, size_t len)
{
	struct pieces p = in_of(c, off, len);
	const unsigned char *from = buf;

	for (struct iovec v; next(&p, &v); from += v.iov_len)
		memcpy(v.iov_base, from, v.iov_len);
}
