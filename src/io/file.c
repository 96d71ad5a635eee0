/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing the files that a queue reads and writes. Decides what may be a
 * page source: a regular file or a block device, nothing else. Test:
 * tests/integration/uring_test.c.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "base/types.h"
#include "io/cachestat.h"
#include "io/queue.h"

int ioq_file_check(int fd, const char *path, uint64_t *ret_size, struct err *e)
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
		return err_set(e, -EINVAL, "open %s: neither a regular file nor a block device; "
			       "name one", path);
	}
	/* Drops O_NONBLOCK: with it io_uring may fail cold reads with EAGAIN. */
	if (fcntl(fd, F_SETFL, 0) != 0)
		return err_sys(e, -errno, "fcntl on %s", path);
	*ret_size = size;
	return 0;
}

/* All zeroes where the kernel does not tell. */
static struct ioq_version version_of(int fd)
{
	struct statx st;

	/* Never over a network: what is known here has to do. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
		  STATX_SIZE | STATX_MTIME | STATX_CTIME, &st) != 0)
		return (struct ioq_version){.size = 0};
	return (struct ioq_version){
		.size = st.stx_size,
		.seconds = {st.stx_mtime.tv_sec, st.stx_ctime.tv_sec},
		.ns = {st.stx_mtime.tv_nsec, st.stx_ctime.tv_nsec},
	};
}

/*
 * Changed so lately that another change may leave the same time behind: within two ticks of the
 * kernel's, or within two seconds where the file system keeps whole ones.
 */
static bool is_recent(const struct ioq_version *v)
{
	bool later = v->seconds[1] > v->seconds[0] ||
		     (v->seconds[1] == v->seconds[0] && v->ns[1] > v->ns[0]);
	uint64_t changed = (uint64_t)v->seconds[later] * NS_PER_S + v->ns[later], apart;
	struct timespec now, tick;

	if (clock_gettime(CLOCK_REALTIME_COARSE, &now) != 0 ||
	    clock_getres(CLOCK_REALTIME_COARSE, &tick) != 0)
		return true;
	apart = v->ns[0] == 0 && v->ns[1] == 0 ? 2 * NS_PER_S : 2 * ns_of_timespec(tick);
	return changed + apart > ns_of_timespec(now);
}

bool ioq_file_unchanged(void *ctx, const struct io_file *file)
{
	struct ioq_version now = version_of(file->fd);

	(void)ctx;
	return now.size == file->version.size && now.seconds[0] == file->version.seconds[0] &&
	       now.seconds[1] == file->version.seconds[1] && now.ns[0] == file->version.ns[0] &&
	       now.ns[1] == file->version.ns[1];
}

int ioq_file_hole(void *ctx, struct io_file *file, uint64_t off, uint64_t *ret_from,
		  uint64_t *ret_to)
{
	off_t from = lseek(file->fd, (off_t)off, SEEK_HOLE), to;
	uint64_t size = file->version.size;

	(void)ctx;
	if (from < 0)
		return -errno;
	if (file->just_changed)
		return -EAGAIN;
	/* Behind each file's end there is one. */
	if ((uint64_t)from >= size)
		return -ENXIO;
	to = lseek(file->fd, from, SEEK_DATA);
	if (to < 0 && errno != ENXIO)
		return -errno;
	*ret_from = (uint64_t)from;
	*ret_to = to < 0 ? size : (uint64_t)to;
	return 0;
}

/*
 * No way around it where the kernel has no such call, or refuses it to those who neither own the
 * file nor may write it: mincore() tells those that all of it is there.
 */
int64_t ioq_file_cached(void *ctx, const struct io_file *file, uint64_t off, uint64_t len)
{
	struct io_cachestat_range range = {.off = align_up(off, PAGE_BYTES)};
	struct io_cachestat now;

	(void)ctx;
	range.len = align_up(off + len, PAGE_BYTES) - range.off;
	if (range.len == 0 || file->direct_fd >= 0)
		return 0;
	if (syscall(SYS_cachestat, file->fd, &range, &now, 0) != 0)
		return -errno;
	return (int64_t)(now.cache << PAGE_SHIFT);
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
	*file = (struct io_file){
		.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY),
		.direct_fd = -1,
		.hits = IOQ_HITS_ONE,
	};
	if (file->fd < 0) {
		rc = err_sys(e, -errno, "open %s", path);
		free(file);
		return rc;
	}
	/* First: a change from here on is noticed. */
	file->version = version_of(file->fd);
	file->just_changed = is_recent(&file->version);
	rc = ioq_file_check(file->fd, path, ret_size, e);
	if (rc < 0) {
		(void)close(file->fd);
		free(file);
		return rc;
	}
	*ret_file = file;
	return 0;
}

int ioq_file_load(void *ctx, struct io_file *file, const char *path, uint64_t off, void *buf,
		  size_t len, struct err *e)
{
	ssize_t n;

	(void)ctx;
	for (size_t got = 0; got < len; got += (size_t)n) {
		n = pread(file->fd, (char *)buf + got, len - got, (off_t)(off + got));
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return err_sys(e, -errno, "read %s at byte %llu", path,
				       (unsigned long long)(off + got));
		else if (n == 0)
			return err_set(e, -EIO, "%s ended at byte %llu while it was opened", path,
				       (unsigned long long)(off + got));
	}
	return 0;
}

int ioq_file_adopt(int fd, struct io_file **ret, struct err *e)
{
	struct io_file *file = malloc(sizeof(*file));

	if (!file)
		return err_set(e, -ENOMEM, "open file: out of memory");
	*file = (struct io_file){.fd = fd, .direct_fd = -1, .hits = IOQ_HITS_ONE};
	*ret = file;
	return 0;
}

/* What O_DIRECT asks for; 0: the file system takes it, but goes through the page cache. */
static uint32_t direct_align(int fd)
{
	struct statx st;

	/* Not every file system tells; a page suits all that are known. */
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) != 0 ||
	    !(st.stx_mask & STATX_DIOALIGN))
		return PAGE_BYTES;
	return st.stx_dio_offset_align > st.stx_dio_mem_align ? st.stx_dio_offset_align
							      : st.stx_dio_mem_align;
}

/*
 * A second description of the open file, not of its name: what stands there now may be another
 * file, and a file that was never named has none. Where there is no /proc, the page cache is
 * used, and given back.
 */
void ioq_file_uncached(void *ctx, struct io_file *file)
{
	char path[40];
	int flags = fcntl(file->fd, F_GETFL);

	(void)ctx;
	if (file->uncached || flags < 0)
		return;
	file->uncached = true;
	/* What is read ahead of the requests would be there for nobody. */
	(void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	file->direct_fd = open(path, (flags & O_ACCMODE) | O_DIRECT | O_CLOEXEC | O_NOCTTY);
	if (file->direct_fd < 0)
		return;
	file->direct_align = direct_align(file->direct_fd);
	if (file->direct_align == 0) {
		(void)close(file->direct_fd);
		file->direct_fd = -1;
	}
}

void ioq_file_close(void *ctx, struct io_file *file)
{
	(void)ctx;
	if (!file)
		return;
	if (file->direct_fd >= 0)
		(void)close(file->direct_fd);
	(void)close(file->fd);
	free(file);
}
