/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/boot/load_multiboot.c: the information structure that the kernel finds, both ways to say
 * what is loaded where (ELF headers, addresses in the header), and files with each thing
 * wrong. Measured by the Multiboot Specification 0.6.96.
 */
#include "load_fixture.h"

#define RAW_LOAD 0x150000u
#define RAW_BYTES 0x400u
#define RAW_HEADER_AT 0x20u /* in the file */
#define RAW_SKIP 0x10u      /* of the file before what is loaded */

/* No ELF file: the header says everything. */
static void image_raw(struct fx *f)
{
	unsigned char *h = f->image + RAW_HEADER_AT;

	image_noise(f->image, RAW_BYTES);
	image_multiboot_header(h, 1u << 16);
	put32(h, 12, RAW_LOAD + RAW_HEADER_AT - RAW_SKIP);
	put32(h, 16, RAW_LOAD);
	put32(h, 20, RAW_LOAD + RAW_BYTES - RAW_SKIP);
	put32(h, 24, RAW_LOAD + 0x1000);
	put32(h, 28, RAW_LOAD + 0x40);
	f->cfg.kernel.len = RAW_BYTES;
}

static int setup(void **state)
{
	struct fx *f = fx_open();

	image_multiboot(f, false);
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
		image_multiboot(f, is_64);
		assert_int_equal(fx_load(f), 0);
		fx_sound(f);
		assert_int_equal(f->ret.kind, LOAD_MULTIBOOT);
		assert_int_equal(en->mode, KVMP_PROTECTED);
		assert_int_equal(en->rip, ELF_ENTRY);
		assert_int_equal(en->rax, 0x2badb002);
		assert_int_equal(en->rbx, LOAD_INFO_GPA);
		assert_memory_equal(f->ram.bytes + ELF_LOAD, f->image, ELF_FILE_BYTES);
	}
}

static void test_information(void **state)
{
	struct fx *f = *state;
	const unsigned char *i = f->ram.bytes + LOAD_INFO_GPA;
	const unsigned char *map;

	f->ram.mem.high_bytes = 1 << 30;
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(get32(i, 0), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
	assert_int_equal(get32(i, 4), 639);
	/* And as a BIOS would have it. */
	assert_int_equal(get16(f->ram.bytes, 0x413), 639);
	assert_int_equal(get16(f->ram.bytes, 0x40e), 0x9fc0);
	/* Whose calls all fail: or byte [bp + 6], 1 and iret are in there. */
	for (unsigned n = 0; n < 256; n++)
		assert_int_equal(get32(f->ram.bytes, 4 * n), 0x4f0);
	assert_memory_equal(f->ram.bytes + 0x4f0, "\x55\x89\xe5\x80\x4e\x06\x01\x5d\xcf", 9);
	assert_int_equal(get32(i, 8), (RAM_BYTES - 0x100000) / 1024);
	assert_string_equal((char *)f->ram.bytes + get32(i, 16), "k console=ttyS0 quiet");
	assert_int_equal(get32(i, 20), 0);
	assert_string_equal((char *)f->ram.bytes + get32(i, 64), "asyncpf");
	assert_int_equal(get32(i, 44), 4 * 24);
	map = f->ram.bytes + get32(i, 48);
	assert_int_equal(get32(map, 0), 20);
	assert_int_equal(get64(map, 4), 0);
	assert_int_equal(get64(map, 12), 0x9fc00);
	assert_int_equal(get32(map, 20), 1);
	assert_int_equal(get32(map, 24 + 20), 2);
	assert_int_equal(get64(map, 48 + 4), 0x100000);
	assert_int_equal(get64(map, 48 + 12), RAM_BYTES - 0x100000);
	assert_int_equal(get64(map, 72 + 4), 1ull << 32);
	f->cfg.cmdline = NULL;
	assert_int_equal(fx_load(f), 0);
	assert_string_equal((char *)f->ram.bytes + get32(i, 16), "k");
}

static void test_modules_follow_the_kernel(void **state)
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
	assert_int_equal(get32(i, 20), 2);
	m = f->ram.bytes + get32(i, 24);
	assert_int_equal(get32(m, 0), ELF_LOAD + ELF_MEM_BYTES);
	assert_int_equal(get32(m, 4), ELF_LOAD + ELF_MEM_BYTES + 5000);
	assert_string_equal((char *)f->ram.bytes + get32(m, 8), "one");
	assert_int_equal(get32(m, 16), ELF_LOAD + ELF_MEM_BYTES + 0x2000);
	assert_int_equal(get32(m, 20), ELF_LOAD + ELF_MEM_BYTES + 0x3000);
	assert_string_equal((char *)f->ram.bytes + get32(m, 24), "two");
	assert_memory_equal(f->ram.bytes + get32(m, 0), bytes[0], 5000);
	assert_memory_equal(f->ram.bytes + get32(m, 16), bytes[1], 4096);
}

static void test_modules_too_large(void **state)
{
	struct fx *f = *state;
	size_t room = RAM_BYTES - ELF_LOAD - ELF_MEM_BYTES;
	unsigned char *bytes = calloc(1, room + 1);

	assert_non_null(bytes);
	f->cfg.modules[0] = (struct load_bytes){"m", bytes, room};
	f->cfg.modules_count = 1;
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	f->cfg.modules[0].len = room + 1;
	fx_refused(f, -ENOMEM, "m: 7331841 bytes do not fit");
	f->cfg.modules[0].len = SIZE_MAX;
	fx_refused(f, -ENOMEM, "do not fit");
	f->cfg.modules[0].len = room;
	f->cfg.modules[1] = (struct load_bytes){"n", bytes, 1};
	f->cfg.modules_count = 2;
	fx_refused(f, -ENOMEM, "do not fit");
	free(bytes);
}

static void test_header_position(void **state)
{
	struct fx *f = *state;
	size_t last = 8192 - 12;

	/* Only 4-aligned, and only within the first 8192 bytes. */
	image_elf(f, false);
	image_multiboot_header(f->image + ELF_HEADER_AT + 2, 3);
	fx_refused(f, -ENOEXEC, "nor a multiboot header");
	image_elf(f, false);
	image_multiboot_header(f->image + last, 3);
	f->cfg.kernel.len = 8192;
	assert_int_equal(fx_load(f), 0);
	f->cfg.kernel.len = 8191;
	fx_refused(f, -ENOEXEC, "nor a multiboot header");
	/* A wrong checksum is no header. */
	image_multiboot(f, false);
	f->image[ELF_HEADER_AT + 8] ^= 1;
	fx_refused(f, -ENOEXEC, "nor a multiboot header");
}

static void test_demands(void **state)
{
	struct fx *f = *state;

	for (unsigned bit = 0; bit < 32; bit++) {
		image_elf(f, false);
		image_multiboot_header(f->image + ELF_HEADER_AT, 1u << bit);
		if (bit == 2)
			fx_refused(f, -ENOEXEC, "demands a video mode (flags 0x4)");
		else if (bit > 2 && bit < 16)
			fx_refused(f, -ENOEXEC, "demands what is not specified");
		else if (bit != 16)
			assert_int_equal(fx_load(f), 0);
	}
}

static void test_entry_point(void **state)
{
	struct fx *f = *state;

	put32(f->image, offsetof(Elf32_Ehdr, e_entry), ELF_LOAD - 1);
	fx_refused(f, -ENOEXEC, "entry point 0xfffff is not in it (0x100000 to 0x102000)");
	put32(f->image, offsetof(Elf32_Ehdr, e_entry), ELF_LOAD + ELF_MEM_BYTES);
	fx_refused(f, -ENOEXEC, "is not in it");
	/* A virtual one. */
	put32(f->image, offsetof(Elf32_Ehdr, e_entry), 0xc0000123);
	put32(f->image, PH32(0, p_vaddr), 0xc0000000);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.entry.rip, ELF_LOAD + 0x123);
}

static void test_addresses_in_the_header(void **state)
{
	struct fx *f = *state;
	unsigned char *h = f->image + RAW_HEADER_AT;

	image_raw(f);
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	assert_int_equal(f->ret.kernel_start, RAW_LOAD);
	assert_int_equal(f->ret.kernel_end, RAW_LOAD + 0x1000);
	assert_int_equal(f->ret.entry.rip, RAW_LOAD + 0x40);
	assert_memory_equal(f->ram.bytes + RAW_LOAD, f->image + RAW_SKIP, RAW_BYTES - RAW_SKIP);
	/* 0: to the end of the file, and no more memory than that. */
	put32(h, 20, 0);
	put32(h, 24, 0);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_end, RAW_LOAD + RAW_BYTES - RAW_SKIP);
	/* They go before ELF headers, of whatever kind. */
	image_raw(f);
	memcpy(f->image, "\x7f" "ELF", 4);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, RAW_LOAD);
}

static void test_hostile_addresses(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *text;
	} cases[] = {
		{12, RAW_LOAD - 1, "does not agree with its load address"},
		{12, RAW_LOAD + RAW_HEADER_AT + 1, "does not agree with its load address"},
		{12, UINT32_MAX, "does not agree with its load address"},
		{16, UINT32_MAX, "does not agree with its load address"},
		{16, 0, "does not agree with its load address"},
		{20, RAW_LOAD, "cut short"},
		{20, 1, "cut short"},
		{20, RAW_LOAD + RAW_BYTES - RAW_SKIP + 1, "cut short: 1008 bytes of 1009"},
		{20, UINT32_MAX, "cut short"},
		{24, RAW_LOAD, "whose memory ends at"},
		{24, UINT32_MAX,
		 "there is room from 0x500 to 0x9fc00 and from 0x100000 to 0x800000"},
		{24, RAM_BYTES + 1,
		 "there is room from 0x500 to 0x9fc00 and from 0x100000 to 0x800000"},
		{28, RAW_LOAD - 1, "is not in it"},
		{28, RAW_LOAD + 0x1000, "is not in it"},
	};
	struct fx *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		image_raw(f);
		put32(f->image + RAW_HEADER_AT, cases[i].at, cases[i].value);
		fx_refused(f, -ENOEXEC, cases[i].text);
	}
}

static void move_raw(struct fx *f, uint32_t to)
{
	image_raw(f);
	for (size_t at = 12; at <= 28; at += 4)
		put32(f->image + RAW_HEADER_AT, at,
		      get32(f->image + RAW_HEADER_AT, at) - RAW_LOAD + to);
}

/* Kernels of real mode: what they are told lies where they do not. */
static void test_below_1_mib(void **state)
{
	static const struct {
		uint32_t load;
		bool fits;
	} places[] = {
		{0x400, false},	 {0x4f0, false},  {0x500, true},    {0x1000, true},
		{0x2000, true},	 {0x7c00, true},  {0x8000, true},   {0x2ff00, true},
		{0x40000, true}, {0x70000, true}, {0x9e000, true},  {0x9ec00, true},
		{0x9f000, false}, {0xa0000, false}, {0xf0000, false}, {0xff800, false},
	};
	struct fx *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		const unsigned char *info;

		move_raw(f, places[i].load);
		if (!places[i].fits) {
			fx_refused(f, -ENOEXEC, "there is room from 0x500 to 0x9fc00");
			continue;
		}
		assert_int_equal(fx_load(f), 0);
		fx_sound(f);
		assert_int_equal(f->ret.kernel_start, places[i].load);
		/* Whole, and not what it is told. */
		assert_memory_equal(f->ram.bytes + places[i].load, f->image + RAW_SKIP,
				    RAW_BYTES - RAW_SKIP);
		for (size_t k = RAW_BYTES - RAW_SKIP; k < 0x1000; k++)
			assert_int_equal(f->ram.bytes[places[i].load + k], 0);
		info = f->ram.bytes + f->ret.entry.rbx;
		assert_string_equal((const char *)f->ram.bytes + get32(info, 16),
				    "k console=ttyS0 quiet");
		assert_int_equal(get32(info, 48), f->ret.entry.rbx + 128);
		assert_int_equal(get32(info, 44), 3 * 24);
	}
	/* Modules are never below 1 MiB. */
	move_raw(f, 0x8000);
	f->cfg.modules[0] = (struct load_bytes){"m", f->image, 100};
	f->cfg.modules_count = 1;
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	assert_int_equal(f->ret.modules_start, LOAD_KERNEL_MIN);
	/* So large that nothing can be told to it. */
	move_raw(f, 0x8000);
	put32(f->image + RAW_HEADER_AT, 24, 0x90000);
	fx_refused(f, -ENOEXEC, "leaves no 188 KiB free below 640 KiB");
	assert_true(ram_is_untouched(&f->ram));
}

/* By ELF segments: one in real mode's memory, one above. */
static void test_elf_below_1_mib(void **state)
{
	struct fx *f = *state;

	image_multiboot(f, false);
	put32(f->image, 52 + 12, 0x8000); /* p_paddr of the first program header */
	put32(f->image, 24, 0x8000 + 0x40);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, 0x8000);
	assert_memory_equal(f->ram.bytes + 0x8000, f->image, ELF_FILE_BYTES);
	assert_true(f->ret.entry.rbx >= 0x8000 + ELF_MEM_BYTES ||
		    f->ret.entry.rbx + PAGE_BYTES <= 0x8000);
}

static void test_not_elf_without_addresses(void **state)
{
	struct fx *f = *state;

	image_raw(f);
	image_multiboot_header(f->image + RAW_HEADER_AT, 0);
	fx_refused(f, -ENOEXEC, "not an ELF file and has no addresses");
}

static void test_pvh_goes_first(void **state)
{
	struct fx *f = *state;

	image_pvh(f, true);
	image_multiboot_header(f->image + ELF_HEADER_AT, 3);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kind, LOAD_PVH);
}

static void test_cmdline_limit(void **state)
{
	struct fx *f = *state;
	char *line = calloc(1, 0x10001);

	assert_non_null(line);
	memset(line, 'a', 0xffff);
	f->cfg.cmdline = line; /* with "k " before it */
	fx_refused(f, -E2BIG, "there is room for 65535");
	line[0xffff - 2] = '\0';
	fx_refused(f, -E2BIG, "there is room for 65535"); /* for the loader's name */
	line[0xffff - 2 - 8] = '\0';
	assert_int_equal(fx_load(f), 0);
	free(line);
}

static void test_truncated(void **state)
{
	struct fx *f = *state;

	fx_truncate(f, 0);
	image_multiboot(f, true);
	fx_truncate(f, 0);
	image_raw(f);
	fx_truncate(f, 0);
}

/* The header's checksum is made right again, or nothing behind it would be reached. */
static void test_mutations(void **state)
{
	struct fx *f = *state;
	unsigned char bytes[5000] = {1};
	unsigned accepted = 0;
	struct prng rng;

	f->cfg.modules[0] = (struct load_bytes){"m", bytes, sizeof(bytes)};
	f->cfg.modules_count = 1;
	fx_mutation_loop(f, 0, ELF_HEADER_AT, 20000);
	prng_init(&rng, 7);
	for (unsigned i = 0; i < 20000; i++) {
		unsigned char *h = f->image + RAW_HEADER_AT;

		image_raw(f);
		fx_mutate(&rng, h, 32);
		put32(h, 0, 0x1badb002);
		put32(h, 8, -(0x1badb002u + get32(h, 4)));
		if (fx_load(f) == 0) {
			fx_sound(f);
			accepted++;
		}
	}
	assert_true(accepted > 200);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_entry),
		T(test_information),
		T(test_modules_follow_the_kernel),
		T(test_modules_too_large),
		T(test_header_position),
		T(test_demands),
		T(test_entry_point),
		T(test_addresses_in_the_header),
		T(test_hostile_addresses),
		T(test_below_1_mib),
		T(test_elf_below_1_mib),
		T(test_not_elf_without_addresses),
		T(test_pvh_goes_first),
		T(test_cmdline_limit),
		T(test_truncated),
		T(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
