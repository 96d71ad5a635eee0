/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are no raw disks though they may hold one: images of other machine programs, and
 * compressed ones, known by their first bytes, or by their last 512. Pure.
 * Test: tests/unit/blk_format_test.c.
 */
#ifndef VMM_BLK_FORMAT_H
#define VMM_BLK_FORMAT_H

#include <stddef.h>

#define BLK_FORMAT_HEAD_BYTES 512u

struct blk_format {
	const char *name;   /* "a qcow2 image" */
	const char *advice; /* what makes a raw disk of it */
};

/* The format of a file that begins with head[0 .. len); NULL: none that is known. */
const struct blk_format *blk_format(const unsigned char *head, size_t len);
/* That of a file that ends with them: the last BLK_FORMAT_HEAD_BYTES, or fewer. */
const struct blk_format *blk_format_end(const unsigned char *end, size_t len);

#endif
