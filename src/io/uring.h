/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped implementation of port/io.h: reads, writes and syncs through one io_uring ring,
 * straight into the caller's buffer and out of it. Tests: tests/integration/uring_*test.c.
 *
 * Threads: as port/io.h says, every call below is made under the caller's lock, and
 * several threads may submit in turn. Waiting is the one thing done without the lock:
 * poll ioq_event_fd(); when it is readable, read its 8 bytes, take the lock, reap().
 *
 * A request that really had to wait for the device ends in the context of the thread
 * that flushed it: the kernel interrupts that thread for a moment (KVM_RUN returns
 * EINTR). If that thread has ended, its requests are submitted again by whoever reaps.
 */
#ifndef IO_URING_H
#define IO_URING_H

#include "base/err.h"
#include "port/io.h"

#define IOQ_DEPTH_MAX 4096u

struct ioq;

/*
 * Opens a queue that keeps at most depth (1..IOQ_DEPTH_MAX) reads in the kernel, and beside
 * them IO_WRITES_MAX writes and syncs; more may be outstanding, the rest waits in user space.
 * All memory is taken here, except for opening files. Returns 0, or -Exxx with text that says
 * what to do. The caller owns *ret. May block.
 */
int ioq_open(unsigned depth, struct ioq **ret, struct err *e);

/* The ops table; valid until ioq_close(). Any thread. */
struct io ioq_io(struct ioq *q);

/*
 * A file that somebody else has opened, for reading, writing or both, without O_NONBLOCK. On
 * success fd is the file's, and closed with it. Ended by the table's close. Any thread.
 */
int ioq_file_adopt(int fd, struct io_file **ret, struct err *e);

/*
 * A non-blocking eventfd, readable when there is something to reap that the caller of
 * flush() did not find right after it. Owned by q. Any thread.
 */
int ioq_event_fd(struct ioq *q);

/*
 * Cancels what is outstanding, waits for it, calls its `done` (-ECANCELED, or the result
 * where it was too late), frees q. Files must be closed first or forgotten: none may be
 * used afterwards. Blocks. NULL is harmless.
 */
void ioq_close(struct ioq *q);

#endif
