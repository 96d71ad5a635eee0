/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grace window: how long a fault waits before it becomes an event. An event
 * that saves nothing costs the guest an exception, an interrupt and two switches.
 * Waiting as long as an event costs is at most twice as bad as knowing the future;
 * for a source that has been slower than that, waiting is pure loss. So the window
 * is GRACE_WORTH_NS while at least half of the recent reads came within it, else 0.
 * Pure. Test: tests/unit/grace_test.c.
 */
#ifndef HOST_GRACE_H
#define HOST_GRACE_H

#include "base/types.h"

/*
 * What an event pair costs a guest whose CPL 0 is emulated (measured by
 * `asyncpf demo`: about 300 us for missing + ready + acknowledgement).
 */
#define GRACE_WORTH_NS (400 * NS_PER_US)

struct grace {
	uint32_t fast; /* moving share of reads within the window, of GRACE_ONE */
	uint32_t late; /* reads that were expected to take longer */
};

/* One in so many is tried at once all the same: the page cache may have come to have it. */
#define GRACE_PROBE 16u

#define GRACE_ONE 4096u

static inline void grace_init(struct grace *g)
{
	/* Benefit of the doubt, for about three reads. */
	g->fast = GRACE_ONE * 5 / 8;
}

/* One read took latency_ns, or is known to take longer than the window (NS_NEVER). */
static inline void grace_sample(struct grace *g, uint64_t latency_ns)
{
	uint32_t hit = latency_ns <= GRACE_WORTH_NS ? GRACE_ONE : 0;

	/* A moving share, not a mean: one stray of a second must not count for a thousand. */
	g->fast = (g->fast * 15 + hit) / 16;
}

static inline uint64_t grace_ns(const struct grace *g)
{
	return g->fast >= GRACE_ONE / 2 ? GRACE_WORTH_NS : 0;
}

/* Of a read that begins: it is likely to take longer than the window. */
static inline bool grace_expects_late(struct grace *g)
{
	return grace_ns(g) == 0 && ++g->late % GRACE_PROBE != 0;
}

#endif
