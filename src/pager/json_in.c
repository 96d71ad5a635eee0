/* SPDX-License-Identifier: Apache-2.0 */
/* See json_in.h. */
#include "pager/json_in.h"

#include <errno.h>
#include <string.h>

/* Of a name or text that is passed over: longer ones are nobody's. */
#define SKIPPED_TEXT_MAX 4096u

static void pass_space(struct json_in *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' ||
				  *j->at == '\r'))
		j->at++;
}

/* The next sign that is no space, which stays: >= 0. */
static int peek(struct json_in *j)
{
	pass_space(j);
	return j->at < j->end ? (unsigned char)*j->at : -EAGAIN;
}

static int expect(struct json_in *j, char sign)
{
	int c = peek(j);

	if (c < 0)
		return c;
	if (c != (unsigned char)sign)
		return -EINVAL;
	j->at++;
	return 0;
}

int json_in_open(struct json_in *j, char bracket)
{
	return expect(j, bracket);
}

int json_in_more(struct json_in *j, char close, bool *first)
{
	bool was_first = *first;
	int c = peek(j);

	if (c < 0)
		return c;
	*first = false;
	if (c == (unsigned char)close) {
		j->at++;
		return 0;
	}
	if (was_first)
		return 1;
	c = expect(j, ',');
	if (c == 0)
		c = peek(j);
	/* [1,] is not JSON. */
	return c < 0 ? c : c == (unsigned char)close ? -EINVAL : 1;
}

static int hex4(struct json_in *j, uint32_t *ret)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++, j->at++) {
		if (j->at >= j->end)
			return -EAGAIN;
		char c = *j->at;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			v = v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
		else
			return -EINVAL;
	}
	*ret = v;
	return 0;
}

/* Behind \u. Two halves are put together; a half alone is no character. */
static int code_point(struct json_in *j, uint32_t *ret)
{
	uint32_t high, low;
	int rc = hex4(j, &high);

	if (rc < 0)
		return rc;
	*ret = high;
	if (high < 0xd800 || high > 0xdfff)
		return 0;
	if (j->end - j->at < 2)
		return -EAGAIN;
	if (high > 0xdbff || j->at[0] != '\\' || j->at[1] != 'u')
		return -EINVAL;
	j->at += 2;
	rc = hex4(j, &low);
	if (rc < 0)
		return rc;
	if (low < 0xdc00 || low > 0xdfff)
		return -EINVAL;
	*ret = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
	return 0;
}

static size_t utf8(uint32_t c, char to[4])
{
	if (c < 0x80) {
		to[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (char)(0xc0 | c >> 6);
		to[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (char)(0xe0 | c >> 12);
		to[1] = (char)(0x80 | (c >> 6 & 0x3f));
		to[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | c >> 18);
	to[1] = (char)(0x80 | (c >> 12 & 0x3f));
	to[2] = (char)(0x80 | (c >> 6 & 0x3f));
	to[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* Behind a backslash; *ret_len bytes. */
static int escaped(struct json_in *j, char to[4], size_t *ret_len)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	const char *which;
	uint32_t c;
	int rc;

	if (j->at >= j->end)
		return -EAGAIN;
	if (*j->at == 'u') {
		j->at++;
		rc = code_point(j, &c);
		if (rc < 0)
			return rc;
		*ret_len = utf8(c, to);
		return c ? 0 : -EINVAL;
	}
	which = *j->at ? strchr(from, *j->at) : NULL;
	if (!which)
		return -EINVAL;
	j->at++;
	to[0] = into[which - from];
	*ret_len = 1;
	return 0;
}

/* ret NULL: it is passed over. */
static int text(struct json_in *j, char *ret, size_t bytes)
{
	size_t len = 0;
	int rc = expect(j, '"');

	while (rc == 0) {
		char sign[4];
		size_t n = 1;

		if (j->at >= j->end)
			return -EAGAIN;
		sign[0] = *j->at++;
		if (sign[0] == '"')
			break;
		if ((unsigned char)sign[0] < 0x20)
			return -EINVAL;
		if (sign[0] == '\\')
			rc = escaped(j, sign, &n);
		if (rc == 0 && n >= bytes - len)
			return -EINVAL;
		if (rc == 0 && ret)
			memcpy(ret + len, sign, n);
		len += n;
	}
	if (rc == 0 && ret)
		ret[len] = '\0';
	return rc;
}

int json_in_text(struct json_in *j, char *ret, size_t bytes)
{
	return text(j, ret, bytes);
}

int json_in_name(struct json_in *j, char *ret, size_t bytes)
{
	int rc = text(j, ret, bytes);

	return rc < 0 ? rc : expect(j, ':');
}

int json_in_u64(struct json_in *j, uint64_t *ret)
{
	uint64_t v = 0;
	int c = peek(j);

	if (c < 0)
		return c;
	if (c < '0' || c > '9')
		return -EINVAL;
	for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*j->at - '0'), &v))
			return -EINVAL;
	/* It may go on. */
	if (j->at == j->end)
		return -EAGAIN;
	if (*j->at == '.' || *j->at == 'e' || *j->at == 'E')
		return -EINVAL;
	*ret = v;
	return 0;
}

static int word(struct json_in *j, const char *want)
{
	for (; *want; want++, j->at++) {
		if (j->at >= j->end)
			return -EAGAIN;
		if (*j->at != *want)
			return -EINVAL;
	}
	return 0;
}

int json_in_bool(struct json_in *j, bool *ret)
{
	int c = peek(j), rc;

	if (c < 0)
		return c;
	rc = word(j, c == 't' ? "true" : "false");
	if (rc == 0)
		*ret = c == 't';
	return rc;
}

/* Digits and what else numbers are made of: nobody wants its value. */
static int pass_number(struct json_in *j)
{
	while (j->at < j->end && ((*j->at >= '0' && *j->at <= '9') || *j->at == '-' ||
				  *j->at == '+' || *j->at == '.' || *j->at == 'e' ||
				  *j->at == 'E'))
		j->at++;
	return j->at == j->end ? -EAGAIN : 0;
}

/* One that holds no others. */
static int pass_simple(struct json_in *j, int c)
{
	if (c == '"')
		return text(j, NULL, SKIPPED_TEXT_MAX);
	if (c == 't' || c == 'f')
		return word(j, c == 't' ? "true" : "false");
	if (c == 'n')
		return word(j, "null");
	return c == '-' || (c >= '0' && c <= '9') ? pass_number(j) : -EINVAL;
}

static int pass_name(struct json_in *j)
{
	int rc = text(j, NULL, SKIPPED_TEXT_MAX);

	return rc < 0 ? rc : expect(j, ':');
}

int json_in_skip(struct json_in *j)
{
	char close[JSON_IN_DEPTH_MAX];
	bool first[JSON_IN_DEPTH_MAX];
	unsigned depth = 0;

	do {
		int c, rc = 0;

		if (depth > 0)
			rc = json_in_more(j, close[depth - 1], &first[depth - 1]);
		if (depth > 0 && rc == 0) {
			depth--;
			continue;
		}
		if (rc > 0)
			rc = close[depth - 1] == '}' ? pass_name(j) : 0;
		c = rc < 0 ? rc : peek(j);
		if (c != '[' && c != '{') {
			rc = c < 0 ? c : pass_simple(j, c);
			if (rc < 0)
				return rc;
			continue;
		}
		if (depth == JSON_IN_DEPTH_MAX)
			return -EINVAL;
		j->at++;
		close[depth] = c == '[' ? ']' : '}';
		first[depth++] = true;
	} while (depth > 0);
	return 0;
}

int json_in_end(struct json_in *j)
{
	pass_space(j);
	return j->at == j->end ? 0 : -EINVAL;
}
