/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line on a terminal that says how far something is: a bar, the rate, the time left. Nothing
 * where standard error is no terminal. Test: tests/unit/progress_test.c.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stddef.h>

#include "base/types.h"

#define PROGRESS_UNKNOWN UINT64_MAX

struct progress {
	const char *what; /* "packing" */
	bool shown;       /* there is a line */
	uint64_t last_ns; /* of the last look; 0: there was none */
	uint64_t last_done;
	double rate; /* bytes per second, of the last seconds */
};

/* Is there somebody to look at it? */
bool progress_wanted(void);
/*
 * The line for `done` bytes of `total`, PROGRESS_UNKNOWN if that is not known, at now_ns: within
 * CLI_COLUMNS, without its end. Pure.
 */
void progress_line(struct progress *p, uint64_t done, uint64_t total, uint64_t now_ns, char *ret,
		   size_t room);
/* Shows it. ctx: struct progress. */
void progress_show(void *ctx, uint64_t done, uint64_t total);
/* Takes the line away, if there is one. */
void progress_end(struct progress *p);

#endif
