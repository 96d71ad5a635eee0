/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrapper that keeps to a rate: what goes at once, how much goes in a given time, who goes
 * first among those that wait, cancels, and that a source which nobody reads has nothing to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"
#include "source_fixture.h"

struct bed {
	struct fixture fx;
	struct request rq[READS_MAX];
	unsigned char room[READS_MAX][128 << 10];
};

static void open_it(struct bed *b, const char *uri)
{
	struct err e = {0};

	fixture_init(&b->fx);
	if (src_open(uri, &b->fx.env, &b->fx.src, &e) < 0)
		fail_msg("%s: %s", uri, e.text);
}

static void read_one(struct bed *b, unsigned i, uint32_t bytes, uint8_t rank)
{
	request_init(&b->rq[i], &b->fx, 0, bytes);
	b->rq[i].rd.buf = b->room[i];
	b->rq[i].rd.rank = rank;
	request_read(&b->rq[i]);
}

static void close_it(struct bed *b)
{
	assert_true(timers_next_ns(&b->fx.timers) == NS_NEVER);
	src_close(b->fx.src);
	assert_int_equal(b->fx.timers.to_lend, TIMERS_MAX);
	free(b);
}

/* 100 requests per second: ten at once, then one in 10 ms each. */
static void requests_are_counted(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	(void)state;
	assert_non_null(b);
	open_it(b, "rate+zero:?size=1M&iops=100");
	for (unsigned i = 0; i < 14; i++)
		read_one(b, i, 64, SRC_DEMAND);
	/* The bucket may go into debt by the last that it lets go. */
	assert_int_equal(b->fx.ends, 11);
	fixture_advance(&b->fx, 10 * NS_PER_MS - 1);
	assert_int_equal(b->fx.ends, 11);
	for (unsigned n = 12; n <= 14; n++) {
		fixture_advance(&b->fx, n == 12 ? 1 : 10 * NS_PER_MS);
		assert_int_equal(b->fx.ends, n);
		assert_ptr_equal(b->fx.ended[n - 1], &b->rq[n - 1]);
		assert_int_equal(b->rq[n - 1].code, 0);
	}
	close_it(b);
}

/* However large reads are, and whenever they come: no more than the rate and what goes at once. */
static void bytes_keep_to_the_rate(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	uint64_t begun_ns, bytes = 0, last = 0;
	struct prng p;

	(void)state;
	assert_non_null(b);
	prng_init(&p, 3);
	open_it(b, "rate+zero:?size=1M&bw=10M");
	begun_ns = b->fx.now_ns;
	for (unsigned n = 0; n < 2000; n++) {
		uint32_t len = 4096u << prng_below(&p, 6);

		b->fx.ends = 0;
		read_one(b, 0, len, SRC_DEMAND);
		while (b->rq[0].done == 0)
			fixture_advance(&b->fx, 100 * NS_PER_US);
		bytes += len;
		last = len;
		/* One in 40 has a rest before it, so that time is lost. */
		if (prng_below(&p, 40) == 0)
			fixture_advance(&b->fx, prng_below(&p, 300 * NS_PER_MS));
		assert_true((double)(bytes - last) <= (10u << 20) / 10 + (10u << 20) / 1000000.0 *
			    (double)((b->fx.now_ns - begun_ns) / 1000));
	}
	/* And no less, where somebody always waits. */
	bytes = 0;
	begun_ns = b->fx.now_ns;
	for (unsigned n = 0; n < 400; n++) {
		b->fx.ends = 0;
		read_one(b, 0, 128 << 10, SRC_DEMAND);
		while (b->rq[0].done == 0)
			fixture_advance(&b->fx, 100 * NS_PER_US);
		bytes += 128 << 10;
	}
	assert_true((double)bytes >= (10u << 20) / 1000000.0 *
		    (double)((b->fx.now_ns - begun_ns) / 1000) * 0.99);
	close_it(b);
}

/* Who can do nothing else, who waits, what is ahead, what is around; in order within each. */
static void who_waits_goes_by_turn(void **state)
{
	static const unsigned order[] = {0, 1, 6, 7, 4, 5, 3, 8, 2};
	struct bed *b = calloc(1, sizeof(*b));

	(void)state;
	assert_non_null(b);
	open_it(b, "rate+zero:?size=1M&iops=1");
	read_one(b, 0, 64, SRC_DEMAND);
	read_one(b, 1, 64, SRC_DEMAND);
	assert_int_equal(b->fx.ends, 2);
	read_one(b, 2, 64, SRC_FILL);
	read_one(b, 3, 64, SRC_AHEAD);
	read_one(b, 4, 64, SRC_DEMAND);
	read_one(b, 5, 64, SRC_DEMAND);
	for (unsigned i = 6; i < 8; i++) {
		request_init(&b->rq[i], &b->fx, 0, 64);
		b->rq[i].rd.urgent = true;
		request_read(&b->rq[i]);
	}
	read_one(b, 8, 64, SRC_AHEAD);
	fixture_advance(&b->fx, 20 * NS_PER_S);
	assert_int_equal(b->fx.ends, ARRAY_LEN(order));
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		assert_ptr_equal(b->fx.ended[i], &b->rq[order[i]]);
	close_it(b);
}

/* Though there is always one that goes first. */
static void nobody_waits_for_ever(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	unsigned rounds = 0;

	(void)state;
	assert_non_null(b);
	open_it(b, "rate+zero:?size=1M&iops=1");
	read_one(b, 0, 64, SRC_DEMAND);
	read_one(b, 1, 64, SRC_DEMAND);
	read_one(b, 2, 64, SRC_DEMAND);
	read_one(b, 3, 64, SRC_FILL);
	for (unsigned i = 0; b->rq[2].done == 0 || b->rq[3].done == 0; i++) {
		struct request *rq = &b->rq[4 + i % 2];

		assert_true(rounds++ < 60);
		b->fx.ends = 0;
		if (i < 2 || rq->done) {
			request_init(rq, &b->fx, 0, 64);
			rq->rd.urgent = true;
			request_read(rq);
		}
		fixture_advance(&b->fx, NS_PER_S);
	}
	/* They still go first. */
	assert_true(rounds > 16);
	fixture_advance(&b->fx, 10 * NS_PER_S);
	close_it(b);
}

/* One that is given up costs nothing of the rate, and hands its place on. */
static void cancels(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	(void)state;
	assert_non_null(b);
	open_it(b, "rate+zero:?size=1M&iops=1");
	for (unsigned i = 0; i < 5; i++)
		read_one(b, i, 64, SRC_DEMAND);
	request_cancel(&b->rq[2]);
	request_cancel(&b->rq[3]);
	assert_int_equal(b->rq[2].code, -ECANCELED);
	assert_non_null(strstr(b->rq[2].text, "read that waits for its turn at byte 0"));
	assert_int_equal(b->rq[3].code, -ECANCELED);
	fixture_advance(&b->fx, NS_PER_S);
	assert_int_equal(b->rq[4].done, 1);
	assert_int_equal(b->rq[4].code, 0);
	/* Nobody is left: a timer may be, but only once. */
	read_one(b, 5, 64, SRC_DEMAND);
	request_cancel(&b->rq[5]);
	fixture_advance(&b->fx, 2 * NS_PER_S);
	close_it(b);
}

/* Who reads again from `done`, of a source that answers at once, does not get more. */
static void reading_again_at_once(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	(void)state;
	assert_non_null(b);
	open_it(b, "rate+zero:?size=1M&iops=10");
	for (unsigned i = 0; i < 8; i++)
		request_init(&b->rq[i], &b->fx, 0, 64);
	for (unsigned i = 0; i < 7; i++)
		b->rq[i].then = &b->rq[i + 1];
	request_read(&b->rq[0]);
	assert_int_equal(b->fx.ends, 2);
	fixture_advance(&b->fx, 600 * NS_PER_MS);
	assert_int_equal(b->fx.ends, 8);
	close_it(b);
}

static void random_run_ends_each_read_once(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	unsigned started[READS_MAX] = {0}, done[READS_MAX] = {0};
	struct prng p;

	(void)state;
	assert_non_null(b);
	prng_init(&p, 11);
	open_it(b, "delay+rate+fault+zero:?size=1M&iops=10000&bw=300M&us=50&fault-hang-at=200"
		"&fault-error-at=100&fault-error-count=20&jitter-us=100");
	for (unsigned step = 0; step < 50000; step++) {
		unsigned i = (unsigned)prng_below(&p, READS_MAX);
		bool under_way = started[i] != done[i] + b->rq[i].done;

		b->fx.ends = 0;
		switch (prng_below(&p, 3)) {
		case 0:
			if (under_way)
				break;
			done[i] += b->rq[i].done;
			read_one(b, i, 4096, (uint8_t)prng_below(&p, 3));
			started[i]++;
			break;
		case 1:
			if (under_way && prng_below(&p, 8) == 0) {
				request_cancel(&b->rq[i]);
				assert_int_equal(b->rq[i].done, 1);
			}
			break;
		default:
			fixture_advance(&b->fx, prng_below(&p, 60 * NS_PER_US));
		}
		assert_in_range(b->rq[i].done, 0, 1);
	}
	b->fx.ends = 0;
	fixture_advance(&b->fx, 10 * NS_PER_S);
	for (unsigned i = 0; i < READS_MAX; i++) {
		/* The one that hangs. */
		if (started[i] != done[i] + b->rq[i].done)
			request_cancel(&b->rq[i]);
		assert_int_equal(started[i], done[i] + b->rq[i].done);
		assert_true(started[i] > 100);
	}
	close_it(b);
}

static void uris(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(src_check("rate+file:x?bw=64M&iops=500", &e), 0);
	assert_int_equal(src_check("rate+file:x?iops=1", &e), 0);
	assert_int_equal(src_check("rate+zst+http://h/x#bw=1024T", &e), 0);
	assert_int_equal(src_check("rate+file:x", &e), -EINVAL);
	assert_non_null(strstr(e.text, "rate needs bw=, bytes per second as in bw=64M, or iops="));
	assert_int_equal(src_check("rate+file:x?bw=1025T", &e), -EINVAL);
	assert_non_null(strstr(e.text, "bw= is more than 1024T a second"));
	assert_int_equal(src_check("rate+file:x?iops=0", &e), -EINVAL);
	assert_int_equal(src_check("rate+file:x?bw=fast", &e), -EINVAL);
	assert_non_null(strstr(e.text, "bw=fast"));
	assert_int_equal(src_check("rate:x?bw=1M", &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_counted),
		cmocka_unit_test(bytes_keep_to_the_rate),
		cmocka_unit_test(who_waits_goes_by_turn),
		cmocka_unit_test(nobody_waits_for_ever),
		cmocka_unit_test(cancels),
		cmocka_unit_test(reading_again_at_once),
		cmocka_unit_test(random_run_ends_each_read_once),
		cmocka_unit_test(uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
