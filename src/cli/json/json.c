/* SPDX-License-Identifier: Apache-2.0 */
/* See json.h. */
#include "cli/json/json.h"

#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"

/*
 * Length of the well-formed UTF-8 sequence at s (RFC 3629: no surrogates, no
 * overlong forms, nothing above U+10FFFF), or 0. A NUL byte ends every sequence.
 */
static unsigned utf8_len(const unsigned char *s)
{
	unsigned len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (s[0] > 0xf4)
		return 0;
	for (unsigned i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static void put_quoted(FILE *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	fputc('"', out);
	while (*s) {
		unsigned len = utf8_len(s);

		if (len == 0) {
			fputs("\\ufffd", out);
			len = 1;
		} else if (*s < 0x20 || *s == 0x7f) {
			fprintf(out, "\\u%04x", *s);
		} else {
			if (*s == '"' || *s == '\\')
				fputc('\\', out);
			fwrite(s, 1, len, out);
		}
		s += len;
	}
	fputc('"', out);
}

static bool has_lines(const struct json *j, unsigned level)
{
	return !j->compact || level < j->lines;
}

/* Of a member of the level, or of its end. */
static void put_break(struct json *j, unsigned level)
{
	static const char break_and_spaces[] = "\n                                ";

	_Static_assert(sizeof(break_and_spaces) == 2 + 2 * JSON_DEPTH_MAX, "of each depth");
	if (has_lines(j, level))
		fwrite(break_and_spaces, 1, 1 + 2 * j->depth, j->out);
}

/* Everything that stands before a value: comma, line break, key. */
static void put_lead(struct json *j, const char *key)
{
	if (j->depth == 0) {
		ASSERT(!key);
		return;
	}
	unsigned top = j->depth - 1;
	ASSERT(j->in_object[top] == (key != NULL));
	if (j->has_member[top])
		fputs(has_lines(j, top) ? "," : ", ", j->out);
	put_break(j, top);
	j->has_member[top] = true;
	if (key) {
		put_quoted(j->out, key);
		fputs(": ", j->out);
	}
}

static void open_level(struct json *j, const char *key, bool object)
{
	put_lead(j, key);
	ASSERT(j->depth < JSON_DEPTH_MAX);
	j->in_object[j->depth] = object;
	j->has_member[j->depth] = false;
	j->depth++;
	fputc(object ? '{' : '[', j->out);
}

void json_init(struct json *j, FILE *out)
{
	*j = (struct json){.out = out};
}

void json_object_open(struct json *j, const char *key)
{
	open_level(j, key, true);
}

void json_array_open(struct json *j, const char *key)
{
	open_level(j, key, false);
}

void json_close(struct json *j)
{
	ASSERT(j->depth > 0);
	j->depth--;
	if (j->has_member[j->depth])
		put_break(j, j->depth);
	fputc(j->in_object[j->depth] ? '}' : ']', j->out);
}

void json_text(struct json *j, const char *key, const char *value)
{
	put_lead(j, key);
	if (value)
		put_quoted(j->out, value);
	else
		fputs("null", j->out);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	put_lead(j, key);
	fprintf(j->out, "%" PRIu64, value);
}

void json_i64(struct json *j, const char *key, int64_t value)
{
	put_lead(j, key);
	fprintf(j->out, "%" PRId64, value);
}

void json_f64(struct json *j, const char *key, double value)
{
	put_lead(j, key);
	/* The command never calls setlocale(), so the decimal point is a point. */
	if (__builtin_isfinite(value))
		fprintf(j->out, "%.9g", value);
	else
		fputs("null", j->out);
}

void json_thousandths(struct json *j, const char *key, uint64_t value)
{
	put_lead(j, key);
	fprintf(j->out, "%" PRIu64 ".%03u", value / 1000, (unsigned)(value % 1000));
}

void json_bool(struct json *j, const char *key, bool value)
{
	put_lead(j, key);
	fputs(value ? "true" : "false", j->out);
}

void json_raw(struct json *j, const char *key, const char *value, size_t len)
{
	put_lead(j, key);
	fwrite(value, 1, len, j->out);
}

int json_end(struct json *j)
{
	ASSERT(j->depth == 0);
	fputc('\n', j->out);
	return fflush(j->out) != 0 || ferror(j->out) ? -EIO : 0;
}
