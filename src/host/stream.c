/* SPDX-License-Identifier: Apache-2.0 */
/* See stream.h. */
#include "host/stream.h"

#include <stddef.h>

#include "base/types.h"

/* As many even steps are no accident. */
#define HITS_MIN 2u
#define WINDOW_FIRST 4u

/*
 * How many of its steps lead to the block: 1 to asked + 1, as what was read ahead is not waited for
 * again. 0: none do.
 */
static uint32_t steps_to(const struct stream *s, uint32_t block)
{
	int64_t apart = (int64_t)block - s->last;

	if (s->stride == 0 || apart % s->stride != 0 || apart / s->stride < 1 ||
	    apart / s->stride > (int64_t)s->asked + 1)
		return 0;
	return (uint32_t)(apart / s->stride);
}

static struct stream *expecting(struct streams *s, uint32_t block, uint32_t *ret_steps)
{
	for (struct stream *at = s->all; at < s->all + STREAMS_MAX; at++) {
		*ret_steps = at->used_at ? steps_to(at, block) : 0;
		if (*ret_steps > 0)
			return at;
	}
	return NULL;
}

/* The stream whose last step led to the block, or NULL. */
static const struct stream *at_block(const struct streams *s, uint32_t block)
{
	for (const struct stream *at = s->all; at < s->all + STREAMS_MAX; at++)
		if (at->used_at && at->last == block)
			return at;
	return NULL;
}

static bool is_sure(const struct stream *s)
{
	return s->hits >= HITS_MIN;
}

bool stream_is_at(const struct streams *s, uint32_t block)
{
	const struct stream *at = at_block(s, block);

	return at && is_sure(at);
}

/* One that may have begun with the block: the nearest. */
static struct stream *near(struct streams *s, uint32_t block)
{
	struct stream *best = NULL;
	int64_t least = STREAM_STRIDE_MAX + 1;

	for (struct stream *at = s->all; at < s->all + STREAMS_MAX; at++) {
		int64_t apart = (int64_t)block - at->last;

		if (apart < 0)
			apart = -apart;
		if (!at->used_at || is_sure(at) || apart >= least)
			continue;
		least = apart;
		best = at;
	}
	return best;
}

static struct stream *oldest(struct streams *s)
{
	struct stream *best = s->all;

	for (struct stream *at = s->all; at < s->all + STREAMS_MAX; at++)
		if (at->used_at < best->used_at)
			best = at;
	return best;
}

/* Half of what is read ahead is used up: twice as much, and there is to be that much again. */
static bool is_due(struct stream *s, uint32_t max)
{
	if (!is_sure(s) || s->asked > s->window / 2)
		return false;
	s->window = (uint32_t)min_u64(s->window ? 2ull * s->window : WINDOW_FIRST, max);
	return s->window > s->asked;
}

struct stream *stream_touch(struct streams *s, uint32_t block, uint32_t max)
{
	struct stream *at;
	uint32_t steps;

	/* Not asked for: each fault comes by here. Several may wait for it: that is no step. */
	if (max == 0 || at_block(s, block))
		return NULL;
	at = expecting(s, block, &steps);
	if (at) {
		at->hits++;
		at->asked -= (uint32_t)min_u64(steps, at->asked);
	} else {
		at = near(s, block);
		if (at)
			*at = (struct stream){.stride = (int32_t)((int64_t)block - at->last),
					      .hits = 1};
		else
			*(at = oldest(s)) = (struct stream){.stride = 0};
	}
	at->last = block;
	at->used_at = ++s->clock_hand;
	return is_due(at, max) ? at : NULL;
}
