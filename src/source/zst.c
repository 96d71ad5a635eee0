/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapper that decompresses: the inner source is a file of zstd frames with a seek table
 * (zst_table.h). A read of any byte reads the frame that holds it, has it decompressed by
 * env->work, checks it, and copies what was asked for; the frame stays in a slot for its
 * neighbours' reads until another needs the slot. Owns the inner source, the table, and a fixed
 * number of slots and requests. Threads: port/source.h; zst_decode and zst_copy run in a worker,
 * without the lock, on what no one else touches meanwhile. Test: tests/unit/source_zst_test.c.
 *
 * A request goes through its frames one after the other. It holds a slot (users) while a worker
 * copies from it, waits for one (slot->waiting) while the frame is on its way, or for any
 * (starved) while all slots are taken.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/size.h"
#include "source/scheme.h"
#include "source/zst_frame.h"
#include "source/zst_manifest.h"
#include "source/zst_table.h"

/* Frames that were decompressed, and are kept. */
#define ZST_CACHE_BYTES (16ull << 20)
#define ZST_SLOTS_MIN 4u
#define ZST_SLOTS_MAX 256u
/* As much is copied under the lock. */
#define ZST_COPY_BYTES 4096u
/* What port/source.h allows in one read. */
#define ZST_PIECE_MAX (2u << 20)

enum zst_state { ZST_EMPTY = 0, ZST_READING, ZST_DECODING, ZST_READY };

struct zst_slot {
	enum zst_state state;
	uint32_t frame;
	uint32_t users;   /* copies by workers */
	uint64_t used_at; /* by zst_src.clock_hand */
	struct list waiting;
	struct src_read inner;
	uint32_t got; /* packed bytes that are there */
	bool cancelled;
	struct work_job job;
	struct zst_src *owner;
	unsigned char *packed, *plain;
	struct err why; /* of the job; code 0: it is well */
};

struct zst_read {
	struct src_read *rd; /* NULL while free */
	struct zst_src *owner;
	struct zst_read *next; /* among the free */
	struct list *in;       /* where it waits; NULL: nowhere now */
	struct list_link link; /* in that */
	struct zst_slot *slot; /* that it waits for or copies from; NULL: none */
	struct work_job job;
	uint32_t got, piece; /* bytes that are there; that the job copies */
	bool cancelled;
};

struct zst_src {
	struct src src;
	struct src *inner;
	struct work work;
	ZSTD_DCtx *contexts[WORK_THREADS_MAX];
	struct zst_hasher *hashers[WORK_THREADS_MAX]; /* where there is a manifest */
	struct zst_table table;
	struct zst_manifest manifest; /* hashes NULL: there is none */
	struct zst_slot *slots;
	uint32_t slot_count;
	uint64_t clock_hand;
	unsigned char *room; /* of all slots */
	struct list starved;
	struct zst_read *pool;
	struct zst_read *free;
	char *name; /* for messages */
};

static struct zst_read *read_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct zst_read, link);
}

/* Whose turn comes first is first. */
static void await(struct list *l, struct zst_read *zr)
{
	struct list_link *behind = l->last;

	while (behind && src_turn(read_of(behind)->rd) > src_turn(zr->rd))
		behind = behind->prev;
	list_insert(l, behind, &zr->link);
	zr->in = l;
}

static void unawait(struct zst_read *zr)
{
	list_remove(zr->in, &zr->link);
	zr->in = NULL;
}

/* They wait no more, and look again, one after the other; meanwhile others may come to wait. */
static struct list take_all(struct list *l)
{
	struct list all = *l;

	for (struct list_link *at = all.first; at; at = at->next) {
		read_of(at)->in = NULL;
		read_of(at)->slot = NULL;
	}
	*l = (struct list){.first = NULL};
	return all;
}

static struct zst_read *take(struct list *all)
{
	return read_of(list_take(all));
}

static uint32_t packed_bytes(const struct zst_slot *s)
{
	const struct zst_table *t = &s->owner->table;

	return (uint32_t)(t->packed[s->frame + 1] - t->packed[s->frame]);
}

static uint32_t plain_bytes(const struct zst_slot *s)
{
	const struct zst_table *t = &s->owner->table;

	return (uint32_t)(t->plain[s->frame + 1] - t->plain[s->frame]);
}

static void zst_end(struct zst_read *zr, const struct err *why)
{
	struct src_read *rd = zr->rd;

	/* Free first: `done` may read again. */
	zr->rd = NULL;
	zr->next = zr->owner->free;
	zr->owner->free = zr;
	rd->done(rd, why);
}

static void end_cancelled(struct zst_read *zr)
{
	struct err why;

	(void)err_sys(&why, -ECANCELED, "read of %s at byte %llu", zr->owner->name,
		      (unsigned long long)zr->rd->offset);
	zst_end(zr, &why);
}

/* ---- a slot ---- */

static void zst_decode(struct work_job *job, unsigned thread)
{
	struct zst_slot *s = CONTAINER_OF(job, struct zst_slot, job);
	const struct zst_table *t = &s->owner->table;
	const unsigned char *hashes = s->owner->manifest.hashes;
	const struct zst_content want = {
		.len = plain_bytes(s),
		.sum = t->sums ? &t->sums[s->frame] : NULL,
		.hash = hashes ? hashes + (size_t)s->frame * ZST_HASH_BYTES : NULL,
	};
	struct err why;

	s->why.code = 0;
	if (zst_frame_decode(s->owner->contexts[thread], s->owner->hashers[thread], s->packed,
			     packed_bytes(s), s->plain, &want, &why) < 0)
		(void)err_set(&s->why, -EIO, "%s: frame %u (bytes %llu to %llu of the file, %llu "
			      "to "
			      "%llu of the content) is broken: %s", s->owner->name, s->frame,
			      (unsigned long long)t->packed[s->frame],
			      (unsigned long long)t->packed[s->frame + 1] - 1,
			      (unsigned long long)t->plain[s->frame],
			      (unsigned long long)t->plain[s->frame + 1] - 1, why.text);
}

static void read_piece(struct zst_slot *s)
{
	struct zst_src *z = s->owner;

	s->inner.offset = z->table.packed[s->frame] + s->got;
	s->inner.buf = s->packed + s->got;
	s->inner.len = (uint32_t)min_u64(packed_bytes(s) - s->got, ZST_PIECE_MAX);
	z->inner->ops->read(z->inner, &s->inner);
}

static void start_decoding(struct zst_slot *s)
{
	const struct zst_read *first = read_of(s->waiting.first);

	s->state = ZST_DECODING;
	s->owner->work.ops->queue(s->owner->work.ctx, &s->job,
				  first ? src_turn(first->rd) : TURN_FILL);
}

/* For the frame, from the start. The slot is empty. */
static void start_reading(struct zst_slot *s, uint32_t frame, const struct src_read *rd)
{
	s->state = ZST_READING;
	s->frame = frame;
	s->got = 0;
	s->cancelled = false;
	src_read_like(&s->inner, rd);
	/* A frame of content has bytes in the file. If not, the decoder says so. */
	if (packed_bytes(s) > 0)
		read_piece(s);
	else
		start_decoding(s);
}

/* Somebody waits for it whose turn may come before that of those who did. */
static void raise_slot(struct zst_slot *s, enum turn turn)
{
	struct zst_src *z = s->owner;

	if (s->state == ZST_DECODING)
		work_raise(&z->work, &s->job, turn);
	else if (s->state == ZST_READING && !s->cancelled)
		src_raise(z->inner, &s->inner, turn);
}

/* The one that was used longest ago, of those that nobody needs; NULL: all are needed. */
static struct zst_slot *slot_to_fill(struct zst_src *z)
{
	struct zst_slot *oldest = NULL;

	for (struct zst_slot *s = z->slots; s < z->slots + z->slot_count; s++) {
		if (s->state == ZST_EMPTY)
			return s;
		if (s->state == ZST_READY && s->users == 0 &&
		    (!oldest || s->used_at < oldest->used_at))
			oldest = s;
	}
	return oldest;
}

static struct zst_slot *slot_of(struct zst_src *z, uint32_t frame)
{
	for (struct zst_slot *s = z->slots; s < z->slots + z->slot_count; s++)
		if (s->state != ZST_EMPTY && s->frame == frame)
			return s;
	return NULL;
}

/* ---- a request ---- */

static uint64_t next_byte(const struct zst_read *zr)
{
	return zr->rd->offset + zr->got;
}

static const unsigned char *source_of(const struct zst_read *zr)
{
	return zr->slot->plain + (next_byte(zr) - zr->owner->table.plain[zr->slot->frame]);
}

static void zst_copy(struct work_job *job, unsigned thread)
{
	struct zst_read *zr = CONTAINER_OF(job, struct zst_read, job);

	(void)thread;
	memcpy((char *)zr->rd->buf + zr->got, source_of(zr), zr->piece);
}

/* Its slot is ready. True: the piece is there; false: a worker is at it. */
static bool take_piece(struct zst_read *zr)
{
	const struct zst_slot *s = zr->slot;
	const struct zst_src *z = zr->owner;
	uint64_t to = z->table.plain[s->frame + 1];

	zr->piece = (uint32_t)min_u64(zr->rd->len - zr->got, to - next_byte(zr));
	zr->slot->used_at = ++zr->owner->clock_hand;
	if (zr->piece > ZST_COPY_BYTES) {
		zr->slot->users++;
		z->work.ops->queue(z->work.ctx, &zr->job, src_turn(zr->rd));
		return false;
	}
	memcpy((char *)zr->rd->buf + zr->got, source_of(zr), zr->piece);
	zr->got += zr->piece;
	return true;
}

/* Goes on until something has to be waited for, or all is there. */
static void advance(struct zst_read *zr)
{
	struct zst_src *z = zr->owner;

	while (zr->got < zr->rd->len) {
		uint32_t frame = zst_table_find(&z->table, next_byte(zr));
		struct zst_slot *s = slot_of(z, frame);
		bool fresh = !s;

		if (fresh)
			s = slot_to_fill(z);
		zr->slot = s;
		if (!s) {
			await(&z->starved, zr);
			return;
		}
		if (fresh || s->state != ZST_READY) {
			if (fresh)
				s->state = ZST_EMPTY;
			await(&s->waiting, zr);
			if (fresh)
				start_reading(s, frame, zr->rd);
			else
				raise_slot(s, src_turn(zr->rd));
			return;
		}
		if (!take_piece(zr))
			return;
	}
	zst_end(zr, NULL);
}

/* A slot may be filled anew: whoever found none looks again. Each once; some may find none. */
static void feed_starved(struct zst_src *z)
{
	struct list all = take_all(&z->starved);
	struct zst_read *zr;

	while ((zr = take(&all))) {
		if (zr->cancelled)
			end_cancelled(zr);
		else
			advance(zr);
	}
}

static void copy_done(struct work_job *job)
{
	struct zst_read *zr = CONTAINER_OF(job, struct zst_read, job);
	struct zst_src *z = zr->owner;

	zr->slot->users--;
	zr->got += zr->piece;
	if (zr->cancelled && zr->got < zr->rd->len)
		end_cancelled(zr);
	else
		advance(zr);
	feed_starved(z);
}

/* Everybody who waits for the slot goes on, or hears why not. */
static void slot_over(struct zst_slot *s, const struct err *why)
{
	struct zst_src *z = s->owner;
	struct list all = take_all(&s->waiting);
	struct zst_read *zr;
	/* A copy: the slot may be filled anew below. */
	struct err text = why ? *why : (struct err){0};

	s->state = why ? ZST_EMPTY : ZST_READY;
	while ((zr = take(&all))) {
		if (zr->cancelled)
			end_cancelled(zr);
		else if (!why || why->code == -ECANCELED)
			/* A read that came after the cancel still wants the frame. */
			advance(zr);
		else
			zst_end(zr, &text);
	}
	feed_starved(z);
}

static void decode_done(struct work_job *job)
{
	struct zst_slot *s = CONTAINER_OF(job, struct zst_slot, job);

	slot_over(s, s->why.code < 0 ? &s->why : NULL);
}

static void inner_done(struct src_read *inner, const struct err *why)
{
	struct zst_slot *s = CONTAINER_OF(inner, struct zst_slot, inner);

	if (why) {
		slot_over(s, why);
		return;
	}
	s->got += inner->len;
	if (s->cancelled)
		slot_over(s, &(struct err){.code = -ECANCELED});
	else if (s->got < packed_bytes(s))
		read_piece(s);
	else
		start_decoding(s);
}

/* ---- the source ---- */

static void zst_read(struct src *s, struct src_read *rd)
{
	struct zst_src *z = CONTAINER_OF(s, struct zst_src, src);
	struct zst_read *zr = z->free;

	ASSERT(zr); /* env->reads_max */
	ASSERT(rd->len > 0 && rd->offset <= s->size && rd->len <= s->size - rd->offset);
	z->free = zr->next;
	zr->rd = rd;
	zr->got = 0;
	zr->cancelled = false;
	rd->held_by = zr;
	advance(zr);
}

static void zst_cancel(struct src *s, struct src_read *rd)
{
	struct zst_src *z = CONTAINER_OF(s, struct zst_src, src);
	struct zst_read *zr = rd->held_by;
	struct zst_slot *slot = zr->slot;

	ASSERT(zr->rd == rd);
	/* A worker copies for it, it is about to look, or waits as the last: it ends with that. */
	if (!zr->in || (slot && slot->waiting.first == slot->waiting.last)) {
		zr->cancelled = true;
		if (slot && slot->state == ZST_READING && !slot->cancelled) {
			slot->cancelled = true;
			z->inner->ops->cancel(z->inner, &slot->inner);
		}
		return;
	}
	unawait(zr);
	end_cancelled(zr);
}

static void zst_raise(struct src *s, struct src_read *rd)
{
	struct zst_src *z = CONTAINER_OF(s, struct zst_src, src);
	struct zst_read *zr = rd->held_by;
	struct list *in = zr->in;

	ASSERT(zr->rd == rd);
	/* A worker copies for it; or it looks again by itself. */
	if (!in && zr->slot)
		work_raise(&z->work, &zr->job, src_turn(rd));
	if (!in)
		return;
	unawait(zr);
	await(in, zr);
	if (zr->slot)
		raise_slot(zr->slot, src_turn(rd));
}

static void free_parts(struct zst_src *z)
{
	for (unsigned i = 0; i < WORK_THREADS_MAX; i++) {
		ZSTD_freeDCtx(z->contexts[i]);
		zst_hasher_close(z->hashers[i]);
	}
	free(z->room);
	free(z->slots);
	free(z->pool);
	free(z->table.packed);
	free(z->table.plain);
	free(z->table.sums);
	zst_manifest_fini(&z->manifest);
	free(z->name);
	free(z);
}

/* The first frame that begins at offset or behind it. */
static uint32_t frame_from(const struct zst_table *t, uint64_t offset)
{
	return offset == 0 ? 0 : zst_table_find(t, offset - 1) + 1;
}

static int64_t zst_cached(struct src *s, uint64_t offset, uint64_t len)
{
	struct zst_src *z = CONTAINER_OF(s, struct zst_src, src);
	uint64_t from = z->table.packed[frame_from(&z->table, offset)];

	return src_cached(z->inner, from,
			  z->table.packed[frame_from(&z->table, offset + len)] - from);
}

static void zst_close(struct src *s)
{
	struct zst_src *z = CONTAINER_OF(s, struct zst_src, src);

	ASSERT(!z->starved.first);
	src_close(z->inner);
	free_parts(z);
}

static const struct src_ops zst_ops = {
	.name = "zst",
	.read = zst_read,
	.cancel = zst_cancel,
	.raise = zst_raise,
	.cached = zst_cached,
	.close = zst_close,
};

/* ---- opening ---- */

static int out_of_memory(const struct zst_src *z, struct err *e)
{
	return err_set(e, -ENOMEM, "open %s: out of memory for its seek table and frames", z->name);
}

static int read_table(struct zst_src *z, const struct zst_footer *f, struct err *e)
{
	uint64_t size = z->inner->size;
	unsigned char *at = malloc(f->table_bytes);
	int rc;

	z->table.packed = calloc((size_t)f->frames + 1, sizeof(*z->table.packed));
	z->table.plain = calloc((size_t)f->frames + 1, sizeof(*z->table.plain));
	if (f->checksums)
		z->table.sums = calloc((size_t)f->frames + 1, sizeof(*z->table.sums));
	if (!at || !z->table.packed || !z->table.plain || (f->checksums && !z->table.sums)) {
		free(at);
		return out_of_memory(z, e);
	}
	rc = src_load(z->inner, size - f->table_bytes, at, f->table_bytes, e);
	if (rc == 0)
		rc = zst_table_parse(at, f, size, &z->table, e);
	free(at);
	return rc;
}

static int load_table(struct zst_src *z, struct err *e)
{
	unsigned char footer[ZST_FOOTER_BYTES];
	uint64_t size = z->inner->size;
	struct zst_footer f;
	struct err why;
	int rc;

	if (size < sizeof(footer))
		return err_set(e, -EINVAL, "open %s: too short for a seek table", z->name);
	rc = src_load(z->inner, size - sizeof(footer), footer, sizeof(footer), e);
	if (rc < 0)
		return rc;
	rc = zst_footer_parse(footer, size, &f, &why);
	if (rc == 0)
		rc = read_table(z, &f, &why);
	/* Which has its own words for a failure of the inner source's. */
	return rc < 0 ? err_set(e, rc, "open %s: %s", z->name, why.text) : 0;
}

/* Room for the largest frame, in each slot; pages that no frame needs are never touched. */
static int get_slots(struct zst_src *z, uint64_t cache_bytes, uint32_t reads_max, struct err *e)
{
	const struct zst_table *t = &z->table;
	uint64_t packed = 1, plain = 1;

	for (uint32_t i = 0; i < t->frames; i++) {
		packed = max_u64(packed, t->packed[i + 1] - t->packed[i]);
		plain = max_u64(plain, t->plain[i + 1] - t->plain[i]);
	}
	/* More than any content needs is no frame. */
	if (packed > ZSTD_compressBound(ZST_FRAME_BYTES_MAX))
		return err_set(e, -EFBIG, "open %s: a frame of %s is no frame", z->name,
			       SIZE_WORD(packed));
	z->slot_count = (uint32_t)max_u64(ZST_SLOTS_MIN,
					  min_u64(cache_bytes / (packed + plain), ZST_SLOTS_MAX));
	z->slot_count = (uint32_t)min_u64(z->slot_count, reads_max);
	z->slots = calloc(z->slot_count, sizeof(*z->slots));
	z->room = malloc(z->slot_count * (packed + plain));
	if (!z->slots || !z->room)
		return out_of_memory(z, e);
	for (uint32_t i = 0; i < z->slot_count; i++) {
		struct zst_slot *s = &z->slots[i];

		s->owner = z;
		s->plain = z->room + i * (packed + plain);
		s->packed = s->plain + plain;
		s->inner.done = inner_done;
		s->job = (struct work_job){.run = zst_decode, .done = decode_done};
	}
	return 0;
}

static int get_workers(struct zst_src *z, struct err *e)
{
	int count;

	if (!z->work.ops)
		return err_set(e, -ENOTSUP, "open %s: there is nobody to decompress it", z->name);
	count = z->work.ops->threads(z->work.ctx, e);
	if (count < 0)
		return count;
	for (int i = 0; i < count; i++) {
		z->contexts[i] = ZSTD_createDCtx();
		if (z->manifest.hashes)
			z->hashers[i] = zst_hasher_open();
		if (!z->contexts[i] || (z->manifest.hashes && !z->hashers[i]))
			return out_of_memory(z, e);
	}
	return 0;
}

static int get_pool(struct zst_src *z, uint32_t reads_max, struct err *e)
{
	z->pool = calloc(reads_max, sizeof(*z->pool));
	if (!z->pool)
		return out_of_memory(z, e);
	for (uint32_t i = reads_max; i-- > 0;) {
		z->pool[i].owner = z;
		z->pool[i].job = (struct work_job){.run = zst_copy, .done = copy_done};
		z->pool[i].next = z->free;
		z->free = &z->pool[i];
	}
	return 0;
}

/* As much of it as its size now says. */
static int parse_manifest(struct zst_src *z, struct src *file, struct err *e)
{
	uint64_t max = ZST_MANIFEST_BYTES_MAX(z->table.frames);
	char *text = NULL;
	int rc;

	if (file->size > max)
		return err_set(e, -EINVAL, "it has more than %s, which no manifest of %u frames "
			       "has; "
			       "give the manifest that was made with the image", SIZE_TEXT(max),
			       z->table.frames);
	text = malloc(file->size);
	rc = text ? src_load(file, 0, text, file->size, e)
		  : err_set(e, -ENOMEM, "out of memory for it");
	if (rc == 0)
		rc = zst_manifest_parse(text, file->size, &z->manifest, e);
	free(text);
	return rc == 0 ? zst_manifest_match(&z->manifest, &z->table, e) : rc;
}

static int load_manifest(struct zst_src *z, const char *path, const struct src_env *env,
			 struct err *e)
{
	struct src *file;
	struct err why;
	int rc = src_file_open(path, env, &file, e);

	if (rc < 0)
		return rc;
	rc = parse_manifest(z, file, &why);
	src_close(file);
	return rc < 0 ? err_set(e, rc, "open %s: %s", path, why.text) : 0;
}

int src_zst_open(struct src *inner, const char *name, const struct src_zst_opts *opts,
		 const struct src_env *env, struct src **ret, struct err *e)
{
	struct zst_src *z = calloc(1, sizeof(*z));
	int rc;

	if (z)
		z->name = strdup(name);
	if (!z || !z->name) {
		free(z);
		return err_set(e, -ENOMEM, "open %s: out of memory", name);
	}
	z->inner = inner;
	z->work = env->work;
	rc = load_table(z, e);
	if (rc == 0 && opts->manifest)
		rc = load_manifest(z, opts->manifest, env, e);
	if (rc == 0)
		rc = get_slots(z, opts->cache_bytes, env->reads_max, e);
	if (rc == 0)
		rc = get_workers(z, e);
	if (rc == 0)
		rc = get_pool(z, env->reads_max, e);
	if (rc < 0) {
		free_parts(z);
		return rc;
	}
	z->src = (struct src){.ops = &zst_ops, .size = z->table.plain[z->table.frames],
			     .version = inner->version};
	*ret = &z->src;
	return 0;
}

/* ---- by URI ---- */

static int zst_parse(const struct uri *u, struct src_zst_opts *ret, struct err *e)
{
	int rc;

	*ret = (struct src_zst_opts){ZST_CACHE_BYTES, uri_value(u, "manifest")};
	rc = uri_size(u, "zst-cache", &ret->cache_bytes, e);
	return rc < 0 ? rc : 0;
}

static int zst_scheme_check(const struct uri *u, struct err *e)
{
	struct src_zst_opts opts;

	if (!*u->path)
		return err_set(e, -EINVAL, "source URI: zst: needs a path, as in zst:image.zst");
	return zst_parse(u, &opts, e);
}

static int zst_scheme_open(const struct uri *u, struct src *inner, const struct src_env *env,
			   struct src **ret, struct err *e)
{
	struct src *file = inner;
	struct src_zst_opts opts;
	char name[ERR_TEXT_MAX];
	int rc = zst_parse(u, &opts, e);

	if (rc == 0 && !inner)
		rc = src_file_open(u->path, env, &file, e);
	if (rc < 0)
		return rc;
	src_shown(u, name, sizeof(name));
	rc = src_zst_open(file, name, &opts, env, ret, e);
	if (rc < 0 && !inner)
		src_close(file);
	return rc;
}

static const char *const zst_file_keys[] = {"manifest", NULL};
static const char *const zst_keys[] = {"zst-cache", "manifest", NULL};

const struct src_scheme src_zst_scheme = {
	.name = "zst",
	.wraps = true,
	.alone = true,
	.path_is_file = true,
	.file_keys = zst_file_keys,
	.keys = zst_keys,
	.check = zst_scheme_check,
	.open = zst_scheme_open,
};
