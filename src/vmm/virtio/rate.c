/* SPDX-License-Identifier: Apache-2.0 */
/* See rate.h. The bucket is kept as a time, so that what cannot be divided is not lost. */
#include "vmm/virtio/rate.h"

/* units * NS_PER_S + rest, divided by per_s: saturated. */
static uint64_t worth_ns(uint64_t units, uint64_t per_s, uint64_t *rest)
{
	__extension__ typedef unsigned __int128 wide;
	wide all = (wide)units * NS_PER_S + *rest;
	wide ns = all / per_s;

	*rest = (uint64_t)(all % per_s);
	return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

static uint64_t later(uint64_t ns, uint64_t by)
{
	return by > UINT64_MAX - ns ? UINT64_MAX : ns + by;
}

void rate_init(struct rate *r, uint64_t per_s, uint64_t burst)
{
	uint64_t rest = 0;

	*r = (struct rate){.per_s = per_s};
	if (per_s > 0)
		r->burst_ns = max_u64(NS_PER_S / 10, worth_ns(burst, per_s, &rest));
}

uint64_t rate_wait_ns(const struct rate *r, uint64_t now_ns)
{
	uint64_t free_ns = later(now_ns, r->burst_ns);

	return r->paid_ns > free_ns ? r->paid_ns - free_ns : 0;
}

void rate_take(struct rate *r, uint64_t units, uint64_t now_ns)
{
	if (r->per_s == 0)
		return;
	if (r->paid_ns < now_ns) {
		r->paid_ns = now_ns;
		r->rest = 0;
	}
	r->paid_ns = later(r->paid_ns, worth_ns(units, r->per_s, &r->rest));
}
