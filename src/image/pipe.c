/* SPDX-License-Identifier: Apache-2.0 */
/* See pipe.h. */
#include "image/pipe.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"

struct slot {
	bool ready; /* worked on, or failed */
	int rc;
	struct err why;
	void *piece;
};

struct thread {
	struct pipe *owner;
	pthread_t id;
	unsigned index;
};

struct pipe {
	const struct pipe_ops *ops;
	void *ctx;
	struct thread threads[PIPE_THREADS_MAX];
	unsigned started;
	struct slot *slots; /* piece i is in slot i % slot_count */
	unsigned slot_count;
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a thread may feed now, or is to end */
	/* Under the lock: */
	uint64_t fed, taken; /* pieces; all below `taken` are done with */
	unsigned running;    /* threads */
	bool feeding, taking; /* some thread is at it */
	bool ended;           /* nothing is left to be fed */
	bool stopped;
	int rc;
	struct err why;
};

static struct slot *slot_of(struct pipe *p, uint64_t piece)
{
	return &p->slots[piece % p->slot_count];
}

static void fail(struct pipe *p, int rc, const struct err *why)
{
	if (p->rc == 0) {
		p->rc = rc;
		p->why = *why;
	}
	p->stopped = true;
	pthread_cond_broadcast(&p->changed);
}

/* The lock is held, and let go of meanwhile. 1: *ret is fed, 0: nothing more will be. */
static int feed(struct pipe *p, struct slot **ret)
{
	struct slot *s;
	int rc;

	while (!p->stopped && !p->ended && (p->feeding || p->fed - p->taken == p->slot_count))
		pthread_cond_wait(&p->changed, &p->lock);
	if (p->stopped || p->ended)
		return 0;
	p->feeding = true;
	s = slot_of(p, p->fed);
	pthread_mutex_unlock(&p->lock);
	s->ready = false;
	rc = p->ops->feed(p->ctx, s->piece, &s->why);
	pthread_mutex_lock(&p->lock);
	p->feeding = false;
	p->ended = rc <= 0;
	pthread_cond_broadcast(&p->changed);
	if (rc == 0)
		return 0;
	/* A failure has its turn after what was fed before. */
	s->rc = rc < 0 ? rc : 0;
	p->fed++;
	*ret = s;
	return 1;
}

/* The lock is held, and let go of meanwhile. */
static void take_ready(struct pipe *p)
{
	if (p->taking)
		return;
	p->taking = true;
	while (!p->stopped && p->taken < p->fed && slot_of(p, p->taken)->ready) {
		struct slot *s = slot_of(p, p->taken);

		if (s->rc == 0) {
			pthread_mutex_unlock(&p->lock);
			s->rc = p->ops->take(p->ctx, s->piece, &s->why);
			pthread_mutex_lock(&p->lock);
		}
		if (s->rc < 0) {
			fail(p, s->rc, &s->why);
			break;
		}
		p->taken++;
		pthread_cond_broadcast(&p->changed);
	}
	p->taking = false;
}

static void *run(void *arg)
{
	static const uint64_t one = 1;
	struct thread *me = arg;
	struct pipe *p = me->owner;
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	while (feed(p, &s)) {
		if (s->rc == 0) {
			pthread_mutex_unlock(&p->lock);
			s->rc = p->ops->work(p->ctx, s->piece, me->index, &s->why);
			pthread_mutex_lock(&p->lock);
		}
		s->ready = true;
		take_ready(p);
	}
	if (--p->running == 0)
		(void)!write(p->fd, &one, sizeof(one));
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void free_parts(struct pipe *p)
{
	if (p->fd >= 0)
		close(p->fd);
	for (unsigned i = 0; p->slots && i < p->slot_count; i++)
		free(p->slots[i].piece);
	free(p->slots);
	free(p);
}

static int get_slots(struct pipe *p, struct err *e)
{
	p->slots = calloc(p->slot_count, sizeof(*p->slots));
	for (unsigned i = 0; p->slots && i < p->slot_count; i++) {
		p->slots[i].piece = calloc(1, p->ops->slot_bytes);
		if (!p->slots[i].piece)
			return err_sys(e, -ENOMEM, "cannot start: threads");
	}
	return p->slots ? 0 : err_sys(e, -ENOMEM, "cannot start: threads");
}

static int start_threads(struct pipe *p, unsigned threads, struct err *e)
{
	sigset_t all, old;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* The first ones wait until it is known how many there are. */
	pthread_mutex_lock(&p->lock);
	while (rc == 0 && p->started < threads) {
		struct thread *t = &p->threads[p->started];

		*t = (struct thread){.owner = p, .index = p->started};
		rc = pthread_create(&t->id, NULL, run, t);
		p->started += rc == 0;
	}
	p->running = p->started;
	pthread_mutex_unlock(&p->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return p->started > 0 ? 0 : err_sys(e, -rc, "cannot start: threads");
}

int pipe_start(const struct pipe_ops *ops, void *ctx, unsigned threads, struct pipe **ret,
	       struct err *e)
{
	struct pipe *p = calloc(1, sizeof(*p));
	int rc;

	ASSERT(threads > 0 && threads <= PIPE_THREADS_MAX);
	if (!p)
		return err_sys(e, -ENOMEM, "cannot start: threads");
	p->ops = ops;
	p->ctx = ctx;
	p->slot_count = PIPE_SLOTS(threads);
	p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = p->fd < 0 ? err_sys(e, -errno, "cannot start: eventfd") : get_slots(p, e);
	if (rc < 0) {
		free_parts(p);
		return rc;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	rc = start_threads(p, threads, e);
	if (rc < 0) {
		pthread_mutex_destroy(&p->lock);
		pthread_cond_destroy(&p->changed);
		free_parts(p);
		return rc;
	}
	*ret = p;
	return 0;
}

int pipe_fd(const struct pipe *p)
{
	return p->fd;
}

void pipe_stop(struct pipe *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopped = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

int pipe_end(struct pipe *p, struct err *e)
{
	bool whole;
	int rc;

	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->threads[i].id, NULL);
	whole = p->ended && p->taken == p->fed;
	rc = p->rc;
	if (rc < 0)
		*e = p->why;
	else if (!whole)
		rc = -ECANCELED;
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
	free_parts(p);
	return rc;
}
