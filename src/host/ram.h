/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where guest RAM lies and what stands behind it: regions (gpa <-> RAM offset) and backings (RAM
 * offset -> page source). Both may come and go while the VM runs. RAM offsets have gaps: a region
 * begins at a chunk of its own, so that nothing that is done chunk by chunk meets two of them.
 * Pure. Test: tests/unit/ram_test.c.
 */
#ifndef HOST_RAM_H
#define HOST_RAM_H

#include "base/types.h"
#include "host/grace.h"
#include "host/pace.h"
#include "port/source.h"

#define RAM_REGIONS_MAX 1024
#define RAM_BACKINGS_MAX 1024
/* So many have a place in struct ram; for more, ram_more is called first. */
#define RAM_REGIONS_INLINE 8
#define RAM_BACKINGS_INLINE 16

struct ram_region {
	gpa_t gpa;
	uint64_t bytes;
	roff_t roff;
};

/* RAM that no backing covers starts as zeroes. */
struct ram_backing {
	roff_t roff;
	uint64_t bytes;
	struct src *src; /* NULL: the entry is free */
	uint64_t src_offset;
	struct grace grace; /* what this source's latencies were so far */
	struct pace pace;   /* the same, for how to read more than a block of it */
};

struct ram_tables {
	struct ram_region by_gpa[RAM_REGIONS_MAX];
	struct ram_region by_roff[RAM_REGIONS_MAX];
	/* After the inline ones. */
	struct ram_backing backings[RAM_BACKINGS_MAX - RAM_BACKINGS_INLINE];
	uint16_t backing_order[RAM_BACKINGS_MAX];
};

struct ram {
	struct ram_region inline_by_gpa[RAM_REGIONS_INLINE];
	struct ram_region inline_by_roff[RAM_REGIONS_INLINE]; /* the same */
	/* An entry stays where it is while its region does: fetches name it. */
	struct ram_backing inline_backings[RAM_BACKINGS_INLINE];
	uint16_t inline_backing_order[RAM_BACKINGS_INLINE]; /* entries, by RAM offset */
	struct ram_tables *more; /* NULL: none. The caller's */
	unsigned region_count;
	unsigned backing_count;
	uint64_t bytes; /* of all regions */
	uint64_t end;   /* no region reaches beyond this RAM offset */
};

enum ram_add {
	RAM_ADDED,
	RAM_FULL,      /* no entry left */
	RAM_UNALIGNED, /* not a multiple of `align`, or empty, or it wraps around */
	RAM_OVERLAP,
	RAM_OUTSIDE,   /* a backing that is not within one region */
};

/* The next region or backing has no place among the inline ones. */
bool ram_needs_more(const struct ram *r);
/* Room for all that there can be, once: *more is zeroed, and the caller's until the end. */
void ram_more(struct ram *r, struct ram_tables *more);

/* Region i, by gpa. */
const struct ram_region *ram_region(const struct ram *r, unsigned i);
/* Backing i, by RAM offset. */
const struct ram_backing *ram_backing(const struct ram *r, unsigned i);

/* Adds RAM at gpa, at the lowest RAM offsets that are free. align: a power of two. */
enum ram_add ram_add_region(struct ram *r, gpa_t gpa, uint64_t bytes, uint64_t align);
/* Takes the region that begins at gpa away, and its backings. False: none does. */
bool ram_remove_region(struct ram *r, gpa_t gpa);
/* Nothing stands behind any of it any more. */
void ram_drop_backings(struct ram *r);
/* Puts a source behind [gpa, gpa + bytes); the start must be aligned, the length need not. */
enum ram_add ram_add_backing(struct ram *r, gpa_t gpa, uint64_t bytes, struct src *src,
			     uint64_t src_offset, uint64_t align);
/* Takes it away, as it was added. */
void ram_remove_backing(struct ram *r, gpa_t gpa, uint64_t bytes);

/* False when [gpa, gpa + len) is not wholly within one region. len may be 0. */
bool ram_find(const struct ram *r, gpa_t gpa, uint64_t len, roff_t *ret_off);
/* The region that covers off, or NULL. Valid until a region is added or removed. */
const struct ram_region *ram_region_at(const struct ram *r, roff_t off);
/* The gpa of a RAM offset, which a region must cover. */
gpa_t ram_gpa(const struct ram *r, roff_t off);
/* The backing that covers off, or NULL. */
struct ram_backing *ram_backing_at(struct ram *r, roff_t off);

#endif
