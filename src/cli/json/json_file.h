/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where `--json FILE` and `--trace FILE` lead: a file, opened before the work so that it is not in
 * vain, and left as it was until there is something better; or "-", standard output. A FIFO must
 * have a reader: it is waited for, shortly.
 * Tests: tests/error/demo_output_test.py, run_test.py, run_files_test.py.
 */
#ifndef CLI_JSON_FILE_H
#define CLI_JSON_FILE_H

#include <stdio.h>

#include "base/err.h"
#include "base/types.h"

struct json_file {
	FILE *out; /* NULL: none was asked for */
	const char *path;
	const char *option; /* that names it */
	bool made;          /* by us, and nothing was written yet */
};

bool json_file_is_stdout(const char *path);
/* Somebody else has what fd is open for: file_use_is_taken(), but in tests. */
typedef bool json_file_is_taken(int fd);
/*
 * path: NULL for none; it and option ("json") are kept. 0 or -Exxx; then there is nothing to close.
 */
int json_file_open(struct json_file *f, const char *path, const char *option,
		   json_file_is_taken *is_taken, struct err *e);
/* Before the first write: what the file held goes. 0 or -Exxx. */
int json_file_begin(struct json_file *f, struct err *e);
/* rc: of what wrote it, 0 or -Exxx with errno. Fills e; returns rc. */
int json_file_written(const struct json_file *f, int rc, struct err *e);
void json_file_close(struct json_file *f);

#endif
