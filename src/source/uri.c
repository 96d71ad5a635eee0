/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes source URIs apart, in place in a copy; see source/uri.h for the syntax. Pure.
 * The text comes from a user: every failure names the part that is wrong, cut to
 * what fits on a line. Test: tests/unit/uri_test.c.
 */
#include "source/uri.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/types.h"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
	return is_digit(c) || c == '-' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Length of the part before the first ':' when it has the form of schemes, else 0. */
static size_t uri_schemes_len(const char *text)
{
	size_t len = 0;

	while (is_word(text[len]) || text[len] == '+')
		len++;
	return text[len] == ':' ? len : 0;
}

/* Replaces each %XX in s by its byte. */
static int uri_decode(char *s, struct err *e)
{
	char *out = s;

	while (*s) {
		int hi, lo;

		if (*s != '%') {
			*out++ = *s++;
			continue;
		}
		hi = hex_digit(s[1]);
		lo = hi < 0 ? -1 : hex_digit(s[2]);
		if (lo < 0)
			return err_set(e, -EINVAL, "source URI: '%.3s' is not %%XX with two hex "
				       "digits; a '%%' itself is written %%25", s);
		if (hi == 0 && lo == 0)
			return err_set(e, -EINVAL, "source URI: %%00 cannot be part of a name");
		*out++ = (char)(hi * 16 + lo);
		s += 3;
	}
	*out = '\0';
	return 0;
}

/* Of names with a '+' in them, which end the schemes: its length, else 0. */
static size_t uri_double_name(const char *s)
{
	static const char *const names[] = {"nbd+unix", "nbds+unix"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(s, names[i]) == 0)
			return strlen(s);
	return 0;
}

/* Cuts s at each '+'. */
static int uri_split_schemes(struct uri *u, char *s, struct err *e)
{
	char *plus;

	if (*s == '+' || s[strlen(s) - 1] == '+' || strstr(s, "++"))
		return err_set(e, -EINVAL, "source URI: a scheme is missing beside '+' in '%.60s'",
			       s);
	for (; s; s = plus) {
		plus = uri_double_name(s) ? NULL : strchr(s, '+');
		if (plus)
			*plus++ = '\0';
		if (u->schemes == URI_SCHEMES_MAX)
			return err_set(e, -EINVAL, "source URI: more than %d schemes at '%.40s'",
				       URI_SCHEMES_MAX, s);
		u->scheme[u->schemes++] = s;
	}
	return 0;
}

static int uri_add_param(struct uri *u, char *s, struct err *e)
{
	char *eq = strchr(s, '=');
	size_t key_len = 0;

	while (is_word(s[key_len]))
		key_len++;
	/* It may be of a password, or a value that is one. */
	if (u->url && (!eq || s + key_len != eq))
		return err_set(e, -EINVAL, "source URI: what stands behind the '#' is not of the "
			       "form key=value (a '#' of the URL itself is written %%23)");
	if (!eq || key_len == 0 || s + key_len != eq || !eq[1])
		return err_set(e, -EINVAL, "source URI: '%.*s' is not of the form key=value (a "
			       "'?' of the path itself is written %%3F)",
			       (int)min_u64(eq ? (size_t)(eq + 1 - s) : strlen(s), 60), s);
	*eq = '\0';
	if (uri_value(u, s))
		return err_set(e, -EINVAL, "source URI: key '%.60s' is given twice", s);
	if (u->params == URI_PARAMS_MAX)
		return err_set(e, -EINVAL, "source URI: more than %d keys at '%.60s'",
			       URI_PARAMS_MAX, s);
	u->param[u->params++] = (struct uri_param){.key = s, .value = eq + 1};
	return uri_decode(eq + 1, e);
}

static bool uri_ends_in_url(const char *schemes)
{
	const char *plus = strrchr(schemes, '+');
	const char *last = plus ? plus + 1 : schemes;

	return strcmp(last, "http") == 0 || strcmp(last, "https") == 0;
}

static int uri_split_params(struct uri *u, char *s, struct err *e)
{
	while (s) {
		char *amp = strchr(s, '&');

		if (amp)
			*amp++ = '\0';
		int rc = uri_add_param(u, s, e);

		if (rc < 0)
			return rc;
		s = amp;
	}
	return 0;
}

int uri_parse(const char *text, struct uri *ret, struct err *e)
{
	struct uri *u = ret;
	size_t len = text ? strnlen(text, URI_LEN_MAX + 1) : 0;
	char *rest, *query;
	int rc;

	if (len == 0)
		return err_set(e, -EINVAL, "source URI: it is empty");
	if (len > URI_LEN_MAX)
		return err_set(e, -EINVAL, "source URI: longer than %d bytes: '%.*s...'",
			       URI_LEN_MAX, (int)min_u64(strcspn(text, ":"), 40), text);
	u->schemes = 0;
	u->params = 0;
	u->url = false;
	memcpy(u->text, text, len + 1);
	len = uri_schemes_len(u->text);
	if (len == 0) {
		u->path = u->text;
		u->scheme[u->schemes++] = "file";
		return 0;
	}
	rest = u->text + len + 1;
	u->text[len] = '\0';
	u->path = rest;
	u->url = uri_ends_in_url(u->text);
	query = strchr(rest, u->url ? '#' : '?');
	if (query)
		*query++ = '\0';
	rc = uri_split_schemes(u, u->text, e);
	if (rc == 0 && !u->url)
		rc = uri_decode(rest, e);
	/* "file:x?" is harmless: a script with nothing to add. */
	if (rc == 0 && query && *query)
		rc = uri_split_params(u, query, e);
	return rc;
}

const char *uri_value(const struct uri *u, const char *key)
{
	for (unsigned i = 0; i < u->params; i++) {
		if (strcmp(u->param[i].key, key) == 0)
			return u->param[i].value;
	}
	return NULL;
}

/* ---- what only signs a URL ---- */

/* The next part of a query from *at on, "name=value" or a name, not empty. NULL: there is none. */
static const char *next_part(const char **at, size_t *ret_len)
{
	const char *part = *at + strspn(*at, "&");

	*ret_len = strcspn(part, "&");
	*at = part + *ret_len;
	return *ret_len ? part : NULL;
}

/* By a name, or by the beginning of one: "X-Amz-*". */
static bool is_named(const char *part, size_t len, const char *name)
{
	size_t n = strcspn(name, "*"), name_len = len;
	const char *mark = memchr(part, '=', len);

	if (mark)
		name_len = (size_t)(mark - part);
	return (name[n] ? name_len >= n : name_len == n) && strncasecmp(part, name, n) == 0;
}

/* "sv=2024-11-04": a version of Azure's, as no other parameter of that name looks. */
static bool is_azure_version(const char *part, size_t len)
{
	static const char like[] = "sv=0000-00-00";

	for (size_t i = 0; i < sizeof(like) - 1; i++)
		if (i >= len || (like[i] == '0' ? !is_digit(part[i]) : part[i] != like[i]))
			return false;
	return len == sizeof(like) - 1;
}

/* The query has that part, which makes others those of a signature. */
static bool has_part(const char *query, const char *name)
{
	const char *part;
	size_t len;

	while ((part = next_part(&query, &len)))
		if (is_named(part, len, name) &&
		    (strcmp(name, "sv") != 0 || is_azure_version(part, len)))
			return true;
	return false;
}

/*
 * Of stores' signatures: Amazon's and Google's, by version 4 and before, CloudFront's, Azure's (a
 * shared access signature). A name counts where the parts are there that each such signature has.
 */
static bool is_of_signature(const char *query, const char *part, size_t len)
{
	static const struct {
		const char *with[2];
		const char *names[26];
	} kinds[] = {
		{{"X-Amz-Signature", NULL}, {"X-Amz-*"}},
		{{"X-Goog-Signature", NULL}, {"X-Goog-*"}},
		{{"Signature", "AWSAccessKeyId"},
		 {"Signature", "AWSAccessKeyId", "Expires", "X-Amz-Security-Token"}},
		{{"Signature", "GoogleAccessId"}, {"Signature", "GoogleAccessId", "Expires"}},
		{{"Signature", "Key-Pair-Id"}, {"Signature", "Key-Pair-Id", "Expires", "Policy"}},
		{{"sig", "sv"},
		 {"sig", "sv", "se", "st", "sp", "sr", "spr", "sip", "si", "ss", "srt", "skoid",
		  "sktid", "skt", "ske", "sks", "skv", "skdutid", "saoid", "suoid", "sduoid",
		  "scid", "sdd", "ses"}},
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		const char *const *with = kinds[i].with;
		bool named = false;

		for (const char *const *name = kinds[i].names; *name && !named; name++)
			named = is_named(part, len, *name);
		if (named && has_part(query, with[0]) && (!with[1] || has_part(query, with[1])))
			return true;
	}
	return false;
}

int uri_url_choice(const struct uri *u, char *to, size_t bytes)
{
	const char *mark = u->url ? strchr(u->path, '?') : NULL;
	const char *query = mark ? mark + 1 : "", *at = query, *part;
	size_t used = 0, len;

	while ((part = next_part(&at, &len))) {
		if (is_of_signature(query, part, len))
			continue;
		if (len + 2 > bytes - used)
			return -ENAMETOOLONG;
		memcpy(to + used, part, len);
		to[used + len] = '&';
		used += len + 1;
	}
	to[used] = '\0';
	return 0;
}

/* Reads decimal digits at *s, moves *s behind them; false if there are none or too many. */
static bool digits_read(const char **s, uint64_t *ret)
{
	uint64_t v = 0;

	if (!is_digit(**s))
		return false;
	for (; is_digit(**s); (*s)++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(**s - '0'), &v))
			return false;
	}
	*ret = v;
	return true;
}

int uri_number(const struct uri *u, const char *key, uint64_t min, uint64_t max, uint64_t *ret,
	       struct err *e)
{
	const char *value = uri_value(u, key);
	const char *s = value;
	uint64_t v;

	if (!value)
		return 0;
	if (!digits_read(&s, &v) || *s || v < min || v > max)
		return err_set(e, -EINVAL, "source URI: %s=%.40s: not a number from %llu to %llu",
			       key, value, (unsigned long long)min, (unsigned long long)max);
	*ret = v;
	return 1;
}

int uri_size(const struct uri *u, const char *key, uint64_t *ret, struct err *e)
{
	static const char suffixes[] = "KMGT";
	const char *value = uri_value(u, key);
	const char *s = value;
	uint64_t v;
	bool good;

	if (!value)
		return 0;
	good = digits_read(&s, &v);
	if (good && *s) {
		const char *suffix = strchr(suffixes, *s++);
		unsigned shift = suffix ? 10u * (unsigned)(suffix - suffixes + 1) : 0;

		good = suffix && !*s && v <= UINT64_MAX >> shift;
		v <<= shift;
	}
	/* Sizes and offsets are signed in the kernel's interfaces. */
	if (!good || v == 0 || v > INT64_MAX)
		return err_set(e, -EINVAL, "source URI: %s=%.40s: not a size such as 4096, 512K, "
			       "64M, 2G or 1T", key, value);
	*ret = v;
	return 1;
}
