/* SPDX-License-Identifier: Apache-2.0 */
/* See zst_table.h. */
#include "source/zst_table.h"

#include <errno.h>

#define SEEKABLE_MAGIC 0x8f92eab1u
#define TABLE_MAGIC 0x184d2a5eu /* of the skippable frame that the table is */
#define TABLE_HEADER_BYTES 8u
#define FLAG_CHECKSUMS 0x80u
#define FLAGS_RESERVED 0x7cu

static uint32_t u32_at(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
	       (uint32_t)at[3] << 24;
}

static size_t put_u32(unsigned char *to, uint32_t x)
{
	for (unsigned i = 0; i < 4; i++)
		to[i] = (unsigned char)(x >> (8 * i));
	return 4;
}

static uint32_t entry_bytes(const struct zst_footer *f)
{
	return f->checksums ? 12 : 8;
}

int zst_footer_parse(const unsigned char *at, uint64_t size, struct zst_footer *ret, struct err *e)
{
	if (u32_at(at + 5) != SEEKABLE_MAGIC)
		return err_set(e, -EINVAL, "it does not end with a seek table; 'asyncpf image "
			       "pack' "
			       "makes a file that does");
	if (at[4] & FLAGS_RESERVED)
		return err_set(e, -EINVAL, "its seek table has flags 0x%02x, which nobody has "
			       "defined yet", at[4]);
	ret->frames = u32_at(at);
	ret->checksums = at[4] & FLAG_CHECKSUMS;
	if (ret->frames > ZST_FRAMES_MAX)
		return err_set(e, -EINVAL, "its seek table tells of %u frames; the format allows "
			       "%u",
			       ret->frames, ZST_FRAMES_MAX);
	ret->table_bytes = TABLE_HEADER_BYTES + (uint64_t)ret->frames * entry_bytes(ret) +
			   ZST_FOOTER_BYTES;
	if (ret->table_bytes > size)
		return err_set(e, -EINVAL, "its seek table is said to be longer than the file");
	return 0;
}

static int parse_entries(const unsigned char *at, const struct zst_footer *f,
			 struct zst_table *t, struct err *e)
{
	uint64_t packed = 0, plain = 0;

	for (uint32_t i = 0; i < f->frames; i++, at += entry_bytes(f)) {
		uint32_t len = u32_at(at + 4);

		if (len > ZST_FRAME_BYTES_MAX)
			return err_set(e, -EFBIG, "frame %u holds %u bytes, and at most %u can be "
				       "read; pack it anew with smaller frames", i, len,
				       ZST_FRAME_BYTES_MAX);
		t->packed[i] = packed;
		t->plain[i] = plain;
		if (t->sums)
			t->sums[i] = u32_at(at + 8);
		packed += u32_at(at);
		plain += len;
	}
	t->packed[f->frames] = packed;
	t->plain[f->frames] = plain;
	t->frames = f->frames;
	return 0;
}

int zst_table_parse(const unsigned char *at, const struct zst_footer *f, uint64_t size,
		    struct zst_table *t, struct err *e)
{
	uint64_t start = size - f->table_bytes;
	int rc;

	if (u32_at(at) != TABLE_MAGIC ||
	    u32_at(at + 4) != f->table_bytes - TABLE_HEADER_BYTES)
		return err_set(e, -EINVAL, "its seek table does not begin where its end says");
	rc = parse_entries(at + TABLE_HEADER_BYTES, f, t, e);
	if (rc < 0)
		return rc;
	if (t->packed[t->frames] != start)
		return err_set(e, -EINVAL, "its seek table tells of %llu bytes in front of it, "
			       "and there are %llu: the file is cut short, or was changed",
			       (unsigned long long)t->packed[t->frames], (unsigned long long)start);
	if (t->plain[t->frames] == 0)
		return err_set(e, -EINVAL, "it is empty");
	return 0;
}

size_t zst_table_head(unsigned char *to, uint32_t frames)
{
	size_t len = put_u32(to, TABLE_MAGIC);

	return len + put_u32(to + len, frames * ZST_ENTRY_BYTES_MAX + ZST_FOOTER_BYTES);
}

size_t zst_table_entry(unsigned char *to, uint32_t packed, uint32_t plain, uint32_t sum)
{
	size_t len = put_u32(to, packed);

	len += put_u32(to + len, plain);
	return len + put_u32(to + len, sum);
}

size_t zst_table_foot(unsigned char *to, uint32_t frames)
{
	size_t len = put_u32(to, frames);

	to[len++] = FLAG_CHECKSUMS;
	return len + put_u32(to + len, SEEKABLE_MAGIC);
}

uint32_t zst_table_find(const struct zst_table *t, uint64_t offset)
{
	uint32_t low = 0, high = t->frames;

	/* The last frame that begins at or below offset: an empty one in front of it does, too. */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (t->plain[middle] <= offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}
