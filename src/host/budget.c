/* SPDX-License-Identifier: Apache-2.0 */
/* See budget.h. Test: tests/unit/host_evict_test.c. */
#include "base/assert.h"
#include "host/budget.h"

#define NO_LIMIT UINT32_MAX

bool budget_is_limited(const struct hst_evict *ev)
{
	return ev->limit != NO_LIMIT;
}

uint32_t budget_slack(const struct hst_evict *ev)
{
	return (uint32_t)max_u64(min_u64(ev->limit / 32, 4096), min_u64(ev->limit / 2, 4));
}

uint32_t budget_standby(const struct hst_evict *ev)
{
	return ev->lists[HST_LIST_DIRTY].len + ev->lists[HST_LIST_WRITING].len +
	       ev->lists[HST_LIST_CLEAN].len;
}

uint32_t budget_over(const struct hst_evict *ev)
{
	uint32_t low = budget_is_limited(ev) ? ev->limit - budget_slack(ev) : NO_LIMIT;

	return ev->resident > low ? ev->resident - low : 0;
}

void budget_limit(struct hst *h)
{
	uint64_t limit = h->cfg.resident_max >> h->cfg.block_shift;
	uint64_t all = h->ram.bytes >> h->cfg.block_shift;

	h->evict.limit = limit > 0 && limit < all ? (uint32_t)limit : NO_LIMIT;
}

void budget_charge(struct hst *h, bool ahead)
{
	struct hst_evict *ev = &h->evict;
	uint32_t goal = ev->limit / 8;

	ev->resident++;
	/* One for the block that this one will displace, one for a rescue on the way. */
	if (!ahead && budget_is_limited(ev) && ev->resident + goal > ev->limit - budget_slack(ev))
		ev->unmap_credit = (uint32_t)min_u64(ev->unmap_credit + 2, goal);
}

void budget_uncharge(struct hst *h)
{
	ASSERT(h->evict.resident > 0);
	h->evict.resident--;
}

bool budget_room(const struct hst *h)
{
	return h->evict.resident < h->evict.limit;
}

bool budget_spare(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return !budget_is_limited(ev) || ev->resident + budget_slack(ev) / 2 < ev->limit;
}

uint64_t hst_resident_bytes(const struct hst *h)
{
	return h->mem.ops->resident_bytes ? h->mem.ops->resident_bytes(h->mem.ctx) : 0;
}
