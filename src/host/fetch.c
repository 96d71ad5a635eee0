/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching. A block is absent, being fetched (then its word names the
 * fetch) or present. A fetch exists once per block, however many wait for it; its
 * waiters hang on it. Reads in flight are bounded by queue_depth; beyond that they
 * wait in one queue per vCPU, served in turn, so that a vCPU that faults a lot does
 * not starve the others. Before those goes what a vCPU waits for that cannot run another
 * task meanwhile: kernel mode, or KVM in the middle of an instruction.
 *
 * A failed read is repeated with a growing delay; past the limit, or when a source
 * does not answer in time, the VM is paused and nothing is lost: hst_resume goes on.
 *
 * Order of publication: content into the alias (the source), visible in the guest
 * mapping (hst_take_filled's caller), PRESENT in the map, and only then the waiters.
 * Tests: tests/unit/host_fetch_test.c, host_ahead_test.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/sum.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/stream.h"
#include "host/trace.h"
#include "host/trouble.h"

/*
 * Around a fault: zeroes, which cost nothing to bring, and, as kernel mode cannot be parked,
 * what it will want next.
 */
#define AROUND_BYTES (64u << 10)
/* Adjacent blocks that are there are made visible by one call, and so many wait for it. */
#define SHOW_BYTES_MAX (64u << 10)
/* So many urgent reads in a row, then one of the others: devices wait there, too. */
#define URGENT_RUN_MAX 16u

void fetch_init(struct hst *h)
{
	for (uint32_t i = h->fetch_count; i-- > 0;) {
		h->fetches[i].h = h;
		list_insert(&h->free_fetches, NULL, &h->fetches[i].link);
	}
	h->free_count = h->fetch_count;
}

static void turn_append(struct hst *h, struct hst_queue *q)
{
	if (q->in_turn)
		return;
	q->in_turn = true;
	q->next = NULL;
	if (h->turn_first)
		h->turn_last->next = q;
	else
		h->turn_first = q;
	h->turn_last = q;
}

static struct hst_fetch *fetch_take(struct list *l)
{
	return hst_fetch_of(list_take(l));
}

/* ---- reading ---- */

static void fetch_trouble(struct hst_fetch *f, enum hst_fetch_state state, const struct err *why)
{
	f->state = state;
	trouble_begin(f->h, f->block, f->tries + 1u, why);
}

void fetch_filled(struct hst_fetch *f)
{
	struct hst *h = f->h;

	f->state = HST_FETCH_FILLED;
	f->filled = true;
	/* A block that has to be written out in any case needs no watching. */
	f->showing = h->cfg.evict && !block_is(h, f->block, BLOCK_WRITTEN) ? HST_SHOW_WATCHED : 0;
	list_append(&h->filled, &f->link);
}

void fetch_queue(struct hst_fetch *f)
{
	f->state = HST_FETCH_QUEUED;
	if (f->urgent) {
		list_append(&f->h->urgent.fetches, &f->link);
		return;
	}
	list_append(&f->h->queues[f->owner].fetches, &f->link);
	turn_append(f->h, &f->h->queues[f->owner]);
}

static void fetch_free(struct hst_fetch *f)
{
	struct hst *h = f->h;

	h->standing -= f->touched;
	f->state = HST_FETCH_FREE;
	list_insert(&h->free_fetches, NULL, &f->link);
	h->free_count++;
}

/* Read along, and nobody has asked for it until now. */
static bool is_unwanted(const struct hst_fetch *f)
{
	return f->ahead && !f->waiters.first;
}

void fetch_to_standby(struct hst_fetch *f)
{
	struct hst *h = f->h;

	for (uint32_t block = f->first; block < f->first + f->count; block++) {
		block_set_kind(h, block, BLOCK_STANDBY);
		block_enlist(h, block);
	}
	fetch_free(f);
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

	h->stats.read_errors++;
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

static void read_done(struct src_read *rd, const struct err *why)
{
	struct hst_fetch *f = CONTAINER_OF(rd, struct hst_fetch, rd);
	struct hst *h = f->h;
	enum hst_fetch_state was = f->state;
	struct err unsound;

	ASSERT(was == HST_FETCH_READING || was == HST_FETCH_STUCK || was == HST_FETCH_CANCELLED);
	timer_cancel(&h->timers, &f->timer);
	h->in_flight--;
	trace_blocks(h, APF_TRACE_READ_END, f->block, 1, why ? (uint32_t)-why->code : 0);
	if (h->stopping)
		return;
	if (!why && !is_sound(f, &unsound))
		why = &unsound;
	if (!why) {
		h->stats.read_bytes += rd->len;
		h->read_ns += (hst_now(h) - f->issued_ns) / 16 - h->read_ns / 16;
		if (f->backing && !f->sampled)
			grace_sample(&f->backing->grace, hst_now(h) - f->issued_ns);
		if (is_unwanted(f) && h->cfg.evict)
			fetch_to_standby(f);
		else
			fetch_filled(f);
	} else if (was == HST_FETCH_CANCELLED) {
		f->tries = 0;
		fetch_queue(f);
	} else {
		read_failed(f, why);
	}
	if (was != HST_FETCH_READING)
		trouble_end(h);
	fetch_dispatch(h);
}

static void fetch_timer(struct timer *tm, uint64_t now_ns)
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
		fetch_trouble(f, HST_FETCH_STUCK, NULL);
	}
}

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

static void around(const struct hst *h, uint32_t block, uint32_t *ret_start, uint32_t *ret_end)
{
	uint32_t count = (uint32_t)max_u64(AROUND_BYTES >> h->cfg.block_shift, 1);
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

	around(h, f->block, &start, &end);
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

static void fetch_issue(struct hst_fetch *f)
{
	struct hst *h = f->h;
	struct ram_backing *b = f->backing = fetch_backing(h, f->block);
	roff_t off;
	uint64_t len;

	if (!f->charged)
		budget_charge(h, f->ahead);
	f->charged = true;
	hst_block_range(h, f->block, &off, &len);
	len = b ? fetch_backed_bytes(b, off, len) : 0;
	if (len == 0) {
		fill(f);
		return;
	}
	f->rd = (struct src_read){
		.offset = b->src_offset + (off.v - b->roff.v),
		.buf = h->mem.alias + off.v,
		.len = (uint32_t)len,
		.urgent = f->urgent,
		.late = grace_expects_late(&b->grace),
		.done = read_done,
	};
	f->state = HST_FETCH_READING;
	f->issued_ns = hst_now(h);
	h->in_flight++;
	h->stats.reads++;
	trace(h, APF_TRACE_READ, APF_NOBODY, off, len, f->ahead);
	if (h->cfg.source_timeout_ns != NS_NEVER)
		timer_arm(&h->timers, &f->timer, f->issued_ns + h->cfg.source_timeout_ns);
	b->src->ops->read(b->src, &f->rd);
}

/* One vCPU after the other, of those that wait. */
static struct hst_fetch *next_in_turn(struct hst *h)
{
	struct hst_fetch *f = NULL;

	while (!f && h->turn_first) {
		struct hst_queue *q = h->turn_first;

		h->turn_first = q->next;
		q->in_turn = false;
		/* Empty: what was in it went to the urgent ones. */
		f = fetch_take(&q->fetches);
		if (q->fetches.first)
			turn_append(h, q);
	}
	return f;
}

static struct hst_fetch *next_queued(struct hst *h)
{
	struct hst_fetch *f;

	if (h->urgent.fetches.first && h->urgent_run < URGENT_RUN_MAX) {
		h->urgent_run++;
		return fetch_take(&h->urgent.fetches);
	}
	h->urgent_run = 0;
	f = next_in_turn(h);
	return f ? f : fetch_take(&h->urgent.fetches);
}

void fetch_dispatch(struct hst *h)
{
	if (h->stopping)
		return;
	if (h->dispatching)
		return; /* the loop below goes on when this read's done() returns to it */
	h->dispatching = true;
	while (h->in_flight < h->cfg.queue_depth && budget_room(h)) {
		struct hst_fetch *f = next_queued(h);

		if (!f)
			break;
		fetch_issue(f);
	}
	h->dispatching = false;
}

struct hst_fetch *fetch_alloc(struct hst *h, uint32_t block, unsigned owner)
{
	struct hst_fetch *f = fetch_take(&h->free_fetches);

	/* One for every waiter that can exist, fetch_count() in host.c; others ask fetch_room. */
	ASSERT(f);
	h->free_count--;
	*f = (struct hst_fetch){
		.h = h,
		.block = block,
		.first = block,
		.count = 1,
		.owner = (uint16_t)owner,
		.views = MEM_VIEW_GUEST,
		.timer = {.fire = fetch_timer},
	};
	block_set_fetch(h, block, (uint32_t)(f - h->fetches));
	return f;
}

bool fetch_room(const struct hst *h)
{
	/* For each vCPU: its access or register, and its area. */
	return h->free_count > HST_OUTSIDE_MAX + 2 * h->cfg.vcpus;
}

/* Whoever asked for it before waits less for it, too. */
static void make_urgent(struct hst_fetch *f)
{
	struct hst *h = f->h;

	if (f->urgent)
		return;
	f->urgent = true;
	if (f->state == HST_FETCH_QUEUED) {
		list_remove(&h->queues[f->owner].fetches, &f->link);
		list_append(&h->urgent.fetches, &f->link);
	}
}

/* For nobody yet. False: there is no room. */
static bool read_ahead(struct hst *h, uint32_t block)
{
	struct hst_fetch *f;

	if (!fetch_spare(h) || h->in_flight >= h->cfg.queue_depth)
		return false;
	f = fetch_alloc(h, block, h->cfg.vcpus);
	f->ahead = true;
	h->stats.read_ahead++;
	fetch_queue(f);
	fetch_dispatch(h);
	return true;
}

/*
 * Somebody has to wait for the block. If he goes through memory in even steps, what comes next is
 * read before he is there: all of what waits leaves half of the reads to what is waited for.
 */
static void follow_stream(struct hst *h, uint32_t block)
{
	struct stream *s = stream_touch(&h->streams, block, h->cfg.ahead_max);

	if (!s)
		return;
	for (; s->asked < s->window && h->in_flight < h->cfg.queue_depth / 2; s->asked++) {
		int64_t at = (int64_t)block + (int64_t)s->stride * (s->asked + 1);
		roff_t off = {(uint64_t)at << h->cfg.block_shift};

		if (at < 0 || off.v >= h->mem.bytes || !ram_region_at(&h->ram, off))
			return;
		if (block_kind(h, (uint32_t)at) != BLOCK_ABSENT ||
		    !fetch_backing(h, (uint32_t)at))
			continue;
		if (!read_ahead(h, (uint32_t)at))
			return;
	}
}

static struct hst_fetch *fetch_get(struct hst *h, uint32_t block, unsigned owner, bool urgent,
				   bool *ret_joined)
{
	enum block_kind was = block_kind(h, block);
	struct hst_fetch *f;

	*ret_joined = was == BLOCK_FETCHING;
	if (*ret_joined) {
		f = block_fetch(h, block);
		/* Who sleeps in the kernel for it is no waiter of ours. */
		if (f->state == HST_FETCH_OFFERED)
			f->ahead = false;
		if (urgent)
			make_urgent(f);
		if (f->ahead)
			follow_stream(h, block);
		return f;
	}
	ASSERT(was != BLOCK_PRESENT);
	if (was == BLOCK_STANDBY)
		block_delist(h, block);
	f = fetch_alloc(h, block, owner);
	f->urgent = urgent;
	f->backing = fetch_backing(h, block);
	f->charged = was != BLOCK_ABSENT;
	if (was == BLOCK_ABSENT) {
		h->stats.refaulted += block_is(h, block, BLOCK_SEEN);
		fetch_queue(f);
		fetch_dispatch(h);
		if (f->backing)
			follow_stream(h, block);
	} else if (was == BLOCK_STANDBY) {
		h->stats.rescued++;
		fetch_filled(f);
		follow_stream(h, block);
	} else {
		f->state = HST_FETCH_BEHIND;
	}
	return f;
}

struct hst_fetch *fetch_for(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined)
{
	return fetch_get(h, block, owner, false, ret_joined);
}

struct hst_fetch *fetch_for_urgent(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined)
{
	return fetch_get(h, block, owner, true, ret_joined);
}

bool fetch_spare(const struct hst *h)
{
	return budget_spare(h) && h->free_count > h->fetch_count / 2;
}

/*
 * What lies around a block that kernel mode waits for is likely to be kernel mode's, too: Linux
 * keeps apart what it cannot move. While it waits the vCPU does nothing else, so that is read
 * along, onto standby: a touch takes no read then, and tells whose it is; what nobody touches
 * goes first, without a write.
 */
void fetch_around(struct hst *h, uint32_t block)
{
	uint32_t at, end;

	for (around(h, block, &at, &end); at < end; at++)
		if (block_kind(h, at) == BLOCK_ABSENT && block_is(h, at, BLOCK_IN_SWAP) &&
		    !read_ahead(h, at))
			return;
}

void fetch_present_again(struct hst *h, uint32_t block, unsigned views)
{
	struct hst_fetch *f;

	block_delist(h, block);
	/* Who took it out of the mapping, and whether it was written to before, nobody knows. */
	h->blocks[block] |= BLOCK_WRITTEN;
	f = fetch_alloc(h, block, h->cfg.vcpus);
	f->charged = true;
	f->views |= views & (MEM_VIEW_GUEST | MEM_VIEW_VMM);
	fetch_touch(f);
	h->blocks_present--;
	fetch_filled(f);
}

bool fetch_take_failed(struct hst_fetch *f)
{
	/* Of several, some may show already what the guest has written to since. */
	if (f->state != HST_FETCH_FAILED || f->count > 1)
		return false;
	f->state = HST_FETCH_BEHIND;
	f->tries = 0;
	trouble_end(f->h);
	return true;
}

/* ---- waiters ---- */

void fetch_touch(struct hst_fetch *f)
{
	f->h->standing += !f->touched;
	f->touched = true;
}

/* A token's task is parked, and its vCPU runs others. */
static bool stands_still(const struct hst_waiter *w)
{
	return !w->v || w == &w->v->sync;
}

void waiter_link(struct hst_waiter *w, struct hst_fetch *f, uint64_t since_ns)
{
	ASSERT(!w->fetch);
	f->h->standing += stands_still(w);
	w->fetch = f;
	w->since_ns = since_ns;
	list_append(&f->waiters, &w->link);
}

void waiter_unlink(struct hst_waiter *w)
{
	if (!w->fetch)
		return;
	w->fetch->h->standing -= stands_still(w);
	list_remove(&w->fetch->waiters, &w->link);
	w->fetch = NULL;
}

/* It becomes visible by the call that makes f visible: it lies behind `end`, and is shown alike. */
static bool shows_with(const struct hst_fetch *f, uint32_t end, const struct hst_fetch *next)
{
	uint32_t chunk_shift = CHUNK_SHIFT - f->h->cfg.block_shift;

	return next && next->first == end && next->views == f->views &&
	       (next->showing & HST_SHOW_WATCHED) == (f->showing & HST_SHOW_WATCHED) &&
	       /* Of one part of guest memory: each begins with a chunk. */
	       end >> chunk_shift == f->first >> chunk_shift;
}

struct hst_fetch *hst_take_filled(struct hst *h)
{
	struct hst_fetch *f = fetch_take(&h->filled), *last = f;
	uint32_t end, most;

	if (!f)
		return NULL;
	end = f->first + f->count;
	most = f->first + (uint32_t)max_u64(SHOW_BYTES_MAX >> h->cfg.block_shift, 1);
	while (end < most && shows_with(f, end, hst_fetch_of(h->filled.first))) {
		/* They are neighbours in the list, and stay so. */
		last = fetch_take(&h->filled);
		end += last->count;
	}
	last->link.next = NULL;
	for (struct hst_fetch *at = f; at; at = hst_fetch_next(at))
		at->showing = (at->showing & HST_SHOW_WATCHED) | at->views;
	return f;
}

int hst_make_visible(const struct hst_fetch *f, struct err *e)
{
	const struct mem *m = &f->h->mem;
	uint64_t len, count = 0;
	roff_t off;

	hst_block_range(f->h, f->first, &off, &len);
	for (const struct hst_fetch *at = f; at; at = hst_fetch_next(at))
		count += at->count;
	return m->ops->present(m->ctx, off, len * count,
			       f->showing & (MEM_VIEW_GUEST | MEM_VIEW_VMM),
			       f->showing & HST_SHOW_WATCHED, e);
}

static void shown(struct hst_fetch *f, const struct err *why)
{
	struct hst *h = f->h;
	uint64_t now = hst_now(h);
	struct hst_waiter *w;

	ASSERT(f->state == HST_FETCH_FILLED);
	if (why) {
		fetch_trouble(f, HST_FETCH_FAILED, why);
		return;
	}
	if (f->views & ~f->showing) {
		/* The VMM wants it, too, since it was handed out. */
		fetch_filled(f);
		return;
	}
	trace_blocks(h, APF_TRACE_SHOWN, f->first, f->count, 0);
	for (uint32_t block = f->first; block < f->first + f->count; block++) {
		if (f->views & MEM_VIEW_VMM)
			h->blocks[block] |= BLOCK_VMM;
		block_set_kind(h, block, BLOCK_PRESENT);
		h->blocks_present++;
		block_enlist(h, block);
	}
	while ((w = hst_waiter_of(f->waiters.first))) {
		waiter_unlink(w);
		w->ready(h, w, now);
	}
	fetch_free(f);
}

void hst_shown(struct hst_fetch *f, const struct err *why)
{
	struct hst_fetch *next;

	for (; f; f = next) {
		next = hst_fetch_next(f);
		shown(f, why);
	}
}

/* ---- the VM goes on, or ends ---- */

void fetch_resume(struct hst *h)
{
	for (uint32_t i = 0; i < h->fetch_count; i++) {
		struct hst_fetch *f = &h->fetches[i];

		/* What is under way may still fail for the reason that is mended now. */
		f->tries = 0;
		if (f->state == HST_FETCH_FAILED) {
			if (f->filled)
				fetch_filled(f);
			else
				fetch_queue(f);
			trouble_end(h);
		} else if (f->state == HST_FETCH_STUCK) {
			f->state = HST_FETCH_CANCELLED;
			f->backing->src->ops->cancel(f->backing->src, &f->rd);
		}
	}
}

/* It will not come any more: who waits for it in the VMM's view is not left there. */
static void refuse(struct hst_fetch *f)
{
	const struct mem *m = &f->h->mem;
	struct err e;
	roff_t off;
	uint64_t len;

	if (f->state == HST_FETCH_FREE || f->filled || !(f->views & MEM_VIEW_VMM))
		return;
	hst_block_range(f->h, f->block, &off, &len);
	if (m->ops->refuse)
		(void)m->ops->refuse(m->ctx, off, len, &e);
}

void fetch_stop(struct hst *h)
{
	for (uint32_t i = 0; i < h->fetch_count; i++) {
		struct hst_fetch *f = &h->fetches[i];

		refuse(f);
		if (f->state == HST_FETCH_READING || f->state == HST_FETCH_STUCK ||
		    f->state == HST_FETCH_CANCELLED)
			f->backing->src->ops->cancel(f->backing->src, &f->rd);
	}
}
