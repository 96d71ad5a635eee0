/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seek table of a zstd file in the seekable format: which frame holds which bytes. Read as
 * hostile. No I/O, no allocation. The format is zstd's contrib/seekable_format, version 0.1.0.
 * Test: tests/unit/zst_table_test.c.
 */
#ifndef SOURCE_ZST_TABLE_H
#define SOURCE_ZST_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ZST_FOOTER_BYTES 9u /* what every such file ends with */
#define ZST_ENTRY_BYTES_MAX 12u
#define ZST_FRAMES_MAX 0x8000000u
/* Content of one frame: all of it is in memory for a byte of it. Others' tools make up to 1 GiB. */
#define ZST_FRAME_BYTES_MAX (64u << 20)

/* What the footer says of the table. */
struct zst_footer {
	uint32_t frames;
	bool checksums;
	uint64_t table_bytes; /* of the whole table, its header and the footer */
};

/*
 * Frame i: file bytes packed[i] to packed[i + 1], content bytes plain[i] to plain[i + 1]. The
 * arrays, of frames + 1 elements, are the caller's.
 */
struct zst_table {
	uint32_t frames;
	uint64_t *packed, *plain;
	uint32_t *sums; /* low half of each content's XXH64; NULL: the file has none */
};

/* The last ZST_FOOTER_BYTES of a file of `size` bytes. 0, or -EINVAL with text without the name. */
int zst_footer_parse(const unsigned char *at, uint64_t size, struct zst_footer *ret, struct err *e);

/*
 * f->table_bytes at the end of the file of `size` bytes. Fills t's arrays. 0, or -EINVAL: what the
 * table says cannot be; or -EFBIG: a frame is larger than ZST_FRAME_BYTES_MAX.
 */
int zst_table_parse(const unsigned char *at, const struct zst_footer *f, uint64_t size,
		    struct zst_table *t, struct err *e);

/*
 * The same, written: the table's head, for each frame its entry with a checksum, and the footer.
 * Each returns how many bytes it has put there, ZST_ENTRY_BYTES_MAX at most.
 */
size_t zst_table_head(unsigned char *to, uint32_t frames);
size_t zst_table_entry(unsigned char *to, uint32_t packed, uint32_t plain, uint32_t sum);
size_t zst_table_foot(unsigned char *to, uint32_t frames);

/* The frame that holds content byte `offset`, which is below plain[frames]. */
uint32_t zst_table_find(const struct zst_table *t, uint64_t offset);

#endif
