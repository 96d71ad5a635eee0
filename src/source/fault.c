/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that makes a source fail, by the number of the read alone, so that a failure
 * replays: with an error, once or for good, with a read that ends early, or with no
 * answer at all. Owns the inner source, a fixed pool of requests and one timer, armed
 * for the first hung read that is to go on. Threads: port/source.h. Test:
 * tests/unit/source_test.c.
 *
 * Every hung read waits equally long, so their list is in order of deadline as it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "source/scheme.h"

#define FAULT_HANG_NS_MAX (3600 * NS_PER_S)

struct fault_read {
	struct src_read inner;
	struct src_read *rd; /* NULL while free */
	struct fault_src *owner;
	struct fault_read *prev, *next; /* while hung; next also while free */
	uint64_t due_ns;                /* while hung, if hang_ns is set */
	bool hung;
};

struct fault_src {
	struct src src;
	struct src *inner;
	struct clock clock;
	struct timers *timers;
	struct timer timer;
	struct src_fault_opts opts;
	uint64_t reads;                  /* that arrived so far */
	struct fault_read *first, *last; /* hung */
	uint32_t hung;
	struct fault_read *pool;
	struct fault_read *free;
};

enum fault_kind { FAULT_NONE, FAULT_ERROR, FAULT_SHORT, FAULT_HANG };

/* What happens to read number n, n >= 1. */
static enum fault_kind fault_of(const struct src_fault_opts *o, uint64_t n)
{
	if (o->error_from && n >= o->error_from)
		return FAULT_ERROR;
	if (o->error_at && n >= o->error_at && n - o->error_at < o->error_count)
		return FAULT_ERROR;
	if (n == o->short_at)
		return FAULT_SHORT;
	if (n == o->hang_at || (o->hang_from && n >= o->hang_from))
		return FAULT_HANG;
	return FAULT_NONE;
}

static void fault_end(struct fault_read *fr, const struct err *why)
{
	struct src_read *rd = fr->rd;

	/* Free first: `done` may read again. */
	fr->rd = NULL;
	fr->next = fr->owner->free;
	fr->owner->free = fr;
	rd->done(rd, why);
}

static void fault_inner_done(struct src_read *inner, const struct err *why)
{
	fault_end(CONTAINER_OF(inner, struct fault_read, inner), why);
}

static void fault_rearm(struct fault_src *f)
{
	if (!f->first || !f->opts.hang_ns)
		timer_cancel(f->timers, &f->timer);
	else if (!timer_armed(&f->timer) || f->timer.due_ns != f->first->due_ns)
		timer_arm(f->timers, &f->timer, f->first->due_ns);
}

static void fault_hang(struct fault_src *f, struct fault_read *fr)
{
	if (f->opts.hang_ns)
		fr->due_ns = clock_now_ns(&f->clock) + f->opts.hang_ns;
	fr->prev = f->last;
	fr->next = NULL;
	if (f->last)
		f->last->next = fr;
	else
		f->first = fr;
	f->last = fr;
	fr->hung = true;
	f->hung++;
	fault_rearm(f);
}

static void fault_unhang(struct fault_src *f, struct fault_read *fr)
{
	if (fr->prev)
		fr->prev->next = fr->next;
	else
		f->first = fr->next;
	if (fr->next)
		fr->next->prev = fr->prev;
	else
		f->last = fr->prev;
	fr->hung = false;
	f->hung--;
}

static void fault_fire(struct timer *tm, uint64_t now_ns)
{
	struct fault_src *f = CONTAINER_OF(tm, struct fault_src, timer);

	/* Counted: a `done` below may bring new reads, which are for the next time. */
	for (uint32_t n = f->hung; n && f->first && f->first->due_ns <= now_ns; n--) {
		struct fault_read *fr = f->first;

		fault_unhang(f, fr);
		f->inner->ops->read(f->inner, &fr->inner);
	}
	fault_rearm(f);
}

static void fault_read(struct src *s, struct src_read *rd)
{
	struct fault_src *f = CONTAINER_OF(s, struct fault_src, src);
	struct fault_read *fr = f->free;
	unsigned long long n = ++f->reads;
	unsigned long long at = rd->offset;
	struct err why;

	ASSERT(fr); /* env->reads_max */
	f->free = fr->next;
	fr->rd = rd;
	fr->inner.offset = rd->offset;
	fr->inner.buf = rd->buf;
	fr->inner.len = rd->len;
	fr->inner.urgent = rd->urgent;
	fr->inner.late = rd->late;
	rd->held_by = fr;
	switch (fault_of(&f->opts, n)) {
	case FAULT_NONE:
		f->inner->ops->read(f->inner, &fr->inner);
		break;
	case FAULT_ERROR:
		(void)err_sys(&why, f->opts.error_code, "injected fault: read %llu, at byte %llu",
			      n, at);
		fault_end(fr, &why);
		break;
	case FAULT_SHORT:
		(void)err_set(&why, -EIO, "injected fault: read %llu, at byte %llu: %u bytes came "
			      "instead of %u", n, at, rd->len / 2, rd->len);
		fault_end(fr, &why);
		break;
	case FAULT_HANG:
		fault_hang(f, fr);
		break;
	}
}

static void fault_cancel(struct src *s, struct src_read *rd)
{
	struct fault_src *f = CONTAINER_OF(s, struct fault_src, src);
	struct fault_read *fr = rd->held_by;
	struct err why;

	ASSERT(fr->rd == rd);
	if (!fr->hung) {
		f->inner->ops->cancel(f->inner, &fr->inner);
		return;
	}
	fault_unhang(f, fr);
	fault_rearm(f);
	(void)err_sys(&why, -ECANCELED, "injected fault: hung read at byte %llu",
		      (unsigned long long)rd->offset);
	fault_end(fr, &why);
}

static int fault_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return src_load(CONTAINER_OF(s, struct fault_src, src)->inner, offset, buf, len, e);
}

static void fault_close(struct src *s)
{
	struct fault_src *f = CONTAINER_OF(s, struct fault_src, src);

	ASSERT(!f->first);
	src_close(f->inner);
	timers_take_back(f->timers);
	free(f->pool);
	free(f);
}

static const struct src_ops fault_ops = {
	.name = "fault",
	.read = fault_read,
	.cancel = fault_cancel,
	.load = fault_load,
	.close = fault_close,
};

int src_fault_open(struct src *inner, const struct src_env *env,
		   const struct src_fault_opts *opts, struct src **ret, struct err *e)
{
	struct fault_src *f;

	if (opts->error_code > 0 || opts->hang_ns > FAULT_HANG_NS_MAX)
		return err_set(e, -EINVAL, "fault source: an error code above 0, or a hang above "
			       "an hour");
	f = calloc(1, sizeof(*f));
	if (f)
		f->pool = calloc(env->reads_max, sizeof(*f->pool));
	if (!f || !f->pool) {
		free(f);
		return err_set(e, -ENOMEM, "fault source: out of memory");
	}
	if (!timers_lend(env->timers)) {
		free(f->pool);
		free(f);
		return err_set(e, -ENOSPC, "fault source: too many delays and faults in one VM");
	}
	f->src = (struct src){.ops = &fault_ops, .size = inner->size};
	f->inner = inner;
	f->clock = env->clock;
	f->timers = env->timers;
	f->timer.fire = fault_fire;
	f->opts = *opts;
	if (!f->opts.error_code)
		f->opts.error_code = -EIO;
	if (!f->opts.error_count)
		f->opts.error_count = 1;
	for (uint32_t i = env->reads_max; i-- > 0;) {
		f->pool[i].inner.done = fault_inner_done;
		f->pool[i].owner = f;
		f->pool[i].next = f->free;
		f->free = &f->pool[i];
	}
	*ret = &f->src;
	return 0;
}

/* What a failing source plausibly says; also what somebody may want to type. */
static const struct {
	const char *name;
	int code;
} fault_codes[] = {
	{"EIO", -EIO},
	{"EAGAIN", -EAGAIN},
	{"ENOMEM", -ENOMEM},
	{"EACCES", -EACCES},
	{"EBADMSG", -EBADMSG},
	{"ETIMEDOUT", -ETIMEDOUT},
	{"ECONNRESET", -ECONNRESET},
	{"ENETUNREACH", -ENETUNREACH},
};

static int fault_parse_code(const struct uri *u, int *ret_code, struct err *e)
{
	const char *value = uri_value(u, "errno");

	if (!value)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(fault_codes); i++) {
		if (strcmp(fault_codes[i].name, value) == 0) {
			*ret_code = fault_codes[i].code;
			return 1;
		}
	}
	return err_set(e, -EINVAL, "source URI: errno=%.40s: there are EIO, EAGAIN, ENOMEM, "
		       "EACCES, EBADMSG, ETIMEDOUT, ECONNRESET, ENETUNREACH", value);
}

static int fault_parse(const struct uri *u, struct src_fault_opts *o, struct err *e)
{
	/* Far from wrapping when 1 is added. */
	const uint64_t count_max = UINT32_MAX;
	const uint64_t ms_max = FAULT_HANG_NS_MAX / NS_PER_MS;
	uint64_t error_after = 0, hang_after = 0, hang_ms = 0;
	int has_error_after, has_hang_after, rc;

	*o = (struct src_fault_opts){.error_from = 0};
	has_error_after = uri_number(u, "fault-error-after", 0, count_max, &error_after, e);
	has_hang_after = has_error_after < 0 ? has_error_after :
		uri_number(u, "fault-hang-after", 0, count_max, &hang_after, e);
	if (has_hang_after < 0)
		return has_hang_after;
	if ((rc = uri_number(u, "fault-error-at", 1, count_max, &o->error_at, e)) < 0 ||
	    (rc = uri_number(u, "fault-error-count", 1, count_max, &o->error_count, e)) < 0 ||
	    (rc = uri_number(u, "fault-short-at", 1, count_max, &o->short_at, e)) < 0 ||
	    (rc = uri_number(u, "fault-hang-at", 1, count_max, &o->hang_at, e)) < 0 ||
	    (rc = uri_number(u, "fault-hang-ms", 1, ms_max, &hang_ms, e)) < 0 ||
	    (rc = fault_parse_code(u, &o->error_code, e)) < 0)
		return rc;
	o->error_from = has_error_after ? error_after + 1 : 0;
	o->hang_from = has_hang_after ? hang_after + 1 : 0;
	o->hang_ns = hang_ms * NS_PER_MS;
	if (o->error_count && !o->error_at)
		return err_set(e, -EINVAL, "source URI: fault-error-count needs fault-error-at");
	if (o->error_code && !o->error_at && !o->error_from)
		return err_set(e, -EINVAL, "source URI: errno needs fault-error-at or "
			       "fault-error-after");
	if (hang_ms && !o->hang_at && !o->hang_from)
		return err_set(e, -EINVAL, "source URI: fault-hang-ms needs fault-hang-at or "
			       "fault-hang-after");
	if (!o->error_from && !o->error_at && !o->short_at && !o->hang_at && !o->hang_from)
		return err_set(e, -EINVAL, "source URI: fault injects nothing: give "
			       "fault-error-after, fault-error-at, fault-short-at, fault-hang-at "
			       "or fault-hang-after");
	return 0;
}

static int fault_scheme_check(const struct uri *u, struct err *e)
{
	struct src_fault_opts opts;

	return fault_parse(u, &opts, e);
}

static int fault_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			     struct src **ret, struct err *e)
{
	struct src_fault_opts opts;
	int rc = fault_parse(u, &opts, e);

	return rc < 0 ? rc : src_fault_open(inner, env, &opts, ret, e);
}

static const char *const fault_keys[] = {
	"fault-error-after", "fault-error-at", "fault-error-count", "errno",
	"fault-short-at", "fault-hang-at", "fault-hang-after", "fault-hang-ms", NULL,
};

const struct src_scheme src_fault_scheme = {
	.name = "fault",
	.wraps = true,
	.keys = fault_keys,
	.check = fault_scheme_check,
	.open = fault_scheme_open,
};
