/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that asks again. A read that failed for a reason that may pass is tried again, at once
 * and then after pauses that double, with jitter; one that takes longer than 99 of 100 did is sent
 * a second time, and whichever ends first counts. Both cost of a budget that reads which end fill
 * up, second requests half of it at most: an outage is not multiplied, its failures are passed on.
 * See wrap.h: what waits there is a pause, or the time of a second request, whose buffers are owned
 * here.
 * Test: tests/unit/source_retry_test.c.
 *
 * The second request has a buffer of its own, since the first may still write into the reader's.
 * When the second wins, the first is cancelled, and the reader has his bytes once it has ended.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hist.h"
#include "base/prng.h"
#include "source/scheme.h"
#include "source/wrap.h"

/* Larger reads are not sent twice; buffers for as many as are at a time: 1 MiB. */
#define HEDGE_BYTES_MAX (128u << 10)
#define HEDGES_MAX 8u
/* Reads that have to have ended before anybody knows what is usual. */
#define SAMPLES_MIN 100u
/* So many reads old, what was usual counts half. */
#define SAMPLES_HALF 4096u
/* Looked up anew after as many reads. */
#define SAMPLES_STEP 64u
/* Below, a second request is no faster than the first. */
#define HEDGE_NS_MIN NS_PER_MS
#define TOKEN 100u
#define TOKENS_MAX (20u * TOKEN)
#define DOUBLINGS_MAX 10u
#define FULL_NS NS_PER_MS

enum retry_state { RETRY_FREE, RETRY_READING, RETRY_PAUSING };

struct retry_hedge {
	struct src_read inner;
	struct retry_read *of; /* NULL: it is free */
	struct retry_src *owner;
	bool busy;
	bool won;  /* the first is waited for */
	bool lost; /* and cancelled: waited for, too */
	unsigned char *buf;
};

struct retry_read {
	struct wrap_read wr;
	enum retry_state state;
	struct retry_hedge *hedge; /* the second request, until it has ended; or has won */
	bool first_ended;          /* failed, while the second is under way */
	bool cancelled;            /* by the reader */
	uint32_t tries;
	uint64_t begun_ns;
	struct err why; /* of the newest failure */
};

struct retry_src {
	struct wrap wrap;
	struct src_retry_opts opts;
	struct src_counts *counts, own_counts; /* the own: where nobody asks */
	struct prng prng;
	uint32_t sent; /* to the inner source, at most wrap.reads_max at a time */
	struct retry_hedge hedges[HEDGES_MAX];
	unsigned char *room;
	uint32_t tokens;
	uint32_t hist[HIST_BUCKETS];
	uint32_t samples, since_look;
	uint64_t usual_ns; /* NS_NEVER: not known */
};

static struct retry_src *retry_of(const struct retry_read *rr)
{
	return CONTAINER_OF(rr->wr.owner, struct retry_src, wrap);
}

/* ---- budget, and what is usual ---- */

/* keep: tokens that are left for others. */
static bool spend(struct retry_src *r, uint32_t keep)
{
	if (r->tokens < TOKEN + keep)
		return false;
	r->tokens -= TOKEN;
	return true;
}

/* Of the bucket in which 99 of 100 have ended, as much as it takes. */
static uint64_t usual_us(const struct retry_src *r)
{
	uint64_t want = (r->samples * 99ull + 99) / 100, seen = 0, from, to;
	unsigned b = 0;

	while (b < HIST_BUCKETS - 1 && seen + r->hist[b] < want)
		seen += r->hist[b++];
	from = hist_bucket_lo(b);
	to = hist_bucket_lo((unsigned)min_u64(b + 1, HIST_BUCKETS - 1));
	return from + (to - from) * (want - seen) / max_u64(r->hist[b], 1);
}

static void look_at_usual(struct retry_src *r)
{
	r->since_look = 0;
	r->usual_ns = max_u64(usual_us(r) * NS_PER_US, HEDGE_NS_MIN);
	if (r->samples < SAMPLES_HALF)
		return;
	r->samples = 0;
	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		r->samples += r->hist[b] /= 2;
}

static void note_success(struct retry_src *r, uint64_t ns, bool again)
{
	r->tokens = (uint32_t)min_u64(r->tokens + r->opts.budget_percent, TOKENS_MAX);
	if (again)
		return;
	r->hist[hist_bucket(ns / NS_PER_US)]++;
	r->samples++;
	if (++r->since_look >= SAMPLES_STEP && r->samples >= SAMPLES_MIN)
		look_at_usual(r);
}

/* ---- requests ---- */

static void unlink_hedge(struct retry_hedge *h)
{
	h->of->hedge = NULL;
	h->of = NULL;
}

static void retry_end(struct retry_read *rr, const struct err *why)
{
	struct err copy;

	if (why)
		copy = *why;
	rr->state = RETRY_FREE;
	wrap_end(&rr->wr, why ? &copy : NULL);
}

static void send_first(struct retry_read *rr)
{
	struct retry_src *r = retry_of(rr);

	rr->begun_ns = clock_now_ns(&r->wrap.clock);
	/* Second requests have places that were ours: soon they have not. */
	if (r->sent == r->wrap.reads_max) {
		rr->state = RETRY_PAUSING;
		wrap_wait(&rr->wr, rr->begun_ns + FULL_NS);
		return;
	}
	r->sent++;
	rr->state = RETRY_READING;
	rr->first_ended = false;
	if (r->opts.hedge && r->usual_ns != NS_NEVER && rr->wr.rd->len <= HEDGE_BYTES_MAX)
		wrap_wait(&rr->wr, rr->begun_ns + r->usual_ns);
	wrap_pass(&rr->wr);
}

static bool may_pass(int code)
{
	switch (code) {
	case -EINVAL:
	case -ENOENT:
	case -EACCES:
	case -EPERM:
	case -EBADMSG:
	case -ESTALE:
	case -ENOTSUP:
	case -ECANCELED:
		return false;
	default:
		return true;
	}
}

/* All requests of this try have failed. */
static void try_failed(struct retry_read *rr)
{
	struct retry_src *r = retry_of(rr);
	uint64_t ns;

	if (rr->cancelled || rr->tries >= r->opts.retries || !may_pass(rr->why.code) ||
	    !spend(r, 0)) {
		retry_end(rr, &rr->why);
		return;
	}
	r->counts->source_retries++;
	/* One failure among many is over at once; the budget is for when it is not. */
	if (rr->tries++ == 0) {
		send_first(rr);
		return;
	}
	ns = r->opts.pause_ns << min_u64(rr->tries - 2, DOUBLINGS_MAX);
	ns = ns / 2 + prng_below(&r->prng, ns / 2 + 1);
	rr->state = RETRY_PAUSING;
	wrap_wait(&rr->wr, clock_now_ns(&r->wrap.clock) + ns);
}

static void first_done(struct wrap_read *wr, const struct err *why)
{
	struct retry_read *rr = CONTAINER_OF(wr, struct retry_read, wr);
	struct retry_hedge *h = rr->hedge;
	struct retry_src *r = retry_of(rr);

	r->sent--;
	wrap_unwait(wr);
	if (h && h->won) {
		/* It was only waited for. What it brought would do as well. */
		memcpy(rr->wr.rd->buf, h->buf, rr->wr.rd->len);
		h->busy = h->won = false;
		unlink_hedge(h);
		retry_end(rr, NULL);
		return;
	}
	if (!why) {
		note_success(r, clock_now_ns(&r->wrap.clock) - rr->begun_ns, wr->inner.again);
		if (!h) {
			retry_end(rr, NULL);
			return;
		}
		/*
		 * The read ends only once the second request has, too: with no read outstanding the
		 * reader may close us, and the inner source must have none then.
		 */
		h->lost = true;
		if (!rr->cancelled)
			r->wrap.inner->ops->cancel(r->wrap.inner, &h->inner);
		return;
	}
	rr->why = *why;
	rr->first_ended = true;
	if (!h)
		try_failed(rr);
}

static void hedge_done(struct src_read *inner, const struct err *why)
{
	struct retry_hedge *h = CONTAINER_OF(inner, struct retry_hedge, inner);
	struct retry_read *rr = h->of;
	struct retry_src *r = h->owner;

	r->sent--;
	if (!why && !rr->first_ended && !h->lost) {
		h->won = true;
		if (!rr->cancelled)
			r->wrap.inner->ops->cancel(r->wrap.inner, &rr->wr.inner);
		return;
	}
	h->busy = false;
	unlink_hedge(h);
	if (h->lost) {
		h->lost = false;
		retry_end(rr, NULL);
	} else if (!why) {
		memcpy(rr->wr.rd->buf, h->buf, rr->wr.rd->len);
		retry_end(rr, NULL);
	} else if (rr->first_ended) {
		rr->why = *why;
		try_failed(rr);
	}
}

/* It takes longer than usual. */
static void send_second(struct retry_read *rr)
{
	struct retry_src *r = retry_of(rr);
	struct retry_hedge *h = r->hedges;

	while (h < r->hedges + HEDGES_MAX && h->busy)
		h++;
	if (h == r->hedges + HEDGES_MAX || r->sent == r->wrap.reads_max ||
	    !spend(r, TOKENS_MAX / 2))
		return;
	r->sent++;
	r->counts->source_hedges++;
	h->busy = true;
	h->of = rr;
	rr->hedge = h;
	src_read_like(&h->inner, rr->wr.rd);
	h->inner.buf = h->buf;
	r->wrap.inner->ops->read(r->wrap.inner, &h->inner);
}

static void retry_due(struct wrap_read *wr)
{
	struct retry_read *rr = CONTAINER_OF(wr, struct retry_read, wr);

	if (rr->state == RETRY_PAUSING)
		send_first(rr);
	else
		send_second(rr);
}

static void retry_read(struct src *s, struct src_read *rd)
{
	struct retry_src *r = CONTAINER_OF(s, struct retry_src, wrap.src);
	struct retry_read *rr = CONTAINER_OF(wrap_begin(&r->wrap, rd), struct retry_read, wr);

	rr->hedge = NULL;
	rr->cancelled = false;
	rr->tries = 0;
	send_first(rr);
}

static void retry_cancel(struct src *s, struct src_read *rd)
{
	struct retry_src *r = CONTAINER_OF(s, struct retry_src, wrap.src);
	struct wrap_read *wr = rd->held_by;
	struct retry_read *rr = CONTAINER_OF(wr, struct retry_read, wr);
	struct retry_hedge *h = rr->hedge;

	ASSERT(wr->rd == rd);
	rr->cancelled = true;
	if (rr->state == RETRY_PAUSING) {
		(void)err_sys(&rr->why, -ECANCELED, "read at byte %llu, to be tried again",
			      (unsigned long long)rd->offset);
		retry_end(rr, &rr->why);
		return;
	}
	wrap_unwait(wr);
	/* What is left of it was cancelled then. */
	if (h && (h->won || h->lost))
		return;
	if (h) {
		bool last = rr->first_ended;

		r->wrap.inner->ops->cancel(r->wrap.inner, &h->inner);
		if (last)
			return;
	}
	r->wrap.inner->ops->cancel(r->wrap.inner, &rr->wr.inner);
}

static void retry_raise(struct src *s, struct src_read *rd)
{
	struct src *inner = CONTAINER_OF(s, struct retry_src, wrap.src)->wrap.inner;
	struct wrap_read *wr = rd->held_by;
	struct retry_read *rr = CONTAINER_OF(wr, struct retry_read, wr);
	struct retry_hedge *h = rr->hedge;

	ASSERT(wr->rd == rd);
	/* What is left of it was cancelled then. */
	if (h && (h->won || h->lost))
		return;
	if (h)
		src_raise(inner, &h->inner, src_turn(rd));
	if (rr->state == RETRY_PAUSING || rr->first_ended)
		src_turn_set(&wr->inner, src_turn(rd));
	else
		src_raise(inner, &wr->inner, src_turn(rd));
}

static void retry_close(struct src *s)
{
	free(CONTAINER_OF(s, struct retry_src, wrap.src)->room);
	wrap_close(s);
}

static const struct src_ops retry_ops = {
	.name = "retry",
	.read = retry_read,
	.cancel = retry_cancel,
	.raise = retry_raise,
	.load = wrap_load,
	.cached = wrap_cached,
	.close = retry_close,
};

static const struct wrap_kind retry_kind = {
	.ops = &retry_ops,
	.bytes = sizeof(struct retry_src),
	.read_bytes = sizeof(struct retry_read),
	.done = first_done,
	.due = retry_due,
	.fire = wrap_fire,
};

static void make_hedges(struct retry_src *r)
{
	for (unsigned i = 0; i < HEDGES_MAX; i++) {
		r->hedges[i].inner.done = hedge_done;
		r->hedges[i].owner = r;
		r->hedges[i].buf = r->room + i * HEDGE_BYTES_MAX;
	}
}

int src_retry_open(struct src *inner, const struct src_env *env,
		   const struct src_retry_opts *opts, struct src **ret, struct err *e)
{
	struct retry_src *r;
	struct wrap *w;
	int rc;

	w = wrap_open(&retry_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	r = CONTAINER_OF(w, struct retry_src, wrap);
	r->room = malloc((size_t)HEDGES_MAX * HEDGE_BYTES_MAX);
	if (!r->room) {
		wrap_free(w);
		return err_set(e, -ENOMEM, "retry source: out of memory");
	}
	r->opts = *opts;
	r->counts = env->counts ? env->counts : &r->own_counts;
	r->tokens = TOKENS_MAX;
	r->usual_ns = NS_NEVER;
	prng_init(&r->prng, opts->seed);
	make_hedges(r);
	*ret = &w->src;
	return 0;
}

/* ---- by URI ---- */

static int retry_parse(const struct uri *u, struct src_retry_opts *o, struct err *e)
{
	uint64_t retries = 4, ms = 50, percent = 20, hedge = 1;
	int rc;

	if ((rc = uri_number(u, "retries", 0, 100, &retries, e)) < 0 ||
	    (rc = uri_number(u, "retry-ms", 1, 60000, &ms, e)) < 0 ||
	    (rc = uri_number(u, "retry-budget", 0, 100, &percent, e)) < 0 ||
	    (rc = uri_number(u, "retry-hedge", 0, 1, &hedge, e)) < 0 ||
	    (rc = uri_number(u, "retry-seed", 0, UINT64_MAX, &o->seed, e)) < 0)
		return rc;
	o->retries = (uint32_t)retries;
	o->pause_ns = ms * NS_PER_MS;
	o->budget_percent = (uint32_t)percent;
	o->hedge = hedge;
	return 0;
}

static int retry_scheme_check(const struct uri *u, struct err *e)
{
	struct src_retry_opts opts = {.seed = 1};

	return retry_parse(u, &opts, e);
}

static int retry_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			     struct src **ret, struct err *e)
{
	struct src_retry_opts opts = {.seed = 1};
	int rc = retry_parse(u, &opts, e);

	return rc < 0 ? rc : src_retry_open(inner, env, &opts, ret, e);
}

static const char *const retry_keys[] = {"retries", "retry-ms", "retry-budget", "retry-hedge",
					 "retry-seed", NULL};

const struct src_scheme src_retry_scheme = {
	.name = "retry",
	.wraps = true,
	.same = true,
	.keys = retry_keys,
	.check = retry_scheme_check,
	.open = retry_scheme_open,
};
