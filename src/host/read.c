/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One read: what stands behind a block, what is asked of its source, and how the read ends. Its
 * content goes into the alias (the source puts it there), and the fetch is FILLED; show.c has the
 * rest. A failed read is repeated with a growing delay; past the limit, or when a source does not
 * answer in time, the VM is paused and nothing is lost: hst_resume goes on.
 * Tests: tests/unit/host_fetch_test.c, host_swap_test.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/sum.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/trace.h"
#include "host/trouble.h"

/* ---- what stands behind a block ---- */

uint64_t fetch_backed_bytes(const struct ram_backing *b, roff_t off, uint64_t len)
{
	uint64_t skip = off.v - b->roff.v;
	uint64_t at = b->src_offset + skip;

	if (at >= b->src->size)
		return 0;
	return min_u64(min_u64(len, b->bytes - skip), b->src->size - at);
}

struct ram_backing *fetch_backing(struct hst *h, uint32_t block)
{
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	if (block_is(h, block, BLOCK_IN_SWAP))
		return &h->swap.backing;
	return block_is(h, block, BLOCK_ZEROES) ? NULL : ram_backing_at(&h->ram, off);
}

void fetch_near(const struct hst *h, uint32_t block, uint64_t bytes, uint32_t *ret_start,
		uint32_t *ret_end)
{
	uint32_t count = (uint32_t)max_u64(bytes >> h->cfg.block_shift, 1);
	const struct ram_region *r;
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	r = ram_region_at(&h->ram, off);
	*ret_start = block & ~(count - 1);
	/* A region begins at a chunk, but may end anywhere. */
	*ret_end = (uint32_t)min_u64(*ret_start + count,
				     (r->roff.v + r->bytes) >> h->cfg.block_shift);
}

/* ---- how a read ends ---- */

void fetch_trouble(struct hst_fetch *f, enum hst_fetch_state state, const struct err *why)
{
	f->state = state;
	trouble_begin(f->h, f->block, f->tries + 1u, why);
}

/* Read along, and nobody has asked for it until now. */
static bool is_unwanted(const struct hst_fetch *f)
{
	return f->ahead && !f->waiters.first;
}

/* Who wants it reads it again. What of it came into memory counts again then. */
static void fetch_give_up(struct hst_fetch *f)
{
	struct hst *h = f->h;

	block_set_kind(h, f->block, BLOCK_ABSENT);
	budget_uncharge(h);
	fetch_free(f);
}

static void read_failed(struct hst_fetch *f, const struct err *why)
{
	struct hst *h = f->h;

	if (is_unwanted(f)) {
		fetch_give_up(f);
		return;
	}
	if (f->tries >= h->cfg.retries_max) {
		fetch_trouble(f, HST_FETCH_FAILED, why);
		return;
	}
	h->stats.read_retries++;
	f->state = HST_FETCH_BACKOFF;
	timer_arm(&h->timers, &f->timer, hst_now(h) + backoff_ns(f->tries++));
}

/* Is what was read what the swap file was given? */
static bool is_sound(const struct hst_fetch *f, struct err *ret_why)
{
	const struct hst *h = f->h;

	if (f->backing != &h->swap.backing ||
	    sum_of(f->rd.buf, f->rd.len) == h->evict.sums[f->block])
		return true;
	err_set(ret_why, -EIO, "swap file: what is at byte %llu is not what was written there; "
		"something else has changed it", (unsigned long long)f->rd.offset);
	return false;
}

/* Of several that were read together each ends by itself; a failure may be another's. */
static void read_ended(struct hst_fetch *f, const struct err *why, bool several)
{
	struct hst *h = f->h;
	enum hst_fetch_state was = f->state;
	bool follows = f->follows;
	struct err unsound;

	ASSERT(was == HST_FETCH_READING || was == HST_FETCH_STUCK || was == HST_FETCH_CANCELLED);
	f->follows = false;
	if (!why && !is_sound(f, &unsound)) {
		h->stats.read_errors++;
		why = &unsound;
		several = false;
	}
	if (!why) {
		h->stats.read_bytes += f->rd.len;
		if (is_unwanted(f) && (h->cfg.evict || f->planned))
			fetch_to_standby(f);
		else
			fetch_filled(f);
	} else if (was == HST_FETCH_CANCELLED) {
		f->tries = 0;
		fetch_queue(f);
	} else if (several && !is_unwanted(f)) {
		h->stats.read_retries++;
		f->rank = SRC_DEMAND;
		fetch_queue(f);
	} else {
		read_failed(f, why);
	}
	/* What fails is not tried again at once. */
	if (!why)
		fetch_plan_on(h);
	if (was != HST_FETCH_READING && !follows)
		trouble_end(h);
}

static void took(struct hst *h, struct hst_fetch *f, uint64_t bytes, bool several)
{
	uint64_t ns = hst_now(h) - f->issued_ns;

	if (f->backing != &h->swap.backing) {
		h->stats.source_reads++;
		h->stats.source_read_bytes += bytes;
		h->stats.source_read_ns += ns;
		h->stats.source_read_max_ns = max_u64(h->stats.source_read_max_ns, ns);
	}
	h->read_ns += ns / 16 - h->read_ns / 16;
	pace_sample(&f->backing->pace, bytes, several, ns);
	if (!f->sampled && !several)
		grace_sample(&f->backing->grace, ns);
}

static void read_done(struct src_read *rd, const struct err *why)
{
	struct hst_fetch *f = CONTAINER_OF(rd, struct hst_fetch, rd), *next;
	struct hst *h = f->h;
	bool several = hst_fetch_next(f) != NULL;
	uint64_t bytes = rd->len;
	uint32_t count = 0;

	timer_cancel(&h->timers, &f->timer);
	h->in_flight--;
	for (next = f; next; next = hst_fetch_next(next))
		count++;
	trace_blocks(h, APF_TRACE_READ_END, f->block, count, why ? (uint32_t)-why->code : 0);
	if (h->stopping)
		return;
	h->stats.read_errors += why && f->state != HST_FETCH_CANCELLED;
	if (!why)
		took(h, f, bytes, several);
	/* It was all of theirs. */
	if (several)
		rd->len = 1u << h->cfg.block_shift;
	for (; f; f = next) {
		next = hst_fetch_next(f);
		read_ended(f, why, several);
	}
	fetch_dispatch(h);
}

void fetch_timer(struct timer *tm, uint64_t now_ns)
{
	struct hst_fetch *f = CONTAINER_OF(tm, struct hst_fetch, timer);

	(void)now_ns;
	if (f->h->stopping)
		return;
	if (f->state == HST_FETCH_BACKOFF) {
		fetch_queue(f);
		fetch_dispatch(f->h);
	} else if (f->state == HST_FETCH_READING) {
		f->h->stats.read_timeouts++;
		for (struct hst_fetch *n = hst_fetch_next(f); n; n = hst_fetch_next(n))
			n->state = HST_FETCH_STUCK;
		fetch_trouble(f, HST_FETCH_STUCK, NULL);
	}
}

/* ---- how it begins ---- */

/* A block that was never filled, and is nothing but zeroes. */
static bool is_untouched(struct hst *h, uint32_t block)
{
	return block_kind(h, block) == BLOCK_ABSENT && !block_is(h, block, BLOCK_SEEN) &&
	       !fetch_backing(h, block);
}

static void fill_one(struct hst_fetch *f, uint32_t block)
{
	struct hst *h = f->h;

	if (block != f->block) {
		block_set_fetch(h, block, (uint32_t)(f - h->fetches));
		budget_charge(h, false);
	}
	/* That the guest will write to it is likely. */
	h->blocks[block] |= BLOCK_WRITTEN;
}

/* A hole in the memfd reads as zeroes. Its untouched neighbours come with it. */
static void fill(struct hst_fetch *f)
{
	struct hst *h = f->h;
	uint32_t start, end;
	bool alone = block_is(h, f->block, BLOCK_SEEN) || !h->cfg.evict;

	fetch_near(h, f->block, AROUND_BYTES, &start, &end);
	fill_one(f, f->block);
	while (!alone && f->first > start && budget_room(h) && is_untouched(h, f->first - 1)) {
		fill_one(f, --f->first);
		f->count++;
	}
	while (!alone && f->first + f->count < end && budget_room(h) &&
	       is_untouched(h, f->first + f->count)) {
		fill_one(f, f->first + f->count);
		f->count++;
	}
	fetch_filled(f);
}

bool fetch_prepare(struct hst_fetch *f)
{
	struct hst *h = f->h;
	struct ram_backing *b = f->backing = fetch_backing(h, f->block);
	roff_t off;
	uint64_t len;

	hst_block_range(h, f->block, &off, &len);
	len = b ? fetch_backed_bytes(b, off, len) : 0;
	if (len == 0)
		return false;
	f->rd = (struct src_read){
		.offset = b->src_offset + (off.v - b->roff.v),
		.buf = h->mem.alias + off.v,
		.len = (uint32_t)len,
		.urgent = f->urgent,
		.rank = f->rank,
		.done = read_done,
	};
	return true;
}

/* All that is to be read with it is the source's from now on; it names the first. */
static void begin_read(struct hst_fetch *first)
{
	struct hst *h = first->h;
	uint64_t now = hst_now(h), bytes = 0;

	for (struct hst_fetch *f = first; f; f = hst_fetch_next(f)) {
		f->state = HST_FETCH_READING;
		f->issued_ns = now;
		f->follows = f != first;
		bytes += f->rd.len;
	}
	first->rd.len = (uint32_t)bytes;
}

void fetch_issue(struct hst_fetch *f)
{
	struct hst *h = f->h;
	struct err why;
	roff_t off;
	uint64_t len;

	if (!f->charged)
		budget_charge(h, f->ahead);
	f->charged = true;
	if (!fetch_prepare(f)) {
		fill(f);
		return;
	}
	f->link.next = NULL;
	f = ahead_gather(f);
	begin_read(f);
	f->rd.late = grace_expects_late(&f->backing->grace);
	h->in_flight++;
	h->stats.reads++;
	hst_block_range(h, f->block, &off, &len);
	trace(h, APF_TRACE_READ, APF_NOBODY, off, f->rd.len, f->ahead);
	if (h->cfg.source_timeout_ns != NS_NEVER)
		timer_arm(&h->timers, &f->timer, f->issued_ns + h->cfg.source_timeout_ns);
	if (block_reserve(h, off, f->rd.len, &why))
		f->backing->src->ops->read(f->backing->src, &f->rd);
	else
		read_done(&f->rd, &why);
}
