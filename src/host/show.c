/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block whose content is in the alias becomes visible, and whoever waits for it hears of it. In
 * this order: visible in the guest mapping (hst_take_filled's caller), PRESENT in the map, and only
 * then the waiters. Tests: tests/unit/host_show_test.c, host_fetch_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/fetch.h"
#include "host/trace.h"

/* Adjacent blocks that are there are made visible by one call, and so many wait for it. */
#define SHOW_BYTES_MAX (64u << 10)

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

/* ---- made visible ---- */

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
	struct hst_fetch *f = hst_fetch_of(list_take(&h->filled)), *last = f;
	uint32_t end, most;

	if (!f)
		return NULL;
	end = f->first + f->count;
	most = f->first + (uint32_t)max_u64(SHOW_BYTES_MAX >> h->cfg.block_shift, 1);
	while (end < most && shows_with(f, end, hst_fetch_of(h->filled.first))) {
		/* They are neighbours in the list, and stay so. */
		last = hst_fetch_of(list_take(&h->filled));
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
