/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest has printed, as far as its last words matter: how much, its last line, and the line
 * by which a kernel says that it has panicked. Pure; bounded, whatever is printed.
 * Test: tests/unit/said_test.c.
 */
#ifndef VMM_SAID_H
#define VMM_SAID_H

#include "base/types.h"

#define SAID_LINE_BYTES 100u /* of a line, with its final 0; the rest is left out */

struct said {
	uint64_t bytes;
	char line[SAID_LINE_BYTES]; /* the one being printed */
	size_t len;
	char last[SAID_LINE_BYTES];  /* the last one that is not empty; "": none */
	char panic[SAID_LINE_BYTES]; /* "": none */
};

/* Of a zeroed struct: one more byte. */
void said_put(struct said *s, uint8_t byte);

/* The last line, or what there is of the one being printed. "": nothing. */
const char *said_last(const struct said *s);

#endif
