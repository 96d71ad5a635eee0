/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See wrap.h. Reads that wait are entered from the list's end: where all wait equally long the
 * place is the end itself.
 */
#include "source/wrap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

static struct wrap_read *first_waiting(const struct wrap *w)
{
	return LIST_ENTRY(w->waiting.first, struct wrap_read, link);
}

static void rearm(struct wrap *w)
{
	const struct wrap_read *first = first_waiting(w);

	if (!first || first->due_ns == NS_NEVER)
		timer_cancel(w->timers, &w->timer);
	else if (!timer_armed(&w->timer) || w->timer.due_ns != first->due_ns)
		timer_arm(w->timers, &w->timer, first->due_ns);
}

static void leave_list(struct wrap_read *wr)
{
	struct wrap *w = wr->owner;

	list_remove(wr->in, &wr->link);
	if (wr->in == &w->waiting)
		w->waiting_count--;
	wr->in = NULL;
}

void wrap_unwait(struct wrap_read *wr)
{
	struct wrap *w = wr->owner;
	bool by_time = wr->in == &w->waiting;

	if (!wr->in)
		return;
	leave_list(wr);
	if (by_time)
		rearm(w);
}

void wrap_fire(struct timer *tm, uint64_t now_ns)
{
	struct wrap *w = CONTAINER_OF(tm, struct wrap, timer);
	struct wrap_read *wr;

	/* Counted: a `done` below may bring new reads, which are for the next time. */
	for (uint32_t n = w->waiting_count;
	     n && (wr = first_waiting(w)) && wr->due_ns <= now_ns; n--) {
		leave_list(wr);
		if (w->kind->due)
			w->kind->due(wr);
		else
			wrap_pass(wr);
	}
	rearm(w);
}

static void inner_done(struct src_read *inner, const struct err *why)
{
	struct wrap_read *wr = CONTAINER_OF(inner, struct wrap_read, inner);

	wr->rd->again |= inner->again;
	if (wr->owner->kind->done)
		wr->owner->kind->done(wr, why);
	else
		wrap_end(wr, why);
}

struct wrap_read *wrap_at(struct wrap *w, uint32_t i)
{
	return (void *)((char *)w->pool + i * w->kind->read_bytes);
}

struct wrap *wrap_open(const struct wrap_kind *kind, struct src *inner, const struct src_env *env,
		       int *ret_code, struct err *e)
{
	struct wrap *w = calloc(1, kind->bytes);

	if (w)
		w->pool = calloc(env->reads_max, kind->read_bytes);
	if (!w || !w->pool) {
		free(w);
		*ret_code = err_set(e, -ENOMEM, "%s source: out of memory", kind->ops->name);
		return NULL;
	}
	if (kind->fire && !timers_lend(env->timers)) {
		free(w->pool);
		free(w);
		*ret_code = err_set(e, -ENOSPC, "%s source: too many wrappers in one VM",
				    kind->ops->name);
		return NULL;
	}
	w->src = (struct src){.ops = kind->ops, .size = inner->size, .version = inner->version};
	w->inner = inner;
	w->clock = env->clock;
	w->kind = kind;
	w->timers = env->timers;
	w->timer.fire = kind->fire;
	w->reads_max = env->reads_max;
	for (uint32_t i = env->reads_max; i-- > 0;) {
		struct wrap_read *wr = wrap_at(w, i);

		wr->inner.done = inner_done;
		wr->owner = w;
		wr->next = w->free;
		w->free = wr;
	}
	return w;
}

struct wrap_read *wrap_begin(struct wrap *w, struct src_read *rd)
{
	struct wrap_read *wr = w->free;

	ASSERT(wr); /* env->reads_max */
	w->free = wr->next;
	wr->rd = rd;
	src_read_like(&wr->inner, rd);
	rd->held_by = wr;
	return wr;
}

void wrap_pass(struct wrap_read *wr)
{
	struct src *inner = wr->owner->inner;

	inner->ops->read(inner, &wr->inner);
}

void wrap_wait(struct wrap_read *wr, uint64_t due_ns)
{
	struct wrap *w = wr->owner;
	struct list_link *behind = w->waiting.last;

	ASSERT(!wr->in);
	while (behind && CONTAINER_OF(behind, struct wrap_read, link)->due_ns > due_ns)
		behind = behind->prev;
	wr->due_ns = due_ns;
	list_insert(&w->waiting, behind, &wr->link);
	wr->in = &w->waiting;
	w->waiting_count++;
	rearm(w);
}

void wrap_end(struct wrap_read *wr, const struct err *why)
{
	struct src_read *rd = wr->rd;

	wrap_unwait(wr);
	/* Free first: `done` may read again. */
	wr->rd = NULL;
	wr->next = wr->owner->free;
	wr->owner->free = wr;
	rd->done(rd, why);
}

void wrap_cancel(struct src *s, struct src_read *rd)
{
	struct wrap *w = CONTAINER_OF(s, struct wrap, src);
	struct wrap_read *wr = rd->held_by;
	struct err why;

	ASSERT(wr->rd == rd);
	if (!wr->in) {
		w->inner->ops->cancel(w->inner, &wr->inner);
		return;
	}
	(void)err_sys(&why, -ECANCELED, "%s at byte %llu", w->kind->cancelled,
		      (unsigned long long)rd->offset);
	wrap_end(wr, &why);
}

void wrap_raise(struct src *s, struct src_read *rd)
{
	struct wrap *w = CONTAINER_OF(s, struct wrap, src);
	struct wrap_read *wr = rd->held_by;

	ASSERT(wr->rd == rd);
	if (wr->in)
		src_turn_set(&wr->inner, src_turn(rd));
	else
		src_raise(w->inner, &wr->inner, src_turn(rd));
}

int wrap_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return src_load(CONTAINER_OF(s, struct wrap, src)->inner, offset, buf, len, e);
}

int64_t wrap_cached(struct src *s, uint64_t offset, uint64_t len)
{
	return src_cached(CONTAINER_OF(s, struct wrap, src)->inner, offset, len);
}

void wrap_free(struct wrap *w)
{
	if (w->kind->fire) {
		timer_cancel(w->timers, &w->timer);
		timers_take_back(w->timers);
	}
	free(w->pool);
	free(w);
}

void wrap_close(struct src *s)
{
	struct wrap *w = CONTAINER_OF(s, struct wrap, src);

	ASSERT(!w->waiting.first);
	src_close(w->inner);
	wrap_free(w);
}
