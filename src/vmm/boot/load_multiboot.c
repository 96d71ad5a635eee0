/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See load_multiboot.h. Facts: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2
 * (machine state) and 3.3 (boot information format).
 */
#include <errno.h>

#include "vmm/boot/elf.h"
#include "vmm/boot/load_multiboot.h"
#include "vmm/boot/load_parts.h"
#include "vmm/memory/bytes.h"

#define HEADER_MAGIC 0x1badb002
#define HEADER_WITHIN 8192 /* it lies in that many first bytes of the file, 4-aligned */
#define HEADER_BYTES 12
#define HEADER_ADDRESSES_BYTES 32
#define FLAG_PAGE_ALIGN (1u << 0)
#define FLAG_MEMORY (1u << 1)
#define FLAG_VIDEO (1u << 2)
#define FLAGS_REQUIRED 0xffffu /* who does not understand one of these must refuse */
#define FLAG_ADDRESSES (1u << 16)

#define BOOT_MAGIC 0x2badb002
#define INFO_BYTES 116
#define INFO_MODULE_BYTES 16
#define INFO_RANGE_BYTES 24 /* with its size field, which does not count itself */
#define INFO_HAS_MEMORY (1u << 0)
#define INFO_HAS_CMDLINE (1u << 2)
#define INFO_HAS_MODULES (1u << 3)
#define INFO_HAS_MAP (1u << 6)
#define INFO_HAS_LOADER (1u << 9)

/* Within the page at LOAD_INFO_GPA. */
#define RANGES_AT 128
#define MODULES_AT (RANGES_AT + LOAD_RANGES_MAX * INFO_RANGE_BYTES)

_Static_assert(INFO_BYTES <= RANGES_AT, "the structure ends before the map");
_Static_assert(MODULES_AT + LOAD_MODULES_MAX * INFO_MODULE_BYTES <= PAGE_BYTES, "one page");

/* What will be loaded, whoever said so. */
struct multiboot {
	uint32_t flags;
	size_t header; /* where it is in the file */
	uint64_t lo;
	uint64_t hi;
	uint64_t entry;
	/* With FLAG_ADDRESSES: the bytes to load. */
	size_t offset;
	size_t bytes;
	bool is_elf; /* else the bytes, and zeroes up to hi, are one piece */
	struct elf elf;
	uint64_t shift; /* of the area from where LOAD_GDT_GPA and the like say */
};

static bool find_header(const unsigned char *bytes, size_t len, size_t *ret)
{
	size_t end = min_u64(len, HEADER_WITHIN);

	for (size_t at = 0; at + HEADER_BYTES <= end; at += 4) {
		uint32_t flags = get32(bytes, at + 4);

		if (get32(bytes, at) == HEADER_MAGIC &&
		    HEADER_MAGIC + flags + get32(bytes, at + 8) == 0) {
			*ret = at;
			return true;
		}
	}
	return false;
}

bool multiboot_is(const unsigned char *bytes, size_t len, bool *ret_has_addresses)
{
	size_t at;

	if (!find_header(bytes, len, &at))
		return false;
	if (ret_has_addresses)
		*ret_has_addresses = get32(bytes, at + 4) & FLAG_ADDRESSES;
	return true;
}

/* ---- where things go ---- */

/*
 * What the loader leaves for the kernel, from the GDT to the strings, is one area below 640 KiB. It
 * goes where the kernel is not: a kernel of real mode lies there itself.
 */
#define AREA_GPA LOAD_GDT_GPA
#define AREA_BYTES (LOAD_STRINGS_END - LOAD_GDT_GPA)
/* Below is what a BIOS leaves: the interrupt vectors of real mode and its data. */
#define LOW_MIN 0x500ull

static bool meets(uint64_t gpa, uint64_t bytes, uint64_t area)
{
	return bytes && gpa < area + AREA_BYTES && area < gpa + bytes;
}

/* One piece of the kernel must be in RAM that is the kernel's. */
static int check_piece(const struct load_cfg *c, uint64_t gpa, uint64_t bytes, struct err *e)
{
	uint64_t ram = c->mem->low_bytes;

	if (gpa >= LOW_MIN && gpa <= LOAD_LOW_END && bytes <= LOAD_LOW_END - gpa)
		return 0;
	if (gpa >= LOAD_KERNEL_MIN && gpa <= ram && bytes <= ram - gpa)
		return 0;
	return err_set(e, -ENOEXEC, "%s: multiboot kernel for memory from %#llx to %#llx; there is "
		       "room from %#llx to %#llx and from %#llx to %#llx", c->kernel.name,
		       (unsigned long long)gpa, (unsigned long long)(gpa + bytes), LOW_MIN,
		       LOAD_LOW_END, LOAD_KERNEL_MIN, (unsigned long long)ram);
}

/* Section 3.1.3, "the address fields of Multiboot header": these replace the ELF headers. */
static int read_addresses(const struct load_cfg *c, struct multiboot *m, struct err *e)
{
	const unsigned char *h = c->kernel.bytes + m->header;
	uint64_t header_addr, load, load_end, bss_end;
	uint64_t behind; /* bytes of the file from the one that goes to `load` */

	if (c->kernel.len - m->header < HEADER_ADDRESSES_BYTES)
		return err_set(e, -ENOEXEC, "%s: multiboot kernel cut short within its header",
			       c->kernel.name);
	header_addr = get32(h, 12);
	load = get32(h, 16);
	load_end = get32(h, 20);
	bss_end = get32(h, 24);
	m->entry = get32(h, 28);
	if (header_addr < load || header_addr - load > m->header)
		return err_set(e, -ENOEXEC, "%s: multiboot kernel whose header at %#llx does not "
			       "agree with its load address %#llx", c->kernel.name,
			       (unsigned long long)header_addr, (unsigned long long)load);
	m->offset = m->header - (header_addr - load);
	behind = c->kernel.len - m->offset;
	if (load_end == 0)
		load_end = load + behind;
	if (load_end <= load || load_end - load > behind)
		return err_set(e, -ENOEXEC, "%s: multiboot kernel cut short: %llu bytes of %llu",
			       c->kernel.name, (unsigned long long)behind,
			       (unsigned long long)(load_end - load));
	if (bss_end != 0 && bss_end < load_end)
		return err_set(e, -ENOEXEC, "%s: multiboot kernel whose memory ends at %#llx, its "
			       "bytes at %#llx", c->kernel.name, (unsigned long long)bss_end,
			       (unsigned long long)load_end);
	m->bytes = load_end - load;
	m->lo = load;
	m->hi = max_u64(load_end, bss_end);
	return check_piece(c, m->lo, m->hi - m->lo, e);
}

static int read_elf(const struct load_cfg *c, struct multiboot *m, struct err *e)
{
	const struct elf *f = &m->elf;
	int rc;

	if (!elf_is(c->kernel.bytes, c->kernel.len))
		return err_set(e, -ENOEXEC, "%s: multiboot kernel that is not an ELF file and has "
			       "no addresses in its header", c->kernel.name);
	rc = elf_parse(c->kernel.name, c->kernel.bytes, c->kernel.len, &m->elf, e);
	for (unsigned i = 0; rc == 0 && i < f->segment_count; i++)
		if (elf_is_loaded(&f->segments[i]))
			rc = check_piece(c, f->segments[i].paddr, f->segments[i].memsz, e);
	if (rc < 0)
		return rc;
	m->is_elf = true;
	m->lo = f->lo;
	m->hi = f->hi;
	m->entry = f->entry;
	/* The entry point of a kernel that runs elsewhere than it is loaded is virtual. */
	if (m->entry < m->lo || m->entry >= m->hi)
		elf_vaddr_to_paddr(f, f->entry, &m->entry);
	return 0;
}

static bool kernel_meets(const struct multiboot *m, uint64_t area)
{
	const struct elf *f = &m->elf;

	if (!m->is_elf)
		return meets(m->lo, m->hi - m->lo, area);
	for (unsigned i = 0; i < f->segment_count; i++)
		if (elf_is_loaded(&f->segments[i]) &&
		    meets(f->segments[i].paddr, f->segments[i].memsz, area))
			return true;
	return false;
}

/* And its bytes into memory. */
static int place(const struct load_cfg *c, struct multiboot *m, struct err *e)
{
	while (kernel_meets(m, AREA_GPA + m->shift)) {
		m->shift += PAGE_BYTES;
		if (AREA_GPA + m->shift + AREA_BYTES > LOAD_LOW_END)
			return err_set(e, -ENOEXEC, "%s: multiboot kernel that leaves no %llu KiB "
				       "free below 640 KiB, for what it is told",
				       c->kernel.name, AREA_BYTES >> 10);
	}
	if (m->is_elf)
		return elf_load_within(&m->elf, c->mem, 0, c->mem->low_bytes, e);
	load_put(c, m->lo, c->kernel.bytes + m->offset, m->bytes);
	return 0;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int put_modules(const struct load_cfg *c, const struct multiboot *m, unsigned char *info,
		       struct load_strings *strings, struct load_result *ret, struct err *e)
{
	uint64_t starts[LOAD_MODULES_MAX] = {0};
	uint64_t behind = max_u64(m->hi, LOAD_KERNEL_MIN);
	uint64_t room = align_up(behind, PAGE_BYTES);
	int rc;

	/*
	 * Right behind the kernel, where other loaders put them: a small kernel may not map
	 * more than that. What they take is the sum of their pages.
	 */
	for (unsigned i = 0; i < c->modules_count; i++) {
		if (c->modules[i].len > c->mem->low_bytes)
			room = c->mem->low_bytes; /* refused below */
		else
			room += align_up(c->modules[i].len, PAGE_BYTES);
	}
	rc = load_put_modules(c, behind, room, starts, ret, e);
	for (unsigned i = 0; rc == 0 && i < c->modules_count; i++) {
		size_t at = MODULES_AT + i * (size_t)INFO_MODULE_BYTES;

		put32(info, at, (uint32_t)starts[i]);
		put32(info, at + 4, (uint32_t)(starts[i] + c->modules[i].len));
		put32(info, at + 8, (uint32_t)strings->at);
		rc = load_put_string(c, strings, base_name(c->modules[i].name), "", e);
	}
	return rc;
}

static void put_map(const struct load_cfg *c, uint64_t info_gpa, unsigned char *info)
{
	struct load_range map[LOAD_RANGES_MAX];
	unsigned n = load_map(c->mem, map);

	put32(info, 4, LOAD_LOW_END / 1024);
	put32(info, 8, (uint32_t)((c->mem->low_bytes - LOAD_KERNEL_MIN) / 1024));
	put32(info, 44, n * INFO_RANGE_BYTES);
	put32(info, 48, (uint32_t)info_gpa + RANGES_AT);
	for (unsigned i = 0; i < n; i++) {
		size_t at = RANGES_AT + i * (size_t)INFO_RANGE_BYTES;

		put32(info, at, INFO_RANGE_BYTES - 4);
		put64(info, at + 4, map[i].base);
		put64(info, at + 12, map[i].bytes);
		put32(info, at + 20, map[i].type);
	}
}

/*
 * There is no BIOS, but a kernel may ask one all the same (Xen): each of its calls fails, by a
 * vector of real mode that leads to a few instructions. And two words of its data area, as a
 * kernel may go by the smaller of these and what it is told: where the EBDA is, and the KiB of base
 * memory.
 */
#define BIOS_VECTORS 256
#define BDA_EBDA_SEGMENT 0x40eull
#define BDA_BASE_MEMORY 0x413ull
#define BIOS_CALL_GPA 0x4f0ull /* 16 bytes that a BIOS leaves to others */

static void put_bios(const struct load_cfg *c)
{
	static const unsigned char fail[] = {
		0x55,			/* push %bp */
		0x89, 0xe5,		/* mov %sp, %bp */
		0x80, 0x4e, 0x06, 0x01, /* orb $1, 6(%bp): carry, where IRET takes it from */
		0x5d,			/* pop %bp */
		0xcf,			/* iret */
	};
	unsigned char vectors[4 * BIOS_VECTORS] = {0}, word[2];

	_Static_assert(BIOS_CALL_GPA + sizeof(fail) <= LOW_MIN, "below what may be the kernel's");
	for (size_t i = 0; i < sizeof(vectors); i += 4)
		put16(vectors, i, BIOS_CALL_GPA);
	load_put(c, 0, vectors, sizeof(vectors));
	load_put(c, BIOS_CALL_GPA, fail, sizeof(fail));
	put16(word, 0, LOAD_LOW_END >> 4);
	load_put(c, BDA_EBDA_SEGMENT, word, sizeof(word));
	put16(word, 0, LOAD_LOW_END >> 10);
	load_put(c, BDA_BASE_MEMORY, word, sizeof(word));
}

static int put_info(const struct load_cfg *c, const struct multiboot *m, struct load_result *ret,
		    struct err *e)
{
	unsigned char info[PAGE_BYTES] = {0};
	uint64_t gpa = LOAD_INFO_GPA + m->shift;
	struct load_strings strings = {LOAD_STRINGS_GPA + m->shift, LOAD_STRINGS_END + m->shift};
	int rc;

	put32(info, 0, INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MODULES | INFO_HAS_MAP |
			       INFO_HAS_LOADER);
	/* The kernel's own name comes first, as from other loaders: it is argv[0]. */
	put32(info, 16, (uint32_t)strings.at);
	rc = load_put_string(c, &strings, base_name(c->kernel.name), c->cmdline ? c->cmdline : "",
			     e);
	put32(info, 20, c->modules_count);
	put32(info, 24, c->modules_count ? (uint32_t)gpa + MODULES_AT : 0);
	put_map(c, gpa, info);
	put32(info, 64, (uint32_t)strings.at);
	if (rc == 0)
		rc = load_put_string(c, &strings, "asyncpf", "", e);
	if (rc == 0)
		rc = put_modules(c, m, info, &strings, ret, e);
	if (rc == 0)
		load_put(c, gpa, info, sizeof(info));
	return rc;
}

int multiboot_load(const struct load_cfg *c, struct load_result *ret, struct err *e)
{
	struct multiboot m = {0};
	int rc;

	if (!find_header(c->kernel.bytes, c->kernel.len, &m.header))
		return err_set(e, -ENOEXEC, "%s: not a multiboot kernel", c->kernel.name);
	m.flags = get32(c->kernel.bytes, m.header + 4);
	if (m.flags & FLAGS_REQUIRED & ~(FLAG_PAGE_ALIGN | FLAG_MEMORY))
		return err_set(e, -ENOEXEC, "%s: multiboot kernel that demands %s (flags %#x)",
			       c->kernel.name,
			       m.flags & FLAG_VIDEO ? "a video mode" : "what is not specified",
			       m.flags);
	rc = m.flags & FLAG_ADDRESSES ? read_addresses(c, &m, e) : read_elf(c, &m, e);
	if (rc < 0)
		return rc;
	if (m.entry < m.lo || m.entry >= m.hi)
		return err_set(e, -ENOEXEC, "%s: multiboot kernel whose entry point %#llx is "
			       "not in it (%#llx to %#llx)", c->kernel.name,
			       (unsigned long long)m.entry, (unsigned long long)m.lo,
			       (unsigned long long)m.hi);
	rc = place(c, &m, e);
	if (rc == 0)
		rc = put_info(c, &m, ret, e);
	if (rc < 0)
		return rc;
	put_bios(c);
	ret->kind = LOAD_MULTIBOOT;
	ret->kernel_start = m.lo;
	ret->kernel_end = m.hi;
	ret->entry = (struct kvmp_entry){
		.mode = KVMP_PROTECTED,
		.rip = m.entry,
		.rax = BOOT_MAGIC,
		.rbx = LOAD_INFO_GPA + m.shift,
		.rsp = LOAD_STACK_GPA + m.shift,
	};
	load_put_gdt(c, LOAD_GDT_GPA + m.shift, &ret->entry);
	return 0;
}
