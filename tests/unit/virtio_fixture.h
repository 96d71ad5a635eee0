/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of virtio devices: a small guest memory that refuses any access outside it,
 * and a driver: rings in that memory, registers over a bus. RAM has both of its ranges. One
 * lock covers the memory, so that tests with a worker thread have no data race of their own.
 */
#ifndef VIRTIO_FIXTURE_H
#define VIRTIO_FIXTURE_H

#include <pthread.h>
#include <stdlib.h>

#include "chip_fixture.h"
#include "vmm/virtio_mmio.h"

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
	pthread_mutex_t lock; /* covers low and high */
	unsigned char *low, *high;
	struct guest_mem mem;
	int fail;           /* what the next accesses return instead, if not 0 */
	unsigned accesses;  /* by the device */
	void (*on_read)(struct vx *x, gpa_t gpa, size_t len); /* lock held */

	struct bus bus;
	struct fake_irq irq;
	uint16_t size;      /* of queue 0 */
	uint16_t avail_idx; /* the driver's */
	uint16_t used_seen;
};

/* Where a range lies, or NULL: exactly the two buffers, whatever guest_mem.h thinks. */
static inline unsigned char *vx_at(const struct vx *x, uint64_t gpa, size_t len)
{
	if (gpa <= VX_LOW_BYTES && len <= VX_LOW_BYTES - gpa)
		return x->low + gpa;
	if (gpa >= GUEST_HIGH_GPA && gpa - GUEST_HIGH_GPA <= VX_HIGH_BYTES &&
	    len <= VX_HIGH_BYTES - (gpa - GUEST_HIGH_GPA))
		return x->high + (gpa - GUEST_HIGH_GPA);
	return NULL;
}

static inline int vx_read(void *ctx, gpa_t gpa, void *buf, size_t len)
{
	struct vx *x = ctx;
	int rc;

	pthread_mutex_lock(&x->lock);
	rc = x->fail;
	x->accesses++;
	if (rc == 0) {
		const unsigned char *from = vx_at(x, gpa.v, len);

		if (!from)
			abort();
		memcpy(buf, from, len);
		if (x->on_read)
			x->on_read(x, gpa, len);
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

static inline int vx_write(void *ctx, gpa_t gpa, const void *buf, size_t len)
{
	struct vx *x = ctx;
	int rc;

	pthread_mutex_lock(&x->lock);
	rc = x->fail;
	x->accesses++;
	if (rc == 0) {
		unsigned char *to = vx_at(x, gpa.v, len);

		if (!to)
			abort();
		memcpy(to, buf, len);
	}
	pthread_mutex_unlock(&x->lock);
	return rc;
}

static inline void vx_init(struct vx *x)
{
	memset(x, 0, sizeof(*x));
	pthread_mutex_init(&x->lock, NULL);
	x->low = calloc(1, VX_LOW_BYTES);
	x->high = calloc(1, VX_HIGH_BYTES);
	assert_non_null(x->low);
	assert_non_null(x->high);
	x->mem = (struct guest_mem){
		.read = vx_read, .write = vx_write, .ctx = x, .low_bytes = VX_LOW_BYTES,
		.high_bytes = VX_HIGH_BYTES};
	bus_init(&x->bus);
}

static inline void vx_fini(struct vx *x)
{
	free(x->low);
	free(x->high);
	pthread_mutex_destroy(&x->lock);
}

/* ---- the driver's side of memory ---- */

static inline void vx_put(struct vx *x, uint64_t gpa, const void *bytes, size_t len)
{
	pthread_mutex_lock(&x->lock);
	memcpy(vx_at(x, gpa, len), bytes, len);
	pthread_mutex_unlock(&x->lock);
}

static inline void vx_get(struct vx *x, uint64_t gpa, void *bytes, size_t len)
{
	pthread_mutex_lock(&x->lock);
	memcpy(bytes, vx_at(x, gpa, len), len);
	pthread_mutex_unlock(&x->lock);
}

static inline void vx_put16(struct vx *x, uint64_t gpa, uint16_t v)
{
	vx_put(x, gpa, &v, sizeof(v));
}

static inline uint16_t vx_get16(struct vx *x, uint64_t gpa)
{
	uint16_t v;

	vx_get(x, gpa, &v, sizeof(v));
	return v;
}

/* A descriptor at index i of the table at gpa. */
static inline void vx_desc_at(struct vx *x, uint64_t table, unsigned i, uint64_t addr,
			      uint32_t len, unsigned flags, unsigned next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, (uint16_t)flags, (uint16_t)next};

	vx_put(x, table + i * sizeof(d), &d, sizeof(d));
}

static inline void vx_desc(struct vx *x, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
			   unsigned next)
{
	vx_desc_at(x, VX_DESC, i, addr, len, flags, next);
}

/* Makes a head available. */
static inline void vx_offer(struct vx *x, unsigned head)
{
	vx_put16(x, VX_AVAIL + 4 + 2ull * (x->avail_idx % x->size), (uint16_t)head);
	vx_put16(x, VX_AVAIL + 2, ++x->avail_idx);
}

static inline uint16_t vx_used_idx(struct vx *x)
{
	return vx_get16(x, VX_USED + 2);
}

/* The next used buffer; false: none. */
static inline bool vx_take(struct vx *x, uint32_t *ret_head, uint32_t *ret_len)
{
	uint32_t e[2];

	if (vx_used_idx(x) == x->used_seen)
		return false;
	vx_get(x, VX_USED + 4 + 8ull * (x->used_seen % x->size), e, sizeof(e));
	x->used_seen++;
	*ret_head = e[0];
	*ret_len = e[1];
	return true;
}

/* ---- the driver's side of registers ---- */

static inline uint32_t vx_reg(struct vx *x, uint64_t reg)
{
	return (uint32_t)bus_read(&x->bus, BUS_MMIO, VX_MMIO + reg, 4);
}

static inline void vx_set(struct vx *x, uint64_t reg, uint32_t value)
{
	bus_write(&x->bus, BUS_MMIO, VX_MMIO + reg, 4, value);
}

static inline void vx_features(struct vx *x, uint64_t features)
{
	vx_set(x, 0x024, 0);
	vx_set(x, 0x020, (uint32_t)features);
	vx_set(x, 0x024, 1);
	vx_set(x, 0x020, (uint32_t)(features >> 32));
}

static inline uint64_t vx_offered(struct vx *x)
{
	uint64_t low;

	vx_set(x, 0x014, 0);
	low = vx_reg(x, 0x010);
	vx_set(x, 0x014, 1);
	return low | (uint64_t)vx_reg(x, 0x010) << 32;
}

static inline void vx_queue(struct vx *x, uint32_t queue, uint32_t size, uint64_t desc,
			    uint64_t avail, uint64_t used)
{
	vx_set(x, 0x030, queue);
	vx_set(x, 0x038, size);
	vx_set(x, 0x080, (uint32_t)desc);
	vx_set(x, 0x084, (uint32_t)(desc >> 32));
	vx_set(x, 0x090, (uint32_t)avail);
	vx_set(x, 0x094, (uint32_t)(avail >> 32));
	vx_set(x, 0x0a0, (uint32_t)used);
	vx_set(x, 0x0a4, (uint32_t)(used >> 32));
	vx_set(x, 0x044, 1);
}

/* Reset, then all of 3.1.1 with queue 0 at the usual place. */
static inline void vx_bring_up(struct vx *x, uint64_t features, uint16_t size)
{
	static const unsigned char zeroes[VX_TABLE - VX_DESC];

	vx_set(x, 0x070, 0);
	assert_int_equal(vx_reg(x, 0x070), 0);
	vx_put(x, VX_DESC, zeroes, sizeof(zeroes));
	x->avail_idx = x->used_seen = 0;
	x->size = size;
	vx_set(x, 0x070, 1);
	vx_set(x, 0x070, 3);
	vx_features(x, features | VIRTIO_F_VERSION_1);
	vx_set(x, 0x070, 11);
	assert_int_equal(vx_reg(x, 0x070), 11);
	vx_queue(x, 0, size, VX_DESC, VX_AVAIL, VX_USED);
	assert_int_equal(vx_reg(x, 0x044), 1);
	vx_set(x, 0x070, 15);
	assert_int_equal(vx_reg(x, 0x070), 15);
}

static inline void vx_kick(struct vx *x)
{
	vx_set(x, 0x050, 0);
}

static inline void vx_attach(struct vx *x, struct virtio_mmio *v)
{
	assert_int_equal(bus_add(&x->bus, BUS_MMIO, VX_MMIO, VIRTIO_MMIO_BYTES,
				 &virtio_mmio_bus_ops, v, "virtio", NULL), 0);
}

#endif
