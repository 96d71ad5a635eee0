/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that nobody needs any more: a balloon's, what a guest reports as free, or a page that the
 * host has lost. It is zeroes from then on, whatever stands behind it. A block goes
 *
 *   ABSENT, STANDBY or PRESENT -> DROPPING -> ABSENT
 *
 * Whoever touches it meanwhile waits, as for a block that is being evicted. vCPUs are not held
 * (hold.c): what is discarded is neither page table nor code of theirs. One that could not be
 * fetched stays FETCHING, its fetch BEHIND the discard, and comes as zeroes then; one that is
 * being written out leaves that write to the other blocks. Neither pauses the VM any more.
 * Test: tests/unit/host_discard_test.c.
 */
#include <string.h>

#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/swap.h"

/* Up to the end of the chunk: mapping calls are made for one at a time. */
static uint32_t run_end(const struct hst *h, const struct hst_discard *d)
{
	uint32_t per_chunk = 1u << (CHUNK_SHIFT - h->cfg.block_shift);

	return (uint32_t)min_u64(d->end, (d->at / per_chunk + 1) * (uint64_t)per_chunk);
}

/* It must keep its memory. */
static bool stays(const struct hst *h, uint32_t block)
{
	return block_is(h, block, BLOCK_PINNED | BLOCK_KEPT);
}

static bool can_take(const struct hst *h, uint32_t block)
{
	enum block_kind kind = block_kind(h, block);

	if (stays(h, block))
		return false;
	return kind == BLOCK_ABSENT || kind == BLOCK_STANDBY || kind == BLOCK_PRESENT;
}

/* What is absent is dropped as well: the kernel may have filled it unseen. */
static void take(struct hst *h, uint32_t block)
{
	if (block_kind(h, block) != BLOCK_ABSENT)
		block_delist(h, block);
	h->blocks_present -= block_kind(h, block) == BLOCK_PRESENT;
	block_set_kind(h, block, BLOCK_DROPPING);
	if (block_is(h, block, BLOCK_WRITING))
		swap_changed(h, block);
}

static void overwrite(struct hst *h, uint32_t block)
{
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	memset(h->mem.alias + off.v, 0, len);
	hst_wrote(h, off, len);
	h->stats.discarded++;
}

/* It takes up no memory: who wants it has it fetched. */
static void is_absent(struct hst *h, uint32_t block)
{
	if (block_kind(h, block) == BLOCK_FETCHING) {
		struct hst_fetch *f = block_fetch(h, block);

		f->charged = false;
		f->filled = false;
		fetch_queue(f);
		return;
	}
	block_set_kind(h, block, BLOCK_ABSENT);
}

static void discarded(struct hst *h, const struct hst_discard *d, uint32_t block)
{
	h->blocks[block] &= ~(BLOCK_WRITTEN | BLOCK_IN_SWAP | BLOCK_VMM | BLOCK_KERNEL);
	h->blocks[block] |= BLOCK_ZEROES;
	block_changed(h, block);
	h->stats.discarded++;
	if (d->was != BLOCK_ABSENT)
		budget_uncharge(h);
	is_absent(h, block);
}

/* What was done of it in part does not matter: its content is as it was, or zeroes. */
static void kept(struct hst *h, const struct hst_discard *d, uint32_t block)
{
	bool shown = d->was == BLOCK_PRESENT && !d->unmapped;

	/* Its content is not what memory holds. */
	if (d->was == BLOCK_ABSENT) {
		is_absent(h, block);
		return;
	}
	if (d->was == BLOCK_FETCHING && !block_fetch(h, block)->filled) {
		fetch_queue(block_fetch(h, block));
		return;
	}
	h->blocks[block] |= BLOCK_WRITTEN;
	block_changed(h, block);
	/* Else the VMM's view may show some of it still; the rest is shown when it is touched. */
	if (d->unmapped)
		h->blocks[block] &= ~BLOCK_VMM;
	if (block_kind(h, block) == BLOCK_FETCHING) {
		fetch_filled(block_fetch(h, block));
		return;
	}
	h->blocks_present += shown;
	block_set_kind(h, block, shown ? BLOCK_PRESENT : BLOCK_STANDBY);
	block_enlist(h, block);
}

static void finish_run(struct hst *h, struct hst_discard *d)
{
	for (uint32_t i = 0; i < d->run.count; i++) {
		if (d->why.code == 0)
			discarded(h, d, d->run.block + i);
		else
			kept(h, d, d->run.block + i);
		if (block_is(h, d->run.block + i, BLOCK_WRITING))
			swap_go_on(h, d->run.block + i);
	}
	d->run.count = 0;
	h->evict.import_stale = true;
	fetch_dispatch(h);
}

/*
 * A block alone, if it can be taken: one that could not be fetched; or one that must stay, and is
 * lost: it comes back, in other memory, before it is passed over.
 */
static void begin_alone(struct hst *h, struct hst_discard *d)
{
	if (d->was == BLOCK_FETCHING && fetch_take_failed(block_fetch(h, d->at))) {
		d->at++;
		d->run.count = 1;
	} else if (d->was == BLOCK_PRESENT && block_is_lost(h, d->at)) {
		take(h, d->at);
		d->run.count = 1;
	}
}

static void begin_run(struct hst *h, struct hst_discard *d)
{
	uint32_t end = run_end(h, d);

	d->run.block = d->at;
	d->was = block_kind(h, d->at);
	if (!can_take(h, d->at)) {
		begin_alone(h, d);
		return;
	}
	for (; d->at < end && can_take(h, d->at) && block_kind(h, d->at) == d->was; d->at++) {
		take(h, d->at);
		d->run.count++;
	}
}

enum hst_discarding hst_discard_step(struct hst *h, struct hst_discard *d)
{
	if (d->run.count > 0)
		finish_run(h, d);
	while (d->why.code == 0 && d->at < d->end) {
		begin_run(h, d);
		if (d->run.count > 0)
			return HST_DISCARD_WORK;
		if (block_kind(h, d->at) != BLOCK_PRESENT)
			return HST_DISCARD_LATER;
		overwrite(h, d->at++);
	}
	return HST_DISCARD_DONE;
}

/* Of what was dropped in part: else the kernel might fill it unseen while it counts as there. */
static void fill_holes(const struct hst *h, roff_t off, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += PAGE_BYTES)
		if (!block_page_is_lost(h, (roff_t){off.v + at}))
			(void)*(const volatile unsigned char *)(h->mem.alias + off.v + at);
}

void hst_discard_work(const struct hst *h, struct hst_discard *d)
{
	const struct mem *m = &h->mem;
	roff_t off = {(uint64_t)d->run.block << h->cfg.block_shift};
	uint64_t len = (uint64_t)d->run.count << h->cfg.block_shift;
	mem_pages guest, vmm;
	struct err e;

	d->why = (struct err){.code = 0};
	d->unmapped = m->ops->unmap(m->ctx, off, len, &d->why) == 0;
	if (d->unmapped && m->ops->collect(m->ctx, off, len, guest, vmm, &d->why) == 0 &&
	    m->ops->drop(m->ctx, off, len, &d->why) < 0 && d->was != BLOCK_ABSENT)
		fill_holes(h, off, len);
	/* The kernel may be told to write there. */
	if (!d->unmapped && d->was == BLOCK_PRESENT)
		(void)m->ops->present(m->ctx, off, len, MEM_VIEW_GUEST, false, &e);
}
