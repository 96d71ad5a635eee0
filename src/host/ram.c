/* SPDX-License-Identifier: Apache-2.0 */
/* See ram.h. Tables are sorted: a search halves them. */
#include <string.h>

#include "base/assert.h"
#include "host/ram.h"

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static struct ram_region *by_gpa(const struct ram *r)
{
	return r->more ? r->more->by_gpa : ((struct ram *)r)->inline_by_gpa;
}

static struct ram_region *by_roff(const struct ram *r)
{
	return r->more ? r->more->by_roff : ((struct ram *)r)->inline_by_roff;
}

static uint16_t *backing_order(const struct ram *r)
{
	return r->more ? r->more->backing_order : ((struct ram *)r)->inline_backing_order;
}

static struct ram_backing *entry_at(const struct ram *r, uint16_t entry)
{
	if (entry < RAM_BACKINGS_INLINE)
		return &((struct ram *)r)->inline_backings[entry];
	return &r->more->backings[entry - RAM_BACKINGS_INLINE];
}

bool ram_needs_more(const struct ram *r)
{
	return !r->more &&
	       (r->region_count == RAM_REGIONS_INLINE || r->backing_count == RAM_BACKINGS_INLINE);
}

void ram_more(struct ram *r, struct ram_tables *more)
{
	ASSERT(!r->more);
	memcpy(more->by_gpa, r->inline_by_gpa, sizeof(r->inline_by_gpa));
	memcpy(more->by_roff, r->inline_by_roff, sizeof(r->inline_by_roff));
	memcpy(more->backing_order, r->inline_backing_order, sizeof(r->inline_backing_order));
	r->more = more;
}

const struct ram_region *ram_region(const struct ram *r, unsigned i)
{
	return &by_gpa(r)[i];
}

const struct ram_backing *ram_backing(const struct ram *r, unsigned i)
{
	return entry_at(r, backing_order(r)[i]);
}

/* How many regions begin at gpa or before. */
static unsigned up_to_gpa(const struct ram *r, gpa_t gpa)
{
	unsigned low = 0, high = r->region_count;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (by_gpa(r)[mid].gpa.v <= gpa.v)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ... at this RAM offset or before. */
static unsigned up_to_roff(const struct ram *r, roff_t off)
{
	unsigned low = 0, high = r->region_count;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (by_roff(r)[mid].roff.v <= off.v)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static unsigned backings_up_to(const struct ram *r, roff_t off)
{
	unsigned low = 0, high = r->backing_count;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (ram_backing(r, mid)->roff.v <= off.v)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void insert(struct ram_region *table, unsigned count, unsigned at,
		   const struct ram_region *region)
{
	memmove(&table[at + 1], &table[at], (count - at) * sizeof(*table));
	table[at] = *region;
}

static void take_out(struct ram_region *table, unsigned count, unsigned at)
{
	memmove(&table[at], &table[at + 1], (count - at - 1) * sizeof(*table));
}

static uint64_t chunks_end(const struct ram_region *region)
{
	return align_up(region->roff.v + region->bytes, CHUNK_BYTES);
}

/* The first gap that is large enough, or the end. */
static roff_t free_roff(const struct ram *r, uint64_t bytes)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < r->region_count; i++) {
		if (by_roff(r)[i].roff.v - at >= bytes)
			break;
		at = chunks_end(&by_roff(r)[i]);
	}
	return (roff_t){at};
}

static void count_again(struct ram *r)
{
	const struct ram_region *last = &by_roff(r)[r->region_count - 1];

	r->end = r->region_count ? last->roff.v + last->bytes : 0;
}

enum ram_add ram_add_region(struct ram *r, gpa_t gpa, uint64_t bytes, uint64_t align)
{
	struct ram_region region = {gpa, bytes, {0}};
	unsigned at = up_to_gpa(r, gpa);

	if (r->region_count == (r->more ? RAM_REGIONS_MAX : RAM_REGIONS_INLINE))
		return RAM_FULL;
	if (bytes == 0 || gpa.v % align || bytes % align || gpa.v + bytes < gpa.v)
		return RAM_UNALIGNED;
	if (at > 0 && overlap(gpa.v, bytes, by_gpa(r)[at - 1].gpa.v, by_gpa(r)[at - 1].bytes))
		return RAM_OVERLAP;
	if (at < r->region_count && by_gpa(r)[at].gpa.v - gpa.v < bytes)
		return RAM_OVERLAP;
	region.roff = free_roff(r, bytes);
	insert(by_gpa(r), r->region_count, at, &region);
	insert(by_roff(r), r->region_count, up_to_roff(r, region.roff), &region);
	r->region_count++;
	r->bytes += bytes;
	count_again(r);
	return RAM_ADDED;
}

static void remove_backings(struct ram *r, roff_t off, uint64_t bytes)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->backing_count; i++) {
		uint16_t entry = backing_order(r)[i];
		struct ram_backing *b = entry_at(r, entry);

		if (overlap(off.v, bytes, b->roff.v, b->bytes))
			b->src = NULL;
		else
			backing_order(r)[n++] = entry;
	}
	r->backing_count = n;
}

void ram_drop_backings(struct ram *r)
{
	for (unsigned i = 0; i < r->backing_count; i++)
		entry_at(r, backing_order(r)[i])->src = NULL;
	r->backing_count = 0;
}

bool ram_remove_region(struct ram *r, gpa_t gpa)
{
	unsigned at = up_to_gpa(r, gpa);
	struct ram_region region;

	if (at == 0 || by_gpa(r)[at - 1].gpa.v != gpa.v)
		return false;
	region = by_gpa(r)[at - 1];
	remove_backings(r, region.roff, region.bytes);
	take_out(by_gpa(r), r->region_count, at - 1);
	take_out(by_roff(r), r->region_count, up_to_roff(r, region.roff) - 1);
	r->region_count--;
	r->bytes -= region.bytes;
	count_again(r);
	return true;
}

/* A block belongs to one backing: what the blocks cover counts. */
static bool meets_backing(const struct ram *r, roff_t off, uint64_t bytes, uint64_t align)
{
	for (unsigned i = 0; i < r->backing_count; i++) {
		const struct ram_backing *b = ram_backing(r, i);

		if (overlap(off.v, align_up(bytes, align), b->roff.v, align_up(b->bytes, align)))
			return true;
	}
	return false;
}

enum ram_add ram_add_backing(struct ram *r, gpa_t gpa, uint64_t bytes, struct src *src,
			     uint64_t src_offset, uint64_t align)
{
	uint16_t entry = 0, *order = backing_order(r);
	struct ram_backing *b;
	unsigned at;
	roff_t off;

	if (r->backing_count == (r->more ? RAM_BACKINGS_MAX : RAM_BACKINGS_INLINE))
		return RAM_FULL;
	if (bytes == 0 || gpa.v % align || src_offset + bytes < bytes)
		return RAM_UNALIGNED;
	if (!ram_find(r, gpa, bytes, &off))
		return RAM_OUTSIDE;
	if (meets_backing(r, off, bytes, align))
		return RAM_OVERLAP;
	while (entry_at(r, entry)->src)
		entry++;
	b = entry_at(r, entry);
	*b = (struct ram_backing){
		.roff = off, .bytes = bytes, .src = src, .src_offset = src_offset};
	grace_init(&b->grace);
	at = backings_up_to(r, off);
	memmove(&order[at + 1], &order[at], (r->backing_count - at) * sizeof(*order));
	order[at] = entry;
	r->backing_count++;
	return RAM_ADDED;
}

void ram_remove_backing(struct ram *r, gpa_t gpa, uint64_t bytes)
{
	roff_t off;

	if (ram_find(r, gpa, bytes, &off))
		remove_backings(r, off, bytes);
}

bool ram_find(const struct ram *r, gpa_t gpa, uint64_t len, roff_t *ret_off)
{
	unsigned at = up_to_gpa(r, gpa);
	const struct ram_region *g = &by_gpa(r)[at - 1];

	if (at == 0 || gpa.v - g->gpa.v >= g->bytes || len > g->bytes - (gpa.v - g->gpa.v))
		return false;
	ret_off->v = g->roff.v + (gpa.v - g->gpa.v);
	return true;
}

const struct ram_region *ram_region_at(const struct ram *r, roff_t off)
{
	unsigned at = up_to_roff(r, off);
	const struct ram_region *g = &by_roff(r)[at - 1];

	return at > 0 && off.v - g->roff.v < g->bytes ? g : NULL;
}

gpa_t ram_gpa(const struct ram *r, roff_t off)
{
	const struct ram_region *g = ram_region_at(r, off);

	ASSERT(g);
	return (gpa_t){g->gpa.v + (off.v - g->roff.v)};
}

struct ram_backing *ram_backing_at(struct ram *r, roff_t off)
{
	unsigned at = backings_up_to(r, off);
	struct ram_backing *b;

	if (at == 0)
		return NULL;
	b = entry_at(r, backing_order(r)[at - 1]);
	return off.v - b->roff.v < b->bytes ? b : NULL;
}
