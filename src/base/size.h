/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosted: sizes of memory as a person expects them, for texts. Machines get bytes.
 *
 *     err_set(e, -ENOMEM, "guest memory of %s: ...", SIZE_WORD(bytes));
 *
 * Test: tests/unit/size_test.c.
 */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#define MIB (1ull << 20)

struct size_text {
	char s[24];
};

/* To be read: "64 MiB", or rounded, "63.8 MiB". */
struct size_text size_text(uint64_t bytes);
/* As an option takes it, and always exact, to be compared: "4095M", "4294967297". */
struct size_text size_word(uint64_t bytes);

/* Lives until the end of the full expression that it stands in. */
#define SIZE_TEXT(bytes) (size_text(bytes).s)
#define SIZE_WORD(bytes) (size_word(bytes).s)

#endif
