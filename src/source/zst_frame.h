/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame of a zstd file: decompressed, and checked by everything that is known of its content.
 * No I/O. Any thread, with a context of its own. Tests: tests/unit/zst_frame_test.c,
 * tests/fuzz/zst_fuzz.c.
 */
#ifndef SOURCE_ZST_FRAME_H
#define SOURCE_ZST_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

#include "base/err.h"

#define ZST_HASH_BYTES 32u /* SHA-256 */
#define ZST_HASH_CHARS (2 * ZST_HASH_BYTES)

struct zst_content {
	uint32_t len;              /* of the content, exactly */
	const uint32_t *sum;       /* low half of its XXH64; NULL: not known */
	const unsigned char *hash; /* its SHA-256; NULL: not known */
};

/*
 * For hashes: OpenSSL's context, which one thread at a time may use. OpenSSL reads its
 * configuration and takes memory when the first is opened, and nothing later. NULL: out of memory,
 * or SHA-256 is not to be had here. zst_hasher_close(NULL) is harmless.
 */
struct zst_hasher;
struct zst_hasher *zst_hasher_open(void);
void zst_hasher_close(struct zst_hasher *h);

/*
 * `packed_len` bytes into `plain`, which has room for want->len. hasher: NULL where want has no
 * hash. 0, or -EIO: they are broken, or hold something else; the text says what, without a name or
 * a place, and plain is undefined. Takes no memory.
 */
int zst_frame_decode(ZSTD_DCtx *context, struct zst_hasher *hasher, const void *packed,
		     size_t packed_len, void *plain, const struct zst_content *want,
		     struct err *e);

/* SHA-256 of len bytes. 0, or -EIO with text: the library refuses. */
int zst_hash(struct zst_hasher *h, const void *bytes, size_t len,
	     unsigned char ret[static ZST_HASH_BYTES], struct err *e);

/* As hexadecimal digits, ended by NUL. */
void zst_hash_text(const unsigned char hash[static ZST_HASH_BYTES],
		   char ret[static ZST_HASH_CHARS + 1]);

#endif
