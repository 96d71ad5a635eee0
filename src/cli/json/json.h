/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A streaming JSON writer. Own code, since the command only ever writes JSON:
 * json-c would build a tree on the heap and be a run-time dependency for it.
 *
 * The output is valid JSON whatever the strings hold: control characters are
 * escaped, bytes that are not UTF-8 become U+FFFD. Misuse (a key in an array, none
 * in an object, unbalanced close) is a bug and asserted. Test: tests/unit/json_test.c.
 */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stdio.h>

#include "base/types.h"

#define JSON_DEPTH_MAX 16

struct json {
	FILE *out;    /* the caller's; not closed here */
	bool compact; /* all on one line; may be set after json_init */
	unsigned lines; /* compact: of so many outer levels each member has a line, all the same */
	unsigned depth;
	bool in_object[JSON_DEPTH_MAX];
	bool has_member[JSON_DEPTH_MAX];
};

void json_init(struct json *j, FILE *out);

/* `key` names the member in an object and is NULL in an array and at the top. */
void json_object_open(struct json *j, const char *key);
void json_array_open(struct json *j, const char *key);
void json_close(struct json *j); /* the innermost object or array */

void json_text(struct json *j, const char *key, const char *value); /* NULL: null */
void json_u64(struct json *j, const char *key, uint64_t value);
void json_i64(struct json *j, const char *key, int64_t value);
void json_f64(struct json *j, const char *key, double value); /* NaN, infinity: null */
/* value / 1000, exactly. */
void json_thousandths(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);

/* A value that is JSON already; the writer takes it as it is. */
void json_raw(struct json *j, const char *key, const char *value, size_t len);

/* Ends the document with a newline and flushes. 0, or -EIO when any write failed. */
int json_end(struct json *j);

#endif
