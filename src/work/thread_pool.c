/* SPDX-License-Identifier: Apache-2.0 */
/* See thread_pool.h. */
#include "work/thread_pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/types.h"

#define THREADS_BY_ITSELF_MAX 4

struct worker {
	struct thread_pool *owner;
	pthread_t thread;
	unsigned index;
};

struct thread_pool {
	struct thread_pool_cfg cfg;
	struct worker threads[WORK_THREADS_MAX];
	unsigned started;
	pthread_mutex_t lock;
	pthread_cond_t more;
	/* Under the lock: */
	struct turn_queue waiting;
	struct list ended;
	bool closing;
	bool any_ended; /* atomic: whether ended has any, for who looks often */
};

static struct work_job *job_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct work_job, priv.link);
}

static void *work(void *arg)
{
	struct worker *me = arg;
	struct thread_pool *p = me->owner;
	struct work_job *job;

	if (p->cfg.begins)
		p->cfg.begins(p->cfg.ctx, "asyncpf-work");
	pthread_mutex_lock(&p->lock);
	while (!p->closing) {
		job = job_of(turn_queue_take(&p->waiting));
		if (!job) {
			pthread_cond_wait(&p->more, &p->lock);
			continue;
		}
		job->priv.waits = false;
		pthread_mutex_unlock(&p->lock);
		job->run(job, me->index);
		pthread_mutex_lock(&p->lock);
		bool first = !p->ended.first;

		list_append(&p->ended, &job->priv.link);
		__atomic_store_n(&p->any_ended, true, __ATOMIC_RELAXED);
		if (!first)
			continue;
		pthread_mutex_unlock(&p->lock);
		p->cfg.wake(p->cfg.ctx);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static unsigned threads_wanted(const struct thread_pool *p)
{
	cpu_set_t cpus;

	if (p->cfg.threads > 0)
		return p->cfg.threads;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return (unsigned)min_u64((uint64_t)CPU_COUNT(&cpus), THREADS_BY_ITSELF_MAX);
}

static int threads(void *ctx, struct err *e)
{
	struct thread_pool *p = ctx;
	unsigned wanted = threads_wanted(p);
	sigset_t all, old;
	int rc = 0;

	if (p->started > 0)
		return (int)p->started;
	/* The VMM's signals are for the VMM's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (rc == 0 && p->started < wanted) {
		struct worker *t = &p->threads[p->started];

		*t = (struct worker){.owner = p, .index = p->started};
		rc = pthread_create(&t->thread, NULL, work, t);
		p->started += rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	/* Fewer than wanted are slower, and do. */
	return p->started > 0 ? (int)p->started : err_sys(e, -rc, "threads for decompression");
}

static void queue(void *ctx, struct work_job *job, enum turn turn)
{
	struct thread_pool *p = ctx;

	ASSERT(p->started > 0);
	pthread_mutex_lock(&p->lock);
	job->priv.turn = turn;
	job->priv.waits = true;
	turn_queue_add(&p->waiting, &job->priv.link, turn);
	pthread_mutex_unlock(&p->lock);
	pthread_cond_signal(&p->more);
}

static void raise_job(void *ctx, struct work_job *job, enum turn turn)
{
	struct thread_pool *p = ctx;

	pthread_mutex_lock(&p->lock);
	if (job->priv.waits && turn < job->priv.turn) {
		turn_queue_remove(&p->waiting, &job->priv.link, job->priv.turn);
		job->priv.turn = turn;
		turn_queue_add(&p->waiting, &job->priv.link, turn);
	}
	pthread_mutex_unlock(&p->lock);
}

int thread_pool_open(const struct thread_pool_cfg *cfg, struct thread_pool **ret, struct err *e)
{
	struct thread_pool *p = calloc(1, sizeof(*p));

	ASSERT(cfg->threads <= WORK_THREADS_MAX);
	if (!p)
		return err_sys(e, -ENOMEM, "threads for decompression");
	p->cfg = *cfg;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	*ret = p;
	return 0;
}

struct work thread_pool_work(struct thread_pool *p)
{
	static const struct work_ops ops = {
		.threads = threads, .queue = queue, .raise = raise_job};

	return (struct work){&ops, p};
}

bool thread_pool_due(struct thread_pool *p)
{
	return __atomic_load_n(&p->any_ended, __ATOMIC_RELAXED);
}

bool thread_pool_reap(struct thread_pool *p)
{
	struct list ended;
	struct work_job *job;

	if (!thread_pool_due(p))
		return false;
	pthread_mutex_lock(&p->lock);
	ended = p->ended;
	p->ended = (struct list){.first = NULL};
	__atomic_store_n(&p->any_ended, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&p->lock);
	while ((job = job_of(list_take(&ended))))
		job->done(job);
	return true;
}

void thread_pool_close(struct thread_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	ASSERT(!turn_queue_first(&p->waiting) && !p->ended.first);
	p->closing = true;
	pthread_mutex_unlock(&p->lock);
	pthread_cond_broadcast(&p->more);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->threads[i].thread, NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->more);
	free(p);
}
