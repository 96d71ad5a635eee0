/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image is made of: the guest's memory in a file of another program's. Of each the content
 * is one range of bytes; what a file knows to be zero is not read. Tests:
 * tests/integration/image_test.py.
 */
#ifndef IMAGE_INPUT_H
#define IMAGE_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

/* In the order of the words of --format. */
enum img_format {
	IMG_AUTO,
	IMG_FLAT,        /* any file or device as it is */
	IMG_FIRECRACKER, /* a memory file: flat */
	IMG_CLOUD,       /* Cloud Hypervisor's memory-ranges: flat; or the snapshot's folder */
	IMG_QEMU,        /* one RAM block of a migration file with mapped-ram */
};

#define IMG_SIZE_UNKNOWN UINT64_MAX

struct img_in {
	int fd;           /* -1: not open */
	char *path;       /* for messages */
	uint64_t size;    /* of the content; IMG_SIZE_UNKNOWN: img_in_stream tells */
	struct stat begun; /* when it was opened */
	/* Holes: what is known of data around the place that was asked for last. */
	bool holes;
	uint64_t data_from, data_to;
	/* IMG_QEMU */
	unsigned char *bitmap; /* NULL: flat */
	uint64_t page_bytes, pages_at;
	char *block; /* name */
};

/*
 * path "-" is standard input. block: of IMG_QEMU; NULL: the largest. Ended by img_in_close(). 0,
 * or -Exxx with text; then there is nothing to end.
 */
int img_in_open(struct img_in *in, const char *path, enum img_format format, const char *block,
		struct err *e);
void img_in_close(struct img_in *in);

/* Whether len bytes at offset, all within size, are known to be zero. One thread at a time. */
bool img_in_is_zero(struct img_in *in, uint64_t offset, size_t len);
/* The same bytes into buf. Any thread. 0, or -Exxx with text. */
int img_in_read(const struct img_in *in, uint64_t offset, void *buf, size_t len, struct err *e);
/*
 * Where the size is not known: the next bytes, len or as many as there are. stop_fd: readable when
 * it is not worth waiting for more. Returns how many, -ECANCELED without text, or -Exxx.
 */
int64_t img_in_stream(const struct img_in *in, void *buf, size_t len, int stop_fd, struct err *e);
/* Is it still what it was when it was opened? 0, or -ESTALE with text. */
int img_in_unchanged(const struct img_in *in, struct err *e);

#endif
