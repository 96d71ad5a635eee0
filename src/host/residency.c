/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the content of each block is: what a snapshot or a migration has to copy, and from where.
 * Test: tests/integration/adopt_test.c.
 */
#include "host/block.h"

struct look {
	mem_pages there, guest, vmm;
};

/* Of the block's pages, from page `first` of the look on. */
static bool any(const mem_pages pages, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		if (pages[i / 64] >> (i % 64) & 1)
			return true;
	return false;
}

static bool is_written(const struct hst *h, uint32_t block, const struct look *l, uint32_t first,
		       uint32_t pages)
{
	/*
	 * Without eviction nobody notes first writes; and who waited for a block may write to it
	 * before it is known where it shows.
	 */
	if (block_is(h, block, BLOCK_WRITTEN | BLOCK_IN_SWAP) || !h->cfg.evict ||
	    block_kind(h, block) == BLOCK_FETCHING)
		return true;
	return any(l->guest, first, pages) ||
	       (block_is(h, block, BLOCK_VMM) && any(l->vmm, first, pages));
}

/* Content that was read already, or never left memory. */
static bool is_filled(const struct hst *h, uint32_t block)
{
	const struct hst_fetch *f = block_fetch(h, block);

	return f->filled || f->state == HST_FETCH_BEHIND;
}

static unsigned char of_block(struct hst *h, uint32_t block, const struct look *l, uint32_t first,
			      uint32_t pages)
{
	enum block_kind kind = block_kind(h, block);
	bool absent = kind == BLOCK_ABSENT || (kind == BLOCK_FETCHING && !is_filled(h, block));
	bool backed, zeroes = block_is(h, block, BLOCK_ZEROES);
	uint64_t len;
	roff_t off;

	if (!absent)
		return HST_BLOCK_THERE |
		       (zeroes || is_written(h, block, l, first, pages) ? HST_BLOCK_CHANGED : 0);
	hst_block_range(h, block, &off, &len);
	backed = ram_backing_at(&h->ram, off) != NULL;
	if (block_is(h, block, BLOCK_IN_SWAP))
		return HST_BLOCK_CHANGED;
	/* Of RAM without a source, the kernel may have filled some unseen. */
	if (!backed && any(l->there, first, pages))
		return HST_BLOCK_THERE | HST_BLOCK_CHANGED;
	return (zeroes && backed ? HST_BLOCK_CHANGED : 0) |
	       (zeroes || !backed ? HST_BLOCK_ZEROES : 0);
}

int hst_residency(struct hst *h, roff_t off, uint64_t len, unsigned char *ret, struct err *e)
{
	uint32_t first = block_of(h, off), pages = 1u << (h->cfg.block_shift - PAGE_SHIFT);
	uint32_t count = (uint32_t)(len >> h->cfg.block_shift);
	struct look l;
	int rc = h->mem.ops->look(h->mem.ctx, off, len, l.there, l.guest, l.vmm, e);

	for (uint32_t i = 0; rc == 0 && i < count; i++)
		ret[i] = of_block(h, first + i, &l, i * pages, pages);
	return rc;
}
