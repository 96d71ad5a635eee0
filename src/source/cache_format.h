/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a cache that VMs and processes share (cache.c), read as hostile. No I/O.
 * Tests: tests/fuzz/cache_fuzz.c, tests/integration/cache_test.c.
 *
 *   head     one page: layout, and a check of it
 *   buckets  of CACHE_WAYS entries: which chunk of which image lies in the slot that belongs to
 *            the entry, the SHA-256 of each of its pages, a check of all that, and when it was
 *            last used (which no check covers)
 *   slots    one chunk each
 *
 * A chunk may lie in one bucket only, which follows from image and number; neighbours lie in
 * neighbouring buckets, and those that have the same way in neighbouring slots. Nothing else ties
 * an entry to its slot: who reads compares the hash of what he has read, so a write that was cut
 * short, and two at the same place, are found like any other damage. Numbers are little-endian.
 */
#ifndef SOURCE_CACHE_FORMAT_H
#define SOURCE_CACHE_FORMAT_H

#include <stdbool.h>

#include "base/types.h"
#include "source/zst_frame.h"

#define CACHE_FILE "asyncpf-cache-1" /* in the cache's folder */
#define CACHE_CHUNK_BYTES 65536u
#define CACHE_GRAINS (CACHE_CHUNK_BYTES / PAGE_BYTES)
#define CACHE_WAYS 8u
#define CACHE_IMAGE_BYTES 16u
#define CACHE_HEAD_BYTES 4096u
#define CACHE_ENTRY_BYTES 576u
#define CACHE_ENTRY_USED_AT 48u /* of used_ms, in an entry */
#define CACHE_ENTRY_USED_BYTES 8u
#define CACHE_BUCKET_BYTES (CACHE_WAYS * CACHE_ENTRY_BYTES)
#define CACHE_BYTES_MIN (16ull << 20)
#define CACHE_BYTES_MAX (64ull << 40)

struct cache_layout {
	uint64_t buckets; /* > 0 */
};

struct cache_entry {
	unsigned char image[CACHE_IMAGE_BYTES];
	uint64_t chunk;  /* of the image */
	uint64_t used_ms; /* of the host's monotonic clock */
	uint32_t len;     /* 1..CACHE_CHUNK_BYTES: an image's last may be short */
	unsigned char hash[CACHE_GRAINS][ZST_HASH_BYTES];
};

/* As much as fits into a file of that many bytes, CACHE_BYTES_MIN..CACHE_BYTES_MAX. */
struct cache_layout cache_layout_for(uint64_t bytes);
/* Of the whole file. */
uint64_t cache_file_bytes(const struct cache_layout *l);
uint64_t cache_bucket(const struct cache_layout *l, const unsigned char *image, uint64_t chunk);
/* Where they lie in the file. */
uint64_t cache_entry_at(const struct cache_layout *l, uint64_t bucket, unsigned way);
uint64_t cache_slot_at(const struct cache_layout *l, uint64_t bucket, unsigned way);

/* 0, or -EIO: the library of the hash refuses. */
int cache_head_write(struct zst_hasher *h, const struct cache_layout *l,
		     unsigned char to[static CACHE_HEAD_BYTES]);
/* 0, or -EINVAL: it is no such head, or a broken one. */
int cache_head_read(struct zst_hasher *h, const unsigned char from[static CACHE_HEAD_BYTES],
		    struct cache_layout *ret);
int cache_entry_write(struct zst_hasher *h, const struct cache_entry *entry,
		      unsigned char to[static CACHE_ENTRY_BYTES]);
/* False: it is empty, or broken. */
bool cache_entry_read(struct zst_hasher *h, const unsigned char from[static CACHE_ENTRY_BYTES],
		      struct cache_entry *ret);

/*
 * The way of a bucket that holds the chunk, *ret then has its entry; or -1, and *ret_victim is the
 * one to be overwritten: an empty one, or the one that was not used for longest. *ret_evicts: it
 * holds something. The victim of a chunk that is there is its own.
 */
int cache_bucket_find(struct zst_hasher *h, const unsigned char from[static CACHE_BUCKET_BYTES],
		      const unsigned char *image, uint64_t chunk, uint64_t now_ms,
		      struct cache_entry *ret, unsigned *ret_victim, bool *ret_evicts);

/* Pages of a chunk of that many bytes. */
static inline uint32_t cache_grains(uint32_t len)
{
	return (len + (uint32_t)PAGE_BYTES - 1) / (uint32_t)PAGE_BYTES;
}

#endif
