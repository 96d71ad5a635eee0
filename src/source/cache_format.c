/* SPDX-License-Identifier: Apache-2.0 */
/* See cache_format.h. */
#include "source/cache_format.h"

#include <errno.h>
#include <string.h>

#define VERSION 1u
#define CHECK_BYTES 16u

/* An entry: image, chunk, len, 4 bytes of 0, check, used_ms, 8 bytes of 0, hashes. */
#define CHUNK_AT 16u
#define LEN_AT 24u
#define CHECK_AT 32u
#define HASHES_AT 64u
/* A head: word, version, buckets, check. */
#define VERSION_AT 16u
#define BUCKETS_AT 24u

static const char head_word[16] = "asyncpf-cache\n";

_Static_assert(HASHES_AT + CACHE_GRAINS * ZST_HASH_BYTES == CACHE_ENTRY_BYTES, "an entry");
_Static_assert(CACHE_ENTRY_USED_AT == CHECK_AT + CHECK_BYTES, "behind its check");

static void put(unsigned char *to, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get(const unsigned char *from, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = bytes; i-- > 0;)
		v = v << 8 | from[i];
	return v;
}

static uint64_t slots_at(const struct cache_layout *l)
{
	return align_up(CACHE_HEAD_BYTES + l->buckets * CACHE_BUCKET_BYTES, CACHE_CHUNK_BYTES);
}

struct cache_layout cache_layout_for(uint64_t bytes)
{
	const uint64_t each = CACHE_BUCKET_BYTES + (uint64_t)CACHE_WAYS * CACHE_CHUNK_BYTES;

	/* Less the head, and what brings slots to a multiple of their size. */
	return (struct cache_layout){(bytes - 2 * CACHE_CHUNK_BYTES) / each};
}

uint64_t cache_file_bytes(const struct cache_layout *l)
{
	return slots_at(l) + l->buckets * CACHE_WAYS * CACHE_CHUNK_BYTES;
}

uint64_t cache_bucket(const struct cache_layout *l, const unsigned char *image, uint64_t chunk)
{
	return (get(image, 8) % l->buckets + chunk % l->buckets) % l->buckets;
}

uint64_t cache_entry_at(const struct cache_layout *l, uint64_t bucket, unsigned way)
{
	(void)l;
	return CACHE_HEAD_BYTES + bucket * CACHE_BUCKET_BYTES + way * CACHE_ENTRY_BYTES;
}

uint64_t cache_slot_at(const struct cache_layout *l, uint64_t bucket, unsigned way)
{
	return slots_at(l) + (way * l->buckets + bucket) * CACHE_CHUNK_BYTES;
}

/* ---- the head ---- */

int cache_head_write(struct zst_hasher *h, const struct cache_layout *l,
		     unsigned char to[static CACHE_HEAD_BYTES])
{
	unsigned char hash[ZST_HASH_BYTES];

	memset(to, 0, CACHE_HEAD_BYTES);
	memcpy(to, head_word, sizeof(head_word));
	put(to + VERSION_AT, VERSION, 4);
	put(to + BUCKETS_AT, l->buckets, 8);
	if (zst_hash(h, to, CHECK_AT, hash, NULL) < 0)
		return -EIO;
	memcpy(to + CHECK_AT, hash, CHECK_BYTES);
	return 0;
}

int cache_head_read(struct zst_hasher *h, const unsigned char from[static CACHE_HEAD_BYTES],
		    struct cache_layout *ret)
{
	unsigned char hash[ZST_HASH_BYTES];
	struct cache_layout l = {get(from + BUCKETS_AT, 8)};

	if (memcmp(from, head_word, sizeof(head_word)) != 0 ||
	    get(from + VERSION_AT, 4) != VERSION || zst_hash(h, from, CHECK_AT, hash, NULL) < 0 ||
	    memcmp(from + CHECK_AT, hash, CHECK_BYTES) != 0)
		return -EINVAL;
	/* A check is no signature: sums that follow must not wrap. */
	if (l.buckets == 0 || l.buckets > cache_layout_for(CACHE_BYTES_MAX).buckets)
		return -EINVAL;
	*ret = l;
	return 0;
}

/* ---- entries ---- */

/* A sum over the entry without its time of use and without the sum. */
static bool check_of(struct zst_hasher *h, const unsigned char *entry,
		     unsigned char ret[static ZST_HASH_BYTES])
{
	unsigned char copy[CACHE_ENTRY_BYTES];

	memcpy(copy, entry, sizeof(copy));
	memset(copy + CHECK_AT, 0, HASHES_AT - CHECK_AT);
	return zst_hash(h, copy, sizeof(copy), ret, NULL) == 0;
}

int cache_entry_write(struct zst_hasher *h, const struct cache_entry *entry,
		      unsigned char to[static CACHE_ENTRY_BYTES])
{
	unsigned char hash[ZST_HASH_BYTES];

	memset(to, 0, CACHE_ENTRY_BYTES);
	memcpy(to, entry->image, CACHE_IMAGE_BYTES);
	put(to + CHUNK_AT, entry->chunk, 8);
	put(to + LEN_AT, entry->len, 4);
	put(to + CACHE_ENTRY_USED_AT, entry->used_ms, CACHE_ENTRY_USED_BYTES);
	memcpy(to + HASHES_AT, entry->hash, cache_grains(entry->len) * ZST_HASH_BYTES);
	if (!check_of(h, to, hash))
		return -EIO;
	memcpy(to + CHECK_AT, hash, CHECK_BYTES);
	return 0;
}

bool cache_entry_read(struct zst_hasher *h, const unsigned char from[static CACHE_ENTRY_BYTES],
		      struct cache_entry *ret)
{
	unsigned char hash[ZST_HASH_BYTES];
	uint64_t len = get(from + LEN_AT, 4);

	if (len == 0 || len > CACHE_CHUNK_BYTES || !check_of(h, from, hash) ||
	    memcmp(from + CHECK_AT, hash, CHECK_BYTES) != 0)
		return false;
	memcpy(ret->image, from, CACHE_IMAGE_BYTES);
	ret->chunk = get(from + CHUNK_AT, 8);
	ret->len = (uint32_t)len;
	ret->used_ms = get(from + CACHE_ENTRY_USED_AT, CACHE_ENTRY_USED_BYTES);
	memcpy(ret->hash, from + HASHES_AT, sizeof(ret->hash));
	return true;
}

int cache_bucket_find(struct zst_hasher *h, const unsigned char from[static CACHE_BUCKET_BYTES],
		      const unsigned char *image, uint64_t chunk, uint64_t now_ms,
		      struct cache_entry *ret, unsigned *ret_victim, bool *ret_evicts)
{
	uint64_t oldest = 0;
	bool empty = false;

	*ret_victim = 0;
	for (unsigned way = 0; way < CACHE_WAYS; way++) {
		const unsigned char *at = from + way * CACHE_ENTRY_BYTES;
		/* A time to come is one of before the host was started: wraps, and is old. */
		uint64_t age = now_ms - get(at + CACHE_ENTRY_USED_AT, CACHE_ENTRY_USED_BYTES);

		if (memcmp(at, image, CACHE_IMAGE_BYTES) == 0 && get(at + CHUNK_AT, 8) == chunk &&
		    cache_entry_read(h, at, ret)) {
			*ret_victim = way;
			*ret_evicts = false;
			return (int)way;
		}
		if (empty)
			continue;
		empty = get(at + LEN_AT, 4) == 0;
		if (empty || age >= oldest) {
			*ret_victim = way;
			oldest = age;
		}
	}
	*ret_evicts = !empty;
	return -1;
}
