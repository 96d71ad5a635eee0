/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See cache.h: whole chunks, from the origin or the cache, for all who wait for them; and what is
 * written of them. The slot is written first, then its entry, and nothing is synced: after a crash
 * what does not fit together is found by whoever reads it.
 */
#include <errno.h>
#include <string.h>

#include "source/cache.h"

/* As much is copied under the lock. */
#define LOCKED_BYTES PAGE_BYTES
/* How a load ends when what the cache has is not what its entry says. */
#define CODE_BAD (-EBADMSG)

struct cache_fill *cache_fill_of(struct cache_src *c, uint64_t chunk)
{
	if (c->fills_busy == 0)
		return NULL;
	for (struct cache_fill *f = c->fills; f < c->fills + c->fill_count; f++)
		if (f->state != FILL_FREE && f->state != FILL_ENDS && f->entry.chunk == chunk)
			return f;
	return NULL;
}

static void feed_waiting(struct cache_src *c)
{
	struct cache_piece *p;

	while (c->fills_busy < c->fill_count && (p = cache_next(&c->wait_fill)))
		cache_fill_for(p);
}

static void set_free(struct cache_fill *f)
{
	f->state = FILL_FREE;
	f->owner->fills_busy--;
}

static void free_if_idle(struct cache_fill *f)
{
	if (f->state != FILL_READY || f->users > 0)
		return;
	set_free(f);
	feed_waiting(f->owner);
}

/* ---- handing out ---- */

static void run_copy(struct work_job *job, unsigned thread)
{
	struct cache_piece *p = CONTAINER_OF(job, struct cache_piece, job);

	(void)thread;
	memcpy(p->buf, p->fill->buf + p->at, p->len);
}

static void copy_done(struct work_job *job)
{
	struct cache_piece *p = CONTAINER_OF(job, struct cache_piece, job);
	struct cache_fill *f = p->fill;

	f->users--;
	cache_piece_end(p, NULL);
	free_if_idle(f);
}

static void give(struct cache_fill *f, struct cache_piece *p)
{
	struct cache_src *c = f->owner;

	if (p->len <= LOCKED_BYTES) {
		memcpy(p->buf, f->buf + p->at, p->len);
		cache_piece_end(p, NULL);
		return;
	}
	p->state = PIECE_COPIES;
	p->fill = f;
	f->users++;
	p->job = (struct work_job){.run = run_copy, .done = copy_done};
	c->work.ops->queue(c->work.ctx, &p->job, cache_turn(p));
}

static void await(struct cache_fill *f, struct cache_piece *p)
{
	p->state = PIECE_JOINED;
	p->fill = f;
	list_append(&f->joined, &p->link);
}

void cache_join(struct cache_fill *f, struct cache_piece *p)
{
	if (f->state == FILL_READY || f->state == FILL_WRITES) {
		give(f, p);
		return;
	}
	await(f, p);
	cache_raise_joined(p);
}

void cache_raise_joined(struct cache_piece *p)
{
	struct cache_fill *f = p->fill;
	struct cache_src *c = f->owner;

	if (f->state == FILL_CHECKS)
		work_raise(&c->work, &f->job, cache_turn(p));
	else if (f->state == FILL_LOADS && !f->cancelled)
		io_raise(&c->io, &f->io, cache_turn(p));
	else if (f->state == FILL_READS && !f->cancelled)
		src_raise(c->wrap.inner, &f->inner, cache_turn(p));
}

static struct cache_piece *take_joined(struct cache_fill *f)
{
	return LIST_ENTRY(list_take(&f->joined), struct cache_piece, link);
}

/* There is nothing to hand out; why: what to say, NULL: they try anew, elsewhere. */
static void give_up(struct cache_fill *f, const struct err *why)
{
	struct cache_src *c = f->owner;
	struct err text = why ? *why : (struct err){0};
	struct cache_piece *p;

	f->state = FILL_ENDS;
	while ((p = take_joined(f))) {
		if (p->of->cancelled) {
			cache_piece_cancelled(p);
		} else if (f->cancelled) {
			/* A read that came after the cancel still wants the chunk. */
			cache_piece_anew(p);
		} else if (!f->origin) {
			cache_piece_bad(p);
		} else {
			cache_piece_end(p, &text);
		}
	}
	set_free(f);
	feed_waiting(c);
}

/* ---- writing ---- */

static void write_over(struct cache_fill *f, int res, uint32_t want)
{
	struct cache_src *c = f->owner;

	if (res == (int)want) {
		struct cache_known now = {.valid = true, .proven = true, .way = f->way,
					  .entry = f->entry};

		cache_remember(c, &now);
		c->counts->cache_filled_bytes += f->entry.len;
		c->counts->cache_evictions += f->evicts;
	} else if (res != -ECANCELED) {
		c->counts->cache_write_errors++;
		c->paused_until_ns = clock_now_ns(&c->wrap.clock) + CACHE_PAUSE_NS;
	}
	f->state = FILL_READY;
	c->fills_writing--;
	free_if_idle(f);
	cache_wrote(c);
}

static void entry_written(struct io_req *io, int res)
{
	write_over(CONTAINER_OF(io, struct cache_fill, io), res, CACHE_ENTRY_BYTES);
}

static void slot_written(struct io_req *io, int res)
{
	struct cache_fill *f = CONTAINER_OF(io, struct cache_fill, io);
	struct cache_src *c = f->owner;
	uint64_t bucket = cache_bucket(&c->layout, c->image, f->entry.chunk);

	if (res != (int)f->entry.len) {
		write_over(f, res < 0 ? res : -ENOSPC, CACHE_ENTRY_BYTES);
		return;
	}
	f->io.done = entry_written;
	c->io.ops->write(c->io.ctx, c->file, &f->io, cache_entry_at(&c->layout, bucket, f->way),
			 f->packed, sizeof(f->packed));
}

/* Unless there is no use, or so much is being written that misses would wait for it. */
static void write_if_wanted(struct cache_fill *f)
{
	struct cache_src *c = f->owner;
	uint64_t bucket = cache_bucket(&c->layout, c->image, f->entry.chunk);

	memcpy(f->entry.image, c->image, sizeof(f->entry.image));
	f->entry.used_ms = cache_now_ms(c);
	if (!f->origin || c->read_only || c->fills_writing >= c->fill_count / 2 ||
	    clock_now_ns(&c->wrap.clock) < c->paused_until_ns ||
	    cache_entry_write(c->hasher, &f->entry, f->packed) < 0)
		return;
	f->state = FILL_WRITES;
	c->fills_writing++;
	c->writes++;
	f->io.done = slot_written;
	f->io.turn = TURN_FILL;
	c->io.ops->write(c->io.ctx, c->file, &f->io, cache_slot_at(&c->layout, bucket, f->way),
			 f->buf, f->entry.len);
}

/* ---- checking ---- */

static int mismatch(struct cache_fill *f, uint64_t offset, const unsigned char *is,
		    const unsigned char *want, const char *who)
{
	char have[ZST_HASH_CHARS + 1], known[ZST_HASH_CHARS + 1];
	const char *name = f->owner->name;
	size_t len = strlen(name);

	zst_hash_text(is, have);
	zst_hash_text(want, known);
	/*
	 * The end of a name tells more than its beginning, and so much of it leaves room for both
	 * hashes and for where in the guest it is.
	 */
	return err_set(&f->why, CODE_BAD, "%s%s: byte %llu: SHA-256 is %s, the %s's %s",
		       len > 28 ? "..." : "", len > 28 ? name + len - 25 : name,
		       (unsigned long long)offset, have, who, known);
}

/* Against the manifest, whose pieces a chunk has one or several of. */
static int check_manifest(struct cache_fill *f, struct zst_hasher *h)
{
	const struct zst_manifest *m = &f->owner->manifest;
	uint64_t from = f->entry.chunk * CACHE_CHUNK_BYTES;
	unsigned char hash[ZST_HASH_BYTES];

	for (uint32_t at = 0; at < f->entry.len; at += (uint32_t)m->frame_bytes) {
		const unsigned char *want =
			m->hashes + (from + at) / m->frame_bytes * ZST_HASH_BYTES;

		if (zst_hash(h, f->buf + at, min_u64(m->frame_bytes, f->entry.len - at), hash,
			     &f->why) < 0)
			return f->why.code;
		if (memcmp(hash, want, sizeof(hash)) != 0)
			return mismatch(f, from + at, hash, want, "manifest");
	}
	return 0;
}

static void run_check(struct work_job *job, unsigned thread)
{
	struct cache_fill *f = CONTAINER_OF(job, struct cache_fill, job);
	struct zst_hasher *h = f->owner->hashers[thread];
	uint64_t from = f->entry.chunk * CACHE_CHUNK_BYTES;

	f->why.code = 0;
	if (f->owner->manifest.hashes && (f->origin || !f->known.proven) &&
	    check_manifest(f, h) < 0)
		return;
	memset(f->entry.hash, 0, sizeof(f->entry.hash));
	for (uint32_t i = 0; i < cache_grains(f->entry.len); i++) {
		uint32_t at = i * (uint32_t)PAGE_BYTES;

		if (zst_hash(h, f->buf + at, min_u64(PAGE_BYTES, f->entry.len - at),
			     f->entry.hash[i], &f->why) < 0)
			return;
		if (f->compare &&
		    memcmp(f->entry.hash[i], f->known.entry.hash[i], ZST_HASH_BYTES) != 0) {
			(void)mismatch(f, from + at, f->entry.hash[i], f->known.entry.hash[i],
				       "cache");
			return;
		}
	}
}

static void load_is_right(struct cache_fill *f)
{
	struct cache_src *c = f->owner;

	c->counts->cache_hits++;
	f->known.proven = true;
	cache_remember(c, &f->known);
	cache_touch(c, f->entry.chunk);
}

static void check_done(struct work_job *job)
{
	struct cache_fill *f = CONTAINER_OF(job, struct cache_fill, job);
	struct cache_piece *p;

	if (f->why.code < 0) {
		give_up(f, &f->why);
		return;
	}
	if (!f->origin)
		load_is_right(f);
	f->state = FILL_READY;
	/* Ends below must not free it. */
	f->users++;
	write_if_wanted(f);
	while ((p = take_joined(f)))
		give(f, p);
	f->users--;
	free_if_idle(f);
}

static void start_check(struct cache_fill *f)
{
	struct cache_src *c = f->owner;
	enum turn turn = TURN_FILL;

	for (struct list_link *l = f->joined.first; l; l = l->next) {
		enum turn t = cache_turn(CONTAINER_OF(l, struct cache_piece, link));

		turn = t < turn ? t : turn;
	}
	f->state = FILL_CHECKS;
	f->job = (struct work_job){.run = run_check, .done = check_done};
	c->work.ops->queue(c->work.ctx, &f->job, turn);
}

/* ---- reading ---- */

static void inner_done(struct src_read *inner, const struct err *why)
{
	struct cache_fill *f = CONTAINER_OF(inner, struct cache_fill, inner);

	if (why || f->cancelled)
		give_up(f, why);
	else
		start_check(f);
}

static void loaded(struct io_req *io, int res)
{
	struct cache_fill *f = CONTAINER_OF(io, struct cache_fill, io);

	if (f->cancelled || res != (int)f->entry.len)
		give_up(f, NULL);
	else
		start_check(f);
}

static void start(struct cache_fill *f, struct cache_piece *p)
{
	struct cache_src *c = f->owner;
	uint64_t bucket = cache_bucket(&c->layout, c->image, p->chunk);

	c->fills_busy++;
	f->origin = p->suspect || !p->known.valid;
	f->known = p->known;
	f->compare = p->known.valid && (!f->origin || !c->manifest.hashes);
	f->way = p->victim;
	f->evicts = p->evicts;
	f->cancelled = false;
	f->entry.chunk = p->chunk;
	f->entry.len = cache_chunk_len(c, p->chunk);
	f->state = f->origin ? FILL_READS : FILL_LOADS;
	await(f, p);
	if (!f->origin) {
		f->io.done = loaded;
		f->io.late = false;
		f->io.turn = (uint8_t)cache_turn(p);
		c->io.ops->read(c->io.ctx, c->data, &f->io,
				cache_slot_at(&c->layout, bucket, p->known.way), f->buf,
				f->entry.len);
		return;
	}
	c->counts->cache_misses++;
	src_read_like(&f->inner, p->of->wr.rd);
	f->inner.offset = p->chunk * CACHE_CHUNK_BYTES;
	f->inner.buf = f->buf;
	f->inner.len = f->entry.len;
	c->wrap.inner->ops->read(c->wrap.inner, &f->inner);
}

void cache_fill_for(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);
	struct cache_fill *f = cache_fill_of(c, p->chunk);

	if (f) {
		cache_join(f, p);
		return;
	}
	for (f = c->fills; f < c->fills + c->fill_count; f++) {
		if (f->state == FILL_FREE) {
			start(f, p);
			return;
		}
	}
	p->state = PIECE_WAITS_FILL;
	cache_wait(&c->wait_fill, p);
}

void cache_leave(struct cache_piece *p)
{
	struct cache_fill *f = p->fill;
	struct cache_src *c = f->owner;
	bool last = f->joined.first == f->joined.last;

	/* The last that waits ends with what it waits for. */
	if (last && f->state == FILL_LOADS && !f->cancelled) {
		f->cancelled = true;
		c->io.ops->cancel(c->io.ctx, &f->io);
	} else if (last && f->state == FILL_READS && !f->cancelled) {
		f->cancelled = true;
		c->wrap.inner->ops->cancel(c->wrap.inner, &f->inner);
	} else if (!last) {
		list_remove(&f->joined, &p->link);
		cache_piece_cancelled(p);
	}
}

void cache_fill_init(struct cache_src *c, struct cache_fill *f, unsigned char *buf)
{
	f->owner = c;
	f->buf = buf;
	f->inner.done = inner_done;
}
