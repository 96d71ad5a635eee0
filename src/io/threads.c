/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of a queue by threads that block in pread, pwrite, fdatasync and posix_fadvise:
 * where the system refuses io_uring. See io/queue.h for threads.
 *
 * Reads and writes have threads of their own, as neither may wait for the other. What a thread has
 * begun cannot be called back: a cancel reaches only what is still in line. What has ended is
 * gathered, and the owner told once, if it sleeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/time.h"
#include "base/types.h"
#include "io/internal.h"

#define STACK_BYTES (256u << 10)
/* Not one of the watched descriptors. */
#define SOME_ENDED IOQ_WATCHES_MAX

struct job {
	struct list_link link; /* of its crew's line, of what has ended, of the free ones */
	struct io_req *rq;     /* never looked at by the threads */
	struct ioq_call call;
	uint8_t turn;
	bool in_line;
	int res;
};

struct crew {
	struct threads *t;
	struct turn_queue line;
	pthread_cond_t work;
	pthread_t ids[IOQ_READERS_MAX];
	unsigned count;
	const char *name;
};

/* `lock` is for what is below it, and the innermost of all. */
struct threads {
	struct ioq q;
	void (*begins)(void *ctx, const char *name);
	void *begins_ctx;
	int epoll_fd;
	int ended_fd; /* wakes the owner; is never read: each write is an edge */
	unsigned watch_count;
	struct job *jobs; /* one for each request that may be begun */
	struct list free;

	pthread_mutex_t lock;
	struct crew crews[IOQ_KINDS];
	struct list ended;
	bool owner_sleeps;
	bool stop;
};

static struct threads *threads_of(struct ioq *q)
{
	return CONTAINER_OF(q, struct threads, q);
}

static struct job *job_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct job, link);
}

/* t->lock, from here to the threads. */

static void line_add(struct crew *crew, struct job *job, unsigned turn)
{
	job->turn = (uint8_t)turn;
	job->in_line = true;
	turn_queue_add(&crew->line, &job->link, turn);
}

static void line_remove(struct crew *crew, struct job *job)
{
	job->in_line = false;
	turn_queue_remove(&crew->line, &job->link, job->turn);
}

/* NULL: nothing is to be done. */
static struct job *line_take(struct crew *crew)
{
	struct job *job = job_of(turn_queue_take(&crew->line));

	if (job)
		job->in_line = false;
	return job;
}

/* The threads. */

static ssize_t carry_out(const struct ioq_call *c)
{
	ssize_t n = 0;

	switch (c->op) {
	case IOQ_READ:
		n = pread(c->fd, c->buf, c->len, (off_t)c->off);
		/* As a ring does: in a stream there are no places. */
		if (n < 0 && errno == ESPIPE)
			n = read(c->fd, c->buf, c->len);
		break;
	case IOQ_WRITE:
		n = pwrite(c->fd, c->buf, c->len, (off_t)c->off);
		if (n < 0 && errno == ESPIPE)
			n = write(c->fd, c->buf, c->len);
		break;
	case IOQ_SYNC:
		n = fdatasync(c->fd);
		break;
	case IOQ_FORGET:
		return -posix_fadvise(c->fd, (off_t)c->off, c->len, POSIX_FADV_DONTNEED);
	}
	return n < 0 ? -errno : n;
}

/* The owner has to look; unlocks. */
static void end_job(struct threads *t, struct job *job)
{
	static const uint64_t one = 1;
	bool wake = t->owner_sleeps;

	list_append(&t->ended, &job->link);
	t->owner_sleeps = false;
	pthread_mutex_unlock(&t->lock);
	if (wake)
		(void)!write(t->ended_fd, &one, sizeof(one));
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	struct threads *t = crew->t;

	if (t->begins)
		t->begins(t->begins_ctx, crew->name);
	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		struct job *job = line_take(crew);

		if (!job) {
			pthread_cond_wait(&crew->work, &t->lock);
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		job->res = (int)carry_out(&job->call);
		pthread_mutex_lock(&t->lock);
		end_job(t, job);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* Whoever begins. */

static bool threads_begin(struct ioq *q, struct io_req *rq)
{
	struct threads *t = threads_of(q);
	struct crew *crew = &t->crews[ioq_kind(rq)];
	struct job *job = job_of(list_take(&t->free));

	ASSERT(job);
	*job = (struct job){.rq = rq, .call = ioq_call(rq)};
	rq->priv.job = job;
	pthread_mutex_lock(&t->lock);
	line_add(crew, job, rq->turn);
	pthread_mutex_unlock(&t->lock);
	pthread_cond_signal(&crew->work);
	return true;
}

static bool threads_cancel(struct ioq *q, struct io_req *rq)
{
	struct threads *t = threads_of(q);
	struct job *job = rq->priv.job;

	pthread_mutex_lock(&t->lock);
	if (job->in_line) {
		line_remove(&t->crews[ioq_kind(rq)], job);
		job->res = -ECANCELED;
		end_job(t, job);
	} else {
		pthread_mutex_unlock(&t->lock);
	}
	return true;
}

static void threads_raise(struct ioq *q, struct io_req *rq)
{
	struct threads *t = threads_of(q);
	struct crew *crew = &t->crews[ioq_kind(rq)];
	struct job *job = rq->priv.job;

	pthread_mutex_lock(&t->lock);
	if (job->in_line) {
		line_remove(crew, job);
		line_add(crew, job, rq->turn);
	}
	pthread_mutex_unlock(&t->lock);
}

/* The owner. */

static unsigned threads_take(struct ioq *q)
{
	struct threads *t = threads_of(q);
	unsigned count = 0;
	struct list ended;
	struct job *job;

	pthread_mutex_lock(&t->lock);
	ended = t->ended;
	t->ended = (struct list){.first = NULL};
	pthread_mutex_unlock(&t->lock);
	while ((job = job_of(list_take(&ended)))) {
		list_append(&t->free, &job->link);
		count += ioq_complete(q, job->rq, job->res);
	}
	return count;
}

/* What is watched, until until_ns; 0: does not sleep. */
static unsigned sleep_until(struct threads *t, uint64_t until_ns)
{
	struct epoll_event events[IOQ_WATCHES_MAX + 1];
	uint64_t now = until_ns > 0 && until_ns != NS_NEVER ? monotonic_ns() : 0;
	uint64_t left = until_ns > now ? until_ns - now : 0;
	struct timespec ts = timespec_of_ns(left);
	unsigned ready = 0;
	int n = epoll_pwait2(t->epoll_fd, events, ARRAY_LEN(events),
			     until_ns == NS_NEVER ? NULL : &ts, NULL);

	for (int i = 0; i < n; i++)
		ready |= 1u << events[i].data.u32;
	return ready & ((1u << SOME_ENDED) - 1);
}

static unsigned threads_wait(struct ioq *q, uint64_t until_ns)
{
	struct threads *t = threads_of(q);
	unsigned ready;

	pthread_mutex_lock(&t->lock);
	if (t->ended.first)
		until_ns = 0;
	t->owner_sleeps = until_ns > 0;
	pthread_mutex_unlock(&t->lock);
	ready = sleep_until(t, until_ns);
	pthread_mutex_lock(&t->lock);
	t->owner_sleeps = false;
	pthread_mutex_unlock(&t->lock);
	return ready;
}

/* What became readable meanwhile is of no interest any more. */
static void threads_drain_wait(struct ioq *q)
{
	(void)threads_wait(q, NS_NEVER);
}

/* Opening and closing. */

static int watch_as(struct threads *t, int fd, uint32_t number, struct err *e)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = number};

	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return err_sys(e, -errno, "reading and writing by threads: epoll");
	return 0;
}

static int threads_watch(struct ioq *q, int fd, struct err *e)
{
	struct threads *t = threads_of(q);
	int rc;

	ASSERT(t->watch_count < IOQ_WATCHES_MAX);
	rc = watch_as(t, fd, t->watch_count, e);
	t->watch_count += rc == 0;
	return rc;
}

static int start_crew(struct crew *crew, unsigned count, struct err *e)
{
	pthread_attr_t attr;
	int rc = 0;

	pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (rc == 0 && crew->count < count) {
		rc = pthread_create(&crew->ids[crew->count], &attr, work, crew);
		crew->count += rc == 0;
	}
	pthread_attr_destroy(&attr);
	return crew->count > 0 ? 0 : err_sys(e, -rc, "reading and writing by threads");
}

static int threads_start(struct ioq *q, struct err *e)
{
	static const uint32_t most[IOQ_KINDS] = {IOQ_READERS_MAX, IOQ_WRITERS_MAX};
	struct threads *t = threads_of(q);
	int rc = 0;

	for (unsigned kind = 0; kind < IOQ_KINDS && rc == 0; kind++)
		rc = start_crew(&t->crews[kind],
				(unsigned)min_u64(most[kind], q->depth[kind]), e);
	return rc;
}

static void threads_close(struct ioq *q)
{
	struct threads *t = threads_of(q);

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_mutex_unlock(&t->lock);
	for (unsigned kind = 0; kind < IOQ_KINDS; kind++) {
		struct crew *crew = &t->crews[kind];

		pthread_cond_broadcast(&crew->work);
		for (unsigned i = 0; i < crew->count; i++)
			pthread_join(crew->ids[i], NULL);
		pthread_cond_destroy(&crew->work);
	}
	pthread_mutex_destroy(&t->lock);
	if (t->epoll_fd >= 0)
		(void)close(t->epoll_fd);
	if (t->ended_fd >= 0)
		(void)close(t->ended_fd);
	free(t->jobs);
	free(t);
}

static int threads_init(struct threads *t, struct err *e)
{
	static const char *const names[IOQ_KINDS] = {"asyncpf-read", "asyncpf-write"};
	uint32_t all = t->q.depth[IOQ_READS] + t->q.depth[IOQ_WRITES];

	t->jobs = calloc(all, sizeof(*t->jobs));
	for (uint32_t i = 0; t->jobs && i < all; i++)
		list_append(&t->free, &t->jobs[i].link);
	pthread_mutex_init(&t->lock, NULL);
	for (unsigned kind = 0; kind < IOQ_KINDS; kind++) {
		t->crews[kind].t = t;
		t->crews[kind].name = names[kind];
		pthread_cond_init(&t->crews[kind].work, NULL);
	}
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!t->jobs)
		return err_set(e, -ENOMEM, "queue of depth %u: out of memory",
			       t->q.depth[IOQ_READS]);
	if (t->epoll_fd < 0 || t->ended_fd < 0)
		return err_sys(e, -errno, "reading and writing by threads: event descriptor");
	return watch_as(t, t->ended_fd, SOME_ENDED, e);
}

static const struct ioq_way_ops threads_ops = {
	.way = IOQ_THREADS,
	.by_anyone = true,
	.dear = true,
	.begin = threads_begin,
	.cancel = threads_cancel,
	.raise = threads_raise,
	.take = threads_take,
	.start = threads_start,
	.watch = threads_watch,
	.wait = threads_wait,
	.drain_wait = threads_drain_wait,
	.close = threads_close,
};

int ioq_threads_open(const struct ioq_config *c, struct ioq **ret, struct err *e)
{
	struct threads *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return err_set(e, -ENOMEM, "queue of depth %u: out of memory", c->depth);
	t->q.ops = &threads_ops;
	t->q.depth[IOQ_READS] = c->depth;
	t->q.depth[IOQ_WRITES] = IO_WRITES_MAX;
	t->begins = c->thread_begins;
	t->begins_ctx = c->ctx;
	rc = threads_init(t, e);
	if (rc < 0) {
		threads_close(&t->q);
		return rc;
	}
	*ret = &t->q;
	return 0;
}
