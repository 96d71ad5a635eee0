/* SPDX-License-Identifier: Apache-2.0 */
/* Is memory all zeroes? Freestanding. */
#ifndef BASE_ZERO_H
#define BASE_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/* True also of no bytes. */
static inline bool is_zero(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;

	/* Each byte is as the one before it, and the first is zero. */
	return len == 0 || (p[0] == 0 && __builtin_memcmp(p, p + 1, len - 1) == 0);
}

#endif
