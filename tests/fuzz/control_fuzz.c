/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the language of the control socket. The first byte chooses the side
 * (bit 0: the client, which reads answers; otherwise the server) and how many bytes arrive
 * at once (the other bits); the rest is what the peer sends. What must hold: lines keep their
 * bounds, a request or a status that was understood is the same when it is said again, and
 * what is shown of it cannot steer a terminal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/control/control_metrics.h"
#include "cli/control/control_show.h"
#include "vmm/control/control_event.h"
#include "vmm/control/control_proto.h"
#include "vmm/control/control_status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void serve(const char *line)
{
	struct control_request r, again;
	char said[CONTROL_LINE_MAX];
	uint64_t version;
	struct err e = {0};

	(void)control_hello_parse(line, &version);
	if (control_request_parse(line, &r, &e) < 0) {
		must(e.code < 0 && *e.text && strlen(e.text) < ERR_TEXT_MAX);
		return;
	}
	said[control_request_format(&r, said) - 1] = '\0';
	must(control_request_parse(said, &again, &e) == 0);
	must(again.verb == r.verb && again.bytes == r.bytes);
}

/* What was understood so far, said and understood again. */
static void repeat(const struct control_status *s)
{
	static char text[CONTROL_ANSWER_MAX];
	struct control_status again = {0};
	size_t len = control_status_format(s, text);

	for (size_t at = 0; at < len;) {
		const char *end = memchr(text + at, '\n', len - at);
		char line[CONTROL_LINE_MAX];
		size_t n;

		must(end);
		n = (size_t)(end - text) - at;
		must(n < sizeof(line));
		memcpy(line, text + at, n);
		line[n] = '\0';
		must(control_status_parse(line, &again) == 0);
		at += n + 1;
	}
	must(memcmp(s, &again, sizeof(again)) == 0);
}

static void show(const struct control_status *s)
{
	for (unsigned way = 0; way < 3; way++) {
		char *text = NULL;
		size_t len = 0;
		FILE *out = open_memstream(&text, &len);

		must(out != NULL);
		if (way == 2)
			control_show_metrics(s, out);
		else if (way == 1)
			must(control_show_json(s, out) == 0);
		else
			control_show_text(s, out);
		fclose(out);
		for (size_t i = 0; i < len; i++)
			must(text[i] == '\n' || ((unsigned char)text[i] >= ' ' && text[i] != 0x7f));
		free(text);
	}
}

static void event(const char *line)
{
	struct control_event ev, again;
	char said[CONTROL_LINE_MAX];

	if (control_event_parse(line, &ev) < 0)
		return;
	said[control_event_format(&ev, said) - 1] = '\0';
	must(control_event_parse(said, &again) == 0);
	must(again.kind == ev.kind && again.uptime_ns == ev.uptime_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_lines l = {0};
	struct control_status s = {0};
	char line[CONTROL_LINE_MAX];
	struct err e = {0};
	int rc = 0;

	if (size == 0)
		return 0;
	bool client = data[0] & 1;
	size_t piece = (size_t)(data[0] >> 1) + 1;

	for (size_t at = 1; at < size && rc >= 0;) {
		size_t n = min_u64(min_u64(piece, size - at), control_lines_room(&l));

		must(n > 0);
		memcpy(l.buf + l.len, data + at, n);
		l.len += n;
		at += n;
		while ((rc = control_lines_take(&l, line, &e)) > 0) {
			must(strlen(line) < CONTROL_LINE_MAX && !strpbrk(line, "\r\n\t\x1b\x7f"));
			event(line);
			if (client)
				(void)control_status_parse(line, &s);
			else
				serve(line);
		}
	}
	must(rc == 0 || *e.text);
	repeat(&s);
	if (client)
		show(&s);
	return 0;
}
