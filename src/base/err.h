/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host failures. A function that can fail on the host's account returns 0 or a
 * count, or -Exxx, and fills a caller-owned `struct err` with one sentence: what
 * failed, on what, why. Only the layer that knows writes the text; only cli/
 * prints it. No thread-local state, no allocation.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

#define ERR_TEXT_MAX 240

struct err {
	int code;                /* -Exxx, or 0 when nothing failed */
	char text[ERR_TEXT_MAX]; /* one line, no newline at its end */
};

/*
 * Stores code (negative) and text; returns `code`, so that callers can `return
 * err_set(…)`. e may be NULL. A text too long is cut and ends in "..."; control bytes
 * become '?'. Arguments may point into e->text. Never blocks; any thread.
 */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": <strerror(-code)>" appended; the reason is never cut. */
int err_sys(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
