/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking and verifying: every frame is read, decompressed and checked. See image.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/types.h"
#include "base/zero.h"
#include "image/run.h"
#include "source/zst_frame.h"

/* No frame of zeroes is longer, of the largest that we make. */
#define ZERO_PACKED_MAX 1024u
/* Pieces of a frame that become holes where they are zero. */
#define HOLE_BYTES (64u << 10)

struct frame {
	uint32_t index;
	unsigned char *plain, *packed; /* NULL until the piece is used first */
	bool zero;                     /* and plain is undefined */
	struct err why;                /* verifying: code 0: it is well */
};

/*
 * A frame of zeroes that was decompressed and found right. Others of the same bytes, of which
 * sparse memory has many, hold the same, and are right where the same is said of them.
 */
struct zero {
	uint32_t packed_len, plain_len; /* packed_len 0: there was none yet */
	uint32_t sum;
	const unsigned char *hash; /* of it, in the manifest */
	unsigned char packed[ZERO_PACKED_MAX];
};

struct unpacker {
	const struct img_file *file;
	const struct img_out *out; /* NULL: verify */
	ZSTD_DCtx *contexts[PIPE_THREADS_MAX];
	struct zst_hasher *hashers[PIPE_THREADS_MAX]; /* where there is a manifest */
	struct zero *zeroes; /* by thread */
	unsigned char *room; /* of all pieces */
	size_t packed_max, plain_max;
	unsigned rooms_used;
	uint32_t next; /* frame */
	/* Of `take`: */
	img_tell *tell;
	void *ctx;
	uint32_t broken;
	uint64_t done;
};

static uint64_t plain_bytes(const struct unpacker *u, uint32_t frame)
{
	return u->file->table.plain[frame + 1] - u->file->table.plain[frame];
}

static uint64_t packed_bytes(const struct unpacker *u, uint32_t frame)
{
	return u->file->table.packed[frame + 1] - u->file->table.packed[frame];
}

static int unpack_feed(void *ctx, void *piece, struct err *e)
{
	struct unpacker *u = ctx;
	struct frame *f = piece;

	(void)e;
	if (u->next == u->file->table.frames)
		return 0;
	if (!f->plain) {
		f->plain = u->room + u->rooms_used++ * (u->packed_max + u->plain_max);
		f->packed = f->plain + u->plain_max;
	}
	f->index = u->next++;
	return 1;
}

static int read_packed(const struct unpacker *u, const struct frame *f, struct err *e)
{
	uint64_t from = u->file->table.packed[f->index], len = packed_bytes(u, f->index);

	for (uint64_t got = 0; got < len;) {
		ssize_t n = pread(u->file->fd, f->packed + got, len - got, (off_t)(from + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "cannot read %s at byte %llu", u->file->path,
				       (unsigned long long)(from + got));
		if (n == 0)
			return err_set(e, -ESTALE, "cannot read %s: it ended at byte %llu while "
				       "it was "
				       "read", u->file->path, (unsigned long long)(from + got));
		got += (uint64_t)n;
	}
	return 0;
}

static bool is_known_zero(const struct zero *z, const struct frame *f, uint64_t packed_len,
			  const struct zst_content *want)
{
	return packed_len == z->packed_len && want->len == z->plain_len &&
	       memcmp(f->packed, z->packed, packed_len) == 0 &&
	       (!want->sum || *want->sum == z->sum) &&
	       (!want->hash || memcmp(want->hash, z->hash, ZST_HASH_BYTES) == 0);
}

static void note_zero(struct zero *z, const struct frame *f, uint64_t packed_len,
		      const struct zst_content *want)
{
	if (packed_len > ZERO_PACKED_MAX || !is_zero(f->plain, want->len))
		return;
	z->packed_len = (uint32_t)packed_len;
	z->plain_len = want->len;
	z->sum = want->sum ? *want->sum : 0;
	z->hash = want->hash;
	memcpy(z->packed, f->packed, packed_len);
}

static int decode(const struct unpacker *u, struct frame *f, unsigned thread, struct err *e)
{
	const struct zst_table *t = &u->file->table;
	const unsigned char *hashes = u->file->hashes;
	const struct zst_content want = {
		.len = (uint32_t)plain_bytes(u, f->index),
		.sum = t->sums ? &t->sums[f->index] : NULL,
		.hash = hashes ? hashes + (size_t)f->index * ZST_HASH_BYTES : NULL,
	};

	uint64_t len = packed_bytes(u, f->index);
	int rc;

	f->zero = len > 0 && is_known_zero(&u->zeroes[thread], f, len, &want);
	if (f->zero)
		return 0;
	rc = zst_frame_decode(u->contexts[thread], u->hashers[thread], f->packed, len, f->plain,
			      &want, e);
	if (rc == 0)
		note_zero(&u->zeroes[thread], f, len, &want);
	return rc;
}

/* Runs of what is not zero; the rest of the file is a hole already. */
static int write_plain(const struct unpacker *u, const struct frame *f, struct err *e)
{
	uint64_t at = u->file->table.plain[f->index], len = plain_bytes(u, f->index), from = 0, to;
	int rc = 0;

	for (to = 0; rc == 0 && to < len;) {
		uint64_t n = min_u64(HOLE_BYTES - (at + to) % HOLE_BYTES, len - to);
		bool zero = is_zero(f->plain + to, n);

		if (zero && to > from)
			rc = img_out_write(u->out, at + from, f->plain + from, to - from, e);
		to += n;
		if (zero)
			from = to;
	}
	if (rc == 0 && to > from)
		rc = img_out_write(u->out, at + from, f->plain + from, to - from, e);
	return rc;
}

static int unpack_work(void *ctx, void *piece, unsigned thread, struct err *e)
{
	const struct unpacker *u = ctx;
	const struct zst_table *t = &u->file->table;
	struct frame *f = piece;
	struct err why = {.code = 0};
	int rc = read_packed(u, f, e);

	if (rc < 0)
		return rc;
	rc = decode(u, f, thread, &why);
	f->why = why;
	if (!u->out)
		return 0;
	if (rc < 0)
		return err_set(e, rc, "cannot unpack %s: frame %u (bytes %llu to %llu of the "
			       "file) is "
			       "broken: %s; use another copy of it", u->file->path, f->index,
			       (unsigned long long)t->packed[f->index],
			       (unsigned long long)t->packed[f->index + 1] - 1, why.text);
	return f->zero ? 0 : write_plain(u, f, e);
}

static int unpack_take(void *ctx, void *piece, struct err *e)
{
	struct unpacker *u = ctx;
	const struct frame *f = piece;
	const struct zst_table *t = &u->file->table;

	(void)e;
	if (f->why.code < 0) {
		u->broken++;
		u->tell(u->ctx, &(struct img_broken){
			.frame = f->index,
			.packed_from = t->packed[f->index],
			.packed_to = t->packed[f->index + 1],
			.plain_from = t->plain[f->index],
			.plain_to = t->plain[f->index + 1],
			.why = f->why.text,
		});
	}
	img_run_add(&u->done, plain_bytes(u, f->index));
	return 0;
}

static int prepare(struct unpacker *u, unsigned threads, struct err *e)
{
	for (uint32_t i = 0; i < u->file->table.frames; i++) {
		u->packed_max = max_u64(u->packed_max, packed_bytes(u, i));
		u->plain_max = max_u64(u->plain_max, plain_bytes(u, i));
	}
	if (u->packed_max > ZSTD_compressBound(ZST_FRAME_BYTES_MAX))
		return err_set(e, -EBADMSG, "cannot read %s: its seek table has a frame of %zu "
			       "bytes, "
			       "which is no frame", u->file->path, u->packed_max);
	u->room = malloc(PIPE_SLOTS(threads) * (u->packed_max + u->plain_max));
	u->zeroes = calloc(threads, sizeof(*u->zeroes));
	for (unsigned i = 0; u->room && u->zeroes && i < threads; i++) {
		u->contexts[i] = ZSTD_createDCtx();
		if (u->file->hashes)
			u->hashers[i] = zst_hasher_open();
		if (!u->contexts[i] || (u->file->hashes && !u->hashers[i]))
			return err_sys(e, -ENOMEM, "cannot read %s", u->file->path);
	}
	return u->room && u->zeroes ? 0 : err_sys(e, -ENOMEM, "cannot read %s", u->file->path);
}

static int run(struct unpacker *u, unsigned threads, struct img_watch *watch, struct err *e)
{
	static const struct pipe_ops ops = {unpack_feed, unpack_work, unpack_take,
					    sizeof(struct frame)};
	const struct zst_table *t = &u->file->table;
	int rc = prepare(u, threads, e);

	(void)posix_fadvise(u->file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	if (rc == 0)
		rc = img_run(&ops, u, threads, &u->done, t->plain[t->frames], watch, e);
	for (unsigned i = 0; i < threads; i++) {
		ZSTD_freeDCtx(u->contexts[i]);
		zst_hasher_close(u->hashers[i]);
	}
	free(u->zeroes);
	free(u->room);
	return rc;
}

int img_unpack(const struct img_file *f, struct img_out *out, unsigned threads,
	       struct img_watch *watch, struct err *e)
{
	struct unpacker u = {.file = f, .out = out};
	int rc = 0;

	if (ftruncate(out->fd, (off_t)f->table.plain[f->table.frames]) < 0)
		rc = err_sys(e, -errno, "cannot write %s", out->path);
	if (rc == 0)
		rc = run(&u, threads, watch, e);
	if (rc == 0)
		rc = img_out_sync(out, e);
	if (rc == 0)
		rc = img_run_stopped(watch);
	if (rc == 0)
		rc = img_out_commit(out, e);
	img_out_drop(out);
	return rc;
}

int64_t img_verify(const struct img_file *f, unsigned threads, img_tell *tell, void *ctx,
		   struct img_watch *watch, struct err *e)
{
	struct unpacker u = {.file = f, .tell = tell, .ctx = ctx};
	int rc = run(&u, threads, watch, e);

	return rc < 0 ? rc : (int64_t)u.broken;
}
