/* SPDX-License-Identifier: Apache-2.0 */
/* See rate.h. The bucket is kept as a time, so that what cannot be divided is not lost. */
#include "base/rate.h"

_Static_assert(NS_PER_S < 1ull << 30, "its digits");

/* Adds, modulo `of`, which both are below. Returns the carry. */
static uint64_t add_modulo(uint64_t *to, uint64_t by, uint64_t of)
{
	if (*to < of - by) {
		*to += by;
		return 0;
	}
	*to -= of - by;
	return 1;
}

/*
 * units * NS_PER_S + rest, divided by per_s: saturated. Digit by digit, as division of 128 bits is
 * a function of libgcc's, which base's freestanding part does without.
 */
static uint64_t worth_ns(uint64_t units, uint64_t per_s, uint64_t *rest)
{
	uint64_t part = units % per_s, over = 0, ns = 0, all;

	for (uint64_t digit = 1ull << 29; digit; digit >>= 1) {
		ns = 2 * ns + add_modulo(&over, over, per_s);
		if (NS_PER_S & digit)
			ns += add_modulo(&over, part, per_s);
	}
	ns += add_modulo(&over, *rest, per_s);
	*rest = over;
	if (__builtin_mul_overflow(units / per_s, NS_PER_S, &all) ||
	    __builtin_add_overflow(all, ns, &all))
		return UINT64_MAX;
	return all;
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
