/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client that follows a VM hears, a line each:
 *
 *     event NAME KEY NUMBER KEY NUMBER … [text TEXT]
 *
 * The tables are the one place that knows names and keys; server, client and docs/control.md go
 * by them. Pure. Tests: tests/unit/control_event_test.c, tests/fuzz/control_fuzz.c.
 */
#ifndef VMM_CONTROL_EVENT_H
#define VMM_CONTROL_EVENT_H

#include "base/types.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_status.h"

/* With its NUL. */
#define CONTROL_EVENT_TEXT_MAX 200u

enum control_event_kind {
	CONTROL_EVENT_FOLLOWING,
	CONTROL_EVENT_PAUSED,
	CONTROL_EVENT_TROUBLE,
	CONTROL_EVENT_RESUMED,
	CONTROL_EVENT_NOTE,
	CONTROL_EVENT_LIMIT,
	CONTROL_EVENT_EVICTED,
	CONTROL_EVENT_MEMORY,
	CONTROL_EVENT_LOST,
	CONTROL_EVENT_ENDED,
	CONTROL_EVENTS,
};

struct control_event {
	enum control_event_kind kind;
	uint64_t uptime_ns;
	uint64_t resident_bytes;
	uint64_t resident_max_bytes;
	uint64_t evicted;
	uint64_t refaulted;
	uint64_t lost;
	char text[CONTROL_EVENT_TEXT_MAX]; /* "": none */
};

struct control_event_row {
	const char *name;
	const char *help;
	/* Those of control_event_keys that it has, a bit each. */
	unsigned keys;
};

extern const struct control_event_row control_event_rows[CONTROL_EVENTS];
/* The numbers; a name of NULL ends them. */
extern const struct control_key control_event_keys[];

/*
 * The line with its newline; returns its length. Control bytes of the text become '?', and what
 * does not fit into the line is cut off its end.
 */
size_t control_event_format(const struct control_event *ev,
			    char ret_line[static CONTROL_LINE_MAX]);

/*
 * One line without its newline. 0; -EINVAL: it is no event; -ENOENT: one that we do not know. *ret
 * is untouched then. A key that is not known is passed over.
 */
int control_event_parse(const char *line, struct control_event *ret);

#endif
