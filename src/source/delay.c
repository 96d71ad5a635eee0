/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that makes a source slow: a read waits here first and only then reaches the
 * inner source, so the inner source's own time comes on top. Owns the inner source, a
 * fixed pool of requests and one timer, armed for the earliest deadline.
 *
 * Waiting reads are a list in order of deadline, entered from its end: with a fixed
 * delay the place is the end itself, O(1); only jitter walks. Threads: port/source.h.
 * Test: tests/unit/source_test.c.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/prng.h"
#include "source/scheme.h"

/* More is a slip of the unit; it also keeps deadlines far from wrapping. */
#define DELAY_NS_MAX (3600 * NS_PER_S)

struct delay_read {
	struct src_read inner;
	struct src_read *rd; /* NULL while free */
	struct delay_src *owner;
	struct delay_read *prev, *next; /* while waiting; next also while free */
	uint64_t due_ns;
	bool waiting;
};

struct delay_src {
	struct src src;
	struct src *inner;
	struct clock clock;
	struct timers *timers;
	struct timer timer;
	struct src_delay_opts opts;
	struct prng prng;
	struct delay_read *first, *last; /* waiting */
	uint32_t waiting;
	struct delay_read *pool;
	struct delay_read *free;
};

static void delay_end(struct delay_read *dr, const struct err *why)
{
	struct src_read *rd = dr->rd;

	/* Free first: `done` may read again. */
	dr->rd = NULL;
	dr->next = dr->owner->free;
	dr->owner->free = dr;
	rd->done(rd, why);
}

static void delay_inner_done(struct src_read *inner, const struct err *why)
{
	delay_end(CONTAINER_OF(inner, struct delay_read, inner), why);
}

static void delay_rearm(struct delay_src *d)
{
	if (!d->first)
		timer_cancel(d->timers, &d->timer);
	else if (!timer_armed(&d->timer) || d->timer.due_ns != d->first->due_ns)
		timer_arm(d->timers, &d->timer, d->first->due_ns);
}

static void delay_enqueue(struct delay_src *d, struct delay_read *dr)
{
	struct delay_read *after = d->last;

	while (after && after->due_ns > dr->due_ns)
		after = after->prev;
	dr->prev = after;
	dr->next = after ? after->next : d->first;
	if (dr->next)
		dr->next->prev = dr;
	else
		d->last = dr;
	if (after)
		after->next = dr;
	else
		d->first = dr;
	dr->waiting = true;
	d->waiting++;
}

static void delay_dequeue(struct delay_src *d, struct delay_read *dr)
{
	if (dr->prev)
		dr->prev->next = dr->next;
	else
		d->first = dr->next;
	if (dr->next)
		dr->next->prev = dr->prev;
	else
		d->last = dr->prev;
	dr->waiting = false;
	d->waiting--;
}

static void delay_fire(struct timer *tm, uint64_t now_ns)
{
	struct delay_src *d = CONTAINER_OF(tm, struct delay_src, timer);

	/* Counted: a `done` below may bring new reads, which are for the next time. */
	for (uint32_t n = d->waiting; n && d->first && d->first->due_ns <= now_ns; n--) {
		struct delay_read *dr = d->first;

		delay_dequeue(d, dr);
		d->inner->ops->read(d->inner, &dr->inner);
	}
	delay_rearm(d);
}

static void delay_read(struct src *s, struct src_read *rd)
{
	struct delay_src *d = CONTAINER_OF(s, struct delay_src, src);
	struct delay_read *dr = d->free;
	uint64_t wait_ns = d->opts.delay_ns;

	ASSERT(dr); /* env->reads_max */
	d->free = dr->next;
	if (d->opts.jitter_ns)
		wait_ns += prng_below(&d->prng, d->opts.jitter_ns + 1);
	dr->rd = rd;
	dr->inner.offset = rd->offset;
	dr->inner.buf = rd->buf;
	dr->inner.len = rd->len;
	dr->inner.urgent = rd->urgent;
	dr->due_ns = clock_now_ns(&d->clock) + wait_ns;
	rd->held_by = dr;
	delay_enqueue(d, dr);
	delay_rearm(d);
}

static void delay_cancel(struct src *s, struct src_read *rd)
{
	struct delay_src *d = CONTAINER_OF(s, struct delay_src, src);
	struct delay_read *dr = rd->held_by;
	struct err why;

	ASSERT(dr->rd == rd);
	if (!dr->waiting) {
		d->inner->ops->cancel(d->inner, &dr->inner);
		return;
	}
	delay_dequeue(d, dr);
	delay_rearm(d);
	(void)err_sys(&why, -ECANCELED, "delayed read at byte %llu",
		      (unsigned long long)rd->offset);
	delay_end(dr, &why);
}

static int delay_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return src_load(CONTAINER_OF(s, struct delay_src, src)->inner, offset, buf, len, e);
}

static void delay_close(struct src *s)
{
	struct delay_src *d = CONTAINER_OF(s, struct delay_src, src);

	ASSERT(!d->first);
	src_close(d->inner);
	timers_take_back(d->timers);
	free(d->pool);
	free(d);
}

static const struct src_ops delay_ops = {
	.name = "delay",
	.read = delay_read,
	.cancel = delay_cancel,
	.load = delay_load,
	.close = delay_close,
};

int src_delay_open(struct src *inner, const struct src_env *env,
		   const struct src_delay_opts *opts, struct src **ret, struct err *e)
{
	struct delay_src *d;

	if (opts->delay_ns > DELAY_NS_MAX || opts->jitter_ns > DELAY_NS_MAX)
		return err_set(e, -EINVAL, "delay source: more than an hour");
	d = calloc(1, sizeof(*d));
	if (d)
		d->pool = calloc(env->reads_max, sizeof(*d->pool));
	if (!d || !d->pool) {
		free(d);
		return err_set(e, -ENOMEM, "delay source: out of memory");
	}
	if (!timers_lend(env->timers)) {
		free(d->pool);
		free(d);
		return err_set(e, -ENOSPC, "delay source: too many delays and faults in one VM");
	}
	d->src = (struct src){.ops = &delay_ops, .size = inner->size};
	d->inner = inner;
	d->clock = env->clock;
	d->timers = env->timers;
	d->timer.fire = delay_fire;
	d->opts = *opts;
	prng_init(&d->prng, opts->seed);
	for (uint32_t i = env->reads_max; i-- > 0;) {
		d->pool[i].inner.done = delay_inner_done;
		d->pool[i].owner = d;
		d->pool[i].next = d->free;
		d->free = &d->pool[i];
	}
	*ret = &d->src;
	return 0;
}

static int delay_parse(const struct uri *u, struct src_delay_opts *opts, struct err *e)
{
	uint64_t us = 0, ms = 0, jitter_us = 0;
	int has_us, has_ms, has_jitter;

	*opts = (struct src_delay_opts){.seed = 0};
	has_us = uri_number(u, "us", 0, DELAY_NS_MAX / NS_PER_US, &us, e);
	if (has_us < 0)
		return has_us;
	has_ms = uri_number(u, "ms", 0, DELAY_NS_MAX / NS_PER_MS, &ms, e);
	if (has_ms < 0)
		return has_ms;
	has_jitter = uri_number(u, "jitter-us", 0, DELAY_NS_MAX / NS_PER_US, &jitter_us, e);
	if (has_jitter < 0)
		return has_jitter;
	if (has_us && has_ms)
		return err_set(e, -EINVAL, "source URI: delay takes us= or ms=, not both");
	if (!has_us && !has_ms && !has_jitter)
		return err_set(e, -EINVAL, "source URI: delay needs us= or ms= or jitter-us=");
	opts->delay_ns = us * NS_PER_US + ms * NS_PER_MS;
	opts->jitter_ns = jitter_us * NS_PER_US;
	int rc = uri_number(u, "seed", 0, UINT64_MAX, &opts->seed, e);

	return rc < 0 ? rc : 0;
}

static int delay_scheme_check(const struct uri *u, struct err *e)
{
	struct src_delay_opts opts;

	return delay_parse(u, &opts, e);
}

static int delay_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			     struct src **ret, struct err *e)
{
	struct src_delay_opts opts;
	int rc = delay_parse(u, &opts, e);

	return rc < 0 ? rc : src_delay_open(inner, env, &opts, ret, e);
}

static const char *const delay_keys[] = {"us", "ms", "jitter-us", "seed", NULL};

const struct src_scheme src_delay_scheme = {
	.name = "delay",
	.wraps = true,
	.keys = delay_keys,
	.check = delay_scheme_check,
	.open = delay_scheme_open,
};
