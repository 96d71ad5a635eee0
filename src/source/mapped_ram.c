/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See mapped_ram.h. All numbers are big-endian but the bitmap, which is the host's: of a
 * little-endian one, as this program is for.
 */
#include "source/mapped_ram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"

#define MAGIC 0x5145564du /* "QEVM" */
#define VERSION 3u
/* The section of RAM begins this early: before it is the configuration alone. */
#define SEARCH_BYTES (1u << 20)
#define FLAG_MEM_SIZE 0x04u
#define TOTAL_FLAGS 0xfffu /* the total is of whole pages */
#define HEADER_BYTES 28u
#define HEADER_VERSION 1u
/* In front of it may stand the block's page size, and its address: 8 bytes each. */
#define BLOCK_ROOM (HEADER_BYTES + 16u)
#define PAGES_ALIGN (1u << 20)

static uint64_t number_at(const unsigned char *at, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | at[i];
	return v;
}

bool mapped_ram_magic(const unsigned char at[static MAPPED_RAM_MAGIC_BYTES])
{
	return number_at(at, 4) == MAGIC && number_at(at + 4, 4) == VERSION;
}

static int cut(struct err *e)
{
	return err_set(e, -EINVAL, "its RAM blocks are said to reach beyond its end; it is cut "
		       "short, "
		       "or still being written");
}

static int read_at(const struct mapped_ram_file *f, uint64_t offset, void *buf, size_t len,
		   struct err *e)
{
	if (offset > f->size || len > f->size - offset)
		return cut(e);
	return f->read(f->ctx, offset, buf, len, e);
}

/* What follows the section's number: its name, instance 0, version 4. */
static const unsigned char ram_start[] = {3, 'r', 'a', 'm', 0, 0, 0, 0, 0, 0, 0, 4};

/* Sets *ret behind the head of the section. 0, or -Exxx. */
static int find_section(const struct mapped_ram_file *f, uint64_t *ret, struct err *e)
{
	size_t len = (size_t)min_u64(f->size, SEARCH_BYTES);
	unsigned char *head = malloc(len);
	int rc = head ? read_at(f, 0, head, len, e) : err_sys(e, -ENOMEM, "its head");

	for (size_t at = MAPPED_RAM_MAGIC_BYTES;
	     rc == 0 && at + 5 + sizeof(ram_start) <= len; at++) {
		if (head[at] != 1 || memcmp(head + at + 5, ram_start, sizeof(ram_start)) != 0)
			continue;
		*ret = at + 5 + sizeof(ram_start);
		free(head);
		return 0;
	}
	free(head);
	return rc < 0 ? rc : err_set(e, -EINVAL, "a migration of QEMU's, whose RAM is not found; "
				     "migrate with the capability mapped-ram");
}

static int no_header(const struct mapped_ram_block *b, struct err *e)
{
	return err_set(e, -EINVAL, "its RAM block %.60s has no place in the file of its own; "
		       "migrate "
		       "with the capability mapped-ram, without x-ignore-shared", b->name);
}

/* Is this the header, which stands at file byte `at`? If so, b has what it says. */
static bool parse_header(const unsigned char *raw, uint64_t at, struct mapped_ram_block *b)
{
	uint64_t pages;

	b->page_bytes = number_at(raw + 4, 8);
	b->bitmap_at = number_at(raw + 12, 8);
	b->pages_at = number_at(raw + 20, 8);
	if (number_at(raw, 4) != HEADER_VERSION || !is_pow2(b->page_bytes) ||
	    b->page_bytes < 1024 || b->page_bytes > PAGES_ALIGN ||
	    b->bitmap_at != at + HEADER_BYTES)
		return false;
	pages = (b->bytes - 1) / b->page_bytes + 1;
	b->bitmap_bytes = ((pages - 1) / 64 + 1) * 8;
	return b->pages_at % b->page_bytes == 0 && b->pages_at >= b->bitmap_at &&
	       b->bitmap_bytes <= b->pages_at - b->bitmap_at;
}

static int read_name(const struct mapped_ram_file *f, uint64_t *at, struct mapped_ram_block *b,
		     struct err *e)
{
	unsigned char len = 0;
	int rc = read_at(f, *at, &len, 1, e);

	if (rc == 0)
		rc = read_at(f, *at + 1, b->name, len, e);
	b->name[len] = '\0';
	*at += 1u + len;
	return rc;
}

/* The block whose name begins at *at, which is moved behind it. */
static int read_block(const struct mapped_ram_file *f, uint64_t *at, struct mapped_ram_block *b,
		      struct err *e)
{
	unsigned char raw[8 + BLOCK_ROOM];
	int rc = read_name(f, at, b, e);

	if (rc == 0)
		rc = read_at(f, *at, raw, sizeof(raw), e);
	if (rc < 0)
		return rc;
	b->bytes = number_at(raw, 8);
	if (b->bytes == 0)
		return no_header(b, e);
	for (unsigned skip = 8; skip <= sizeof(raw) - HEADER_BYTES; skip += 8) {
		if (!parse_header(raw + skip, *at + skip, b))
			continue;
		if (b->pages_at > f->size || b->bytes > f->size - b->pages_at)
			return cut(e);
		*at = b->pages_at + b->bytes;
		return 0;
	}
	return no_header(b, e);
}

static int add_block(struct mapped_ram *m, const struct mapped_ram_block *b, struct err *e)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (strcmp(m->blocks[i].name, b->name) == 0)
			return err_set(e, -EINVAL, "it has two RAM blocks %.60s", b->name);
	if (m->count == MAPPED_RAM_BLOCKS_MAX)
		return err_set(e, -EINVAL, "it has more than %u RAM blocks", MAPPED_RAM_BLOCKS_MAX);
	m->blocks[m->count++] = *b;
	return 0;
}

static int read_blocks(const struct mapped_ram_file *f, uint64_t at, struct mapped_ram *m,
		       struct err *e)
{
	struct mapped_ram_block b;
	unsigned char raw[8];
	uint64_t total;
	int rc = read_at(f, at, raw, sizeof(raw), e);

	if (rc < 0)
		return rc;
	total = number_at(raw, sizeof(raw));
	if ((total & TOTAL_FLAGS) != FLAG_MEM_SIZE)
		return err_set(e, -EINVAL, "its section of RAM does not begin with its size");
	total &= ~(uint64_t)TOTAL_FLAGS;
	at += sizeof(raw);
	while (total > 0) {
		rc = read_block(f, &at, &b, e);
		if (rc == 0 && b.bytes > total)
			rc = err_set(e, -EINVAL, "its RAM blocks have more than their sum");
		if (rc == 0)
			rc = add_block(m, &b, e);
		if (rc < 0)
			return rc;
		total -= b.bytes;
	}
	return m->count > 0 ? 0 : err_set(e, -EINVAL, "it has no RAM");
}

int mapped_ram_parse(const struct mapped_ram_file *f, struct mapped_ram *ret, struct err *e)
{
	struct mapped_ram m = {.blocks = calloc(MAPPED_RAM_BLOCKS_MAX, sizeof(*m.blocks))};
	uint64_t at = 0;
	int rc = m.blocks ? find_section(f, &at, e) : err_sys(e, -ENOMEM, "its RAM blocks");

	if (rc == 0)
		rc = read_blocks(f, at, &m, e);
	if (rc < 0)
		mapped_ram_fini(&m);
	else
		*ret = m;
	return rc;
}

void mapped_ram_fini(struct mapped_ram *m)
{
	free(m->blocks);
	m->blocks = NULL;
	m->count = 0;
}

static void say_names(const struct mapped_ram *m, const char *name, struct err *e)
{
	char names[ERR_TEXT_MAX];
	size_t used = 0;

	for (uint32_t i = 0; i < m->count && used < sizeof(names); i++) {
		int n = snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
				 m->blocks[i].name);

		used += n > 0 ? (size_t)n : 0;
	}
	(void)err_set(e, -ENOENT, "it has no RAM block %.40s; there are %s", name, names);
}

const struct mapped_ram_block *mapped_ram_find(const struct mapped_ram *m, const char *name,
					       struct err *e)
{
	const struct mapped_ram_block *found = NULL;

	for (uint32_t i = 0; i < m->count; i++) {
		const struct mapped_ram_block *b = &m->blocks[i];

		if (name ? strcmp(b->name, name) == 0 : !found || b->bytes > found->bytes)
			found = b;
	}
	if (!found)
		say_names(m, name, e);
	return found;
}
