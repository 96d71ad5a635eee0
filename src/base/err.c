/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosted: the text of a host failure. Decides two things only: that it stays one
 * line whatever a file name contains, and that the reason survives when a long name
 * has to be cut. Any thread. Test: tests/unit/err_test.c.
 */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* A name cut short ends in this, so that nobody takes it for the whole. */
static const char cut_mark[] = "...";

/* Control bytes would break the one-line promise, or repaint the reader's terminal. */
static void err_make_printable(char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			*text = '?';
	}
}

__attribute__((format(printf, 4, 0))) static void err_fill(struct err *e, int code,
							   const char *reason, const char *fmt,
							   va_list ap)
{
	char text[ERR_TEXT_MAX]; /* not e->text: an argument may point into it */
	size_t tail = *reason ? strlen(reason) + 2 : 0;

	ASSERT(tail + sizeof(cut_mark) < sizeof(text));
	size_t room = sizeof(text) - tail;
	int len = vsnprintf(text, room, fmt, ap);

	if (len < 0)
		text[0] = '\0';
	else if ((size_t)len >= room)
		memcpy(text + room - sizeof(cut_mark), cut_mark, sizeof(cut_mark));
	size_t used = strlen(text);

	if (tail)
		(void)snprintf(text + used, sizeof(text) - used, ": %s", reason);
	err_make_printable(text);
	e->code = code;
	memcpy(e->text, text, sizeof(text));
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	ASSERT(code < 0);
	if (!e)
		return code;
	va_start(ap, fmt);
	err_fill(e, code, "", fmt, ap);
	va_end(ap);
	return code;
}

int err_sys(struct err *e, int code, const char *fmt, ...)
{
	char buf[64];
	va_list ap;

	ASSERT(code < 0);
	if (!e)
		return code;
	va_start(ap, fmt);
	/* The GNU strerror_r: thread-safe, and returns the text wherever it lies. */
	err_fill(e, code, strerror_r(-code, buf, sizeof(buf)), fmt, ap);
	va_end(ap);
	return code;
}
