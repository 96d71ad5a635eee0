/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events on their way from any thread to the control server's: a short queue. Where it is full, an
 * event is counted instead. Test: tests/unit/control_follow_test.c.
 */
#ifndef VMM_CONTROL_TOLD_H
#define VMM_CONTROL_TOLD_H

#include <pthread.h>

#include "vmm/control/control_event.h"

#define CONTROL_TOLD_MAX 64u

struct control_told {
	pthread_mutex_t lock; /* nothing else is locked under it */
	enum control_event_kind state; /* RESUMED, PAUSED or TROUBLE: what was told last */
	uint64_t changes; /* of state */
	unsigned first, count;
	uint64_t lost;
	uint64_t lost_ns; /* the uptime of the last one that was */
	struct control_event ring[CONTROL_TOLD_MAX];
};

void control_told_init(struct control_told *t);
/* False: it changes nothing, and nobody need hear of it. Any thread, with any lock held. */
bool control_told_put(struct control_told *t, const struct control_event *ev);
/* How often the state has changed. Any thread. */
uint64_t control_told_changes(struct control_told *t);
/* As put, where the state has not changed since there were so many changes of it. */
bool control_told_put_since(struct control_told *t, const struct control_event *ev,
			    uint64_t changes);
/* The oldest; after the others, LOST. False: there is none. */
bool control_told_take(struct control_told *t, struct control_event *ret);

#endif
