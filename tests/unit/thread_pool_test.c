/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads: every job is run once and told of once, urgent ones first, no two with the same
 * thread's number at a time, and nobody has to look twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

#include "base/types.h"
#include "work/thread_pool.h"

#define JOBS 500u
#define THREADS 4u

struct bed;

struct job {
	struct work_job job;
	struct bed *bed;
	unsigned runs, dones; /* the former by a worker, until done */
	unsigned again;       /* how often `done` submits it anew */
	sem_t *waits;         /* until somebody lets it go; NULL: it does not */
};

struct bed {
	struct thread_pool *w;
	struct work work;
	sem_t wakes;
	struct job jobs[JOBS];
	bool busy[WORK_THREADS_MAX]; /* atomic */
	unsigned order[JOBS], ordered; /* by a single worker */
	unsigned done;
	unsigned begun;      /* atomic */
	unsigned unblocked;  /* atomic: threads that would take SIGTERM */
};

static void wake(void *ctx)
{
	sem_post(&((struct bed *)ctx)->wakes);
}

static void begins(void *ctx, const char *name)
{
	struct bed *b = ctx;
	sigset_t set;

	assert_string_equal(name, "asyncpf-work");
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	__atomic_add_fetch(&b->begun, 1, __ATOMIC_RELAXED);
	if (!sigismember(&set, SIGTERM))
		__atomic_add_fetch(&b->unblocked, 1, __ATOMIC_RELAXED);
}

static void run(struct work_job *job, unsigned thread)
{
	struct job *j = CONTAINER_OF(job, struct job, job);

	assert_true(thread < WORK_THREADS_MAX);
	assert_false(__atomic_exchange_n(&j->bed->busy[thread], true, __ATOMIC_ACQUIRE));
	if (j->waits)
		while (sem_wait(j->waits) < 0)
			;
	j->runs++;
	__atomic_store_n(&j->bed->busy[thread], false, __ATOMIC_RELEASE);
}

/* For one thread alone. */
static void run_in_order(struct work_job *job, unsigned thread)
{
	struct job *j = CONTAINER_OF(job, struct job, job);

	run(job, thread);
	j->bed->order[j->bed->ordered++] = (unsigned)(j - j->bed->jobs);
}

static void done(struct work_job *job)
{
	struct job *j = CONTAINER_OF(job, struct job, job);

	j->dones++;
	assert_int_equal(j->runs, j->dones);
	j->bed->done++;
	if (j->again-- > 0)
		j->bed->work.ops->queue(j->bed->work.ctx, job, TURN_DEMAND);
}

static void bed_init(struct bed *b, unsigned threads)
{
	const struct thread_pool_cfg cfg = {threads, begins, wake, b};
	struct err e;

	memset(b, 0, sizeof(*b));
	assert_int_equal(sem_init(&b->wakes, 0, 0), 0);
	assert_int_equal(thread_pool_open(&cfg, &b->w, &e), 0);
	b->work = thread_pool_work(b->w);
	for (unsigned i = 0; i < JOBS; i++)
		b->jobs[i] = (struct job){.job = {.run = run, .done = done}, .bed = b};
}

static int start(struct bed *b)
{
	struct err e;

	return b->work.ops->threads(b->work.ctx, &e);
}

static void submit(struct bed *b, unsigned i, enum turn turn)
{
	b->work.ops->queue(b->work.ctx, &b->jobs[i].job, turn);
}

/* Until so many have ended; only when woken. */
static void reap(struct bed *b, unsigned count)
{
	while (b->done < count) {
		while (sem_wait(&b->wakes) < 0)
			;
		(void)thread_pool_reap(b->w);
	}
	assert_int_equal(b->done, count);
}

static void bed_fini(struct bed *b)
{
	assert_false(thread_pool_due(b->w));
	assert_false(thread_pool_reap(b->w));
	thread_pool_close(b->w);
	assert_int_equal(b->unblocked, 0);
	sem_destroy(&b->wakes);
}

static void every_job_once(void **state)
{
	static struct bed b;

	(void)state;
	bed_init(&b, THREADS);
	assert_int_equal(start(&b), THREADS);
	assert_int_equal(start(&b), THREADS);
	for (unsigned i = 0; i < JOBS; i++)
		submit(&b, i, i % TURNS);
	reap(&b, JOBS);
	for (unsigned i = 0; i < JOBS; i++)
		assert_int_equal(b.jobs[i].dones, 1);
	bed_fini(&b);
	assert_int_equal(b.begun, THREADS);
}

static void done_may_submit_again(void **state)
{
	static struct bed b;

	(void)state;
	bed_init(&b, 2);
	start(&b);
	for (unsigned i = 0; i < 10; i++) {
		b.jobs[i].again = 20;
		submit(&b, i, TURN_DEMAND);
	}
	reap(&b, 210);
	bed_fini(&b);
}

static void each_has_its_turn(void **state)
{
	static const enum turn turns[] = {TURN_URGENT, TURN_FILL, TURN_DEMAND, TURN_URGENT,
					  TURN_AHEAD, TURN_URGENT, TURN_DEMAND};
	static struct bed b;
	sem_t gate;

	(void)state;
	bed_init(&b, 1);
	start(&b);
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	for (unsigned i = 0; i < 7; i++)
		b.jobs[i].job.run = run_in_order;
	/* Busy with job 0 at the latest once it is let go; it is submitted as the others are. */
	b.jobs[0].waits = &gate;
	submit(&b, 0, TURN_URGENT);
	for (unsigned i = 1; i < 7; i++)
		submit(&b, i, turns[i]);
	sem_post(&gate);
	reap(&b, 7);
	static const unsigned want[] = {0, 3, 5, 2, 6, 4, 1};
	assert_memory_equal(b.order, want, sizeof(want));
	bed_fini(&b);
	sem_destroy(&gate);
}

/* Of those that wait, by their new turns; who runs, or goes by an earlier one, stays as he is. */
static void who_is_raised_overtakes(void **state)
{
	static const unsigned want[] = {0, 4, 1, 3, 2};
	static struct bed b;
	sem_t gate;

	(void)state;
	bed_init(&b, 1);
	start(&b);
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	for (unsigned i = 0; i < 5; i++)
		b.jobs[i].job.run = run_in_order;
	b.jobs[0].waits = &gate;
	submit(&b, 0, TURN_DEMAND);
	submit(&b, 1, TURN_DEMAND);
	for (unsigned i = 2; i < 5; i++)
		submit(&b, i, TURN_FILL);
	work_raise(&b.work, &b.jobs[0].job, TURN_URGENT);
	work_raise(&b.work, &b.jobs[1].job, TURN_AHEAD);
	work_raise(&b.work, &b.jobs[3].job, TURN_AHEAD);
	work_raise(&b.work, &b.jobs[4].job, TURN_URGENT);
	sem_post(&gate);
	reap(&b, 5);
	/* Job 0 was taken first, or raised to go as the first of all. */
	assert_memory_equal(b.order, want, sizeof(want));
	bed_fini(&b);
	sem_destroy(&gate);
}

/* Though there are always some that go first. */
static void nobody_waits_for_ever(void **state)
{
	static struct bed b;
	unsigned at = 0;
	sem_t gate;

	(void)state;
	bed_init(&b, 1);
	start(&b);
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	for (unsigned i = 0; i < 50; i++)
		b.jobs[i].job.run = run_in_order;
	b.jobs[0].waits = &gate;
	for (unsigned i = 0; i < 50; i++)
		submit(&b, i, i == 1 ? TURN_FILL : TURN_URGENT);
	sem_post(&gate);
	reap(&b, 50);
	while (b.order[at] != 1)
		at++;
	assert_in_range(at, TURN_IN_A_ROW, 48);
	bed_fini(&b);
	sem_destroy(&gate);
}

/* As many as the CPUs that we may run on, within limits. */
static void so_many_threads_by_itself(void **state)
{
	static struct bed b;
	int count;

	(void)state;
	bed_init(&b, 0);
	count = start(&b);
	assert_true(count >= 1 && count <= 4);
	for (unsigned i = 0; i < 20; i++)
		submit(&b, i, TURN_DEMAND);
	reap(&b, 20);
	bed_fini(&b);
}

static void nobody_ever_asked(void **state)
{
	static struct bed b;

	(void)state;
	bed_init(&b, 3);
	bed_fini(&b);
	assert_int_equal(b.begun, 0);
	thread_pool_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_job_once),
		cmocka_unit_test(done_may_submit_again),
		cmocka_unit_test(each_has_its_turn),
		cmocka_unit_test(who_is_raised_overtakes),
		cmocka_unit_test(nobody_waits_for_ever),
		cmocka_unit_test(so_many_threads_by_itself),
		cmocka_unit_test(nobody_ever_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
