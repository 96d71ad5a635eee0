/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to cache.c, cache_fill.c and cache_open.c: the wrapper that keeps what it has read in a
 * file which others share. Threads: port/source.h; jobs run without the lock, on what no one else
 * touches meanwhile. Test: tests/integration/cache_test.c.
 *
 * A read is cut into pieces of one chunk each. A piece knows where its chunk lies and what it must
 * hold, from a record in memory or a look at its bucket in the file; it is read from there straight
 * into the reader's buffer, and checked. What is not there, or is not right, comes by a fill: the
 * whole chunk from the origin into a buffer, checked, handed to all who wait, and written.
 */
#ifndef SOURCE_CACHE_H
#define SOURCE_CACHE_H

#include "base/list.h"
#include "source/cache_format.h"
#include "source/source.h"
#include "source/wrap.h"
#include "source/zst_manifest.h"

#define CACHE_FILLS_MAX 64u
#define CACHE_FILLS_MIN 4u
#define CACHE_LOOKUPS 32u
#define CACHE_TOUCHES 8u
/* Pieces of a read that are worked on at a time. */
#define CACHE_PIECES_MAX 4u
#define CACHE_PIECES_SPARE 64u
/* A use is written when the one before is older. */
#define CACHE_USED_STEP_MS 60000u
/* Nothing is written for so long after a write failed: a full disk stays full for a while. */
#define CACHE_PAUSE_NS (10 * NS_PER_S)

/* Where a chunk lies, and what it holds. */
struct cache_known {
	bool valid;
	bool proven; /* with a manifest: the hashes are those of content that it has */
	unsigned way;
	struct cache_entry entry;
};

enum cache_piece_state {
	PIECE_FREE = 0,
	PIECE_WAITS_LOOKUP, /* in cache_src.wait_lookup */
	PIECE_LOOKS,
	PIECE_READS,
	PIECE_CHECKS,
	PIECE_WAITS_FILL, /* in cache_src.wait_fill */
	PIECE_JOINED,     /* in its fill's list */
	PIECE_COPIES,
};

struct cache_piece {
	enum cache_piece_state state;
	struct cache_read *of;
	struct cache_fill *fill;
	struct cache_lookup *lookup; /* LOOKS; NULL: not yet */
	struct list_link beside; /* in of->pieces */
	struct list_link link;
	enum turn turn; /* by which it waits in a queue */
	uint64_t chunk;
	uint32_t at, len; /* of the chunk */
	unsigned char *buf;
	struct cache_known known;
	bool looked; /* at the bucket: victim and evicts are of it */
	unsigned victim;
	bool evicts;
	bool suspect; /* what the cache had was not right */
	bool good;    /* of the check */
	bool told;    /* that its read was cancelled */
	unsigned tries;
	struct io_req io;
	struct work_job job;
};

struct cache_read {
	struct wrap_read wr; /* its inner read is not used: chunks are asked for by fills */
	uint64_t begun;      /* up to here pieces were made */
	struct list pieces;
	unsigned count;
	bool cancelled, failed;
	bool busy; /* cache_read_on is at it */
	struct err why;
	struct cache_piece first; /* so that no read waits for others' pieces */
};

struct cache_lookup {
	struct cache_src *owner;
	struct cache_piece *of;
	struct cache_lookup *next; /* while free */
	struct io_req io;
	unsigned char bucket[CACHE_BUCKET_BYTES];
};

enum cache_fill_state {
	FILL_FREE = 0,
	FILL_LOADS,  /* from the cache: pieces that begin or end within a page, or are not proven */
	FILL_READS,  /* from the origin */
	FILL_CHECKS,
	FILL_READY,
	FILL_WRITES, /* the slot, then the entry; ready as well */
	FILL_ENDS,   /* without having become ready */
};

struct cache_fill {
	enum cache_fill_state state;
	struct cache_src *owner;
	struct list joined;
	uint32_t users; /* copies by workers */
	bool origin;    /* where it came from */
	bool cancelled;
	bool compare; /* entry.hash must be known's */
	bool evicts;
	unsigned way;
	struct cache_known known;
	struct cache_entry entry;
	struct src_read inner;
	struct io_req io;
	struct work_job job;
	struct err why; /* of the job; code 0: it is well */
	unsigned char *buf;
	unsigned char packed[CACHE_ENTRY_BYTES];
};

struct cache_touch {
	struct cache_src *owner;
	struct cache_touch *next; /* while free */
	struct io_req io;
	unsigned char used[CACHE_ENTRY_USED_BYTES];
};

struct cache_src {
	struct wrap wrap;
	struct io io;
	struct work work;
	struct src_counts *counts, own_counts; /* the own: where nobody asks */
	char *name; /* for messages */
	struct io_file *file, *data; /* the same; data: past the page cache where env says so */
	char *path;
	uint64_t file_bytes;
	bool read_only;
	bool closed; /* freed when the last write is over */
	uint32_t writes;
	uint64_t paused_until_ns;
	struct cache_layout layout;
	unsigned char image[CACHE_IMAGE_BYTES];
	struct zst_manifest manifest; /* hashes NULL: there is none */
	struct zst_hasher *hasher;    /* under the lock */
	struct zst_hasher *hashers[WORK_THREADS_MAX];
	struct cache_piece *spare;
	struct list free_pieces;
	struct turn_queue wait_lookup, wait_fill;
	struct cache_lookup *lookups, *free_lookups;
	struct cache_fill *fills;
	uint32_t fill_count, fills_busy, fills_writing;
	unsigned char *room;
	struct cache_known *records;
	uint64_t record_count;
	struct cache_touch touches[CACHE_TOUCHES], *free_touches;
};

/* cache.c */
void cache_lookup_init(struct cache_src *c, struct cache_lookup *l);
void cache_touch_init(struct cache_src *c, struct cache_touch *t);
void cache_piece_init(struct cache_piece *p);
void cache_piece_end(struct cache_piece *p, const struct err *why);
void cache_piece_cancelled(struct cache_piece *p);
/* What the cache had of it was not there, or not right. */
void cache_piece_bad(struct cache_piece *p);
/* What it had joined was given up by others. */
void cache_piece_anew(struct cache_piece *p);
void cache_wait(struct turn_queue *q, struct cache_piece *p);
/* Who goes next, and waits no more; NULL: nobody waits. */
struct cache_piece *cache_next(struct turn_queue *q);
void cache_remember(struct cache_src *c, const struct cache_known *k);
void cache_forget(struct cache_src *c, uint64_t chunk);
/* The chunk was used: noted in its entry now and then, since eviction asks for it. */
void cache_touch(struct cache_src *c, uint64_t chunk);
extern const struct wrap_kind cache_kind;

/* cache_fill.c */
void cache_fill_init(struct cache_src *c, struct cache_fill *f, unsigned char *buf);
/* One that has the chunk, or will have it; NULL. */
struct cache_fill *cache_fill_of(struct cache_src *c, uint64_t chunk);
void cache_join(struct cache_fill *f, struct cache_piece *p);
/* Joins a new fill, or waits for one that is free. p->known.valid and !p->suspect: of the cache. */
void cache_fill_for(struct cache_piece *p);
/* Of a piece that is JOINED: its read's turn has become an earlier one. */
void cache_raise_joined(struct cache_piece *p);
/* The reader has given up a piece that is JOINED. */
void cache_leave(struct cache_piece *p);

/* cache_open.c: of all but the inner source, when no write is under way any more. */
void cache_free(struct cache_src *c);

static inline struct cache_src *cache_of(const struct cache_read *cr)
{
	return CONTAINER_OF(cr->wr.owner, struct cache_src, wrap);
}

static inline uint64_t cache_now_ms(const struct cache_src *c)
{
	return clock_now_ns(&c->wrap.clock) / NS_PER_MS;
}

static inline uint32_t cache_chunk_len(const struct cache_src *c, uint64_t chunk)
{
	return (uint32_t)min_u64(c->wrap.src.size - chunk * CACHE_CHUNK_BYTES, CACHE_CHUNK_BYTES);
}

static inline enum turn cache_turn(const struct cache_piece *p)
{
	return src_turn(p->of->wr.rd);
}

/* A write is over; the last one after the end frees c. */
static inline void cache_wrote(struct cache_src *c)
{
	c->writes--;
	if (c->closed && c->writes == 0)
		cache_free(c);
}

#endif
