/* SPDX-License-Identifier: Apache-2.0 */
/* A migration file of QEMU's with mapped-ram, by the format's description alone. */
#ifndef TESTS_MAPPED_RAM_MAKE_H
#define TESTS_MAPPED_RAM_MAKE_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "source/mapped_ram.h"

#define MAPPED_ROOM (8u << 20)

struct mapped_made {
	unsigned char *at;
	uint64_t len;
	uint64_t header; /* of the block that was added last */
};

static inline void mapped_put(struct mapped_made *m, uint64_t v, unsigned bytes)
{
	assert(m->len + bytes <= MAPPED_ROOM);
	while (bytes-- > 0)
		m->at[m->len++] = (unsigned char)(v >> (8 * bytes));
}

static inline void mapped_text(struct mapped_made *m, const char *text)
{
	mapped_put(m, strlen(text), 1);
	memcpy(m->at + m->len, text, strlen(text));
	m->len += strlen(text);
}

static inline void mapped_begin(struct mapped_made *m, uint64_t total)
{
	*m = (struct mapped_made){.at = calloc(1, MAPPED_ROOM)};
	assert(m->at);
	mapped_put(m, 0x5145564d, 4);
	mapped_put(m, 3, 4);
	mapped_put(m, 7, 1); /* configuration */
	mapped_put(m, 10, 4);
	memcpy(m->at + m->len, "pc-q35-9.0", 10);
	m->len += 10;
	mapped_put(m, 1, 1); /* start of section 2 */
	mapped_put(m, 2, 4);
	mapped_text(m, "ram");
	mapped_put(m, 0, 4);
	mapped_put(m, 4, 4);
	mapped_put(m, total | 4, 8);
}

/* extra: fields of 8 bytes in front of the header. Page i is stored if i % 3 == 0, of bytes i+1. */
static inline void mapped_block(struct mapped_made *m, const char *name, uint64_t bytes,
				unsigned extra)
{
	uint64_t pages = bytes / 4096, bitmap_bytes = (pages + 63) / 64 * 8, bitmap_at, pages_at;

	mapped_text(m, name);
	mapped_put(m, bytes, 8);
	for (unsigned i = 0; i < extra; i++)
		mapped_put(m, 0x7700000000000000, 8);
	m->header = m->len;
	bitmap_at = m->len + 28;
	pages_at = (bitmap_at + bitmap_bytes + 0xfffff) & ~0xfffffull;
	mapped_put(m, 1, 4);
	mapped_put(m, 4096, 8);
	mapped_put(m, bitmap_at, 8);
	mapped_put(m, pages_at, 8);
	assert(pages_at + bytes <= MAPPED_ROOM);
	for (uint64_t i = 0; i < pages; i += 3) {
		m->at[bitmap_at + i / 8] |= (unsigned char)(1u << i % 8);
		memset(m->at + pages_at + i * 4096, (int)(i + 1), 4096);
	}
	m->len = pages_at + bytes;
}

static inline void mapped_end(struct mapped_made *m)
{
	mapped_put(m, 0x10, 8);
	mapped_put(m, 0x7e, 1);
	mapped_put(m, 2, 4);
	mapped_put(m, 0, 1);
}

static inline int mapped_read(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e)
{
	const struct mapped_made *m = ctx;

	(void)e;
	assert(offset <= m->len && len <= m->len - offset);
	memcpy(buf, m->at + offset, len);
	return 0;
}

static inline int mapped_parse(struct mapped_made *m, struct mapped_ram *ret, struct err *e)
{
	const struct mapped_ram_file f = {m->len, mapped_read, m};

	return mapped_ram_parse(&f, ret, e);
}

#endif
