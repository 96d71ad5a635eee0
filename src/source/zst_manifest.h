/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest of an image: a hash of each piece of its content, so that nothing else can pass for
 * it. Read as hostile. No I/O. `asyncpf image pack --manifest` writes them; docs/sources.md has
 * the format. Tests: tests/unit/zst_manifest_test.c, tests/fuzz/zst_fuzz.c.
 */
#ifndef SOURCE_ZST_MANIFEST_H
#define SOURCE_ZST_MANIFEST_H

#include "source/zst_frame.h"
#include "source/zst_table.h"

#define ZST_MANIFEST_KIND "asyncpf-image"
#define ZST_MANIFEST_VERSION 1u
/* The longest that the manifest of a number of frames can be. */
#define ZST_MANIFEST_BYTES_MAX(frames) (65536u + 2ull * ZST_HASH_CHARS * (frames))

/* Piece i: content bytes i * frame_bytes up to the next piece, the last one up to size. */
struct zst_manifest {
	uint64_t size;
	uint64_t frame_bytes;
	uint32_t frames;
	unsigned char *hashes; /* ZST_HASH_BYTES each */
};

/*
 * The len bytes at `text`. The caller ends *ret with zst_manifest_fini(). 0, or -EINVAL or -ENOMEM
 * with text without the name; then there is nothing to end.
 */
int zst_manifest_parse(const char *text, size_t len, struct zst_manifest *ret, struct err *e);
void zst_manifest_fini(struct zst_manifest *m);

/* 0, or -EINVAL: it is that of another image, or of other frames. */
int zst_manifest_match(const struct zst_manifest *m, const struct zst_table *t, struct err *e);

#endif
