/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped implementation of port/work.h: a few threads and two queues. Test:
 * tests/unit/thread_pool_test.c.
 *
 * Threads: thread_pool_reap and thread_pool_due under the lock of port/work.h. The pool has a lock
 * of its own, which is a leaf: no other is taken with it.
 */
#ifndef WORK_THREAD_POOL_H
#define WORK_THREAD_POOL_H

#include "port/work.h"

struct thread_pool;

struct thread_pool_cfg {
	unsigned threads; /* 1..WORK_THREADS_MAX; 0: one for each CPU we may run on, at most 4 */
	/* First thing in each thread, which has all signals blocked. May be NULL. */
	void (*begins)(void *ctx, const char *name);
	/* A job has ended, and thread_pool_reap is due: from any thread, without the lock. */
	void (*wake)(void *ctx);
	void *ctx;
};

/* No thread is started yet. 0, or -ENOMEM. */
int thread_pool_open(const struct thread_pool_cfg *cfg, struct thread_pool **ret, struct err *e);
/* The table; valid until thread_pool_close(). */
struct work thread_pool_work(struct thread_pool *p);
/* Runs `done` of the jobs that have ended. False: there was none. */
bool thread_pool_reap(struct thread_pool *p);
/* Something waits for thread_pool_reap. */
bool thread_pool_due(struct thread_pool *p);
/* Waits for the threads. No job may be outstanding. NULL is harmless. */
void thread_pool_close(struct thread_pool *p);

#endif
