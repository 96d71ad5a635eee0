/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/boot/load_bzimage.c: what the kernel finds in memory and registers, each header field with
 * a value that cannot be, files cut short at every length, and memory that is a page too
 * small. Documentation/arch/x86/boot.rst and zero-page.rst are what it is measured by.
 */
#include "load_fixture.h"

#define ZP(f) ((f)->ram.bytes + LOAD_INFO_GPA)

static int setup(void **state)
{
	struct fx *f = fx_open();

	image_bzimage(f);
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

	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	assert_int_equal(f->ret.kind, LOAD_BZIMAGE);
	assert_int_equal(f->ret.kernel_start, BZ_LOAD);
	assert_int_equal(f->ret.kernel_end, BZ_LOAD + BZ_INIT_SIZE);
	assert_int_equal(f->ret.modules_end, 0);
	assert_int_equal(en->mode, KVMP_LONG);
	assert_int_equal(en->rip, BZ_LOAD + 0x200);
	assert_int_equal(en->rsi, LOAD_INFO_GPA);
	assert_memory_equal(f->ram.bytes + BZ_LOAD, f->image + 1024, BZ_CODE_BYTES);
	/* __BOOT_CS, __BOOT_DS: flat, execute/read and read/write. */
	assert_int_equal(en->code_selector, 0x10);
	assert_int_equal(en->data_selector, 0x18);
	assert_int_equal(get64(f->ram.bytes, en->gdt.v + 0x10), 0x00af9b000000ffff);
	assert_int_equal(get64(f->ram.bytes, en->gdt.v + 0x18), 0x00cf93000000ffff);
	assert_true(en->gdt_bytes >= 0x20);
}

static void test_page_tables_map_4_gib_to_itself(void **state)
{
	struct fx *f = *state;
	const unsigned char *m = f->ram.bytes;

	assert_int_equal(fx_load(f), 0);
	for (uint64_t at = 0; at < 4ull << 30; at += CHUNK_BYTES) {
		uint64_t pml4e = get64(m, f->ret.entry.cr3.v);
		uint64_t pdpte = get64(m, (pml4e & ~0xfffull) + (at >> 30) * 8);
		uint64_t pde = get64(m, (pdpte & ~0xfffull) + (at >> 21 & 511) * 8);

		assert_int_equal(pml4e & 0xfff, 3);
		assert_int_equal(pdpte & 0xfff, 3);
		assert_int_equal(pde, at | 0x83);
	}
}

static void test_zero_page(void **state)
{
	struct fx *f = *state;

	/* What is the loader's to say, a file may say as it likes. */
	put16(f->image, 0x1fa, 0x317);
	put32(f->image, 0x214, 0x12345678);
	put32(f->image, 0x218, 0x1000);
	put32(f->image, 0x21c, 0x1000);
	put64(f->image, 0x250, 0x123456789abc);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(ZP(f)[0x210], 0xff); /* type_of_loader */
	assert_int_equal(get16(ZP(f), 0x1fa), 0xffff); /* vid_mode: normal */
	assert_int_equal(get32(ZP(f), 0x214), f->ret.kernel_start);
	assert_int_equal(get32(ZP(f), 0x202), 0x53726448);
	assert_int_equal(get32(ZP(f), 0x228), LOAD_STRINGS_GPA);
	assert_string_equal((char *)f->ram.bytes + LOAD_STRINGS_GPA, "console=ttyS0 quiet");
	assert_int_equal(get64(ZP(f), 0x070), 0xe0000);
	assert_int_equal(get32(ZP(f), 0x218), 0);
	assert_int_equal(get32(ZP(f), 0x21c), 0);
	assert_int_equal(get64(ZP(f), 0x250), 0);
	/* The sentinel, and what is not the header's. */
	assert_int_equal(ZP(f)[0x1ef], 0);
	assert_int_equal(ZP(f)[0x1f0], 0);
	for (size_t i = 0x26c; i < 0x2d0; i++)
		assert_int_equal(ZP(f)[i], 0);
}

static void check_e820(const unsigned char *zp, unsigned i, uint64_t base, uint64_t bytes,
		       uint32_t type)
{
	assert_int_equal(get64(zp, 0x2d0 + i * 20), base);
	assert_int_equal(get64(zp, 0x2d0 + i * 20 + 8), bytes);
	assert_int_equal(get32(zp, 0x2d0 + i * 20 + 16), type);
}

static void test_memory_map(void **state)
{
	struct fx *f = *state;

	f->ram.mem.high_bytes = 3ull << 30;
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(ZP(f)[0x1e8], 4);
	check_e820(ZP(f), 0, 0, 0x9fc00, 1);
	check_e820(ZP(f), 1, 0x9fc00, 0x60400, 2);
	check_e820(ZP(f), 2, 0x100000, RAM_BYTES - 0x100000, 1);
	check_e820(ZP(f), 3, 1ull << 32, 3ull << 30, 1);
	f->ram.mem.high_bytes = 0;
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(ZP(f)[0x1e8], 3);
}

static void test_no_cmdline(void **state)
{
	struct fx *f = *state;

	f->cfg.cmdline = NULL;
	assert_int_equal(fx_load(f), 0);
	assert_string_equal((char *)f->ram.bytes + get32(ZP(f), 0x228), "");
}

static void test_cmdline_limits(void **state)
{
	struct fx *f = *state;
	char line[2049];

	memset(line, 'a', sizeof(line));
	line[2047] = '\0';
	f->cfg.cmdline = line;
	assert_int_equal(fx_load(f), 0);
	assert_string_equal((char *)f->ram.bytes + LOAD_STRINGS_GPA, line);
	line[2047] = 'a';
	line[2048] = '\0';
	fx_refused(f, -E2BIG, "2048 bytes; this bzImage takes 2047");
}

static void test_cmdline_beyond_its_place(void **state)
{
	struct fx *f = *state;
	char *line = calloc(1, 0x20001);

	assert_non_null(line);
	put32(f->image, 0x238, UINT32_MAX);
	f->cfg.cmdline = line;
	memset(line, 'a', 0x20000);
	fx_refused(f, -E2BIG, "there is room for 65535");
	line[0x10000] = '\0';
	fx_refused(f, -E2BIG, "there is room for 65535");
	line[0xffff] = '\0';
	assert_int_equal(fx_load(f), 0);
	free(line);
}

static void give_initrd(struct fx *f, const unsigned char *bytes, size_t len)
{
	f->cfg.modules[0] = (struct load_bytes){.name = "i", .bytes = bytes, .len = len};
	f->cfg.modules_count = 1;
}

static void test_initrd_goes_to_the_top(void **state)
{
	struct fx *f = *state;
	unsigned char initrd[5000];

	image_noise(initrd, sizeof(initrd));
	give_initrd(f, initrd, sizeof(initrd));
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	assert_int_equal(get32(ZP(f), 0x218), RAM_BYTES - 0x2000);
	assert_int_equal(get32(ZP(f), 0x21c), sizeof(initrd));
	assert_memory_equal(f->ram.bytes + RAM_BYTES - 0x2000, initrd, sizeof(initrd));
}

static void test_initrd_stays_below_its_limit(void **state)
{
	struct fx *f = *state;
	unsigned char initrd[4096] = {1};

	give_initrd(f, initrd, sizeof(initrd));
	put32(f->image, 0x22c, 0x4fffff); /* the last byte that it may use */
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(get32(ZP(f), 0x218), 0x4ff000);
	put32(f->image, 0x22c, 0x4ffffe);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(get32(ZP(f), 0x218), 0x4fe000);
	/* The kernel's memory ends at 0x380000. */
	put32(f->image, 0x22c, 0x380fff);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(get32(ZP(f), 0x218), 0x380000);
	put32(f->image, 0x22c, 0x380ffe);
	fx_refused(f, -ENOMEM, "i: 4096 bytes do not fit");
	put32(f->image, 0x22c, 0);
	fx_refused(f, -ENOMEM, "do not fit");
}

static void test_initrd_too_large(void **state)
{
	struct fx *f = *state;
	size_t room = RAM_BYTES - BZ_LOAD - BZ_INIT_SIZE;
	unsigned char *initrd = calloc(1, room + 1);

	assert_non_null(initrd);
	give_initrd(f, initrd, room);
	assert_int_equal(fx_load(f), 0);
	fx_sound(f);
	give_initrd(f, initrd, room + 1);
	fx_refused(f, -ENOMEM, "give the guest more memory");
	/* Not read: a length that nothing can have. */
	give_initrd(f, initrd, SIZE_MAX);
	fx_refused(f, -ENOMEM, "do not fit");
	free(initrd);
}

static void test_initrd_refused(void **state)
{
	struct fx *f = *state;
	unsigned char initrd[1] = {1};

	give_initrd(f, initrd, 0);
	fx_refused(f, -EINVAL, "i: an empty initrd");
	give_initrd(f, initrd, 1);
	f->cfg.modules[1] = f->cfg.modules[0];
	f->cfg.modules_count = 2;
	fx_refused(f, -EINVAL, "takes one initrd, not 2");
	f->cfg.modules_count = LOAD_MODULES_MAX + 1;
	fx_refused(f, -EINVAL, "at most 16");
}

static void test_memory_too_small(void **state)
{
	struct fx *f = *state;
	uint64_t need = BZ_LOAD + BZ_INIT_SIZE;

	f->ram.mem.low_bytes = need;
	assert_int_equal(fx_load(f), 0);
	f->ram.mem.low_bytes = need - PAGE_BYTES;
	fx_refused(f, -ENOMEM, "needs 2 MiB at 0x200000");
	f->ram.mem.low_bytes = 2 << 20;
	fx_refused(f, -ENOMEM, "needs 2 MiB at 0x200000");
	f->ram.mem.low_bytes = (2 << 20) - PAGE_BYTES;
	fx_refused(f, -ENOMEM, "the least is 2 MiB");
	f->ram.mem.low_bytes = 0;
	fx_refused(f, -ENOMEM, "the least is 2 MiB");
}

static void test_memory_that_cannot_be(void **state)
{
	struct fx *f = *state;

	f->ram.mem.low_bytes = RAM_BYTES - 1;
	fx_refused(f, -EINVAL, "not whole pages");
	f->ram.mem.low_bytes = GUEST_HOLE_GPA + PAGE_BYTES;
	fx_refused(f, -EINVAL, "not whole pages");
	f->ram.mem.low_bytes = RAM_BYTES;
	f->ram.mem.high_bytes = 1;
	fx_refused(f, -EINVAL, "not whole pages");
	f->ram.mem.high_bytes = UINT64_MAX - 0xfff;
	fx_refused(f, -EINVAL, "not whole pages");
}

/* Each field with a value that must be refused, the rest right. */
static void test_hostile_fields(void **state)
{
	static const struct {
		size_t at, width;
		uint64_t value;
		int code;
		const char *text;
	} cases[] = {
		{0x1f1, 1, 64, -ENOEXEC, "cut short"},
		{0x1f1, 1, 255, -ENOEXEC, "cut short"},
		{0x1f1, 1, 0, -ENOEXEC, "cut short"}, /* means 4 */
		{0x1f4, 4, 0, -ENOEXEC, "only 0 bytes of code"},
		{0x1f4, 4, 32, -ENOEXEC, "only 512 bytes of code"},
		{0x1f4, 4, BZ_CODE_BYTES / 16 + 1, -ENOEXEC, "cut short: 3072 bytes of 3088"},
		{0x1f4, 4, UINT32_MAX, -ENOEXEC, "cut short"},
		{0x1fe, 2, 0xaa54, -ENOEXEC, "not a kernel that can be loaded"},
		{0x202, 4, 0, -ENOEXEC, "this is a boot sector or a disk"},
		{0x201, 1, 0, -ENOEXEC, "header ends at 0x202"},
		{0x201, 1, 0x61, -ENOEXEC, "header ends at 0x263"},
		{0x201, 1, 0x8f, -ENOEXEC, "header ends at 0x291"},
		{0x201, 1, 0xff, -ENOEXEC, "header ends at 0x301"},
		{0x206, 2, 0x20b, -ENOEXEC, "boot protocol 2.11; at least 2.12"},
		{0x206, 2, 0, -ENOEXEC, "boot protocol 0.00"},
		{0x211, 1, 0, -ENOEXEC, "zImage"},
		{0x230, 4, 0, -ENOEXEC, "an alignment of 0"},
		{0x230, 4, 0x300000, -ENOEXEC, "an alignment of 0x300000"},
		{0x230, 4, 0x80000000, -ENOEXEC, "an alignment of 0x80000000"},
		{0x230, 4, 0x40000000, -ENOMEM, "at 0x40000000"},
		{0x236, 2, 0, -ENOEXEC, "without a 64-bit entry point"},
		{0x236, 2, 0xfffe, -ENOEXEC, "without a 64-bit entry point"},
		{0x258, 8, RAM_BYTES, -ENOMEM, "at 0x800000"},
		{0x258, 8, 0xc0000000, -ENOMEM, "at 0xc0000000"},
		{0x258, 8, UINT64_MAX, -ENOMEM, "at 0xffffffffffffffff"},
		{0x258, 8, 0xfffffffffff00000, -ENOMEM, "at 0xfffffffffff00000"},
		{0x260, 4, RAM_BYTES, -ENOMEM, "needs 8 MiB"},
		{0x260, 4, UINT32_MAX, -ENOMEM, "needs 4096 MiB"},
	};
	struct fx *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		image_bzimage(f);
		memcpy(f->image + cases[i].at, &cases[i].value, cases[i].width);
		fx_refused(f, cases[i].code, cases[i].text);
		assert_true(ram_is_untouched(&f->ram));
	}
}

static void test_placement(void **state)
{
	struct fx *f = *state;

	/* Relocatable: to the next aligned address, never below 1 MiB. */
	put64(f->image, 0x258, 0x200001);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, 0x400000);
	put64(f->image, 0x258, 0);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, 0x200000);
	put32(f->image, 0x230, 1);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, 0x100000);
	/* Not relocatable: exactly there, or not at all. */
	f->image[0x234] = 0;
	fx_refused(f, -ENOEXEC, "below 1 MiB");
	put64(f->image, 0x258, 0x123000);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_start, 0x123000);
	/* Memory for the code at least, whatever init_size says. */
	put32(f->image, 0x260, 0);
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ret.kernel_end, 0x123000 + BZ_CODE_BYTES);
}

static void test_what_follows_the_code_is_not_loaded(void **state)
{
	struct fx *f = *state;

	memset(f->image + 1024 + BZ_CODE_BYTES, 0xee, 512);
	f->cfg.kernel.len += 512;
	assert_int_equal(fx_load(f), 0);
	assert_int_equal(f->ram.bytes[BZ_LOAD + BZ_CODE_BYTES], 0);
}

static void test_truncated(void **state)
{
	fx_truncate(*state, 15);
}

/* Its length is rounded up to whole paragraphs, and the file has what there is (memtest86+). */
static void test_last_paragraph_cut(void **state)
{
	struct fx *f = *state;
	size_t full = f->cfg.kernel.len;

	for (size_t cut = 0; cut < 16; cut++) {
		size_t bytes = BZ_CODE_BYTES - cut;

		f->cfg.kernel.len = full - cut;
		assert_int_equal(fx_load(f), 0);
		assert_memory_equal(f->ram.bytes + BZ_LOAD, f->image + 1024, bytes);
		for (size_t i = bytes; i < BZ_CODE_BYTES; i++)
			assert_int_equal(f->ram.bytes[BZ_LOAD + i], 0);
	}
	f->cfg.kernel.len = full - 16;
	fx_refused(f, -ENOEXEC, "cut short");
}

static void test_mutations(void **state)
{
	struct fx *f = *state;
	unsigned char initrd[5000] = {1};

	give_initrd(f, initrd, sizeof(initrd));
	fx_mutation_loop(f, 0x1f1, 0x280 - 0x1f1, 20000);
}

static void test_not_a_kernel(void **state)
{
	struct fx *f = *state;

	memset(f->image, 0, sizeof(f->image));
	fx_refused(f, -ENOEXEC, "dir/k: not a kernel that can be loaded (3072 bytes");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_entry),
		T(test_page_tables_map_4_gib_to_itself),
		T(test_zero_page),
		T(test_memory_map),
		T(test_no_cmdline),
		T(test_cmdline_limits),
		T(test_cmdline_beyond_its_place),
		T(test_initrd_goes_to_the_top),
		T(test_initrd_stays_below_its_limit),
		T(test_initrd_too_large),
		T(test_initrd_refused),
		T(test_memory_too_small),
		T(test_memory_that_cannot_be),
		T(test_hostile_fields),
		T(test_placement),
		T(test_what_follows_the_code_is_not_loaded),
		T(test_truncated),
		T(test_last_paragraph_cut),
		T(test_mutations),
		T(test_not_a_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
