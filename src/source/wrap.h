/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to src/source: what wrappers share that let reads wait on the way to an inner source. A
 * wrapper begins with a struct wrap: wrap_open() makes both, wrap_close() frees both. Its read()
 * begins with wrap_begin() and decides then: wrap_pass(), wrap_wait() or wrap_end(). Everything
 * else is done here. Owns the inner source, a fixed pool of reads and one timer, armed for the
 * earliest deadline.
 * Threads: port/source.h. Test: tests/unit/source_test.c.
 */
#ifndef SOURCE_WRAP_H
#define SOURCE_WRAP_H

#include "base/list.h"
#include "source/source.h"

/* More is a slip of the unit; it also keeps deadlines far from wrapping. */
#define WRAP_WAIT_NS_MAX (3600 * NS_PER_S)

struct wrap;

struct wrap_read {
	struct src_read inner;
	struct src_read *rd; /* NULL while free */
	struct wrap *owner;
	struct list_link link;  /* while waiting */
	struct wrap_read *next; /* while free */
	uint64_t due_ns;        /* while waiting; NS_NEVER: until it is cancelled */
	bool waiting;
};

struct wrap {
	struct src src;
	struct src *inner;
	struct clock clock;
	const char *cancelled; /* a read that is cancelled while it waits: "delayed read" */
	struct timers *timers;
	struct timer timer;
	struct list waiting; /* in order of deadline */
	uint32_t waiting_count;
	struct wrap_read *pool;
	struct wrap_read *free;
};

/*
 * A wrapper of so many bytes, zeroed but for its struct wrap, with the ops given; `what` and
 * `cancelled` are for texts. inner is owned on success only. NULL: *e says why, *ret_code is -Exxx.
 */
struct wrap *wrap_open(size_t bytes, const struct src_ops *ops, struct src *inner,
		       const struct src_env *env, const char *what, const char *cancelled,
		       int *ret_code, struct err *e);

/* In read(): takes one of the pool for rd. */
struct wrap_read *wrap_begin(struct wrap *w, struct src_read *rd);

/* On to the inner source, whose end is the read's. */
void wrap_pass(struct wrap_read *wr);

/* On to the inner source at due_ns; NS_NEVER: not at all. */
void wrap_wait(struct wrap_read *wr, uint64_t due_ns);

/* The end. */
void wrap_end(struct wrap_read *wr, const struct err *why);

/* For the ops table. */
void wrap_cancel(struct src *s, struct src_read *rd);
int wrap_load(struct src *s, uint64_t offset, void *buf, size_t len, struct err *e);
void wrap_close(struct src *s);

#endif
