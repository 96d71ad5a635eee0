/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loaders' tests stand on: guest memory that knows which pages were written, and
 * kernels built in memory, right in everything, for the tests to spoil.
 */
#ifndef TESTS_LOAD_FIXTURE_H
#define TESTS_LOAD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/prng.h"
#include "vmm/boot/load.h"
#include "vmm/boot/load_parts.h"
#include "vmm/memory/bytes.h"

#define RAM_BYTES (8ull << 20)
#define IMAGE_MAX 8192

struct ram {
	struct guest_mem mem;
	unsigned char *bytes;
	size_t len; /* a page that nobody may touch lies behind */
};

struct fx {
	struct ram ram;
	unsigned char image[IMAGE_MAX];
	struct load_cfg cfg;
	struct load_result ret;
	struct err err;
};

void ram_init(struct ram *r, uint64_t low_bytes, uint64_t high_bytes);
void ram_fini(struct ram *r);

/* Back to zeroes, and to pages that nobody has touched. */
void ram_clear(struct ram *r);

/* Who touched a page since then: ret[page] & 1. */
void ram_touched(const struct ram *r, unsigned char ret[RAM_BYTES / PAGE_BYTES]);
bool ram_is_untouched(const struct ram *r);
struct fx *fx_open(void);
void fx_close(struct fx *f);
int fx_load(struct fx *f);

/* Fails with this code, and with a text that has this in it. */
void fx_refused(struct fx *f, int code, const char *text);

/*
 * A file that ends early must be refused, wherever it ends, and before anything is written;
 * `spare` bytes at its end it can do without. The bytes are copied to a place of their exact size,
 * so that a sanitizer sees an overrun.
 */
void fx_truncate(struct fx *f, size_t spare);

/* What must hold of anything that was accepted, however strange the file. */
bool fx_in(uint64_t at, uint64_t start, uint64_t end);
void fx_sound(const struct fx *f);

/* Changes a few bytes of the first `head` at random; values at the edges come often. */
void fx_mutate(struct prng *rng, unsigned char *image, size_t head);

/* Loads `count` spoiled copies of the image. Some must pass, or the loop proves little. */
void fx_mutation_loop(struct fx *f, size_t from, size_t head, unsigned count);

/* ---- kernels ---- */

#define BZ_CODE_BYTES 2048
#define BZ_LOAD 0x200000ull
#define BZ_INIT_SIZE 0x180000u

void image_noise(unsigned char *p, size_t len);

/* boot.rst's setup header; one sector of setup. */
void image_bzimage(struct fx *f);

#define ELF_LOAD 0x100000ull
#define ELF_FILE_BYTES 0x600u
#define ELF_MEM_BYTES 0x2000u
#define ELF_ENTRY (ELF_LOAD + 0x200)
#define ELF_NOTE_AT 0x100u
#define ELF_HEADER_AT 0x180u /* of multiboot */
#define ELF_NOISE_AT 0x200u

/* One segment, with everything in it, and one of notes that is empty. */
void image_elf(struct fx *f, bool is_64);

/* Where a field of a program header lies in the file, by its 64-bit or 32-bit name. */
#define PH64(i, field) \
	(sizeof(Elf64_Ehdr) + (i) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field))
#define PH32(i, field) \
	(sizeof(Elf32_Ehdr) + (i) * sizeof(Elf32_Phdr) + offsetof(Elf32_Phdr, field))

/* Fills the segment of notes: one of "Xen", of this type. */
void image_add_note(struct fx *f, uint32_t type, const void *desc, uint32_t len);

#define PVH_ENTRY (ELF_LOAD + 0x210)

void image_pvh(struct fx *f, bool is_64);
void image_multiboot_header(unsigned char *h, uint32_t flags);
void image_multiboot(struct fx *f, bool is_64);

#endif
