/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline: in order at both ends, no more pieces under way than there are slots, the oldest
 * error is the one that is told of, and it ends when it is stopped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdbool.h>
#include <string.h>

#include "image/pipe.h"

#define PIECES 3000u
#define NEVER UINT64_MAX

struct piece {
	uint64_t index, twice;
};

struct bed {
	unsigned threads;
	uint64_t fed, taken; /* atomic */
	uint64_t under_way_max;
	bool feeding, taking; /* atomic */
	bool busy[PIPE_THREADS_MAX];
	uint64_t feed_fails, take_fails; /* at that piece */
	uint64_t work_fails[2];
	uint64_t stops_at; /* taken */
	struct pipe *p;
	sem_t started; /* p is there */
};

static int feed(void *ctx, void *at, struct err *e)
{
	struct bed *b = ctx;
	struct piece *piece = at;
	uint64_t under_way;

	assert_false(__atomic_exchange_n(&b->feeding, true, __ATOMIC_ACQUIRE));
	piece->index = b->fed;
	under_way = b->fed + 1 - __atomic_load_n(&b->taken, __ATOMIC_ACQUIRE);
	if (under_way > b->under_way_max)
		b->under_way_max = under_way;
	__atomic_store_n(&b->feeding, false, __ATOMIC_RELEASE);
	if (b->fed == b->feed_fails)
		return err_set(e, -EIO, "feed %d", (int)b->fed);
	if (b->fed == PIECES)
		return 0;
	b->fed++;
	return 1;
}

static int work(void *ctx, void *at, unsigned thread, struct err *e)
{
	struct bed *b = ctx;
	struct piece *piece = at;

	assert_true(thread < b->threads);
	assert_false(__atomic_exchange_n(&b->busy[thread], true, __ATOMIC_ACQUIRE));
	for (volatile unsigned i = 0; i < piece->index * 7919 % 500; i++)
		;
	piece->twice = 2 * piece->index;
	__atomic_store_n(&b->busy[thread], false, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 2; i++)
		if (piece->index == b->work_fails[i])
			return err_set(e, -ENOMEM, "work %d", (int)piece->index);
	return 0;
}

static int take(void *ctx, void *at, struct err *e)
{
	struct bed *b = ctx;
	struct piece *piece = at;
	uint64_t taken = __atomic_load_n(&b->taken, __ATOMIC_RELAXED);

	assert_false(__atomic_exchange_n(&b->taking, true, __ATOMIC_ACQUIRE));
	assert_int_equal(piece->index, taken);
	assert_int_equal(piece->twice, 2 * taken);
	__atomic_store_n(&b->taken, taken + 1, __ATOMIC_RELEASE);
	__atomic_store_n(&b->taking, false, __ATOMIC_RELEASE);
	if (taken == b->take_fails)
		return err_set(e, -ENOSPC, "take %d", (int)taken);
	if (taken == b->stops_at) {
		while (sem_wait(&b->started) < 0)
			;
		pipe_stop(b->p);
	}
	return 0;
}

static int run(struct bed *b, unsigned threads, struct err *e)
{
	static const struct pipe_ops ops = {feed, work, take, sizeof(struct piece)};
	struct pollfd fd;

	b->threads = threads;
	assert_int_equal(sem_init(&b->started, 0, 0), 0);
	assert_int_equal(pipe_start(&ops, b, threads, &b->p, e), 0);
	sem_post(&b->started);
	fd = (struct pollfd){.fd = pipe_fd(b->p), .events = POLLIN};
	while (poll(&fd, 1, -1) < 0)
		;
	return pipe_end(b->p, e);
}

static struct bed fresh(void)
{
	return (struct bed){.feed_fails = NEVER, .take_fails = NEVER, .work_fails = {NEVER, NEVER},
			    .stops_at = NEVER};
}

static void in_order_and_bounded(void **state)
{
	static const unsigned threads[] = {1, 2, 7, 64};

	(void)state;
	for (unsigned i = 0; i < sizeof(threads) / sizeof(*threads); i++) {
		struct bed b = fresh();
		struct err e;

		assert_int_equal(run(&b, threads[i], &e), 0);
		assert_int_equal(b.taken, PIECES);
		assert_true(b.under_way_max <= PIPE_SLOTS(threads[i]) + 1);
	}
}

static void fails(struct bed b, int code, const char *text, uint64_t taken)
{
	for (unsigned threads = 1; threads <= 4; threads++) {
		struct bed again = b;
		struct err e;

		assert_int_equal(run(&again, threads, &e), code);
		assert_int_equal(e.code, code);
		assert_string_equal(e.text, text);
		assert_int_equal(again.taken, taken);
	}
}

static void the_oldest_error_is_told_of(void **state)
{
	struct bed b = fresh();

	(void)state;
	b.work_fails[0] = 1007;
	b.work_fails[1] = 1006;
	fails(b, -ENOMEM, "work 1006", 1006);
	b.feed_fails = 1005;
	fails(b, -EIO, "feed 1005", 1005);
	b.feed_fails = 1008;
	fails(b, -ENOMEM, "work 1006", 1006);
	b.take_fails = 1000;
	fails(b, -ENOSPC, "take 1000", 1001);
}

static void the_first_and_the_last(void **state)
{
	struct bed b = fresh();

	(void)state;
	b.feed_fails = 0;
	fails(b, -EIO, "feed 0", 0);
	b = fresh();
	b.take_fails = PIECES - 1;
	fails(b, -ENOSPC, "take 2999", PIECES);
}

static void it_can_be_stopped(void **state)
{
	(void)state;
	for (unsigned threads = 1; threads <= 4; threads++) {
		struct bed b = fresh();
		struct err e;

		b.stops_at = 500;
		assert_int_equal(run(&b, threads, &e), -ECANCELED);
		assert_int_equal(b.taken, 501);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_and_bounded),
		cmocka_unit_test(the_oldest_error_is_told_of),
		cmocka_unit_test(the_first_and_the_last),
		cmocka_unit_test(it_can_be_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
