/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a driver that writes whatever it likes into rings and requests of a
 * virtio-blk device. The input is four bytes of set-up and then guest memory from address 0:
 * descriptors at 0, available ring at 0x400, used ring at 0x500, the rest as those say.
 * What must hold: no access outside guest memory or the disk, an end, and a device that
 * works again after a reset.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio_blk.h"

#define RAM_BYTES 16384u
#define DISK_BYTES 8192u
#define SETUP_BYTES 4u
#define DESC 0u
#define AVAIL 0x400u
#define USED 0x500u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	uint8_t ram[RAM_BYTES];
	uint8_t disk[DISK_BYTES];
	struct virtio_blk blk;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static int ram_read(void *ctx, gpa_t gpa, void *buf, size_t len)
{
	struct world *w = ctx;

	must(gpa.v <= RAM_BYTES && len <= RAM_BYTES - gpa.v);
	memcpy(buf, w->ram + gpa.v, len);
	return 0;
}

static int ram_write(void *ctx, gpa_t gpa, const void *buf, size_t len)
{
	struct world *w = ctx;

	must(gpa.v <= RAM_BYTES && len <= RAM_BYTES - gpa.v);
	memcpy(w->ram + gpa.v, buf, len);
	return 0;
}

static int disk_read(void *ctx, uint64_t off, void *buf, size_t len)
{
	struct world *w = ctx;

	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	memcpy(buf, w->disk + off, len);
	return 0;
}

static int disk_write(void *ctx, uint64_t off, const void *buf, size_t len)
{
	struct world *w = ctx;

	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	memcpy(w->disk + off, buf, len);
	return 0;
}

static int disk_flush(void *ctx)
{
	(void)ctx;
	return 0;
}

static int disk_zero(void *ctx, uint64_t off, uint64_t len, bool unmap)
{
	struct world *w = ctx;

	(void)unmap;
	must(off <= DISK_BYTES && len <= DISK_BYTES - off && len % BLK_SECTOR_BYTES == 0);
	memset(w->disk + off, 0, len);
	return 0;
}

static int disk_discard(void *ctx, uint64_t off, uint64_t len)
{
	return disk_zero(ctx, off, len, true);
}

static const struct blk_ops disk_ops = {
	.read = disk_read, .write = disk_write, .flush = disk_flush, .zero = disk_zero,
	.discard = disk_discard,
};

static void set(struct world *w, uint64_t reg, uint32_t value)
{
	virtio_mmio_bus_ops.write(&w->blk.mmio, reg, 4, value);
}

static uint32_t get(struct world *w, uint64_t reg)
{
	return (uint32_t)virtio_mmio_bus_ops.read(&w->blk.mmio, reg, 4);
}

static void bring_up(struct world *w, uint32_t features_low, uint32_t queue_size)
{
	set(w, 0x070, 0);
	set(w, 0x070, 3);
	set(w, 0x024, 0);
	set(w, 0x020, features_low);
	set(w, 0x024, 1);
	set(w, 0x020, 1);
	set(w, 0x070, 11);
	set(w, 0x030, 0);
	set(w, 0x038, queue_size);
	set(w, 0x080, DESC);
	set(w, 0x090, AVAIL);
	set(w, 0x0a0, USED);
	set(w, 0x044, 1);
	set(w, 0x070, 15);
}

/* A plain read of sector 0 into 0x2000, as a well-behaved driver asks for it. */
static void check_alive(struct world *w)
{
	static const uint64_t ring[8] = {
		0x1000, 16 | 1ull << 32 | 1ull << 48, /* header, next 1 */
		0x2000, 512 | 3ull << 32 | 2ull << 48, /* data, next 2 */
		0x3000, 1 | 2ull << 32,                /* status */
	};
	static const uint16_t avail[3] = {0, 1, 0};

	memset(w->ram, 0, sizeof(w->ram));
	memcpy(w->ram + DESC, ring, sizeof(ring));
	memcpy(w->ram + AVAIL, avail, sizeof(avail));
	w->ram[0x3000] = 0xff;
	bring_up(w, 0, 4);
	set(w, 0x050, 0);
	while (virtio_mmio_work(&w->blk.mmio))
		;
	must(get(w, 0x070) == 15 && w->ram[0x3000] == 0 && w->ram[USED + 2] == 1);
	must(memcmp(w->ram + 0x2000, w->disk, 512) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct irq_line irq = {.ops = NULL};
	struct world *w = calloc(1, sizeof(*w));
	unsigned rounds;

	must(w != NULL);
	if (size < SETUP_BYTES) {
		free(w);
		return 0;
	}
	const struct guest_mem mem = {
		.read = ram_read, .write = ram_write, .ctx = w, .low_bytes = RAM_BYTES};
	const struct blk_backing disk = {
		.ops = &disk_ops, .ctx = w, .bytes = DISK_BYTES, .read_only = data[2] & 1};

	must(virtio_blk_open(&w->blk, &disk, "fuzz", &mem, &irq, false, NULL) == 0);
	memcpy(w->ram, data + SETUP_BYTES, min_u64(size - SETUP_BYTES, RAM_BYTES));
	bring_up(w, (uint32_t)(data[0] & 3) << 28 | (uint32_t)(data[0] & 4) << 7, data[1]);
	rounds = data[3] % 8u;
	do {
		set(w, 0x050, 0);
		/* One call serves at most a queue's worth; a guest could go on for ever. */
		for (unsigned i = 0; i < 8 && virtio_mmio_work(&w->blk.mmio); i++)
			;
	} while (rounds-- > 0);
	check_alive(w);
	virtio_blk_close(&w->blk);
	free(w);
	return 0;
}
