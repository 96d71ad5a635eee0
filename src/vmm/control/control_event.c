/* SPDX-License-Identifier: Apache-2.0 */
/* See control_event.h. */
#include "vmm/control/control_event.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

enum {
	UPTIME = 1 << 0,
	RESIDENT = 1 << 1,
	LIMIT = 1 << 2,
	EVICTED = 1 << 3,
	REFAULTED = 1 << 4,
	LOST = 1 << 5,
};

#define NUMBER(member, unit_, help_) \
	{.name = #member, .offset = offsetof(struct control_event, member), \
	 .unit = APF_UNIT_##unit_, .kind = APF_KIND_GAUGE, .help = help_}

/* In the order of the bits above. */
const struct control_key control_event_keys[] = {
	NUMBER(uptime_ns, NS, "When it happened, in the VM's uptime."),
	NUMBER(resident_bytes, BYTES, NULL),
	NUMBER(resident_max_bytes, BYTES, NULL),
	NUMBER(evicted, BLOCKS, NULL),
	NUMBER(refaulted, BLOCKS, NULL),
	NUMBER(lost, COUNT, "Events that this client was too slow for."),
	{.name = NULL},
};

const struct control_event_row control_event_rows[CONTROL_EVENTS] = {
	[CONTROL_EVENT_FOLLOWING] = {"following", "The first: from here on nothing is missed. The "
				     "text is the state, and why.", UPTIME | RESIDENT | LIMIT},
	[CONTROL_EVENT_PAUSED] = {"paused", "Somebody asked for it.", UPTIME},
	[CONTROL_EVENT_TROUBLE] = {"trouble", "The VM stands still: the text says what failed and "
				   "why.", UPTIME},
	[CONTROL_EVENT_RESUMED] = {"resumed", "It goes on.", UPTIME},
	[CONTROL_EVENT_NOTE] = {"note", "The guest does not do what one would expect, or a disk's "
				"host has failed it: the text says what.", UPTIME},
	[CONTROL_EVENT_LIMIT] = {"limit", "The limit of resident memory has changed.",
				 UPTIME | LIMIT},
	[CONTROL_EVENT_EVICTED] = {"evicted", "An eviction that somebody asked for is over.",
				   UPTIME | RESIDENT},
	[CONTROL_EVENT_MEMORY] = {"memory", "Blocks were evicted or fetched again, within the last "
				  "second or longer: the counters as they are now.",
				  UPTIME | RESIDENT | EVICTED | REFAULTED},
	[CONTROL_EVENT_LOST] = {"lost", "The client did not read, and so misses some.",
				UPTIME | LOST},
	[CONTROL_EVENT_ENDED] = {"ended", "The last: the VM has ended, the text says how.", UPTIME},
};

#define PREFIX "event "
#define TEXT "text"

/* Appends as much as there is room for before the newline. */
__attribute__((format(printf, 3, 4)))
static size_t put(char *line, size_t len, const char *fmt, ...)
{
	size_t room = CONTROL_LINE_MAX - 1 - len;
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(line + len, room, fmt, ap);
	va_end(ap);
	ASSERT(n >= 0);
	return len + min_u64((uint64_t)n, room - 1);
}

size_t control_event_format(const struct control_event *ev,
			    char ret_line[static CONTROL_LINE_MAX])
{
	const struct control_event_row *row = &control_event_rows[ev->kind];
	size_t len = put(ret_line, 0, PREFIX "%s", row->name);

	ASSERT(ev->kind < CONTROL_EVENTS);
	for (unsigned i = 0; control_event_keys[i].name; i++)
		if (row->keys >> i & 1)
			len = put(ret_line, len, " %s %" PRIu64, control_event_keys[i].name,
				  control_key_number(&control_event_keys[i], ev));
	if (*ev->text)
		len = put(ret_line, len, " " TEXT " %.*s", (int)sizeof(ev->text) - 1, ev->text);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)ret_line[i] < 0x20 || ret_line[i] == 0x7f)
			ret_line[i] = '?';
	memcpy(ret_line + len, "\n", 2);
	return len + 1;
}

static int kind_by_name(const char *name, enum control_event_kind *ret)
{
	for (unsigned i = 0; i < CONTROL_EVENTS; i++) {
		if (strcmp(control_event_rows[i].name, name) == 0) {
			*ret = (enum control_event_kind)i;
			return 0;
		}
	}
	return -ENOENT;
}

static int take_number(struct control_event *ev, const char *name, const char *value)
{
	uint64_t v;

	if (!value || control_number_parse(value, &v) < 0)
		return -EINVAL;
	for (const struct control_key *k = control_event_keys; k->name; k++)
		if (strcmp(k->name, name) == 0)
			memcpy((char *)ev + k->offset, &v, sizeof(v));
	return 0;
}

static int take_text(struct control_event *ev, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	if (len == 0 || len >= sizeof(ev->text))
		return -EINVAL;
	memcpy(ev->text, text, len);
	return 0;
}

int control_event_parse(const char *line, struct control_event *ret)
{
	struct control_event ev = {0};
	char words[CONTROL_LINE_MAX];
	size_t len = strlen(line);
	char *save = NULL, *word;
	int rc;

	if (len >= sizeof(words) || strncmp(line, PREFIX, strlen(PREFIX)) != 0)
		return -EINVAL;
	memcpy(words, line, len + 1);
	word = strtok_r(words + strlen(PREFIX), " ", &save);
	if (!word)
		return -EINVAL;
	rc = kind_by_name(word, &ev.kind);
	if (rc < 0)
		return rc;
	while (rc == 0 && (word = strtok_r(NULL, " ", &save))) {
		if (strcmp(word, TEXT) == 0) {
			rc = take_text(&ev, strtok_r(NULL, "", &save));
			break;
		}
		rc = take_number(&ev, word, strtok_r(NULL, " ", &save));
	}
	if (rc == 0)
		*ret = ev;
	return rc;
}
