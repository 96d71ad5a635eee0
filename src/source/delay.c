/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that makes a source slow: a read waits here first and only then reaches the
 * inner source, so the inner source's own time comes on top. See wrap.h: with a fixed delay a
 * read's place is the end of those that wait, and only jitter has it walk.
 * Test: tests/unit/source_test.c.
 */
#include <errno.h>

#include "base/prng.h"
#include "source/scheme.h"
#include "source/wrap.h"

struct delay_src {
	struct wrap wrap;
	struct src_delay_opts opts;
	struct prng prng;
};

static void delay_read(struct src *s, struct src_read *rd)
{
	struct delay_src *d = CONTAINER_OF(s, struct delay_src, wrap.src);
	uint64_t wait_ns = d->opts.delay_ns;

	if (d->opts.jitter_ns)
		wait_ns += prng_below(&d->prng, d->opts.jitter_ns + 1);
	wrap_wait(wrap_begin(&d->wrap, rd), clock_now_ns(&d->wrap.clock) + wait_ns);
}

static const struct src_ops delay_ops = {
	.name = "delay",
	.read = delay_read,
	.cancel = wrap_cancel,
	.raise = wrap_raise,
	.load = wrap_load,
	.cached = wrap_cached,
	.close = wrap_close,
};

static const struct wrap_kind delay_kind = {
	.ops = &delay_ops,
	.bytes = sizeof(struct delay_src),
	.read_bytes = sizeof(struct wrap_read),
	.cancelled = "delayed read",
	.fire = wrap_fire,
};

int src_delay_open(struct src *inner, const struct src_env *env,
		   const struct src_delay_opts *opts, struct src **ret, struct err *e)
{
	struct delay_src *d;
	struct wrap *w;
	int rc;

	if (opts->delay_ns > WRAP_WAIT_NS_MAX || opts->jitter_ns > WRAP_WAIT_NS_MAX)
		return err_set(e, -EINVAL, "delay source: more than an hour");
	w = wrap_open(&delay_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	d = CONTAINER_OF(w, struct delay_src, wrap);
	d->opts = *opts;
	prng_init(&d->prng, opts->seed);
	*ret = &w->src;
	return 0;
}

static int delay_parse(const struct uri *u, struct src_delay_opts *opts, struct err *e)
{
	uint64_t us = 0, ms = 0, jitter_us = 0;
	int has_us, has_ms, has_jitter;

	*opts = (struct src_delay_opts){.seed = 0};
	has_us = uri_number(u, "us", 0, WRAP_WAIT_NS_MAX / NS_PER_US, &us, e);
	if (has_us < 0)
		return has_us;
	has_ms = uri_number(u, "ms", 0, WRAP_WAIT_NS_MAX / NS_PER_MS, &ms, e);
	if (has_ms < 0)
		return has_ms;
	has_jitter = uri_number(u, "jitter-us", 0, WRAP_WAIT_NS_MAX / NS_PER_US, &jitter_us, e);
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
	.same = true,
	.keys = delay_keys,
	.check = delay_scheme_check,
	.open = delay_scheme_open,
};
