/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where tools/lab is, and becoming it. Test: tests/error/run_lab_test.py.
 */
#ifndef CLI_LAB_H
#define CLI_LAB_H

#include "base/err.h"
#include "base/types.h"
#include "cli/words.h"

#define LAB_PATH_BYTES 4096

/* Names tools/lab instead of what would be found; for tests. */
#define LAB_TOOL_ENV "ASYNCPF_LAB_TOOL"

/*
 * The tool: $ASYNCPF_LAB_TOOL; that of the source tree, where the command is in a build
 * folder of one; or the installed one. And the command's own path. 0, or -Exxx with a text.
 */
int lab_find(char ret_tool[static LAB_PATH_BYTES], char ret_self[static LAB_PATH_BYTES],
	     struct err *e);

/* The same for another tool, which lies beside it, and without the environment. */
int lab_find_tool(const char *name, char ret_tool[static LAB_PATH_BYTES], struct err *e);

/* Becomes w, whose first word is the tool's path. Returns only on failure: -Exxx. */
int lab_exec(const struct words *w, struct err *e);

#endif
