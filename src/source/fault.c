/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that makes a source fail, by the number of the read alone, so that a failure
 * replays: with an error, once or for good, with a read that ends early, or with no
 * answer at all. See wrap.h: what hangs waits there, and every read that hangs equally long.
 * Test: tests/unit/source_test.c.
 */
#include <errno.h>
#include <string.h>

#include "source/scheme.h"
#include "source/wrap.h"

struct fault_src {
	struct wrap wrap;
	struct src_fault_opts opts;
	uint64_t reads; /* that arrived so far */
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

static void fault_read(struct src *s, struct src_read *rd)
{
	struct fault_src *f = CONTAINER_OF(s, struct fault_src, wrap.src);
	struct wrap_read *wr = wrap_begin(&f->wrap, rd);
	unsigned long long n = ++f->reads;
	unsigned long long at = rd->offset;
	struct err why;

	switch (fault_of(&f->opts, n)) {
	case FAULT_NONE:
		wrap_pass(wr);
		break;
	case FAULT_ERROR:
		(void)err_sys(&why, f->opts.error_code, "injected fault: read %llu, at byte %llu",
			      n, at);
		wrap_end(wr, &why);
		break;
	case FAULT_SHORT:
		(void)err_set(&why, -EIO, "injected fault: read %llu, at byte %llu: %u bytes came "
			      "instead of %u", n, at, rd->len / 2, rd->len);
		wrap_end(wr, &why);
		break;
	case FAULT_HANG:
		wrap_wait(wr, f->opts.hang_ns ? clock_now_ns(&f->wrap.clock) + f->opts.hang_ns :
						NS_NEVER);
		break;
	}
}

static const struct src_ops fault_ops = {
	.name = "fault",
	.read = fault_read,
	.cancel = wrap_cancel,
	.raise = wrap_raise,
	.load = wrap_load,
	.cached = wrap_cached,
	.close = wrap_close,
};

static const struct wrap_kind fault_kind = {
	.ops = &fault_ops,
	.bytes = sizeof(struct fault_src),
	.read_bytes = sizeof(struct wrap_read),
	.cancelled = "injected fault: hung read",
	.fire = wrap_fire,
};

int src_fault_open(struct src *inner, const struct src_env *env,
		   const struct src_fault_opts *opts, struct src **ret, struct err *e)
{
	struct fault_src *f;
	struct wrap *w;
	int rc;

	if (opts->error_code > 0 || opts->hang_ns > WRAP_WAIT_NS_MAX)
		return err_set(e, -EINVAL, "fault source: an error code above 0, or a hang above "
			       "an hour");
	w = wrap_open(&fault_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	f = CONTAINER_OF(w, struct fault_src, wrap);
	f->opts = *opts;
	if (!f->opts.error_code)
		f->opts.error_code = -EIO;
	if (!f->opts.error_count)
		f->opts.error_count = 1;
	*ret = &w->src;
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
	const uint64_t ms_max = WRAP_WAIT_NS_MAX / NS_PER_MS;
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
	.same = true,
	.keys = fault_keys,
	.check = fault_scheme_check,
	.open = fault_scheme_open,
};
