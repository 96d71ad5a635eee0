/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ASSERT: our own mistakes, checked in every build. Never for what a guest, a
 * file or a peer may cause. The failure function is supplied by the program
 * (base/assert.c when hosted, the guest kernel when freestanding).
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

/* Reports and ends the program. Any thread. */
_Noreturn void apf_assert_fail(const char *expr, const char *file, int line);

#define ASSERT(expr) \
	do { \
		if (__builtin_expect(!(expr), 0)) \
			apf_assert_fail(#expr, __FILE__, __LINE__); \
	} while (0)

#endif
