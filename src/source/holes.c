/* SPDX-License-Identifier: Apache-2.0 */
/* See holes.h. */
#include "source/holes.h"

#include <stdlib.h>

/* False: no memory. */
static bool holes_add(struct holes *hs, uint32_t *room, uint64_t from, uint64_t to)
{
	if (hs->count == *room) {
		uint32_t more = *room ? 2 * *room : 64;
		struct hole *all = realloc(hs->all, more * sizeof(*all));

		if (!all)
			return false;
		hs->all = all;
		*room = more;
	}
	hs->all[hs->count++] = (struct hole){from, to};
	return true;
}

void holes_find(struct holes *hs, const struct io *io, struct io_file *file, uint64_t size,
		const struct clock *clock)
{
	uint64_t until = io->ops->hole ? clock_now_ns(clock) + HOLES_NS : 0;
	uint64_t from, to, at = 0;
	uint32_t room = 0;

	*hs = (struct holes){.count = 0};
	while (io->ops->hole && at < size && hs->count < HOLES_MAX &&
	       io->ops->hole(io->ctx, file, at, &from, &to) == 0) {
		/* A file system that leads nowhere is not followed. */
		if (from < at || from >= size || to <= from)
			return;
		/* No read is smaller than a page, but the last. */
		if (to - from >= PAGE_BYTES && !holes_add(hs, &room, from, min_u64(to, size)))
			return;
		at = to;
		if (clock_now_ns(clock) >= until)
			return;
	}
}

bool holes_cover(const struct holes *hs, uint64_t offset, uint32_t len)
{
	uint32_t low = 0, high = hs->count;

	/* The first that ends behind the offset. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (hs->all[middle].to <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < hs->count && hs->all[low].from <= offset && len <= hs->all[low].to - offset;
}

void holes_drop(struct holes *hs)
{
	free(hs->all);
	*hs = (struct holes){.count = 0};
}
