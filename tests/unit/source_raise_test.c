/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A read that somebody comes to wait for overtakes others that wait, in every source that asks
 * another one: the inner source and the workers here do what the test says, and note by which turn
 * they are to go. Those of a file, a network and a cache are in the tests of these.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "source_fixture.h"
#include "zst_make.h"

#define FRAME_BYTES 10000u
#define FRAMES 8u

struct bed {
	struct fixture fx;
	struct src inner;
	struct src_read *held[READS_MAX]; /* in order of arrival */
	unsigned count, raises;
	struct work_job *job; /* the one that is queued */
	enum turn job_turn;
	struct zst_made file; /* what the inner source holds; len 0: anything */
	unsigned char content[FRAMES * FRAME_BYTES];
	struct request rq[READS_MAX];
	unsigned char big[FRAME_BYTES];
};

/* ---- what is asked ---- */

static void inner_read(struct src *s, struct src_read *rd)
{
	struct bed *b = CONTAINER_OF(s, struct bed, inner);

	assert_true(b->count < READS_MAX);
	rd->held_by = b;
	b->held[b->count++] = rd;
}

static void inner_raise(struct src *s, struct src_read *rd)
{
	struct bed *b = CONTAINER_OF(s, struct bed, inner);
	unsigned i = 0;

	while (i < b->count && b->held[i] != rd)
		i++;
	assert_true(i < b->count);
	b->raises++;
}

static int inner_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	(void)e;
	memcpy(buf, CONTAINER_OF(s, struct bed, inner)->file.at + offset, len);
	return 0;
}

static void inner_close(struct src *s)
{
	assert_int_equal(CONTAINER_OF(s, struct bed, inner)->count, 0);
}

/* Which of those that are held goes next. */
static unsigned next_held(const struct bed *b)
{
	unsigned best = 0;

	assert_true(b->count > 0);
	for (unsigned i = 1; i < b->count; i++)
		if (src_turn(b->held[i]) < src_turn(b->held[best]))
			best = i;
	return best;
}

/* Ends the one that goes next. */
static void answer(struct bed *b, int code)
{
	unsigned at = next_held(b);
	struct src_read *rd = b->held[at];
	struct err why = {.code = code};

	memmove(b->held + at, b->held + at + 1, (--b->count - at) * sizeof(*b->held));
	if (code == 0 && b->file.len)
		memcpy(rd->buf, b->file.at + rd->offset, rd->len);
	rd->done(rd, code ? &why : NULL);
}

static int threads(void *ctx, struct err *e)
{
	(void)ctx, (void)e;
	return 1;
}

static void queue_job(void *ctx, struct work_job *job, enum turn turn)
{
	struct bed *b = ctx;

	assert_null(b->job);
	b->job = job;
	b->job_turn = turn;
}

static void raise_job(void *ctx, struct work_job *job, enum turn turn)
{
	struct bed *b = ctx;

	assert_ptr_equal(job, b->job);
	b->job_turn = turn;
}

static void work(struct bed *b)
{
	struct work_job *job = b->job;

	b->job = NULL;
	job->run(job, 0);
	job->done(job);
}

/* ---- the bed ---- */

static struct bed *bed_init(void)
{
	static const struct src_ops ops = {.name = "inner", .read = inner_read,
					   .raise = inner_raise, .load = inner_load,
					   .close = inner_close};
	static const struct work_ops work_ops = {
		.threads = threads, .queue = queue_job, .raise = raise_job};
	struct bed *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	fixture_init(&b->fx);
	b->fx.env.work = (struct work){&work_ops, b};
	b->inner = (struct src){.ops = &ops, .size = 1 << 20};
	return b;
}

static void bed_fini(struct bed *b)
{
	for (unsigned i = 0; i < READS_MAX && b->rq[i].fx; i++) {
		assert_int_equal(b->rq[i].done, 1);
		assert_int_equal(b->rq[i].code, 0);
	}
	src_close(b->fx.src);
	if (b->file.len)
		zst_free(&b->file);
	free(b);
}

/* Read i, of 64 bytes, or of more. */
static void ask(struct bed *b, unsigned i, uint64_t offset, uint32_t len, enum turn turn)
{
	struct request *rq = &b->rq[i];

	request_init(rq, &b->fx, offset, len);
	if (len > sizeof(rq->buf))
		rq->rd.buf = b->big;
	src_turn_set(&rq->rd, turn);
	request_read(rq);
}

static void raise_to(struct bed *b, unsigned i, enum turn turn)
{
	src_raise(b->fx.src, &b->rq[i].rd, turn);
}

static void ends_next(struct bed *b, unsigned i)
{
	answer(b, 0);
	assert_ptr_equal(b->fx.ended[b->fx.ends - 1], &b->rq[i]);
}

/* ---- turns ---- */

static void a_turn_is_what_a_read_says(void **state)
{
	(void)state;
	for (enum turn turn = TURN_URGENT; turn < TURNS; turn++) {
		struct src_read rd = {.urgent = true, .rank = SRC_FILL};

		src_turn_set(&rd, turn);
		assert_int_equal(src_turn(&rd), turn);
		assert_int_equal(rd.urgent, turn == TURN_URGENT);
		assert_true(rd.rank <= SRC_FILL);
	}
}

/* ---- wrappers ---- */

static int open_delay(struct bed *b)
{
	const struct src_delay_opts opts = {.delay_ns = 500};

	return src_delay_open(&b->inner, &b->fx.env, &opts, &b->fx.src, NULL);
}

static int open_fault(struct bed *b)
{
	const struct src_fault_opts opts = {.error_at = 99};

	return src_fault_open(&b->inner, &b->fx.env, &opts, &b->fx.src, NULL);
}

static int open_rate(struct bed *b)
{
	const struct src_rate_opts opts = {.requests_per_s = 1000};

	return src_rate_open(&b->inner, &b->fx.env, &opts, &b->fx.src, NULL);
}

static int open_retry(struct bed *b)
{
	const struct src_retry_opts opts = {
		.retries = 9, .pause_ns = NS_PER_MS, .budget_percent = 100};

	return src_retry_open(&b->inner, &b->fx.env, &opts, &b->fx.src, NULL);
}

/* It is with the inner source: there it overtakes. A later turn than its own changes nothing. */
static void through_every_wrapper(void **state)
{
	static int (*const opens[])(struct bed *b) = {
		open_delay, open_fault, open_rate, open_retry};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(opens); i++) {
		struct bed *b = bed_init();

		assert_int_equal(opens[i](b), 0);
		ask(b, 0, 0, 64, TURN_AHEAD);
		ask(b, 1, 64, 64, TURN_FILL);
		ask(b, 2, 128, 64, TURN_FILL);
		fixture_advance(&b->fx, 500);
		assert_int_equal(b->count, 3);
		raise_to(b, 2, TURN_DEMAND);
		assert_int_equal(b->raises, 1);
		raise_to(b, 2, TURN_DEMAND);
		raise_to(b, 2, TURN_FILL);
		assert_int_equal(b->raises, 1);
		raise_to(b, 1, TURN_URGENT);
		assert_int_equal(b->raises, 2);
		assert_true(b->held[1]->urgent);
		ends_next(b, 1);
		ends_next(b, 2);
		ends_next(b, 0);
		bed_fini(b);
	}
}

/* It waits in the wrapper for its time, and reaches the inner source by its new turn. */
static void what_is_delayed(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	assert_int_equal(open_delay(b), 0);
	ask(b, 0, 0, 64, TURN_AHEAD);
	ask(b, 1, 64, 64, TURN_FILL);
	raise_to(b, 1, TURN_DEMAND);
	fixture_advance(&b->fx, 500);
	assert_int_equal(b->raises, 0);
	ends_next(b, 1);
	ends_next(b, 0);
	bed_fini(b);
}

static void what_waits_for_its_rate(void **state)
{
	const struct src_rate_opts opts = {.requests_per_s = 1};
	struct bed *b = bed_init();
	static const unsigned order[] = {0, 1, 4, 3, 2};

	(void)state;
	assert_int_equal(src_rate_open(&b->inner, &b->fx.env, &opts, &b->fx.src, NULL), 0);
	for (unsigned i = 0; i < 5; i++)
		ask(b, i, 64 * i, 64, i < 4 ? TURN_AHEAD : TURN_FILL);
	assert_int_equal(b->count, 2);
	raise_to(b, 3, TURN_DEMAND);
	raise_to(b, 4, TURN_URGENT);
	for (unsigned i = 0; i < 5; i++) {
		ends_next(b, order[i]);
		if (i > 0)
			fixture_advance(&b->fx, NS_PER_S);
	}
	bed_fini(b);
}

/* It has failed, and is to be asked for again: by its new turn. */
static void what_pauses(void **state)
{
	struct bed *b = bed_init();

	(void)state;
	assert_int_equal(open_retry(b), 0);
	ask(b, 0, 0, 64, TURN_FILL);
	answer(b, -EIO);
	answer(b, -EIO);
	assert_int_equal(b->count, 0);
	raise_to(b, 0, TURN_DEMAND);
	ask(b, 1, 64, 64, TURN_AHEAD);
	fixture_advance(&b->fx, NS_PER_S);
	assert_int_equal(b->raises, 0);
	ends_next(b, 0);
	ends_next(b, 1);
	bed_fini(b);
}

/* ---- frames ---- */

static struct bed *open_zst(void)
{
	const struct src_zst_opts opts = {.cache_bytes = 1};
	struct bed *b = bed_init();

	for (unsigned i = 0; i < sizeof(b->content); i++)
		b->content[i] = (unsigned char)(i / 100);
	zst_begin(&b->file, true);
	for (unsigned i = 0; i < FRAMES; i++)
		zst_frame(&b->file, b->content + i * FRAME_BYTES, FRAME_BYTES);
	zst_finish(&b->file);
	b->inner.size = b->file.len;
	assert_int_equal(src_zst_open(&b->inner, "image", &opts, &b->fx.env, &b->fx.src, NULL), 0);
	return b;
}

/* All that is held, by turns. */
static void bring(struct bed *b)
{
	while (b->count > 0) {
		answer(b, 0);
		if (b->job)
			work(b);
	}
}

/* The frame is being read: for the read itself, and for another one that wants it, too. */
static void a_frame_that_is_read(void **state)
{
	(void)state;
	for (unsigned joins = 0; joins < 2; joins++) {
		struct bed *b = open_zst();

		ask(b, 0, 0, 64, TURN_AHEAD);
		ask(b, 1, FRAME_BYTES, 64, TURN_FILL);
		if (joins)
			ask(b, 2, FRAME_BYTES + 64, 64, TURN_DEMAND);
		else
			raise_to(b, 1, TURN_DEMAND);
		assert_int_equal(b->raises, 1);
		assert_int_equal(next_held(b), 1);
		/* Who waits most is served first. */
		bring(b);
		assert_ptr_equal(b->fx.ended[0], &b->rq[joins ? 2 : 1]);
		bed_fini(b);
	}
}

static void a_frame_that_is_decompressed(void **state)
{
	(void)state;
	for (unsigned joins = 0; joins < 2; joins++) {
		struct bed *b = open_zst();

		ask(b, 0, 0, 64, TURN_FILL);
		answer(b, 0);
		assert_int_equal(b->job_turn, TURN_FILL);
		if (joins)
			ask(b, 1, 64, 64, TURN_DEMAND);
		else
			raise_to(b, 0, TURN_DEMAND);
		assert_int_equal(b->job_turn, TURN_DEMAND);
		work(b);
		bed_fini(b);
	}
}

static void a_frame_that_is_copied(void **state)
{
	struct bed *b = open_zst();

	(void)state;
	ask(b, 0, 0, FRAME_BYTES, TURN_FILL);
	answer(b, 0);
	work(b);
	assert_int_equal(b->job_turn, TURN_FILL);
	raise_to(b, 0, TURN_URGENT);
	assert_int_equal(b->job_turn, TURN_URGENT);
	work(b);
	bed_fini(b);
}

/* No slot is free: it gets the first that is. */
static void who_has_no_slot(void **state)
{
	struct bed *b = open_zst();

	(void)state;
	for (unsigned i = 0; i < 7; i++)
		ask(b, i, i * FRAME_BYTES, 64,
		    i < 4 ? TURN_DEMAND : i < 6 ? TURN_AHEAD : TURN_FILL);
	assert_int_equal(b->count, 4);
	raise_to(b, 6, TURN_DEMAND);
	answer(b, 0);
	work(b);
	assert_int_equal(b->count, 4);
	assert_int_equal(src_turn(b->held[3]), TURN_DEMAND);
	bring(b);
	assert_ptr_equal(b->fx.ended[4], &b->rq[6]);
	bed_fini(b);
}

/* Ends, and meanwhile raises the next read, and gives up the one behind it. */
static void done_and_tell(struct src_read *rd, const struct err *why)
{
	struct request *rq = CONTAINER_OF(rd, struct request, rd);

	request_done(rd, why);
	src_raise(rq->fx->src, &rq[1].rd, TURN_URGENT);
	request_cancel(&rq[2]);
}

/* The reads of a frame that has come, or failed, are told one after the other. */
static void who_is_about_to_be_told(void **state)
{
	(void)state;
	for (unsigned fails = 0; fails < 2; fails++) {
		struct bed *b = open_zst();

		for (unsigned i = 0; i < 3; i++) {
			request_init(&b->rq[i], &b->fx, i * 64, 64);
			b->rq[i].rd.rank = SRC_FILL;
			if (i == 0)
				b->rq[i].rd.done = done_and_tell;
			request_read(&b->rq[i]);
		}
		answer(b, fails ? -EIO : 0);
		if (!fails)
			work(b);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(b->rq[i].done, 1);
		assert_int_equal(b->rq[0].code, fails ? -EIO : 0);
		assert_int_equal(b->rq[1].code, fails ? -EIO : 0);
		assert_int_equal(b->rq[2].code, -ECANCELED);
		b->rq[0].fx = NULL; /* not all is well */
		bed_fini(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_turn_is_what_a_read_says),
		cmocka_unit_test(through_every_wrapper),
		cmocka_unit_test(what_is_delayed),
		cmocka_unit_test(what_waits_for_its_rate),
		cmocka_unit_test(what_pauses),
		cmocka_unit_test(a_frame_that_is_read),
		cmocka_unit_test(a_frame_that_is_decompressed),
		cmocka_unit_test(a_frame_that_is_copied),
		cmocka_unit_test(who_has_no_slot),
		cmocka_unit_test(who_is_about_to_be_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
