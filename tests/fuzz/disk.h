/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For entries with virtio devices: guest memory and a disk which no device may leave, whatever
 * the guest tells it.
 */
#ifndef FUZZ_DISK_H
#define FUZZ_DISK_H

#include "bytes.h"
#include "vmm/virtio/virtio_blk.h"

#define RAM_BYTES 16384u
#define DISK_BYTES 8192u

struct disk_world {
	uint8_t *ram; /* of its own: a sanitizer sees what goes beyond */
	uint8_t disk[DISK_BYTES];
	struct virtio_blk blk;
};

static inline int disk_move(struct disk_world *w, bool write, uint64_t off, struct iovec *v,
			    unsigned count)
{
	uint64_t begin = off;

	for (unsigned i = 0; i < count; i++) {
		uint8_t *at = v[i].iov_base;
		size_t len = v[i].iov_len;

		must(at >= w->ram && len > 0 && len <= (size_t)(w->ram + RAM_BYTES - at));
		must(off <= DISK_BYTES && len <= DISK_BYTES - off);
		memcpy(write ? w->disk + off : at, write ? at : w->disk + off, len);
		off += len;
	}
	must((off - begin) % BLK_SECTOR_BYTES == 0);
	return 0;
}

static inline int disk_readv(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	return disk_move(ctx, false, off, v, count);
}

static inline int disk_writev(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	struct disk_world *w = ctx;

	must(!w->blk.backing.read_only);
	return disk_move(w, true, off, v, count);
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
	w->ram = calloc(1, RAM_BYTES);
	must(w->ram != NULL);
	return (struct guest_mem){.low = w->ram, .low_bytes = RAM_BYTES};
}

static inline void disk_open(struct disk_world *w, const struct guest_mem *mem,
			     const struct irq_line *irq, bool read_only)
{
	static const struct blk_ops ops = {
		.readv = disk_readv, .writev = disk_writev, .flush = disk_flush,
		.zero = disk_zero, .discard = disk_discard,
	};
	const struct blk_backing disk = {
		.ops = &ops, .ctx = w, .bytes = DISK_BYTES, .read_only = read_only};
	const struct virtio_blk_cfg cfg = {.backing = &disk, .id = "fuzz", .mem = mem, .irq = *irq};

	must(virtio_blk_open(&w->blk, &cfg, NULL) == 0);
}

static inline void disk_close(struct disk_world *w)
{
	virtio_blk_close(&w->blk);
	free(w->ram);
}

#endif
