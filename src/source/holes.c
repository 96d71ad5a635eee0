/* SPDX-License-Identifier: Apache-2.0 */
/* See holes.h. */
#include "source/holes.h"

#include <stdlib.h>

/* Behind those that are there. False: no memory. */
static bool holes_add(struct ranges *holes, uint64_t from, uint64_t to)
{
	if (holes->count == holes->max) {
		size_t more = holes->max ? 2 * holes->max : 64;
		struct range *at = realloc(holes->at, more * sizeof(*at));

		if (!at)
			return false;
		holes->at = at;
		holes->max = more;
	}
	return ranges_add(holes, from, to) == RANGES_ADDED;
}

void holes_find(struct ranges *holes, const struct io *io, struct io_file *file, uint64_t size,
		const struct clock *clock)
{
	uint64_t until = io->ops->hole ? clock_now_ns(clock) + HOLES_NS : 0;
	uint64_t from, to, at = 0;

	*holes = (struct ranges){.count = 0};
	while (io->ops->hole && at < size && holes->count < HOLES_MAX &&
	       io->ops->hole(io->ctx, file, at, &from, &to) == 0) {
		/* A file system that leads nowhere is not followed. */
		if (from < at || from >= size || to <= from)
			return;
		/* No read is smaller than a page, but the last. */
		if (to - from >= PAGE_BYTES && !holes_add(holes, from, min_u64(to, size)))
			return;
		at = to;
		if (clock_now_ns(clock) >= until)
			return;
	}
}

void holes_drop(struct ranges *holes)
{
	free(holes->at);
	*holes = (struct ranges){.count = 0};
}
