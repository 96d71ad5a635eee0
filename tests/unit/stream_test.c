/* SPDX-License-Identifier: Apache-2.0 */
/* host/stream.c: which touches are even steps, how far is read ahead, several at a time, noise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/types.h"
#include "host/stream.h"

#define MAX 64u

/* Touches a block; whatever is to be read ahead is. Returns how many steps were asked for. */
static uint32_t touch(struct streams *s, uint32_t block)
{
	struct stream *at = stream_touch(s, block, MAX);
	uint32_t more = at ? at->window - at->asked : 0;

	if (at) {
		assert_int_equal(at->last, block);
		assert_true(at->window <= MAX && at->asked < at->window);
		at->asked = at->window;
	}
	return more;
}

/* The touch of the first block that was not read ahead, again and again. */
static void grows(int32_t stride, uint32_t from)
{
	static const uint32_t windows[] = {4, 8, 16, 32, 64, 64, 64};
	struct streams s = {.clock_hand = 0};
	uint32_t at = from;

	assert_int_equal(touch(&s, at), 0);
	at += (uint32_t)stride;
	assert_int_equal(touch(&s, at), 0);
	for (unsigned i = 0; i < ARRAY_LEN(windows); i++) {
		at += (uint32_t)stride * (i == 0 ? 1 : windows[i - 1] + 1);
		assert_int_equal(touch(&s, at), windows[i]);
	}
}

static void even_steps_grow(void **state)
{
	(void)state;
	grows(1, 0);
	grows(-1, 100000);
	grows(3, 7);
	grows(-STREAM_STRIDE_MAX, 100000);
}

/* What is read ahead may have to be waited for: it is asked for again when half is used up. */
static void touches_within_go_on(void **state)
{
	struct streams s = {.clock_hand = 0};
	uint32_t asked = 0;

	(void)state;
	for (uint32_t at = 0; at < 1000; at++) {
		uint32_t more = touch(&s, at);

		asked = asked ? asked - 1 : 0;
		asked += more;
		if (at >= 2)
			assert_true(asked >= 2);
		assert_true(asked <= MAX);
	}
}

static void too_far_is_somebody_else(void **state)
{
	struct streams s = {.clock_hand = 0};

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(touch(&s, i * (STREAM_STRIDE_MAX + 1)), 0);
}

static void several_at_a_time(void **state)
{
	struct streams s = {.clock_hand = 0};
	uint32_t asked[STREAMS_MAX / 2] = {0};

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t t = 0; t < ARRAY_LEN(asked); t++)
			asked[t] += touch(&s, t * 1000 + i);
	for (uint32_t t = 0; t < ARRAY_LEN(asked); t++)
		assert_int_equal(asked[t], 4);
}

/* Random touches are not followed, or hardly. */
static void noise_is_not_followed(void **state)
{
	struct streams s = {.clock_hand = 0};
	struct prng rng;
	uint64_t asked = 0;

	(void)state;
	prng_init(&rng, 5);
	for (unsigned i = 0; i < 100000; i++)
		asked += touch(&s, (uint32_t)prng_below(&rng, 1u << 20));
	assert_true(asked < 1000);
}

static void nothing_is_asked_for_without_room(void **state)
{
	struct streams s = {.clock_hand = 0};

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		assert_null(stream_touch(&s, i, 0));
}

static void the_ends_of_memory_are_no_trouble(void **state)
{
	struct streams s = {.clock_hand = 0};

	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		(void)touch(&s, i);
		(void)touch(&s, UINT32_MAX - i);
		(void)touch(&s, 9 - i);
		(void)touch(&s, UINT32_MAX - 9 + i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(even_steps_grow),
		cmocka_unit_test(touches_within_go_on),
		cmocka_unit_test(too_far_is_somebody_else),
		cmocka_unit_test(several_at_a_time),
		cmocka_unit_test(noise_is_not_followed),
		cmocka_unit_test(nothing_is_asked_for_without_room),
		cmocka_unit_test(the_ends_of_memory_are_no_trouble),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
