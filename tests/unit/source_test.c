/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zero, delay, fault and stacks of them, over an inner source that answers when the
 * test says so: order, time, errors, cancel in each state, `done` exactly once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "base/prng.h"
#include "source_fixture.h"

/* Holds each read until the test answers it. */
struct fake {
	struct src src;
	struct src_read *held[READS_MAX];
	unsigned count;
	unsigned cancels;
	bool *closed;
};

static void fake_read(struct src *s, struct src_read *rd)
{
	struct fake *fk = CONTAINER_OF(s, struct fake, src);

	assert_in_range(fk->count, 0, READS_MAX - 1);
	rd->next = (void *)0x1; /* scratch is ours now: a wrapper must not rely on it */
	rd->held_by = (void *)0x1;
	fk->held[fk->count++] = rd;
}

static void fake_answer(struct fake *fk, unsigned ix, int code)
{
	struct src_read *rd = fk->held[ix];
	struct err why;

	for (unsigned i = ix + 1; i < fk->count; i++)
		fk->held[i - 1] = fk->held[i];
	fk->count--;
	if (code == 0)
		memset(rd->buf, 0xab, rd->len);
	else
		err_set(&why, code, "fake says no");
	rd->done(rd, code ? &why : NULL);
}

static void fake_cancel(struct src *s, struct src_read *rd)
{
	struct fake *fk = CONTAINER_OF(s, struct fake, src);

	fk->cancels++;
	for (unsigned i = 0; i < fk->count; i++) {
		if (fk->held[i] == rd) {
			fake_answer(fk, i, -ECANCELED);
			return;
		}
	}
	fail_msg("cancel of a read that the inner source does not hold");
}

static void fake_close(struct src *s)
{
	struct fake *fk = CONTAINER_OF(s, struct fake, src);

	assert_int_equal(fk->count, 0);
	*fk->closed = true;
	free(fk);
}

static struct fake *fake_open(bool *closed)
{
	static const struct src_ops ops = {
		.name = "fake", .read = fake_read, .cancel = fake_cancel, .close = fake_close,
	};
	struct fake *fk = calloc(1, sizeof(*fk));

	assert_non_null(fk);
	*closed = false;
	fk->src = (struct src){.ops = &ops, .size = 1 << 20};
	fk->closed = closed;
	return fk;
}

struct bed {
	struct fixture fx;
	struct fake *fk;
	bool closed;
	struct request rq[READS_MAX];
};

static void bed_init(struct bed *b)
{
	fixture_init(&b->fx);
	b->fk = fake_open(&b->closed);
	for (unsigned i = 0; i < READS_MAX; i++)
		request_init(&b->rq[i], &b->fx, i * 100, 64);
}

static void bed_delay(struct bed *b, uint64_t delay_ns, uint64_t jitter_ns, uint64_t seed)
{
	struct src_delay_opts opts = {
		.delay_ns = delay_ns, .jitter_ns = jitter_ns, .seed = seed,
	};

	bed_init(b);
	assert_int_equal(src_delay_open(&b->fk->src, &b->fx.env, &opts, &b->fx.src, NULL), 0);
}

static void bed_fault(struct bed *b, const struct src_fault_opts *opts)
{
	bed_init(b);
	assert_int_equal(src_fault_open(&b->fk->src, &b->fx.env, opts, &b->fx.src, NULL), 0);
}

static void bed_fini(struct bed *b)
{
	src_close(b->fx.src);
	assert_true(b->closed);
	assert_true(timers_next_ns(&b->fx.timers) == NS_NEVER);
	for (unsigned i = 0; i < READS_MAX; i++)
		assert_in_range(b->rq[i].done, 0, 1);
}

static void zero_answers_at_once(void **state)
{
	struct fixture fx;
	struct request rq;
	unsigned char zeroes[64] = {0};

	(void)state;
	fixture_init(&fx);
	assert_int_equal(src_open("zero:?size=64K", &fx.env, &fx.src, NULL), 0);
	assert_true(fx.src->size == 65536);
	request_init(&rq, &fx, 65536 - 64, 64);
	memset(rq.buf, 0xff, sizeof(rq.buf));
	request_read(&rq);
	assert_int_equal(rq.done, 1);
	assert_int_equal(rq.code, 0);
	assert_memory_equal(rq.buf, zeroes, 64);
	src_close(fx.src);
	src_close(NULL);
}

static void delay_passes_on_after_the_delay(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 500, 0, 0);
	assert_true(b.fx.src->size == b.fk->src.size);
	request_read(&b.rq[3]);
	fixture_advance(&b.fx, 499);
	assert_int_equal(b.fk->count, 0);
	fixture_advance(&b.fx, 1);
	assert_int_equal(b.fk->count, 1);
	assert_true(b.fk->held[0]->offset == 300);
	assert_int_equal(b.fk->held[0]->len, 64);
	assert_int_equal(b.rq[3].done, 0);
	fake_answer(b.fk, 0, 0);
	assert_int_equal(b.rq[3].done, 1);
	assert_int_equal(b.rq[3].code, 0);
	assert_int_equal(b.rq[3].buf[63], 0xab);
	bed_fini(&b);
}

/* What the host knows of a read reaches whoever serves it, through every wrapper. */
static void wrappers_hand_hints_on(void **state)
{
	const struct src_fault_opts fault = {.error_at = 99};
	struct bed b;

	(void)state;
	for (unsigned way = 0; way < 8; way++) {
		if (way & 4)
			bed_fault(&b, &fault);
		else
			bed_delay(&b, 0, 0, 0);
		b.rq[0].rd.urgent = way & 1;
		b.rq[0].rd.late = way & 2;
		request_read(&b.rq[0]);
		fixture_advance(&b.fx, 1);
		assert_int_equal(b.fk->held[0]->urgent, way & 1);
		assert_int_equal(b.fk->held[0]->late, (way & 2) != 0);
		fake_answer(b.fk, 0, 0);
		/* And is not left for the next one. */
		request_read(&b.rq[1]);
		fixture_advance(&b.fx, 1);
		assert_false(b.fk->held[0]->urgent || b.fk->held[0]->late);
		fake_answer(b.fk, 0, 0);
		bed_fini(&b);
	}
}

/* Each to its last number, and no further. */
static void wrappers_have_limits(void **state)
{
	static const char *const good[] = {
		"delay+zero:?size=1M&ms=3600000", "delay+zero:?size=1M&us=3600000000",
		"delay+zero:?size=1M&us=0&jitter-us=3600000000",
		"fault+zero:?size=1M&fault-hang-at=1&fault-hang-ms=3600000",
		"fault+zero:?size=1M&fault-error-at=4294967295&fault-error-count=4294967295",
	};
	static const char *const bad[] = {
		"delay+zero:?size=1M&ms=3600001", "delay+zero:?size=1M&us=3600000001",
		"delay+zero:?size=1M&us=0&jitter-us=3600000001",
		"fault+zero:?size=1M&fault-hang-at=1&fault-hang-ms=3600001",
		"fault+zero:?size=1M&fault-error-at=4294967296",
	};
	struct fixture fx;

	(void)state;
	fixture_init(&fx);
	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(src_open(good[i], &fx.env, &fx.src, NULL), 0);
		src_close(fx.src);
		assert_int_equal(src_open(bad[i], &fx.env, &fx.src, NULL), -EINVAL);
	}
}

static void delay_keeps_order_with_one_timer(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 500, 0, 0);
	for (unsigned i = 0; i < READS_MAX; i++) {
		request_read(&b.rq[i]);
		fixture_advance(&b.fx, 10);
		assert_int_equal(b.fx.timers.len, 1);
	}
	fixture_advance(&b.fx, 500 - 10 * READS_MAX + 35);
	assert_int_equal(b.fk->count, 4);
	fixture_advance(&b.fx, 1000);
	assert_int_equal(b.fk->count, READS_MAX);
	for (unsigned i = 0; i < READS_MAX; i++)
		assert_true(b.fk->held[i]->offset == i * 100);
	while (b.fk->count)
		fake_answer(b.fk, b.fk->count - 1, 0);
	bed_fini(&b);
	assert_int_equal(b.fx.ends, READS_MAX);
}

static void delay_hands_errors_through(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 1, 0, 0);
	request_read(&b.rq[0]);
	fixture_advance(&b.fx, 1);
	fake_answer(b.fk, 0, -EBADMSG);
	assert_int_equal(b.rq[0].code, -EBADMSG);
	assert_string_equal(b.rq[0].text, "fake says no");
	bed_fini(&b);
}

static void delay_cancel_while_waiting(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 500, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		request_read(&b.rq[i]);
	request_cancel(&b.rq[1]); /* middle, last, first */
	assert_int_equal(b.rq[1].done, 1);
	assert_int_equal(b.rq[1].code, -ECANCELED);
	request_cancel(&b.rq[2]);
	fixture_advance(&b.fx, 499);
	request_cancel(&b.rq[0]);
	assert_true(timers_next_ns(&b.fx.timers) == NS_NEVER);
	fixture_advance(&b.fx, 1000);
	assert_int_equal(b.fk->cancels, 0);
	assert_int_equal(b.fk->count, 0);
	assert_int_equal(b.fx.ends, 3);
	bed_fini(&b);
}

static void delay_cancel_of_the_first_rearms_for_the_second(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 500, 0, 0);
	request_read(&b.rq[0]);
	fixture_advance(&b.fx, 100);
	request_read(&b.rq[1]);
	request_cancel(&b.rq[0]);
	assert_true(timers_next_ns(&b.fx.timers) == b.fx.now_ns + 500);
	fixture_advance(&b.fx, 500);
	assert_int_equal(b.fk->count, 1);
	fake_answer(b.fk, 0, 0);
	bed_fini(&b);
}

static void delay_cancel_while_inside(void **state)
{
	struct bed b;

	(void)state;
	bed_delay(&b, 500, 0, 0);
	request_read(&b.rq[0]);
	fixture_advance(&b.fx, 500);
	request_cancel(&b.rq[0]);
	assert_int_equal(b.fk->cancels, 1);
	assert_int_equal(b.rq[0].done, 1);
	assert_int_equal(b.rq[0].code, -ECANCELED);
	bed_fini(&b);
}

/* A chain of reads, each begun in the `done` before it, never fires twice in one run. */
static void delay_of_zero_is_bounded(void **state)
{
	struct fixture fx;
	struct request rq[3];

	(void)state;
	fixture_init(&fx);
	assert_int_equal(src_open("delay+zero:?size=1M&us=0", &fx.env, &fx.src, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		request_init(&rq[i], &fx, 0, 64);
	rq[0].then = &rq[1];
	rq[1].then = &rq[2];
	request_read(&rq[0]);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fx.ends, i);
		assert_true(timers_next_ns(&fx.timers) == fx.now_ns);
		timers_run(&fx.timers, fx.now_ns);
	}
	assert_int_equal(fx.ends, 3);
	src_close(fx.src);
}

/* Request numbers in the order in which the inner source saw them; each within its time. */
static void jitter_order(uint64_t seed, unsigned char order[READS_MAX])
{
	struct bed b;
	uint64_t start_ns;

	bed_delay(&b, 100, 50, seed);
	start_ns = b.fx.now_ns;
	for (unsigned i = 0; i < READS_MAX; i++)
		request_read(&b.rq[i]);
	assert_true(timers_next_ns(&b.fx.timers) >= start_ns + 100);
	fixture_advance(&b.fx, 99);
	assert_int_equal(b.fk->count, 0);
	fixture_advance(&b.fx, 51);
	assert_int_equal(b.fk->count, READS_MAX);
	for (unsigned i = 0; i < READS_MAX; i++)
		order[i] = (unsigned char)(b.fk->held[i]->offset / 100);
	while (b.fk->count)
		fake_answer(b.fk, 0, 0);
	bed_fini(&b);
}

static void jitter_reorders_and_replays(void **state)
{
	unsigned char first[READS_MAX], again[READS_MAX], other[READS_MAX];
	bool sorted = true;

	(void)state;
	jitter_order(1, first);
	jitter_order(1, again);
	jitter_order(2, other);
	assert_memory_equal(first, again, sizeof(first));
	assert_memory_not_equal(first, other, sizeof(first));
	for (unsigned i = 1; i < READS_MAX; i++)
		sorted = sorted && first[i - 1] < first[i];
	assert_false(sorted);
}

/* Runs READS_MAX reads over a fault source; says which ones failed, by bit. */
static unsigned fault_mask(const struct src_fault_opts *opts, int code)
{
	struct bed b;
	unsigned mask = 0;

	bed_fault(&b, opts);
	for (unsigned i = 0; i < READS_MAX; i++) {
		request_read(&b.rq[i]);
		if (b.fk->count)
			fake_answer(b.fk, 0, 0);
		assert_int_equal(b.rq[i].done, 1);
		if (b.rq[i].code) {
			assert_int_equal(b.rq[i].code, code);
			assert_non_null(strstr(b.rq[i].text, "injected fault"));
			mask |= 1u << i;
		}
	}
	bed_fini(&b);
	return mask;
}

static void fault_errors_hit_the_right_reads(void **state)
{
	(void)state;
	assert_int_equal(fault_mask(&(struct src_fault_opts){0}, 0), 0);
	assert_int_equal(fault_mask(&(struct src_fault_opts){.error_from = 1}, -EIO), 0xffff);
	assert_int_equal(fault_mask(&(struct src_fault_opts){.error_from = 11}, -EIO), 0xfc00);
	assert_int_equal(fault_mask(&(struct src_fault_opts){.error_at = 3}, -EIO), 0x0004);
	assert_int_equal(fault_mask(&(struct src_fault_opts){.error_at = 3, .error_count = 2,
							     .error_code = -ENOMEM}, -ENOMEM),
			 0x000c);
	assert_int_equal(fault_mask(&(struct src_fault_opts){.short_at = 16}, -EIO), 0x8000);
}

static void fault_text_names_read_and_place(void **state)
{
	struct bed b;

	(void)state;
	bed_fault(&b, &(struct src_fault_opts){.error_at = 1, .short_at = 2});
	request_read(&b.rq[5]);
	assert_string_equal(b.rq[5].text,
			    "injected fault: read 1, at byte 500: Input/output error");
	request_read(&b.rq[6]);
	assert_string_equal(b.rq[6].text, "injected fault: read 2, at byte 600: 32 bytes came "
			    "instead of 64");
	bed_fini(&b);
}

static void fault_hang_ends_by_cancel_only(void **state)
{
	struct bed b;

	(void)state;
	bed_fault(&b, &(struct src_fault_opts){.hang_at = 2});
	for (unsigned i = 0; i < 3; i++)
		request_read(&b.rq[i]);
	assert_int_equal(b.fk->count, 2);
	assert_true(timers_next_ns(&b.fx.timers) == NS_NEVER);
	fixture_advance(&b.fx, 1000 * NS_PER_S);
	fake_answer(b.fk, 0, 0);
	assert_int_equal(b.rq[1].done, 0);
	request_cancel(&b.rq[1]);
	assert_int_equal(b.rq[1].done, 1);
	assert_int_equal(b.rq[1].code, -ECANCELED);
	assert_int_equal(b.fk->cancels, 0);
	request_cancel(&b.rq[2]); /* not hung: goes to the inner source */
	assert_int_equal(b.fk->cancels, 1);
	assert_int_equal(b.rq[2].code, -ECANCELED);
	bed_fini(&b);
}

static void fault_hang_with_time_answers_late(void **state)
{
	struct bed b;

	(void)state;
	bed_fault(&b, &(struct src_fault_opts){.hang_from = 2, .hang_ns = 700});
	for (unsigned i = 0; i < 5; i++) {
		request_read(&b.rq[i]);
		fixture_advance(&b.fx, 10);
	}
	assert_int_equal(b.fk->count, 1);
	request_cancel(&b.rq[2]);
	fixture_advance(&b.fx, 700 - 40 - 1); /* one short of the time of the second */
	assert_int_equal(b.fk->count, 1);
	fixture_advance(&b.fx, 1);
	assert_int_equal(b.fk->count, 2);
	fixture_advance(&b.fx, 1000);
	assert_int_equal(b.fk->count, 4);
	assert_true(b.fk->held[1]->offset == 100);
	assert_true(b.fk->held[2]->offset == 300);
	while (b.fk->count)
		fake_answer(b.fk, 0, 0);
	assert_int_equal(b.fx.ends, 5);
	bed_fini(&b);
}

static void fault_cancel_stops_the_timer(void **state)
{
	struct bed b;

	(void)state;
	bed_fault(&b, &(struct src_fault_opts){.hang_at = 1, .hang_ns = 700});
	request_read(&b.rq[0]);
	assert_true(timers_next_ns(&b.fx.timers) == b.fx.now_ns + 700);
	request_cancel(&b.rq[0]);
	assert_true(timers_next_ns(&b.fx.timers) == NS_NEVER);
	bed_fini(&b);
}

/* The URI counts reads that still succeed, the options name the first that fails. */
static void fault_after_means_after(void **state)
{
	struct fixture fx;
	struct request rq[4];

	(void)state;
	fixture_init(&fx);
	assert_int_equal(src_open("fault+zero:?size=1M&fault-error-after=1&errno=EBADMSG"
				  "&fault-hang-after=0", &fx.env, &fx.src, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		request_init(&rq[i], &fx, 0, 64);
		request_read(&rq[i]);
	}
	assert_int_equal(rq[0].done, 0); /* hangs */
	assert_int_equal(rq[1].code, -EBADMSG);
	assert_int_equal(rq[2].code, -EBADMSG);
	request_cancel(&rq[0]);
	assert_int_equal(rq[0].code, -ECANCELED);
	src_close(fx.src);
}

static void stack_by_uri_applies_both(void **state)
{
	struct fixture fx;
	struct request rq[2];

	(void)state;
	fixture_init(&fx);
	assert_int_equal(src_open("delay+fault+zero:?size=1M&ms=1&fault-error-at=2", &fx.env,
				  &fx.src, NULL), 0);
	assert_string_equal(fx.src->ops->name, "delay");
	for (unsigned i = 0; i < 2; i++) {
		request_init(&rq[i], &fx, 0, 64);
		request_read(&rq[i]);
	}
	fixture_advance(&fx, NS_PER_MS - 1);
	assert_int_equal(fx.ends, 0);
	fixture_advance(&fx, 1);
	assert_int_equal(fx.ends, 2);
	assert_int_equal(rq[0].code, 0);
	assert_int_equal(rq[1].code, -EIO);
	src_close(fx.src);
}

static void open_refuses_bad_options_and_leaves_inner(void **state)
{
	struct src_delay_opts delay = {.delay_ns = 3601 * NS_PER_S};
	struct src_fault_opts fault = {.error_code = EIO};
	struct src *untouched = (void *)0x10;
	struct src *ret = untouched;
	struct bed b;

	(void)state;
	bed_init(&b);
	assert_int_equal(src_delay_open(&b.fk->src, &b.fx.env, &delay, &ret, NULL), -EINVAL);
	assert_int_equal(src_fault_open(&b.fk->src, &b.fx.env, &fault, &ret, NULL), -EINVAL);
	assert_int_equal(src_open("zero:", &b.fx.env, &ret, NULL), -EINVAL);
	assert_ptr_equal(ret, untouched);
	assert_false(b.closed);
	src_close(&b.fk->src);
}

/* A URL in a wrapper's place is not repeated: it may hold a password. */
static void wrap_refuses_what_is_wrapped(void **state)
{
	struct err e = {0};
	struct src *ret;
	struct bed b;

	(void)state;
	bed_init(&b);
	assert_int_equal(src_wrap("delay+http://me:secret@h/x?ms=1", &b.fk->src, &b.fx.env, &ret,
				  &e), -EINVAL);
	assert_non_null(strstr(e.text, "wrappers 'delay+http': only such as"));
	assert_null(strstr(e.text, "secret"));
	assert_true(b.closed);
}

/*
 * Random reads, cancels, answers and time over delay+fault. Whatever happens, each
 * request ends exactly once, and all do in the end.
 */
static void random_run_ends_each_read_once(void **state)
{
	struct src_delay_opts delay = {.delay_ns = 20, .jitter_ns = 30, .seed = 5};
	struct src_fault_opts fault = {.error_at = 50, .error_count = 20, .hang_from = 100,
				       .hang_ns = 40};
	unsigned started[READS_MAX] = {0};
	struct prng p;
	struct bed b;
	struct src *inner;

	(void)state;
	prng_init(&p, 9);
	bed_fault(&b, &fault);
	inner = b.fx.src;
	assert_int_equal(src_delay_open(inner, &b.fx.env, &delay, &b.fx.src, NULL), 0);
	for (int step = 0; step < 100000; step++) {
		unsigned i = (unsigned)prng_below(&p, READS_MAX);

		b.fx.ends = 0; /* the log is not needed here */
		switch (prng_below(&p, 4)) {
		case 0:
			if (started[i] == b.rq[i].done) {
				started[i]++;
				request_read(&b.rq[i]);
			}
			break;
		case 1:
			if (started[i] != b.rq[i].done && prng_below(&p, 4) == 0) {
				request_cancel(&b.rq[i]);
				assert_int_equal(started[i], b.rq[i].done);
			}
			break;
		case 2:
			if (b.fk->count)
				fake_answer(b.fk, (unsigned)prng_below(&p, b.fk->count),
					    prng_below(&p, 8) ? 0 : -EIO);
			break;
		default:
			fixture_advance(&b.fx, prng_below(&p, 20));
		}
		for (unsigned k = 0; k < READS_MAX; k++)
			assert_in_range(started[k] - b.rq[k].done, 0, 1);
	}
	b.fx.ends = 0;
	fixture_advance(&b.fx, 1000);
	while (b.fk->count)
		fake_answer(b.fk, 0, 0);
	for (unsigned k = 0; k < READS_MAX; k++) {
		assert_int_equal(started[k], b.rq[k].done);
		assert_true(started[k] > 100);
	}
	src_close(b.fx.src);
	assert_true(b.closed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_answers_at_once),
		cmocka_unit_test(delay_passes_on_after_the_delay),
		cmocka_unit_test(delay_keeps_order_with_one_timer),
		cmocka_unit_test(wrappers_hand_hints_on),
		cmocka_unit_test(wrappers_have_limits),
		cmocka_unit_test(delay_hands_errors_through),
		cmocka_unit_test(delay_cancel_while_waiting),
		cmocka_unit_test(delay_cancel_of_the_first_rearms_for_the_second),
		cmocka_unit_test(delay_cancel_while_inside),
		cmocka_unit_test(delay_of_zero_is_bounded),
		cmocka_unit_test(jitter_reorders_and_replays),
		cmocka_unit_test(fault_errors_hit_the_right_reads),
		cmocka_unit_test(fault_text_names_read_and_place),
		cmocka_unit_test(fault_hang_ends_by_cancel_only),
		cmocka_unit_test(fault_hang_with_time_answers_late),
		cmocka_unit_test(fault_cancel_stops_the_timer),
		cmocka_unit_test(fault_after_means_after),
		cmocka_unit_test(stack_by_uri_applies_both),
		cmocka_unit_test(open_refuses_bad_options_and_leaves_inner),
		cmocka_unit_test(wrap_refuses_what_is_wrapped),
		cmocka_unit_test(random_run_ends_each_read_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
