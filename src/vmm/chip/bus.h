/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which device answers at which port or address. An access belongs to the device at its first
 * address, or to nobody: reads give all ones then and writes are lost. If it is wider than
 * the device, or leaves its region, it is cut into halves, low address first, as an ISA bus
 * does for 8-bit devices; pieces outside the region are nobody's. So a double word written
 * to 0xcf8 (PCI) is not also a byte written to 0xcf9 (reset).
 *
 * Threads: regions are added before the first vCPU runs and stay; after that any number of
 * vCPU threads may access. Devices lock for themselves. Test: tests/unit/bus_test.c.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "base/err.h"
#include "base/types.h"

/*
 * COM1, RTC, reset (two), power, exit port, a test kernel's (six), and a virtio-mmio page for each
 * of 16 devices.
 */
#define BUS_REGIONS_MAX 32u

enum bus_space { BUS_PORTS, BUS_MMIO, BUS_SPACES };

/*
 * offset counts from the region's start; width is 1, 2, 4 or 8 bytes, never more than
 * width_max, and the access lies within the region, aligned or not. Values are in the low
 * bytes, little-endian order as in the guest. Any vCPU thread.
 */
struct bus_ops {
	uint64_t (*read)(void *dev, uint64_t offset, unsigned width);
	void (*write)(void *dev, uint64_t offset, unsigned width, uint64_t value);
	unsigned width_max; /* 1, 2, 4 or 8 */
};

struct bus_region {
	uint64_t base;
	uint64_t last; /* inclusive: a region may end where the space ends */
	const struct bus_ops *ops;
	void *dev;
	const char *name;
};

struct bus {
	struct bus_region regions[BUS_SPACES][BUS_REGIONS_MAX]; /* sorted by base */
	unsigned count[BUS_SPACES];
};

void bus_init(struct bus *b);

/*
 * Puts dev at [base, base + len). ops, dev and name are borrowed for the life of the bus.
 * -EINVAL: an empty range or one that does not fit the space; -EEXIST: overlaps another,
 * which the text names; -ENOSPC: BUS_REGIONS_MAX are there.
 */
int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len,
	    const struct bus_ops *ops, void *dev, const char *name, struct err *e);

/* width: 1, 2, 4 or 8. May block for as long as the device does. */
uint64_t bus_read(const struct bus *b, enum bus_space space, uint64_t addr, unsigned width);
void bus_write(const struct bus *b, enum bus_space space, uint64_t addr, unsigned width,
	       uint64_t value);

/*
 * One access as KVM reports it: `len` bytes (any number up to 8, for an instruction's access
 * may be cut at a page) in `data`, in the guest's byte order.
 */
void bus_access(const struct bus *b, enum bus_space space, uint64_t addr, void *data,
		unsigned len, bool write);

#endif
