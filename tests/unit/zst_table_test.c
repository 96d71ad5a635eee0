/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seek table: what is right is read as it is, by somebody else's writer and by ours; what
 * cannot be is refused by its reason, before memory is taken for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "base/types.h"
#include "source/zst_table.h"
#include "zst_make.h"

#define FRAMES_MAX 16u

struct parsed {
	struct zst_footer foot;
	struct zst_table table;
	uint64_t packed[FRAMES_MAX + 1], plain[FRAMES_MAX + 1];
	uint32_t sums[FRAMES_MAX + 1];
	struct err e;
};

/* Of a whole file. 0 or -Exxx. */
static int parse(const unsigned char *at, size_t size, struct parsed *p)
{
	int rc;

	memset(p, 0, sizeof(*p));
	rc = zst_footer_parse(at + size - ZST_FOOTER_BYTES, size, &p->foot, &p->e);
	if (rc < 0)
		return rc;
	assert_true(p->foot.frames <= FRAMES_MAX && p->foot.table_bytes <= size);
	p->table = (struct zst_table){
		.packed = p->packed, .plain = p->plain, .sums = p->foot.checksums ? p->sums : NULL};
	return zst_table_parse(at + size - p->foot.table_bytes, &p->foot, size, &p->table, &p->e);
}

static void refused(const unsigned char *at, size_t size, int code, const char *says)
{
	struct parsed p;

	assert_int_equal(parse(at, size, &p), code);
	print_message("%s\n", p.e.text);
	assert_non_null(strstr(p.e.text, says));
}

/* Three frames of 100, 0 and 50 bytes, of which the second is skippable. */
static void make(struct zst_made *z, bool sums)
{
	static const unsigned char skippable[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7};
	unsigned char plain[150];

	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = (unsigned char)(i * i);
	zst_begin(z, sums);
	zst_frame(z, plain, 100);
	z->at = realloc(z->at, z->len + sizeof(skippable));
	assert_non_null(z->at);
	memcpy(z->at + z->len, skippable, sizeof(skippable));
	z->len += sizeof(skippable);
	zst_entry(z, sizeof(skippable), "", 0);
	zst_frame(z, plain + 100, 50);
	zst_finish(z);
}

static unsigned char *from_end(struct zst_made *z, size_t bytes)
{
	return z->at + z->len - bytes;
}

static void what_is_right_is_read(void **state)
{
	(void)state;
	for (int sums = 0; sums < 2; sums++) {
		struct zst_made z;
		struct parsed p;

		make(&z, sums);
		assert_int_equal(parse(z.at, z.len, &p), 0);
		assert_int_equal(p.foot.frames, 3);
		assert_int_equal(p.foot.checksums, sums);
		assert_int_equal(p.plain[1], 100);
		assert_int_equal(p.plain[2], 100);
		assert_int_equal(p.plain[3], 150);
		assert_int_equal(p.packed[2] - p.packed[1], 9);
		assert_int_equal(p.packed[3] + p.foot.table_bytes, z.len);
		/* Bits 0 and 1 have no meaning. */
		from_end(&z, 5)[0] |= 3;
		assert_int_equal(parse(z.at, z.len, &p), 0);
		zst_free(&z);
	}
}

/* An empty frame holds no byte, wherever it stands. */
static void the_frame_of_a_byte(void **state)
{
	uint64_t packed[] = {0, 1, 2, 3, 4, 5}, plain[] = {0, 0, 100, 100, 150, 150};
	const struct zst_table t = {5, packed, plain, NULL};

	(void)state;
	assert_int_equal(zst_table_find(&t, 0), 1);
	assert_int_equal(zst_table_find(&t, 99), 1);
	assert_int_equal(zst_table_find(&t, 100), 3);
	assert_int_equal(zst_table_find(&t, 149), 3);
}

static void ours_is_as_the_description_says(void **state)
{
	unsigned char ours[8 + 3 * 12 + 9];
	struct zst_made z;
	struct parsed p;
	size_t len;

	(void)state;
	make(&z, true);
	assert_int_equal(parse(z.at, z.len, &p), 0);
	len = zst_table_head(ours, 3);
	for (unsigned i = 0; i < 3; i++)
		len += zst_table_entry(ours + len, (uint32_t)(p.packed[i + 1] - p.packed[i]),
				       (uint32_t)(p.plain[i + 1] - p.plain[i]), p.sums[i]);
	len += zst_table_foot(ours + len, 3);
	assert_int_equal(len, sizeof(ours));
	assert_memory_equal(ours, from_end(&z, sizeof(ours)), sizeof(ours));
	zst_free(&z);
}

static void footers_that_cannot_be(void **state)
{
	struct zst_made z;

	(void)state;
	make(&z, true);
	for (unsigned bit = 2; bit < 7; bit++) {
		from_end(&z, 5)[0] = (unsigned char)(0x80 | 1u << bit);
		refused(z.at, z.len, -EINVAL, "nobody has defined yet");
	}
	from_end(&z, 5)[0] = 0x80;
	/* More than the format allows; and so many that twelve times as many do not fit. */
	for (uint32_t i = 0; i < 3; i++) {
		const uint32_t counts[] = {ZST_FRAMES_MAX + 1, 0x15555556u, UINT32_MAX};

		zst_put(from_end(&z, 9), counts[i]);
		refused(z.at, z.len, -EINVAL, "the format allows");
	}
	zst_put(from_end(&z, 9), ZST_FRAMES_MAX);
	refused(z.at, z.len, -EINVAL, "longer than the file");
	zst_put(from_end(&z, 9), 4);
	refused(z.at, z.len, -EINVAL, "does not begin where its end says");
	zst_put(from_end(&z, 9), 2);
	refused(z.at, z.len, -EINVAL, "does not begin where its end says");
	zst_put(from_end(&z, 9), 3);
	from_end(&z, 1)[0] ^= 1;
	refused(z.at, z.len, -EINVAL, "does not end with a seek table");
	zst_free(&z);
}

static void heads_that_cannot_be(void **state)
{
	const size_t table = 17 + 3 * 12;
	struct zst_made z;

	(void)state;
	make(&z, true);
	from_end(&z, table)[0] ^= 1;
	refused(z.at, z.len, -EINVAL, "does not begin where its end says");
	from_end(&z, table)[0] ^= 1;
	from_end(&z, table - 4)[0] ^= 1;
	refused(z.at, z.len, -EINVAL, "does not begin where its end says");
	zst_free(&z);
}

/* A part of the file before the table is gone, or there is more of it. */
static void sums_that_do_not_fit(void **state)
{
	const size_t entries = 9 + 3 * 12;
	struct zst_made z;

	(void)state;
	make(&z, true);
	refused(z.at + 1, z.len - 1, -EINVAL, "cut short, or was changed");
	zst_put(from_end(&z, entries), UINT32_MAX);
	refused(z.at, z.len, -EINVAL, "cut short, or was changed");
	zst_free(&z);
}

static void frames_that_are_too_large(void **state)
{
	const size_t entries = 9 + 3 * 12;
	struct zst_made z;
	struct parsed p;

	(void)state;
	make(&z, true);
	zst_put(from_end(&z, entries - 4), ZST_FRAME_BYTES_MAX);
	assert_int_equal(parse(z.at, z.len, &p), 0);
	zst_put(from_end(&z, entries - 4), ZST_FRAME_BYTES_MAX + 1);
	refused(z.at, z.len, -EFBIG, "frame 0 holds 67108865 bytes");
	zst_put(from_end(&z, entries - 4), UINT32_MAX);
	refused(z.at, z.len, -EFBIG, "frame 0 holds 4294967295 bytes");
	zst_free(&z);
}

static void empty_files(void **state)
{
	struct zst_made z;

	(void)state;
	zst_begin(&z, true);
	zst_finish(&z);
	refused(z.at, z.len, -EINVAL, "it is empty");
	zst_free(&z);
	zst_begin(&z, false);
	zst_frame(&z, "", 0);
	zst_finish(&z);
	refused(z.at, z.len, -EINVAL, "it is empty");
	zst_free(&z);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_right_is_read),
		cmocka_unit_test(the_frame_of_a_byte),
		cmocka_unit_test(ours_is_as_the_description_says),
		cmocka_unit_test(footers_that_cannot_be),
		cmocka_unit_test(heads_that_cannot_be),
		cmocka_unit_test(sums_that_do_not_fit),
		cmocka_unit_test(frames_that_are_too_large),
		cmocka_unit_test(empty_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
