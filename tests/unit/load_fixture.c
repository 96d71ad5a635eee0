/* SPDX-License-Identifier: Apache-2.0 */
/* See load_fixture.h. */
#include "load_fixture.h"

void ram_init(struct ram *r, uint64_t low_bytes, uint64_t high_bytes)
{
	r->len = low_bytes;
	r->bytes = mmap(NULL, low_bytes + PAGE_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(r->bytes != MAP_FAILED);
	(void)madvise(r->bytes, low_bytes, MADV_NOHUGEPAGE);
	assert_int_equal(mprotect(r->bytes + low_bytes, PAGE_BYTES, PROT_NONE), 0);
	/* Loaders write to the lower range only. */
	r->mem = (struct guest_mem){
		.low = r->bytes, .low_bytes = low_bytes, .high_bytes = high_bytes};
}

void ram_fini(struct ram *r)
{
	munmap(r->bytes, r->len + PAGE_BYTES);
}

void ram_clear(struct ram *r)
{
	assert_int_equal(madvise(r->bytes, r->len, MADV_DONTNEED), 0);
}

void ram_touched(const struct ram *r, unsigned char ret[RAM_BYTES / PAGE_BYTES])
{
	assert_true(r->len <= RAM_BYTES);
	assert_int_equal(mincore(r->bytes, r->len, ret), 0);
}

bool ram_is_untouched(const struct ram *r)
{
	unsigned char pages[RAM_BYTES / PAGE_BYTES] = {0}, any = 0;

	ram_touched(r, pages);
	for (size_t i = 0; i < sizeof(pages); i++)
		any |= pages[i];
	return !(any & 1);
}

struct fx *fx_open(void)
{
	struct fx *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	ram_init(&f->ram, RAM_BYTES, 0);
	f->cfg = (struct load_cfg){
		.mem = &f->ram.mem,
		.kernel = {.name = "dir/k", .bytes = f->image},
		.cmdline = "console=ttyS0 quiet",
		.acpi_rsdp = {0xe0000},
	};
	return f;
}

void fx_close(struct fx *f)
{
	ram_fini(&f->ram);
	free(f);
}

int fx_load(struct fx *f)
{
	ram_clear(&f->ram);
	f->err = (struct err){0};
	return load_kernel(&f->cfg, &f->ret, &f->err);
}

void fx_refused(struct fx *f, int code, const char *text)
{
	int rc = fx_load(f);

	if (rc != code || !strstr(f->err.text, text))
		print_error("%d (expected %d): \"%s\" (expected \"%s\")\n", rc, code, f->err.text,
			    text);
	assert_int_equal(rc, code);
	assert_int_equal(f->err.code, code);
	assert_non_null(strstr(f->err.text, text));
}

void fx_truncate(struct fx *f, size_t spare)
{
	size_t full = f->cfg.kernel.len;

	for (size_t len = 0; len < full - spare; len++) {
		unsigned char *cut = malloc(len ? len : 1);

		assert_non_null(cut);
		memcpy(cut, f->image, len);
		f->cfg.kernel.bytes = cut;
		f->cfg.kernel.len = len;
		fx_refused(f, -ENOEXEC, "dir/k: ");
		assert_true(ram_is_untouched(&f->ram));
		free(cut);
	}
	f->cfg.kernel.bytes = f->image;
	f->cfg.kernel.len = full;
}

bool fx_in(uint64_t at, uint64_t start, uint64_t end)
{
	return at + PAGE_BYTES > start && at < end;
}

void fx_sound(const struct fx *f)
{
	unsigned char pages[RAM_BYTES / PAGE_BYTES] = {0};
	const struct load_result *r = &f->ret;
	uint64_t ram = f->ram.mem.low_bytes;
	uint64_t shift = r->entry.gdt.v - LOAD_GDT_GPA;

	assert_true(r->kernel_start < r->kernel_end);
	assert_true(r->kernel_start >= LOAD_KERNEL_MIN ||
		    (r->kind == LOAD_MULTIBOOT && r->kernel_start >= 0x500));
	assert_true(LOAD_STRINGS_END + shift <= LOAD_LOW_END);
	assert_true(r->kernel_end <= ram);
	assert_true(r->entry.rip >= r->kernel_start && r->entry.rip < r->kernel_end);
	if (r->modules_end) {
		assert_true(r->modules_start >= r->kernel_end);
		assert_true(r->modules_start < r->modules_end && r->modules_end <= ram);
	}
	/* Nothing was written elsewhere. */
	ram_touched(&f->ram, pages);
	for (uint64_t at = 0; at < f->ram.len; at += PAGE_BYTES)
		assert_true(!(pages[at / PAGE_BYTES] & 1) ||
			    (at == 0 && r->kind == LOAD_MULTIBOOT) ||
			    fx_in(at, LOAD_GDT_GPA + shift, LOAD_STACK_GPA + shift) ||
			    fx_in(at, LOAD_STRINGS_GPA + shift, LOAD_STRINGS_END + shift) ||
			    fx_in(at, r->kernel_start, r->kernel_end) ||
			    fx_in(at, r->modules_start, r->modules_end));
}

void fx_mutate(struct prng *rng, unsigned char *image, size_t head)
{
	static const uint64_t edges[] = {
		0, 1, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x7fff, 0xffff, 0x100000,
		0x200000, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff, 0x100000000,
		0x7fffffffffffffff, 0xfffffffffffff000, UINT64_MAX,
	};

	for (uint64_t n = 1 + prng_below(rng, 4); n > 0; n--) {
		size_t width = 1u << prng_below(rng, 4);
		size_t at = prng_below(rng, head - width);
		uint64_t value = prng_below(rng, 2) ? edges[prng_below(rng, ARRAY_LEN(edges))]
						    : prng_next(rng);

		memcpy(image + at, &value, width);
	}
}

void fx_mutation_loop(struct fx *f, size_t from, size_t head, unsigned count)
{
	unsigned char good[IMAGE_MAX];
	unsigned accepted = 0;
	struct prng rng;

	prng_init(&rng, 20230611);
	memcpy(good, f->image, sizeof(good));
	for (unsigned i = 0; i < count; i++) {
		fx_mutate(&rng, f->image + from, head);
		if (fx_load(f) == 0) {
			fx_sound(f);
			accepted++;
		} else {
			assert_true(f->err.code < 0 && strlen(f->err.text) > 10);
		}
		memcpy(f->image, good, sizeof(good));
	}
	assert_true(accepted > count / 100);
}

/* ---- kernels ---- */

void image_noise(unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 8) + 1);
}

void image_bzimage(struct fx *f)
{
	unsigned char *b = f->image;

	memset(b, 0, sizeof(f->image));
	b[0x1f1] = 1;
	put32(b, 0x1f4, BZ_CODE_BYTES / 16);
	put16(b, 0x1fe, 0xaa55);
	put16(b, 0x200, 0x6aeb); /* a jump to 0x26c, where the header ends */
	memcpy(b + 0x202, "HdrS", 4);
	put16(b, 0x206, 0x20f);
	b[0x211] = 1;
	put32(b, 0x22c, 0x7fffffff);
	put32(b, 0x230, 0x200000);
	b[0x234] = 1;
	put16(b, 0x236, 0x3f);
	put32(b, 0x238, 2047);
	put64(b, 0x258, BZ_LOAD);
	put32(b, 0x260, BZ_INIT_SIZE);
	image_noise(b + 1024, BZ_CODE_BYTES);
	f->cfg.kernel.len = 1024 + BZ_CODE_BYTES;
}

void image_elf(struct fx *f, bool is_64)
{
	static const unsigned char ident[] = {0x7f, 'E', 'L', 'F', 0, ELFDATA2LSB, EV_CURRENT};
	unsigned char *b = f->image;

	memset(b, 0, sizeof(f->image));
	image_noise(b + ELF_NOISE_AT, ELF_FILE_BYTES - ELF_NOISE_AT);
	if (is_64) {
		Elf64_Ehdr h = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1,
				.e_entry = ELF_ENTRY, .e_phoff = sizeof(h), .e_ehsize = sizeof(h),
				.e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2};
		Elf64_Phdr p[2] = {
			{.p_type = PT_LOAD, .p_vaddr = ELF_LOAD, .p_paddr = ELF_LOAD,
			 .p_filesz = ELF_FILE_BYTES, .p_memsz = ELF_MEM_BYTES},
			{.p_type = PT_NOTE, .p_offset = ELF_NOTE_AT, .p_align = 4}};

		memcpy(b, &h, sizeof(h));
		memcpy(b + sizeof(h), p, sizeof(p));
	} else {
		Elf32_Ehdr h = {.e_type = ET_EXEC, .e_machine = EM_386, .e_version = 1,
				.e_entry = ELF_ENTRY, .e_phoff = sizeof(h), .e_ehsize = sizeof(h),
				.e_phentsize = sizeof(Elf32_Phdr), .e_phnum = 2};
		Elf32_Phdr p[2] = {
			{.p_type = PT_LOAD, .p_vaddr = ELF_LOAD, .p_paddr = ELF_LOAD,
			 .p_filesz = ELF_FILE_BYTES, .p_memsz = ELF_MEM_BYTES},
			{.p_type = PT_NOTE, .p_offset = ELF_NOTE_AT, .p_align = 4}};

		memcpy(b, &h, sizeof(h));
		memcpy(b + sizeof(h), p, sizeof(p));
	}
	memcpy(b, ident, sizeof(ident));
	b[EI_CLASS] = is_64 ? ELFCLASS64 : ELFCLASS32;
	f->cfg.kernel.len = ELF_FILE_BYTES;
}

void image_add_note(struct fx *f, uint32_t type, const void *desc, uint32_t len)
{
	unsigned char *b = f->image;
	uint32_t bytes = 16 + (uint32_t)align_up(len, 4);

	put32(b, ELF_NOTE_AT, 4);
	put32(b, ELF_NOTE_AT + 4, len);
	put32(b, ELF_NOTE_AT + 8, type);
	memcpy(b + ELF_NOTE_AT + 12, "Xen", 4);
	memcpy(b + ELF_NOTE_AT + 16, desc, len);
	if (b[EI_CLASS] == ELFCLASS64)
		put64(b, PH64(1, p_filesz), bytes);
	else
		put32(b, PH32(1, p_filesz), bytes);
}

void image_pvh(struct fx *f, bool is_64)
{
	uint64_t entry = PVH_ENTRY;

	image_elf(f, is_64);
	image_add_note(f, 18, &entry, is_64 ? 8 : 4);
}

void image_multiboot_header(unsigned char *h, uint32_t flags)
{
	put32(h, 0, 0x1badb002);
	put32(h, 4, flags);
	put32(h, 8, -(0x1badb002u + flags));
}

void image_multiboot(struct fx *f, bool is_64)
{
	image_elf(f, is_64);
	image_multiboot_header(f->image + ELF_HEADER_AT, 3);
}
