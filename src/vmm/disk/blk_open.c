/* SPDX-License-Identifier: Apache-2.0 */
/* What may be opened as a disk. See blk_file.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/disk/blk_file.h"
#include "vmm/disk/blk_format.h"
#include "vmm/disk/file_use.h"

#define DEVICE_BLOCK_BYTES_MAX 65536

struct opening {
	const char *path;
	unsigned flags;
	struct stat st;
	int fd; /* what is open so far; -1: nothing */
};

static bool reads_only(const struct opening *o)
{
	return o->flags & BLK_READ_ONLY;
}

static int failed(const struct opening *o, struct err *e)
{
	/* It could be read. */
	if (o->fd >= 0 && !reads_only(o) && (errno == EACCES || errno == EROFS || errno == EPERM))
		return err_set(e, -errno, "disk %s: open for reading and writing: %s; give ',ro' "
			       "to read it", o->path, strerror(errno));
	return err_sys(e, -errno, "disk %s: open for %s", o->path,
		       reads_only(o) ? "reading" : "reading and writing");
}

/* O_NONBLOCK: opening a pipe by mistake must not wait; it means nothing for files. */
static int flags_of(const struct opening *o)
{
	return (reads_only(o) ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

/* What is open, opened once more: not by its name, which may lead elsewhere by now. */
static int reopen(struct opening *o, int flags)
{
	char self[40];
	int fd;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	fd = open(self, flags);
	if (fd < 0)
		return -errno;
	close(o->fd);
	o->fd = fd;
	return 0;
}

static int busy(const struct opening *o, struct err *e)
{
	return err_set(e, -EBUSY, "disk %s: in use as a disk by another process or VM; end that, "
		       "or name another disk", o->path);
}

static int lock(const struct opening *o, bool write, struct err *e)
{
	return file_use_lock(o->fd, write) < 0 ? busy(o, e) : 0;
}

/* A regular file, open for reading. */
static int take_file(struct opening *o, struct err *e)
{
	int rc = lock(o, false, e);

	if (rc < 0)
		return rc;
	if (!reads_only(o) && file_use_is_loop(&o->st))
		return err_set(e, -EBUSY, "disk %s: in use as a loop device; name that instead, or "
			       "detach it with losetup -d", o->path);
	if (file_use_is_written(o->fd))
		return err_set(e, -EBUSY, "disk %s: in use: another program has it open for "
			       "writing; end that first, or copy the file", o->path);
	if (reads_only(o))
		return 0;
	rc = reopen(o, flags_of(o));
	if (rc < 0) {
		errno = -rc;
		return failed(o, e);
	}
	return lock(o, true, e);
}

/* O_EXCL is refused while the kernel itself has the device, or a part of it, in use. */
static int take_device(struct opening *o, struct err *e)
{
	int rc = reopen(o, flags_of(o) | O_EXCL);
	int read_only = 0;

	if (rc == -EBUSY)
		return err_set(e, rc, "disk %s: in use: the device is mounted, swapped to, part of "
			       "another device, or a disk of another VM; end that first", o->path);
	if (rc == 0 && reads_only(o))
		/* Other readers are welcome. */
		rc = reopen(o, flags_of(o));
	/* Linux opens it all the same, and refuses each write. */
	if (rc == 0 && !reads_only(o) && ioctl(o->fd, BLKROGET, &read_only) == 0 && read_only)
		rc = -EROFS;
	if (rc < 0) {
		errno = -rc;
		return failed(o, e);
	}
	return lock(o, !reads_only(o), e);
}

static int take(struct opening *o, struct err *e)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	o->fd = open(o->path, flags);
	if (o->fd < 0)
		return failed(o, e);
	if (fstat(o->fd, &o->st) < 0)
		return err_sys(e, -errno, "disk %s: stat", o->path);
	if (S_ISREG(o->st.st_mode))
		return take_file(o, e);
	if (S_ISBLK(o->st.st_mode))
		return take_device(o, e);
	return err_set(e, -EINVAL, "disk %s: neither a regular file nor a block device; name one",
		       o->path);
}

/* ---- its size, and what is in it ---- */

static int device_sizes(const struct opening *o, struct blk_backing *b, struct err *e)
{
	unsigned physical = 0;
	int logical = 0;

	if (ioctl(o->fd, BLKGETSIZE64, &b->bytes) < 0 || ioctl(o->fd, BLKSSZGET, &logical) < 0)
		return err_sys(e, -errno, "disk %s: size", o->path);
	if (ioctl(o->fd, BLKPBSZGET, &physical) < 0)
		physical = (unsigned)logical;
	if (logical < (int)BLK_SECTOR_BYTES || logical > DEVICE_BLOCK_BYTES_MAX ||
	    !is_pow2((uint64_t)logical))
		return err_set(e, -EINVAL, "disk %s: the device has blocks of %d bytes", o->path,
			       logical);
	b->block_bytes = (uint32_t)logical;
	b->physical_block_bytes = is_pow2(physical) && physical >= b->block_bytes &&
					  physical <= DEVICE_BLOCK_BYTES_MAX
				  ? physical : b->block_bytes;
	return 0;
}

static int sizes(const struct opening *o, struct blk_backing *b, struct err *e)
{
	b->block_bytes = b->physical_block_bytes = BLK_SECTOR_BYTES;
	if (S_ISBLK(o->st.st_mode)) {
		int rc = device_sizes(o, b, e);

		if (rc < 0)
			return rc;
	} else {
		b->bytes = (uint64_t)o->st.st_size;
	}
	if (b->bytes < BLK_SECTOR_BYTES)
		return err_set(e, -EINVAL, "disk %s: %llu bytes; a disk has a sector of %llu at "
			       "least", o->path, (unsigned long long)b->bytes, BLK_SECTOR_BYTES);
	b->hidden_bytes = (uint32_t)(b->bytes % BLK_SECTOR_BYTES);
	b->bytes -= b->hidden_bytes;
	if (b->hidden_bytes && !reads_only(o))
		return err_set(e, -EINVAL, "disk %s: %llu bytes are no whole number of %llu-byte "
			       "sectors; give ',ro' to read it without the last %u bytes, or make "
			       "it larger with truncate -s %%512", o->path,
			       (unsigned long long)b->bytes + b->hidden_bytes, BLK_SECTOR_BYTES,
			       b->hidden_bytes);
	return 0;
}

static int content(const struct opening *o, struct err *e)
{
	unsigned char head[BLK_FORMAT_HEAD_BYTES], end[BLK_FORMAT_HEAD_BYTES];
	off_t bytes = lseek(o->fd, 0, SEEK_END);
	const struct blk_format *f;
	ssize_t n, last = 0;

	if (o->flags & BLK_RAW)
		return 0;
	n = pread(o->fd, head, sizeof(head), 0);
	if (n >= 0 && bytes >= (off_t)sizeof(end))
		last = pread(o->fd, end, sizeof(end), bytes - (off_t)sizeof(end));
	if (n < 0 || last < 0)
		return err_sys(e, -errno, "disk %s: reading its first and last sector", o->path);
	f = blk_format(head, (size_t)n);
	if (!f)
		f = blk_format_end(end, (size_t)last);
	if (!f)
		return 0;
	return err_set(e, -EINVAL, "disk %s: it looks like %s, and only raw disks are known; %s, "
		       "or give ',raw' to use it as it is", o->path, f->name, f->advice);
}

int blk_file_open(struct blk_file *f, const char *path, unsigned flags, struct blk_backing *ret,
		  struct err *e)
{
	struct opening o = {.path = path, .flags = flags, .fd = -1};
	struct blk_backing b = {.read_only = reads_only(&o)};
	int rc = take(&o, e);

	if (rc == 0)
		rc = content(&o, e);
	if (rc == 0)
		rc = sizes(&o, &b, e);
	if (rc < 0) {
		if (o.fd >= 0)
			close(o.fd);
		return rc;
	}
	*ret = blk_file_backing(f, o.fd);
	ret->bytes = b.bytes;
	ret->read_only = b.read_only;
	ret->block_bytes = b.block_bytes;
	ret->physical_block_bytes = b.physical_block_bytes;
	ret->hidden_bytes = b.hidden_bytes;
	return 0;
}
