/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of what happens to memory (asyncpf/trace.h), in the format that ui.perfetto.dev and
 * chrome://tracing open: docs/trace.md. Who tells is hardly held up: a thread writes. What comes
 * faster than it can write is left out, and counted. Test:
 * tests/error/trace_test.py.
 */
#ifndef CLI_TRACE_FILE_H
#define CLI_TRACE_FILE_H

#include <asyncpf/trace.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/json/json_file.h"

struct trace_file;

/* The first thing that the thread does; NULL: nothing. */
typedef void trace_file_begins(void *ctx);
/*
 * Starts the thread. file: open; ours from now on, also on failure. What it holds goes once there
 * is a VM. 0, or -Exxx with text.
 */
int trace_file_open(const struct json_file *file, trace_file_begins *begins, void *ctx,
		    struct trace_file **ret, struct err *e);
/* What follows is of another VM. name: as long as the file is open. While no VM tells. */
void trace_file_vm(struct trace_file *t, const char *name);
/* For apf_config.on_trace; ctx: the trace_file. */
void trace_file_tell(void *ctx, const struct apf_trace *what);
/*
 * When nobody tells any more. Says on stderr what is not in it. 0, or -Exxx: it could not be
 * written, as by a pipe whose reader does not read. NULL is harmless.
 */
int trace_file_close(struct trace_file *t);

#endif
