/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap behind base/timer.h. Freestanding. The owner's lock covers every call.
 *
 * The array is used from both ends: [0, len) is the heap, [cap - deferred, cap) are
 * timers that a callback armed for a time already reached. They join the heap when
 * the run is over, which bounds a run by what was due when it began. Both parts
 * hold armed timers only, and no more than cap are armed, so they never meet.
 * Test: tests/unit/timer_test.c.
 */
#include "base/timer.h"

#include "base/assert.h"

static void heap_put(struct timers *ts, uint32_t ix, struct timer *tm)
{
	ts->heap[ix] = tm;
	tm->heap_ix = ix + 1;
}

static void heap_sift_up(struct timers *ts, uint32_t ix)
{
	struct timer *tm = ts->heap[ix];

	while (ix > 0) {
		uint32_t parent = (ix - 1) / 2;

		if (ts->heap[parent]->due_ns <= tm->due_ns)
			break;
		heap_put(ts, ix, ts->heap[parent]);
		ix = parent;
	}
	heap_put(ts, ix, tm);
}

static void heap_sift_down(struct timers *ts, uint32_t ix)
{
	struct timer *tm = ts->heap[ix];

	for (;;) {
		uint32_t child = 2 * ix + 1;

		if (child >= ts->len)
			break;
		if (child + 1 < ts->len &&
		    ts->heap[child + 1]->due_ns < ts->heap[child]->due_ns)
			child++;
		if (tm->due_ns <= ts->heap[child]->due_ns)
			break;
		heap_put(ts, ix, ts->heap[child]);
		ix = child;
	}
	heap_put(ts, ix, tm);
}

static void heap_insert(struct timers *ts, struct timer *tm)
{
	uint32_t ix = ts->len++;

	heap_put(ts, ix, tm);
	heap_sift_up(ts, ix);
}

static void heap_remove(struct timers *ts, uint32_t ix)
{
	struct timer *last = ts->heap[--ts->len];

	ts->heap[ix]->heap_ix = 0;
	if (ix == ts->len)
		return;
	/* The last one may belong above or below the hole; one of the two moves nothing. */
	heap_put(ts, ix, last);
	heap_sift_up(ts, ix);
	heap_sift_down(ts, last->heap_ix - 1);
}

void timers_init(struct timers *ts, struct timer **heap, uint32_t cap)
{
	*ts = (struct timers){.heap = heap, .cap = cap, .to_lend = cap};
}

bool timers_lend(struct timers *ts)
{
	if (ts->to_lend == 0)
		return false;
	ts->to_lend--;
	return true;
}

void timers_take_back(struct timers *ts)
{
	ts->to_lend++;
}

void timer_arm(struct timers *ts, struct timer *tm, uint64_t due_ns)
{
	timer_cancel(ts, tm);
	ASSERT(ts->len + ts->deferred < ts->cap);
	tm->due_ns = due_ns;
	if (ts->running && due_ns <= ts->run_now_ns) {
		ts->deferred++;
		heap_put(ts, ts->cap - ts->deferred, tm);
	} else {
		heap_insert(ts, tm);
	}
}

void timer_cancel(struct timers *ts, struct timer *tm)
{
	if (!timer_armed(tm))
		return;
	uint32_t ix = tm->heap_ix - 1;

	ASSERT(ix < ts->cap && ts->heap[ix] == tm);
	if (ix < ts->len) {
		heap_remove(ts, ix);
		return;
	}
	/* Deferred: the lowest of them fills the hole. */
	uint32_t lowest = ts->cap - ts->deferred;

	ASSERT(ix >= lowest);
	heap_put(ts, ix, ts->heap[lowest]);
	tm->heap_ix = 0;
	ts->deferred--;
}

uint64_t timers_next_ns(const struct timers *ts)
{
	uint64_t next_ns = ts->len ? ts->heap[0]->due_ns : NS_NEVER;

	for (uint32_t ix = ts->cap - ts->deferred; ix < ts->cap; ix++)
		next_ns = min_u64(next_ns, ts->heap[ix]->due_ns);
	return next_ns;
}

unsigned timers_run(struct timers *ts, uint64_t now_ns)
{
	unsigned fired = 0;

	ASSERT(!ts->running);
	ts->running = true;
	ts->run_now_ns = now_ns;
	while (ts->len && ts->heap[0]->due_ns <= now_ns) {
		struct timer *tm = ts->heap[0];

		heap_remove(ts, 0);
		fired++;
		tm->fire(tm, now_ns); /* may free tm */
	}
	ts->running = false;
	while (ts->deferred) {
		/* The slot is read before the heap, one longer, may reach it. */
		struct timer *tm = ts->heap[ts->cap - ts->deferred];

		ts->deferred--;
		heap_insert(ts, tm);
	}
	return fired;
}
