/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/boot/load_pvh.c: the start info, map and modules that the kernel finds, the entry state, and
 * files with each thing wrong. Measured by Xen's start_info.h and pvh.pandoc.
 */
#include "load_fixture.h"

static int setup(void **state)
{
	struct fx *f = fx_open();

	image_pvh(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fx_close(*state);
	return 0;
}

static void test_entry(void **state)
{
	struct fx *f = *state;
	const struct kvmp_entry *en = &f->ret.entry;

	for (int is_64 = 0; is_64 < 2; is_64++) {
		image_pvh(f, is_64);
		assert_int_equal(fx_load(f), 0);
		fx_sound(f);
		assert_int_equal(f->ret.kind, LOAD_PVH);
		assert_int_equal(f->ret.kernel_start, ELF_LOAD);
		assert_int_equal(f->ret.kernel_end, ELF_LOAD + ELF_MEM_BYTES);
		assert_int_equal(en->mode, KVMP_PROTECTED);
		assert_int_equal(en->rip, PVH_ENTRY);
		assert_int_equal(en->rbx, LOAD_INFO_GPA);
		assert_int_equal(get64(f->ram.bytes, en->gdt.v + en->code_selector),
				 0x00cf9b000000ffff);
		assert_memory_equal(f->ram.bytes + ELF_LOAD, f->image, ELF_FILE_BYTES);
	}
}

static void test_start_info(void **state)
{
	struct fx *f = *state;
	const unsigned char *i = f->ram.bytes + LOAD_INFO_GPA;
	const unsigned char *map;

	f->ram.mem.high_bytes = 1 << 30;
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(get32(i, 0), 0x336ec578);
	assert_int_equal(get32(i, 4), 1);
	assert_int_equal(get32(i, 8), 0);
	assert_int_equal(get32(i, 12), 0);
	assert_int_equal(get64(i, 16), 0);
	assert_string_equal((char *)f->ram.bytes + get64(i, 24), "console=ttyS0 quiet");
	assert_int_equal(get64(i, 32), 0xe0000);
	assert_int_equal(get32(i, 48), 4);
	map = f->ram.bytes + get64(i, 40);
	assert_int_equal(get64(map, 0), 0);
	assert_int_equal(get64(map, 8), 0x9fc00);
	assert_int_equal(get32(map, 16), 1);
	assert_int_equal(get64(map, 48), 0x100000);
	assert_int_equal(get64(map, 56), RAM_BYTES - 0x100000);
	assert_int_equal(get64(map, 72), 1ull << 32);
	assert_int_equal(get64(map, 80), 1 << 30);
}

static void test_modules(void **state)
{
	struct fx *f = *state;
	const unsigned char *i = f->ram.bytes + LOAD_INFO_GPA;
	unsigned char bytes[2][5000];
	const unsigned char *m;

	image_noise(bytes[0], sizeof(bytes));
	f->cfg.modules[0] = (struct load_bytes){"a/one", bytes[0], 5000};
	f->cfg.modules[1] = (struct load_bytes){"two", bytes[1], 4096};
	f->cfg.modules_count = 2;
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	assert_int_equal(get32(i, 12), 2);
	m = f->ram.bytes + get64(i, 16);
	assert_int_equal(get64(m, 0), RAM_BYTES - 0x3000);
	assert_int_equal(get64(m, 8), 5000);
	assert_string_equal((char *)f->ram.bytes + get64(m, 16), "a/one");
	assert_int_equal(get64(m, 32), RAM_BYTES - 0x1000);
	assert_int_equal(get64(m, 40), 4096);
	assert_string_equal((char *)f->ram.bytes + get64(m, 48), "two");
	assert_memory_equal(f->ram.bytes + RAM_BYTES - 0x3000, bytes[0], 5000);
	assert_memory_equal(f->ram.bytes + RAM_BYTES - 0x1000, bytes[1], 4096);
}

static void test_modules_at_the_limits(void **state)
{
	struct fx *f = *state;
	size_t room = RAM_BYTES - ELF_LOAD - ELF_MEM_BYTES;
	unsigned char *bytes = calloc(1, room + 1);
	unsigned char one[1] = {1};

	assert_non_null(bytes);
	f->cfg.modules[0] = (struct load_bytes){"m", bytes, room};
	f->cfg.modules_count = 1;
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	f->cfg.modules[0].len = room + 1;
	fx_refused(f, -ENOMEM, "m: 7331841 bytes do not fit");
	f->cfg.modules[0].len = SIZE_MAX;
	fx_refused(f, -ENOMEM, "do not fit");
	/* The most modules that there may be, and one more. */
	for (unsigned n = 0; n < LOAD_MODULES_MAX; n++)
		f->cfg.modules[n] = (struct load_bytes){"m", one, 1};
	f->cfg.modules_count = LOAD_MODULES_MAX;
	assert_int_equal(fx_load(f), 0);
	f->cfg.modules_count++;
	fx_refused(f, -EINVAL, "17 modules; at most 16");
	free(bytes);
}

static void test_cmdline_limit(void **state)
{
	struct fx *f = *state;
	char *line = calloc(1, 0x10001);

	assert_non_null(line);
	memset(line, 'a', 0xffff);
	f->cfg.cmdline = line;
	assert_int_equal(fx_load(f), 0);
	line[0xffff] = 'a';
	fx_refused(f, -E2BIG, "command line of 65536 bytes; there is room for 65535");
	free(line);
	f->cfg.cmdline = NULL;
	assert_int_equal(fx_load(f), 0);
}

static void test_entry_point_of_wrong_width(void **state)
{
	struct fx *f = *state;

	for (uint32_t len = 0; len <= 16; len++) {
		image_elf(f, true);
		image_add_note(f, 18, "\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0", len);
		if (len == 4 || len == 8)
			assert_int_equal(fx_load(f), 0);
		else
			fx_refused(f, -ENOEXEC, "bytes, not 4 or 8");
	}
}

static void test_entry_point_outside(void **state)
{
	static const uint64_t entries[] = {0, ELF_LOAD - 1, ELF_LOAD + ELF_MEM_BYTES,
					   ELF_LOAD + (1ull << 32), UINT64_MAX};
	struct fx *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		image_elf(f, true);
		image_add_note(f, 18, &entries[i], 8);
		fx_refused(f, -ENOEXEC, "is not in it (0x100000 to 0x102000)");
		assert_true(ram_is_untouched(&f->ram));
	}
}

static void test_no_note(void **state)
{
	struct fx *f = *state;

	image_elf(f, true);
	fx_refused(f, -ENOEXEC, "neither a PVH entry (Linux: CONFIG_PVH) nor a multiboot header");
	image_add_note(f, 17, "12345678", 8);
	fx_refused(f, -ENOEXEC, "neither a PVH entry");
}

static void test_segments_outside_memory(void **state)
{
	static const uint64_t addresses[] = {0, 0xfffff, RAM_BYTES - ELF_MEM_BYTES + 1, RAM_BYTES,
					     1ull << 32, 1ull << 63};
	struct fx *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		uint64_t entry = addresses[i];

		image_elf(f, true);
		put64(f->image, PH64(0, p_paddr), addresses[i]);
		image_add_note(f, 18, &entry, 8);
		fx_refused(f, -ENOEXEC, "there is room from 0x100000 to 0x800000");
		assert_true(ram_is_untouched(&f->ram));
	}
	f->ram.mem.low_bytes = (2 << 20) - PAGE_BYTES;
	fx_refused(f, -ENOMEM, "the least is 2 MiB");
}

static void test_truncated(void **state)
{
	struct fx *f = *state;

	fx_truncate(f, 0);
	image_pvh(f, false);
	fx_truncate(f, 0);
}

static void test_mutations(void **state)
{
	struct fx *f = *state;
	unsigned char bytes[5000] = {1};

	f->cfg.modules[0] = (struct load_bytes){"m", bytes, sizeof(bytes)};
	f->cfg.modules_count = 1;
	fx_mutation_loop(f, 0, ELF_HEADER_AT, 20000);
	image_pvh(f, false);
	fx_mutation_loop(f, 0, ELF_HEADER_AT, 20000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_entry),
		T(test_start_info),
		T(test_modules),
		T(test_modules_at_the_limits),
		T(test_cmdline_limit),
		T(test_entry_point_of_wrong_width),
		T(test_entry_point_outside),
		T(test_no_note),
		T(test_segments_outside_memory),
		T(test_truncated),
		T(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
