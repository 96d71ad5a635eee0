/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped implementation of port/io.h: reads, writes and syncs through one io_uring ring,
 * straight into the caller's buffer and out of it. Tests: tests/integration/uring_*test.c.
 *
 * Threads: as port/io.h says, the table's calls are made under the caller's lock. The ring belongs
 * to one thread (ioq_own), which submits, sleeps and hears of what has ended, all in ioq_wait,
 * without the lock. What others flush is answered by the page cache, or left to the owner: due()
 * says so, and a watched descriptor wakes it.
 */
#ifndef IO_URING_H
#define IO_URING_H

#include "base/err.h"
#include "port/io.h"
#include "rights/refusal.h"

#define IOQ_DEPTH_MAX 4096u

struct ioq;

/*
 * Opens a queue that keeps at most depth (1..IOQ_DEPTH_MAX) reads in the kernel, and beside
 * them IO_WRITES_MAX writes and syncs; more may be outstanding, the rest waits in user space.
 * All memory is taken here, except for opening files. Returns 0, or -Exxx with text that says
 * what to do. The caller owns *ret. May block.
 */
int ioq_open(unsigned depth, struct ioq **ret, struct err *e);

/* Does what is needed of io_uring work here? 0, or -Exxx with what was refused and why. */
int ioq_probe(struct refusal *ret);

/* The ops table; valid until ioq_close(). Any thread. */
struct io ioq_io(struct ioq *q);

/*
 * A file that somebody else has opened, for reading, writing or both, without O_NONBLOCK. On
 * success fd is the file's, and closed with it. Ended by the table's close. Any thread.
 */
int ioq_file_adopt(int fd, struct io_file **ret, struct err *e);

#define IOQ_WATCHES_MAX 4u

/* Once: the ring is the calling thread's from now on. 0 or -Exxx. */
int ioq_own(struct ioq *q, struct err *e);
/*
 * Before the first ioq_wait: fd becoming readable ends it. Each time that it does, as by an edge:
 * a descriptor need not be read. The first that is watched has bit 0, the next bit 1, and so on.
 */
void ioq_watch(struct ioq *q, int fd);
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
 * Drains, if the caller is the owner or there was none, and frees q. Files must be closed first or
 * forgotten: none may be used afterwards. NULL is harmless.
 */
void ioq_close(struct ioq *q);

#endif
