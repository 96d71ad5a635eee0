/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosted failure function of ASSERT: one line, then abort(), so that a core dump
 * shows the state in which our own mistake was met. Freestanding programs bring
 * their own. Any thread. Test: tests/unit/err_test.c.
 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void apf_assert_fail(const char *expr, const char *file, int line)
{
	/* One call, hence one write to the unbuffered stream: lines of threads do not mix. */
	(void)fprintf(stderr, "asyncpf: bug: %s:%d: not true: %s\n", file, line, expr);
	abort();
}
