/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes first, wherever reads wait on their way to a page source: in its queues, for threads
 * that read or decompress, for a server. Within a turn whoever came first is first. Pure.
 */
#ifndef PORT_TURN_H
#define PORT_TURN_H

#include <stdint.h>

enum turn {
	TURN_URGENT, /* somebody can do nothing else until it is there */
	TURN_DEMAND, /* somebody waits for it */
	TURN_AHEAD,  /* somebody is likely to, soon */
	TURN_FILL,   /* it may be of use */
	TURNS,
};

/*
 * Whoever has a later turn gets a chance after so many others: reads that wait for ever keep memory
 * that was made room in for them.
 */
#define TURN_IN_A_ROW 16u

/* Of one queue; zeroed at first. */
struct turn_row {
	uint32_t count;  /* so many went since the last chance */
	uint32_t behind; /* whose chance is next: turn 1 + behind */
};

/* The turn to be looked at as the ith, i < TURNS. */
static inline unsigned turn_at(const struct turn_row *r, unsigned i)
{
	return ((r->count < TURN_IN_A_ROW ? 0 : 1 + r->behind) + i) % TURNS;
}

/* One of them went. */
static inline void turn_went(struct turn_row *r)
{
	if (r->count++ < TURN_IN_A_ROW)
		return;
	r->count = 0;
	r->behind = (r->behind + 1) % (TURNS - 1);
}

#endif
