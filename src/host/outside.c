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
