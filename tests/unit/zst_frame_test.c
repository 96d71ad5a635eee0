/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame: everything that is known of its content is checked, with and without a checksum in
 * the frame itself. The frames are libzstd's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "source/zst_frame.h"

#define PLAIN_BYTES 1000u
#define PACKED_ROOM 4096u

struct bed {
	ZSTD_DCtx *context;
	struct zst_hasher *hasher;
	unsigned char plain[PLAIN_BYTES], packed[PACKED_ROOM], got[PLAIN_BYTES];
	size_t packed_len;
	uint32_t sum;
	unsigned char hash[ZST_HASH_BYTES];
	struct err e;
};

/* Content that is stored as it is, so that a changed byte is a changed byte of it. */
static void bed_init(struct bed *b, bool checksum)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	uint32_t x = 1;

	assert_non_null(c);
	for (unsigned i = 0; i < PLAIN_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		b->plain[i] = (unsigned char)(x >> 24);
	}
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
	b->packed_len = ZSTD_compress2(c, b->packed, PACKED_ROOM, b->plain, PLAIN_BYTES);
	assert_false(ZSTD_isError(b->packed_len));
	ZSTD_freeCCtx(c);
	b->sum = (uint32_t)XXH64(b->plain, PLAIN_BYTES, 0);
	b->hasher = zst_hasher_open();
	assert_non_null(b->hasher);
	assert_int_equal(zst_hash(b->hasher, b->plain, PLAIN_BYTES, b->hash, &b->e), 0);
	b->context = ZSTD_createDCtx();
	assert_non_null(b->context);
}

static void bed_fini(struct bed *b)
{
	ZSTD_freeDCtx(b->context);
	zst_hasher_close(b->hasher);
}

static int decode(struct bed *b, uint32_t len, bool sum, bool hash)
{
	const struct zst_content want = {len, sum ? &b->sum : NULL, hash ? b->hash : NULL};

	memset(b->got, 0xee, sizeof(b->got));
	return zst_frame_decode(b->context, b->hasher, b->packed, b->packed_len, b->got, &want,
				&b->e);
}

static void refused(struct bed *b, bool sum, bool hash, const char *says)
{
	assert_int_equal(decode(b, PLAIN_BYTES, sum, hash), -EIO);
	print_message("%s\n", b->e.text);
	assert_non_null(strstr(b->e.text, says));
}

static void what_is_right_is_decoded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		struct bed b;

		bed_init(&b, i & 1);
		assert_int_equal(decode(&b, PLAIN_BYTES, i & 2, i & 4), 0);
		assert_memory_equal(b.got, b.plain, PLAIN_BYTES);
		bed_fini(&b);
	}
}

static void another_length_than_the_table_says(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b, true);
	assert_int_equal(decode(&b, PLAIN_BYTES - 1, false, false), -EIO);
	b.packed_len = ZSTD_compress(b.packed, PACKED_ROOM, b.plain, 10, 1);
	refused(&b, false, false, "it holds 10 bytes, and the seek table says 1000");
	bed_fini(&b);
}

/* A byte of the content is another one. */
static void changed_content(void **state)
{
	(void)state;
	for (int checksum = 0; checksum < 2; checksum++) {
		struct bed b;

		bed_init(&b, checksum);
		b.packed[b.packed_len - 100] ^= 1;
		if (checksum) {
			refused(&b, false, false, "checksum");
		} else {
			assert_int_equal(decode(&b, PLAIN_BYTES, false, false), 0);
			refused(&b, true, false, "and the seek table says");
		}
		bed_fini(&b);
	}
}

/* A whole and right frame, which is another one's. */
static void another_frame(void **state)
{
	(void)state;
	for (int checksum = 0; checksum < 2; checksum++) {
		struct bed b;

		bed_init(&b, checksum);
		b.sum ^= 1;
		refused(&b, true, false, "and the seek table says");
		b.sum ^= 1;
		b.hash[31] ^= 1;
		refused(&b, true, true, "has the SHA-256");
		bed_fini(&b);
	}
}

/* The checksum at the end is that of the last frame alone. */
static void two_frames_are_not_one(void **state)
{
	unsigned char last[PACKED_ROOM / 2];
	struct bed b;
	size_t n;

	(void)state;
	bed_init(&b, true);
	n = b.packed_len;
	assert_in_range(n, 1, sizeof(last));
	memcpy(last, b.packed, n);
	b.packed_len = ZSTD_compress(b.packed, PACKED_ROOM, b.plain, 0, 1);
	memcpy(b.packed + b.packed_len, last, n);
	b.packed_len += n;
	assert_int_equal(decode(&b, PLAIN_BYTES, true, true), 0);
	bed_fini(&b);
}

static void every_cut_and_every_byte(void **state)
{
	struct bed b;
	size_t whole;

	(void)state;
	bed_init(&b, true);
	whole = b.packed_len;
	for (b.packed_len = 0; b.packed_len < whole; b.packed_len++)
		assert_int_equal(decode(&b, PLAIN_BYTES, true, true), -EIO);
	for (size_t i = 0; i < whole; i++) {
		b.packed[i] ^= 0x55;
		if (decode(&b, PLAIN_BYTES, true, true) == 0)
			assert_memory_equal(b.got, b.plain, PLAIN_BYTES);
		b.packed[i] ^= 0x55;
	}
	bed_fini(&b);
}

/* FIPS 180-2's example. */
static void the_hash_is_sha_256(void **state)
{
	struct zst_hasher *h = zst_hasher_open();
	unsigned char hash[ZST_HASH_BYTES];
	char text[ZST_HASH_CHARS + 1];
	struct err e;

	(void)state;
	assert_int_equal(zst_hash(h, "abc", 3, hash, &e), 0);
	zst_hasher_close(h);
	zst_hash_text(hash, text);
	assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223"
				  "b00361a396177a9cb410ff61f20015ad");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_right_is_decoded),
		cmocka_unit_test(another_length_than_the_table_says),
		cmocka_unit_test(changed_content),
		cmocka_unit_test(another_frame),
		cmocka_unit_test(two_frames_are_not_one),
		cmocka_unit_test(every_cut_and_every_byte),
		cmocka_unit_test(the_hash_is_sha_256),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
