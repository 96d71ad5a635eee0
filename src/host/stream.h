/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes through memory in even steps: forwards, backwards, block by block or with gaps. Several
 * at a time, each seen by the blocks that had to be waited for. Pure. Test:
 * tests/unit/stream_test.c.
 */
#ifndef HOST_STREAM_H
#define HOST_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#define STREAMS_MAX 32u
/* Steps are no longer than this, in blocks: what is farther apart is somebody else. */
#define STREAM_STRIDE_MAX 16

struct stream {
	uint32_t last;   /* the block that was touched last */
	int32_t stride;  /* blocks from one to the next; 0: only one was seen */
	uint32_t hits;   /* steps that were as expected */
	uint32_t asked;  /* steps beyond `last` that are read ahead already */
	uint32_t window; /* steps that are to be */
	uint32_t used_at;
};

struct streams {
	struct stream all[STREAMS_MAX];
	uint32_t clock_hand;
};

/*
 * The block had to be waited for. Returns the stream that is to be read ahead, of at most max
 * steps; from last + stride * (asked + 1) to last + stride * window, as far as there is room. The
 * caller counts in `asked` what he does. NULL: nothing is to be.
 */
struct stream *stream_touch(struct streams *s, uint32_t block, uint32_t max);
/* The block is where one is whose steps were even before. */
bool stream_is_at(const struct streams *s, uint32_t block);

#endif
