/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: a fixed pool of requests, for wrappers that send on a request other than
 * the one that came; what goes on as it came is wrap.h's. Threads: port/source.h.
 * Test: tests/unit/source_qemu_test.c.
 */
#ifndef SOURCE_POOL_H
#define SOURCE_POOL_H

#include <stdlib.h>

#include "base/assert.h"
#include "port/source.h"

struct pool_read {
	struct src_read inner;
	struct src_read *rd; /* NULL while free */
	void *owner;
	struct pool_read *next; /* while free */
};

struct src_pool {
	struct pool_read *all, *free;
};

/* done: of the inner reads. 0, or -ENOMEM. */
static inline int src_pool_open(struct src_pool *p, uint32_t reads_max, void *owner,
				 void (*done)(struct src_read *inner, const struct err *why))
{
	p->all = calloc(reads_max, sizeof(*p->all));
	p->free = NULL;
	if (!p->all)
		return -ENOMEM;
	for (uint32_t i = reads_max; i-- > 0;) {
		p->all[i] = (struct pool_read){.inner.done = done, .owner = owner,
					       .next = p->free};
		p->free = &p->all[i];
	}
	return 0;
}

static inline void src_pool_close(struct src_pool *p)
{
	free(p->all);
}

/* There is one: env->reads_max. The inner read is the outer one, until somebody changes it. */
static inline struct pool_read *pool_take(struct src_pool *p, struct src_read *rd)
{
	struct pool_read *w = p->free;

	ASSERT(w);
	p->free = w->next;
	w->rd = rd;
	src_read_like(&w->inner, rd);
	rd->held_by = w;
	return w;
}

static inline void pool_end(struct src_pool *p, struct pool_read *w, const struct err *why)
{
	struct src_read *rd = w->rd;

	/* Free first: `done` may read again. */
	w->rd = NULL;
	w->next = p->free;
	p->free = w;
	rd->done(rd, why);
}

#endif
