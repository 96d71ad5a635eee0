/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of a command line that is being put together. Any of them may fail for want of
 * memory; that is remembered, and asked once at the end. Test: tests/unit/run_lab_test.c.
 */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include "base/types.h"

struct words {
	char **list; /* NULL at its end; NULL when there is none */
	size_t count;
	int err; /* 0, or -ENOMEM */
};

void words_add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void words_free(struct words *w);

#endif
