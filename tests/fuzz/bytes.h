/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For fuzzing entries: takes an input apart from its beginning. What is missing at its end
 * reads as zeroes, so that every prefix of an input is an input.
 */
#ifndef FUZZ_BYTES_H
#define FUZZ_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * libFuzzer follows what an input reaches. In what only checks it would find nothing new, and
 * lose most of its time.
 */
#ifdef __clang__
#define UNFOLLOWED __attribute__((no_sanitize("coverage")))
#define FUZZ_PRAGMA(text) _Pragma(#text)
#define UNFOLLOWED_BEGIN \
	FUZZ_PRAGMA(clang attribute push(__attribute__((no_sanitize("coverage"))), \
					 apply_to = function))
#define UNFOLLOWED_END _Pragma("clang attribute pop")
#else
#define UNFOLLOWED
#define UNFOLLOWED_BEGIN
#define UNFOLLOWED_END
#endif

struct bytes {
	const uint8_t *at;
	size_t left;
};

/* A promise that was broken: says which, and ends the program. */
#define must(ok) ((ok) ? (void)0 : must_fail(__FILE__, __LINE__, #ok))

static inline void must_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: broken: %s\n", file, line, what);
	abort();
}

/* Up to 8 bytes, little-endian. */
static inline uint64_t take(struct bytes *b, unsigned len)
{
	uint64_t value = 0;
	size_t n = min_u64(len, b->left);

	memcpy(&value, b->at, n);
	b->at += n;
	b->left -= n;
	return value;
}

static inline uint8_t take8(struct bytes *b)
{
	return (uint8_t)take(b, 1);
}

#endif
