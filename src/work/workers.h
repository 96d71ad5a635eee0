/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped implementation of port/work.h: a few threads and two queues. Test:
 * tests/unit/workers_test.c.
 *
 * Threads: workers_reap and workers_due under the lock of port/work.h. An implementation has a
 * lock of its own, which is a leaf: no other is taken with it.
 */
#ifndef WORK_WORKERS_H
#define WORK_WORKERS_H

#include "port/work.h"

struct workers;

struct workers_cfg {
	unsigned threads; /* 1..WORK_THREADS_MAX; 0: one for each CPU we may run on, at most 4 */
	/* First thing in each thread, which has all signals blocked. May be NULL. */
	void (*begins)(void *ctx, const char *name);
	/* A job has ended, and workers_reap is due: from any thread, without the lock. */
	void (*wake)(void *ctx);
	void *ctx;
};

/* No thread is started yet. 0, or -ENOMEM. */
int workers_open(const struct workers_cfg *cfg, struct workers **ret, struct err *e);
/* The table; valid until workers_close(). */
struct work workers_work(struct workers *w);
/* Runs `done` of the jobs that have ended. False: there was none. */
bool workers_reap(struct workers *w);
/* Something waits for workers_reap. */
bool workers_due(struct workers *w);
/* Waits for the threads. No job may be outstanding. NULL is harmless. */
void workers_close(struct workers *w);

#endif
