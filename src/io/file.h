/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/io: an open file. The two functions are the entries `open` and
 * `close` of port/io.h, which says what they do; ctx is not used.
 */
#ifndef IO_FILE_H
#define IO_FILE_H

#include <stdint.h>

#include "base/err.h"
#include "port/io.h"

struct io_file {
	int fd;
};

/* Blocks. The caller owns *ret_file and ends it with ioq_file_close(). Any thread. */
int ioq_file_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		  struct err *e);

/* Frees file; NULL is harmless. Any thread. */
void ioq_file_close(void *ctx, struct io_file *file);

#endif
