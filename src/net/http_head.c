/* SPDX-License-Identifier: Apache-2.0 */
/* See http_head.h. */
#include "net/http_head.h"

#include <string.h>
#include <strings.h>

static bool is_name(const char *line, size_t len, const char *name, const char **value,
		    size_t *value_len)
{
	size_t n = strlen(name);

	if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
		return false;
	*value = line + n + 1;
	*value_len = len - n - 1;
	while (*value_len > 0 && (**value == ' ' || **value == '\t')) {
		(*value)++;
		(*value_len)--;
	}
	while (*value_len > 0 && strchr("\r\n \t", (*value)[*value_len - 1]))
		(*value_len)--;
	return true;
}

/* Twice, too long, or with control characters: it is not used, and says so. Empty: it is none. */
static void keep(struct http_head *h, char *to, const char *value, size_t len)
{
	bool bad = len >= HTTP_TAG_MAX || to[0];

	if (len == 0)
		return;
	for (size_t i = 0; i < len && !bad; i++)
		bad = (unsigned char)value[i] < ' ' || value[i] == 0x7f;
	h->bad = h->bad || bad;
	if (bad)
		return;
	memcpy(to, value, len);
	to[len] = '\0';
}

static bool number(const char **at, const char *end, uint64_t *ret)
{
	uint64_t v = 0;
	const char *begin = *at;

	for (; *at < end && **at >= '0' && **at <= '9'; (*at)++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(**at - '0'), &v))
			return false;
	*ret = v;
	return *at > begin;
}

static bool mark(const char **at, const char *end, char c)
{
	if (*at == end || **at != c)
		return false;
	(*at)++;
	return true;
}

/* "bytes first-last/total", "bytes first-last/" and a star, "bytes" and a star and "/total". */
static bool range(struct http_head *h, const char *at, size_t len)
{
	const char *end = at + len;

	if (len < 6 || strncasecmp(at, "bytes ", 6) != 0)
		return false;
	at += 6;
	if (mark(&at, end, '*'))
		return mark(&at, end, '/') && number(&at, end, &h->total) && at == end;
	if (!number(&at, end, &h->first) || !mark(&at, end, '-') || !number(&at, end, &h->last) ||
	    !mark(&at, end, '/') || h->first > h->last)
		return false;
	if (mark(&at, end, '*'))
		h->total = 0;
	else if (!number(&at, end, &h->total) || h->last >= h->total)
		return false;
	h->ranged = at == end;
	return h->ranged;
}

/* "aws-chunked" is how an object came to its store, which some stores say of it for ever. */
static bool is_own_bytes(const char *value, size_t len)
{
	static const char *const names[] = {"", "identity", "aws-chunked"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (len == strlen(names[i]) && strncasecmp(value, names[i], len) == 0)
			return true;
	return false;
}

void http_head_line(struct http_head *h, const char *line, size_t len)
{
	const char *value;
	size_t value_len;

	if (len >= 5 && strncmp(line, "HTTP/", 5) == 0)
		*h = (struct http_head){.ranged = false};
	else if (is_name(line, len, "content-range", &value, &value_len))
		h->bad = h->ranged || !range(h, value, value_len) || h->bad;
	else if (is_name(line, len, "etag", &value, &value_len))
		keep(h, h->etag, value, value_len);
	else if (is_name(line, len, "last-modified", &value, &value_len))
		keep(h, h->modified, value, value_len);
	else if (is_name(line, len, "content-encoding", &value, &value_len))
		h->encoded = h->encoded || !is_own_bytes(value, value_len);
	else if (is_name(line, len, "x-amz-bucket-region", &value, &value_len))
		keep(h, h->region, value, value_len);
}

bool http_etag_is_strong(const char *etag)
{
	size_t len = strlen(etag);

	return len >= 2 && etag[0] == '"' && etag[len - 1] == '"';
}
