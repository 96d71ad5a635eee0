/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that appears whole or not at all: written under another name in the same folder, made
 * durable, and renamed. Test: tests/integration/image_test.py.
 */
#ifndef IMAGE_OUTPUT_H
#define IMAGE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct img_out {
	int fd;           /* -1: not open */
	const char *path; /* the caller's */
	char *folder, *temporary;
	bool force;
	/* Of img_out_add, the caller's thread alone: */
	unsigned char *buffer;
	size_t buffered;
};

/*
 * mode: its permissions, less the umask. force: what bears the name now is replaced in the end,
 * if it is a regular file; else it is refused. path must live until the end. 0, or -Exxx with
 * text; then there is nothing to end.
 */
int img_out_open(struct img_out *o, const char *path, mode_t mode, bool force, struct err *e);
/* Appends. 0, or -Exxx with text. */
int img_out_add(struct img_out *o, const void *bytes, size_t len, struct err *e);
/* At a place of its own, beside which there is no img_out_add. Any thread. */
int img_out_write(const struct img_out *o, uint64_t offset, const void *bytes, size_t len,
		  struct err *e);
/* What was written gets to the disk; blocks for long. 0, or -Exxx with text. */
int img_out_sync(struct img_out *o, struct err *e);
/* It gets its name. Ends o, whatever comes of it. 0, or -Exxx with text. */
int img_out_commit(struct img_out *o, struct err *e);
/* Ends o; nothing is left of it. Harmless if it is not open, with fd -1. */
void img_out_drop(struct img_out *o);

#endif
