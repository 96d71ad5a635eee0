/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read before anybody waits for it: first the blocks of a list, in its order, then, if
 * that is wanted, all that a source stands behind. Below demand at every stage: a read begins only
 * when nobody waits for a read's turn, and leaves half of them and of the fetches; nothing is read
 * by a thread that has other work, but by the serving one, from a timer, a few at a time. The end
 * of a read and what becomes visible have the timer fire (fetch_plan_on).
 * Test: tests/unit/host_plan_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/fetch.h"
#include "host/plan.h"

/* Reads that one step begins, and blocks that it looks at: others want the lock. */
#define READS_MAX 64u
#define LOOKS_MAX 512u
/* Where nothing tells when to look again. */
#define RETRY_NS (10 * NS_PER_MS)

static void go_on_at(struct hst *h, uint64_t at_ns)
{
	timer_arm(&h->timers, &h->plan.timer, at_ns);
}

/* Its content is in a source, and nowhere else. */
static bool is_to_read(struct hst *h, uint32_t block)
{
	return block_kind(h, block) == BLOCK_ABSENT && !block_is(h, block, BLOCK_IN_SWAP) &&
	       fetch_backing(h, block);
}

/* ---- the list ---- */

/* True: it has begun a read. */
static bool next_of_list(struct hst *h)
{
	struct hst_plan *p = &h->plan;
	uint32_t block = p->runs[p->run].block + p->in_run;

	if (++p->in_run >= p->runs[p->run].count) {
		p->run++;
		p->in_run = 0;
	}
	/* Its part may have left since. */
	if (block >= h->block_count ||
	    !ram_region_at(&h->ram, (roff_t){(uint64_t)block << h->cfg.block_shift}) ||
	    !is_to_read(h, block))
		return false;
	fetch_ahead(h, block, true);
	return true;
}

/* ---- the rest ---- */

/* From p->block on the first that a source stands behind; BLOCK_NONE: there is none. */
static uint32_t next_backed(const struct hst *h)
{
	roff_t off = {(uint64_t)h->plan.block << h->cfg.block_shift};

	for (unsigned i = 0; i < h->ram.backing_count; i++) {
		const struct ram_backing *b = ram_backing(&h->ram, i);

		if (off.v < b->roff.v)
			return block_of(h, b->roff);
		if (off.v - b->roff.v < b->bytes)
			return h->plan.block;
	}
	return BLOCK_NONE;
}

static void end_round(struct hst *h)
{
	struct hst_plan *p = &h->plan;

	p->block = 0;
	p->on = !h->cfg.evict;
	if (!p->on) {
		p->fill = false;
		return;
	}
	p->filled = !p->missed;
	p->missed = false;
	go_on_at(h, hst_now(h) + RETRY_NS);
}

/* True: it has begun a read. */
static bool fill_one(struct hst *h, uint32_t block)
{
	struct hst_plan *p = &h->plan;

	p->block = block + 1;
	switch (block_kind(h, block)) {
	case BLOCK_PRESENT:
		return false;
	case BLOCK_ABSENT:
		if (!is_to_read(h, block))
			return false;
		p->missed = true;
		fetch_ahead(h, block, false);
		return true;
	case BLOCK_STANDBY:
		p->missed = true;
		if (!h->cfg.evict)
			fetch_show(h, block);
		return true;
	default:
		p->missed = true;
		return false;
	}
}

/* ---- steps ---- */

static void step(struct timer *tm, uint64_t now_ns)
{
	struct hst *h = CONTAINER_OF(tm, struct hst, plan.timer);
	struct hst_plan *p = &h->plan;
	unsigned looks = 0, reads = 0;

	if (h->stopping || !p->on)
		return;
	if (p->filled) {
		/* hst_let_go has to be asked again. */
		go_on_at(h, now_ns + RETRY_NS);
		return;
	}
	for (; p->run < p->count || p->fill; looks++) {
		bool read;

		if (!fetch_is_quiet(h) || h->troubled > 0) {
			go_on_at(h, now_ns + RETRY_NS);
			return;
		}
		if (looks == LOOKS_MAX || reads == READS_MAX) {
			go_on_at(h, now_ns);
			return;
		}
		if (p->run < p->count) {
			read = next_of_list(h);
		} else {
			uint32_t block = next_backed(h);

			if (block == BLOCK_NONE) {
				end_round(h);
				return;
			}
			read = fill_one(h, block);
		}
		reads += read;
	}
	p->on = false;
}

void plan_init(struct hst *h)
{
	h->plan = (struct hst_plan){.timer = {.fire = step}};
}

static void begin(struct hst *h)
{
	h->plan.on = true;
	fetch_plan_on(h);
}

void hst_plan(struct hst *h, const struct hst_run *runs, uint32_t count)
{
	struct hst_plan *p = &h->plan;

	p->runs = runs;
	p->count = count;
	p->run = p->in_run = 0;
	begin(h);
}

void hst_fill(struct hst *h)
{
	struct hst_plan *p = &h->plan;

	p->fill = true;
	p->filled = p->missed = false;
	p->block = 0;
	begin(h);
}

void hst_source_added(struct hst *h)
{
	struct hst_plan *p = &h->plan;

	/* The round may have passed where it stands, or have been the last. */
	p->filled = false;
	p->missed = true;
	/* What is being shown may have found that nobody watches, where somebody does now. */
	for (uint32_t i = 0; i < h->fetch_count; i++)
		h->fetches[i].showing &= HST_SHOW_WATCHED;
	fetch_plan_on(h);
}

bool hst_let_go(struct hst *h, bool *ret_whole)
{
	struct hst_plan *p = &h->plan;

	if (!p->filled || h->free_count < h->fetch_count)
		return false;
	*ret_whole = h->stats.discarded == 0;
	p->on = p->fill = p->filled = false;
	timer_cancel(&h->timers, &p->timer);
	ram_drop_backings(&h->ram);
	return true;
}
