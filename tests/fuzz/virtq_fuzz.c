/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a driver that writes whatever it likes into rings and requests of a
 * virtio-blk device. The input is four bytes of set-up and then guest memory from address 0:
 * descriptors at 0, available ring at 0x400, used ring at 0x500, the rest as those say.
 * What must hold: no access outside guest memory or the disk, an end, and a device that
 * works again after a reset.
 */
#include "disk.h"
#include "rings.h"

#define SETUP_BYTES 4u
#define RINGS 0u

static void bring_up(struct disk_world *w, uint32_t features_low, uint32_t queue_size)
{
	ring_begin(&w->blk.mmio, features_low);
	ring_queue(&w->blk.mmio, 0, RINGS, queue_size);
	ring_go(&w->blk.mmio);
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
	memcpy(w->ram + RINGS, ring, sizeof(ring));
	memcpy(w->ram + RINGS + RING_AVAIL, avail, sizeof(avail));
	w->ram[0x3000] = 0xff;
	bring_up(w, 0, 4);
	ring_work(&w->blk.mmio, 0);
	must(ring_status(&w->blk.mmio) == 15 && w->ram[0x3000] == 0);
	must(w->ram[RINGS + RING_USED + 2] == 1);
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
	do
		ring_work(&w->blk.mmio, 0);
	while (rounds-- > 0);
	check_alive(w);
	disk_close(w);
	free(w);
	return 0;
}
