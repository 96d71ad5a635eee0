/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: time. Monotonic, nanoseconds, never backwards.
 */
#ifndef PORT_CLOCK_H
#define PORT_CLOCK_H

#include <stdint.h>

struct clock_ops {
	uint64_t (*now_ns)(void *ctx);
};

struct clock {
	const struct clock_ops *ops;
	void *ctx;
};

static inline uint64_t clock_now_ns(const struct clock *c)
{
	return c->ops->now_ns(c->ctx);
}

#endif
