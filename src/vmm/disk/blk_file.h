/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk's bytes are kept in: five functions, and the one implementation that ships, a
 * raw file or block device. Decides what may be opened (blk_open.c): no directory, no pipe,
 * nothing that somebody else uses (file_use.h), nothing that is no raw disk, no size that is not
 * whole sectors. Never O_DIRECT: that pins guest memory, which the library would have to be told of
 * (config.pins_are_held).
 *
 * Threads: one at a time. Tests: tests/unit/blk_file_test.c, tests/integration/devices_test.c.
 */
#ifndef VMM_BLK_FILE_H
#define VMM_BLK_FILE_H

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"

#define BLK_SECTOR_BYTES 512ull

/* All return 0 or -Exxx, and block. Ranges lie within the size and are whole sectors. */
struct blk_ops {
	/*
	 * From off on, into or out of v[0 .. count), of which none is empty, and which are used up.
	 * -EFAULT is not the disk's: that memory, the guest's, could not be touched.
	 */
	int (*readv)(void *ctx, uint64_t off, struct iovec *v, unsigned count);
	int (*writev)(void *ctx, uint64_t off, struct iovec *v, unsigned count);
	/* All that was written is on stable storage. */
	int (*flush)(void *ctx);
	/* The range reads as zeroes; unmap: its space may be given up. */
	int (*zero)(void *ctx, uint64_t off, uint64_t len, bool unmap);
	/* The range's content is not needed any more; a hint. */
	int (*discard)(void *ctx, uint64_t off, uint64_t len);
};

/* What the host failed to do for a request. */
struct blk_failure {
	const char *doing; /* "writing" */
	uint64_t off, len; /* len 0: the whole disk */
	int code;          /* -Exxx */
	/*
	 * It can be tried again, and nothing is lost then. Not a flush: after one that failed the
	 * kernel says of none of what was written whether it kept it (fsync(2)).
	 */
	bool repeatable;
};

struct blk_backing {
	const struct blk_ops *ops;
	void *ctx;
	/*
	 * Called when ops have failed, by the thread that called them, and may take its time. True:
	 * try again; else the guest is told, as it is when this is NULL.
	 */
	bool (*failed)(void *ctx, const struct blk_failure *why);
	void *failed_ctx;
	uint64_t bytes; /* a multiple of BLK_SECTOR_BYTES */
	bool read_only;
	/* As the device has them; a file has BLK_SECTOR_BYTES. Powers of two. */
	uint32_t block_bytes;          /* the least that a guest should read or write */
	uint32_t physical_block_bytes; /* the least that is written without a read before */
	uint32_t hidden_bytes; /* at the end of a read-only file: no whole sector */
};

struct blk_file {
	int fd;
	bool is_open;
};

/* Flags of blk_file_open. */
#define BLK_READ_ONLY 1u
#define BLK_RAW 2u /* the bytes are the disk, whatever they look like */

/*
 * Opens path; on success ret is ready and refers to f, which is the caller's. Nothing is written.
 * -EBUSY: it is in use, by another disk, or otherwise; of read-only opens there may be many.
 * -EINVAL: no regular file or block device, its size is wrong, or it is no raw disk.
 */
int blk_file_open(struct blk_file *f, const char *path, unsigned flags, struct blk_backing *ret,
		  struct err *e);
/* Harmless on a struct that is zeroed or failed to open. Does not flush. */
void blk_file_close(struct blk_file *f);

/* For blk_open.c: what refers to an open descriptor, which is f's then; sizes are to be set. */
struct blk_backing blk_file_backing(struct blk_file *f, int fd);

#endif
