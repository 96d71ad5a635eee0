/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source whose reads somebody else carries out: who is told what and when, answers within the
 * call and later, twice, too late, to ids that never were; cancel in each state; a random walk
 * over all of it. Threads are in tests/integration/custom_source_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "base/prng.h"
#include "source/custom.h"
#include "source_fixture.h"

#define SOURCE_BYTES (1u << 20)

struct bed {
	struct fixture fx;
	struct src_custom *c;
	unsigned wakes, closes;
	struct request rq[READS_MAX];
};

static void count_wake(void *ctx)
{
	((struct bed *)ctx)->wakes++;
}

static void count_close(void *ctx)
{
	((struct bed *)ctx)->closes++;
}

static void bed_init_as(struct bed *b, bool raises)
{
	const struct src_custom_hooks hooks = {.wake = count_wake, .close = count_close,
					       .ctx = b, .raises = raises};

	fixture_init(&b->fx);
	b->wakes = 0;
	b->closes = 0;
	assert_int_equal(src_custom_open(SOURCE_BYTES, &hooks, &b->fx.env, &b->c, NULL), 0);
	b->fx.src = src_custom_src(b->c);
	assert_int_equal(b->fx.src->size, SOURCE_BYTES);
	for (unsigned i = 0; i < READS_MAX; i++)
		request_init(&b->rq[i], &b->fx, i * 100, 64);
}

static void bed_init(struct bed *b)
{
	bed_init_as(b, false);
}

static void bed_fini(struct bed *b)
{
	struct src_custom_call call;

	assert_false(src_custom_next(b->c, &call));
	assert_false(src_custom_take(b->c));
	src_close(b->fx.src);
	assert_int_equal(b->closes, 1);
	src_custom_free(b->c);
}

/* Tells of the next thing, with nothing happening meanwhile; its id. */
static uint64_t tell(struct bed *b, bool cancel)
{
	struct src_custom_call call;

	assert_true(src_custom_next(b->c, &call));
	assert_int_equal(call.cancel, cancel);
	src_custom_called(b->c, &call);
	return call.id;
}

static int done(struct bed *b, uint64_t id)
{
	return src_custom_answer(b->c, id, SRC_CUSTOM_DONE, 0, NULL);
}

static void reads_are_told_in_order_and_end_in_any(void **state)
{
	struct bed b;
	struct src_custom_call call;
	uint64_t id[3];

	(void)state;
	bed_init(&b);
	b.rq[1].rd.urgent = true;
	for (unsigned i = 0; i < 3; i++)
		request_read(&b.rq[i]);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(src_custom_next(b.c, &call));
		assert_false(call.cancel);
		assert_int_equal(call.offset, i * 100);
		assert_int_equal(call.len, 64);
		assert_ptr_equal(call.buf, b.rq[i].buf);
		assert_int_equal(call.urgent, i == 1);
		assert_int_not_equal(call.id, 0);
		src_custom_called(b.c, &call);
		id[i] = call.id;
	}
	assert_false(src_custom_next(b.c, &call));
	assert_int_equal(done(&b, id[2]), 0);
	assert_int_equal(done(&b, id[0]), 0);
	assert_int_equal(done(&b, id[1]), 0);
	assert_int_equal(b.wakes, 3);
	assert_int_equal(b.fx.ends, 0); /* not before they are taken */
	assert_true(src_custom_take(b.c));
	assert_false(src_custom_take(b.c));
	assert_ptr_equal(b.fx.ended[0], &b.rq[2]);
	assert_ptr_equal(b.fx.ended[1], &b.rq[0]);
	assert_ptr_equal(b.fx.ended[2], &b.rq[1]);
	bed_fini(&b);
}

static void an_answer_within_the_call_wakes_nobody(void **state)
{
	struct bed b;
	struct src_custom_call call;

	(void)state;
	bed_init(&b);
	request_read(&b.rq[0]);
	assert_true(src_custom_next(b.c, &call));
	assert_int_equal(done(&b, call.id), 0);
	assert_int_equal(done(&b, call.id), -ESTALE);
	assert_int_equal(b.wakes, 0);
	assert_false(src_custom_take(b.c)); /* it is the caller's */
	assert_int_equal(b.rq[0].done, 0);
	src_custom_called(b.c, &call);
	assert_int_equal(b.rq[0].done, 1);
	assert_int_equal(b.rq[0].code, 0);
	bed_fini(&b);
}

static void each_read_is_answered_once(void **state)
{
	struct bed b;
	uint64_t first, second;

	(void)state;
	bed_init(&b);
	request_read(&b.rq[0]);
	assert_int_equal(done(&b, 0), -ESTALE);
	assert_int_equal(done(&b, UINT64_MAX), -ESTALE);
	assert_int_equal(done(&b, READS_MAX), -ESTALE);
	first = tell(&b, false);
	assert_int_equal(done(&b, first + 1), -ESTALE); /* of a slot that is free */
	assert_int_equal(done(&b, first), 0);
	assert_int_equal(done(&b, first), -ESTALE);
	assert_int_equal(src_custom_answer(b.c, first, SRC_CUSTOM_FAILED, -EIO, "no"), -ESTALE);
	assert_true(src_custom_take(b.c));
	assert_int_equal(done(&b, first), -ESTALE);
	/* The same slot, another read. Until it is told nobody can answer it. */
	request_read(&b.rq[1]);
	assert_int_equal(done(&b, first), -ESTALE);
	assert_int_equal(done(&b, first + (1ull << 32)), -ESTALE);
	second = tell(&b, false);
	assert_int_equal(second, first + (1ull << 32));
	assert_int_equal(done(&b, first), -ESTALE);
	assert_int_equal(done(&b, second), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(b.rq[0].done, 1);
	assert_int_equal(b.rq[1].done, 1);
	src_close(b.fx.src);
	assert_int_equal(done(&b, second), -ESHUTDOWN);
	assert_int_equal(done(&b, UINT64_MAX), -ESHUTDOWN);
	src_custom_free(b.c);
}

static void asked_for_again(void **state)
{
	struct bed b;

	(void)state;
	bed_init(&b);
	request_read(&b.rq[0]);
	assert_int_equal(
		src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_DONE_AGAIN, 0, NULL), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(b.rq[0].code, 0);
	assert_true(b.rq[0].rd.again);
	bed_fini(&b);
}

static void zeroes_and_failures(void **state)
{
	char longest[2 * ERR_TEXT_MAX];
	struct bed b;

	(void)state;
	bed_init(&b);
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	for (unsigned i = 0; i < 5; i++) {
		memset(b.rq[i].buf, 0xee, sizeof(b.rq[i].buf));
		request_read(&b.rq[i]);
	}
	assert_int_equal(
		src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_ZEROES, -EIO, "not said"), 0);
	assert_int_equal(
		src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_FAILED, -ENOENT, "no\nkey"), 0);
	assert_int_equal(src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_FAILED, 0, NULL), 0);
	assert_int_equal(src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_FAILED, 7, ""), 0);
	assert_int_equal(
		src_custom_answer(b.c, tell(&b, false), SRC_CUSTOM_FAILED, -EPERM, longest), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(b.rq[0].code, 0);
	assert_false(b.rq[0].rd.again);
	for (unsigned i = 0; i < sizeof(b.rq[0].buf); i++)
		assert_int_equal(b.rq[0].buf[i], 0);
	assert_int_equal(b.rq[1].code, -ENOENT);
	assert_non_null(strstr(b.rq[1].text, "at byte 100: no?key"));
	assert_int_equal(b.rq[2].code, -EIO);
	assert_non_null(strstr(b.rq[2].text, "at byte 200: Input/output error"));
	assert_int_equal(b.rq[3].code, -EIO);
	assert_int_equal(b.rq[4].code, -EPERM);
	assert_non_null(strstr(b.rq[4].text, "xxx"));
	bed_fini(&b);
}

static void cancel_before_anybody_knew(void **state)
{
	struct src_custom_call call;
	struct bed b;

	(void)state;
	bed_init(&b);
	request_read(&b.rq[0]);
	request_cancel(&b.rq[0]);
	assert_int_equal(b.rq[0].code, -ECANCELED);
	assert_false(src_custom_next(b.c, &call));
	bed_fini(&b);
}

static void cancel_is_told_once_and_after_the_read(void **state)
{
	struct src_custom_call call, cancel;
	struct bed b;
	uint64_t id;

	(void)state;
	bed_init(&b);
	request_read(&b.rq[0]);
	id = tell(&b, false);
	request_cancel(&b.rq[0]);
	request_cancel(&b.rq[0]);
	assert_int_equal(tell(&b, true), id);
	assert_false(src_custom_next(b.c, &call));
	request_cancel(&b.rq[0]);
	assert_false(src_custom_next(b.c, &call));
	assert_int_equal(b.rq[0].done, 0); /* the buffer is still the answerer's */
	assert_int_equal(src_custom_answer(b.c, id, SRC_CUSTOM_FAILED, -ECANCELED, NULL), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(b.rq[0].code, -ECANCELED);

	/* Cancelled during the call that tells of the read. */
	request_read(&b.rq[1]);
	assert_true(src_custom_next(b.c, &call));
	request_cancel(&b.rq[1]);
	assert_false(src_custom_next(b.c, &cancel));
	src_custom_called(b.c, &call);
	assert_true(src_custom_next(b.c, &cancel));
	assert_true(cancel.cancel && cancel.id == call.id);
	/* Answered while the cancel is told, and the slot used anew. */
	assert_int_equal(done(&b, call.id), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(b.rq[1].code, 0);
	request_read(&b.rq[2]);
	src_custom_called(b.c, &cancel);
	id = tell(&b, false);
	assert_int_not_equal(id, call.id);

	/* Answered before the cancel could be told: nobody is told. */
	request_cancel(&b.rq[2]);
	assert_int_equal(done(&b, id), 0);
	assert_true(src_custom_take(b.c));
	assert_false(src_custom_next(b.c, &call));

	/* Answered within the call, and cancelled. */
	request_read(&b.rq[3]);
	assert_true(src_custom_next(b.c, &call));
	assert_int_equal(done(&b, call.id), 0);
	request_cancel(&b.rq[3]);
	src_custom_called(b.c, &call);
	assert_int_equal(b.rq[3].done, 1);
	bed_fini(&b);
}

/* Who may be told is, once, after the read itself; else a turn is what it was when it was told. */
static void a_raise_is_told_to_who_asks_for_it(void **state)
{
	(void)state;
	for (unsigned raises = 0; raises < 2; raises++) {
		struct src_custom_call call, raise;
		struct bed b;

		bed_init_as(&b, raises);
		b.rq[0].rd.rank = SRC_FILL;
		request_read(&b.rq[0]);
		src_raise(b.fx.src, &b.rq[0].rd, TURN_AHEAD);
		assert_true(src_custom_next(b.c, &call));
		assert_int_equal(call.turn, TURN_AHEAD);
		assert_false(call.raise || call.cancel);
		/* During the call, and after it. */
		src_raise(b.fx.src, &b.rq[0].rd, TURN_DEMAND);
		assert_false(src_custom_next(b.c, &raise));
		src_custom_called(b.c, &call);
		src_raise(b.fx.src, &b.rq[0].rd, TURN_URGENT);
		assert_int_equal(src_custom_due(b.c), raises);
		if (raises) {
			assert_true(src_custom_next(b.c, &raise));
			assert_true(raise.raise && !raise.cancel && raise.id == call.id);
			assert_int_equal(raise.turn, TURN_URGENT);
			assert_false(src_custom_due(b.c));
		}
		assert_int_equal(done(&b, call.id), 0);
		assert_true(src_custom_take(b.c));
		if (raises)
			src_custom_called(b.c, &raise);
		bed_fini(&b);
	}
}

/* A cancel is told in place of it; what is answered meanwhile is told nothing. */
static void a_raise_gives_way(void **state)
{
	struct src_custom_call call;
	struct bed b;
	uint64_t id;

	(void)state;
	bed_init_as(&b, true);
	for (unsigned i = 0; i < 2; i++) {
		b.rq[i].rd.rank = SRC_FILL;
		request_read(&b.rq[i]);
		id = tell(&b, false);
		src_raise(b.fx.src, &b.rq[i].rd, TURN_DEMAND);
		if (i == 0) {
			request_cancel(&b.rq[i]);
			assert_int_equal(tell(&b, true), id);
		}
		assert_int_equal(done(&b, id), 0);
		assert_true(src_custom_take(b.c));
		assert_false(src_custom_next(b.c, &call));
	}
	bed_fini(&b);
}

static void done_may_read_again_when_the_pool_was_used_up(void **state)
{
	struct bed b;
	struct request again;
	uint64_t id[READS_MAX];

	(void)state;
	bed_init(&b);
	request_init(&again, &b.fx, 5000, 64);
	for (unsigned i = 0; i < READS_MAX; i++)
		request_read(&b.rq[i]);
	for (unsigned i = 0; i < READS_MAX; i++)
		id[i] = tell(&b, false);
	b.rq[3].then = &again;
	assert_int_equal(done(&b, id[3]), 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(done(&b, tell(&b, false)), 0);
	for (unsigned i = 0; i < READS_MAX; i++)
		assert_int_equal(done(&b, id[i]), i == 3 ? -ESTALE : 0);
	assert_true(src_custom_take(b.c));
	assert_int_equal(again.done, 1);
	bed_fini(&b);
}

static void sizes_are_checked(void **state)
{
	const struct src_custom_hooks hooks = {.wake = count_wake, .close = count_close};
	struct src_custom *c = NULL;
	struct fixture fx;
	struct err e;

	(void)state;
	fixture_init(&fx);
	assert_int_equal(src_custom_open(0, &hooks, &fx.env, &c, &e), -EINVAL);
	assert_int_equal(src_custom_open(1ull << 63, &hooks, &fx.env, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "9223372036854775808"));
	assert_null(c);
}

/* ---- a random walk ---- */

/* What the answerer knows of a read, and what we know of it. */
struct known {
	struct src_custom_call call;
	bool told, in_call, answered, cancel_told;
	bool cancelled;
	bool reading;
};

struct walk {
	struct bed b;
	struct known known[READS_MAX];
	uint64_t old[64]; /* ids that are over */
	unsigned olds;
	struct prng p;
};

static unsigned with_id(struct walk *w, uint64_t id)
{
	for (unsigned i = 0; i < READS_MAX; i++)
		if (w->known[i].told && w->known[i].call.id == id)
			return i;
	return READS_MAX;
}

static void note_ends(struct walk *w)
{
	for (unsigned i = 0; i < READS_MAX; i++) {
		struct known *k = &w->known[i];

		if (!k->reading || w->b.rq[i].done == 0)
			continue;
		assert_int_equal(w->b.rq[i].done, 1);
		/* Not before it was answered, nor within the call, unless nobody knew of it. */
		assert_true(k->told ? k->answered && !k->in_call : k->cancelled);
		if (k->told)
			w->old[w->olds++ % ARRAY_LEN(w->old)] = k->call.id;
		*k = (struct known){.reading = false};
	}
	w->b.fx.ends = 0;
}

static void tell_next(struct walk *w)
{
	struct src_custom_call call;
	unsigned i;

	if (!src_custom_next(w->b.c, &call))
		return;
	if (call.cancel) {
		i = with_id(w, call.id);
		assert_true(i < READS_MAX && w->known[i].cancelled && !w->known[i].in_call);
		assert_false(w->known[i].cancel_told);
		w->known[i].cancel_told = true;
		src_custom_called(w->b.c, &call);
		return;
	}
	assert_int_equal(with_id(w, call.id), READS_MAX);
	i = (unsigned)(call.offset / 100);
	assert_true(w->known[i].reading && !w->known[i].told && !w->known[i].cancelled);
	w->known[i].call = call;
	w->known[i].told = true;
	w->known[i].in_call = true;
}

static void answer(struct walk *w, unsigned i)
{
	struct known *k = &w->known[i];
	unsigned wakes = w->b.wakes;
	enum src_custom_answer how = (enum src_custom_answer)prng_below(&w->p, 3);
	int rc;

	if (w->olds > 0 && prng_below(&w->p, 4) == 0) {
		uint64_t id = w->old[prng_below(&w->p, min_u64(w->olds, ARRAY_LEN(w->old)))];

		assert_int_equal(src_custom_answer(w->b.c, id, how, -EIO, "late"), -ESTALE);
	}
	if (!k->told)
		return;
	rc = src_custom_answer(w->b.c, k->call.id, how, -EIO, "walk");
	assert_int_equal(rc, k->answered ? -ESTALE : 0);
	assert_int_equal(w->b.wakes - wakes, rc == 0 && !k->in_call);
	k->answered = true;
}

static void walk_step(struct walk *w)
{
	unsigned i = (unsigned)prng_below(&w->p, READS_MAX);
	struct known *k = &w->known[i];

	switch (prng_below(&w->p, 6)) {
	case 0:
		if (k->reading)
			break;
		k->reading = true;
		w->b.rq[i].done = 0;
		request_read(&w->b.rq[i]);
		break;
	case 1:
		if (!k->reading)
			break;
		k->cancelled = true;
		request_cancel(&w->b.rq[i]);
		break;
	case 2:
		tell_next(w);
		break;
	case 3:
		if (!k->in_call)
			break;
		k->in_call = false;
		src_custom_called(w->b.c, &k->call);
		break;
	case 4:
		answer(w, i);
		break;
	case 5:
		src_custom_take(w->b.c);
		break;
	}
	note_ends(w);
}

static void random_histories(void **state)
{
	static struct walk w;

	(void)state;
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct src_custom_call call;

		memset(&w, 0, sizeof(w));
		prng_init(&w.p, seed);
		bed_init(&w.b);
		for (unsigned n = 0; n < 1000; n++)
			walk_step(&w);
		/* All that is left ends. */
		for (unsigned i = 0; i < READS_MAX; i++) {
			if (w.known[i].in_call)
				src_custom_called(w.b.c, &w.known[i].call);
			w.known[i].in_call = false;
		}
		while (src_custom_next(w.b.c, &call)) {
			(void)src_custom_answer(w.b.c, call.id, SRC_CUSTOM_DONE, 0, NULL);
			src_custom_called(w.b.c, &call);
		}
		for (unsigned i = 0; i < READS_MAX; i++)
			if (w.known[i].told)
				(void)done(&w.b, w.known[i].call.id);
		src_custom_take(w.b.c);
		for (unsigned i = 0; i < READS_MAX; i++)
			assert_true(!w.known[i].reading || w.b.rq[i].done == 1);
		bed_fini(&w.b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_are_told_in_order_and_end_in_any),
		cmocka_unit_test(an_answer_within_the_call_wakes_nobody),
		cmocka_unit_test(each_read_is_answered_once),
		cmocka_unit_test(asked_for_again),
		cmocka_unit_test(zeroes_and_failures),
		cmocka_unit_test(cancel_before_anybody_knew),
		cmocka_unit_test(cancel_is_told_once_and_after_the_read),
		cmocka_unit_test(a_raise_is_told_to_who_asks_for_it),
		cmocka_unit_test(a_raise_gives_way),
		cmocka_unit_test(done_may_read_again_when_the_pool_was_used_up),
		cmocka_unit_test(sizes_are_checked),
		cmocka_unit_test(random_histories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
