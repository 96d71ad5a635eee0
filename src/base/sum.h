/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sum by which changed content is noticed: four lanes as in xxHash, since one would wait for its
 * multiplications. Any change within 8 bytes changes it before it is folded to 32 bits. No secret
 * is in it: who wants to can make other content with the same sum. Freestanding.
 * Test: tests/unit/sum_test.c.
 */
#ifndef BASE_SUM_H
#define BASE_SUM_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t sum_round(uint64_t acc, uint64_t word)
{
	acc += word * 0xc2b2ae3d27d4eb4full;
	return (acc << 31 | acc >> 33) * 0x9e3779b185ebca87ull;
}

static inline uint64_t sum_word(const unsigned char *p)
{
	uint64_t word;

	__builtin_memcpy(&word, p, sizeof(word));
	return word;
}

/* len: a multiple of 32. */
static inline uint32_t sum_of(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	uint64_t a = 1, b = 2, c = 3, d = 4, all;

	for (const unsigned char *end = p + len; p < end; p += 4 * sizeof(uint64_t)) {
		a = sum_round(a, sum_word(p));
		b = sum_round(b, sum_word(p + 8));
		c = sum_round(c, sum_word(p + 16));
		d = sum_round(d, sum_word(p + 24));
	}
	all = sum_round(sum_round(sum_round(sum_round(len, a), b), c), d);
	return (uint32_t)(all ^ all >> 32);
}

#endif
