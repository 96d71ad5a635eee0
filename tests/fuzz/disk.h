/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For entries with virtio devices: guest memory and a disk which no device may leave, whatever
 * the guest tells it.
 */
#ifndef FUZZ_DISK_H
#define FUZZ_DISK_H

#include "bytes.h"
#include "vmm/virtio_blk.h"

#define RAM_BYTES 16384u
#define DISK_BYTES 8192u

struct disk_world {
	uint8_t ram[RAM_BYTES];
	uint8_t disk[DISK_BYTES];
	struct virtio_blk blk;
};

static inline int ram_read(void *ctx, gpa_t gpa, void *buf, size_t len)
{
	struct disk_world *w = ctx;

	must(gpa.v <= RAM_BYTES && len <= RAM_BYTES - gpa.v);
	memcpy(buf, w->ram + gpa.v, len);
	return 0;
}

static inline int ram_write(void *ctx, gpa_t gpa, const void *buf, size_t len)
{
	struct disk_world *w = ctx;

	must(gpa.v <= RAM_BYTES && len <= RAM_BYTES - gpa.v);
	memcpy(w->ram + gpa.v, buf, len);
	return 0;
}

static inline int disk_read(void *ctx, uint64_t off, void *buf, size_t len)
{
	struct disk_world *w = ctx;

	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	memcpy(buf, w->disk + off, len);
	return 0;
}

static inline int disk_write(void *ctx, uint64_t off, const void *buf, size_t len)
{
	struct disk_world *w = ctx;

	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	must(!w->blk.backing.read_only);
	memcpy(w->disk + off, buf, len);
	return 0;
}

static inline int disk_flush(void *ctx)
{
	(void)ctx;
	return 0;
}

static inline int disk_zero(void *ctx, uint64_t off, uint64_t len, bool unmap)
{
	struct disk_world *w = ctx;

	(void)unmap;
	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	must(!w->blk.backing.read_only);
	memset(w->disk + off, 0, len);
	return 0;
}

static inline int disk_discard(void *ctx, uint64_t off, uint64_t len)
{
	return disk_zero(ctx, off, len, true);
}

static inline struct guest_mem disk_memory(struct disk_world *w)
{
	return (struct guest_mem){
		.read = ram_read, .write = ram_write, .ctx = w, .low_bytes = RAM_BYTES};
}

static inline void disk_open(struct disk_world *w, const struct guest_mem *mem,
			     const struct irq_line *irq, bool read_only)
{
	static const struct blk_ops ops = {
		.read = disk_read, .write = disk_write, .flush = disk_flush,
		.zero = disk_zero, .discard = disk_discard,
	};
	const struct blk_backing disk = {
		.ops = &ops, .ctx = w, .bytes = DISK_BYTES, .read_only = read_only};

	must(virtio_blk_open(&w->blk, &disk, "fuzz", mem, irq, false, NULL) == 0);
}

#endif
