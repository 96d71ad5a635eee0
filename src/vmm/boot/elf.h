/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads x86 ELF executables, 32-bit and 64-bit, and loads them into guest memory by their
 * program headers. The file is checked as hostile input; nothing is written before all of
 * its headers have been. Pure: bytes in, guest memory out.
 * Test: tests/unit/elf_test.c.
 */
#ifndef VMM_ELF_H
#define VMM_ELF_H

#include "base/err.h"
#include "vmm/memory/guest_mem.h"

#define ELF_SEGMENTS_MAX 64

/* One program header, of either class. */
struct elf_segment {
	uint32_t type;
	uint64_t offset;
	uint64_t paddr;
	uint64_t vaddr;
	uint64_t filesz;
	uint64_t memsz;
	uint64_t align;
};

/* A file whose headers are sound: every segment's bytes lie in it. Points into the bytes. */
struct elf {
	const char *name; /* for errors */
	const unsigned char *bytes;
	size_t len;
	bool is_64;
	uint64_t entry;
	unsigned segment_count;
	struct elf_segment segments[ELF_SEGMENTS_MAX];
	/* What the PT_LOAD segments cover, [lo, hi); at least one byte. */
	uint64_t lo;
	uint64_t hi;
};

/* A segment with memory. */
bool elf_is_loaded(const struct elf_segment *s);

/* True when the file starts like an ELF file, however broken the rest. */
bool elf_is(const unsigned char *bytes, size_t len);

/*
 * Checks the headers of a file. name is used in errors and kept. `-ENOEXEC`: not a statically
 * placed x86 executable, cut short, or its segments overlap; `ret` is undefined then.
 */
int elf_parse(const char *name, const unsigned char *bytes, size_t len, struct elf *ret,
	      struct err *e);

/*
 * Writes every PT_LOAD segment to its physical address. Memory beyond its file size is left
 * as it is (guest memory starts as zeroes). Every segment must lie within [lo, hi), all of which
 * is RAM.
 */
int elf_load_within(const struct elf *f, const struct guest_mem *mem, uint64_t lo, uint64_t hi,
		    struct err *e);

/*
 * The first note of this owner and type in the PT_NOTE segments. *ret points into the file.
 * False: there is none, or the notes before it are broken.
 */
bool elf_note(const struct elf *f, const char *owner, uint32_t type, const unsigned char **ret,
	      size_t *ret_len);

/* Where a virtual address of the file lies in memory by the segments; false: in none. */
bool elf_vaddr_to_paddr(const struct elf *f, uint64_t vaddr, uint64_t *ret);

/*
 * elf_parse and elf_load_within [0, limit) for a 64-bit file. *ret_entry: its entry point.
 */
int elf_load(const unsigned char *image, size_t len, const struct guest_mem *mem, uint64_t limit,
	     uint64_t *ret_entry, struct err *e);

#endif
