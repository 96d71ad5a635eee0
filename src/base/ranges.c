/* SPDX-License-Identifier: Apache-2.0 */
/* See ranges.h. */
#include "base/ranges.h"

#include <string.h>

/* The first that ends behind offset. */
static size_t first_behind(const struct ranges *r, uint64_t offset)
{
	size_t lo = 0, hi = r->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->at[mid].to <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

enum ranges_added ranges_add(struct ranges *r, uint64_t from, uint64_t to)
{
	size_t i = first_behind(r, from);
	struct range *next = &r->at[i];
	bool joins_last = i > 0 && next[-1].to == from;
	bool joins_next = i < r->count && next->from == to;

	if (i < r->count && next->from < to)
		return RANGES_OVERLAP;
	if (!joins_last && !joins_next && r->count == r->max)
		return RANGES_FULL;
	if (joins_last)
		next[-1].to = joins_next ? next->to : to;
	else if (joins_next)
		next->from = from;
	if (joins_last && joins_next)
		memmove(next, next + 1, (--r->count - i) * sizeof(*next));
	if (joins_last || joins_next)
		return RANGES_ADDED;
	memmove(next + 1, next, (r->count++ - i) * sizeof(*next));
	*next = (struct range){from, to};
	return RANGES_ADDED;
}

bool ranges_have(const struct ranges *r, uint64_t from, uint64_t to)
{
	size_t i = first_behind(r, from);

	return i < r->count && r->at[i].from <= from && to <= r->at[i].to;
}
