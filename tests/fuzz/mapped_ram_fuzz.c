/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing entry for QEMU's migration files. What must hold: only bytes within the file are asked
 * for, and the blocks that are found lie within it, bitmap before pages, under names of their own.
 * The file has as many zeroes behind the input as its first two bytes say, in units of 64 KiB.
 */
#include "bytes.h"
#include "source/mapped_ram.h"

struct file {
	const uint8_t *data;
	size_t len;
	uint64_t size;
};

static int read_file(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e)
{
	const struct file *f = ctx;
	size_t have = offset < f->len ? f->len - (size_t)offset : 0;

	(void)e;
	must(offset <= f->size && len <= f->size - offset);
	have = have < len ? have : len;
	if (have > 0)
		memcpy(buf, f->data + offset, have);
	memset((char *)buf + have, 0, len - have);
	return 0;
}

static void check_block(const struct mapped_ram *m, uint32_t i, uint64_t size)
{
	const struct mapped_ram_block *b = &m->blocks[i];
	struct err e;

	must(b->bytes > 0 && b->bytes <= size && b->pages_at <= size - b->bytes);
	must(b->bitmap_at < b->pages_at && b->bitmap_bytes <= b->pages_at - b->bitmap_at);
	must(b->bitmap_bytes * 8 >= (b->bytes - 1) / b->page_bytes + 1);
	must(memchr(b->name, '\0', sizeof(b->name)) && mapped_ram_find(m, b->name, &e) == b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mapped_ram m;
	struct err e = {0};
	struct file f;
	int rc;

	if (size < 2 + MAPPED_RAM_MAGIC_BYTES || !mapped_ram_magic(data + 2))
		return 0;
	f = (struct file){data + 2, size - 2, 0};
	f.size = f.len + ((uint64_t)(data[0] | data[1] << 8) << 16);
	rc = mapped_ram_parse(&(struct mapped_ram_file){f.size, read_file, &f}, &m, &e);
	if (rc < 0) {
		must(e.code == rc && *e.text && strlen(e.text) < ERR_TEXT_MAX);
		return 0;
	}
	must(m.count > 0 && m.count <= MAPPED_RAM_BLOCKS_MAX);
	must(mapped_ram_find(&m, NULL, &e));
	for (uint32_t i = 0; i < m.count; i++)
		check_block(&m, i, f.size);
	mapped_ram_fini(&m);
	return 0;
}
