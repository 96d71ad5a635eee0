/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a driver that writes whatever it likes into rings and requests of a
 * virtio-blk device. The input is four bytes of set-up and then guest memory from address 0:
 * descriptors at 0, available ring at 0x400, used ring at 0x500, the rest as those say.
 * What must hold: no access outside guest memory or the disk, an end, and a device that
 * works again after a reset.
 */
#include "disk.h"

#define SETUP_BYTES 4u
#define DESC 0u
#define AVAIL 0x400u
#define USED 0x500u

static void set(struct disk_world *w, uint64_t reg, uint32_t value)
{
	virtio_mmio_bus_ops.write(&w->blk.mmio, reg, 4, value);
}

static uint32_t get(struct disk_world *w, uint64_t reg)
{
	return (uint32_t)virtio_mmio_bus_ops.read(&w->blk.mmio, reg, 4);
}

static void bring_up(struct disk_world *w, uint32_t features_low, uint32_t queue_size)
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
static void check_alive(struct disk_world *w)
{
	static const uint64_t ring[8] = {
		0x1000, 16 | 1ull << 32 | 1ull << 48, /* header, next 1 */
		0x2000, 512 | 3ull << 32 | 2ull << 48, /* data, next 2 */
		0x3000, 1 | 2ull << 32,                /* status */
	};
	static const uint16_t avail[3] = {0, 1, 0};

	memset(w->ram, 0, RAM_BYTES);
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
	struct disk_world *w = calloc(1, sizeof(*w));
	unsigned rounds;

	must(w != NULL);
	if (size < SETUP_BYTES) {
		free(w);
		return 0;
	}
	const struct guest_mem mem = disk_memory(w);

	disk_open(w, &mem, &irq, data[2] & 1);
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
	disk_close(w);
	free(w);
	return 0;
}
