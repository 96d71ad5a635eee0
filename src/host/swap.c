/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing evicted blocks to the swap file. A write takes adjacent blocks of the dirty list;
 * while it is under way they are on the list of the writing ones, or have come back to the
 * guest: then what arrives in the file may be a mixture, and is not believed
 * (BLOCK_WRITTEN stays). A block has one write at a time, so that an older one cannot
 * overtake the next. A write that fails is repeated, then pauses the VM; nothing is lost,
 * the content is in memory. Test: tests/unit/host_swap_test.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "host/block.h"
#include "host/swap.h"
#include "host/trouble.h"

static void write_go_on(struct hst_write *w);

static struct hst_write *write_free(struct hst_evict *ev)
{
	for (unsigned i = 0; i < HST_WRITES_MAX; i++)
		if (ev->writes[i].state == HST_WRITE_FREE)
			return &ev->writes[i];
	return NULL;
}

/* The blocks of a write that did not come back to the guest meanwhile are clean now, or not. */
static void write_end(struct hst_write *w, bool written)
{
	struct hst *h = w->h;

	for (uint32_t block = w->block; block < w->block + w->count; block++) {
		if (written && block_kind(h, block) == BLOCK_STANDBY) {
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
		if (block_kind(w->h, block) == BLOCK_STANDBY)
			return true;
	return false;
}

static void write_failed(struct hst_write *w, int res)
{
	struct hst *h = w->h;
	struct err why;

	h->stats.swap_write_errors++;
	if (!write_needed(w)) {
		write_end(w, false);
		return;
	}
	if (w->tries >= h->cfg.retries_max) {
		w->state = HST_WRITE_FAILED;
		err_sys(&why, res ? res : -ENOSPC, "swap file: write of %llu bytes",
			(unsigned long long)w->count << h->cfg.block_shift);
		trouble_begin(h, w->block, w->tries + 1u, &why);
		return;
	}
	w->state = HST_WRITE_BACKOFF;
	timer_arm(&h->timers, &w->timer, hst_now(h) + backoff_ns(w->tries++));
}

static void write_done(struct io_req *rq, int res)
{
	struct hst_write *w = CONTAINER_OF(rq, struct hst_write, rq);
	struct hst *h = w->h;
	bool stuck = w->state == HST_WRITE_STUCK;

	timer_cancel(&h->timers, &w->timer);
	h->evict.writes_in_flight--;
	if (h->stopping)
		return;
	if (res > 0) {
		w->done_bytes += (uint64_t)res;
		h->stats.swapped_bytes += (uint64_t)res;
	}
	if (stuck && res == -ECANCELED) {
		/* By hst_resume, to be begun anew. */
		w->tries = 0;
		write_go_on(w);
	} else if (res <= 0) {
		write_failed(w, res);
	} else if (w->done_bytes < (uint64_t)w->count << h->cfg.block_shift) {
		write_go_on(w);
	} else {
		write_end(w, true);
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
		write_go_on(w);
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

bool swap_writes_due(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return ev->writes_used < HST_WRITES_MAX && ev->lists[HST_LIST_DIRTY].len > 0;
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
	for (unsigned i = 0; i < HST_WRITES_MAX; i++) {
		struct hst_write *w = &h->evict.writes[i];

		/* What is under way may still fail for the reason that is mended now. */
		w->tries = 0;
		if (w->state == HST_WRITE_FAILED) {
			write_go_on(w);
			trouble_end(h);
		} else if (w->state == HST_WRITE_STUCK) {
			h->swap.io.ops->cancel(h->swap.io.ctx, &w->rq);
		}
	}
}

void swap_stop(struct hst *h)
{
	for (unsigned i = 0; i < HST_WRITES_MAX; i++) {
		struct hst_write *w = &h->evict.writes[i];

		if (w->state == HST_WRITE_BUSY || w->state == HST_WRITE_STUCK)
			h->swap.io.ops->cancel(h->swap.io.ctx, &w->rq);
	}
}
