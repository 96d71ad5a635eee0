/* SPDX-License-Identifier: Apache-2.0 */
/* See ram.h. The tables have at most a dozen entries: linear search. */
#include "base/assert.h"
#include "host/ram.h"

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

enum ram_add ram_add_region(struct ram *r, gpa_t gpa, uint64_t bytes, uint64_t align)
{
	if (r->region_count == RAM_REGIONS_MAX)
		return RAM_FULL;
	if (bytes == 0 || gpa.v % align || bytes % align || gpa.v + bytes < gpa.v)
		return RAM_UNALIGNED;
	for (unsigned i = 0; i < r->region_count; i++)
		if (overlap(gpa.v, bytes, r->regions[i].gpa.v, r->regions[i].bytes))
			return RAM_OVERLAP;
	r->regions[r->region_count++] = (struct ram_region){gpa, bytes, {r->bytes}};
	r->bytes += bytes;
	return RAM_ADDED;
}

enum ram_add ram_add_backing(struct ram *r, gpa_t gpa, uint64_t bytes, struct src *src,
			     uint64_t src_offset, uint64_t align)
{
	roff_t off;

	if (r->backing_count == RAM_BACKINGS_MAX)
		return RAM_FULL;
	if (bytes == 0 || gpa.v % align || src_offset + bytes < bytes)
		return RAM_UNALIGNED;
	if (!ram_find(r, gpa, bytes, &off))
		return RAM_OUTSIDE;
	for (unsigned i = 0; i < r->backing_count; i++)
		/* A block belongs to one backing: compare what the blocks cover. */
		if (overlap(off.v, align_up(bytes, align), r->backings[i].roff.v,
			    align_up(r->backings[i].bytes, align)))
			return RAM_OVERLAP;
	r->backings[r->backing_count] = (struct ram_backing){
		.roff = off, .bytes = bytes, .src = src, .src_offset = src_offset};
	grace_init(&r->backings[r->backing_count].grace);
	r->backing_count++;
	return RAM_ADDED;
}

bool ram_find(const struct ram *r, gpa_t gpa, uint64_t len, roff_t *ret_off)
{
	for (unsigned i = 0; i < r->region_count; i++) {
		const struct ram_region *g = &r->regions[i];

		if (gpa.v >= g->gpa.v && gpa.v - g->gpa.v < g->bytes &&
		    len <= g->bytes - (gpa.v - g->gpa.v)) {
			ret_off->v = g->roff.v + (gpa.v - g->gpa.v);
			return true;
		}
	}
	return false;
}

gpa_t ram_gpa(const struct ram *r, roff_t off)
{
	for (unsigned i = 0; i < r->region_count; i++) {
		const struct ram_region *g = &r->regions[i];

		if (off.v >= g->roff.v && off.v - g->roff.v < g->bytes)
			return (gpa_t){g->gpa.v + (off.v - g->roff.v)};
	}
	ASSERT(off.v < r->bytes); /* then a region has it: we cannot be here */
	return (gpa_t){0};
}

struct ram_backing *ram_backing_at(struct ram *r, roff_t off)
{
	for (unsigned i = 0; i < r->backing_count; i++) {
		struct ram_backing *b = &r->backings[i];

		if (off.v >= b->roff.v && off.v - b->roff.v < b->bytes)
			return b;
	}
	return NULL;
}
