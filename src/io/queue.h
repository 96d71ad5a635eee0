/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped implementation of port/io.h: reads, writes and syncs of files, straight into the
 * caller's buffer and out of it. In one of two ways: through one io_uring ring (uring.c), or, where
 * the system refuses that, by threads that block (threads.c). Which one is found out by trying.
 * Tests: tests/integration/uring_*test.c, which try both.
 *
 * Threads: as port/io.h says, the table's calls are made under the caller's lock. Completions
 * belong to one thread (ioq_own), which sleeps and hears of what has ended, all in ioq_wait,
 * without the lock. What others flush is answered by the page cache; the rest is begun by the
 * threads, while a ring leaves it to the owner: due() says so, and a watched descriptor wakes it.
 */
#ifndef IO_QUEUE_H
#define IO_QUEUE_H

#include "base/err.h"
#include "port/io.h"
#include "rights/refusal.h"

#define IOQ_DEPTH_MAX 4096u
/*
 * Threads that read, and that write. A disk of 1 ms gives 16000 reads a second to so many, beyond
 * which a ring would have to be. Idle ones cost their stack.
 */
#define IOQ_READERS_MAX 16u
#define IOQ_WRITERS_MAX 4u

enum ioq_way {
	IOQ_AUTO, /* the ring, or the threads where it is refused */
	IOQ_URING,
	IOQ_THREADS,
};

struct ioq_config {
	unsigned depth; /* reads in the kernel at a time, 1..IOQ_DEPTH_MAX */
	enum ioq_way way;
	/* The first thing that each thread of the queue's does, with its name; NULL: nothing. */
	void (*thread_begins)(void *ctx, const char *name);
	void *ctx;
};

struct ioq;

/*
 * Opens a queue that keeps at most c->depth reads in the kernel, and beside them IO_WRITES_MAX
 * writes and syncs; more may be outstanding, the rest waits in user space. All memory is taken
 * here, except for opening files. Returns 0, or -Exxx with text that says what to do. The caller
 * owns *ret. May block.
 */
int ioq_open(const struct ioq_config *c, struct ioq **ret, struct err *e);

/*
 * Does a ring of that depth work here? 0, or -Exxx with what was refused and why. A filter may let
 * it be set up, and refuse the calls that follow: all are made.
 */
int ioq_probe(unsigned depth, struct refusal *ret);

/* IOQ_URING or IOQ_THREADS: what was chosen. */
enum ioq_way ioq_way(const struct ioq *q);

/* The ops table; valid until ioq_close(). Any thread. */
struct io ioq_io(struct ioq *q);

/*
 * A file that somebody else has opened, for reading, writing or both, without O_NONBLOCK. On
 * success fd is the file's, and closed with it. Ended by the table's close. Any thread.
 */
int ioq_file_adopt(int fd, struct io_file **ret, struct err *e);

#define IOQ_WATCHES_MAX 4u

/*
 * Once, before ioq_own, by any thread: makes the threads that there are to be, with the caller's
 * signal mask; fewer, where the system grants no more, but one of each kind. 0 or -Exxx.
 */
int ioq_start(struct ioq *q, struct err *e);
/* Once: what ends is the calling thread's to hear of from now on. 0 or -Exxx. */
int ioq_own(struct ioq *q, struct err *e);
/*
 * Before the first ioq_wait: fd becoming readable ends it. Each time that it does, as by an edge:
 * a descriptor need not be read. The first that is watched has bit 0, the next bit 1, and so on.
 * 0 or -Exxx.
 */
int ioq_watch(struct ioq *q, int fd, struct err *e);
/*
 * The owner, without the lock, after flush() and reap(): hands what they have prepared to the
 * kernel, and sleeps until something has ended, a watched descriptor is readable, or until_ns
 * (CLOCK_MONOTONIC; 0: does not sleep; NS_NEVER: no end). One system call. May return for nothing.
 * Returns the bits of the descriptors; reap() comes next.
 */
unsigned ioq_wait(struct ioq *q, uint64_t until_ns);

/* The owner: ioq_wait has something to hand over. */
bool ioq_has_entries(const struct ioq *q);

/*
 * The owner, for the last time: cancels what is outstanding, waits for it, calls its `done`
 * (-ECANCELED, or the result where it was too late). Blocks.
 */
void ioq_drain(struct ioq *q);
/*
 * Drains, if the caller is the owner or there was none, ends the threads and frees q. Files must be
 * closed first or forgotten: none may be used afterwards. NULL is harmless.
 */
void ioq_close(struct ioq *q);

#endif
