/* SPDX-License-Identifier: Apache-2.0 */
/* See bus.h. */
#include "vmm/chip/bus.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

static const uint64_t space_last[BUS_SPACES] = {
	[BUS_PORTS] = 0xffff,
	[BUS_MMIO] = UINT64_MAX,
};

void bus_init(struct bus *b)
{
	memset(b, 0, sizeof(*b));
}

int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len,
	    const struct bus_ops *ops, void *dev, const char *name, struct err *e)
{
	struct bus_region *r = b->regions[space];
	unsigned at = 0;

	ASSERT(space < BUS_SPACES);
	ASSERT(is_pow2(ops->width_max) && ops->width_max <= 8);
	if (len == 0 || base > space_last[space] || len - 1 > space_last[space] - base)
		return err_set(e, -EINVAL, "%s: %#llx bytes at %#llx do not fit the bus", name,
			       (unsigned long long)len, (unsigned long long)base);
	uint64_t last = base + (len - 1);

	for (; at < b->count[space] && r[at].base <= last; at++)
		if (r[at].last >= base)
			return err_set(e, -EEXIST, "%s: its addresses %#llx-%#llx overlap %s",
				       name, (unsigned long long)base, (unsigned long long)last,
				       r[at].name);
	if (b->count[space] == BUS_REGIONS_MAX)
		return err_set(e, -ENOSPC, "%s: the bus has %u devices, more than that do not fit",
			       name, BUS_REGIONS_MAX);
	memmove(&r[at + 1], &r[at], (b->count[space] - at) * sizeof(*r));
	r[at] = (struct bus_region){
		.base = base, .last = last, .ops = ops, .dev = dev, .name = name};
	b->count[space]++;
	return 0;
}

static const struct bus_region *bus_find(const struct bus *b, enum bus_space space, uint64_t addr)
{
	const struct bus_region *r = b->regions[space];

	for (unsigned i = 0; i < b->count[space] && r[i].base <= addr; i++)
		if (addr <= r[i].last)
			return &r[i];
	return NULL;
}

static uint64_t width_mask(unsigned width)
{
	return UINT64_MAX >> (64 - 8 * width);
}

/* The device takes this piece as it is. off may be out of the region, wrapped even. */
static bool region_takes(const struct bus_region *r, uint64_t off, unsigned width)
{
	uint64_t off_last = r->last - r->base;

	return width <= r->ops->width_max && off <= off_last && width - 1 <= off_last - off;
}

/* Recursion ends: the width halves at each step, and one byte is not cut. */
static uint64_t region_read(const struct bus_region *r, uint64_t off, unsigned width)
{
	if (region_takes(r, off, width))
		return r->ops->read(r->dev, off, width) & width_mask(width);
	if (width == 1)
		return 0xff;
	unsigned half = width / 2;
	uint64_t low = region_read(r, off, half);

	return low | region_read(r, off + half, half) << (8 * half);
}

static void region_write(const struct bus_region *r, uint64_t off, unsigned width, uint64_t value)
{
	if (region_takes(r, off, width)) {
		r->ops->write(r->dev, off, width, value & width_mask(width));
		return;
	}
	if (width == 1)
		return;
	unsigned half = width / 2;

	region_write(r, off, half, value);
	region_write(r, off + half, half, value >> (8 * half));
}

uint64_t bus_read(const struct bus *b, enum bus_space space, uint64_t addr, unsigned width)
{
	const struct bus_region *r = bus_find(b, space, addr);

	ASSERT(is_pow2(width) && width <= 8);
	return r ? region_read(r, addr - r->base, width) : width_mask(width);
}

void bus_write(const struct bus *b, enum bus_space space, uint64_t addr, unsigned width,
	       uint64_t value)
{
	const struct bus_region *r = bus_find(b, space, addr);

	ASSERT(is_pow2(width) && width <= 8);
	if (r)
		region_write(r, addr - r->base, width, value);
}

void bus_access(const struct bus *b, enum bus_space space, uint64_t addr, void *data,
		unsigned len, bool write)
{
	unsigned char *bytes = data;

	ASSERT(len <= 8);
	while (len) {
		/* The largest power of two that is left. */
		unsigned width = 1u << (31 - __builtin_clz(len));
		uint64_t value = 0;

		if (write) {
			memcpy(&value, bytes, width);
			bus_write(b, space, addr, width, value);
		} else {
			value = bus_read(b, space, addr, width);
			memcpy(bytes, &value, width);
		}
		addr = (addr + width) & space_last[space];
		bytes += width;
		len -= width;
	}
}
