/* SPDX-License-Identifier: Apache-2.0 */
/* See elf.h. System V ABI, "Object Files"; x86-64 supplement. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "vmm/elf.h"

#define SEGMENTS_MAX 64

static int check_header(const Elf64_Ehdr *h, size_t len, struct err *e)
{
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
		return err_set(e, -ENOEXEC, "guest image: not an ELF file");
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB ||
	    h->e_machine != EM_X86_64)
		return err_set(e, -ENOEXEC, "guest image: not a 64-bit x86 ELF file");
	if (h->e_type != ET_EXEC)
		return err_set(e, -ENOEXEC, "guest image: not a statically placed executable");
	if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 || h->e_phnum > SEGMENTS_MAX)
		return err_set(e, -ENOEXEC, "guest image: %u program headers of %u bytes",
			       h->e_phnum, h->e_phentsize);
	if (h->e_phoff > len || len - h->e_phoff < (size_t)h->e_phnum * sizeof(Elf64_Phdr))
		return err_set(e, -ENOEXEC, "guest image: cut short within its program headers");
	return 0;
}

static int load_segment(const Elf64_Phdr *p, const unsigned char *image, size_t len,
			uint64_t limit, elf_write write, void *ctx, struct err *e)
{
	int rc;

	if (p->p_offset > len || len - p->p_offset < p->p_filesz)
		return err_set(e, -ENOEXEC, "guest image: cut short within a segment");
	if (p->p_filesz > p->p_memsz || p->p_memsz > limit || p->p_paddr > limit - p->p_memsz)
		return err_set(e, -ENOEXEC, "guest image: a segment at %#llx does not fit",
			       (unsigned long long)p->p_paddr);
	if (p->p_filesz == 0)
		return 0;
	rc = write(ctx, (gpa_t){p->p_paddr}, image + p->p_offset, p->p_filesz);
	return rc < 0 ? err_sys(e, rc, "guest image: loading a segment") : 0;
}

int elf_load(const unsigned char *image, size_t len, uint64_t limit, elf_write write, void *ctx,
	     uint64_t *ret_entry, struct err *e)
{
	Elf64_Ehdr h;
	int rc;

	if (len < sizeof(h))
		return err_set(e, -ENOEXEC, "guest image: %zu bytes are too few for an ELF file",
			       len);
	memcpy(&h, image, sizeof(h));
	rc = check_header(&h, len, e);
	for (unsigned i = 0; rc == 0 && i < h.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, image + h.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_LOAD)
			rc = load_segment(&p, image, len, limit, write, ctx, e);
	}
	if (rc == 0)
		*ret_entry = h.e_entry;
	return rc;
}
