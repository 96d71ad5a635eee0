/* SPDX-License-Identifier: Apache-2.0 */
/* Private to src/image: a pipeline from its start to its end, while somebody looks on. */
#ifndef IMAGE_RUN_H
#define IMAGE_RUN_H

#include "image/image.h"
#include "image/pipe.h"

/*
 * done: content bytes that are through, which the pieces' `take` counts with img_run_add().
 * 0, or -Exxx with text; -ECANCELED without.
 */
int img_run(const struct pipe_ops *ops, void *ctx, unsigned threads, const uint64_t *done,
	    uint64_t total, struct img_watch *watch, struct err *e);

static inline void img_run_add(uint64_t *done, uint64_t bytes)
{
	__atomic_store_n(done, *done + bytes, __ATOMIC_RELAXED);
}

/* -ECANCELED if it is to be stopped, else 0. */
int img_run_stopped(const struct img_watch *watch);

#endif
