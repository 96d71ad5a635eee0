/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for the file of a shared cache: a head, and a bucket behind it. A layout that was
 * taken has its parts in the file one after the other; an entry that was taken has a length that a
 * chunk can have, and is the same when it is written again; a victim is one of the ways.
 */
#include "bytes.h"
#include "source/cache_format.h"

static void check_layout(const struct cache_layout *l)
{
	uint64_t last = l->buckets - 1;

	must(l->buckets > 0 && cache_file_bytes(l) <= CACHE_BYTES_MAX);
	must(cache_entry_at(l, last, CACHE_WAYS - 1) + CACHE_ENTRY_BYTES <= cache_slot_at(l, 0, 0));
	must(cache_slot_at(l, last, CACHE_WAYS - 1) + CACHE_CHUNK_BYTES == cache_file_bytes(l));
}

static void check_bucket(struct zst_hasher *h, const unsigned char *bucket)
{
	unsigned char again[CACHE_ENTRY_BYTES];
	struct cache_entry entry, found;
	unsigned victim = CACHE_WAYS;
	bool evicts;

	for (unsigned way = 0; way < CACHE_WAYS; way++) {
		const unsigned char *at = bucket + way * CACHE_ENTRY_BYTES;
		int where;

		if (!cache_entry_read(h, at, &entry))
			continue;
		must(entry.len > 0 && entry.len <= CACHE_CHUNK_BYTES);
		must(cache_grains(entry.len) <= CACHE_GRAINS);
		must(cache_entry_write(h, &entry, again) == 0);
		must(cache_entry_read(h, again, &found) && found.chunk == entry.chunk);
		where = cache_bucket_find(h, bucket, entry.image, entry.chunk, 1000, &found,
					  &victim, &evicts);
		must(where >= 0 && (unsigned)where <= way && victim == (unsigned)where && !evicts);
	}
	must(cache_bucket_find(h, bucket, (const unsigned char *)"another image..", 7, 1000, &found,
			       &victim, &evicts) >= -1);
	must(victim < CACHE_WAYS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char head[CACHE_HEAD_BYTES] = {0}, bucket[CACHE_BUCKET_BYTES] = {0};
	struct zst_hasher *h = zst_hasher_open();
	struct cache_layout l;

	must(h);
	memcpy(head, data, size < 64 ? size : 64);
	if (cache_head_read(h, head, &l) == 0)
		check_layout(&l);
	if (size > 64) {
		memcpy(bucket, data + 64,
		       size - 64 < sizeof(bucket) ? size - 64 : sizeof(bucket));
		check_bucket(h, bucket);
	}
	zst_hasher_close(h);
	return 0;
}
