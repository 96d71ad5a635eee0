/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio_fixture.h"

#define DRIVER_SIDE __attribute__((no_sanitize("thread")))

unsigned char *vx_at(const struct vx *x, uint64_t gpa, size_t len)
{
	if (gpa <= VX_LOW_BYTES && len <= VX_LOW_BYTES - gpa)
		return x->low + gpa;
	if (gpa >= GUEST_HIGH_GPA && gpa - GUEST_HIGH_GPA <= VX_HIGH_BYTES &&
	    len <= VX_HIGH_BYTES - (gpa - GUEST_HIGH_GPA))
		return x->high + (gpa - GUEST_HIGH_GPA);
	return NULL;
}

static unsigned char *vx_map(size_t bytes)
{
	unsigned char *at = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(at != MAP_FAILED);
	assert_int_equal(mprotect(at + bytes, 4096, PROT_NONE), 0);
	return at;
}

void vx_init(struct vx *x)
{
	memset(x, 0, sizeof(*x));
	x->low = vx_map(VX_LOW_BYTES);
	x->high = vx_map(VX_HIGH_BYTES);
	x->mem = (struct guest_mem){
		.low = x->low, .high = x->high, .low_bytes = VX_LOW_BYTES,
		.high_bytes = VX_HIGH_BYTES};
	bus_init(&x->bus);
}

void vx_fini(struct vx *x)
{
	munmap(x->low, VX_LOW_BYTES + 4096);
	munmap(x->high, VX_HIGH_BYTES + 4096);
}

void vx_forbid(struct vx *x, bool forbid)
{
	int prot = forbid ? PROT_NONE : PROT_READ | PROT_WRITE;

	assert_int_equal(mprotect(x->low, VX_LOW_BYTES, prot), 0);
	assert_int_equal(mprotect(x->high, VX_HIGH_BYTES, prot), 0);
}

void vx_lose(struct vx *x, uint64_t gpa)
{
	int empty = memfd_create("lost", MFD_CLOEXEC);

	guest_touch_init(); /* cmocka has its own handler in each test */
	assert_true(empty >= 0);
	assert_true(mmap(vx_at(x, gpa, 4096), 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 empty, 0) != MAP_FAILED);
	close(empty);
}

void vx_find(struct vx *x, uint64_t gpa)
{
	assert_true(mmap(vx_at(x, gpa, 4096), 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
}

DRIVER_SIDE void vx_put(struct vx *x, uint64_t gpa, const void *bytes, size_t len)
{
	volatile unsigned char *to = vx_at(x, gpa, len);

	for (size_t i = 0; i < len; i++)
		to[i] = ((const unsigned char *)bytes)[i];
}

DRIVER_SIDE void vx_get(struct vx *x, uint64_t gpa, void *bytes, size_t len)
{
	const volatile unsigned char *from = vx_at(x, gpa, len);

	for (size_t i = 0; i < len; i++)
		((unsigned char *)bytes)[i] = from[i];
}

void vx_put16(struct vx *x, uint64_t gpa, uint16_t v)
{
	__atomic_store_n((uint16_t *)vx_at(x, gpa, 2), v, __ATOMIC_SEQ_CST);
}

uint16_t vx_get16(struct vx *x, uint64_t gpa)
{
	return __atomic_load_n((uint16_t *)vx_at(x, gpa, 2), __ATOMIC_SEQ_CST);
}

void vx_desc_at(struct vx *x, uint64_t table, unsigned i, uint64_t addr,
		uint32_t len, unsigned flags, unsigned next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, (uint16_t)flags, (uint16_t)next};

	vx_put(x, table + i * sizeof(d), &d, sizeof(d));
}

void vx_desc(struct vx *x, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
	     unsigned next)
{
	vx_desc_at(x, VX_DESC, i, addr, len, flags, next);
}

void vx_offer(struct vx *x, unsigned head)
{
	vx_put16(x, VX_AVAIL + 4 + 2ull * (x->avail_idx % x->size), (uint16_t)head);
	vx_put16(x, VX_AVAIL + 2, ++x->avail_idx);
}

uint16_t vx_used_idx(struct vx *x)
{
	return vx_get16(x, VX_USED + 2);
}

bool vx_take(struct vx *x, uint32_t *ret_head, uint32_t *ret_len)
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

uint32_t vx_reg(struct vx *x, uint64_t reg)
{
	return (uint32_t)bus_read(&x->bus, BUS_MMIO, VX_MMIO + reg, 4);
}

void vx_set(struct vx *x, uint64_t reg, uint32_t value)
{
	bus_write(&x->bus, BUS_MMIO, VX_MMIO + reg, 4, value);
}

void vx_features(struct vx *x, uint64_t features)
{
	vx_set(x, 0x024, 0);
	vx_set(x, 0x020, (uint32_t)features);
	vx_set(x, 0x024, 1);
	vx_set(x, 0x020, (uint32_t)(features >> 32));
}

uint64_t vx_offered(struct vx *x)
{
	uint64_t low;

	vx_set(x, 0x014, 0);
	low = vx_reg(x, 0x010);
	vx_set(x, 0x014, 1);
	return low | (uint64_t)vx_reg(x, 0x010) << 32;
}

void vx_queue(struct vx *x, uint32_t queue, uint32_t size, uint64_t desc,
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

void vx_bring_up(struct vx *x, uint64_t features, uint16_t size)
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

void vx_kick(struct vx *x)
{
	vx_set(x, 0x050, 0);
}

void vx_attach(struct vx *x, struct virtio_mmio *v)
{
	assert_int_equal(bus_add(&x->bus, BUS_MMIO, VX_MMIO, VIRTIO_MMIO_BYTES,
				 &virtio_mmio_bus_ops, v, "virtio", NULL), 0);
}
