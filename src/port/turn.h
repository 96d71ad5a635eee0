/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who goes first, wherever reads wait on their way to a page source: in its queues, for threads
 * that read or decompress, for a server. Within a turn whoever came first is first. Pure.
 */
#ifndef PORT_TURN_H
#define PORT_TURN_H

#include <stdint.h>

#include "base/list.h"

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

/* What waits, by links that lie in it (base/list.h); zeroed at first. */
struct turn_queue {
	struct list of[TURNS];
	struct turn_row row;
};

/* Behind all of its turn. */
static inline void turn_queue_add(struct turn_queue *q, struct list_link *link, unsigned turn)
{
	list_append(&q->of[turn], link);
}

/* turn: the one that it waits by. */
static inline void turn_queue_remove(struct turn_queue *q, struct list_link *link, unsigned turn)
{
	list_remove(&q->of[turn], link);
}

/* Who goes next, and stays in the queue until then; NULL: nobody waits. */
static inline struct list_link *turn_queue_first(const struct turn_queue *q)
{
	struct list_link *first = NULL;

	for (unsigned i = 0; i < TURNS && !first; i++)
		first = q->of[turn_at(&q->row, i)].first;
	return first;
}

/* Takes out who goes next. */
static inline struct list_link *turn_queue_take(struct turn_queue *q)
{
	struct list_link *link = NULL;

	for (unsigned i = 0; i < TURNS && !link; i++)
		link = list_take(&q->of[turn_at(&q->row, i)]);
	if (link)
		turn_went(&q->row);
	return link;
}

#endif
