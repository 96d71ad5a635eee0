/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A token bucket: how much of something may be had per second, and what it may have at once
 * after a rest. Pure: time is the caller's.
 *
 * What is wanted may go as long as the bucket is not in debt, however much it is: it is taken off
 * afterwards, and what comes next waits. So nothing is too large to ever go, and on the average no
 * more than the rate does, to the unit. Test: tests/unit/rate_test.c.
 */
#ifndef BASE_RATE_H
#define BASE_RATE_H

#include "base/types.h"

struct rate {
	uint64_t per_s;    /* 0: no limit */
	uint64_t burst_ns; /* time in which the burst comes together */
	uint64_t paid_ns;  /* when all that was taken will be paid for, by the caller's clock */
	uint64_t rest;     /* of a nanosecond beyond that, in 1 / per_s */
};

/* burst: units, or what comes in a tenth of a second, if that is more. */
void rate_init(struct rate *r, uint64_t per_s, uint64_t burst);

/* How long from now something has to wait; 0: it may go. */
uint64_t rate_wait_ns(const struct rate *r, uint64_t now_ns);

/* It goes, now. */
void rate_take(struct rate *r, uint64_t units, uint64_t now_ns);

#endif
