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

static void offsets_count_ram_without_holes(void **state)
{
	struct ram r = pc();
	roff_t off;

	(void)state;
	assert_int_equal(r.bytes, 0xa0000 + 0x200000 + 0x100000);
	assert_true(ram_find(&r, (gpa_t){0x9ffff}, 1, &off));
	assert_int_equal(off.v, 0x9ffff);
	assert_true(ram_find(&r, (gpa_t){0x100000}, 1, &off));
	assert_int_equal(off.v, 0xa0000);
	assert_true(ram_find(&r, (gpa_t){0x100000123}, 8, &off));
	assert_int_equal(off.v, 0x2a0123);
}

static void gpa_and_offset_are_inverse(void **state)
{
	struct ram r = pc();

	(void)state;
	for (uint64_t at = 0; at < r.bytes; at += 0xfff) {
		roff_t off;

		assert_true(ram_find(&r, ram_gpa(&r, (roff_t){at}), 1, &off));
		assert_int_equal(off.v, at);
	}
	assert_int_equal(ram_gpa(&r, (roff_t){0xa0000}).v, 0x100000);
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
	struct ram r = {0};

	(void)state;
	for (unsigned i = 0; i < RAM_REGIONS_MAX; i++)
		assert_int_equal(region(&r, i * 0x10000, 0x1000), RAM_ADDED);
	assert_int_equal(region(&r, 0x900000, 0x1000), RAM_FULL);
	assert_int_equal(r.bytes, RAM_REGIONS_MAX * 0x1000);
}

static void backings_cover_what_they_were_given(void **state)
{
	struct ram r = pc();

	(void)state;
	assert_int_equal(backing(&r, 0x101000, 0x2800, 0x7000), RAM_ADDED);
	assert_null(ram_backing_at(&r, (roff_t){0xa0fff}));
	assert_ptr_equal(ram_backing_at(&r, (roff_t){0xa1000}), &r.backings[0]);
	assert_ptr_equal(ram_backing_at(&r, (roff_t){0xa37ff}), &r.backings[0]);
	assert_null(ram_backing_at(&r, (roff_t){0xa3800}));
	assert_int_equal(r.backings[0].roff.v, 0xa1000);
	assert_int_equal(r.backings[0].src_offset, 0x7000);
	assert_int_equal(grace_ns(&r.backings[0].grace), GRACE_WORTH_NS);
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
	struct ram r = pc();

	(void)state;
	for (unsigned i = 0; i < RAM_BACKINGS_MAX; i++)
		assert_int_equal(backing(&r, i * 0x1000, 0x1000, 0), RAM_ADDED);
	assert_int_equal(backing(&r, 0x50000, 0x1000, 0), RAM_FULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offsets_count_ram_without_holes),
		cmocka_unit_test(gpa_and_offset_are_inverse),
		cmocka_unit_test(find_refuses_holes_and_what_reaches_into_them),
		cmocka_unit_test(region_refusals),
		cmocka_unit_test(regions_are_limited),
		cmocka_unit_test(backings_cover_what_they_were_given),
		cmocka_unit_test(backing_refusals),
		cmocka_unit_test(a_block_belongs_to_one_backing),
		cmocka_unit_test(backings_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
