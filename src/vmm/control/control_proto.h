/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of the control socket, pure: bytes into lines, lines into requests. The
 * server is control.c, the client is the command; docs/control.md is the whole of it.
 *
 * Both sides greet with a version. Then the client sends a request, one line, and gets an
 * answer: lines "KEY VALUE" (control_status.h), ended by a line "ok" or "error TEXT".
 *
 * Tests: tests/unit/control_proto_test.c, tests/fuzz/control_fuzz.c.
 */
#ifndef VMM_CONTROL_PROTO_H
#define VMM_CONTROL_PROTO_H

#include "base/err.h"
#include "base/types.h"

/* Rises when a client of the older version would misunderstand; a new key or verb does not. */
#define CONTROL_VERSION 1u
#define CONTROL_HELLO "asyncpf-control "
/* Any line of either side with its newline: an error's text and a word fit. */
#define CONTROL_LINE_MAX 320u

_Static_assert(sizeof("error ") + ERR_TEXT_MAX < CONTROL_LINE_MAX, "an error fits in a line");

enum control_verb {
	CONTROL_STATUS,
	CONTROL_PAUSE,
	CONTROL_RESUME,
	CONTROL_EVICT,
	CONTROL_STOP,
	CONTROL_LIMIT,
	CONTROL_FOLLOW,
	CONTROL_SNAPSHOT, /* with it come CONTROL_SNAPSHOT_FDS descriptors (SCM_RIGHTS) */
	CONTROL_SERVE,
	CONTROL_BALLOON,     /* answered when the guest has given what is asked for */
	CONTROL_BALLOON_SET, /* answered at once */
	CONTROL_VERBS,
};

/* The files that the snapshot is written to: state, memory. The VM may open none itself. */
#define CONTROL_SNAPSHOT_FDS 2u

/* Which snapshot: in hexadecimal digits of small letters. */
#define CONTROL_ID_BYTES 16u

struct control_request {
	enum control_verb verb;
	/*
	 * CONTROL_EVICT: how many may stay resident; CONTROL_LIMIT: from now on, 0: any number;
	 * CONTROL_BALLOON, CONTROL_BALLOON_SET: how many are left to the guest
	 */
	uint64_t bytes;
	const char *rule; /* CONTROL_SERVE: within the line */
	/* CONTROL_SNAPSHOT: the guest stands still for a moment only; what changed since `base` */
	bool keep_running, has_base;
	unsigned char base[CONTROL_ID_BYTES];
};

/* What a peer has sent and nobody has read. The owner appends at buf + len and adds to len. */
struct control_lines {
	size_t len;
	char buf[CONTROL_LINE_MAX];
};

static inline size_t control_lines_room(const struct control_lines *l)
{
	return sizeof(l->buf) - l->len;
}

/*
 * Takes the oldest line, without its newline, NUL-terminated. 1; 0: there is no whole line
 * yet, and there is room for more; -EINVAL: a control byte; -E2BIG: no newline within the
 * limit. After an error the peer is not worth listening to.
 */
int control_lines_take(struct control_lines *l, char ret_line[static CONTROL_LINE_MAX],
		       struct err *e);

/* 0, or -EINVAL: this is no greeting. */
int control_hello_parse(const char *line, uint64_t *ret_version);

/* 0, or -EINVAL with a text for the client. */
int control_request_parse(const char *line, struct control_request *ret, struct err *e);

/* The request as a line with its newline; returns its length. */
size_t control_request_format(const struct control_request *r,
			      char ret_line[static CONTROL_LINE_MAX]);

/* Decimal digits alone. 0, or -EINVAL, also beyond 64 bits. */
int control_number_parse(const char *text, uint64_t *ret_value);

#endif
