/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source of memory that lies in several files, page by page, as a list says (layers_format.h): a
 * snapshot that has only what changed, over those that it builds upon. A read becomes as many reads
 * as it crosses from one file to another, one after the other; a block of 4 KiB becomes one. Owns
 * the files and a pool of requests. Threads: port/source.h. Test: tests/unit/source_layers_test.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "source/layers_format.h"
#include "source/scheme.h"

struct layers_src;

struct layers_read {
	struct src_read inner; /* of one file */
	struct src_read *rd;   /* NULL while free */
	struct layers_src *owner;
	struct layers_read *next; /* while free */
	bool cancelled;
};

struct layers_src {
	struct src src;
	struct layers layers;
	void *bytes; /* the list, which layers points into */
	struct src *files[LAYERS_MAX];
	struct layers_read *pool, *free;
};

/* How far what begins at `offset` goes on in the same file. */
static uint64_t same_end(const struct layers_src *s, uint64_t offset, uint64_t end)
{
	uint64_t page = offset >> PAGE_SHIFT;
	unsigned layer = layers_find(&s->layers, page);

	do
		page++;
	while (page << PAGE_SHIFT < end && layers_find(&s->layers, page) == layer);
	return min_u64(page << PAGE_SHIFT, end);
}

static struct src *file_of(const struct layers_src *s, uint64_t offset)
{
	return s->files[layers_find(&s->layers, offset >> PAGE_SHIFT)];
}

static void end_read(struct layers_read *w, const struct err *why)
{
	struct src_read *rd = w->rd;

	/* Free first: `done` may read again. */
	w->rd = NULL;
	w->next = w->owner->free;
	w->owner->free = w;
	rd->done(rd, why);
}

static void read_from(struct layers_src *s, struct layers_read *w, uint64_t offset)
{
	const struct src_read *rd = w->rd;
	struct src *file = file_of(s, offset);

	w->inner.offset = offset;
	w->inner.buf = (char *)rd->buf + (offset - rd->offset);
	w->inner.len = (uint32_t)(same_end(s, offset, rd->offset + rd->len) - offset);
	file->ops->read(file, &w->inner);
}

static void layers_inner_done(struct src_read *inner, const struct err *why)
{
	struct layers_read *w = CONTAINER_OF(inner, struct layers_read, inner);
	struct layers_src *s = w->owner;
	uint64_t next = inner->offset + inner->len;
	struct err cancelled;

	if (why || next == w->rd->offset + w->rd->len) {
		end_read(w, why);
	} else if (w->cancelled) {
		(void)err_sys(&cancelled, -ECANCELED, "read of several files at byte %llu",
			      (unsigned long long)next);
		end_read(w, &cancelled);
	} else {
		read_from(s, w, next);
	}
}

static void layers_read(struct src *src, struct src_read *rd)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);
	struct layers_read *w = s->free;

	ASSERT(w); /* env->reads_max */
	s->free = w->next;
	w->rd = rd;
	w->cancelled = false;
	src_read_like(&w->inner, rd);
	rd->held_by = w;
	read_from(s, w, rd->offset);
}

static void layers_cancel(struct src *src, struct src_read *rd)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);
	struct layers_read *w = rd->held_by;
	struct src *file = file_of(s, w->inner.offset);

	ASSERT(w->rd == rd);
	/* The file may answer all the same: the next one is not asked then. */
	w->cancelled = true;
	file->ops->cancel(file, &w->inner);
}

static void layers_raise(struct src *src, struct src_read *rd)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);
	struct layers_read *w = rd->held_by;

	ASSERT(w->rd == rd);
	src_raise(file_of(s, w->inner.offset), &w->inner, src_turn(rd));
}

static int layers_load(struct src *src, uint64_t offset, void *buf, size_t len, struct err *e)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);
	uint64_t end = offset + len;
	int rc = 0;

	for (uint64_t at = offset, next; rc == 0 && at < end; at = next) {
		next = same_end(s, at, end);
		rc = src_load(file_of(s, at), at, (char *)buf + (at - offset), next - at, e);
	}
	return rc;
}

static int64_t layers_cached(struct src *src, uint64_t offset, uint64_t len)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);
	uint64_t end = offset + len;
	int64_t sum = 0;

	for (uint64_t at = offset, next; at < end; at = next) {
		next = same_end(s, at, end);
		int64_t n = src_cached(file_of(s, at), at, next - at);

		if (n < 0)
			return n;
		sum += n;
	}
	return sum;
}

static void layers_close(struct src *src)
{
	struct layers_src *s = CONTAINER_OF(src, struct layers_src, src);

	for (unsigned i = 0; i < LAYERS_MAX; i++)
		src_close(s->files[i]);
	free(s->pool);
	layers_free(&s->layers);
	free(s->bytes);
	free(s);
}

static const struct src_ops layers_ops = {
	.name = "layers",
	.read = layers_read,
	.cancel = layers_cancel,
	.raise = layers_raise,
	.load = layers_load,
	.cached = layers_cached,
	.close = layers_close,
};

static int read_list(const char *path, const struct src_env *env, void **ret, size_t *ret_len,
		     struct err *e)
{
	struct src *list;
	int rc = src_file_open(path, env, &list, e);

	if (rc < 0)
		return rc;
	*ret_len = list->size;
	*ret = list->size <= LAYERS_FILE_MAX ? malloc(list->size + 1) : NULL;
	if (!*ret)
		rc = err_sys(e, list->size <= LAYERS_FILE_MAX ? -ENOMEM : -EFBIG, "open %.150s",
			     path);
	else if (list->size > 0)
		rc = src_load(list, 0, *ret, list->size, e);
	src_close(list);
	return rc;
}

/* A path of the list's, from the list's folder on. */
static int open_file(struct layers_src *s, unsigned i, const char *list, const struct src_env *env,
		     struct err *e)
{
	const char *path = s->layers.all[i].path, *slash = strrchr(list, '/');
	int dir = *path != '/' && slash ? (int)(slash - list) + 1 : 0;
	char *full;
	int rc;

	if (asprintf(&full, "%.*s%s", dir, list, path) < 0)
		return err_sys(e, -ENOMEM, "layers");
	rc = src_file_open(full, env, &s->files[i], e);
	if (rc == 0 && s->files[i]->size != s->layers.bytes)
		rc = err_set(e, -EINVAL, "open %.150s: it is not as long as the guest's memory",
			     full);
	free(full);
	return rc;
}

int src_layers_open(const char *path, const struct src_env *env, struct src **ret, struct err *e)
{
	struct layers_src *s = calloc(1, sizeof(*s));
	struct err why = {0};
	size_t len = 0;
	int rc = s ? read_list(path, env, &s->bytes, &len, e) : err_sys(e, -ENOMEM, "layers");

	if (rc == 0) {
		rc = layers_parse(s->bytes, len, &s->layers, &why);
		if (rc < 0)
			(void)err_set(e, rc, "open %.100s: %.120s", path, why.text);
	}
	if (rc == 0)
		s->pool = calloc(env->reads_max, sizeof(*s->pool));
	if (rc == 0 && !s->pool)
		rc = err_sys(e, -ENOMEM, "open %.150s", path);
	for (uint32_t i = rc == 0 ? env->reads_max : 0; i-- > 0;) {
		s->pool[i] = (struct layers_read){
			.inner.done = layers_inner_done, .owner = s, .next = s->free};
		s->free = &s->pool[i];
	}
	for (unsigned i = 0; rc == 0 && i < s->layers.count; i++)
		rc = open_file(s, i, path, env, e);
	if (rc < 0) {
		if (s)
			layers_close(&s->src);
		return rc;
	}
	s->src = (struct src){.ops = &layers_ops, .size = s->layers.bytes};
	*ret = &s->src;
	return 0;
}

/* ---- by URI ---- */

static int layers_scheme_check(const struct uri *u, struct err *e)
{
	if (!*u->path)
		return err_set(e, -EINVAL, "source URI: layers: needs a path, as in "
			       "layers:snapshot/layers");
	return 0;
}

static int layers_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			      struct src **ret, struct err *e)
{
	(void)inner;
	return src_layers_open(u->path, env, ret, e);
}

static const char *const layers_keys[] = {NULL};

const struct src_scheme src_layers_scheme = {
	.name = "layers",
	.alone = true,
	.path_is_file = true,
	.keys = layers_keys,
	.check = layers_scheme_check,
	.open = layers_scheme_open,
};
