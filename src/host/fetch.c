/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching. A block is absent, being fetched (then its word names the
 * fetch) or present. A fetch exists once per block, however many wait for it; its
 * waiters hang on it. Reads in flight are bounded by queue_depth; beyond that they
 * wait in one queue per vCPU, served in turn, so that a vCPU that faults a lot does
 * not starve the others. Before those goes what a vCPU waits for that cannot run another
 * task meanwhile: kernel mode, or KVM in the middle of an instruction; behind them what nobody
 * waits for yet (ahead.c), of which neighbours are one read.
 *
 * A failed read is repeated with a growing delay; past the limit, or when a source
 * does not answer in time, the VM is paused and nothing is lost: hst_resume goes on.
 *
 * Order of publication: content into the alias (the source), visible in the guest
 * mapping (hst_take_filled's caller), PRESENT in the map, and only then the waiters.
 * Tests: tests/unit/host_fetch_test.c, host_ahead_test.c, host_plan_test.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/sum.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/trace.h"
#include "host/trouble.h"

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
	if (f->rank != SRC_DEMAND) {
		ahead_queue(f);
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

void fetch_plan_on(struct hst *h)
{
	if (h->plan.on && !h->stopping)
		timer_arm(&h->timers, &h->plan.timer, hst_now(h));
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
		if (f->planned)
			h->blocks[block] |= BLOCK_PLANNED;
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
		for (struct hst_fetch *n = hst_fetch_next(f); n; n = hst_fetch_next(n))
			n->state = HST_FETCH_STUCK;
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

static void fetch_issue(struct hst_fetch *f)
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
	while (h->in_flight < h->cfg.queue_depth) {
		/* What is read ahead has its room already. */
		struct hst_fetch *f = budget_room(h) ? next_queued(h) : NULL;

		f = f ? f : ahead_next(h);
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

/* The read that brings f, its own or a neighbour's, waits less where it is with its source. */
static void raise_read(const struct hst_fetch *f)
{
	struct hst_fetch *first = block_fetch(f->h, f->block);
	enum turn turn = f->urgent ? TURN_URGENT : TURN_DEMAND;

	if (f->state != HST_FETCH_READING && f->state != HST_FETCH_STUCK)
		return;
	while (first->follows)
		first = block_fetch(f->h, first->block - 1);
	src_raise(first->backing->src, &first->rd, turn);
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

/* Somebody waits for what was to be read ahead: he, and not what is read ahead, decides when. */
static void make_demand(struct hst_fetch *f, unsigned owner, bool urgent)
{
	bool queued = f->state == HST_FETCH_QUEUED;

	if (queued)
		ahead_leave(f);
	f->rank = SRC_DEMAND;
	f->owner = (uint16_t)owner;
	f->urgent |= urgent;
	if (!queued)
		return;
	/* It may be there before the waiter is linked. */
	f->ahead = false;
	fetch_queue(f);
	fetch_dispatch(f->h);
}

static struct hst_fetch *fetch_get(struct hst *h, uint32_t block, unsigned owner, bool urgent,
				   bool *ret_joined)
{
	enum block_kind was = block_kind(h, block);
	bool planned = false;
	struct hst_fetch *f;
	bool follow;

	*ret_joined = was == BLOCK_FETCHING;
	if (*ret_joined) {
		f = block_fetch(h, block);
		follow = f->ahead && f->state != HST_FETCH_OFFERED;
		/* Who sleeps in the kernel for it is no waiter of ours. */
		if (f->state == HST_FETCH_OFFERED)
			f->ahead = false;
		if (f->planned) {
			h->stats.prefetched_late++;
			trace_blocks(h, APF_TRACE_USED, block, 1, 1);
		}
		f->planned = false;
		if (f->rank != SRC_DEMAND)
			make_demand(f, owner, urgent);
		if (urgent)
			make_urgent(f);
		raise_read(f);
		if (follow)
			ahead_follow(h, block);
		return f;
	}
	ASSERT(was != BLOCK_PRESENT);
	if (was == BLOCK_STANDBY) {
		planned = block_is(h, block, BLOCK_PLANNED);
		block_delist(h, block);
	}
	f = fetch_alloc(h, block, owner);
	f->urgent = urgent;
	f->backing = fetch_backing(h, block);
	f->charged = was != BLOCK_ABSENT;
	if (was == BLOCK_ABSENT) {
		h->stats.refaulted += block_is(h, block, BLOCK_SEEN);
		fetch_queue(f);
		fetch_dispatch(h);
		if (f->backing)
			ahead_follow(h, block);
	} else if (was == BLOCK_STANDBY) {
		h->stats.prefetched_used += planned;
		h->stats.rescued += !planned;
		if (planned)
			trace_blocks(h, APF_TRACE_USED, block, 1, 0);
		fetch_filled(f);
		ahead_follow(h, block);
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
	return budget_spare(h) && h->free_count > (h->fetch_count - h->ahead_fetches) / 2;
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
	fetch_plan_on(h);
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
			if (!f->follows)
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
		if (!f->follows && (f->state == HST_FETCH_READING || f->state == HST_FETCH_STUCK ||
				    f->state == HST_FETCH_CANCELLED))
			f->backing->src->ops->cancel(f->backing->src, &f->rd);
	}
}
