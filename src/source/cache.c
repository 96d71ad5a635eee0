/* SPDX-License-Identifier: Apache-2.0 */
/* See cache.h: reads, their pieces, and what is read from the cache's file. */
#include "source/cache.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* As much is hashed, and copied, under the lock. */
#define LOCKED_BYTES PAGE_BYTES
/* After this many looks the origin is asked: other VMs keep overwriting the chunk. */
#define TRIES_MAX 3u

static void read_on(struct cache_read *cr);

/* ---- records ---- */

static struct cache_known *record_of(struct cache_src *c, uint64_t chunk)
{
	return &c->records[chunk % c->record_count];
}

void cache_remember(struct cache_src *c, const struct cache_known *k)
{
	*record_of(c, k->entry.chunk) = *k;
}

void cache_forget(struct cache_src *c, uint64_t chunk)
{
	struct cache_known *k = record_of(c, chunk);

	if (k->valid && k->entry.chunk == chunk)
		k->valid = false;
}

/* ---- queues ---- */

void cache_wait(struct turn_queue *q, struct cache_piece *p)
{
	p->turn = cache_turn(p);
	turn_queue_add(q, &p->link, p->turn);
}

struct cache_piece *cache_next(struct turn_queue *q)
{
	return LIST_ENTRY(turn_queue_take(q), struct cache_piece, link);
}

/* The one that a piece waits in, by its state. */
static struct turn_queue *queue_of(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);

	return p->state == PIECE_WAITS_LOOKUP ? &c->wait_lookup : &c->wait_fill;
}

/* ---- ends ---- */

static void read_end(struct cache_read *cr)
{
	const struct src_read *rd = cr->wr.rd;
	struct err why = cr->why;
	bool bad = cr->failed || (cr->cancelled && cr->begun < rd->offset + rd->len);

	if (bad && !cr->failed)
		(void)err_sys(&why, -ECANCELED, "read of %s at byte %llu", cache_of(cr)->name,
			      (unsigned long long)rd->offset);
	wrap_end(&cr->wr, bad ? &why : NULL);
}

void cache_piece_end(struct cache_piece *p, const struct err *why)
{
	struct cache_read *cr = p->of;
	struct cache_src *c = cache_of(cr);

	if (why && !cr->failed) {
		cr->failed = true;
		cr->why = *why;
	}
	p->state = PIECE_FREE;
	list_remove(&cr->pieces, &p->beside);
	cr->count--;
	if (p != &cr->first)
		list_append(&c->free_pieces, &p->link);
	read_on(cr);
}

void cache_piece_cancelled(struct cache_piece *p)
{
	struct err why;

	(void)err_sys(&why, -ECANCELED, "read of %s at byte %llu", cache_of(p->of)->name,
		      (unsigned long long)p->of->wr.rd->offset);
	cache_piece_end(p, &why);
}

/* ---- from the cache's file ---- */

void cache_touch(struct cache_src *c, uint64_t chunk)
{
	struct cache_known *k = record_of(c, chunk);
	uint64_t now_ms = cache_now_ms(c);
	struct cache_touch *t = c->free_touches;

	if (c->read_only || !t || !k->valid || k->entry.chunk != chunk ||
	    now_ms - k->entry.used_ms < CACHE_USED_STEP_MS ||
	    clock_now_ns(&c->wrap.clock) < c->paused_until_ns)
		return;
	c->free_touches = t->next;
	k->entry.used_ms = now_ms;
	for (unsigned i = 0; i < sizeof(t->used); i++)
		t->used[i] = (unsigned char)(now_ms >> (8 * i));
	c->writes++;
	t->io.turn = TURN_FILL;
	c->io.ops->write(c->io.ctx, c->file, &t->io,
			 cache_entry_at(&c->layout, cache_bucket(&c->layout, c->image, chunk),
					k->way) + CACHE_ENTRY_USED_AT, t->used, sizeof(t->used));
}

static void touched(struct io_req *io, int res)
{
	struct cache_touch *t = CONTAINER_OF(io, struct cache_touch, io);
	struct cache_src *c = t->owner;

	if (res < 0 && res != -ECANCELED)
		c->paused_until_ns = clock_now_ns(&c->wrap.clock) + CACHE_PAUSE_NS;
	t->next = c->free_touches;
	c->free_touches = t;
	cache_wrote(c);
}

static bool hashes_match(struct zst_hasher *h, const struct cache_piece *p)
{
	unsigned char hash[ZST_HASH_BYTES];

	for (uint32_t at = 0; at < p->len; at += (uint32_t)PAGE_BYTES) {
		size_t len = min_u64(PAGE_BYTES, p->len - at);

		if (zst_hash(h, p->buf + at, len, hash, NULL) < 0 ||
		    memcmp(hash, p->known.entry.hash[(p->at + at) / PAGE_BYTES], sizeof(hash)) != 0)
			return false;
	}
	return true;
}

static void checked(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);

	if (!p->good) {
		cache_piece_bad(p);
		return;
	}
	c->counts->cache_hits++;
	cache_touch(c, p->chunk);
	cache_piece_end(p, NULL);
}

static void run_check(struct work_job *job, unsigned thread)
{
	struct cache_piece *p = CONTAINER_OF(job, struct cache_piece, job);

	p->good = hashes_match(cache_of(p->of)->hashers[thread], p);
}

static void check_done(struct work_job *job)
{
	checked(CONTAINER_OF(job, struct cache_piece, job));
}

static void data_done(struct io_req *io, int res)
{
	struct cache_piece *p = CONTAINER_OF(io, struct cache_piece, io);
	struct cache_src *c = cache_of(p->of);

	if (p->of->cancelled) {
		cache_piece_cancelled(p);
	} else if (res < 0 || (uint32_t)res < p->len) {
		cache_piece_bad(p);
	} else if (p->len <= LOCKED_BYTES) {
		p->good = hashes_match(c->hasher, p);
		checked(p);
	} else {
		p->state = PIECE_CHECKS;
		p->job = (struct work_job){.run = run_check, .done = check_done};
		c->work.ops->queue(c->work.ctx, &p->job, cache_turn(p));
	}
}

/* It has whole pages, or the rest of the chunk, so that its bytes have hashes of their own. */
static bool whole_pages(const struct cache_src *c, const struct cache_piece *p)
{
	uint32_t end = p->at + p->len;

	return p->at % PAGE_BYTES == 0 &&
	       (end % PAGE_BYTES == 0 || end == cache_chunk_len(c, p->chunk));
}

static void use_known(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);
	uint64_t bucket = cache_bucket(&c->layout, c->image, p->chunk);

	/* An entry says what its writer wants: with a manifest it counts once that has agreed. */
	if (!whole_pages(c, p) || (c->manifest.hashes && !p->known.proven)) {
		cache_fill_for(p);
		return;
	}
	p->state = PIECE_READS;
	p->io.done = data_done;
	p->io.late = false;
	p->io.turn = (uint8_t)cache_turn(p);
	c->io.ops->read(c->io.ctx, c->data, &p->io,
			cache_slot_at(&c->layout, bucket, p->known.way) + p->at, p->buf, p->len);
}

/* ---- a look at the bucket ---- */

static void look(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);
	struct cache_lookup *l = c->free_lookups;

	if (!l) {
		p->state = PIECE_WAITS_LOOKUP;
		cache_wait(&c->wait_lookup, p);
		return;
	}
	c->free_lookups = l->next;
	l->of = p;
	p->lookup = l;
	p->state = PIECE_LOOKS;
	l->io.late = false;
	l->io.turn = (uint8_t)cache_turn(p);
	c->io.ops->read(c->io.ctx, c->file, &l->io,
			cache_entry_at(&c->layout, cache_bucket(&c->layout, c->image, p->chunk), 0),
			l->bucket, sizeof(l->bucket));
}

/* The bucket, as it is now. */
static void looked(struct cache_piece *p, const unsigned char *bucket)
{
	struct cache_src *c = cache_of(p->of);
	struct cache_known now = {.valid = false};
	int way = cache_bucket_find(c->hasher, bucket, c->image, p->chunk, cache_now_ms(c),
				    &now.entry, &p->victim, &p->evicts);

	p->looked = true;
	if (way < 0 || now.entry.len != cache_chunk_len(c, p->chunk)) {
		cache_fill_for(p);
		return;
	}
	now.valid = true;
	now.way = (unsigned)way;
	if (p->suspect && now.way == p->known.way &&
	    memcmp(now.entry.hash, p->known.entry.hash, sizeof(now.entry.hash)) == 0) {
		/* Nobody has overwritten it: it is broken. */
		c->counts->cache_mismatches++;
		cache_fill_for(p);
		return;
	}
	p->known = now;
	if (p->tries >= TRIES_MAX) {
		cache_fill_for(p);
		return;
	}
	p->suspect = false;
	cache_remember(c, &now);
	use_known(p);
}

static void look_done(struct io_req *io, int res)
{
	struct cache_lookup *l = CONTAINER_OF(io, struct cache_lookup, io);
	struct cache_src *c = l->owner;
	struct cache_piece *p = l->of, *next;
	size_t got = res > 0 ? (size_t)res : 0;

	p->lookup = NULL;
	/* A file that was cut short has no entry there. */
	memset(l->bucket + got, 0, sizeof(l->bucket) - got);
	if (p->of->cancelled)
		cache_piece_cancelled(p);
	else
		looked(p, l->bucket);
	l->of = NULL;
	l->next = c->free_lookups;
	c->free_lookups = l;
	next = cache_next(&c->wait_lookup);
	if (next)
		look(next);
}

/* ---- a piece ---- */

void cache_piece_bad(struct cache_piece *p)
{
	cache_forget(cache_of(p->of), p->chunk);
	p->suspect = true;
	p->tries++;
	look(p);
}

void cache_piece_anew(struct cache_piece *p)
{
	/* Who joined at once does not know yet what it would overwrite. */
	if (p->looked || p->known.valid)
		cache_fill_for(p);
	else
		look(p);
}

static void piece_go(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);
	struct cache_fill *f = cache_fill_of(c, p->chunk);
	const struct cache_known *k = record_of(c, p->chunk);

	if (f) {
		cache_join(f, p);
	} else if (k->valid && k->entry.chunk == p->chunk) {
		p->known = *k;
		use_known(p);
	} else {
		look(p);
	}
}

/* The next of the read; NULL: none is free. */
static struct cache_piece *piece_take(struct cache_read *cr)
{
	struct cache_piece *p = &cr->first;
	uint64_t end = cr->wr.rd->offset + cr->wr.rd->len;

	if (p->state != PIECE_FREE)
		p = cr->count >= CACHE_PIECES_MAX ? NULL :
		    LIST_ENTRY(list_take(&cache_of(cr)->free_pieces), struct cache_piece, link);
	if (!p)
		return NULL;
	p->of = cr;
	p->fill = NULL;
	p->lookup = NULL;
	p->chunk = cr->begun / CACHE_CHUNK_BYTES;
	p->at = (uint32_t)(cr->begun % CACHE_CHUNK_BYTES);
	p->len = (uint32_t)min_u64(CACHE_CHUNK_BYTES - p->at, end - cr->begun);
	p->buf = (unsigned char *)cr->wr.rd->buf + (cr->begun - cr->wr.rd->offset);
	p->known.valid = p->suspect = p->told = p->looked = false;
	p->tries = 0;
	p->state = PIECE_LOOKS;
	list_append(&cr->pieces, &p->beside);
	cr->count++;
	cr->begun += p->len;
	return p;
}

/* Goes on until something has to be waited for, or all is there. */
static void read_on(struct cache_read *cr)
{
	struct cache_piece *p;

	/* A piece that ends at once comes back here. */
	if (cr->busy)
		return;
	cr->busy = true;
	while (!cr->cancelled && !cr->failed && cr->begun < cr->wr.rd->offset + cr->wr.rd->len &&
	       (p = piece_take(cr)))
		piece_go(p);
	cr->busy = false;
	if (cr->count == 0)
		read_end(cr);
}

void cache_piece_init(struct cache_piece *p)
{
	p->state = PIECE_FREE;
}

/* ---- the source ---- */

static void cache_read(struct src *s, struct src_read *rd)
{
	struct cache_src *c = CONTAINER_OF(s, struct cache_src, wrap.src);
	struct cache_read *cr;

	ASSERT(rd->len > 0 && rd->offset <= s->size && rd->len <= s->size - rd->offset);
	cr = CONTAINER_OF(wrap_begin(&c->wrap, rd), struct cache_read, wr);
	cr->begun = rd->offset;
	cr->cancelled = cr->failed = false;
	read_on(cr);
}

static void cancel_piece(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);

	switch (p->state) {
	case PIECE_WAITS_LOOKUP:
	case PIECE_WAITS_FILL:
		turn_queue_remove(queue_of(p), &p->link, p->turn);
		cache_piece_cancelled(p);
		break;
	case PIECE_READS:
		c->io.ops->cancel(c->io.ctx, &p->io);
		break;
	case PIECE_JOINED:
		cache_leave(p);
		break;
	case PIECE_FREE:
	case PIECE_LOOKS:
	case PIECE_CHECKS:
	case PIECE_COPIES:
		/* Soon over by itself. */
		break;
	}
}

static struct cache_piece *not_told(const struct cache_read *cr)
{
	struct list_link *link = cr->pieces.first;

	while (link && CONTAINER_OF(link, struct cache_piece, beside)->told)
		link = link->next;
	return LIST_ENTRY(link, struct cache_piece, beside);
}

static void cache_cancel(struct src *s, struct src_read *rd)
{
	struct wrap_read *wr = rd->held_by;
	struct cache_read *cr = CONTAINER_OF(wr, struct cache_read, wr);
	struct cache_piece *p;

	(void)s;
	ASSERT(cr->wr.rd == rd);
	if (cr->cancelled)
		return;
	cr->cancelled = true;
	/* So that no end of a piece is the read's before all were told. */
	cr->busy = true;
	while ((p = not_told(cr))) {
		p->told = true;
		cancel_piece(p);
	}
	cr->busy = false;
	if (cr->count == 0)
		read_end(cr);
}

static void raise_piece(struct cache_piece *p)
{
	struct cache_src *c = cache_of(p->of);

	switch (p->state) {
	case PIECE_WAITS_LOOKUP:
	case PIECE_WAITS_FILL:
		turn_queue_remove(queue_of(p), &p->link, p->turn);
		cache_wait(queue_of(p), p);
		break;
	case PIECE_LOOKS:
		if (p->lookup)
			io_raise(&c->io, &p->lookup->io, cache_turn(p));
		break;
	case PIECE_READS:
		io_raise(&c->io, &p->io, cache_turn(p));
		break;
	case PIECE_CHECKS:
	case PIECE_COPIES:
		work_raise(&c->work, &p->job, cache_turn(p));
		break;
	case PIECE_JOINED:
		cache_raise_joined(p);
		break;
	case PIECE_FREE:
		break;
	}
}

static void cache_raise(struct src *s, struct src_read *rd)
{
	struct wrap_read *wr = rd->held_by;
	struct cache_read *cr = CONTAINER_OF(wr, struct cache_read, wr);

	(void)s;
	ASSERT(cr->wr.rd == rd);
	/* Nothing ends meanwhile: a piece stays where it is. */
	for (struct list_link *at = cr->pieces.first; at; at = at->next)
		raise_piece(CONTAINER_OF(at, struct cache_piece, beside));
}

static void cache_close(struct src *s)
{
	struct cache_src *c = CONTAINER_OF(s, struct cache_src, wrap.src);

	src_close(c->wrap.inner);
	c->closed = true;
	if (c->writes == 0)
		cache_free(c);
}

static const struct src_ops cache_ops = {
	.name = "cache",
	.read = cache_read,
	.cancel = cache_cancel,
	.raise = cache_raise,
	.load = wrap_load,
	.close = cache_close,
};

const struct wrap_kind cache_kind = {
	.ops = &cache_ops,
	.bytes = sizeof(struct cache_src),
	.read_bytes = sizeof(struct cache_read),
};

void cache_lookup_init(struct cache_src *c, struct cache_lookup *l)
{
	l->owner = c;
	l->io.done = look_done;
	l->next = c->free_lookups;
	c->free_lookups = l;
}

void cache_touch_init(struct cache_src *c, struct cache_touch *t)
{
	t->owner = c;
	t->io.done = touched;
	t->next = c->free_touches;
	c->free_touches = t;
}
