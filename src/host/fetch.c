/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching. A block is absent, being fetched (then its word names the fetch) or present. A fetch
 * exists once per block, however many wait for it; its waiters hang on it. Reads in flight are
 * bounded (fetch_depth); beyond that they wait in one queue per vCPU, served in turn, so that a
 * vCPU that faults a lot does not starve the others. Before those goes what a vCPU waits for that
 * cannot run another task meanwhile: kernel mode, or KVM in the middle of an instruction; behind
 * them what nobody waits for yet (ahead.c), of which neighbours are one read.
 *
 * read.c has the read itself, show.c what follows when its content is there.
 * Tests: tests/unit/host_fetch_test.c, host_ahead_test.c, host_plan_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/trace.h"
#include "host/trouble.h"

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

void fetch_free(struct hst_fetch *f)
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

uint32_t fetch_depth(const struct hst *h)
{
	return (uint32_t)min_u64(h->cfg.queue_depth, max_u64(h->evict.limit / 2, 1));
}

void fetch_dispatch(struct hst *h)
{
	if (h->stopping)
		return;
	if (h->dispatching)
		return; /* the loop below goes on when this read's done() returns to it */
	h->dispatching = true;
	while (h->in_flight < fetch_depth(h)) {
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

	/* What ends after the VM has, ends with its source alone (read_done). */
	if (f->h->stopping || (f->state != HST_FETCH_READING && f->state != HST_FETCH_STUCK))
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

static struct hst_fetch *join(struct hst *h, uint32_t block, unsigned owner, bool urgent)
{
	struct hst_fetch *f = block_fetch(h, block);
	bool follow = f->ahead && f->state != HST_FETCH_OFFERED;

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

static struct hst_fetch *start(struct hst *h, uint32_t block, unsigned owner, bool urgent)
{
	enum block_kind was = block_kind(h, block);
	bool planned = was == BLOCK_STANDBY && block_is(h, block, BLOCK_PLANNED);
	struct hst_fetch *f;

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

static struct hst_fetch *fetch_get(struct hst *h, uint32_t block, unsigned owner, bool urgent,
				   bool *ret_joined)
{
	*ret_joined = block_kind(h, block) == BLOCK_FETCHING;
	if (*ret_joined)
		return join(h, block, owner, urgent);
	return start(h, block, owner, urgent);
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
