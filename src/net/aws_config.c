/* SPDX-License-Identifier: Apache-2.0 */
/* See aws_config.h. */
#include "net/aws_config.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

struct piece {
	const char *at;
	size_t len;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct piece trim(struct piece p)
{
	while (p.len > 0 && is_blank(*p.at)) {
		p.at++;
		p.len--;
	}
	while (p.len > 0 && is_blank(p.at[p.len - 1]))
		p.len--;
	return p;
}

static bool is(struct piece p, const char *text)
{
	return p.len == strlen(text) && memcmp(p.at, text, p.len) == 0;
}

static struct piece without_quotes(struct piece p)
{
	bool quoted = p.len >= 2 && (*p.at == '"' || *p.at == '\'') && p.at[p.len - 1] == *p.at;

	return quoted ? (struct piece){p.at + 1, p.len - 2} : p;
}

/* "profile   x" is "profile x", as is "profile 'x'"; the default one may do without the word. */
static bool is_section(struct piece p, const char *section)
{
	const char *blank = strchr(section, ' ');
	size_t first = blank ? (size_t)(blank - section) : 0;
	struct piece rest;

	if (!blank)
		return is(p, section);
	if (strcmp(blank + 1, "default") == 0 && is(p, "default"))
		return true;
	if (p.len <= first || memcmp(p.at, section, first) != 0 || !is_blank(p.at[first]))
		return false;
	rest = trim((struct piece){p.at + first, p.len - first});
	return is(without_quotes(rest), blank + 1);
}

/* Without what a blank and a '#' or ';' begin, which nothing that is wanted here has in it. */
static struct piece without_comment(struct piece p)
{
	for (size_t i = 1; i < p.len; i++)
		if ((p.at[i] == '#' || p.at[i] == ';') && is_blank(p.at[i - 1]))
			return trim((struct piece){p.at, i});
	return p;
}

/* "key = value", "key: value". */
static void take(struct piece line, struct aws_wanted *w, unsigned count)
{
	struct piece key, value;
	size_t mark = 0;

	while (mark < line.len && line.at[mark] != '=' && line.at[mark] != ':')
		mark++;
	if (mark == line.len)
		return;
	key = trim((struct piece){line.at, mark});
	value = trim(without_comment(
		(struct piece){line.at + mark + 1, line.len - mark - 1}));
	for (unsigned i = 0; i < count; i++) {
		bool bad = value.len == 0 || value.len >= w[i].room;

		if (key.len != strlen(w[i].key) || strncasecmp(key.at, w[i].key, key.len) != 0)
			continue;
		for (size_t k = 0; k < value.len && !bad; k++)
			bad = (unsigned char)value.at[k] < ' ' || value.at[k] == 0x7f;
		w[i].bad = bad;
		if (bad)
			continue;
		memcpy(w[i].to, value.at, value.len);
		w[i].to[value.len] = '\0';
	}
}

bool aws_config_read(const char *text, size_t len, const char *section, struct aws_wanted *wanted,
		     unsigned count)
{
	bool inside = false, found = false;
	size_t key_indent = SIZE_MAX; /* of the last line that was none of the one before it */

	/* An editor's byte order mark. */
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		len -= 3;
	}
	while (len > 0) {
		const char *end = memchr(text, '\n', len);
		struct piece line = {text, end ? (size_t)(end - text) : len};
		const char *begin = text;

		text += line.len + (end != NULL);
		len -= line.len + (end != NULL);
		line = trim(line);
		if (line.len == 0 || *line.at == '#' || *line.at == ';' ||
		    (size_t)(line.at - begin) > key_indent)
			continue;
		key_indent = (size_t)(line.at - begin);
		if (*line.at == '[') {
			const char *close = memchr(line.at, ']', line.len);

			key_indent = SIZE_MAX;
			inside = close && is_section(trim((struct piece){line.at + 1,
				(size_t)(close - line.at - 1)}), section);
			found = found || inside;
		} else if (inside) {
			take(line, wanted, count);
		}
	}
	return found;
}
