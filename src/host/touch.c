/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches that the kernel reports (userfaultfd). The VMM's threads, and the guest's in faults:
 * kernel, wait for the block, which is fetched, and so do all for what is in memory; else the chunk
 * of the guest's view is poisoned, and the next touch comes as a fault of the vCPU's.
 * Test: tests/unit/host_touch_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"

/*
 * There, or in memory: it only has to be shown, so that a touch need not be a fault. The kernel
 * reports a touch of RAM without a source only where the VMM has filled it, unless it is
 * overcommitted.
 */
static bool is_spared(struct hst *h, uint64_t off)
{
	uint32_t block = block_of(h, (roff_t){off});
	enum block_kind kind = block_kind(h, block);

	if (kind == BLOCK_PRESENT || kind == BLOCK_STANDBY)
		return true;
	/* On its way to being shown: for another vCPU that met it first. */
	return (kind == BLOCK_ABSENT || kind == BLOCK_FETCHING) && !h->cfg.evict &&
	       !block_is(h, block, BLOCK_ZEROES) && !ram_backing_at(&h->ram, (roff_t){off});
}

static int poison_chunk(struct hst *h, uint64_t chunk, struct err *e)
{
	uint64_t at = chunk << CHUNK_SHIFT;
	const struct ram_region *r = ram_region_at(&h->ram, (roff_t){at});
	uint64_t end = min_u64(at + CHUNK_BYTES, r->roff.v + r->bytes);

	while (at < end) {
		uint64_t run = at;

		while (run < end && !is_spared(h, run))
			run += 1ull << h->cfg.block_shift;
		run = min_u64(run, end);
		if (run > at) {
			int rc = h->mem.ops->poison(h->mem.ctx, (roff_t){at}, run - at, e);

			if (rc < 0)
				return rc;
		}
		at = run + (1ull << h->cfg.block_shift);
	}
	h->chunk_poisoned[chunk] = 1;
	return 0;
}

/*
 * A touch of a block that is there: reported before it was, or the host has taken the page out
 * of the mapping to reclaim it. Then nobody knows whether it was written to before.
 */
static int show_again(struct hst *h, uint32_t block, struct err *e)
{
	roff_t start;
	uint64_t len;

	hst_block_range(h, block, &start, &len);
	h->blocks[block] |= BLOCK_WRITTEN;
	return h->mem.ops->present(h->mem.ctx, start, len, MEM_VIEW_GUEST, false, e);
}

/*
 * Of a block that is not there. Whoever sleeps in the kernel is no waiter of ours, so that a block
 * which is read along must be told that it is wanted.
 */
static void fetch_touched(struct hst *h, uint32_t block, unsigned view, bool *ret_joined)
{
	bool absent = block_kind(h, block) == BLOCK_ABSENT;
	struct hst_fetch *f = fetch_for(h, block, h->cfg.vcpus, ret_joined);

	/*
	 * In which mode the guest was the kernel does not say, nor who waits: where memory is
	 * limited, what is read along could take the room of what was just shown to him.
	 */
	if (absent && f->backing && !budget_is_limited(&h->evict))
		fetch_around(f, false);
	h->touched_again = f->touched && (f->views & view) ? h->touched_again + 1 : 0;
	f->ahead = false;
	fetch_touch(f);
	f->views |= view & (MEM_VIEW_GUEST | MEM_VIEW_VMM);
}

/* Of a VM that ends: what is not in memory, and what there may be no fetch for any more. */
static bool will_not_come(const struct hst *h, uint32_t block)
{
	switch (block_kind(h, block)) {
	case BLOCK_ABSENT:
	case BLOCK_DROPPING:
		return true;
	case BLOCK_FETCHING:
		return !block_fetch(h, block)->filled;
	default:
		return !fetch_room(h);
	}
}

/* There is no fetch left for it: whoever touched waits on in the kernel. */
#define TOUCH_LATER 1

/* 0, TOUCH_LATER, or -Exxx with text; so does guest_touch. */
static int vmm_touch(struct hst *h, uint32_t block, struct err *e)
{
	roff_t start;
	uint64_t len;
	bool joined;

	hst_block_range(h, block, &start, &len);
	if (h->stopping && will_not_come(h, block))
		return h->mem.ops->refuse(h->mem.ctx, start, len, e);
	/* What was shown before was taken out by the host, as above. */
	if (block_kind(h, block) == BLOCK_PRESENT && block_show_vmm(h, block))
		return 0;
	if (block_kind(h, block) != BLOCK_FETCHING && !fetch_room(h))
		return TOUCH_LATER;
	if (block_kind(h, block) == BLOCK_PRESENT)
		/* A fetch that fails is tried again when the VM goes on. */
		fetch_present_again(h, block, MEM_VIEW_VMM);
	else
		fetch_touched(h, block, MEM_VIEW_VMM, &joined);
	return 0;
}

/*
 * KVM's own code, such as its emulator, sleeps for a page without regard for a kick: the touch is
 * tried again until it is answered. It fails instead, and KVM_RUN returns. A kernel that has no
 * poison markers has nothing to refuse it by, which is no new trouble for a VM that ends.
 */
static int refuse_vcpu(struct hst *h, roff_t start, uint64_t len)
{
	struct err e;

	(void)h->mem.ops->poison(h->mem.ctx, start, len, &e);
	return 0;
}

static int guest_touch(struct hst *h, roff_t off, struct err *e)
{
	bool counts = h->cfg.faults == HST_FAULTS_KERNEL;
	uint32_t block = block_of(h, off);
	roff_t start;
	uint64_t len;
	bool joined;

	hst_block_range(h, block, &start, &len);
	if (h->stopping && block_kind(h, block) != BLOCK_PRESENT)
		return refuse_vcpu(h, start, len);
	if (block_kind(h, block) == BLOCK_PRESENT) {
		h->stats.faults_total += counts;
		h->stats.redundant++;
		return show_again(h, block, e);
	}
	if (h->cfg.faults != HST_FAULTS_KERNEL && !is_spared(h, off.v)) {
		if (!h->chunk_poisoned[off.v >> CHUNK_SHIFT])
			return poison_chunk(h, off.v >> CHUNK_SHIFT, e);
		/* Met while it was being taken out of the mapping, or just before the poison. */
		return h->mem.ops->poison(h->mem.ctx, start, len, e);
	}
	if (block_kind(h, block) != BLOCK_FETCHING && !fetch_room(h))
		return TOUCH_LATER;
	fetch_touched(h, block, MEM_VIEW_GUEST, &joined);
	h->stats.faults_total += counts;
	h->stats.joined += joined;
	return 0;
}

/*
 * Threads that wait for the same block come once each. A thread with a signal pending, in a system
 * call or in KVM's own code, is sent back by the kernel to touch again at once, and again.
 */
#define TOUCHED_AGAIN_MAX 64u

uint64_t hst_touch_pause_ns(const struct hst *h)
{
	if (h->touched_again <= TOUCHED_AGAIN_MAX)
		return 0;
	/* Longer after each few, to 16 ms: all else that this thread does waits, too. */
	return NS_PER_MS << min_u64((h->touched_again - TOUCHED_AGAIN_MAX) / 8, 4);
}

bool hst_touch_due(const struct hst *h)
{
	return h->later_count > 0 && (h->stopping || fetch_room(h));
}

unsigned hst_touch_room(const struct hst *h)
{
	return HST_TOUCHES_MAX - h->later_count;
}

int hst_kernel_touch(struct hst *h, const struct mem_touch *t, struct err *e)
{
	int rc;

	if (!ram_region_at(&h->ram, t->off))
		return 0; /* of a region that has left */
	rc = t->view == MEM_VIEW_VMM ? vmm_touch(h, block_of(h, t->off), e)
				     : guest_touch(h, t->off, e);
	if (rc == TOUCH_LATER) {
		ASSERT(h->later_count < HST_TOUCHES_MAX);
		h->later[h->later_count++] = *t;
		return 0;
	}
	h->stats.vmm_touches += t->view == MEM_VIEW_VMM;
	return rc;
}
