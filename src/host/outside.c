/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those who wait for a block and are no vCPU: devices, and the VMM's own accesses.
 * Test: tests/unit/host_fetch_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/fetch.h"

static void ready(struct hst *h, struct hst_waiter *w, uint64_t now_ns)
{
	(void)w;
	(void)now_ns;
	h->hooks.outside_ready(h->hooks.ctx);
}

bool hst_ensure_room(const struct hst *h, roff_t off)
{
	enum block_kind kind = block_kind(h, block_of(h, off));

	return kind == BLOCK_PRESENT || kind == BLOCK_FETCHING || fetch_room(h);
}

bool hst_is_there(const struct hst *h, roff_t off)
{
	return block_kind(h, block_of(h, off)) == BLOCK_PRESENT;
}

/* The job that has it in hand has failed, and is done again when the VM goes on. */
static bool is_in_failed_job(const struct hst *h, uint32_t block)
{
	const struct hst_job *job = &h->evict.job;

	for (uint32_t i = 0; h->evict.failed && !h->evict.again && i < job->run_count; i++)
		if (block - job->runs[i].block < job->runs[i].count)
			return true;
	return false;
}

bool hst_is_stuck(const struct hst *h, roff_t off)
{
	bool trouble = h->troubled > 0 || (h->evict.failed && !h->evict.again);
	uint32_t block = block_of(h, off);

	if (block_kind(h, block) != BLOCK_FETCHING)
		return trouble && block_kind(h, block) != BLOCK_PRESENT;
	switch (block_fetch(h, block)->state) {
	case HST_FETCH_FAILED:
	case HST_FETCH_STUCK:
	case HST_FETCH_CANCELLED:
		return true;
	case HST_FETCH_QUEUED:
		/* For memory, or for a read's place, which trouble keeps from being free. */
		return trouble;
	case HST_FETCH_BEHIND:
		return is_in_failed_job(h, block);
	default:
		return false;
	}
}

bool hst_ensure(struct hst *h, roff_t off, struct hst_waiter *w)
{
	uint32_t block = block_of(h, off);
	bool joined;

	ASSERT(off.v < h->mem.bytes && !w->v);
	if (block_kind(h, block) == BLOCK_PRESENT)
		return true;
	w->ready = ready;
	waiter_link(w, fetch_for(h, block, h->cfg.vcpus, &joined), hst_now(h));
	return false;
}

void hst_forget(struct hst_waiter *w)
{
	waiter_unlink(w);
}
