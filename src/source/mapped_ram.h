/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that QEMU's `migrate` makes with the capability mapped-ram: where each block of guest
 * RAM lies in it, and which of its pages were stored. Read as hostile. The bytes come through a
 * function of the caller's. Test: tests/unit/mapped_ram_test.c, tests/fuzz/mapped_ram_fuzz.c.
 */
#ifndef SOURCE_MAPPED_RAM_H
#define SOURCE_MAPPED_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define MAPPED_RAM_MAGIC_BYTES 8u
#define MAPPED_RAM_BLOCKS_MAX 256u
#define MAPPED_RAM_NAME_MAX 255u

struct mapped_ram_block {
	char name[MAPPED_RAM_NAME_MAX + 1];
	uint64_t bytes;
	uint64_t page_bytes;
	uint64_t bitmap_at; /* in the file; set: the page is stored, clear: it is zero */
	uint64_t bitmap_bytes;
	uint64_t pages_at; /* page i is at pages_at + i * page_bytes */
};

struct mapped_ram {
	uint32_t count;
	struct mapped_ram_block *blocks;
};

struct mapped_ram_file {
	uint64_t size;
	/* len bytes at offset, which are within size. 0, or -Exxx with text. */
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e);
	void *ctx;
};

/* Does a file that begins so come from QEMU's migration? */
bool mapped_ram_magic(const unsigned char at[static MAPPED_RAM_MAGIC_BYTES]);

/*
 * Of a file that begins with the magic. The caller ends *ret with mapped_ram_fini(). 0, or -Exxx
 * with text without the name.
 */
int mapped_ram_parse(const struct mapped_ram_file *f, struct mapped_ram *ret, struct err *e);
void mapped_ram_fini(struct mapped_ram *m);

/* The block of that name, or the largest one for NULL. NULL: -ENOENT, the text has the names. */
const struct mapped_ram_block *mapped_ram_find(const struct mapped_ram *m, const char *name,
					       struct err *e);

#endif
