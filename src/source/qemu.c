/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that shows one block of guest RAM out of a file that QEMU's `migrate` has made with the
 * capability mapped-ram: the inner source is the file. Which pages were stored is read when it is
 * opened; the others are zeroes, whatever lies in the file at their place. A read becomes one read
 * of the file, from its first page that was stored to its last, or none. Owns the inner source, the
 * bitmap and a pool of requests. Threads: port/source.h. Test: tests/unit/source_qemu_test.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "source/mapped_ram.h"
#include "source/scheme.h"
#include "source/wrap.h"

/* The bitmap of 8 TiB of guest memory. */
#define BITMAP_BYTES_MAX (256ull << 20)
#define LOAD_BYTES (1u << 20)

struct qemu_src {
	struct wrap wrap;
	struct mapped_ram_block block;
	unsigned char *bitmap; /* set: stored */
};

static bool is_stored(const struct qemu_src *q, uint64_t offset)
{
	uint64_t page = offset / q->block.page_bytes;

	return q->bitmap[page / 8] >> (page % 8) & 1;
}

/* Where the page that holds the byte ends, or `end` does. */
static uint64_t page_end(const struct qemu_src *q, uint64_t offset, uint64_t end)
{
	return min_u64((offset / q->block.page_bytes + 1) * q->block.page_bytes, end);
}

/* What of [from, to) lies between the first stored byte and the last. False: none is. */
static bool stored_span(const struct qemu_src *q, uint64_t from, uint64_t to, uint64_t *ret_from,
			uint64_t *ret_to)
{
	bool any = false;

	for (uint64_t at = from; at < to; at = page_end(q, at, to)) {
		if (!is_stored(q, at))
			continue;
		if (!any)
			*ret_from = at;
		*ret_to = page_end(q, at, to);
		any = true;
	}
	return any;
}

static void zero_the_rest(const struct qemu_src *q, const struct src_read *rd)
{
	uint64_t end = rd->offset + rd->len;

	for (uint64_t at = rd->offset; at < end; at = page_end(q, at, end))
		if (!is_stored(q, at))
			memset((char *)rd->buf + (at - rd->offset), 0, page_end(q, at, end) - at);
}

static void qemu_inner_done(struct wrap_read *wr, const struct err *why)
{
	if (!why)
		zero_the_rest(CONTAINER_OF(wr->owner, struct qemu_src, wrap), wr->rd);
	wrap_end(wr, why);
}

static void qemu_read(struct src *s, struct src_read *rd)
{
	struct qemu_src *q = CONTAINER_OF(s, struct qemu_src, wrap.src);
	struct wrap_read *wr;
	uint64_t from, to;

	if (!stored_span(q, rd->offset, rd->offset + rd->len, &from, &to)) {
		memset(rd->buf, 0, rd->len);
		rd->done(rd, NULL);
		return;
	}
	wr = wrap_begin(&q->wrap, rd);
	wr->inner.offset = q->block.pages_at + from;
	wr->inner.buf = (char *)rd->buf + (from - rd->offset);
	wr->inner.len = (uint32_t)(to - from);
	wrap_pass(wr);
}

static int qemu_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	struct qemu_src *q = CONTAINER_OF(s, struct qemu_src, wrap.src);
	uint64_t end = offset + len;

	for (uint64_t at = offset; at < end;) {
		uint64_t next = page_end(q, at, end);
		char *to = (char *)buf + (at - offset);
		int rc;

		if (is_stored(q, at)) {
			rc = src_load(q->wrap.inner, q->block.pages_at + at, to, next - at, e);
			if (rc < 0)
				return rc;
		} else {
			memset(to, 0, next - at);
		}
		at = next;
	}
	return 0;
}

static int64_t qemu_cached(struct src *s, uint64_t offset, uint64_t len)
{
	const struct qemu_src *q = CONTAINER_OF(s, struct qemu_src, wrap.src);

	return src_cached(q->wrap.inner, q->block.pages_at + offset, len);
}

static void qemu_close(struct src *s)
{
	struct qemu_src *q = CONTAINER_OF(s, struct qemu_src, wrap.src);

	free(q->bitmap);
	wrap_close(s);
}

static const struct src_ops qemu_ops = {
	.name = "qemu",
	.read = qemu_read,
	.cancel = wrap_cancel,
	.raise = wrap_raise,
	.load = qemu_load,
	.cached = qemu_cached,
	.close = qemu_close,
};

static const struct wrap_kind qemu_kind = {
	.ops = &qemu_ops,
	.bytes = sizeof(struct qemu_src),
	.read_bytes = sizeof(struct wrap_read),
	.done = qemu_inner_done,
};

static int load_for_parser(void *ctx, uint64_t offset, void *buf, size_t len, struct err *e)
{
	return src_load(ctx, offset, buf, len, e);
}

/* The block of that name, and which of its pages were stored. */
static int load_block(struct qemu_src *q, const char *name, struct err *e)
{
	const struct mapped_ram_file file = {q->wrap.inner->size, load_for_parser, q->wrap.inner};
	unsigned char head[MAPPED_RAM_MAGIC_BYTES];
	const struct mapped_ram_block *b;
	struct mapped_ram m;
	int rc = file.size < sizeof(head) ? -EINVAL
					  : src_load(q->wrap.inner, 0, head, sizeof(head), e);

	if (rc == -EINVAL || (rc == 0 && !mapped_ram_magic(head)))
		return err_set(e, -EINVAL, "no file of QEMU's migration; make one with "
			       "the capability mapped-ram");
	if (rc == 0)
		rc = mapped_ram_parse(&file, &m, e);
	if (rc < 0)
		return rc;
	b = mapped_ram_find(&m, name, e);
	if (b)
		q->block = *b;
	mapped_ram_fini(&m);
	if (!b)
		return -ENOENT;
	if (q->block.bitmap_bytes > BITMAP_BYTES_MAX)
		return err_set(e, -E2BIG, "block %s: too many pages", q->block.name);
	q->bitmap = malloc(q->block.bitmap_bytes);
	if (!q->bitmap)
		return err_set(e, -ENOMEM, "out of memory");
	for (uint64_t at = 0; rc == 0 && at < q->block.bitmap_bytes; at += LOAD_BYTES)
		rc = src_load(q->wrap.inner, q->block.bitmap_at + at, q->bitmap + at,
			      min_u64(LOAD_BYTES, q->block.bitmap_bytes - at), e);
	return rc;
}

int src_qemu_open(struct src *inner, const char *name, const char *block,
		  const struct src_env *env, struct src **ret, struct err *e)
{
	struct err why = {0};
	struct qemu_src *q;
	struct wrap *w;
	int rc;

	w = wrap_open(&qemu_kind, inner, env, &rc, e);
	if (!w)
		return rc;
	q = CONTAINER_OF(w, struct qemu_src, wrap);
	rc = load_block(q, block, &why);
	if (rc < 0) {
		free(q->bitmap);
		wrap_free(w);
		return err_set(e, rc, "open %.100s: %s", name, why.text);
	}
	w->src.size = q->block.bytes;
	*ret = &w->src;
	return 0;
}

/* ---- by URI ---- */

static int qemu_scheme_check(const struct uri *u, struct err *e)
{
	if (!*u->path)
		return err_set(e, -EINVAL, "source URI: qemu: needs a path, as in "
			       "qemu:vm.mig?block=pc.ram");
	return 0;
}

static int qemu_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			    struct src **ret, struct err *e)
{
	struct src *file = inner;
	char name[ERR_TEXT_MAX];
	int rc = inner ? 0 : src_file_open(u->path, env, &file, e);

	if (rc < 0)
		return rc;
	src_shown(u, name, sizeof(name));
	rc = src_qemu_open(file, name, uri_value(u, "block"), env, ret, e);
	if (rc < 0 && !inner)
		src_close(file);
	return rc;
}

static const char *const qemu_keys[] = {"block", NULL};

const struct src_scheme src_qemu_scheme = {
	.name = "qemu",
	.wraps = true,
	.alone = true,
	.path_is_file = true,
	.keys = qemu_keys,
	.check = qemu_scheme_check,
	.open = qemu_scheme_open,
};
