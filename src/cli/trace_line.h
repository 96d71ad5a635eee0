/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One event of a timeline, put together by hand: there are ten for each fault, and what formats
 * them takes CPU time beside the VM. Keys and texts are plain constants, so nothing is escaped;
 * what is not, is json.h's. Test: tests/error/trace_test.py reads the whole as JSON.
 */
#ifndef CLI_TRACE_LINE_H
#define CLI_TRACE_LINE_H

#include <string.h>

#include "base/assert.h"
#include "base/types.h"

/* The longest has seven numbers and eleven constants. */
#define TRACE_LINE_MAX 384u

struct trace_line {
	unsigned len;
	char text[TRACE_LINE_MAX];
};

static inline void trace_line_put(struct trace_line *l, const char *bytes, size_t len)
{
	ASSERT(len <= sizeof(l->text) - l->len);
	memcpy(l->text + l->len, bytes, len);
	l->len += (unsigned)len;
}

static inline void trace_line_put_number(struct trace_line *l, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	trace_line_put(l, digits + at, sizeof(digits) - at);
}

/* `key` with what stands around it: "{\"ph\":", ",\"tid\":". */
static inline void trace_line_number(struct trace_line *l, const char *key, uint64_t value)
{
	trace_line_put(l, key, strlen(key));
	trace_line_put_number(l, value);
}

/* value / 1000, exactly. */
static inline void trace_line_thousandths(struct trace_line *l, const char *key, uint64_t value)
{
	uint64_t part = value % 1000;
	char digits[4] = {'.', (char)('0' + part / 100), (char)('0' + part / 10 % 10),
			  (char)('0' + part % 10)};

	trace_line_number(l, key, value / 1000);
	trace_line_put(l, digits, sizeof(digits));
}

static inline void trace_line_text(struct trace_line *l, const char *key, const char *value)
{
	trace_line_put(l, key, strlen(key));
	trace_line_put(l, "\"", 1);
	trace_line_put(l, value, strlen(value));
	trace_line_put(l, "\"", 1);
}

/* A text: JSON has no numbers like that. */
static inline void trace_line_hex(struct trace_line *l, const char *key, uint64_t value)
{
	char digits[16];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	trace_line_put(l, key, strlen(key));
	trace_line_put(l, "\"0x", 3);
	trace_line_put(l, digits + at, sizeof(digits) - at);
	trace_line_put(l, "\"", 1);
}

#endif
