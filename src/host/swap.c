/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing evicted blocks to the swap file. A write takes adjacent blocks of the dirty list;
 * while it is under way they are on the list of the writing ones, or have come back to the
 * guest: then what arrives in the file may be a mixture, and is not believed
 * (BLOCK_WRITTEN stays). A block has one write at a time, so that an older one cannot
 * overtake the next.
 *
 * What was written counts once it is durable: once a sync has succeeded that began after the
 * write had ended. One sync is under way at a time and covers all writes that ended before it
 * began. When one fails, the kernel may have dropped any of what was written since the last good
 * one, and tells of it only once: all of that is written again, also what has ended since, and
 * what has not been seen to end yet.
 *
 * A sum of what was written stays here: the file is others' to change, too, and what is read again
 * must be what the guest had (read.c).
 *
 * A write or sync that fails is repeated, then pauses the VM; nothing is lost, the content is in
 * memory. Test: tests/unit/host_swap_test.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/sum.h"
#include "host/block.h"
#include "host/swap.h"
#include "host/trouble.h"

static void write_go_on(struct hst_write *w);

static struct hst_write *write_free(struct hst_evict *ev)
{
	for (unsigned i = 0; i < ev->write_count; i++)
		if (ev->writes[i].state == HST_WRITE_FREE)
			return &ev->writes[i];
	return NULL;
}

/* It waits for the write: it has neither come back to the guest nor been discarded since. */
static bool waits_for(const struct hst_write *w, uint32_t block)
{
	return block_kind(w->h, block) == BLOCK_STANDBY &&
	       !(w->changed >> (block - w->block) & 1);
}

/* What it holds is what was written: it waits for that. */
static void take_sum(struct hst *h, uint32_t block)
{
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	h->evict.sums[block] = sum_of(h->mem.alias + off.v, len);
}

/* Blocks that wait for it are clean now, or not; one that was lost meanwhile is not (block.h). */
static void write_end(struct hst_write *w, bool written)
{
	struct hst *h = w->h;

	for (uint32_t block = w->block; block < w->block + w->count; block++) {
		if (written && waits_for(w, block) && !block_is_lost(h, block)) {
			take_sum(h, block);
			block_flags(h, block, BLOCK_IN_SWAP,
				    BLOCK_WRITING | BLOCK_WRITTEN | BLOCK_ZEROES);
			h->stats.swapped++;
		} else {
			block_flags(h, block, 0, BLOCK_WRITING);
		}
	}
	w->state = HST_WRITE_FREE;
	h->evict.writes_used--;
}

/* Does anybody still need it? Blocks that came back will be written anew, if at all. */
static bool write_needed(const struct hst_write *w)
{
	for (uint32_t block = w->block; block < w->block + w->count; block++)
		if (waits_for(w, block))
			return true;
	return false;
}

/*
 * The kernel does not have it. What has come back since, or has been discarded, is left out: it may
 * be what the write fails for. Then the others are on the dirty list again.
 */
static void write_again(struct hst_write *w)
{
	for (uint32_t block = w->block; block < w->block + w->count; block++) {
		if (waits_for(w, block))
			continue;
		timer_cancel(&w->h->timers, &w->timer);
		write_end(w, false);
		return;
	}
	write_go_on(w);
}

/* It has to be written again. */
static void write_failed(struct hst_write *w, const struct err *why)
{
	struct hst *h = w->h;

	if (!write_needed(w)) {
		write_end(w, false);
		return;
	}
	if (w->tries >= h->cfg.retries_max) {
		w->state = HST_WRITE_FAILED;
		trouble_begin(h, w->block, w->tries + 1u, why);
		return;
	}
	w->state = HST_WRITE_BACKOFF;
	timer_arm(&h->timers, &w->timer, hst_now(h) + backoff_ns(w->tries++));
}

/* ---- syncs ---- */

static bool writes_are(const struct hst *h, int state)
{
	for (unsigned i = 0; i < h->evict.write_count; i++)
		if ((int)h->evict.writes[i].state == state)
			return true;
	return false;
}

static void sync_done(struct io_req *rq, int res);

static void sync_timer(struct timer *tm, uint64_t now_ns)
{
	struct hst_sync *s = CONTAINER_OF(tm, struct hst_sync, timer);
	struct hst *h = s->h;
	struct err why;

	(void)now_ns;
	if (h->stopping)
		return;
	s->state = HST_SYNC_STUCK;
	err_set(&why, -ETIMEDOUT, "swap file: a sync has not ended for %llu ms",
		(unsigned long long)(h->cfg.source_timeout_ns / NS_PER_MS));
	trouble_begin(h, s->block, 1, &why);
}

/* If there is something to sync, and none is under way. */
static void sync_start(struct hst *h)
{
	struct hst_sync *s = &h->evict.sync;
	const struct io *io = &h->swap.io;

	if (s->state != HST_SYNC_NONE || !writes_are(h, HST_WRITE_ENDED))
		return;
	for (unsigned i = 0; i < h->evict.write_count; i++) {
		struct hst_write *w = &h->evict.writes[i];

		if (w->state != HST_WRITE_ENDED)
			continue;
		w->state = HST_WRITE_SYNCING;
		s->block = w->block;
	}
	s->state = HST_SYNC_BUSY;
	s->rq.done = sync_done;
	s->timer.fire = sync_timer;
	h->evict.writes_in_flight++;
	if (h->cfg.source_timeout_ns != NS_NEVER)
		timer_arm(&h->timers, &s->timer, hst_now(h) + h->cfg.source_timeout_ns);
	io->ops->sync(io->ctx, h->swap.file, &s->rq);
}

/* Nothing that was written since the last good sync counts. anew: as if never tried. */
static void sync_failed(struct hst *h, int res, bool anew)
{
	struct err why;

	h->stats.swap_write_errors++;
	err_sys(&why, res, "swap file: sync of what was written");
	for (unsigned i = 0; i < h->evict.write_count; i++) {
		struct hst_write *w = &h->evict.writes[i];

		if (anew)
			w->tries = 0;
		if (w->state == HST_WRITE_BUSY || w->state == HST_WRITE_STUCK) {
			/* It may have ended in the kernel, and be part of what failed. */
			w->lost = res;
			continue;
		}
		w->done_bytes = 0;
		if (w->state != HST_WRITE_SYNCING && w->state != HST_WRITE_ENDED)
			continue;
		if (anew && write_needed(w))
			write_go_on(w);
		else
			write_failed(w, &why);
	}
}

static void sync_done(struct io_req *rq, int res)
{
	struct hst_sync *s = CONTAINER_OF(rq, struct hst_sync, rq);
	struct hst *h = s->h;
	bool stuck = s->state == HST_SYNC_STUCK;

	timer_cancel(&h->timers, &s->timer);
	h->evict.writes_in_flight--;
	s->state = HST_SYNC_NONE;
	if (h->stopping)
		return;
	if (res < 0)
		/* Cancelled: by hst_resume. */
		sync_failed(h, res, stuck && res == -ECANCELED);
	for (unsigned i = 0; res >= 0 && i < h->evict.write_count; i++)
		if (h->evict.writes[i].state == HST_WRITE_SYNCING)
			write_end(&h->evict.writes[i], true);
	if (stuck)
		trouble_end(h);
	sync_start(h);
}

/* ---- writes ---- */

/* All of it is in the file, or nobody needs it any more. */
static void write_ended(struct hst_write *w)
{
	if (!write_needed(w)) {
		write_end(w, false);
		return;
	}
	w->state = HST_WRITE_ENDED;
	sync_start(w->h);
}

/* res: of the part that was under way, or of the sync that its content may have gone with. */
static void write_was_lost(struct hst_write *w, int res)
{
	struct err why;

	err_sys(&why, res ? res : -ENOSPC, "swap file: write of %llu bytes",
		(unsigned long long)w->count << w->h->cfg.block_shift);
	write_failed(w, &why);
}

static void write_done(struct io_req *rq, int res)
{
	struct hst_write *w = CONTAINER_OF(rq, struct hst_write, rq);
	struct hst *h = w->h;
	bool stuck = w->state == HST_WRITE_STUCK;
	int lost = w->lost;

	timer_cancel(&h->timers, &w->timer);
	h->evict.writes_in_flight--;
	if (h->stopping)
		return;
	w->lost = 0;
	if (res > 0) {
		w->done_bytes += (uint64_t)res;
		h->stats.swapped_bytes += (uint64_t)res;
	} else if (!(stuck && res == -ECANCELED)) {
		h->stats.swap_write_errors++;
	}
	if (lost)
		w->done_bytes = 0;
	if (stuck && res == -ECANCELED) {
		/* By hst_resume, to be begun anew. */
		w->tries = 0;
		write_go_on(w);
	} else if (res <= 0 || lost) {
		write_was_lost(w, res <= 0 ? res : lost);
	} else if (w->done_bytes < (uint64_t)w->count << h->cfg.block_shift) {
		write_go_on(w);
	} else {
		write_ended(w);
	}
	if (stuck)
		trouble_end(h);
}

static void write_timer(struct timer *tm, uint64_t now_ns)
{
	struct hst_write *w = CONTAINER_OF(tm, struct hst_write, timer);

	(void)now_ns;
	if (w->h->stopping)
		return;
	if (w->state == HST_WRITE_BACKOFF) {
		write_again(w);
	} else if (w->state == HST_WRITE_BUSY) {
		struct err why;

		w->state = HST_WRITE_STUCK;
		err_set(&why, -ETIMEDOUT, "swap file: a write has not ended for %llu ms",
			(unsigned long long)(w->h->cfg.source_timeout_ns / NS_PER_MS));
		trouble_begin(w->h, w->block, 1, &why);
	}
}

/* What is left of it. The content cannot change, but by blocks that do not count any more. */
static void write_go_on(struct hst_write *w)
{
	struct hst *h = w->h;
	const struct io *io = &h->swap.io;
	uint64_t off = ((uint64_t)w->block << h->cfg.block_shift) + w->done_bytes;
	uint64_t len = ((uint64_t)w->count << h->cfg.block_shift) - w->done_bytes;

	w->state = HST_WRITE_BUSY;
	w->rq.done = write_done;
	w->timer.fire = write_timer;
	h->evict.writes_in_flight++;
	h->stats.swap_writes++;
	if (h->cfg.source_timeout_ns != NS_NEVER)
		timer_arm(&h->timers, &w->timer, hst_now(h) + h->cfg.source_timeout_ns);
	io->ops->write(io->ctx, h->swap.file, &w->rq, h->swap.offset + off, h->mem.alias + off,
		       len);
}

static struct hst_write *write_of(const struct hst *h, uint32_t block)
{
	const struct hst_write *w = h->evict.writes;

	while (w->state == HST_WRITE_FREE || block - w->block >= w->count) {
		w++;
		ASSERT(w < h->evict.writes + h->evict.write_count);
	}
	return (struct hst_write *)w;
}

void swap_changed(struct hst *h, uint32_t block)
{
	struct hst_write *w = write_of(h, block);

	w->changed |= 1ull << (block - w->block);
}

void swap_go_on(struct hst *h, uint32_t block)
{
	struct hst_write *w = write_of(h, block);
	bool failed = w->state == HST_WRITE_FAILED;

	/* The kernel reads the memory, or makes durable what it has read: that ends by itself. */
	if (w->state == HST_WRITE_BUSY || w->state == HST_WRITE_STUCK ||
	    w->state == HST_WRITE_SYNCING)
		return;
	if (failed || !write_needed(w)) {
		w->tries = 0;
		write_again(w);
	}
	if (failed)
		trouble_end(h);
}

bool swap_is_stuck(const struct hst *h, uint32_t block)
{
	const struct hst_write *w = write_of(h, block);

	switch (w->state) {
	case HST_WRITE_STUCK:
	case HST_WRITE_FAILED:
		return true;
	case HST_WRITE_ENDED:
	case HST_WRITE_SYNCING:
		return h->evict.sync.state == HST_SYNC_STUCK;
	default:
		return false;
	}
}

bool swap_writes_due(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return ev->writes_used < ev->write_count && ev->lists[HST_LIST_DIRTY].len > 0;
}

void swap_start_writes(struct hst *h)
{
	struct hst_evict *ev = &h->evict;
	uint32_t max = (uint32_t)max_u64(HST_WRITE_BYTES_MAX >> h->cfg.block_shift, 1);

	while (swap_writes_due(h)) {
		struct hst_write *w = write_free(ev);
		uint32_t next = ev->lists[HST_LIST_DIRTY].head;

		*w = (struct hst_write){.h = h, .block = next};
		ev->writes_used++;
		do {
			block_flags(h, next, BLOCK_WRITING, 0);
			w->count++;
			next++;
		} while (w->count < max && next < h->block_count &&
			 block_list_of(h, next) == HST_LIST_DIRTY);
		write_go_on(w);
	}
}

void swap_resume(struct hst *h)
{
	for (unsigned i = 0; i < h->evict.write_count; i++) {
		struct hst_write *w = &h->evict.writes[i];

		/* What is under way may still fail for the reason that is mended now. */
		w->tries = 0;
		if (w->state == HST_WRITE_FAILED) {
			write_again(w);
			trouble_end(h);
		} else if (w->state == HST_WRITE_STUCK) {
			h->swap.io.ops->cancel(h->swap.io.ctx, &w->rq);
		}
	}
	if (h->evict.sync.state == HST_SYNC_STUCK)
		h->swap.io.ops->cancel(h->swap.io.ctx, &h->evict.sync.rq);
}

void swap_stop(struct hst *h)
{
	for (unsigned i = 0; i < h->evict.write_count; i++) {
		struct hst_write *w = &h->evict.writes[i];

		if (w->state == HST_WRITE_BUSY || w->state == HST_WRITE_STUCK)
			h->swap.io.ops->cancel(h->swap.io.ctx, &w->rq);
	}
	if (h->evict.sync.state != HST_SYNC_NONE)
		h->swap.io.ops->cancel(h->swap.io.ctx, &h->evict.sync.rq);
}
