/* SPDX-License-Identifier: Apache-2.0 */
/* See workers.h. */
#include "work/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/types.h"

#define THREADS_BY_ITSELF_MAX 4

struct worker {
	struct workers *owner;
	pthread_t thread;
	unsigned index;
};

struct workers {
	struct workers_cfg cfg;
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
	struct workers *w = me->owner;
	struct work_job *job;

	if (w->cfg.begins)
		w->cfg.begins(w->cfg.ctx, "asyncpf-work");
	pthread_mutex_lock(&w->lock);
	while (!w->closing) {
		job = job_of(turn_queue_take(&w->waiting));
		if (!job) {
			pthread_cond_wait(&w->more, &w->lock);
			continue;
		}
		job->priv.waits = false;
		pthread_mutex_unlock(&w->lock);
		job->run(job, me->index);
		pthread_mutex_lock(&w->lock);
		bool first = !w->ended.first;

		list_append(&w->ended, &job->priv.link);
		__atomic_store_n(&w->any_ended, true, __ATOMIC_RELAXED);
		if (!first)
			continue;
		pthread_mutex_unlock(&w->lock);
		w->cfg.wake(w->cfg.ctx);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static unsigned threads_wanted(const struct workers *w)
{
	cpu_set_t cpus;

	if (w->cfg.threads > 0)
		return w->cfg.threads;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return (unsigned)min_u64((uint64_t)CPU_COUNT(&cpus), THREADS_BY_ITSELF_MAX);
}

static int threads(void *ctx, struct err *e)
{
	struct workers *w = ctx;
	unsigned wanted = threads_wanted(w);
	sigset_t all, old;
	int rc = 0;

	if (w->started > 0)
		return (int)w->started;
	/* The VMM's signals are for the VMM's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (rc == 0 && w->started < wanted) {
		struct worker *t = &w->threads[w->started];

		*t = (struct worker){.owner = w, .index = w->started};
		rc = pthread_create(&t->thread, NULL, work, t);
		w->started += rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	/* Fewer than wanted are slower, and do. */
	return w->started > 0 ? (int)w->started : err_sys(e, -rc, "threads for decompression");
}

static void queue(void *ctx, struct work_job *job, enum turn turn)
{
	struct workers *w = ctx;

	ASSERT(w->started > 0);
	pthread_mutex_lock(&w->lock);
	job->priv.turn = turn;
	job->priv.waits = true;
	turn_queue_add(&w->waiting, &job->priv.link, turn);
	pthread_mutex_unlock(&w->lock);
	pthread_cond_signal(&w->more);
}

static void raise_job(void *ctx, struct work_job *job, enum turn turn)
{
	struct workers *w = ctx;

	pthread_mutex_lock(&w->lock);
	if (job->priv.waits && turn < job->priv.turn) {
		turn_queue_remove(&w->waiting, &job->priv.link, job->priv.turn);
		job->priv.turn = turn;
		turn_queue_add(&w->waiting, &job->priv.link, turn);
	}
	pthread_mutex_unlock(&w->lock);
}

int workers_open(const struct workers_cfg *cfg, struct workers **ret, struct err *e)
{
	struct workers *w = calloc(1, sizeof(*w));

	ASSERT(cfg->threads <= WORK_THREADS_MAX);
	if (!w)
		return err_sys(e, -ENOMEM, "threads for decompression");
	w->cfg = *cfg;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	*ret = w;
	return 0;
}

struct work workers_work(struct workers *w)
{
	static const struct work_ops ops = {
		.threads = threads, .queue = queue, .raise = raise_job};

	return (struct work){&ops, w};
}

bool workers_due(struct workers *w)
{
	return __atomic_load_n(&w->any_ended, __ATOMIC_RELAXED);
}

bool workers_reap(struct workers *w)
{
	struct list ended;
	struct work_job *job;

	if (!workers_due(w))
		return false;
	pthread_mutex_lock(&w->lock);
	ended = w->ended;
	w->ended = (struct list){.first = NULL};
	__atomic_store_n(&w->any_ended, false, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&w->lock);
	while ((job = job_of(list_take(&ended))))
		job->done(job);
	return true;
}

void workers_close(struct workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	ASSERT(!turn_queue_first(&w->waiting) && !w->ended.first);
	w->closing = true;
	pthread_mutex_unlock(&w->lock);
	pthread_cond_broadcast(&w->more);
	for (unsigned i = 0; i < w->started; i++)
		pthread_join(w->threads[i].thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->more);
	free(w);
}
