/* SPDX-License-Identifier: Apache-2.0 */
/* src/host/ram.c: regions, backings and the two ways between addresses and RAM offsets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/ram.h"

#define ALIGN 0x1000ull

static enum ram_add region(struct ram *r, uint64_t gpa, uint64_t bytes)
{
	return ram_add_region(r, (gpa_t){gpa}, bytes, ALIGN);
}

static enum ram_add backing(struct ram *r, uint64_t gpa, uint64_t bytes, uint64_t offset)
{
	static struct src src;

	return ram_add_backing(r, (gpa_t){gpa}, bytes, &src, offset, ALIGN);
}

/* 640 KiB, a hole, 2 MiB from 1 MiB on, a hole, 1 MiB at 4 GiB. */
static struct ram pc(void)
{
	struct ram r = {0};

	assert_int_equal(region(&r, 0, 0xa0000), RAM_ADDED);
	assert_int_equal(region(&r, 0x100000, 0x200000), RAM_ADDED);
	assert_int_equal(region(&r, 0x100000000, 0x100000), RAM_ADDED);
	return r;
}

static void each_region_begins_at_a_chunk(void **state)
{
	struct ram r = pc();
	roff_t off;

	(void)state;
	assert_int_equal(r.bytes, 0xa0000 + 0x200000 + 0x100000);
	assert_true(ram_find(&r, (gpa_t){0x9ffff}, 1, &off));
	assert_int_equal(off.v, 0x9ffff);
	assert_true(ram_find(&r, (gpa_t){0x100000}, 1, &off));
	assert_int_equal(off.v, CHUNK_BYTES);
	assert_true(ram_find(&r, (gpa_t){0x100000123}, 8, &off));
	assert_int_equal(off.v, 2 * CHUNK_BYTES + 0x123);
	assert_int_equal(r.end, 2 * CHUNK_BYTES + 0x100000);
}

static void gpa_and_offset_are_inverse(void **state)
{
	struct ram r = pc();

	(void)state;
	for (uint64_t at = 0; at < r.end; at += 0xfff) {
		roff_t off;

		if (at >= 0xa0000 && at < CHUNK_BYTES) {
			assert_null(ram_region_at(&r, (roff_t){at}));
			continue;
		}
		assert_true(ram_find(&r, ram_gpa(&r, (roff_t){at}), 1, &off));
		assert_int_equal(off.v, at);
	}
	assert_int_equal(ram_gpa(&r, (roff_t){CHUNK_BYTES}).v, 0x100000);
	assert_int_equal(ram_gpa(&r, (roff_t){0x9ffff}).v, 0x9ffff);
}

static void find_refuses_holes_and_what_reaches_into_them(void **state)
{
	struct ram r = pc();
	roff_t off = {77};

	(void)state;
	assert_false(ram_find(&r, (gpa_t){0xa0000}, 1, &off));
	assert_false(ram_find(&r, (gpa_t){0x9fff9}, 8, &off));
	assert_true(ram_find(&r, (gpa_t){0x9fff8}, 8, &off));
	assert_false(ram_find(&r, (gpa_t){0x300000}, 0, &off));
	assert_true(ram_find(&r, (gpa_t){0x2fffff}, 0, &off));
	assert_false(ram_find(&r, (gpa_t){0x100000}, 0x200001, &off));
	assert_true(ram_find(&r, (gpa_t){0x100000}, 0x200000, &off));
	off.v = 77;
	assert_false(ram_find(&r, (gpa_t){0x100008}, UINT64_MAX, &off));
	assert_false(ram_find(&r, (gpa_t){UINT64_MAX}, 1, &off));
	assert_int_equal(off.v, 77); /* untouched on refusal */
}

static void region_refusals(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(region(&r, 0x400000, 0), RAM_UNALIGNED);
	assert_int_equal(region(&r, 0x400800, 0x1000), RAM_UNALIGNED);
	assert_int_equal(region(&r, 0x400000, 0x1800), RAM_UNALIGNED);
	assert_int_equal(region(&r, UINT64_MAX - 0xfff, 0x2000), RAM_UNALIGNED);
	assert_int_equal(region(&r, 0x2ff000, 0x1000), RAM_OVERLAP);
	assert_int_equal(region(&r, 0xff000, 0x2000), RAM_OVERLAP);
	assert_int_equal(region(&r, 0xa0000, 0x70000), RAM_OVERLAP);
	assert_int_equal(r.region_count, 3);
	assert_int_equal(r.bytes, 0xa0000 + 0x200000 + 0x100000);
	assert_int_equal(region(&r, 0xa0000, 0x60000), RAM_ADDED); /* fits the hole exactly */
}

static void regions_are_limited(void **state)
{
	static struct ram_tables more;
	struct ram r = {0};

	(void)state;
	for (unsigned i = 0; i < RAM_REGIONS_INLINE; i++)
		assert_int_equal(region(&r, i * 0x10000, 0x1000), RAM_ADDED);
	assert_true(ram_needs_more(&r));
	assert_int_equal(region(&r, 0x9000000, 0x1000), RAM_FULL);
	ram_more(&r, &more);
	for (unsigned i = RAM_REGIONS_INLINE; i < RAM_REGIONS_MAX; i++)
		assert_int_equal(region(&r, i * 0x10000, 0x1000), RAM_ADDED);
	assert_int_equal(region(&r, 0x9000000, 0x1000), RAM_FULL);
	assert_int_equal(r.bytes, RAM_REGIONS_MAX * 0x1000);
	for (unsigned i = 0; i < RAM_REGIONS_MAX; i++) {
		assert_int_equal(ram_region(&r, i)->gpa.v, i * 0x10000);
		assert_int_equal(ram_gpa(&r, ram_region(&r, i)->roff).v, i * 0x10000);
	}
}

static void offsets_of_a_region_that_left_are_used_again(void **state)
{
	struct ram r = pc();
	roff_t off;

	(void)state;
	assert_false(ram_remove_region(&r, (gpa_t){0x101000}));
	assert_true(ram_remove_region(&r, (gpa_t){0x100000}));
	assert_false(ram_remove_region(&r, (gpa_t){0x100000}));
	assert_false(ram_find(&r, (gpa_t){0x100000}, 1, &off));
	assert_null(ram_region_at(&r, (roff_t){CHUNK_BYTES}));
	assert_int_equal(r.bytes, 0xa0000 + 0x100000);
	assert_int_equal(ram_gpa(&r, (roff_t){2 * CHUNK_BYTES}).v, 0x100000000);
	/* Too large for the gap, and just right. */
	assert_int_equal(region(&r, 0x400000, 0x201000), RAM_ADDED);
	assert_true(ram_find(&r, (gpa_t){0x400000}, 1, &off));
	assert_int_equal(off.v, 3 * CHUNK_BYTES);
	assert_int_equal(region(&r, 0x200000, 0x200000), RAM_ADDED);
	assert_true(ram_find(&r, (gpa_t){0x200000}, 1, &off));
	assert_int_equal(off.v, CHUNK_BYTES);
	assert_true(ram_remove_region(&r, (gpa_t){0x400000}));
	assert_int_equal(r.end, 2 * CHUNK_BYTES + 0x100000);
}

/* Fetches hold on to a backing while others come and go, and when the tables grow. */
static void backings_stay_where_they_are(void **state)
{
	static struct ram_tables more;
	struct ram r = pc();
	struct ram_backing *low, *high;
	roff_t off;

	(void)state;
	assert_int_equal(backing(&r, 0x100000, 0x1000, 0), RAM_ADDED);
	assert_int_equal(backing(&r, 0x100000000, 0x1000, 0x5000), RAM_ADDED);
	assert_true(ram_find(&r, (gpa_t){0x100000000}, 1, &off));
	high = ram_backing_at(&r, off);
	assert_int_equal(backing(&r, 0, 0x1000, 0x9000), RAM_ADDED);
	low = ram_backing_at(&r, (roff_t){0});
	assert_int_equal(low->src_offset, 0x9000);
	ram_more(&r, &more);
	assert_true(ram_remove_region(&r, (gpa_t){0x100000}));
	assert_int_equal(r.backing_count, 2);
	assert_ptr_equal(ram_backing_at(&r, off), high);
	assert_int_equal(high->src_offset, 0x5000);
	assert_ptr_equal(ram_backing_at(&r, (roff_t){0}), low);
	assert_ptr_equal(ram_backing(&r, 1), high);
}

static void backings_cover_what_they_were_given(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(backing(&r, 0x101000, 0x2800, 0x7000), RAM_ADDED);
	assert_null(ram_backing_at(&r, (roff_t){CHUNK_BYTES + 0xfff}));
	assert_ptr_equal(ram_backing_at(&r, (roff_t){CHUNK_BYTES + 0x1000}), &r.inline_backings[0]);
	assert_ptr_equal(ram_backing_at(&r, (roff_t){CHUNK_BYTES + 0x37ff}), &r.inline_backings[0]);
	assert_null(ram_backing_at(&r, (roff_t){CHUNK_BYTES + 0x3800}));
	assert_int_equal(r.inline_backings[0].roff.v, CHUNK_BYTES + 0x1000);
	assert_int_equal(r.inline_backings[0].src_offset, 0x7000);
	assert_int_equal(grace_ns(&r.inline_backings[0].grace), GRACE_WORTH_NS);
}

static void a_backing_leaves_alone(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(backing(&r, 0, 0x1000, 0), RAM_ADDED);
	assert_int_equal(backing(&r, 0x1000, 0x1000, 0x1000), RAM_ADDED);
	assert_int_equal(backing(&r, 0x2000, 0x1000, 0x2000), RAM_ADDED);
	ram_remove_backing(&r, (gpa_t){0x1000}, 0x1000);
	assert_int_equal(r.backing_count, 2);
	assert_null(ram_backing_at(&r, (roff_t){0x1000}));
	assert_int_equal(ram_backing_at(&r, (roff_t){0xfff})->src_offset, 0);
	assert_int_equal(ram_backing_at(&r, (roff_t){0x2000})->src_offset, 0x2000);
	assert_int_equal(backing(&r, 0x1000, 0x1000, 0x5000), RAM_ADDED);
	assert_int_equal(ram_backing_at(&r, (roff_t){0x1000})->src_offset, 0x5000);
}

static void backing_refusals(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(backing(&r, 0x100000, 0, 0), RAM_UNALIGNED);
	assert_int_equal(backing(&r, 0x100800, 0x1000, 0), RAM_UNALIGNED);
	assert_int_equal(backing(&r, 0x9f000, 0x2000, 0), RAM_OUTSIDE);
	assert_int_equal(backing(&r, 0xb0000, 0x1000, 0), RAM_OUTSIDE);
	/* Offsets within the source must not wrap around: they would read another page. */
	assert_int_equal(backing(&r, 0x100000, 0x2000, UINT64_MAX - 0xfff), RAM_UNALIGNED);
	assert_int_equal(r.backing_count, 0);
}

static void a_block_belongs_to_one_backing(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(backing(&r, 0x100000, 0x1800, 0), RAM_ADDED);
	assert_int_equal(backing(&r, 0x101000, 0x1000, 0), RAM_OVERLAP);
	assert_int_equal(backing(&r, 0x102000, 0x1000, 0), RAM_ADDED);
	/* One that ends within another's first block. */
	assert_int_equal(backing(&r, 0x0, 0x1000, 0), RAM_ADDED);
	assert_int_equal(backing(&r, 0x0, 0x800, 0), RAM_OVERLAP);
	assert_int_equal(r.backing_count, 3);
}

static void backings_are_limited(void **state)
{
	static struct ram_tables more;
	struct ram r = {0};

	(void)state;
	assert_int_equal(region(&r, 0, 0x1000000), RAM_ADDED);
	for (unsigned i = 0; i < RAM_BACKINGS_MAX; i++) {
		if (i == RAM_BACKINGS_INLINE) {
			assert_int_equal(backing(&r, i * 0x1000, 0x1000, i), RAM_FULL);
			ram_more(&r, &more);
		}
		assert_int_equal(backing(&r, i * 0x1000, 0x1000, i), RAM_ADDED);
	}
	assert_int_equal(backing(&r, 0x900000, 0x1000, 0), RAM_FULL);
	for (unsigned i = 0; i < RAM_BACKINGS_MAX; i++)
		assert_int_equal(ram_backing_at(&r, (roff_t){i * 0x1000})->src_offset, i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_region_begins_at_a_chunk),
		cmocka_unit_test(gpa_and_offset_are_inverse),
		cmocka_unit_test(find_refuses_holes_and_what_reaches_into_them),
		cmocka_unit_test(region_refusals),
		cmocka_unit_test(regions_are_limited),
		cmocka_unit_test(offsets_of_a_region_that_left_are_used_again),
		cmocka_unit_test(backings_stay_where_they_are),
		cmocka_unit_test(backings_cover_what_they_were_given),
		cmocka_unit_test(a_backing_leaves_alone),
		cmocka_unit_test(backing_refusals),
		cmocka_unit_test(a_block_belongs_to_one_backing),
		cmocka_unit_test(backings_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
