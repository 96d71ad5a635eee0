/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that stay where they are for a while: a vCPU's areas and the instruction that it is in
 * the middle of, and memory that a device copies from or to without the lock. A count per block,
 * where memory is taken away at all. Test: tests/unit/host_keep_test.c.
 */
#include "base/assert.h"
#include "host/internal.h"

bool block_keep(struct hst *h, uint32_t block)
{
	uint16_t *keeps = h->evict.keeps;

	if (!keeps)
		return true;
	if (keeps[block] == UINT16_MAX)
		return false;
	if (keeps[block]++ == 0)
		evict_flags(h, block, BLOCK_KEPT, 0);
	return true;
}

void block_let_go(struct hst *h, uint32_t block)
{
	uint16_t *keeps = h->evict.keeps;

	if (!keeps)
		return;
	ASSERT(keeps[block] > 0);
	if (--keeps[block] == 0)
		evict_flags(h, block, 0, BLOCK_KEPT);
}

bool hst_hold(struct hst *h, roff_t off)
{
	uint32_t block = block_of(h, off);

	/* Some places stay free for the vCPUs, which cannot do without. */
	if (h->evict.keeps && h->evict.keeps[block] >= HST_HOLDS_MAX)
		return false;
	if (block_kind(h, block) != BLOCK_PRESENT || !block_keep(h, block))
		return false;
	h->evict.held += h->evict.keeps != NULL;
	return true;
}

void hst_release(struct hst *h, roff_t off)
{
	h->evict.held -= h->evict.keeps != NULL;
	block_let_go(h, block_of(h, off));
}
