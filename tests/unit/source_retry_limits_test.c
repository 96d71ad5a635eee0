/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source/retry.c at its limits, over a source that answers when the test says so: every failure
 * that no second try mends, the largest read that is sent twice, and what is usual for a source
 * that has become faster.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "source_fixture.h"

#define LARGEST (128u << 10) /* that is sent twice */
#define UNANSWERED_MAX 4u

/* Reads wait until they are answered, oldest first. */
struct manual {
	struct src src;
	struct src_read *waiting[UNANSWERED_MAX];
	unsigned count, total;
};

struct reader {
	struct src_read rd;
	unsigned done;
	int code;
};

struct bed {
	struct fixture fx;
	struct manual inner;
	struct src_counts counts;
	struct reader r;
	unsigned char *buf;
};

static void manual_read(struct src *s, struct src_read *rd)
{
	struct manual *m = CONTAINER_OF(s, struct manual, src);

	assert_true(m->count < UNANSWERED_MAX);
	m->waiting[m->count++] = rd;
	m->total++;
}

static void answer(struct manual *m, unsigned i, int code)
{
	struct src_read *rd = m->waiting[i];
	struct err e = {0};

	assert_true(i < m->count);
	for (m->count--; i < m->count; i++)
		m->waiting[i] = m->waiting[i + 1];
	if (code < 0)
		(void)err_set(&e, code, "as the test wants it");
	rd->done(rd, code < 0 ? &e : NULL);
}

static void manual_cancel(struct src *s, struct src_read *rd)
{
	struct manual *m = CONTAINER_OF(s, struct manual, src);

	for (unsigned i = 0; i < m->count; i++)
		if (m->waiting[i] == rd) {
			answer(m, i, -ECANCELED);
			return;
		}
	fail_msg("a read is cancelled that is not there");
}

static void manual_close(struct src *s)
{
	(void)s;
}

static struct bed *bed_open(void)
{
	static const struct src_ops ops = {
		.name = "manual", .read = manual_read, .cancel = manual_cancel,
		.close = manual_close};
	const struct src_retry_opts opts = {
		.retries = 4, .pause_ns = NS_PER_MS, .budget_percent = 20, .hedge = true,
		.seed = 1};
	struct bed *b = calloc(1, sizeof(*b));
	struct err e;

	assert_non_null(b);
	b->buf = malloc(LARGEST + 1);
	assert_non_null(b->buf);
	fixture_init(&b->fx);
	b->fx.env.counts = &b->counts;
	b->inner.src = (struct src){.ops = &ops, .size = 1 << 20};
	assert_int_equal(src_retry_open(&b->inner.src, &b->fx.env, &opts, &b->fx.src, &e), 0);
	return b;
}

static void bed_close(struct bed *b)
{
	src_close(b->fx.src);
	free(b->buf);
	free(b);
}

static void reader_done(struct src_read *rd, const struct err *why)
{
	struct reader *r = CONTAINER_OF(rd, struct reader, rd);

	r->done++;
	r->code = why ? why->code : 0;
}

static void begin(struct bed *b, uint32_t len)
{
	b->r = (struct reader){.rd = {.buf = b->buf, .len = len, .done = reader_done}};
	b->fx.src->ops->read(b->fx.src, &b->r.rd);
}

/* So many reads of a page, each of which takes so long. */
static void learn(struct bed *b, unsigned reads, uint64_t ns)
{
	for (unsigned i = 0; i < reads; i++) {
		begin(b, 4096);
		fixture_advance(&b->fx, ns);
		answer(&b->inner, 0, 0);
		assert_int_equal(b->r.done, 1);
	}
	assert_int_equal(b->inner.count, 0);
}

/* After what time a read of so many bytes is sent a second time; 0: not within a minute. */
static uint64_t hedged_after_ns(struct bed *b, uint32_t len)
{
	uint64_t ns = 0;

	begin(b, len);
	for (; b->inner.count == 1 && ns < 60 * NS_PER_S; ns += NS_PER_MS)
		fixture_advance(&b->fx, NS_PER_MS);
	ns = b->inner.count == 2 ? ns : 0;
	answer(&b->inner, 0, 0);
	assert_int_equal(b->r.done, 1);
	assert_int_equal(b->inner.count, 0); /* the other was cancelled */
	return ns;
}

static void what_no_second_try_mends(void **state)
{
	static const int final[] = {-EINVAL, -ENOENT, -EACCES, -EPERM, -EBADMSG, -ESTALE, -ENOTSUP};
	static const int passing[] = {-EIO, -EAGAIN, -ETIMEDOUT, -ECONNRESET, -ENOMEM};
	struct bed *b = bed_open();

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(final); i++) {
		begin(b, 4096);
		answer(&b->inner, 0, final[i]);
		assert_int_equal(b->r.done, 1);
		assert_int_equal(b->r.code, final[i]);
	}
	assert_int_equal(b->inner.total, ARRAY_LEN(final));
	assert_int_equal(b->counts.source_retries, 0);
	for (unsigned i = 0; i < ARRAY_LEN(passing); i++) {
		begin(b, 4096);
		answer(&b->inner, 0, passing[i]);
		assert_int_equal(b->r.done, 0);
		fixture_advance(&b->fx, NS_PER_MS);
		answer(&b->inner, 0, 0);
		assert_int_equal(b->r.code, 0);
	}
	assert_int_equal(b->counts.source_retries, ARRAY_LEN(passing));
	bed_close(b);
}

/* However well a source has done: of an outage no more is tried again than the budget holds. */
static void a_full_budget(void **state)
{
	struct bed *b = bed_open();

	(void)state;
	learn(b, 1000, NS_PER_MS);
	for (unsigned i = 0; i < 40; i++) {
		begin(b, 4096);
		while (b->r.done == 0) {
			/* At once, so that no second request costs of it. */
			while (b->inner.count == 0)
				fixture_advance(&b->fx, NS_PER_MS / 10);
			answer(&b->inner, 0, -EIO);
		}
		assert_int_equal(b->r.code, -EIO);
	}
	assert_int_equal(b->counts.source_retries, 20);
	bed_close(b);
}

static void the_largest_that_is_sent_twice(void **state)
{
	struct bed *b = bed_open();

	(void)state;
	learn(b, 200, 10 * NS_PER_MS);
	assert_int_equal(hedged_after_ns(b, LARGEST + 1), 0);
	assert_int_equal(b->counts.source_hedges, 0);
	assert_int_not_equal(hedged_after_ns(b, LARGEST), 0);
	assert_int_equal(b->counts.source_hedges, 1);
	bed_close(b);
}

/* Old times count less and less: of a source that was slow once nobody remembers it for ever. */
static void what_is_usual_changes(void **state)
{
	struct bed *b = bed_open();

	(void)state;
	learn(b, 5000, 100 * NS_PER_MS);
	assert_in_range(hedged_after_ns(b, 4096), 100 * NS_PER_MS, 150 * NS_PER_MS);
	learn(b, 30000, NS_PER_MS);
	assert_in_range(hedged_after_ns(b, 4096), NS_PER_MS, 5 * NS_PER_MS);
	bed_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_no_second_try_mends),
		cmocka_unit_test(a_full_budget),
		cmocka_unit_test(the_largest_that_is_sent_twice),
		cmocka_unit_test(what_is_usual_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
