/* SPDX-License-Identifier: Apache-2.0 */
/* ASYNCPF_TEST_IO in the environment, as --io takes it: the same tests by each of the ways. */
#ifndef TESTS_INTEGRATION_IO_WAY_H
#define TESTS_INTEGRATION_IO_WAY_H

#include <asyncpf/asyncpf.h>
#include <stdlib.h>
#include <string.h>

static inline enum apf_io io_way(void)
{
	const char *word = getenv("ASYNCPF_TEST_IO");

	return word && strcmp(word, "threads") == 0 ? APF_IO_THREADS : APF_IO_AUTO;
}

#endif
