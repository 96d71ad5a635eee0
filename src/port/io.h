/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seam: asynchronous file I/O. The shipped implementation is io/queue.h.
 *
 * Threads: every call is made under one lock that the caller holds (the VM
 * lock); an implementation needs none of its own. `done` runs only inside
 * reap(), hence under that lock as well.
 */
#ifndef PORT_IO_H
#define PORT_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "port/turn.h"

struct io_file; /* opened by the implementation */

/* Writes and syncs that the kernel may have at a time beside the reads: see sync(). */
#define IO_WRITES_MAX 64u

struct io_req {
	/* Set by the caller before: */
	bool late;    /* of a read: not worth a try without the device */
	uint8_t turn; /* enum turn */
	/* res: bytes moved (may be short), or -Exxx. Called exactly once per request. */
	void (*done)(struct io_req *rq, int res);
	/* Scratch of the implementation until done; nobody else looks at it. */
	struct {
		struct list_link link;
		struct io_file *file;
		void *buf;
		uint64_t off;
		uint32_t len;
		uint32_t seq;
		int res;
		void *job;
		uint8_t state;
		uint8_t op;
		uint8_t direct;
		uint8_t writes;
		uint8_t cancel;
		uint8_t tries;
		bool tried;
	} priv;
};

/* A file that several processes read and write at a time. */
struct io_shared {
	const char *path;
	/* Where there is none, and with `anew` in place of what is there, it is made so: */
	const void *head; /* what it begins with */
	size_t head_len;
	uint64_t bytes; /* its size; the rest reads as zeroes, and takes no room yet */
	bool anew;
};

struct io_ops {
	/*
	 * Opens a regular file or block device for reading. Blocks. *ret_size is its
	 * size in bytes. On failure returns -Exxx with text naming the path.
	 */
	int (*open)(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		    struct err *e);
	/*
	 * From now on requests on the file leave nothing of it in host memory beside the
	 * caller's buffers, as far as the file system lets that be arranged. Blocks. Cannot fail.
	 */
	void (*uncached)(void *ctx, struct io_file *file);
	/*
	 * The first hole at off or behind it, which reads as zeroes: [*ret_from, *ret_to), where
	 * *ret_to may be the file's end. -Exxx: there is none, or the file system cannot say.
	 * Blocks. NULL: nobody can.
	 */
	int (*hole)(void *ctx, struct io_file *file, uint64_t off, uint64_t *ret_from,
		    uint64_t *ret_to);
	/*
	 * By size and times of the last changes, as far as they are known here, the file is what it
	 * was when it was opened. Never blocks. There is one where there is `hole`.
	 */
	bool (*unchanged)(void *ctx, const struct io_file *file);
	/*
	 * How many bytes of the range are in the page cache and read from there, in whole pages, of
	 * those that begin in it. -Exxx: the system does not say. Never waits for a device. NULL:
	 * nobody can.
	 */
	int64_t (*cached)(void *ctx, const struct io_file *file, uint64_t off, uint64_t len);
	/* Closes; no request on the file may be outstanding. NULL is harmless. */
	void (*close)(void *ctx, struct io_file *file);
	/*
	 * len bytes at off into buf, at once, for whoever opens. Blocks. path: for the text. 0, or
	 * -Exxx; a file that ends before is an error.
	 */
	int (*load)(void *ctx, struct io_file *file, const char *path, uint64_t off, void *buf,
		    size_t len, struct err *e);
	/*
	 * Queues a read into buf, which must stay valid until done. Never blocks, never
	 * fails: trouble is reported through done. Not submitted before flush().
	 * len <= 1 GiB.
	 */
	void (*read)(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off, void *buf,
		     size_t len);
	/* The same for a write from buf, which may change meanwhile: then what arrives is mixed. */
	void (*write)(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off,
		      const void *buf, size_t len);
	/*
	 * Makes durable what writes on the file have written that ended before this call. done
	 * comes with 0, or -Exxx: then any of what was written since the last sync that
	 * succeeded may be lost, whenever it ended, and another sync, even one that succeeds,
	 * says nothing about it: it must be written again. Like write(), takes effect at
	 * flush(). Up to IO_WRITES_MAX writes and syncs together have places of their own: they
	 * wait for no read, and no read waits for them.
	 */
	void (*sync)(void *ctx, struct io_file *file, struct io_req *rq);
	/*
	 * Asks for an early end of an outstanding request: done still comes exactly once, in a
	 * later reap(), then perhaps with -ECANCELED. Like read(), takes effect at flush().
	 */
	void (*cancel)(void *ctx, struct io_req *rq);
	/*
	 * From now on an outstanding request goes by that turn, which comes before its own, unless
	 * it is under way already. NULL: nothing waits here by turn.
	 */
	void (*raise)(void *ctx, struct io_req *rq, enum turn turn);
	/*
	 * Begins everything queued, as far as the calling thread can: due() says whether some is
	 * left to the thread that waits for the ends. The caller must reap() before it lets go of
	 * the lock: what ended during the flush itself is announced to nobody else.
	 */
	void (*flush)(void *ctx);
	/*
	 * Runs `done` of completed requests. Never blocks. Bounded, and callbacks may have queued
	 * more: due() says so. Not to be called from done. Returns how many ended.
	 */
	unsigned (*reap)(void *ctx);
	/* There is something for the thread that waits for the ends, which it does not know of. */
	bool (*due)(void *ctx);
	/*
	 * Opens for reading and writing; where only that is allowed, for reading (*ret_read_only).
	 * A file that is made is its user's alone, and so is its folder, which is made as well;
	 * others find all of what it begins with, or no file. Blocks. 0, or -Exxx with text. NULL:
	 * there are no such files.
	 */
	int (*open_shared)(void *ctx, const struct io_shared *want, struct io_file **ret,
			   bool *ret_read_only, struct err *e);
};

struct io {
	const struct io_ops *ops;
	void *ctx;
};

static inline void io_raise(const struct io *io, struct io_req *rq, enum turn turn)
{
	if (turn < rq->turn && io->ops->raise)
		io->ops->raise(io->ctx, rq, turn);
}

#endif
