/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: work that costs CPU time, decompression for one, carried out without the VM lock. The
 * shipped implementation is work/thread_pool.c.
 *
 * Threads: every call is made under the caller's lock (the VM lock), `done` as well. `run` is
 * called without it, by any thread, several jobs at a time.
 */
#ifndef PORT_WORK_H
#define PORT_WORK_H

#include <stdbool.h>

#include "base/err.h"
#include "base/list.h"
#include "port/turn.h"

#define WORK_THREADS_MAX 16u

struct work_job {
	/*
	 * Carries it out; thread is below what threads() returned, and no other job runs with the
	 * same one meanwhile. Owns what the job refers to until done. Must not wait for other jobs.
	 */
	void (*run)(struct work_job *job, unsigned thread);
	/* It is over; exactly once. May queue again, and free the job. */
	void (*done)(struct work_job *job);
	/* Scratch of the implementation until done; nobody else looks at it. */
	struct {
		struct list_link link;
		enum turn turn;
		bool waits;
	} priv;
};

struct work_ops {
	/*
	 * To be called before the first queue(); later calls do nothing. Blocks. Returns how many
	 * jobs run at a time at most, 1..WORK_THREADS_MAX, or -Exxx with text.
	 */
	int (*threads)(void *ctx, struct err *e);
	/*
	 * Queues the job. Never fails. It cannot be cancelled: a job is short, a few milliseconds.
	 */
	void (*queue)(void *ctx, struct work_job *job, enum turn turn);
	/*
	 * From now on a job that is not done goes by that turn, unless it goes by an earlier one or
	 * runs already. NULL: nothing waits here by turn.
	 */
	void (*raise)(void *ctx, struct work_job *job, enum turn turn);
};

struct work {
	const struct work_ops *ops; /* NULL: there is nobody to do it */
	void *ctx;
};

static inline void work_raise(const struct work *w, struct work_job *job, enum turn turn)
{
	if (w->ops->raise)
		w->ops->raise(w->ctx, job, turn);
}

#endif
