/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that keeps to a rate, of bytes and of requests per second: what a link, or a disk of a
 * cloud, lets through, or what a VM may take of a store that others use, too. A read waits here
 * until both buckets (base/rate.h) let it go; who waits goes by turn, and within one in order. See
 * wrap.h; the timer is for the first who waits. Test: tests/unit/source_rate_test.c.
 */
#include "base/rate.h"

#include <errno.h>

#include "source/scheme.h"
#include "source/wrap.h"

/* At once after a rest, at least: the largest request that is made of what somebody waits for. */
#define BYTES_BURST 65536u

struct rate_src {
	struct wrap wrap;
	struct rate bytes, requests;
	struct turn_queue waiting;
};

/* Who goes next; NULL: nobody waits. */
static struct wrap_read *next_waiting(const struct rate_src *r)
{
	return LIST_ENTRY(turn_queue_first(&r->waiting), struct wrap_read, link);
}

static uint64_t wait_ns(const struct rate_src *r, uint64_t now_ns)
{
	return max_u64(rate_wait_ns(&r->bytes, now_ns), rate_wait_ns(&r->requests, now_ns));
}

static void rearm(struct rate_src *r, uint64_t now_ns)
{
	if (next_waiting(r))
		timer_arm(r->wrap.timers, &r->wrap.timer, now_ns + wait_ns(r, now_ns));
	else
		timer_cancel(r->wrap.timers, &r->wrap.timer);
}

static void go(struct rate_src *r, struct wrap_read *wr, uint64_t now_ns)
{
	rate_take(&r->bytes, wr->inner.len, now_ns);
	rate_take(&r->requests, 1, now_ns);
	wrap_pass(wr);
}

static void rate_fire(struct timer *tm, uint64_t now_ns)
{
	struct rate_src *r = CONTAINER_OF(tm, struct rate_src, wrap.timer);
	struct wrap_read *wr;

	/* As many as there can be: a `done` below may bring new reads without end. */
	for (uint32_t n = r->wrap.reads_max;
	     n && (wr = next_waiting(r)) && wait_ns(r, now_ns) == 0; n--) {
		wrap_unwait(wr);
		turn_went(&r->waiting.row);
		go(r, wr, now_ns);
	}
	rearm(r, now_ns);
}

static void await_turn(struct rate_src *r, struct wrap_read *wr)
{
	wr->in = &r->waiting.of[src_turn(&wr->inner)];
	list_append(wr->in, &wr->link);
}

static void rate_read(struct src *s, struct src_read *rd)
{
	struct rate_src *r = CONTAINER_OF(s, struct rate_src, wrap.src);
	struct wrap_read *wr = wrap_begin(&r->wrap, rd);
	uint64_t now_ns = clock_now_ns(&r->wrap.clock);

	if (!next_waiting(r) && wait_ns(r, now_ns) == 0) {
		go(r, wr, now_ns);
		return;
	}
	await_turn(r, wr);
	if (!timer_armed(&r->wrap.timer))
		rearm(r, now_ns);
}

static void rate_raise(struct src *s, struct src_read *rd)
{
	struct wrap_read *wr = rd->held_by;

	wrap_raise(s, rd);
	if (!wr->in)
		return;
	wrap_unwait(wr);
	await_turn(CONTAINER_OF(s, struct rate_src, wrap.src), wr);
}

static const struct src_ops rate_ops = {
	.name = "rate",
	.read = rate_read,
	.cancel = wrap_cancel,
	.raise = rate_raise,
	.load = wrap_load,
	.cached = wrap_cached,
	.close = wrap_close,
};

static const struct wrap_kind rate_kind = {
	.ops = &rate_ops,
	.bytes = sizeof(struct rate_src),
	.read_bytes = sizeof(struct wrap_read),
	.cancelled = "read that waits for its turn",
	.fire = rate_fire,
};

int src_rate_open(struct src *inner, const struct src_env *env, const struct src_rate_opts *opts,
		  struct src **ret, struct err *e)
{
	struct rate_src *r;
	struct wrap *w;
	int rc;

	if (opts->bytes_per_s > SRC_RATE_MAX || opts->requests_per_s > SRC_RATE_MAX)
		return err_set(e, -EINVAL, "rate source: more than 1P a second");
	w = wrap_open(&rate_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	r = CONTAINER_OF(w, struct rate_src, wrap);
	rate_init(&r->bytes, opts->bytes_per_s, BYTES_BURST);
	rate_init(&r->requests, opts->requests_per_s, 1);
	*ret = &w->src;
	return 0;
}

static int rate_parse(const struct uri *u, struct src_rate_opts *o, struct err *e)
{
	int rc;

	*o = (struct src_rate_opts){.bytes_per_s = 0};
	if ((rc = uri_size(u, "bw", &o->bytes_per_s, e)) < 0 ||
	    (rc = uri_number(u, "iops", 1, UINT32_MAX, &o->requests_per_s, e)) < 0)
		return rc;
	if (o->bytes_per_s > SRC_RATE_MAX)
		return err_set(e, -EINVAL, "source URI: bw= is more than 1024T a second");
	if (!o->bytes_per_s && !o->requests_per_s)
		return err_set(e, -EINVAL, "source URI: rate needs bw=, bytes per second as in "
			       "bw=64M, or iops=, or both");
	return 0;
}

static int rate_scheme_check(const struct uri *u, struct err *e)
{
	struct src_rate_opts opts;

	return rate_parse(u, &opts, e);
}

static int rate_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			    struct src **ret, struct err *e)
{
	struct src_rate_opts opts;
	int rc = rate_parse(u, &opts, e);

	return rc < 0 ? rc : src_rate_open(inner, env, &opts, ret, e);
}

static const char *const rate_keys[] = {"bw", "iops", NULL};

const struct src_scheme src_rate_scheme = {
	.name = "rate",
	.wraps = true,
	.same = true,
	.keys = rate_keys,
	.check = rate_scheme_check,
	.open = rate_scheme_open,
};
