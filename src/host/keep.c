/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that stay where they are for a while: a vCPU's areas and the instruction that it is in
 * the middle of, and memory that a device copies from or to without the lock.
 * A count per block. Test: tests/unit/host_keep_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/keep.h"

bool block_keep(struct hst *h, uint32_t block)
{
	uint16_t *keeps = h->evict.keeps;

	if (keeps[block] == UINT16_MAX)
		return false;
	if (keeps[block]++ == 0)
		block_flags(h, block, BLOCK_KEPT, 0);
	return true;
}

void block_let_go(struct hst *h, uint32_t block)
{
	uint16_t *keeps = h->evict.keeps;

	ASSERT(keeps[block] > 0);
	if (--keeps[block] == 0)
		block_flags(h, block, 0, BLOCK_KEPT);
}

void vcpu_keep(struct hst_vcpu *v, unsigned entry, uint32_t block)
{
	uint32_t before = v->kept[entry];
	bool kept = block == BLOCK_NONE || block_keep(v->h, block);

	/* vCPUs and hst_hold together cannot use up a block's count. */
	_Static_assert(HST_VCPUS_MAX * HST_KEPT + HST_HOLDS_MAX < UINT16_MAX, "no entry refused");
	ASSERT(kept);
	v->kept[entry] = block;
	if (before != BLOCK_NONE)
		block_let_go(v->h, before);
}

void vcpu_keep_area(struct hst_vcpu *v)
{
	roff_t off;
	bool on = eng_enabled(&v->eng) && ram_find(&v->h->ram, eng_area_gpa(v->eng.en), 8, &off);

	v->area_seen_ns = 0;
	vcpu_keep(v, HST_KEPT_AREA, on ? block_of(v->h, off) : BLOCK_NONE);
}

bool hst_hold(struct hst *h, roff_t off)
{
	uint32_t block = block_of(h, off);

	/* Some places stay free for the vCPUs, which cannot do without. */
	if (h->evict.keeps[block] >= HST_HOLDS_MAX)
		return false;
	if (block_kind(h, block) != BLOCK_PRESENT || !block_keep(h, block))
		return false;
	h->evict.held++;
	return true;
}

void hst_release(struct hst *h, roff_t off)
{
	h->evict.held--;
	block_let_go(h, block_of(h, off));
}

/* It stays where it is for as long as somebody likes, pinned or held, however often. */
static bool stays(const struct hst *h, uint32_t block)
{
	return block_is(h, block, BLOCK_PINNED) || h->evict.holds[block] > 0;
}

static bool may_stay(const struct hst *h, uint32_t block)
{
	const struct hst_evict *ev = &h->evict;

	return stays(h, block) || !budget_is_limited(ev) ||
	       ev->staying + hst_blocks_min(h->cfg.vcpus) < ev->limit;
}

bool hst_hold_long(struct hst *h, roff_t off)
{
	uint32_t block = block_of(h, off);

	if (!may_stay(h, block) || !hst_hold(h, off))
		return false;
	/* Who pins it may be one that cannot wait for it there. */
	if (!block_is(h, block, BLOCK_VMM) && !block_show_vmm(h, block)) {
		hst_release(h, off);
		return false;
	}
	h->evict.staying += !stays(h, block);
	h->evict.holds[block]++;
	return true;
}

void hst_release_long(struct hst *h, roff_t off, uint64_t len)
{
	uint32_t block = block_of(h, off);

	/* The VMM's word, which may be wrong: of what is not held nothing is known to be there. */
	if (h->evict.holds[block] == 0)
		return;
	hst_wrote(h, off, len);
	h->evict.holds[block]--;
	h->evict.staying -= !stays(h, block);
	hst_release(h, off);
}

void hst_unpin(struct hst *h, roff_t off)
{
	uint32_t block = block_of(h, off);

	if (!block_is(h, block, BLOCK_PINNED))
		return;
	block_flags(h, block, 0, BLOCK_PINNED);
	h->evict.staying -= !stays(h, block);
}

bool hst_pin(struct hst *h, roff_t off)
{
	uint32_t block = block_of(h, off);

	ASSERT(block_kind(h, block) == BLOCK_PRESENT);
	if (!may_stay(h, block))
		return false;
	h->evict.staying += !stays(h, block);
	block_flags(h, block, BLOCK_PINNED, 0);
	return true;
}
