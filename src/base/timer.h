/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deadlines: a binary heap of intrusive timers over a fixed array. Pure: it
 * never reads a clock, the owner passes `now`. Not thread-safe; the owner's lock
 * covers it. Test: tests/unit/timer_test.c.
 */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H

#include "base/types.h"

struct timer {
	uint64_t due_ns;                /* absolute; meaningful while armed */
	uint32_t heap_ix;               /* position + 1; 0 when not armed */
	void (*fire)(struct timer *tm, uint64_t now_ns);
};

struct timers {
	struct timer **heap; /* caller's array of `cap` pointers */
	uint32_t len;
	uint32_t cap;
	uint32_t to_lend;    /* timers that others may still have: timers_lend */
	uint32_t deferred;   /* during a run: armed by a callback for a time already reached */
	bool running;        /* inside timers_run */
	uint64_t run_now_ns; /* its now */
};

/* Borrows heap, which must outlive ts. A struct timer starts as all zeroes plus `fire`. */
void timers_init(struct timers *ts, struct timer **heap, uint32_t cap);

/*
 * Somebody whom the owner does not know has a timer from now on. False: there is no place for one
 * more. Who knows all of them (timers_init: cap may be lent) need not ask.
 */
bool timers_lend(struct timers *ts);
void timers_take_back(struct timers *ts);

/*
 * Arms or re-arms; callbacks may call it. tm stays the caller's and must stay alive
 * while armed. The number of armed timers must never exceed cap (asserted).
 */
void timer_arm(struct timers *ts, struct timer *tm, uint64_t due_ns);

/* Disarms; harmless when not armed, and in callbacks: tm does not fire any more. */
void timer_cancel(struct timers *ts, struct timer *tm);

static inline bool timer_armed(const struct timer *tm)
{
	return tm->heap_ix != 0;
}

/* Earliest deadline, NS_NEVER when none is armed. */
uint64_t timers_next_ns(const struct timers *ts);

/*
 * Fires every timer due at or before now_ns, each disarmed first, in order of
 * deadline (equal ones in an order that depends on the calls alone). A timer armed by
 * a callback for a time <= now_ns fires at the next call, not in this one, so the loop
 * is bounded. Not to be called from a callback. Returns how many fired.
 */
unsigned timers_run(struct timers *ts, uint64_t now_ns);

#endif
