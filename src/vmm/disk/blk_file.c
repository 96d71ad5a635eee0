/* SPDX-License-Identifier: Apache-2.0 */
/* See blk_file.h. */
#include "vmm/disk/blk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define ZERO_PIECE_BYTES 65536u

/* A file that ends early has shrunk under us: no zeroes in place of what is lost. */
static int transfer(const struct blk_file *f, bool write, uint64_t off, struct iovec *v,
		    unsigned count)
{
	while (count) {
		ssize_t n = write ? pwritev(f->fd, v, (int)count, (off_t)off)
				  : preadv(f->fd, v, (int)count, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		off += (uint64_t)n;
		for (; count && (size_t)n >= v->iov_len; v++, count--)
			n -= (ssize_t)v->iov_len;
		if (count) {
			v->iov_base = (unsigned char *)v->iov_base + n;
			v->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int file_readv(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	return transfer(ctx, false, off, v, count);
}

static int file_writev(void *ctx, uint64_t off, struct iovec *v, unsigned count)
{
	return transfer(ctx, true, off, v, count);
}

static int file_flush(void *ctx)
{
	struct blk_file *f = ctx;

	return fdatasync(f->fd) < 0 ? -errno : 0;
}

static int file_fallocate(const struct blk_file *f, int mode, uint64_t off, uint64_t len)
{
	int rc;

	do {
		rc = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static int file_zero(void *ctx, uint64_t off, uint64_t len, bool unmap)
{
	static const char zeroes[ZERO_PIECE_BYTES];
	const struct blk_file *f = ctx;
	int rc = -EOPNOTSUPP;

	if (unmap)
		rc = file_fallocate(f, FALLOC_FL_PUNCH_HOLE, off, len);
	if (rc < 0)
		rc = file_fallocate(f, FALLOC_FL_ZERO_RANGE, off, len);
	if (rc == 0)
		return 0;
	/* Not every file system can; writing always does, or says why not. */
	for (uint64_t done = 0; done < len;) {
		struct iovec v = {(void *)(uintptr_t)zeroes,
				  (size_t)min_u64(len - done, sizeof(zeroes))};
		size_t n = v.iov_len;

		rc = transfer(f, true, off + done, &v, 1);
		if (rc < 0)
			return rc;
		done += n;
	}
	return 0;
}

static int file_discard(void *ctx, uint64_t off, uint64_t len)
{
	int rc = file_fallocate(ctx, FALLOC_FL_PUNCH_HOLE, off, len);

	/* -EINVAL: not whole blocks of the device's. */
	return rc == -EOPNOTSUPP || rc == -EINVAL ? 0 : rc;
}

static const struct blk_ops file_ops = {
	.readv = file_readv,
	.writev = file_writev,
	.flush = file_flush,
	.zero = file_zero,
	.discard = file_discard,
};

struct blk_backing blk_file_backing(struct blk_file *f, int fd)
{
	*f = (struct blk_file){.fd = fd, .is_open = true};
	return (struct blk_backing){.ops = &file_ops, .ctx = f};
}

void blk_file_close(struct blk_file *f)
{
	if (f->is_open)
		close(f->fd);
	f->is_open = false;
}
