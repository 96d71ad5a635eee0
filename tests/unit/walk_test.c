/* SPDX-License-Identifier: Apache-2.0 */
/* src/base/walk.c: which memory an instruction is fetched through, in each paging mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/types.h"
#include "base/walk.h"

#define RAM (1ull << 20)
#define P 1ull
#define LARGE (1ull << 7)
#define NO_EXECUTE (1ull << 63) /* no part of the address */
#define LMA (1ull << 10)
#define PAE (1ull << 5)
#define PSE (1ull << 4)
#define LA57 (1ull << 12)

static unsigned char ram[RAM];

static bool read_ram(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret)
{
	(void)ctx;
	*ret = 0;
	if (gpa.v > RAM - len)
		return false;
	memcpy(ret, ram + gpa.v, len);
	return true;
}

static void put(uint64_t gpa, uint64_t entry, unsigned len)
{
	memcpy(ram + gpa, &entry, len);
}

static void expect(const struct cpu_state *cpu, const uint64_t *want, unsigned n)
{
	gpa_t got[WALK_MAX];

	assert_int_equal(walk_instruction(cpu, read_ram, NULL, got), n);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(got[i].v, want[i]);
}

static int clear(void **state)
{
	(void)state;
	memset(ram, 0, sizeof(ram));
	return 0;
}

static void four_levels(void **state)
{
	const uint64_t ip = 0xffffffff81234567;
	const struct cpu_state cpu = {
		.paging = true, .ip = ip, .cr3 = 0x1000, .cr4 = PAE, .efer = LMA};
	uint64_t want[] = {0x1000 + 511 * 8, 0x2000 + 510 * 8, 0x3000 + 9 * 8, 0x4000 + 52 * 8,
			   0x9567};

	(void)state;
	put(want[0], 0x2000 | P, 8);
	put(want[1], 0x3000 | P, 8);
	put(want[2], 0x4000 | P, 8);
	put(want[3], 0x9000 | P | NO_EXECUTE, 8);
	expect(&cpu, want, 5);
	/* A 2 MiB page, then a 1 GiB page. */
	put(want[2], 0x600000 | P | LARGE, 8);
	want[3] = 0x600000 + (ip & 0x1fffff);
	expect(&cpu, want, 4);
	put(want[1], 0x40000000 | P | LARGE, 8);
	want[2] = 0x40000000 + (ip & 0x3fffffff);
	expect(&cpu, want, 3);
	/* Not present, and a table that is no memory: as far as one gets. */
	put(want[0], 0x2000, 8);
	expect(&cpu, want, 1);
	put(want[0], 0x80000000 | P, 8);
	expect(&cpu, want, 1);
}

static void five_levels(void **state)
{
	const struct cpu_state cpu = {.paging = true, .ip = 0x00ff000000000123, .cr3 = 0x1fff,
				      .cr4 = PAE | LA57, .efer = LMA};
	uint64_t want[] = {0x1000 + 255 * 8, 0x2000, 0x3000, 0x4000, 0x5000, 0x6123};

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		put(want[i], (0x2000 + i * 0x1000) | P, 8);
	expect(&cpu, want, 6);
}

static void an_instruction_across_two_pages(void **state)
{
	const struct cpu_state cpu = {
		.paging = true, .ip = 0x1ffa, .cr3 = 0x1000, .cr4 = PAE, .efer = LMA};
	const uint64_t want[] = {0x1000, 0x2000, 0x3000, 0x4008, 0x5ffa,
				 0x1000, 0x2000, 0x3000, 0x4010, 0x7008};

	(void)state;
	put(0x1000, 0x2000 | P, 8);
	put(0x2000, 0x3000 | P, 8);
	put(0x3000, 0x4000 | P, 8);
	put(0x4008, 0x5000 | P, 8);
	put(0x4010, 0x7000 | P, 8);
	expect(&cpu, want, 10);
}

static void thirty_two_bits(void **state)
{
	struct cpu_state cpu = {.paging = true, .ip = 0xc0101234, .cr3 = 0x1000};
	const uint64_t want[] = {0x1000 + 768 * 4, 0x2000 + 257 * 4, 0x8234};
	const uint64_t large[] = {0x1000 + 768 * 4, 0x400000 + 0x101234};
	const uint64_t above[] = {0x1000 + 768 * 4, 0xa500400000 + 0x101234};

	(void)state;
	put(want[0], 0x2000 | P | LARGE, 4); /* without PSE the bit means nothing */
	put(want[0] + 4, UINT32_MAX, 4); /* the next one's are no upper bits */
	put(want[1], 0x8000 | P, 4);
	expect(&cpu, want, 3);
	cpu.cr4 = PSE;
	put(want[0], 0x400000 | P | LARGE, 4);
	expect(&cpu, large, 2);
	/* PSE-36: bits 20:13 are 39:32 of the address, and bit 12 is none of it. */
	put(want[0], 0x400000 | 0xa5 << 13 | 1 << 12 | P | LARGE, 4);
	expect(&cpu, above, 2);
}

static void pae(void **state)
{
	const struct cpu_state cpu = {
		.paging = true, .ip = 0xc0001234, .cr3 = 0x1020, .cr4 = PAE};
	const uint64_t want[] = {0x1020 + 3 * 8, 0x2000, 0x3008, 0x8234};
	const uint64_t large[] = {0x1020 + 3 * 8, 0x2000, 0x601234};

	(void)state;
	put(want[0], 0x2000 | P, 8);
	put(want[1], 0x3000 | P, 8);
	put(want[2], 0x8000 | P, 8);
	expect(&cpu, want, 4);
	/* A 2 MiB page. */
	put(want[1], 0x600000 | P | LARGE, 8);
	expect(&cpu, large, 3);
}

static void without_paging(void **state)
{
	const struct cpu_state cpu = {.ip = 0xffff8};
	const uint64_t want[] = {0xffff8, 0x100006};

	(void)state;
	expect(&cpu, want, 2);
}

/* A table that points at itself ends where the levels do. */
static void hostile_tables(void **state)
{
	const struct cpu_state cpu = {.paging = true, .ip = 0xffa, .cr3 = UINT64_MAX,
				      .cr4 = PAE | LA57, .efer = LMA};
	gpa_t got[WALK_MAX];

	(void)state;
	assert_int_equal(walk_instruction(&cpu, read_ram, NULL, got), 0);
	put(0, 0 | P, 8);
	put(8, 0 | P, 8);
	assert_true(walk_instruction(&(struct cpu_state){.paging = true, .ip = 0xffa,
							 .cr4 = PAE | LA57, .efer = LMA},
				     read_ram, NULL, got) <= WALK_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(four_levels, clear),
		cmocka_unit_test_setup(five_levels, clear),
		cmocka_unit_test_setup(an_instruction_across_two_pages, clear),
		cmocka_unit_test_setup(thirty_two_bits, clear),
		cmocka_unit_test_setup(pae, clear),
		cmocka_unit_test_setup(without_paging, clear),
		cmocka_unit_test_setup(hostile_tables, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
