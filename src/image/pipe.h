/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pipeline for pieces of a file: fed in order, worked on by several threads, and taken in order.
 * Memory is bounded: `slots` pieces at most are under way.
 *
 * Each thread does all three: it feeds a piece (one thread at a time), works on it, and then, if
 * it is the oldest one's turn and nobody is at it, takes what is ready. So as many threads as were
 * asked for are busy, and none only waits for another's file. Test: tests/unit/pipe_test.c.
 */
#ifndef IMAGE_PIPE_H
#define IMAGE_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PIPE_THREADS_MAX 256u
/* What keeps so many threads busy while the oldest piece is slow. */
#define PIPE_SLOTS(threads) (2 * (threads) + 2)

/*
 * Each gets the slot's piece (struct pipe_ops.slot_bytes, zeroed once, at the start) and returns
 * 0, or -Exxx with text, which ends everything. feed: 1 while there is a piece, 0 at the end.
 */
struct pipe_ops {
	int (*feed)(void *ctx, void *piece, struct err *e);
	int (*work)(void *ctx, void *piece, unsigned thread, struct err *e);
	int (*take)(void *ctx, void *piece, struct err *e);
	size_t slot_bytes;
};

struct pipe;

/*
 * threads: 1..PIPE_THREADS_MAX; where the host refuses some of them, fewer do it. ops and ctx must
 * live until pipe_end(). All signals are blocked in the threads. 0, or -Exxx with text.
 */
int pipe_start(const struct pipe_ops *ops, void *ctx, unsigned threads, struct pipe **ret,
	       struct err *e);
/* Readable once the last thread has nothing to do any more. */
int pipe_fd(const struct pipe *p);
/* Nothing new is begun. Any thread. */
void pipe_stop(struct pipe *p);
/*
 * Waits for the threads and frees p. 0: every piece was taken; -ECANCELED without text: stopped;
 * otherwise the error of the oldest piece that had one, after all older pieces were taken.
 */
int pipe_end(struct pipe *p, struct err *e);

#endif
