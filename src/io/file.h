/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/io: an open file. The functions are the entries `open`, `load`, `hole`,
 * `unchanged`, `cached`, `uncached` and `close` of port/io.h, which says what they do; ctx is not
 * used.
 */
#ifndef IO_FILE_H
#define IO_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "port/io.h"

#define IOQ_HITS_ONE 4096u

/* What changes with a file's content. */
struct ioq_version {
	uint64_t size;
	int64_t seconds[2]; /* of the last change of the content, and of anything */
	uint32_t ns[2];
};

struct io_file {
	int fd;
	struct ioq_version version; /* when it was opened */
	bool just_changed; /* then; a later change could not be told from that: no holes */
	int direct_fd;         /* the same file by O_DIRECT; -1: not to be had, or not wanted */
	uint32_t direct_align; /* of offset, length and address for it; 0: there is none */
	bool uncached;         /* what goes through fd is dropped from the page cache afterwards */
	bool wrote_cached;     /* something is left there by writes */
	uint32_t hits;         /* moving share of reads that the page cache had, of IOQ_HITS_ONE */
	uint32_t untried;      /* reads that were not looked for there */
};

/* Blocks. The caller owns *ret_file and ends it with ioq_file_close(). Any thread. */
int ioq_file_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		  struct err *e);

/* Refuses what is neither a regular file nor a block device; takes O_NONBLOCK away. */
int ioq_file_check(int fd, const char *path, uint64_t *ret_size, struct err *e);

/* shared.c: `open_shared` of port/io.h. */
int ioq_file_share(void *ctx, const struct io_shared *want, struct io_file **ret,
		   bool *ret_read_only, struct err *e);

int ioq_file_load(void *ctx, struct io_file *file, const char *path, uint64_t off, void *buf,
		  size_t len, struct err *e);

int ioq_file_hole(void *ctx, struct io_file *file, uint64_t off, uint64_t *ret_from,
		  uint64_t *ret_to);

bool ioq_file_unchanged(void *ctx, const struct io_file *file);

int64_t ioq_file_cached(void *ctx, const struct io_file *file, uint64_t off, uint64_t len);

/* Blocks. No request on the file may be outstanding. */
void ioq_file_uncached(void *ctx, struct io_file *file);

/* Frees file; NULL is harmless. Any thread. */
void ioq_file_close(void *ctx, struct io_file *file);

#endif
