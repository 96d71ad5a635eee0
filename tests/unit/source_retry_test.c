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
	/* At once, 20 to 40, 40 to 80 ms. */
	fixture_advance(&fx, 59 * NS_PER_MS);
	assert_int_equal(rq.done, 0);
	ends(&fx, &rq, 62 * NS_PER_MS, 0);
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
	/* It hangs for ever; the usual time, and the second takes its own. */
	fixture_advance(&fx, 19 * NS_PER_MS);
	assert_int_equal(rq.done, 0);
	ends(&fx, &rq, 3 * NS_PER_MS, 0);
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

/* A source whose reads, given up or not, end when the test says so, as those of a network do. */
struct slow {
	struct src src;
	struct src_read *held[2 * READS_MAX];
	unsigned count, cancels, raises;
};

static void slow_read(struct src *s, struct src_read *rd)
{
	struct slow *sl = CONTAINER_OF(s, struct slow, src);

	assert_in_range(sl->count, 0, ARRAY_LEN(sl->held) - 1);
	sl->held[sl->count++] = rd;
}

static void slow_cancel(struct src *s, struct src_read *rd)
{
	(void)rd;
	CONTAINER_OF(s, struct slow, src)->cancels++;
}

static void slow_raise(struct src *s, struct src_read *rd)
{
	(void)rd;
	CONTAINER_OF(s, struct slow, src)->raises++;
}

static void slow_close(struct src *s)
{
	assert_int_equal(CONTAINER_OF(s, struct slow, src)->count, 0);
}

static void slow_end(struct slow *sl, unsigned i, int code)
{
	struct src_read *rd = sl->held[i];
	struct err why = {.code = code};

	sl->held[i] = sl->held[--sl->count];
	memset(rd->buf, 0, rd->len);
	rd->done(rd, code ? &why : NULL);
}

/* So many reads, of which each tenth takes longer, as it was asked for again. */
static void slow_learn(struct slow *sl, struct fixture *fx, unsigned reads, uint64_t tenth_ns)
{
	struct request rq;

	for (unsigned i = 0; i < reads; i++) {
		bool again = i % 10 == 9 && tenth_ns > 0;

		read_one(fx, &rq);
		fixture_advance(fx, again ? tenth_ns : 10 * NS_PER_MS);
		sl->held[0]->again = again;
		slow_end(sl, 0, 0);
		if (sl->count > 0)
			slow_end(sl, 0, -ECANCELED);
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.rd.again, again);
	}
}

static void slow_open(struct slow *sl, struct fixture *fx, uint32_t budget_percent)
{
	static const struct src_ops ops = {
		.name = "slow", .read = slow_read, .cancel = slow_cancel, .raise = slow_raise,
		.close = slow_close};
	const struct src_retry_opts opts = {
		.retries = 2, .pause_ns = NS_PER_MS, .budget_percent = budget_percent,
		.hedge = true};

	*sl = (struct slow){.src = {.ops = &ops, .size = 1 << 20}};
	fixture_init(fx);
	assert_int_equal(src_retry_open(&sl->src, &fx->env, &opts, &fx->src, NULL), 0);
	slow_learn(sl, fx, 200, 0);
	assert_int_equal(sl->cancels, 0);
}

/* What a source asks for once more by itself is no measure of what is usual. */
static void twice_is_not_usual(void **state)
{
	struct request rq;
	struct fixture fx;
	struct slow sl;

	(void)state;
	slow_open(&sl, &fx, 100);
	slow_learn(&sl, &fx, 1000, 30 * NS_PER_MS);
	read_one(&fx, &rq);
	fixture_advance(&fx, 12 * NS_PER_MS);
	assert_int_equal(sl.count, 2);
	slow_end(&sl, 1, 0);
	slow_end(&sl, 0, -ECANCELED);
	assert_int_equal(rq.code, 0);
	src_close(fx.src);
}

/* Second requests leave half of the budget, so that what fails is tried again. */
static void failures_have_the_rest(void **state)
{
	struct request rq;
	struct fixture fx;
	struct slow sl;

	(void)state;
	slow_open(&sl, &fx, 0);
	for (unsigned i = 0; i < 12; i++) {
		read_one(&fx, &rq);
		fixture_advance(&fx, 12 * NS_PER_MS);
		assert_int_equal(sl.count, i < 10 ? 2 : 1);
		slow_end(&sl, 0, 0);
		if (sl.count > 0)
			slow_end(&sl, 0, -ECANCELED);
		assert_int_equal(rq.done, 1);
	}
	read_one(&fx, &rq);
	slow_end(&sl, 0, -EIO);
	assert_int_equal(rq.done, 0);
	slow_end(&sl, 0, 0);
	assert_int_equal(rq.code, 0);
	src_close(fx.src);
}

/*
 * Whoever has no read under way may close the source: so the reader's read ends after both of its
 * requests have. Each order of ends, good and bad, with and without a cancel in between.
 */
static void nothing_is_left_behind(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 3 * 16; way++) {
		int first = way & 1 ? -EIO : 0, second = way & 2 ? -EIO : 0;
		unsigned one = way >> 2 & 1, cancel_at = way >> 4;
		bool cancelled = cancel_at < 2 && way & 8;
		struct request rq;
		struct fixture fx;
		struct slow sl;

		slow_open(&sl, &fx, 100);
		read_one(&fx, &rq);
		fixture_advance(&fx, 12 * NS_PER_MS);
		assert_int_equal(sl.count, 2);
		if (cancelled && cancel_at == 0)
			request_cancel(&rq);
		slow_end(&sl, one, first);
		if (cancelled && cancel_at == 1 && rq.done == 0)
			request_cancel(&rq);
		for (unsigned k = 0; k < 10 && rq.done == 0; k++) {
			if (sl.count)
				slow_end(&sl, 0, k ? 0 : second);
			else
				fixture_advance(&fx, 10 * NS_PER_MS);
		}
		assert_int_equal(rq.done, 1);
		if (!cancelled)
			assert_int_equal(rq.code, 0);
		assert_int_equal(sl.count, 0);
		src_close(fx.src);
	}
}

/* Both requests, or what is left of them; what is only waited for is left alone. */
static void both_requests_are_raised(void **state)
{
	(void)state;
	for (unsigned way = 0; way < 4; way++) {
		bool one_fails = way & 1;
		unsigned one = way >> 1;
		struct request rq;
		struct fixture fx;
		struct slow sl;

		slow_open(&sl, &fx, 100);
		fx.ends = 0;
		request_init(&rq, &fx, 4096, 64);
		rq.rd.rank = SRC_FILL;
		request_read(&rq);
		fixture_advance(&fx, 12 * NS_PER_MS);
		assert_int_equal(sl.count, 2);
		src_raise(fx.src, &rq.rd, TURN_DEMAND);
		assert_int_equal(sl.raises, 2);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(src_turn(sl.held[i]), TURN_DEMAND);
		slow_end(&sl, one, one_fails ? -EIO : 0);
		src_raise(fx.src, &rq.rd, TURN_URGENT);
		assert_int_equal(sl.raises, one_fails ? 3 : 2);
		assert_int_equal(src_turn(sl.held[0]), one_fails ? TURN_URGENT : TURN_DEMAND);
		slow_end(&sl, 0, one_fails ? -EIO : 0);
		if (one_fails) {
			/* Both have: it is asked for once more. */
			assert_int_equal(src_turn(sl.held[0]), TURN_URGENT);
			slow_end(&sl, 0, 0);
		}
		assert_int_equal(rq.done, 1);
		assert_int_equal(rq.code, 0);
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
		cmocka_unit_test(twice_is_not_usual),
		cmocka_unit_test(failures_have_the_rest),
		cmocka_unit_test(nothing_is_left_behind),
		cmocka_unit_test(both_requests_are_raised),
		cmocka_unit_test(random_walk),
		cmocka_unit_test(uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
