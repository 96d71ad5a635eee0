/* SPDX-License-Identifier: Apache-2.0 */
/* A zstd file in the seekable format, made by libzstd and by the format's description alone. */
#ifndef TESTS_ZST_MAKE_H
#define TESTS_ZST_MAKE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

struct zst_made {
	unsigned char *at;
	size_t len, room;
	unsigned char *table; /* entries */
	size_t table_len;
	uint32_t frames;
	bool sums;
};

static inline void zst_put(unsigned char *to, uint32_t x)
{
	for (unsigned i = 0; i < 4; i++)
		to[i] = (unsigned char)(x >> (8 * i));
}

static inline void zst_begin(struct zst_made *z, bool sums)
{
	*z = (struct zst_made){.sums = sums};
}

static inline void zst_entry(struct zst_made *z, size_t packed, const void *plain, size_t len)
{
	unsigned char entry[12];
	size_t bytes = z->sums ? 12 : 8;

	zst_put(entry, (uint32_t)packed);
	zst_put(entry + 4, (uint32_t)len);
	zst_put(entry + 8, (uint32_t)XXH64(plain, len, 0));
	z->table = realloc(z->table, z->table_len + bytes);
	assert(z->table);
	memcpy(z->table + z->table_len, entry, bytes);
	z->table_len += bytes;
	z->frames++;
}

static inline void zst_frame(struct zst_made *z, const void *plain, size_t len)
{
	size_t n;

	z->room = z->len + ZSTD_compressBound(len);
	z->at = realloc(z->at, z->room);
	assert(z->at);
	n = ZSTD_compress(z->at + z->len, z->room - z->len, plain, len, 1);
	assert(!ZSTD_isError(n));
	z->len += n;
	zst_entry(z, n, plain, len);
}

/* Ends the file: at, len are all of it. */
static inline void zst_finish(struct zst_made *z)
{
	unsigned char *at;

	z->at = realloc(z->at, z->len + 17 + z->table_len);
	assert(z->at);
	at = z->at + z->len;
	zst_put(at, 0x184d2a5e);
	zst_put(at + 4, (uint32_t)z->table_len + 9);
	if (z->table_len > 0)
		memcpy(at + 8, z->table, z->table_len);
	at += 8 + z->table_len;
	zst_put(at, z->frames);
	at[4] = z->sums ? 0x80 : 0;
	zst_put(at + 5, 0x8f92eab1);
	z->len += 17 + z->table_len;
}

static inline void zst_free(struct zst_made *z)
{
	free(z->at);
	free(z->table);
}

#endif
