/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON whose shape is known, from bytes that a stranger sent: a cursor, no tree, no
 * allocation, nothing but what is asked for is kept. Pure. Tests: tests/unit/handshake_test.c,
 * tests/fuzz/handshake_fuzz.c.
 *
 * Each call returns 1 or 0 as it says, -EAGAIN where the text ends too early, which more of it may
 * mend, or -EINVAL. After an error the cursor is of no more use.
 */
#ifndef PAGER_JSON_IN_H
#define PAGER_JSON_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of values that are passed over. */
#define JSON_IN_DEPTH_MAX 16u

struct json_in {
	const char *at, *end; /* borrowed */
};

/* The next sign is '[' or '{'. 0. */
int json_in_open(struct json_in *j, char bracket);
/*
 * In an array or object that `close` ends: 1, there is another element or member, the cursor is at
 * it; 0, it has ended. *first: true before the first call, kept by these calls.
 */
int json_in_more(struct json_in *j, char close, bool *first);
/*
 * A text, decoded, NUL-terminated, into a buffer of that many bytes; one that is too long, or holds
 * a NUL, is -EINVAL. 0.
 */
int json_in_text(struct json_in *j, char *ret, size_t bytes);
/* A member's name and the colon behind it. 0. */
int json_in_name(struct json_in *j, char *ret, size_t bytes);
/* A whole number, not negative. 0. */
int json_in_u64(struct json_in *j, uint64_t *ret);
int json_in_bool(struct json_in *j, bool *ret);
/* Any value. 0. */
int json_in_skip(struct json_in *j);
/* Nothing but white space is left: 0, or -EINVAL. */
int json_in_end(struct json_in *j);

#endif
