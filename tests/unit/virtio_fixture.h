/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of virtio devices: a small guest memory, behind which lies a page that nobody
 * may touch, and a driver: rings in that memory, registers over a bus. RAM has both of its ranges.
 * The driver is another machine: its accesses are no data race of this program's, and indices
 * alone have an order.
 */
#ifndef VIRTIO_FIXTURE_H
#define VIRTIO_FIXTURE_H

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chip_fixture.h"
#include "vmm/memory/guest_touch.h"
#include "vmm/virtio/virtio_mmio.h"

#define VX_LOW_BYTES 0x100000u
#define VX_HIGH_BYTES 0x10000u
#define VX_DESC 0x1000u
#define VX_AVAIL 0x2000u
#define VX_USED 0x3000u
#define VX_TABLE 0x8000u
#define VX_DATA 0x10000u
#define VX_MMIO 0xd0000000ull
#define VX_GSI 5u

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

struct vx {
	unsigned char *low, *high;
	struct guest_mem mem;

	struct bus bus;
	struct fake_irq irq;
	uint16_t size;      /* of queue 0 */
	uint16_t avail_idx; /* the driver's */
	uint16_t used_seen;
};

/* Where a range lies, or NULL: exactly the two buffers, whatever guest_mem.h thinks. */
unsigned char *vx_at(const struct vx *x, uint64_t gpa, size_t len);
void vx_init(struct vx *x);
void vx_fini(struct vx *x);
/* Whoever touches guest memory meanwhile ends the program. */
void vx_forbid(struct vx *x, bool forbid);
/* The page at gpa is lost, as to a memory error: touches fail. And it is there again, zeroes. */
void vx_lose(struct vx *x, uint64_t gpa);
void vx_find(struct vx *x, uint64_t gpa);

/* ---- the driver's side of memory ---- */

void vx_put(struct vx *x, uint64_t gpa, const void *bytes, size_t len);
void vx_get(struct vx *x, uint64_t gpa, void *bytes, size_t len);
void vx_put16(struct vx *x, uint64_t gpa, uint16_t v);
uint16_t vx_get16(struct vx *x, uint64_t gpa);
/* A descriptor at index i of the table at gpa. */
void vx_desc_at(struct vx *x, uint64_t table, unsigned i, uint64_t addr,
		uint32_t len, unsigned flags, unsigned next);
void vx_desc(struct vx *x, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
	     unsigned next);
/* Makes a head available. */
void vx_offer(struct vx *x, unsigned head);
uint16_t vx_used_idx(struct vx *x);
/* The next used buffer; false: none. */
bool vx_take(struct vx *x, uint32_t *ret_head, uint32_t *ret_len);

/* ---- the driver's side of registers ---- */

uint32_t vx_reg(struct vx *x, uint64_t reg);
void vx_set(struct vx *x, uint64_t reg, uint32_t value);
void vx_features(struct vx *x, uint64_t features);
uint64_t vx_offered(struct vx *x);
void vx_queue(struct vx *x, uint32_t queue, uint32_t size, uint64_t desc,
	      uint64_t avail, uint64_t used);
/* Reset, then all of 3.1.1 with queue 0 at the usual place. */
void vx_bring_up(struct vx *x, uint64_t features, uint16_t size);
void vx_kick(struct vx *x);
void vx_attach(struct vx *x, struct virtio_mmio *v);

#endif
