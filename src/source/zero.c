/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source of zeroes: answers inside read(), so that nothing is ever outstanding. For
 * benchmarks without a device, and as the innermost part of test stacks. Owns nothing.
 * Threads: port/source.h. Test: tests/unit/source_test.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "source/scheme.h"

static void zero_read(struct src *s, struct src_read *rd)
{
	ASSERT(rd->offset <= s->size && rd->len <= s->size - rd->offset);
	memset(rd->buf, 0, rd->len);
	rd->done(rd, NULL);
}

static void zero_cancel(struct src *s, struct src_read *rd)
{
	(void)s;
	(void)rd;
	ASSERT(false && "a read of zeroes is never outstanding");
}

static void zero_close(struct src *s)
{
	free(s);
}

static const struct src_ops zero_ops = {
	.name = "zero",
	.read = zero_read,
	.cancel = zero_cancel,
	.close = zero_close,
};

int src_zero_open(uint64_t size, struct src **ret, struct err *e)
{
	struct src *s = malloc(sizeof(*s));

	if (!s)
		return err_set(e, -ENOMEM, "zero source: out of memory");
	*s = (struct src){.ops = &zero_ops, .size = size};
	*ret = s;
	return 0;
}

static int zero_parse(const struct uri *u, uint64_t *ret_size, struct err *e)
{
	if (*u->path)
		return err_set(e, -EINVAL, "source URI: zero: takes no path ('%.60s'); write "
			       "zero:?size=64M", u->path);
	int rc = uri_size(u, "size", ret_size, e);

	if (rc == 0)
		return err_set(e, -EINVAL, "source URI: zero: needs a size, as in zero:?size=64M");
	return rc < 0 ? rc : 0;
}

static int zero_scheme_check(const struct uri *u, struct err *e)
{
	uint64_t size;

	return zero_parse(u, &size, e);
}

static int zero_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			    struct src **ret, struct err *e)
{
	uint64_t size = 0;
	int rc = zero_parse(u, &size, e);

	(void)inner;
	(void)env;
	return rc < 0 ? rc : src_zero_open(size, ret, e);
}

static const char *const zero_keys[] = {"size", NULL};

const struct src_scheme src_zero_scheme = {
	.name = "zero",
	.alone = true,
	.keys = zero_keys,
	.check = zero_scheme_check,
	.open = zero_scheme_open,
};
