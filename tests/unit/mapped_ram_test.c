/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's migration file: its blocks, with what may stand in front of a header; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "mapped_ram_make.h"

#define RAM_BYTES (400u * 4096u)
#define VRAM_BYTES (70u * 4096u)
#define TOTAL (RAM_BYTES + VRAM_BYTES)

static void make(struct mapped_made *m, unsigned extra)
{
	mapped_begin(m, TOTAL);
	mapped_block(m, "vga.vram", VRAM_BYTES, 0);
	mapped_block(m, "pc.ram", RAM_BYTES, extra);
	mapped_end(m);
}

static void refused(struct mapped_made *m, const char *says)
{
	struct mapped_ram r;
	struct err e;

	assert_int_equal(mapped_parse(m, &r, &e), -EINVAL);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, says));
}

/* With the page size and the address that some configurations write. */
static void blocks_are_found(void **state)
{
	(void)state;
	for (unsigned extra = 0; extra <= 2; extra++) {
		const struct mapped_ram_block *b;
		struct mapped_made m;
		struct mapped_ram r;
		struct err e;

		make(&m, extra);
		assert_true(mapped_ram_magic(m.at));
		assert_int_equal(mapped_parse(&m, &r, &e), 0);
		assert_int_equal(r.count, 2);
		b = mapped_ram_find(&r, NULL, &e);
		assert_string_equal(b->name, "pc.ram");
		assert_int_equal(b->bytes, RAM_BYTES);
		assert_int_equal(b->bitmap_bytes, 56);
		assert_int_equal(b->pages_at % 0x100000, 0);
		assert_int_equal(m.at[b->pages_at + 3 * 4096], 4);
		assert_ptr_equal(mapped_ram_find(&r, "vga.vram", &e), &r.blocks[0]);
		assert_null(mapped_ram_find(&r, "pc.rom", &e));
		assert_int_equal(e.code, -ENOENT);
		assert_string_equal(e.text, "it has no RAM block pc.rom; there are vga.vram, "
				    "pc.ram");
		mapped_ram_fini(&r);
		free(m.at);
	}
}

static void other_files(void **state)
{
	struct mapped_made m;

	(void)state;
	make(&m, 0);
	assert_false(mapped_ram_magic((const unsigned char *)"QEVM\0\0\0\2"));
	assert_false(mapped_ram_magic((const unsigned char *)"\0\0\0\0\0\0\0\0"));
	m.at[28] ^= 1; /* in the section's name */
	refused(&m, "whose RAM is not found");
	m.len = 8;
	refused(&m, "whose RAM is not found");
	free(m.at);
}

static void a_stream_that_is_not_mapped(void **state)
{
	struct mapped_made m;

	(void)state;
	/* A block's size, and then the pages follow, as without the capability. */
	mapped_begin(&m, VRAM_BYTES);
	mapped_text(&m, "pc.ram");
	mapped_put(&m, VRAM_BYTES, 8);
	m.len += 4096;
	refused(&m, "RAM block pc.ram has no place in the file of its own");
	free(m.at);
}

/* bytes at an offset in the last block's header become v, big-endian. */
static void changed(unsigned offset, unsigned bytes, uint64_t v, const char *says)
{
	struct mapped_made m;
	uint64_t len;

	make(&m, 0);
	len = m.len;
	m.len = m.header + offset;
	mapped_put(&m, v, bytes);
	m.len = len;
	refused(&m, says);
	free(m.at);
}

static void headers_that_cannot_be(void **state)
{
	(void)state;
	changed(0, 4, 2, "no place in the file");
	changed(4, 8, 4097, "no place in the file");
	changed(4, 8, 0, "no place in the file");
	changed(4, 8, 1ull << 40, "no place in the file");
	changed(12, 8, 0, "no place in the file");
	changed(20, 8, 0, "no place in the file");
	changed(20, 8, 0x100000 + 1, "no place in the file");
	changed(20, 8, 0xfffffffffffff000, "reach beyond its end");
	changed(20, 8, 7 << 20, "reach beyond its end");
}

static void cut_anywhere(void **state)
{
	struct mapped_made m;
	struct mapped_ram r;
	struct err e;
	uint64_t whole;

	(void)state;
	make(&m, 0);
	whole = m.len - 14;
	for (uint64_t len = 8; len < whole; len += len < 200 ? 1 : 4093) {
		m.len = len;
		assert_int_equal(mapped_parse(&m, &r, &e), -EINVAL);
	}
	free(m.at);
}

static void sums_and_names(void **state)
{
	struct mapped_made m;

	(void)state;
	mapped_begin(&m, TOTAL);
	mapped_block(&m, "pc.ram", VRAM_BYTES, 0);
	mapped_block(&m, "pc.ram", VRAM_BYTES, 0);
	refused(&m, "two RAM blocks pc.ram");
	free(m.at);
	mapped_begin(&m, VRAM_BYTES);
	mapped_block(&m, "pc.ram", RAM_BYTES, 0);
	refused(&m, "more than their sum");
	free(m.at);
	mapped_begin(&m, 0);
	refused(&m, "has no RAM");
	free(m.at);
	mapped_begin(&m, 1);
	refused(&m, "does not begin with its size");
	free(m.at);
}

/* A block of one page, right behind its header: QEMU leaves more room. */
static void small_block(struct mapped_made *m, unsigned i)
{
	char name[8];
	uint64_t pages_at;

	(void)snprintf(name, sizeof(name), "b%u", i);
	mapped_text(m, name);
	mapped_put(m, 4096, 8);
	pages_at = (m->len + 28 + 8 + 4095) & ~4095ull;
	mapped_put(m, 1, 4);
	mapped_put(m, 4096, 8);
	mapped_put(m, m->len + 16, 8);
	mapped_put(m, pages_at, 8);
	m->len = pages_at + 4096;
}

static void make_many(struct mapped_made *m, unsigned count)
{
	mapped_begin(m, count * 4096ull);
	for (unsigned i = 0; i < count; i++)
		small_block(m, i);
	mapped_end(m);
}

static void as_many_blocks_as_there_may_be(void **state)
{
	struct mapped_made m;
	struct mapped_ram r;
	struct err e = {0};

	(void)state;
	make_many(&m, MAPPED_RAM_BLOCKS_MAX);
	if (mapped_parse(&m, &r, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(r.count, 256);
	assert_string_equal(r.blocks[255].name, "b255");
	mapped_ram_fini(&r);
	free(m.at);
	make_many(&m, MAPPED_RAM_BLOCKS_MAX + 1);
	refused(&m, "more than 256 RAM blocks");
	free(m.at);
}

/* A block's pages may be larger, as on huge pages, up to 1 MiB, and no smaller than 1 KiB. */
static void pages_of_other_sizes(void **state)
{
	static const struct {
		uint64_t bytes;
		bool is_good;
	} all[] = {{512, false}, {1024, true}, {65536, true}, {1 << 20, true}, {2 << 20, false},
		   {3 * 4096, false}};

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct mapped_made m;
		struct mapped_ram r;
		struct err e;

		mapped_begin(&m, 2 << 20);
		mapped_block(&m, "pc.ram", 2 << 20, 0);
		for (unsigned k = 0; k < 8; k++)
			m.at[m.header + 4 + k] = (unsigned char)(all[i].bytes >> (8 * (7 - k)));
		mapped_end(&m);
		if (all[i].is_good) {
			assert_int_equal(mapped_parse(&m, &r, &e), 0);
			assert_int_equal(r.blocks[0].page_bytes, all[i].bytes);
			mapped_ram_fini(&r);
		} else {
			refused(&m, "no place in the file of its own");
		}
		free(m.at);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_found),
		cmocka_unit_test(other_files),
		cmocka_unit_test(a_stream_that_is_not_mapped),
		cmocka_unit_test(headers_that_cannot_be),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(sums_and_names),
		cmocka_unit_test(as_many_blocks_as_there_may_be),
		cmocka_unit_test(pages_of_other_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
