/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing. Each frame depends on its own bytes, level and size alone, and frames are written in
 * order: so the file is the same for any number of threads, and for zeroes that were read, known
 * from a hole, or seen when they were there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/types.h"
#include "base/zero.h"
#include "image/run.h"
#include "source/zst_frame.h"
#include "source/zst_manifest.h"

#define CHECKSUM_BYTES 4u
#define PIECE_ALIGN 64u

struct frame {
	uint64_t offset;
	uint32_t len;
	bool known_zero;
	bool zero;              /* known, or seen; of a whole frame */
	unsigned char *plain;   /* NULL until the piece is used first */
	unsigned char *packed;
	size_t packed_len;
	unsigned char hash[ZST_HASH_BYTES];
};

struct entry {
	uint32_t packed, plain, sum;
};

struct packer {
	struct img_in *in;
	struct img_out *out, *manifest;
	const struct img_pack_opts *opts;
	struct img_watch *watch;
	ZSTD_CCtx *contexts[PIPE_THREADS_MAX];
	struct zst_hasher *hashers[PIPE_THREADS_MAX]; /* where a manifest is wanted */
	size_t bound;
	unsigned char *room; /* of all pieces */
	unsigned rooms_used;
	struct frame zero; /* what a frame of zeroes becomes */
	uint64_t offset;   /* of the next frame */
	bool ended;        /* the stream */
	/* Of `take`: */
	struct entry *entries;
	uint32_t frames, entries_max;
	struct img_packed sum;
	uint64_t done;
};

/* ---- the three steps ---- */

static void give_room(struct packer *k, struct frame *f)
{
	size_t each = align_up(k->opts->frame_bytes + k->bound, PIECE_ALIGN);

	if (f->plain)
		return;
	f->plain = k->room + k->rooms_used++ * each;
	f->packed = f->plain + k->opts->frame_bytes;
}

static int feed_stream(struct packer *k, struct frame *f, struct err *e)
{
	int64_t n = k->ended ? 0 : img_in_stream(k->in, f->plain, k->opts->frame_bytes,
						 k->watch->stop_fd, e);

	if (n < 0)
		return (int)n;
	f->len = (uint32_t)n;
	f->known_zero = false;
	k->ended = f->len < k->opts->frame_bytes;
	return n > 0;
}

static int pack_feed(void *ctx, void *piece, struct err *e)
{
	struct packer *k = ctx;
	struct frame *f = piece;
	int rc = 1;

	give_room(k, f);
	f->offset = k->offset;
	if (k->in->size == IMG_SIZE_UNKNOWN) {
		rc = feed_stream(k, f, e);
	} else if (f->offset == k->in->size) {
		rc = 0;
	} else {
		f->len = (uint32_t)min_u64(k->opts->frame_bytes, k->in->size - f->offset);
		f->known_zero = img_in_is_zero(k->in, f->offset, f->len);
	}
	if (rc <= 0)
		return rc;
	if (f->offset / k->opts->frame_bytes == ZST_FRAMES_MAX)
		return err_set(e, -EFBIG, "cannot pack %s: it has more than %u frames; give a "
			       "larger "
			       "--frame-bytes", k->in->path, ZST_FRAMES_MAX);
	k->offset += f->len;
	return 1;
}

static int compress(const struct packer *k, unsigned thread, struct frame *f, struct err *e)
{
	size_t n = ZSTD_compress2(k->contexts[thread], f->packed, k->bound, f->plain, f->len);

	if (ZSTD_isError(n))
		/* There is no other reason than memory: any content fits into the room. */
		return err_set(e, -ENOMEM, "cannot pack %s: %s", k->in->path, ZSTD_getErrorName(n));
	f->packed_len = n;
	return k->manifest->fd < 0 ? 0 : zst_hash(k->hashers[thread], f->plain, f->len, f->hash, e);
}

static int pack_work(void *ctx, void *piece, unsigned thread, struct err *e)
{
	const struct packer *k = ctx;
	struct frame *f = piece;
	bool whole = f->len == k->opts->frame_bytes;
	int rc = 0;

	f->zero = whole && f->known_zero;
	if (f->zero)
		return 0;
	if (f->known_zero)
		memset(f->plain, 0, f->len);
	else if (k->in->size != IMG_SIZE_UNKNOWN)
		rc = img_in_read(k->in, f->offset, f->plain, f->len, e);
	if (rc < 0)
		return rc;
	f->zero = whole && is_zero(f->plain, f->len);
	return f->zero ? 0 : compress(k, thread, f, e);
}

static int add_hash(struct packer *k, const struct frame *f, struct err *e)
{
	char text[ZST_HASH_CHARS + 1], line[ZST_HASH_CHARS + 8];
	int n;

	zst_hash_text(f->hash, text);
	n = snprintf(line, sizeof(line), "%s\"%s\"", k->frames > 0 ? ",\n\t\t" : "\n\t\t", text);
	return img_out_add(k->manifest, line, (size_t)n, e);
}

static int pack_take(void *ctx, void *piece, struct err *e)
{
	struct packer *k = ctx;
	const struct frame *own = piece, *f = own->zero ? &k->zero : own;
	const unsigned char *sum = f->packed + f->packed_len - CHECKSUM_BYTES;
	int rc = img_out_add(k->out, f->packed, f->packed_len, e);

	if (rc == 0 && k->manifest->fd >= 0)
		rc = add_hash(k, f, e);
	if (rc < 0)
		return rc;
	if (k->frames == k->entries_max) {
		uint32_t more = k->entries_max ? 2 * k->entries_max : 1024;
		struct entry *entries = realloc(k->entries, more * sizeof(*entries));

		if (!entries)
			return err_sys(e, -ENOMEM, "cannot pack %s: the seek table", k->in->path);
		k->entries = entries;
		k->entries_max = more;
	}
	/* A frame ends with the checksum that the seek table has. */
	k->entries[k->frames++] = (struct entry){
		(uint32_t)f->packed_len, f->len,
		(uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 |
			(uint32_t)sum[3] << 24,
	};
	k->sum.bytes += f->len;
	k->sum.packed_bytes += f->packed_len;
	k->sum.zero_frames += own->zero;
	img_run_add(&k->done, f->len);
	return 0;
}

/* ---- before and after ---- */

static int get_contexts(struct packer *k, struct err *e)
{
	for (unsigned i = 0; i < k->opts->threads; i++) {
		ZSTD_CCtx *c = ZSTD_createCCtx();

		k->contexts[i] = c;
		if (k->manifest->fd >= 0)
			k->hashers[i] = zst_hasher_open();
		if (!c || (k->manifest->fd >= 0 && !k->hashers[i]) ||
		    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel,
							      k->opts->level)) ||
		    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)))
			return err_sys(e, -ENOMEM, "cannot pack %s", k->in->path);
	}
	return 0;
}

static int prepare(struct packer *k, struct err *e)
{
	uint32_t frame_bytes = k->opts->frame_bytes;
	size_t each;
	int rc;

	k->bound = ZSTD_compressBound(frame_bytes);
	each = align_up(frame_bytes + k->bound, PIECE_ALIGN);
	/* One more, for what a frame of zeroes becomes. */
	k->room = malloc((PIPE_SLOTS(k->opts->threads) + 1) * each);
	rc = k->room ? get_contexts(k, e) : err_sys(e, -ENOMEM, "cannot pack %s", k->in->path);
	if (rc < 0)
		return rc;
	k->zero.len = frame_bytes;
	give_room(k, &k->zero);
	memset(k->zero.plain, 0, frame_bytes);
	return compress(k, 0, &k->zero, e);
}

static int add_table(struct packer *k, struct err *e)
{
	unsigned char bytes[ZST_ENTRY_BYTES_MAX];
	size_t len = zst_table_head(bytes, k->frames);
	int rc = img_out_add(k->out, bytes, len, e);

	k->sum.packed_bytes += len;
	for (uint32_t i = 0; rc == 0 && i < k->frames; i++) {
		const struct entry *at = &k->entries[i];

		len = zst_table_entry(bytes, at->packed, at->plain, at->sum);
		k->sum.packed_bytes += len;
		rc = img_out_add(k->out, bytes, len, e);
	}
	len = zst_table_foot(bytes, k->frames);
	k->sum.packed_bytes += len;
	return rc == 0 ? img_out_add(k->out, bytes, len, e) : rc;
}

static int begin_manifest(struct packer *k, struct err *e)
{
	static const char head[] = "{\n\t\"manifest\": \"" ZST_MANIFEST_KIND "\",\n\t\"version\": "
				   "1,\n"
				   "\t\"hash\": \"sha256\",\n\t\"frames\": [";

	return k->manifest->fd < 0 ? 0 : img_out_add(k->manifest, head, sizeof(head) - 1, e);
}

static int end_manifest(struct packer *k, struct err *e)
{
	char tail[96];
	int n = snprintf(tail, sizeof(tail), "\n\t],\n\t\"frame_bytes\": %u,\n\t\"size\": "
				      "%llu\n}\n",
			 k->opts->frame_bytes, (unsigned long long)k->sum.bytes);
	int rc;

	if (k->manifest->fd < 0)
		return 0;
	rc = img_out_add(k->manifest, tail, (size_t)n, e);
	return rc == 0 ? img_out_sync(k->manifest, e) : rc;
}

/* All frames are written. */
static int finish(struct packer *k, struct err *e)
{
	bool manifest = k->manifest->fd >= 0;
	int rc = img_in_unchanged(k->in, e);

	if (rc == 0 && k->frames == 0)
		rc = err_set(e, -ENODATA, "cannot pack %s: it is empty; there is nothing to pack",
			     k->in->path);
	if (rc == 0)
		rc = add_table(k, e);
	if (rc == 0)
		rc = end_manifest(k, e);
	if (rc == 0)
		rc = img_out_sync(k->out, e);
	if (rc == 0)
		rc = img_run_stopped(k->watch);
	/* An image never waits for its manifest. */
	if (rc == 0 && manifest)
		rc = img_out_commit(k->manifest, e);
	if (rc == 0) {
		rc = img_out_commit(k->out, e);
		if (rc < 0 && manifest)
			(void)unlink(k->manifest->path);
	}
	return rc;
}

int img_pack(struct img_in *in, struct img_out *out, struct img_out *manifest,
	     const struct img_pack_opts *opts, struct img_watch *watch,
	     struct img_packed *ret, struct err *e)
{
	static const struct pipe_ops ops = {pack_feed, pack_work, pack_take, sizeof(struct frame)};
	struct packer k = {
		.in = in, .out = out, .manifest = manifest, .opts = opts, .watch = watch};
	int rc = prepare(&k, e);

	if (rc == 0)
		rc = begin_manifest(&k, e);
	if (rc == 0)
		rc = img_run(&ops, &k, opts->threads, &k.done, in->size, watch, e);
	if (rc == 0)
		rc = finish(&k, e);
	img_out_drop(manifest);
	img_out_drop(out);
	for (unsigned i = 0; i < opts->threads; i++) {
		ZSTD_freeCCtx(k.contexts[i]);
		zst_hasher_close(k.hashers[i]);
	}
	free(k.room);
	free(k.entries);
	k.sum.frames = k.frames;
	*ret = k.sum;
	return rc;
}
