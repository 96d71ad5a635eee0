/* SPDX-License-Identifier: Apache-2.0 */
/* See blk_file.h. */
#include "vmm/blk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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

	return rc == -EOPNOTSUPP ? 0 : rc;
}

static const struct blk_ops file_ops = {
	.readv = file_readv,
	.writev = file_writev,
	.flush = file_flush,
	.zero = file_zero,
	.discard = file_discard,
};

/*
 * An open file description lock: it ends with the descriptor and holds between two VMs of
 * one process. A file system without locks is used without one.
 */
static int file_lock(int fd, const char *path, bool read_only, struct err *e)
{
	struct flock lock = {
		.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
		return err_set(e, -EBUSY, "disk %s: in use as a disk by another process or VM",
			       path);
	return 0;
}

static int file_size(int fd, const char *path, uint64_t *ret_bytes, struct err *e)
{
	struct stat st;
	uint64_t bytes = 0;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "disk %s: stat", path);
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return err_set(e, -EINVAL, "disk %s: neither a regular file nor a block device",
			       path);
	else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return err_sys(e, -errno, "disk %s: size", path);
	if (bytes == 0 || bytes % BLK_SECTOR_BYTES)
		return err_set(e, -EINVAL,
			       "disk %s: %llu bytes are no whole number of 512-byte sectors; "
			       "truncate -s %%512 makes it one",
			       path, (unsigned long long)bytes);
	*ret_bytes = bytes;
	return 0;
}

int blk_file_open(struct blk_file *f, const char *path, bool read_only, struct blk_backing *ret,
		  struct err *e)
{
	/* O_NONBLOCK: opening a pipe by mistake must not wait; it means nothing for files. */
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = open(path, flags);
	uint64_t bytes = 0;
	int rc;

	if (fd < 0)
		return err_sys(e, -errno, "disk %s: open for %s", path,
			       read_only ? "reading" : "reading and writing");
	rc = file_size(fd, path, &bytes, e);
	if (rc == 0)
		rc = file_lock(fd, path, read_only, e);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*f = (struct blk_file){.fd = fd, .is_open = true};
	*ret = (struct blk_backing){
		.ops = &file_ops, .ctx = f, .bytes = bytes, .read_only = read_only};
	return 0;
}

void blk_file_close(struct blk_file *f)
{
	if (f->is_open)
		close(f->fd);
	f->is_open = false;
}
