/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The swap file: one page that says whose it is, then guest RAM at its RAM offset, as far as
 * it was written out. Decides which files may be overwritten: one that we make, an empty one,
 * or one that says it is ours; nobody's disk image. Its content means nothing once the VM has
 * ended. Test: tests/integration/overcommit_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/zero.h"
#include "lib/apf.h"
#include "source/source.h"

#define HEAD_BYTES PAGE_BYTES
/* Of a device: file systems and volumes have their marks in there. */
#define LOOK_BYTES (1u << 20)

static const char magic[] = "asyncpf swap file, version 1\n";

/* A device that is in use, mounted for example, is refused by O_EXCL. */
static int open_or_make(const char *path, bool *ret_made, struct err *e)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOCTTY;
	int fd = open(path, flags | O_CREAT | O_EXCL, 0600);
	struct stat st;

	*ret_made = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = open(path, flags | O_NONBLOCK |
					(stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? O_EXCL : 0));
	return fd < 0 ? err_sys(e, -errno, "swap file %s", path) : fd;
}

/* May we overwrite it? An empty file, and a device that starts with zeroes, have no owner. */
static int check_owner(int fd, const char *path, bool device, struct err *e)
{
	size_t look = device ? LOOK_BYTES : HEAD_BYTES;
	unsigned char *head = malloc(look);
	bool ours;
	ssize_t n;

	if (!head)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	n = pread(fd, head, look, 0);
	ours = n == 0 || (n >= (ssize_t)sizeof(magic) && memcmp(head, magic, sizeof(magic)) == 0) ||
	       (device && n > 0 && is_zero(head, (size_t)n));
	free(head);
	if (n < 0)
		return err_sys(e, -errno, "swap file %s: read", path);
	if (ours)
		return 0;
	return err_set(e, -EEXIST, "swap file %s: it has content that is not ours; remove it, or "
		       "name a file that does not exist", path);
}

static int check_size(int fd, const char *path, uint64_t want, struct err *e)
{
	uint64_t have;

	if (ioctl(fd, BLKGETSIZE64, &have) < 0)
		return err_sys(e, -errno, "swap file %s: size", path);
	if (have < want)
		return err_set(e, -ENOSPC, "swap file %s: the device has %llu bytes; guest memory "
			       "takes %llu", path, (unsigned long long)have,
			       (unsigned long long)want);
	return 0;
}

static int prepare(int fd, const char *path, uint64_t bytes, struct err *e)
{
	unsigned char head[HEAD_BYTES] = {0};
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "swap file %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, -EINVAL, "swap file %s: neither a regular file nor a block "
			       "device", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "swap file %s: another VM uses it; name another file",
			       path);
	rc = check_owner(fd, path, S_ISBLK(st.st_mode), e);
	if (rc == 0 && S_ISBLK(st.st_mode))
		rc = check_size(fd, path, HEAD_BYTES + bytes, e);
	if (rc < 0)
		return rc;
	memcpy(head, magic, sizeof(magic));
	/* O_NONBLOCK was for opening a FIFO by mistake; with it io_uring may fail with EAGAIN. */
	if (fcntl(fd, F_SETFL, 0) < 0 || pwrite(fd, head, sizeof(head), 0) != sizeof(head))
		return err_sys(e, -errno, "swap file %s: write", path);
	/* First without what a VM left behind that was killed: it takes up room for nothing. */
	if (S_ISREG(st.st_mode) && (ftruncate(fd, HEAD_BYTES) < 0 ||
				    ftruncate(fd, (off_t)(HEAD_BYTES + bytes)) < 0))
		return err_sys(e, -errno, "swap file %s: size", path);
	return 0;
}

/* A URI's path with everything escaped that could mean something else; NULL: no memory. */
static char *escaped(const char *path)
{
	char *text = malloc(3 * strlen(path) + 1), *out = text;

	for (; text && *path; path++) {
		if (strchr("%?&#", *path))
			out += snprintf(out, 4, "%%%02X", (unsigned char)*path);
		else
			*out++ = *path;
	}
	if (text)
		*out = 0;
	return text;
}

/* Reads go through a source, so that wrappers fit around it. wrap: "delay?ms=20", or NULL. */
static int open_source(struct apf *a, const char *path, const char *wrap, struct err *e)
{
	const struct src_env env = lib_src_env(a);
	const char *keys = wrap ? strchr(wrap, '?') : NULL;
	char *safe, *uri = NULL;
	int rc;

	if (!wrap)
		return src_file_open(path, &env, &a->evict.src, e);
	safe = escaped(path);
	if (!safe || asprintf(&uri, "%.*s+file:%s%s", (int)strcspn(wrap, "?"), wrap, safe,
			      keys ? keys : "") < 0)
		rc = err_sys(e, -ENOMEM, "swap file %s", path);
	else
		rc = src_open(uri, &env, &a->evict.src, e);
	free(uri);
	free(safe);
	return rc;
}

int lib_swap_open(struct apf *a, struct err *e)
{
	const char *path = a->cfg.swap;
	uint64_t bytes = a->hst.ram.bytes;
	int rc;

	if (!path)
		return 0;
	a->evict.fd = open_or_make(path, &a->evict.made, e);
	if (a->evict.fd < 0)
		return a->evict.fd;
	a->evict.path = strdup(path);
	if (!a->evict.path)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	rc = prepare(a->evict.fd, path, bytes, e);
	if (rc == 0)
		rc = open_source(a, path, a->cfg.swap_wrap, e);
	if (rc == 0)
		rc = ioq_file_adopt(a->evict.fd, &a->evict.file, e);
	if (rc < 0)
		return rc;
	a->hst.swap = (struct hst_swap){
		.io = ioq_io(a->ioq),
		.file = a->evict.file,
		.offset = HEAD_BYTES,
		.backing = {.bytes = bytes, .src = a->evict.src, .src_offset = HEAD_BYTES},
	};
	grace_init(&a->hst.swap.backing.grace);
	return 0;
}

void lib_swap_close(struct apf *a)
{
	struct io io;

	src_close(a->evict.src);
	/* Not ours to keep, nor to leave gigabytes in. */
	if (a->evict.made && a->evict.path)
		(void)unlink(a->evict.path);
	else if (a->evict.file)
		(void)!ftruncate(a->evict.fd, HEAD_BYTES);
	if (a->evict.file) {
		io = ioq_io(a->ioq);
		io.ops->close(io.ctx, a->evict.file);
	} else if (a->evict.fd >= 0) {
		(void)close(a->evict.fd);
	}
	free(a->evict.path);
}
