/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source of a file's own bytes, through port/io.h. Decides what a short read means:
 * the rest is asked for; if there is none, the file has shrunk under us, which is an
 * error and not a page of zeroes. What was a hole when the file was opened is zeroes without a
 * read, for as long as nobody has changed the file. Owns the file, unless it is lent, the map of
 * holes and a fixed pool of requests.
 * Threads: port/source.h. Test: tests/unit/source_file_test.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "source/holes.h"
#include "source/scheme.h"

/* Largest piece that port/io.h takes at once. */
#define FILE_PIECE_MAX ((size_t)1 << 30)

struct file_read {
	struct io_req io;
	struct src_read *rd; /* NULL while free */
	struct file_src *owner;
	struct file_read *next_free;
	size_t got; /* bytes of rd that are in its buf */
	bool cancelled;
};

struct file_src {
	struct src src;
	struct io io;
	struct io_file *file;
	bool lent;  /* the file is its opener's to close */
	char *path; /* for messages */
	struct ranges holes;
	struct file_read *pool;
	struct file_read *free;
};

static void file_end(struct file_read *fr, const struct err *why)
{
	struct src_read *rd = fr->rd;

	/* Free first: `done` may read again. */
	fr->rd = NULL;
	fr->next_free = fr->owner->free;
	fr->owner->free = fr;
	rd->done(rd, why);
}

static void file_next_piece(struct file_read *fr)
{
	const struct io *io = &fr->owner->io;
	size_t len = fr->rd->len - fr->got;

	if (len > FILE_PIECE_MAX)
		len = FILE_PIECE_MAX;
	fr->io.late = fr->rd->late;
	fr->io.turn = (uint8_t)src_turn(fr->rd);
	io->ops->read(io->ctx, fr->owner->file, &fr->io, fr->rd->offset + fr->got,
		      (char *)fr->rd->buf + fr->got, len);
}

static void file_io_done(struct io_req *io_rd, int res)
{
	struct file_read *fr = CONTAINER_OF(io_rd, struct file_read, io);
	struct file_src *f = fr->owner;
	unsigned long long at = fr->rd->offset + fr->got;
	struct err why;

	if (res > 0) {
		ASSERT((size_t)res <= fr->rd->len - fr->got);
		fr->got += (size_t)res;
		if (fr->got == fr->rd->len) {
			file_end(fr, NULL);
			return;
		}
		if (!fr->cancelled) {
			file_next_piece(fr);
			return;
		}
		res = -ECANCELED;
	}
	if (res == 0)
		(void)err_set(&why, -EIO, "%s ended at byte %llu although it had %llu when it was "
			      "opened", f->path, at, (unsigned long long)f->src.size);
	else if (res == -EAGAIN)
		(void)err_set(&why, res, "read %s at byte %llu: the kernel cannot start a thread "
			      "for it (ulimit -u)", f->path, at);
	else if (res == -EFAULT)
		(void)err_set(&why, -ENOMEM, "read %s at byte %llu: the host has no memory for it, "
			      "or may not promise it (vm.overcommit_memory=2)", f->path, at);
	else
		(void)err_sys(&why, res, "read %s at byte %llu", f->path, at);
	file_end(fr, &why);
}

static bool file_has_hole(struct file_src *f, const struct src_read *rd)
{
	if (!ranges_have(&f->holes, rd->offset, rd->offset + rd->len))
		return false;
	if (f->io.ops->unchanged(f->io.ctx, f->file))
		return true;
	/* Something may be there now, or the file may end before: reads tell. */
	holes_drop(&f->holes);
	return false;
}

static void file_read(struct src *s, struct src_read *rd)
{
	struct file_src *f = CONTAINER_OF(s, struct file_src, src);
	struct file_read *fr = f->free;

	ASSERT(fr); /* env->reads_max */
	ASSERT(rd->len > 0 && rd->offset <= s->size && rd->len <= s->size - rd->offset);
	if (file_has_hole(f, rd)) {
		memset(rd->buf, 0, rd->len);
		rd->done(rd, NULL);
		return;
	}
	f->free = fr->next_free;
	fr->rd = rd;
	fr->got = 0;
	fr->cancelled = false;
	rd->held_by = fr;
	file_next_piece(fr);
}

static void file_cancel(struct src *s, struct src_read *rd)
{
	struct file_src *f = CONTAINER_OF(s, struct file_src, src);
	struct file_read *fr = rd->held_by;

	ASSERT(fr->rd == rd);
	if (fr->cancelled)
		return;
	fr->cancelled = true;
	f->io.ops->cancel(f->io.ctx, &fr->io);
}

static void file_raise(struct src *s, struct src_read *rd)
{
	struct file_src *f = CONTAINER_OF(s, struct file_src, src);
	struct file_read *fr = rd->held_by;

	ASSERT(fr->rd == rd);
	io_raise(&f->io, &fr->io, src_turn(rd));
}

static int file_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e)
{
	const struct file_src *f = CONTAINER_OF(s, struct file_src, src);

	return f->io.ops->load(f->io.ctx, f->file, f->path, offset, buf, len, e);
}

static int64_t file_cached(struct src *s, uint64_t offset, uint64_t len)
{
	const struct file_src *f = CONTAINER_OF(s, struct file_src, src);

	return f->io.ops->cached ? f->io.ops->cached(f->io.ctx, f->file, offset, len) : -ENOENT;
}

static void file_close(struct src *s)
{
	struct file_src *f = CONTAINER_OF(s, struct file_src, src);

	if (!f->lent)
		f->io.ops->close(f->io.ctx, f->file);
	holes_drop(&f->holes);
	free(f->pool);
	free(f->path);
	free(f);
}

static const struct src_ops file_ops = {
	.name = "file",
	.read = file_read,
	.cancel = file_cancel,
	.raise = file_raise,
	.load = file_load,
	.cached = file_cached,
	.close = file_close,
};

/* All of it but the file; NULL: no memory. */
static struct file_src *file_alloc(const char *path, const struct src_env *env, struct err *e)
{
	struct file_src *f = calloc(1, sizeof(*f));

	if (f) {
		f->src.ops = &file_ops;
		f->io = env->io;
		f->path = strdup(path);
		f->pool = calloc(env->reads_max, sizeof(*f->pool));
	}
	if (!f || !f->path || !f->pool) {
		(void)err_set(e, -ENOMEM, "open %s: out of memory", path);
		if (f)
			file_close(&f->src);
		return NULL;
	}
	for (uint32_t i = env->reads_max; i-- > 0;) {
		f->pool[i].io.done = file_io_done;
		f->pool[i].owner = f;
		f->pool[i].next_free = f->free;
		f->free = &f->pool[i];
	}
	return f;
}

int src_file_open(const char *path, const struct src_env *env, struct src **ret, struct err *e)
{
	struct file_src *f = file_alloc(path, env, e);
	int rc;

	if (!f)
		return -ENOMEM;
	rc = f->io.ops->open(f->io.ctx, path, &f->file, &f->src.size, e);
	if (rc < 0) {
		file_close(&f->src);
		return rc;
	}
	if (env->uncached)
		f->io.ops->uncached(f->io.ctx, f->file);
	holes_find(&f->holes, &f->io, f->file, f->src.size, &env->clock);
	*ret = &f->src;
	return 0;
}

int src_file_lend(struct io_file *file, uint64_t size, const char *path, const struct src_env *env,
		  struct src **ret, struct err *e)
{
	struct file_src *f = file_alloc(path, env, e);

	if (!f)
		return -ENOMEM;
	f->file = file;
	f->lent = true;
	f->src.size = size;
	*ret = &f->src;
	return 0;
}

static int file_scheme_direct(const struct uri *u, uint64_t *ret, struct err *e)
{
	int given;

	*ret = 0;
	given = uri_number(u, "direct", 0, 1, ret, e);
	return given < 0 ? given : 0;
}

static int file_scheme_check(const struct uri *u, struct err *e)
{
	uint64_t direct;

	if (!*u->path)
		return err_set(e, -EINVAL, "source URI: file: needs a path, as in file:image.raw");
	return file_scheme_direct(u, &direct, e);
}

static int file_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			    struct src **ret, struct err *e)
{
	struct src_env here = *env;
	uint64_t direct;
	int rc = file_scheme_direct(u, &direct, e);

	(void)inner;
	if (rc < 0)
		return rc;
	here.uncached |= direct != 0;
	return src_file_open(u->path, &here, ret, e);
}

static const char *const file_keys[] = {"direct", NULL};

const struct src_scheme src_file_scheme = {
	.name = "file",
	.alone = true,
	.path_is_file = true,
	.keys = file_keys,
	.check = file_scheme_check,
	.open = file_scheme_open,
};
