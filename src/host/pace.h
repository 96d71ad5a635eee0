/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a source is best read by whoever wants more than a block: in requests for which the way there
 * and back takes as long as the bytes do. Smaller ones waste the way, larger ones keep what stands
 * first waiting for what stands last. By the time that small reads have taken, and what large ones
 * have taken beside it: 2 MiB of a store that is 21 ms away, a block of what the page cache has.
 * Pure. Test: tests/unit/pace_test.c.
 */
#ifndef HOST_PACE_H
#define HOST_PACE_H

#include "base/types.h"

#define PACE_BYTES_MAX (2u << 20)
/* Until a large read tells: 100 MB a second, and no more at once, as it may be far less. */
#define PACE_BYTE_PS 10000u
#define PACE_BYTES_FIRST (128u << 10)
/* A read that takes longer tells no more. */
#define PACE_NS_MAX (1000 * NS_PER_S)

/* Zeroes: nothing is known. */
struct pace {
	uint64_t block_ns; /* moving mean of what a read of a block took; 0: there was none */
	uint64_t byte_ps;  /* the same of a byte more; 0: not known */
};

static inline uint64_t pace_byte_ps(const struct pace *p)
{
	return p->byte_ps ? p->byte_ps : PACE_BYTE_PS;
}

/* Bytes of a request, at most PACE_BYTES_MAX. 0: a block is enough. */
static inline uint32_t pace_bytes(const struct pace *p)
{
	uint64_t most = p->byte_ps ? PACE_BYTES_MAX : PACE_BYTES_FIRST;

	return (uint32_t)min_u64(min_u64(p->block_ns, NS_PER_S) * 1000 / pace_byte_ps(p), most);
}

/* An eighth of what is new, of which the square of part / whole counts. */
static inline uint64_t pace_mean(uint64_t mean, uint64_t now, uint64_t part, uint64_t whole)
{
	uint64_t by = (now > mean ? now - mean : mean - now) / 8 * part / whole * part / whole;

	return now > mean ? mean + by : mean - by;
}

/*
 * What a block takes varies: the less was read beside it, the less does its time tell of bytes, by
 * the square, as the variance of such an estimate is.
 */
static inline void pace_sample_bytes(struct pace *p, uint64_t bytes, uint64_t ns)
{
	uint64_t usual = max_u64(pace_bytes(p), 1), least = ns / 8;
	uint64_t left = ns > p->block_ns ? ns - p->block_ns : 0;
	uint64_t ps = min_u64(max_u64(left, least), PACE_NS_MAX) * 1000 / bytes;

	/* The way, and nothing else that can be seen: at least eight times as many would do. */
	if (left < least && bytes < usual / 8)
		return;
	p->byte_ps = max_u64(pace_mean(pace_byte_ps(p), ps, min_u64(bytes, usual), usual), 1);
}

/* A read of so many bytes, of one block or of several, took ns. */
static inline void pace_sample(struct pace *p, uint64_t bytes, bool several, uint64_t ns)
{
	/* One stray of a second must not count for a thousand. */
	uint64_t most = 2 * p->block_ns + 100 * NS_PER_US;

	if (several)
		pace_sample_bytes(p, bytes, ns);
	else
		p->block_ns = p->block_ns ? pace_mean(p->block_ns, min_u64(ns, most), 1, 1) : ns;
}

#endif
