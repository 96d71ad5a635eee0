/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/boot/elf.c: both classes, headers with values that cannot be, segments that overlap or end
 * outside the file, notes of every brokenness, files cut short.
 */
#include "vmm/boot/elf.h"

#include "load_fixture.h"

struct fix {
	struct fx *fx;
	struct elf f;
	struct err err;
};

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->fx = fx_open();
	image_elf(x->fx, true);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	fx_close(x->fx);
	free(x);
	return 0;
}

static int parse(struct fix *x)
{
	return elf_parse("k", x->fx->image, x->fx->cfg.kernel.len, &x->f, &x->err);
}

static void refused(struct fix *x, const char *text)
{
	int rc = parse(x);

	if (rc != -ENOEXEC || !strstr(x->err.text, text))
		print_error("%d: \"%s\" (expected \"%s\")\n", rc, x->err.text, text);
	assert_int_equal(rc, -ENOEXEC);
	assert_non_null(strstr(x->err.text, text));
}

static int load(struct fix *x, uint64_t lo, uint64_t hi)
{
	ram_clear(&x->fx->ram);
	return elf_load_within(&x->f, &x->fx->ram.mem, lo, hi, &x->err);
}

static void test_both_classes(void **state)
{
	struct fix *x = *state;

	for (int is_64 = 0; is_64 < 2; is_64++) {
		image_elf(x->fx, is_64);
		assert_int_equal(parse(x), 0);
		assert_int_equal(x->f.is_64, is_64);
		assert_int_equal(x->f.entry, ELF_ENTRY);
		assert_int_equal(x->f.segment_count, 2);
		assert_int_equal(x->f.lo, ELF_LOAD);
		assert_int_equal(x->f.hi, ELF_LOAD + ELF_MEM_BYTES);
		assert_int_equal(load(x, 0, RAM_BYTES), 0);
		assert_memory_equal(x->fx->ram.bytes + ELF_LOAD, x->fx->image, ELF_FILE_BYTES);
		assert_int_equal(x->fx->ram.bytes[ELF_LOAD + ELF_FILE_BYTES], 0);
	}
}

static void test_bounds(void **state)
{
	struct fix *x = *state;
	uint64_t end = ELF_LOAD + ELF_MEM_BYTES;

	assert_int_equal(parse(x), 0);
	assert_int_equal(load(x, ELF_LOAD, end), 0);
	assert_int_equal(load(x, ELF_LOAD + 1, end), -ENOEXEC);
	assert_int_equal(load(x, ELF_LOAD, end - 1), -ENOEXEC);
	assert_non_null(strstr(x->err.text, "memory from 0x100000 to 0x102000"));
	assert_true(ram_is_untouched(&x->fx->ram));
}

static void test_hostile_headers(void **state)
{
	static const struct {
		size_t at, width;
		uint64_t value;
		const char *text;
	} cases[] = {
		{EI_CLASS, 1, 0, "class 0 and byte order 1"},
		{EI_CLASS, 1, 3, "class 3"},
		{EI_CLASS, 1, 1, "of 32 bits for machine"}, /* 32-bit fields lie elsewhere */
		{EI_DATA, 1, 2, "byte order 2"},
		{offsetof(Elf64_Ehdr, e_machine), 2, 183,
		 "ELF file for arm64 (machine 183), not for x86; an x86 kernel is needed"},
		{offsetof(Elf64_Ehdr, e_machine), 2, EM_386, "ELF file of 64 bits for machine 3"},
		{offsetof(Elf64_Ehdr, e_type), 2, ET_DYN,
		 "type 3, not a statically placed executable (this is a program"},
		{offsetof(Elf64_Ehdr, e_type), 2, ET_REL, "type 1, not a statically placed"},
		{offsetof(Elf64_Ehdr, e_phnum), 2, 0, "with 0 program headers"},
		{offsetof(Elf64_Ehdr, e_phnum), 2, ELF_SEGMENTS_MAX + 1, "with 65 program"},
		{offsetof(Elf64_Ehdr, e_phnum), 2, 0xffff, "with 65535 program headers"},
		{offsetof(Elf64_Ehdr, e_phnum), 2, 64, "cut short within its program headers"},
		{offsetof(Elf64_Ehdr, e_phentsize), 2, 55, "program headers of 55 bytes"},
		{offsetof(Elf64_Ehdr, e_phentsize), 2, 0, "program headers of 0 bytes"},
		{offsetof(Elf64_Ehdr, e_phoff), 8, ELF_FILE_BYTES, "within its program headers"},
		{offsetof(Elf64_Ehdr, e_phoff), 8, ELF_FILE_BYTES - 111, "within its program"},
		{offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX, "within its program headers"},
		{offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX - 100, "within its program"},
		{PH64(0, p_type), 4, PT_DYNAMIC, "nothing to load"},
		{PH64(0, p_offset), 8, 1, "segment 0 ends after its end"},
		{PH64(0, p_offset), 8, UINT64_MAX, "segment 0 ends after its end"},
		{PH64(0, p_filesz), 8, ELF_FILE_BYTES + 1, "segment 0 ends after its end"},
		{PH64(0, p_filesz), 8, UINT64_MAX, "segment 0 ends after its end"},
		{PH64(0, p_memsz), 8, ELF_FILE_BYTES - 1, "segment 0 (1535 bytes"},
		{PH64(0, p_memsz), 8, UINT64_MAX, "does not fit into memory"},
		{PH64(0, p_paddr), 8, UINT64_MAX, "does not fit into memory"},
		{PH64(0, p_paddr), 8, UINT64_MAX - ELF_MEM_BYTES + 1, "does not fit"},
		{PH64(1, p_offset), 8, ELF_FILE_BYTES + 1, "segment 1 ends after its end"},
		{PH64(1, p_filesz), 8, UINT64_MAX, "segment 1 ends after its end"},
	};
	struct fix *x = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		image_elf(x->fx, true);
		memcpy(x->fx->image + cases[i].at, &cases[i].value, cases[i].width);
		refused(x, cases[i].text);
	}
}

static void test_overlapping_segments(void **state)
{
	struct fix *x = *state;
	unsigned char *b = x->fx->image;

	put32(b, PH64(1, p_type), PT_LOAD);
	put64(b, PH64(1, p_memsz), 1);
	put64(b, PH64(1, p_paddr), ELF_LOAD + ELF_MEM_BYTES - 1);
	refused(x, "segments 0 and 1 overlap");
	put64(b, PH64(1, p_paddr), ELF_LOAD);
	refused(x, "segments 0 and 1 overlap");
	put64(b, PH64(1, p_paddr), ELF_LOAD - 1);
	assert_int_equal(parse(x), 0);
	put64(b, PH64(1, p_memsz), 2);
	refused(x, "segments 0 and 1 overlap");
	put64(b, PH64(1, p_paddr), ELF_LOAD + ELF_MEM_BYTES);
	assert_int_equal(parse(x), 0);
	assert_int_equal(x->f.hi, ELF_LOAD + ELF_MEM_BYTES + 2);
	/* An empty one is nowhere. */
	put64(b, PH64(1, p_memsz), 0);
	put64(b, PH64(1, p_paddr), ELF_LOAD + 1);
	assert_int_equal(parse(x), 0);
}

static void test_notes(void **state)
{
	struct fix *x = *state;
	const unsigned char *desc;
	size_t len;

	assert_int_equal(parse(x), 0);
	assert_false(elf_note(&x->f, "Xen", 18, &desc, &len));
	image_add_note(x->fx, 18, "abcdefgh", 8);
	assert_int_equal(parse(x), 0);
	assert_true(elf_note(&x->f, "Xen", 18, &desc, &len));
	assert_int_equal(len, 8);
	assert_memory_equal(desc, "abcdefgh", 8);
	assert_false(elf_note(&x->f, "Xen", 17, &desc, &len));
	assert_false(elf_note(&x->f, "Xeo", 18, &desc, &len));
	assert_false(elf_note(&x->f, "Xe", 18, &desc, &len));
	/* A second note, behind one with an odd description. */
	memset(x->fx->image + ELF_NOTE_AT, 0, 0x40);
	image_add_note(x->fx, 1, "xyz", 3);
	memcpy(x->fx->image + ELF_NOTE_AT + 20, x->fx->image + ELF_NOTE_AT, 20);
	put32(x->fx->image, ELF_NOTE_AT + 28, 18);
	put64(x->fx->image, PH64(1, p_filesz), 40);
	assert_int_equal(parse(x), 0);
	assert_true(elf_note(&x->f, "Xen", 18, &desc, &len));
	assert_ptr_equal(desc, x->fx->image + ELF_NOTE_AT + 36);
}

static void test_broken_notes(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} cases[] = {
		{ELF_NOTE_AT, 0},          {ELF_NOTE_AT, 5},
		{ELF_NOTE_AT, 13},         {ELF_NOTE_AT, UINT32_MAX},
		{ELF_NOTE_AT, UINT32_MAX - 12},
		{ELF_NOTE_AT + 4, 9},      {ELF_NOTE_AT + 4, UINT32_MAX},
		{ELF_NOTE_AT + 4, UINT32_MAX - 7},
	};
	struct fix *x = *state;
	const unsigned char *desc;
	size_t len;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		image_elf(x->fx, true);
		image_add_note(x->fx, 18, "abcdefgh", 8);
		put32(x->fx->image, cases[i].at, cases[i].value);
		assert_int_equal(parse(x), 0);
		assert_false(elf_note(&x->f, "Xen", 18, &desc, &len));
	}
	/* The segment ends within the note. */
	for (uint64_t bytes = 0; bytes < 24; bytes++) {
		image_elf(x->fx, true);
		image_add_note(x->fx, 18, "abcdefgh", 8);
		put64(x->fx->image, PH64(1, p_filesz), bytes);
		assert_int_equal(parse(x), 0);
		assert_false(elf_note(&x->f, "Xen", 18, &desc, &len));
	}
}

static void test_virtual_addresses(void **state)
{
	struct fix *x = *state;
	uint64_t at = 0;

	put64(x->fx->image, PH64(0, p_vaddr), 0xffffffff80000000);
	assert_int_equal(parse(x), 0);
	assert_true(elf_vaddr_to_paddr(&x->f, 0xffffffff80000123, &at));
	assert_int_equal(at, ELF_LOAD + 0x123);
	assert_true(elf_vaddr_to_paddr(&x->f, 0xffffffff80000000 + ELF_MEM_BYTES - 1, &at));
	assert_false(elf_vaddr_to_paddr(&x->f, 0xffffffff80000000 + ELF_MEM_BYTES, &at));
	assert_false(elf_vaddr_to_paddr(&x->f, 0xffffffff7fffffff, &at));
}

static void test_truncated(void **state)
{
	struct fix *x = *state;

	for (int is_64 = 0; is_64 < 2; is_64++) {
		image_elf(x->fx, is_64);
		for (size_t len = 0; len < ELF_FILE_BYTES; len++) {
			unsigned char *cut = malloc(len ? len : 1);

			assert_non_null(cut);
			memcpy(cut, x->fx->image, len);
			assert_int_equal(elf_parse("k", cut, len, &x->f, &x->err), -ENOEXEC);
			free(cut);
		}
	}
}

/* What the small guest's loader relies on. */
static void test_elf_load(void **state)
{
	struct fix *x = *state;
	uint64_t entry = 1;

	assert_int_equal(elf_load(x->fx->image, ELF_FILE_BYTES, &x->fx->ram.mem,
				  ELF_LOAD + ELF_MEM_BYTES, &entry, &x->err), 0);
	assert_int_equal(entry, ELF_ENTRY);
	entry = 1;
	assert_int_equal(elf_load(x->fx->image, ELF_FILE_BYTES, &x->fx->ram.mem, ELF_LOAD,
				  &entry, &x->err), -ENOEXEC);
	image_elf(x->fx, false);
	assert_int_equal(elf_load(x->fx->image, ELF_FILE_BYTES, &x->fx->ram.mem, RAM_BYTES,
				  &entry, &x->err), -ENOEXEC);
	assert_string_equal(x->err.text, "guest image: not a 64-bit ELF file");
	assert_int_equal(entry, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_both_classes),
		T(test_bounds),
		T(test_hostile_headers),
		T(test_overlapping_segments),
		T(test_notes),
		T(test_broken_notes),
		T(test_virtual_addresses),
		T(test_truncated),
		T(test_elf_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
