/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histogram of durations in microseconds: 8 sub-buckets per octave (error below
 * 12.5 %), values 0..7 exact, everything fits 256 buckets. Header only, freestanding:
 * guest tasks fill one, the host reads it. Test: tests/unit/hist_test.c.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include <stdint.h>

#define HIST_BUCKETS 256

static inline unsigned hist_bucket(uint64_t us)
{
	if (us < 8)
		return (unsigned)us;
	unsigned octave = 63u - (unsigned)__builtin_clzll(us); /* >= 3 */
	unsigned b = (octave - 2) * 8 + (unsigned)((us >> (octave - 3)) & 7);
	return b < HIST_BUCKETS ? b : HIST_BUCKETS - 1;
}

/* Smallest value of a bucket. */
static inline uint64_t hist_bucket_lo(unsigned b)
{
	if (b < 8)
		return b;
	return (8ull + b % 8) << (b / 8 - 1);
}

/* The middle of a bucket. */
static inline uint64_t hist_bucket_mid(unsigned b)
{
	if (b < 8 || b == HIST_BUCKETS - 1)
		return hist_bucket_lo(b);
	return (hist_bucket_lo(b) + hist_bucket_lo(b + 1)) / 2;
}

/*
 * The value at quantile num/den (0 < num <= den): the middle of the bucket that holds
 * it, 0 for an empty histogram. max: the largest value that is in it; a quantile is never
 * above it, though the middle of its bucket may be.
 */
static inline uint64_t hist_quantile(const uint32_t *hist, uint64_t num, uint64_t den,
				     uint64_t max)
{
	uint64_t total = 0, seen = 0;

	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		total += hist[b];
	if (total == 0)
		return 0;
	uint64_t want = (total * num + den - 1) / den;
	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		seen += hist[b];
		if (seen >= want && hist[b])
			return hist_bucket_mid(b) < max ? hist_bucket_mid(b) : max;
	}
	return max;
}

#endif
