/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where guest RAM lies and what stands behind it: regions (gpa <-> RAM offset) and
 * backings (RAM offset -> page source). Small sorted tables, fixed once the first
 * vCPU runs. Pure. Test: tests/unit/ram_test.c.
 */
#ifndef HOST_RAM_H
#define HOST_RAM_H

#include "base/types.h"
#include "host/grace.h"
#include "port/source.h"

#define RAM_REGIONS_MAX 8
#define RAM_BACKINGS_MAX 16

struct ram_region {
	gpa_t gpa;
	uint64_t bytes;
	roff_t roff;
};

/* RAM that no backing covers starts as zeroes. */
struct ram_backing {
	roff_t roff;
	uint64_t bytes;
	struct src *src;
	uint64_t src_offset;
	struct grace grace; /* what this source's latencies were so far */
};

struct ram {
	struct ram_region regions[RAM_REGIONS_MAX];
	unsigned region_count;
	struct ram_backing backings[RAM_BACKINGS_MAX];
	unsigned backing_count;
	uint64_t bytes; /* of all regions */
};

enum ram_add {
	RAM_ADDED,
	RAM_FULL,      /* no entry left */
	RAM_UNALIGNED, /* not a multiple of `align`, or empty, or it wraps around */
	RAM_OVERLAP,
	RAM_OUTSIDE,   /* a backing that is not within one region */
};

/* Adds RAM at gpa; its offset is the sum of what was added before. align: a power of two. */
enum ram_add ram_add_region(struct ram *r, gpa_t gpa, uint64_t bytes, uint64_t align);
/* Puts a source behind [gpa, gpa + bytes); the start must be aligned, the length need not. */
enum ram_add ram_add_backing(struct ram *r, gpa_t gpa, uint64_t bytes, struct src *src,
			     uint64_t src_offset, uint64_t align);

/* False when [gpa, gpa + len) is not wholly within one region. len may be 0. */
bool ram_find(const struct ram *r, gpa_t gpa, uint64_t len, roff_t *ret_off);
/* The gpa of a RAM offset. off must be < r->bytes. */
gpa_t ram_gpa(const struct ram *r, roff_t off);
/* The backing that covers off, or NULL. */
struct ram_backing *ram_backing_at(struct ram *r, roff_t off);

#endif
