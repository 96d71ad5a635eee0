/* SPDX-License-Identifier: Apache-2.0 */
/* See control_proto.h. */
#include "vmm/control/control_proto.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

static const struct {
	const char *word;
	bool bytes; /* takes a number of bytes */
	bool rule;  /* takes a text */
} verbs[] = {
	[CONTROL_STATUS] = {"status", false, false},
	[CONTROL_PAUSE] = {"pause", false, false},
	[CONTROL_RESUME] = {"resume", false, false},
	[CONTROL_EVICT] = {"evict", true, false},
	[CONTROL_STOP] = {"stop", false, false},
	[CONTROL_LIMIT] = {"limit", true, false},
	[CONTROL_FOLLOW] = {"follow", false, false},
	[CONTROL_SNAPSHOT] = {"snapshot", false, false},
	[CONTROL_SERVE] = {"serve", false, true},
	[CONTROL_BALLOON] = {"balloon", true, false},
	[CONTROL_BALLOON_SET] = {"balloon-set", true, false},
};

_Static_assert(ARRAY_LEN(verbs) == CONTROL_VERBS, "a word for each");

/* A NUL would hide what follows it, an escape could repaint the reader's terminal. */
static bool is_text(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c < 0x20 || c == 0x7f)
			return false;
	}
	return true;
}

int control_lines_take(struct control_lines *l, char ret_line[static CONTROL_LINE_MAX],
		       struct err *e)
{
	const char *end = memchr(l->buf, '\n', l->len);
	size_t len = end ? (size_t)(end - l->buf) : l->len;

	/* Checked before the line is whole: garbage need not end in a newline. */
	if (!is_text(l->buf, len))
		return err_set(e, -EINVAL, "bad line: it holds a control byte");
	if (!end && control_lines_room(l) == 0)
		return err_set(e, -E2BIG, "bad line: longer than %u bytes", CONTROL_LINE_MAX - 1);
	if (!end)
		return 0;
	memcpy(ret_line, l->buf, len);
	ret_line[len] = '\0';
	l->len -= len + 1;
	memmove(l->buf, end + 1, l->len);
	return 1;
}

int control_number_parse(const char *text, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++)
		if (*text < '0' || *text > '9' || __builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
			return -EINVAL;
	*ret_value = v;
	return 0;
}

int control_hello_parse(const char *line, uint64_t *ret_version)
{
	size_t len = strlen(CONTROL_HELLO);

	if (strncmp(line, CONTROL_HELLO, len) != 0)
		return -EINVAL;
	return control_number_parse(line + len, ret_version);
}

static const char running_word[] = " running", base_word[] = " base ";
static const char digits[] = "0123456789abcdef";

static int id_parse(const char *text, unsigned char ret[static CONTROL_ID_BYTES])
{
	if (strlen(text) != CONTROL_ID_BYTES * 2 || strspn(text, digits) != CONTROL_ID_BYTES * 2)
		return -EINVAL;
	for (unsigned i = 0; i < CONTROL_ID_BYTES; i++)
		ret[i] = (unsigned char)((strchr(digits, text[2 * i]) - digits) * 16 +
					 (strchr(digits, text[2 * i + 1]) - digits));
	return 0;
}

/* What follows "snapshot". */
static int snapshot_parse(const char *rest, struct control_request *r)
{
	size_t len = strlen(running_word);

	r->keep_running = strncmp(rest, running_word, len) == 0;
	if (r->keep_running)
		rest += len;
	len = strlen(base_word);
	r->has_base = strncmp(rest, base_word, len) == 0;
	if (r->has_base)
		return id_parse(rest + len, r->base);
	return *rest ? -EINVAL : 0;
}

static int snapshot_format(const struct control_request *r, char ret_line[static CONTROL_LINE_MAX])
{
	char id[CONTROL_ID_BYTES * 2 + 1] = "";

	for (unsigned i = 0; r->has_base && i < CONTROL_ID_BYTES; i++) {
		id[2 * i] = digits[r->base[i] >> 4];
		id[2 * i + 1] = digits[r->base[i] & 15];
	}
	return snprintf(ret_line, CONTROL_LINE_MAX, "snapshot%s%s%s\n",
			r->keep_running ? running_word : "", r->has_base ? base_word : "", id);
}

int control_request_parse(const char *line, struct control_request *ret, struct err *e)
{
	size_t len = strcspn(line, " ");
	const char *rest = line + len;
	struct control_request r = {0};
	unsigned i = 0;

	while (i < ARRAY_LEN(verbs) &&
	       (strlen(verbs[i].word) != len || memcmp(verbs[i].word, line, len) != 0))
		i++;
	if (i == ARRAY_LEN(verbs))
		return err_set(e, -EINVAL, "unknown request: this VM knows status, pause, resume, "
			       "evict BYTES, limit BYTES, balloon BYTES, balloon-set BYTES, "
			       "follow and stop");
	r.verb = (enum control_verb)i;
	if (verbs[i].rule && *rest != ' ')
		return err_set(e, -EINVAL, "bad request: %s takes a rule", verbs[i].word);
	r.rule = verbs[i].rule ? rest + 1 : NULL;
	if (r.verb == CONTROL_SNAPSHOT && snapshot_parse(rest, &r) < 0)
		return err_set(e, -EINVAL, "bad request: snapshot takes running, or base ID, or "
			       "both in this order, or nothing");
	if (r.verb == CONTROL_SNAPSHOT)
		rest += strlen(rest);
	if (!verbs[i].bytes && !verbs[i].rule && *rest)
		return err_set(e, -EINVAL, "bad request: %s takes nothing", verbs[i].word);
	if (verbs[i].bytes && (*rest != ' ' || control_number_parse(rest + 1, &r.bytes) < 0))
		return err_set(e, -EINVAL, "bad request: %s takes a number of bytes",
			       verbs[i].word);
	*ret = r;
	return 0;
}

size_t control_request_format(const struct control_request *r,
			      char ret_line[static CONTROL_LINE_MAX])
{
	ASSERT(r->verb < ARRAY_LEN(verbs));
	int n = r->verb == CONTROL_SNAPSHOT
			? snapshot_format(r, ret_line)
		: verbs[r->verb].bytes
			? snprintf(ret_line, CONTROL_LINE_MAX, "%s %" PRIu64 "\n",
				   verbs[r->verb].word, r->bytes)
		: verbs[r->verb].rule
			? snprintf(ret_line, CONTROL_LINE_MAX, "%s %s\n", verbs[r->verb].word,
				   r->rule)
			: snprintf(ret_line, CONTROL_LINE_MAX, "%s\n", verbs[r->verb].word);

	ASSERT(n > 0 && (unsigned)n < CONTROL_LINE_MAX);
	return (size_t)n;
}
