/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What source tests stand on: a clock that is a number, timers, and reads that count
 * how often they were answered.
 */
#ifndef TESTS_SOURCE_FIXTURE_H
#define TESTS_SOURCE_FIXTURE_H

#include <string.h>

#include "source/source.h"

#define READS_MAX 16
#define TIMERS_MAX 4

struct fixture {
	uint64_t now_ns;
	struct timers timers;
	struct timer *heap[TIMERS_MAX];
	struct src_env env;
	struct src *src; /* under test */
	struct request *ended[64]; /* in order of `done` */
	unsigned ends;
};

struct request {
	struct src_read rd;
	struct fixture *fx;
	unsigned char buf[64];
	unsigned done;            /* how often */
	int code;                 /* of the last done; 0 = all is well */
	char text[ERR_TEXT_MAX];
	struct request *then;     /* read from within done, if any */
};

static inline uint64_t fixture_now_ns(void *ctx)
{
	return ((struct fixture *)ctx)->now_ns;
}

static inline void fixture_init(struct fixture *fx)
{
	static const struct clock_ops clock_ops = {.now_ns = fixture_now_ns};

	memset(fx, 0, sizeof(*fx));
	fx->now_ns = 1000 * NS_PER_S;
	timers_init(&fx->timers, fx->heap, TIMERS_MAX);
	fx->env = (struct src_env){
		.clock = {.ops = &clock_ops, .ctx = fx},
		.timers = &fx->timers,
		.reads_max = READS_MAX,
	};
}

/* Moves the clock to each deadline in turn, as a host that sleeps between them does. */
static inline void fixture_advance(struct fixture *fx, uint64_t ns)
{
	uint64_t until_ns = fx->now_ns + ns;

	while (timers_next_ns(&fx->timers) <= until_ns) {
		fx->now_ns = max_u64(fx->now_ns, timers_next_ns(&fx->timers));
		timers_run(&fx->timers, fx->now_ns);
	}
	fx->now_ns = until_ns;
}

static inline void request_read(struct request *rq)
{
	rq->fx->src->ops->read(rq->fx->src, &rq->rd);
}

static inline void request_done(struct src_read *rd, const struct err *why)
{
	struct request *rq = CONTAINER_OF(rd, struct request, rd);
	struct request *then = rq->then;

	rq->done++;
	rq->code = why ? why->code : 0;
	memcpy(rq->text, why ? why->text : "", why ? ERR_TEXT_MAX : 1);
	rq->fx->ended[rq->fx->ends++] = rq;
	rq->then = NULL;
	if (then)
		request_read(then);
}

static inline void request_init(struct request *rq, struct fixture *fx, uint64_t offset, size_t len)
{
	memset(rq, 0, sizeof(*rq));
	rq->fx = fx;
	rq->rd = (struct src_read){
		.offset = offset, .buf = rq->buf, .len = (uint32_t)len, .done = request_done,
	};
}

static inline void request_cancel(struct request *rq)
{
	rq->fx->src->ops->cancel(rq->fx->src, &rq->rd);
}

#endif
