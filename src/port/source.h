/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: a page source. It answers three things: how large, read this range into
 * that memory, close. Wrappers (delay, fault, …) have the same shape and hold the
 * source they wrap, so a stack of them is a source.
 *
 * Threads: every call is made under the caller's lock (the VM lock); `done` is
 * called under it too, from read(), cancel(), from a timer of env->timers or from
 * io reap. A source has no thread and no lock of its own. It never flushes env->io:
 * after read(), cancel() or timers_run(), one flush() and reap() by the caller send
 * off and collect whatever the calls queued there.
 */
#ifndef PORT_SOURCE_H
#define PORT_SOURCE_H

#include "base/err.h"
#include "base/timer.h"
#include "base/types.h"
#include "port/clock.h"
#include "port/io.h"
#include "port/net.h"
#include "port/turn.h"
#include "port/work.h"

struct src;

/* Who wants a read; of SRC_DEMAND what is `urgent` goes before all others. */
enum src_rank {
	SRC_DEMAND,
	SRC_AHEAD,
	SRC_FILL,
};

/*
 * One read. The caller owns it, fills offset, buf, len and done, and must keep it
 * and buf alive until done. offset + len never exceeds the source's size.
 */
struct src_read {
	uint64_t offset; /* bytes from the start of the source */
	void *buf;
	uint32_t len; /* bytes; > 0, at most 2 MiB */
	bool urgent; /* somebody can do nothing else until it is there; sources may ignore it */
	uint8_t rank; /* enum src_rank */
	bool late;   /* it is not likely to be answered at once: not worth a try; the same */
	/*
	 * Set by the source, before done: it had to be asked for once more, or to wait for a server
	 * that had no time, so that the time that it took tells nothing of what is usual. Cleared
	 * by whoever wants to know; wrappers pass it on.
	 */
	bool again;
	/*
	 * why == NULL: all len bytes are in buf. Otherwise why->code is -Exxx, the
	 * content of buf is undefined, and why is valid during the call only.
	 * Called exactly once; may be called before read() returns.
	 */
	void (*done)(struct src_read *rd, const struct err *why);
	/* Scratch for the source that currently holds the read. */
	struct src_read *next;
	void *held_by;
};

static inline enum turn src_turn(const struct src_read *rd)
{
	return rd->urgent ? TURN_URGENT : (enum turn)(TURN_DEMAND + rd->rank);
}

static inline void src_turn_set(struct src_read *rd, enum turn turn)
{
	rd->urgent = turn == TURN_URGENT;
	rd->rank = (uint8_t)(turn > TURN_DEMAND ? turn - TURN_DEMAND : SRC_DEMAND);
}

/* What a source asks another for on behalf of rd: the same, until somebody changes it. */
static inline void src_read_like(struct src_read *inner, const struct src_read *rd)
{
	inner->offset = rd->offset;
	inner->buf = rd->buf;
	inner->len = rd->len;
	inner->urgent = rd->urgent;
	inner->rank = rd->rank;
	inner->late = rd->late;
	inner->again = false;
}

struct src_ops {
	const char *name;
	void (*read)(struct src *s, struct src_read *rd);
	/*
	 * Ends an outstanding read early if it can; done comes exactly once in any case,
	 * during the call or later, with -ECANCELED if the read was given up.
	 */
	void (*cancel)(struct src *s, struct src_read *rd);
	/*
	 * By src_raise: an outstanding read's turn has become an earlier one. Where it waits, or
	 * what was asked of others on its behalf does, that moves behind those of this turn; what
	 * is under way already is left alone. No `done` comes during the call. NULL: nothing waits
	 * here by turn.
	 */
	void (*raise)(struct src *s, struct src_read *rd);
	/*
	 * len bytes at offset into buf, at once: for whoever opens, before the first read. Blocks.
	 * 0, or -Exxx with text. NULL: this source cannot be read before the VM is served.
	 */
	int (*load)(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e);
	/*
	 * How many bytes of local files are in the host's page cache now, of those that reads of
	 * the range read there: ranges that do not overlap have none in common. -Exxx: the system
	 * does not say. Never waits for a device. NULL: it reads no local file, or not that way.
	 */
	int64_t (*cached)(struct src *s, uint64_t offset, uint64_t len);
	/* Frees the source and what it wraps. No read may be outstanding. */
	void (*close)(struct src *s);
};

struct src {
	const struct src_ops *ops;
	uint64_t size; /* bytes; fixed while open */
	/*
	 * What its content is known by besides its name: never the same for another content of the
	 * same name. NULL: there is no such thing. Lives as long as the source.
	 */
	const char *version;
};

/*
 * Somebody has come to wait for rd, which is with s and was not cancelled: from now on it goes by
 * that turn, unless it goes by an earlier one.
 */
static inline void src_raise(struct src *s, struct src_read *rd, enum turn turn)
{
	if (turn >= src_turn(rd))
		return;
	src_turn_set(rd, turn);
	if (s->ops->raise)
		s->ops->raise(s, rd);
}

/* What sources count, for whoever shows it. */
struct src_counts {
	uint64_t cache_hits;   /* pieces of reads, of a chunk at most each, that a cache had */
	uint64_t cache_misses; /* chunks that it had not, and asked its origin for */
	uint64_t cache_filled_bytes;
	uint64_t cache_evictions;    /* chunks that were overwritten by others */
	uint64_t cache_mismatches;   /* chunks that did not hold what they should */
	uint64_t cache_write_errors;
	uint64_t source_retries; /* after a failure */
	uint64_t source_hedges;  /* beside one that takes long */
};

/* What a source may use, valid as long as the source is open. */
struct src_env {
	struct io io;
	struct work work;
	struct net net;
	struct clock clock;
	struct timers *timers; /* at most one armed timer per wrapper instance */
	bool uncached;         /* files leave nothing in the page cache: port/io.h */
	uint32_t reads_max;    /* the caller never has more reads outstanding than this */
	struct src_counts *counts; /* NULL: nobody wants to know */
};

#endif
