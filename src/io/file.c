/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing the files that io/uring.c reads and writes. Decides what may be a
 * page source: a regular file or a block device, nothing else. Test:
 * tests/integration/uring_test.c.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/uring.h"

static int ioq_file_check(int fd, const char *path, uint64_t *ret_size, struct err *e)
{
	struct stat st;
	uint64_t size;

	if (fstat(fd, &st) != 0)
		return err_sys(e, -errno, "stat %s", path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, -EISDIR, "open %s: it is a directory, not a file", path);
	if (S_ISREG(st.st_mode)) {
		size = (uint64_t)st.st_size;
	} else if (S_ISBLK(st.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, &size) != 0)
			return err_sys(e, -errno, "size of block device %s", path);
	} else {
		return err_set(e, -EINVAL, "open %s: neither a regular file nor a block device",
			       path);
	}
	/* Drops O_NONBLOCK: with it io_uring may fail cold reads with EAGAIN. */
	if (fcntl(fd, F_SETFL, 0) != 0)
		return err_sys(e, -errno, "fcntl on %s", path);
	*ret_size = size;
	return 0;
}

int ioq_file_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		  struct err *e)
{
	struct io_file *file = malloc(sizeof(*file));
	int rc;

	(void)ctx;
	if (!file)
		return err_set(e, -ENOMEM, "open %s: out of memory", path);
	/* O_NONBLOCK: opening a FIFO must fail below, not wait for its writer. */
	file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (file->fd < 0) {
		rc = err_sys(e, -errno, "open %s", path);
		free(file);
		return rc;
	}
	rc = ioq_file_check(file->fd, path, ret_size, e);
	if (rc < 0) {
		(void)close(file->fd);
		free(file);
		return rc;
	}
	*ret_file = file;
	return 0;
}

int ioq_file_adopt(int fd, struct io_file **ret, struct err *e)
{
	struct io_file *file = malloc(sizeof(*file));

	if (!file)
		return err_set(e, -ENOMEM, "open file: out of memory");
	file->fd = fd;
	*ret = file;
	return 0;
}

void ioq_file_close(void *ctx, struct io_file *file)
{
	(void)ctx;
	if (!file)
		return;
	(void)close(file->fd);
	free(file);
}
