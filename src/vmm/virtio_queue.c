/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See virtio_queue.h. Numbers in comments are sections of virtio 1.2.
 *
 * Order of memory accesses: guest memory is shared with vCPUs that run meanwhile. The
 * accessors copy with ordinary loads and stores, an aligned 16-bit index in one of them; the
 * fences here give the order that 2.7.13 asks for. Each names its partner in the driver.
 */
#include "vmm/virtio_queue.h"

#include <stdatomic.h>

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

/* 2.7.8 */
struct wire_used {
	uint32_t id;
	uint32_t len;
};
_Static_assert(sizeof(struct wire_used) == 8, "virtio 1.2, 2.7.8");

/* Both rings start with flags and idx, 16 bits each; entries follow, then the event index. */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_ENTRIES 4u
#define RING_EVENT_BYTES 2u
#define AVAIL_ENTRY_BYTES 2u

static gpa_t at(gpa_t base, uint64_t offset)
{
	return (gpa_t){base.v + offset};
}

/* What the accessors call -EFAULT is an address that the driver gave us. */
static int mem_rc(int rc)
{
	return rc == -EFAULT ? VIRTQ_MALFORMED : rc;
}

static int read_u16(const struct virtq *q, gpa_t gpa, uint16_t *ret)
{
	return mem_rc(guest_mem_read(q->mem, gpa, ret, sizeof(*ret)));
}

static int write_u16(const struct virtq *q, gpa_t gpa, uint16_t value)
{
	return mem_rc(guest_mem_write(q->mem, gpa, &value, sizeof(value)));
}

static uint64_t avail_bytes(const struct virtq *q)
{
	return RING_ENTRIES + (uint64_t)AVAIL_ENTRY_BYTES * q->size + RING_EVENT_BYTES;
}

static uint64_t used_bytes(const struct virtq *q)
{
	return RING_ENTRIES + (uint64_t)sizeof(struct wire_used) * q->size + RING_EVENT_BYTES;
}

static bool part_ok(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes, uint64_t align)
{
	return gpa.v % align == 0 && guest_mem_contains(mem, gpa, bytes);
}

int virtq_start(struct virtq *q, const struct guest_mem *mem, uint64_t features)
{
	if (!is_pow2(q->size) || q->size > VIRTQ_SIZE_MAX)
		return VIRTQ_MALFORMED;
	if (!part_ok(mem, q->desc, q->size * sizeof(struct wire_desc), VIRTQ_DESC_ALIGN) ||
	    !part_ok(mem, q->avail, avail_bytes(q), VIRTQ_AVAIL_ALIGN) ||
	    !part_ok(mem, q->used, used_bytes(q), VIRTQ_USED_ALIGN))
		return VIRTQ_MALFORMED;
	q->mem = mem;
	q->event_idx = features & VIRTIO_F_EVENT_IDX;
	q->indirect = features & VIRTIO_F_INDIRECT_DESC;
	q->avail_next = 0;
	q->used_next = 0;
	return 0;
}

/* ---- walking a chain ---- */

static int chain_add(const struct virtq *q, struct virtq_chain *c, const struct wire_desc *d)
{
	bool in = d->flags & DESC_WRITE;

	/* 2.7.4.2: what the device writes comes after all that it reads. */
	if (!in && c->in_count)
		return VIRTQ_MALFORMED;
	if (!guest_mem_contains(q->mem, (gpa_t){d->addr}, d->len))
		return VIRTQ_MALFORMED;
	/* 2.7.5.2: no chain is longer than 2^32 bytes. */
	if (c->out_len + c->in_len + d->len > UINT32_MAX)
		return VIRTQ_MALFORMED;
	if (d->len == 0) /* nowhere forbidden, and of no use */
		return 0;
	unsigned n = c->out_count + c->in_count;

	if (n == VIRTQ_SEGS_MAX)
		return VIRTQ_MALFORMED;
	c->segs[n] = (struct virtq_seg){.gpa = {d->addr}, .len = d->len};
	if (in) {
		c->in_count++;
		c->in_len += d->len;
	} else {
		c->out_count++;
		c->out_len += d->len;
	}
	return 0;
}

/* A table of descriptors in guest memory: the queue's own or an indirect one. */
struct table {
	gpa_t gpa;
	uint32_t count;
	bool indirect;
};

/*
 * Follows the chain from descriptor `i` of the table. *ret_indirect: an indirect
 * descriptor ended it. Bounded by the table's length: whoever takes more steps is in a loop.
 */
static int walk(const struct virtq *q, const struct table *t, uint32_t i, struct virtq_chain *c,
		struct wire_desc *ret_indirect, bool *ret_has_indirect)
{
	for (uint32_t steps = 0; steps < t->count; steps++) {
		struct wire_desc d;
		int rc;

		if (i >= t->count)
			return VIRTQ_MALFORMED;
		rc = mem_rc(guest_mem_read(q->mem, at(t->gpa, i * sizeof(d)), &d, sizeof(d)));
		if (rc < 0)
			return rc;
		if (d.flags & DESC_INDIRECT) {
			/* 2.7.5.3.1: negotiated, not nested, the last of its chain. */
			if (!q->indirect || t->indirect || (d.flags & DESC_NEXT))
				return VIRTQ_MALFORMED;
			*ret_indirect = d;
			*ret_has_indirect = true;
			return 0;
		}
		rc = chain_add(q, c, &d);
		if (rc < 0)
			return rc;
		if (!(d.flags & DESC_NEXT))
			return 0;
		i = d.next;
	}
	return VIRTQ_MALFORMED;
}

static int walk_all(const struct virtq *q, struct virtq_chain *c)
{
	struct table t = {.gpa = q->desc, .count = q->size};
	struct wire_desc d = {0};
	bool more = false;
	int rc = walk(q, &t, c->head, c, &d, &more);

	if (rc < 0 || !more)
		return rc;
	/* The flag for writing of the descriptor that holds the table means nothing (2.7.5.3.2). */
	if (d.len == 0 || d.len % sizeof(d) || d.len / sizeof(d) > VIRTQ_SEGS_MAX ||
	    !guest_mem_contains(q->mem, (gpa_t){d.addr}, d.len))
		return VIRTQ_MALFORMED;
	t = (struct table){
		.gpa = {d.addr}, .count = d.len / (uint32_t)sizeof(d), .indirect = true};
	return walk(q, &t, 0, c, &d, &more);
}

int virtq_pop(struct virtq *q, struct virtq_chain *ret)
{
	uint16_t idx, head;
	int rc = read_u16(q, at(q->avail, RING_IDX), &idx);

	if (rc < 0)
		return rc;
	if (idx == q->avail_next)
		return 0;
	/* More buffers than the queue has descriptors: the index has jumped. */
	if ((uint16_t)(idx - q->avail_next) > q->size)
		return VIRTQ_MALFORMED;
	/* Pairs with the driver's barrier between ring entry and idx (2.7.13.3). */
	atomic_thread_fence(memory_order_acquire);
	rc = read_u16(q, at(q->avail, RING_ENTRIES +
			    (uint64_t)AVAIL_ENTRY_BYTES * (q->avail_next % q->size)), &head);
	if (rc < 0)
		return rc;
	if (head >= q->size)
		return VIRTQ_MALFORMED;
	ret->head = head;
	ret->out_count = ret->in_count = 0;
	ret->out_len = ret->in_len = 0;
	rc = walk_all(q, ret);
	if (rc < 0)
		return rc;
	q->avail_next++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->avail_next--;
}

/* ---- giving back ---- */

/* 2.7.7: does moving the index to `now` pass what the driver waits for? */
static bool passes_event(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

int virtq_push(struct virtq *q, uint16_t head, uint32_t written, bool *ret_notify)
{
	struct wire_used u = {.id = head, .len = written};
	uint16_t before = q->used_next;
	uint16_t now = (uint16_t)(before + 1);
	uint16_t wish;
	int rc;

	ASSERT(head < q->size);
	rc = mem_rc(guest_mem_write(q->mem, at(q->used, RING_ENTRIES +
					       sizeof(u) * (uint64_t)(before % q->size)),
				    &u, sizeof(u)));
	if (rc < 0)
		return rc;
	/* Buffer and entry before idx; pairs with the driver's read barrier (2.7.14). */
	atomic_thread_fence(memory_order_release);
	rc = write_u16(q, at(q->used, RING_IDX), now);
	if (rc < 0)
		return rc;
	q->used_next = now;
	/*
	 * idx before the wish is read: pairs with the driver's full barrier between writing
	 * used_event (or flags) and looking at idx once more, so one of us sees the other.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (q->event_idx) {
		rc = read_u16(q, at(q->avail, avail_bytes(q) - RING_EVENT_BYTES), &wish);
		if (rc == 0)
			*ret_notify = passes_event(wish, now, before);
	} else {
		rc = read_u16(q, at(q->avail, RING_FLAGS), &wish);
		if (rc == 0)
			*ret_notify = !(wish & AVAIL_NO_INTERRUPT);
	}
	return rc;
}

int virtq_rearm(struct virtq *q)
{
	uint16_t idx;
	int rc = 0;

	/* Without event indices our flags stay 0, as the driver left them: always notify. */
	if (q->event_idx)
		rc = write_u16(q, at(q->used, used_bytes(q) - RING_EVENT_BYTES), q->avail_next);
	if (rc < 0)
		return rc;
	/* avail_event before idx; pairs with the driver's barrier in 2.7.13.4. */
	atomic_thread_fence(memory_order_seq_cst);
	rc = read_u16(q, at(q->avail, RING_IDX), &idx);
	return rc < 0 ? rc : idx != q->avail_next;
}

/* ---- contents ---- */

/*
 * Calls for each piece of [off, off + len) of segs[0 .. count). One of in and out is NULL:
 * the direction.
 */
static int copy_pieces(const struct virtq *q, const struct virtq_seg *segs, unsigned count,
		       uint64_t off, unsigned char *in, const unsigned char *out, size_t len)
{
	for (unsigned i = 0; i < count && len; i++) {
		if (off >= segs[i].len) {
			off -= segs[i].len;
			continue;
		}
		size_t n = (size_t)min_u64(len, segs[i].len - off);
		gpa_t gpa = at(segs[i].gpa, off);
		int rc = in ? guest_mem_read(q->mem, gpa, in, n)
			    : guest_mem_write(q->mem, gpa, out, n);

		if (rc < 0)
			return mem_rc(rc);
		if (in)
			in += n;
		else
			out += n;
		off = 0;
		len -= n;
	}
	ASSERT(len == 0);
	return 0;
}

int virtq_chain_read(const struct virtq *q, const struct virtq_chain *c, uint64_t off, void *buf,
		     size_t len)
{
	ASSERT(off <= c->out_len && len <= c->out_len - off);
	return copy_pieces(q, c->segs, c->out_count, off, buf, NULL, len);
}

int virtq_chain_write(const struct virtq *q, const struct virtq_chain *c, uint64_t off,
		      const void *buf, size_t len)
{
	ASSERT(off <= c->in_len && len <= c->in_len - off);
	return copy_pieces(q, c->segs + c->out_count, c->in_count, off, NULL, buf, len);
}
