/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: what wrappers have in common. A wrapper begins with a struct wrap, each of
 * its reads with a struct wrap_read; wrap_open() makes both, wrap_close() frees both. Its read()
 * begins with wrap_begin() and decides then: wrap_pass(), wrap_wait() or wrap_end(). Owns the inner
 * source, a fixed pool of reads, and where reads can wait one timer, armed for the earliest
 * deadline. Threads: port/source.h. Test: tests/unit/source_test.c.
 */
#ifndef SOURCE_WRAP_H
#define SOURCE_WRAP_H

#include "base/list.h"
#include "source/source.h"

/* More is a slip of the unit; it also keeps deadlines far from wrapping. */
#define WRAP_WAIT_NS_MAX (3600 * NS_PER_S)

struct wrap;

struct wrap_read {
	struct src_read inner; /* what the inner source is asked: rd, until somebody changes it */
	struct src_read *rd;   /* NULL while free */
	struct wrap *owner;
	struct wrap_read *next; /* while free */
	struct list *in;        /* where it waits; NULL: nowhere */
	struct list_link link;  /* in that */
	uint64_t due_ns;        /* in wrap.waiting; NS_NEVER: until it is cancelled */
};

/* What a kind of wrapper is. */
struct wrap_kind {
	const struct src_ops *ops;
	size_t bytes;          /* of a wrapper */
	size_t read_bytes;     /* of a read of its */
	const char *cancelled; /* a read that is cancelled while it waits: "delayed read" */
	/* The inner source has ended it. NULL: that end is the read's. */
	void (*done)(struct wrap_read *wr, const struct err *why);
	/* Its deadline is reached; it waits no more. NULL: on to the inner source. */
	void (*due)(struct wrap_read *wr);
	/* Of the timer: wrap_fire, or what else there is to do. NULL: no read waits. */
	void (*fire)(struct timer *tm, uint64_t now_ns);
};

struct wrap {
	struct src src;
	struct src *inner;
	struct clock clock;
	const struct wrap_kind *kind;
	struct timers *timers;
	struct timer timer;
	struct list waiting; /* in order of deadline */
	uint32_t waiting_count;
	uint32_t reads_max;
	void *pool;
	struct wrap_read *free;
};

/*
 * One of that kind, zeroed but for its struct wrap. inner is owned on success only. NULL: *e says
 * why, *ret_code is -Exxx.
 */
struct wrap *wrap_open(const struct wrap_kind *kind, struct src *inner, const struct src_env *env,
		       int *ret_code, struct err *e);

/* Read i of the pool, i < reads_max, for whoever has something to prepare in each. */
struct wrap_read *wrap_at(struct wrap *w, uint32_t i);

/* In read(): takes one of the pool for rd; what is behind its struct wrap_read is as it was. */
struct wrap_read *wrap_begin(struct wrap *w, struct src_read *rd);

/* On to the inner source. */
void wrap_pass(struct wrap_read *wr);

/* Until due_ns; NS_NEVER: for ever. It may be with the inner source meanwhile. */
void wrap_wait(struct wrap_read *wr, uint64_t due_ns);

/* It waits no more. Harmless where it did not. */
void wrap_unwait(struct wrap_read *wr);

/* The end; why is not the read's own memory. */
void wrap_end(struct wrap_read *wr, const struct err *why);

/* For the table of a kind whose reads wait by wrap_wait(). */
void wrap_fire(struct timer *tm, uint64_t now_ns);

/*
 * For the ops table. wrap_cancel, wrap_raise: of a read that waits, which its turn makes no
 * difference to, or else is with the inner source.
 */
void wrap_cancel(struct src *s, struct src_read *rd);
void wrap_raise(struct src *s, struct src_read *rd);
int wrap_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e);
int64_t wrap_cached(struct src *s, uint64_t offset, uint64_t len);
void wrap_close(struct src *s);

/* The wrapper alone, not what it wraps: where an open function fails after wrap_open(). */
void wrap_free(struct wrap *w);

#endif
