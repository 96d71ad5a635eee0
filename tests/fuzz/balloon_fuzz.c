/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a driver that writes whatever it likes into the rings and buffers of a balloon. The
 * input is four bytes of set-up (features, queue size, queue, rounds) and then guest memory from
 * address 0: descriptors at 0, available ring at 0x400, used ring at 0x500.
 * What must hold: only whole pages of RAM are discarded, nothing else is touched, there is an end,
 * and the device works again after a reset.
 */
#include "rings.h"
#include "vmm/virtio/virtio_balloon.h"

#define SETUP_BYTES 4u
#define RAM_BYTES 0x10000u
#define RINGS 0u

struct world {
	unsigned char *ram; /* an allocation of exactly its size */
	struct guest_mem mem;
	struct virtio_balloon b;
	uint64_t discarded;
};

static int discard(void *ctx, gpa_t gpa, uint64_t len)
{
	struct world *w = ctx;

	must(len > 0 && gpa.v % PAGE_BYTES == 0 && len % PAGE_BYTES == 0);
	must(gpa.v < RAM_BYTES && len <= RAM_BYTES - gpa.v);
	memset(w->ram + gpa.v, 0, len);
	w->discarded += len;
	return len == 3 * PAGE_BYTES ? -5 : 0;
}

static void bring_up(struct world *w, uint32_t features, uint32_t size, uint32_t queue)
{
	ring_begin(&w->b.mmio, features);
	ring_queue(&w->b.mmio, queue, RINGS, size);
	ring_go(&w->b.mmio);
}

static void check_alive(struct world *w)
{
	static const uint64_t ring[2] = {0x1000, 4};
	static const uint16_t avail[3] = {0, 1, 0};
	static const uint32_t page = 8;

	memset(w->ram, 0, RAM_BYTES);
	memcpy(w->ram + RINGS, ring, sizeof(ring));
	memcpy(w->ram + RINGS + RING_AVAIL, avail, sizeof(avail));
	memcpy(w->ram + 0x1000, &page, sizeof(page));
	w->ram[0x8000] = 1;
	bring_up(w, 0, 4, 0);
	ring_work(&w->b.mmio, 0);
	must(w->ram[RINGS + RING_USED + 2] == 1 && w->ram[0x8000] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = calloc(1, sizeof(*w));

	must(w != NULL);
	w->ram = calloc(1, RAM_BYTES);
	must(w->ram != NULL);
	w->mem = (struct guest_mem){.low = w->ram, .low_bytes = RAM_BYTES};

	const struct virtio_balloon_cfg cfg = {
		.discard = discard, .ctx = w, .mem = &w->mem, .name = "balloon"};

	must(virtio_balloon_open(&w->b, &cfg, NULL) == 0);
	if (size >= SETUP_BYTES) {
		unsigned rounds = data[3] % 8u;

		memcpy(w->ram, data + SETUP_BYTES, min_u64(size - SETUP_BYTES, RAM_BYTES));
		bring_up(w, (data[0] & 0x3eu) | (uint32_t)(data[0] >> 6) << 28, data[1],
			 data[2] % 8u);
		if (data[3] & 0x80)
			ring_set(&w->b.mmio, 0x10c, 0xaa);
		do {
			ring_work(&w->b.mmio, data[2] % 8u);
			virtio_balloon_refresh(&w->b, 0);
		} while (rounds-- > 0);
		if (data[3] & 0x40) { /* a smaller queue, with what is held of the last one */
			ring_set(&w->b.mmio, 0x044, 0);
			ring_set(&w->b.mmio, 0x038, 1);
			ring_set(&w->b.mmio, 0x044, 1);
			virtio_balloon_refresh(&w->b, 0);
			ring_work(&w->b.mmio, data[2] % 8u);
		}
	}
	check_alive(w);
	virtio_balloon_close(&w->b);
	free(w->ram);
	free(w);
	return 0;
}
