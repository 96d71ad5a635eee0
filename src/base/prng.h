/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeded pseudo-random numbers (splitmix64): the same seed gives the same numbers
 * on every machine, so that whatever they decided replays. Not for secrets. Header
 * only, freestanding; one thread per struct. Test: tests/unit/prng_test.c.
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdint.h>

struct prng {
	uint64_t state;
};

/* Every seed is as good as any other, 0 included. */
static inline void prng_init(struct prng *p, uint64_t seed)
{
	p->state = seed;
}

static inline uint64_t prng_next(struct prng *p)
{
	uint64_t z = p->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/*
 * A number in [0, n), n > 0. The high half of a product, not a remainder: cheaper, and
 * off from uniform by less than n / 2^64.
 */
static inline uint64_t prng_below(struct prng *p, uint64_t n)
{
	__extension__ typedef unsigned __int128 wide;

	return (uint64_t)(((wide)prng_next(p) * n) >> 64);
}

#endif
