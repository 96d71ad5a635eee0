/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrapper that asks again, over the wrappers that fail, hang and take time: which failures are
 * tried again, after what pauses, until the budget is used up; when a second request is sent, which
 * of both counts, and what is left of the other; cancels at any moment.
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

static void open_it(struct fixture *fx, const char *uri)
{
	struct err e = {0};

	fixture_init(fx);
	if (src_open(uri, &fx->env, &fx->src, &e) < 0)
		fail_msg("%s: %s", uri, e.text);
}

static void read_one(struct fixture *fx, struct request *rq)
{
	fx->ends = 0;
	request_init(rq, fx, 4096, 64);
	memset(rq->buf, 0x55, sizeof(rq->buf));
	request_read(rq);
}

static void ends(struct fixture *fx, struct request *rq, uint64_t within_ns, int code)
{
	fixture_advance(fx, within_ns);
	assert_int_equal(rq->done, 1);
	assert_int_equal(rq->code, code);
	for (unsigned i = 0; code == 0 && i < sizeof(rq->buf); i++)
		assert_int_equal(rq->buf[i], 0);
}

static void failures_pass(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+zero:?size=1M&fault-error-at=1&fault-error-count=3&retry-ms=40");
	read_one(&fx, &rq);
	assert_int_equal(rq.done, 0);
	/* 20 to 40, 40 to 80, 80 to 160 ms. */
	fixture_advance(&fx, 139 * NS_PER_MS);
	assert_int_equal(rq.done, 0);
	ends(&fx, &rq, 142 * NS_PER_MS, 0);
	/* And no time is lost where nothing fails. */
	read_one(&fx, &rq);
	ends(&fx, &rq, 0, 0);
	src_close(fx.src);
}

static void so_many_tries(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+zero:?size=1M&fault-error-at=1&fault-error-count=3&retries=2");
	read_one(&fx, &rq);
	ends(&fx, &rq, NS_PER_S, -EIO);
	/* That was the third. */
	read_one(&fx, &rq);
	ends(&fx, &rq, 0, 0);
	src_close(fx.src);
}

static void what_will_not_pass(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+zero:?size=1M&fault-error-after=0&errno=EBADMSG");
	read_one(&fx, &rq);
	ends(&fx, &rq, 0, -EBADMSG);
	src_close(fx.src);
}

/* Of an outage, 20 failures are tried again; then they are told at once. */
static void outage(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+zero:?size=1M&fault-error-after=0&retries=4&retry-ms=1");
	for (unsigned i = 0; i < 5; i++) {
		read_one(&fx, &rq);
		assert_int_equal(rq.done, 0);
		ends(&fx, &rq, NS_PER_S, -EIO);
	}
	for (unsigned i = 0; i < 5; i++) {
		read_one(&fx, &rq);
		ends(&fx, &rq, 0, -EIO);
	}
	src_close(fx.src);
}

/* Teaches it that a read takes about 10 ms. */
static void learn(struct fixture *fx, unsigned reads)
{
	struct request rq;

	for (unsigned i = 0; i < reads; i++) {
		read_one(fx, &rq);
		ends(fx, &rq, 10 * NS_PER_MS, 0);
	}
}

static void a_second_request(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+delay+zero:?size=1M&ms=10&fault-hang-at=201");
	learn(&fx, 200);
	read_one(&fx, &rq);
	/* It hangs for ever; twice the usual time, and the second takes its own. */
	fixture_advance(&fx, 17 * NS_PER_MS);
	assert_int_equal(rq.done, 0);
	ends(&fx, &rq, 17 * NS_PER_MS, 0);
	learn(&fx, 10);
	src_close(fx.src);
}

static void without_hedging_it_waits(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+delay+zero:?size=1M&ms=10&fault-hang-at=201&retry-hedge=0");
	learn(&fx, 200);
	read_one(&fx, &rq);
	fixture_advance(&fx, 60 * NS_PER_S);
	assert_int_equal(rq.done, 0);
	request_cancel(&rq);
	ends(&fx, &rq, 0, -ECANCELED);
	src_close(fx.src);
}

/* The first comes after all, while the second is under way, and fails. */
static void the_first_wins(void **state)
{
	struct fixture fx;
	struct request rq;

	(void)state;
	open_it(&fx, "retry+fault+delay+zero:?size=1M&ms=10&fault-hang-at=201&fault-hang-ms=15"
		"&fault-error-at=202");
	learn(&fx, 200);
	read_one(&fx, &rq);
	ends(&fx, &rq, 60 * NS_PER_MS, 0);
	learn(&fx, 10);
	src_close(fx.src);
}

static void cancels(void **state)
{
	(void)state;
	/* While it is read; while both are; while it pauses; after the second has failed. */
	for (unsigned ms = 0; ms < 60; ms++) {
		struct fixture fx;
		struct request rq;

		open_it(&fx, "retry+fault+delay+zero:?size=1M&ms=10&fault-hang-after=200"
			"&fault-error-at=203");
		learn(&fx, 200);
		read_one(&fx, &rq);
		fixture_advance(&fx, ms * NS_PER_MS);
		assert_int_equal(rq.done, 0);
		request_cancel(&rq);
		ends(&fx, &rq, 0, -ECANCELED);
		src_close(fx.src);
	}
}

/* Many at a time, some of which fail, hang or are cancelled: each ends once. */
static void random_walk(void **state)
{
	static struct request rq[READS_MAX];
	struct fixture fx;
	struct prng prng;
	unsigned failed = 0, ended = 0;

	(void)state;
	prng_init(&prng, 3);
	open_it(&fx, "retry+fault+delay+zero:?size=1M&ms=3&jitter-us=9000&fault-error-at=300"
		"&fault-error-count=40&fault-hang-at=700&retry-ms=5");
	for (unsigned i = 0; i < READS_MAX; i++)
		rq[i].done = 1;
	for (unsigned round = 0; round < 3000; round++) {
		struct request *one = &rq[prng_below(&prng, READS_MAX)];

		fx.ends = 0;
		/* All the time as many as there may be. */
		for (unsigned i = 0; i < READS_MAX; i++) {
			if (rq[i].done == 0)
				continue;
			ended++;
			failed += rq[i].code != 0;
			request_init(&rq[i], &fx, 4096 * prng_below(&prng, 200), 64);
			request_read(&rq[i]);
		}
		if (prng_below(&prng, 50) == 0 && one->done == 0)
			request_cancel(one);
		fixture_advance(&fx, prng_below(&prng, 2 * NS_PER_MS));
		for (unsigned i = 0; i < READS_MAX; i++)
			assert_true(rq[i].done <= 1);
	}
	for (unsigned i = 0; i < READS_MAX; i++)
		if (rq[i].done == 0)
			request_cancel(&rq[i]);
	fx.ends = 0;
	fixture_advance(&fx, 60 * NS_PER_S);
	for (unsigned i = 0; i < READS_MAX; i++)
		assert_int_equal(rq[i].done, 1);
	assert_true(ended > 1000 && failed < ended / 4);
	src_close(fx.src);
}

static void uris(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(src_check("retry+zero:?size=1M&retries=0&retry-budget=100", &e), 0);
	assert_int_equal(src_check("retry:x", &e), -EINVAL);
	assert_int_equal(src_check("retry+zero:?size=1M&retry-hedge=2", &e), -EINVAL);
	assert_int_equal(src_check("retry+zero:?size=1M&retry-ms=0", &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_pass),
		cmocka_unit_test(so_many_tries),
		cmocka_unit_test(what_will_not_pass),
		cmocka_unit_test(outage),
		cmocka_unit_test(a_second_request),
		cmocka_unit_test(without_hedging_it_waits),
		cmocka_unit_test(the_first_wins),
		cmocka_unit_test(cancels),
		cmocka_unit_test(random_walk),
		cmocka_unit_test(uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
