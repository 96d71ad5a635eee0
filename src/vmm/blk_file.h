/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk's bytes are kept in: five functions, and the one implementation that ships, a
 * raw file or block device. Decides what may be opened: no directory, no pipe, nothing that
 * somebody else has open as a disk, no size that is not whole sectors. Never O_DIRECT: that pins
 * guest memory, which the library would have to be told of (config.pins_are_held).
 *
 * Threads: one at a time. Test: tests/unit/blk_file_test.c.
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

struct blk_backing {
	const struct blk_ops *ops;
	void *ctx;
	uint64_t bytes; /* a multiple of BLK_SECTOR_BYTES */
	bool read_only;
};

struct blk_file {
	int fd;
	bool is_open;
};

/*
 * Opens path; on success ret is ready and refers to f, which is the caller's. A file that is
 * not opened read-only must not be open as a disk anywhere else (-EBUSY); of read-only
 * opens there may be many. -EINVAL: no regular file or block device, or its size is wrong.
 */
int blk_file_open(struct blk_file *f, const char *path, bool read_only, struct blk_backing *ret,
		  struct err *e);
/* Harmless on a struct that is zeroed or failed to open. Does not flush. */
void blk_file_close(struct blk_file *f);

#endif
