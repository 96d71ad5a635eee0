/* SPDX-License-Identifier: Apache-2.0 */
/* See elf.h. System V ABI, "Object Files"; i386 and x86-64 supplements. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "vmm/boot/elf.h"

#ifndef EM_LOONGARCH
#define EM_LOONGARCH 258 /* glibc 2.36 lacks it */
#endif

/* The fields of both classes' file headers that matter here. */
struct file_header {
	uint16_t type;
	uint16_t machine;
	uint64_t phoff;
	uint16_t phentsize;
	uint16_t phnum;
};

bool elf_is(const unsigned char *bytes, size_t len)
{
	return len >= SELFMAG && memcmp(bytes, ELFMAG, SELFMAG) == 0;
}

bool elf_is_loaded(const struct elf_segment *s)
{
	return s->type == PT_LOAD && s->memsz;
}

/* Machines that people have kernels for. */
static const char *type_name(unsigned type)
{
	switch (type) {
	case ET_REL:
		return "an object file or a module";
	case ET_DYN:
		return "a program or a library of some system";
	case ET_CORE:
		return "a core dump";
	default:
		return "nothing that is known";
	}
}

static const char *machine_name(uint16_t machine)
{
	static const struct {
		uint16_t machine;
		const char *name;
	} names[] = {
		{EM_ARM, "arm"},       {EM_AARCH64, "arm64"}, {EM_RISCV, "RISC-V"},
		{EM_PPC, "PowerPC"},   {EM_PPC64, "PowerPC"}, {EM_S390, "s390"},
		{EM_MIPS, "MIPS"},     {EM_SPARCV9, "SPARC"}, {EM_IA_64, "Itanium"},
		{EM_LOONGARCH, "LoongArch"},
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].machine == machine)
			return names[i].name;
	return "another machine";
}

static int read_header(struct elf *f, struct file_header *h, struct err *e)
{
	if (f->is_64) {
		Elf64_Ehdr x;

		if (f->len < sizeof(x))
			return err_set(e, -ENOEXEC, "%s: ELF file cut short: %zu bytes, its header "
				       "alone takes %zu", f->name, f->len, sizeof(x));
		memcpy(&x, f->bytes, sizeof(x));
		f->entry = x.e_entry;
		*h = (struct file_header){x.e_type, x.e_machine, x.e_phoff, x.e_phentsize,
					  x.e_phnum};
	} else {
		Elf32_Ehdr x;

		if (f->len < sizeof(x))
			return err_set(e, -ENOEXEC, "%s: ELF file cut short: %zu bytes, its header "
				       "alone takes %zu", f->name, f->len, sizeof(x));
		memcpy(&x, f->bytes, sizeof(x));
		f->entry = x.e_entry;
		*h = (struct file_header){x.e_type, x.e_machine, x.e_phoff, x.e_phentsize,
					  x.e_phnum};
	}
	return 0;
}

static int check_header(const struct elf *f, const struct file_header *h, struct err *e)
{
	size_t entry_bytes = f->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

	if (h->machine != (f->is_64 ? EM_X86_64 : EM_386))
		return h->machine == EM_386 || h->machine == EM_X86_64
			       ? err_set(e, -ENOEXEC, "%s: ELF file of %u bits for machine %u, "
					 "which has not as many", f->name, f->is_64 ? 64 : 32,
					 h->machine)
			       : err_set(e, -ENOEXEC, "%s: ELF file for %s (machine %u), not for "
					 "x86; an x86 kernel is needed", f->name,
					 machine_name(h->machine), h->machine);
	if (h->type != ET_EXEC)
		return err_set(e, -ENOEXEC, "%s: ELF file of type %u, not a statically placed "
			       "executable (this is %s); a kernel is needed, such as vmlinux",
			       f->name, h->type, type_name(h->type));
	if (h->phentsize != entry_bytes || h->phnum == 0 || h->phnum > ELF_SEGMENTS_MAX)
		return err_set(e, -ENOEXEC, "%s: ELF file with %u program headers of %u bytes "
			       "(1 to %u of %zu are possible)", f->name, h->phnum, h->phentsize,
			       ELF_SEGMENTS_MAX, entry_bytes);
	if (h->phoff > f->len || f->len - h->phoff < h->phnum * entry_bytes)
		return err_set(e, -ENOEXEC, "%s: ELF file cut short within its program headers",
			       f->name);
	return 0;
}

static struct elf_segment read_segment(const struct elf *f, uint64_t phoff, unsigned i)
{
	if (f->is_64) {
		Elf64_Phdr p;

		memcpy(&p, f->bytes + phoff + i * sizeof(p), sizeof(p));
		return (struct elf_segment){p.p_type,	p.p_offset, p.p_paddr, p.p_vaddr,
					    p.p_filesz, p.p_memsz,  p.p_align};
	}
	Elf32_Phdr p;

	memcpy(&p, f->bytes + phoff + i * sizeof(p), sizeof(p));
	return (struct elf_segment){p.p_type,	p.p_offset, p.p_paddr, p.p_vaddr,
				    p.p_filesz, p.p_memsz,  p.p_align};
}

static int check_segment(const struct elf *f, unsigned i, struct err *e)
{
	const struct elf_segment *s = &f->segments[i];

	if (s->type != PT_LOAD && s->type != PT_NOTE)
		return 0;
	if (s->offset > f->len || f->len - s->offset < s->filesz)
		return err_set(e, -ENOEXEC, "%s: ELF file cut short: segment %u ends after its end",
			       f->name, i);
	if (s->type != PT_LOAD)
		return 0;
	if (s->filesz > s->memsz || s->paddr > UINT64_MAX - s->memsz)
		return err_set(e, -ENOEXEC, "%s: ELF file whose segment %u (%llu bytes at %#llx) "
			       "does not fit into memory", f->name, i,
			       (unsigned long long)s->memsz, (unsigned long long)s->paddr);
	for (unsigned k = 0; k < i; k++) {
		const struct elf_segment *o = &f->segments[k];

		if (o->type == PT_LOAD && s->memsz && o->memsz && s->paddr < o->paddr + o->memsz &&
		    o->paddr < s->paddr + s->memsz)
			return err_set(e, -ENOEXEC, "%s: ELF file whose segments %u and %u overlap",
				       f->name, k, i);
	}
	return 0;
}

int elf_parse(const char *name, const unsigned char *bytes, size_t len, struct elf *ret,
	      struct err *e)
{
	struct elf *f = ret;
	struct file_header h = {0};
	int rc;

	*f = (struct elf){.name = name, .bytes = bytes, .len = len, .lo = UINT64_MAX};
	if (!elf_is(bytes, len))
		return err_set(e, -ENOEXEC, "%s: not an ELF file", name);
	if (len < EI_NIDENT)
		return err_set(e, -ENOEXEC, "%s: ELF file cut short: %zu bytes", name, len);
	if (bytes[EI_DATA] != ELFDATA2LSB ||
	    (bytes[EI_CLASS] != ELFCLASS64 && bytes[EI_CLASS] != ELFCLASS32))
		return err_set(e, -ENOEXEC, "%s: ELF file of class %u and byte order %u, not for "
			       "x86", name, bytes[EI_CLASS], bytes[EI_DATA]);
	f->is_64 = bytes[EI_CLASS] == ELFCLASS64;
	rc = read_header(f, &h, e);
	if (rc == 0)
		rc = check_header(f, &h, e);
	for (unsigned i = 0; rc == 0 && i < h.phnum; i++) {
		struct elf_segment *s = &f->segments[i];

		*s = read_segment(f, h.phoff, i);
		f->segment_count = i + 1;
		rc = check_segment(f, i, e);
		if (rc == 0 && s->type == PT_LOAD && s->memsz) {
			f->lo = min_u64(f->lo, s->paddr);
			f->hi = max_u64(f->hi, s->paddr + s->memsz);
		}
	}
	if (rc == 0 && f->lo >= f->hi)
		return err_set(e, -ENOEXEC, "%s: ELF file with nothing to load", name);
	return rc;
}

int elf_load_within(const struct elf *f, const struct guest_mem *mem, uint64_t lo, uint64_t hi,
		    struct err *e)
{
	if (f->lo < lo || f->hi > hi)
		return err_set(e, -ENOEXEC, "%s: ELF file for memory from %#llx to %#llx; there is "
			       "room from %#llx to %#llx", f->name, (unsigned long long)f->lo,
			       (unsigned long long)f->hi, (unsigned long long)lo,
			       (unsigned long long)hi);
	for (unsigned i = 0; i < f->segment_count; i++) {
		const struct elf_segment *s = &f->segments[i];
		void *to;

		if (s->type != PT_LOAD || s->filesz == 0)
			continue;
		to = guest_mem_at(mem, (gpa_t){s->paddr}, s->filesz);
		ASSERT(to); /* within [lo, hi) */
		memcpy(to, f->bytes + s->offset, s->filesz);
	}
	return 0;
}

/* Notes of one segment; the layout of a note is the same in both classes. */
static bool note_in(const struct elf *f, const struct elf_segment *s, const char *owner,
		    uint32_t type, const unsigned char **ret, size_t *ret_len)
{
	/* Segments aligned to 8 hold notes padded to 8 (x86-64 psABI); all others pad to 4. */
	uint64_t pad = s->align == 8 ? 8 : 4;
	uint64_t at = 0;
	Elf64_Nhdr n;

	while (s->filesz - at >= sizeof(n)) {
		const unsigned char *name = f->bytes + s->offset + at + sizeof(n);
		uint64_t desc, next;

		memcpy(&n, f->bytes + s->offset + at, sizeof(n));
		desc = at + align_up(sizeof(n) + (uint64_t)n.n_namesz, pad);
		next = desc + align_up((uint64_t)n.n_descsz, pad);
		if (desc > s->filesz || s->filesz - desc < n.n_descsz)
			return false;
		if (n.n_type == type && n.n_namesz == strlen(owner) + 1 &&
		    memcmp(name, owner, n.n_namesz) == 0) {
			*ret = f->bytes + s->offset + desc;
			*ret_len = n.n_descsz;
			return true;
		}
		if (next > s->filesz)
			return false;
		at = next;
	}
	return false;
}

bool elf_note(const struct elf *f, const char *owner, uint32_t type, const unsigned char **ret,
	      size_t *ret_len)
{
	for (unsigned i = 0; i < f->segment_count; i++)
		if (f->segments[i].type == PT_NOTE &&
		    note_in(f, &f->segments[i], owner, type, ret, ret_len))
			return true;
	return false;
}

bool elf_vaddr_to_paddr(const struct elf *f, uint64_t vaddr, uint64_t *ret)
{
	for (unsigned i = 0; i < f->segment_count; i++) {
		const struct elf_segment *s = &f->segments[i];

		if (s->type == PT_LOAD && vaddr >= s->vaddr && vaddr - s->vaddr < s->memsz) {
			*ret = s->paddr + (vaddr - s->vaddr);
			return true;
		}
	}
	return false;
}

int elf_load(const unsigned char *image, size_t len, const struct guest_mem *mem, uint64_t limit,
	     uint64_t *ret_entry, struct err *e)
{
	struct elf f;
	int rc = elf_parse("guest image", image, len, &f, e);

	if (rc == 0 && !f.is_64)
		rc = err_set(e, -ENOEXEC, "guest image: not a 64-bit ELF file");
	if (rc == 0)
		rc = elf_load_within(&f, mem, 0, limit, e);
	if (rc == 0)
		*ret_entry = f.entry;
	return rc;
}
