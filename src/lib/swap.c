/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where evicted memory goes: a file of ours, or a block device. The configured path only says
 * where the file is to be. It has no name of its own from the start, so that nothing of the guest
 * is left when the process is killed, and nobody else's file is ever written, cut or removed: what
 * exists under the path is refused, unless it is a block device. A device must start with zeroes
 * or with our mark, which lies in a page before guest RAM; what is on it means nothing once the
 * VM has ended. Tests: tests/integration/swap_file_test.c, overcommit_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/size.h"
#include "base/zero.h"
#include "lib/internal.h"
#include "source/source.h"

/* Of a device: our mark. */
#define HEAD_BYTES PAGE_BYTES
/* Of a device: file systems and volumes have their marks in there. */
#define LOOK_BYTES (1u << 20)

static const char magic[] = "asyncpf swap file, version 1\n";

/* ---- a file of ours ---- */

/* Where there is no O_TMPFILE: it has a name for a moment, which nobody can have guessed. */
static int make_named(const char *dir, const char *path, struct err *e)
{
	uint64_t random;
	char *name;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_sys(e, -errno, "swap file %s: a name for it", path);
	if (asprintf(&name, "%s/.asyncpf-swap-%016llx", dir, (unsigned long long)random) < 0)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = err_sys(e, -errno, "swap file %s: make a file in %s", path, dir);
	else
		(void)unlink(name);
	free(name);
	return fd;
}

static int make_file(const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	char *dir = slash ? strndup(path, len ? len : 1) : strdup(".");
	int fd;

	if (!dir)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	/* O_EXCL: it can never be given a name. */
	fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	/* Old kernels and some file systems take O_TMPFILE for the directory that it contains. */
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
		fd = make_named(dir, path, e);
	else if (fd < 0)
		fd = err_sys(e, -errno, "swap file %s: make a file in %s", path, dir);
	free(dir);
	return fd;
}

static int size_file(int fd, const char *path, uint64_t bytes, struct err *e)
{
	if (ftruncate(fd, (off_t)bytes) < 0)
		return err_sys(e, -errno, "swap file %s: make it %s long", path,
			       SIZE_WORD(bytes));
	return 0;
}

static bool is_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* ---- a block device ---- */

/* May we overwrite it? A device that starts with zeroes has no owner. */
static int check_owner(int fd, const char *path, struct err *e)
{
	unsigned char *head = malloc(LOOK_BYTES);
	bool ours;
	ssize_t n;

	if (!head)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	n = pread(fd, head, LOOK_BYTES, 0);
	ours = n >= (ssize_t)sizeof(magic) &&
	       (memcmp(head, magic, sizeof(magic)) == 0 || is_zero(head, (size_t)n));
	free(head);
	if (n < 0)
		return err_sys(e, -errno, "swap file %s: read", path);
	if (ours)
		return 0;
	return err_set(e, -EEXIST, "swap file %s: the device has content that is not ours; name "
		       "another one, or clear its first %u bytes if nobody needs them", path,
		       LOOK_BYTES);
}

static int check_size(int fd, const char *path, uint64_t want, struct err *e)
{
	uint64_t have;

	if (ioctl(fd, BLKGETSIZE64, &have) < 0)
		return err_sys(e, -errno, "swap file %s: size", path);
	if (have < want)
		return err_set(e, -ENOSPC, "swap file %s: the device has %s, guest memory takes "
			       "%s; name a larger one", path, SIZE_WORD(have), SIZE_WORD(want));
	return 0;
}

static int mark_device(int fd, const char *path, uint64_t bytes, struct err *e)
{
	unsigned char head[HEAD_BYTES] = {0};
	int read_only = 0;
	int rc;

	if (ioctl(fd, BLKROGET, &read_only) == 0 && read_only)
		return err_set(e, -EROFS, "swap file %s: the device is read-only; name another "
			       "one", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, -EBUSY, "swap file %s: another VM uses it; name another one",
			       path);
	rc = check_owner(fd, path, e);
	if (rc == 0)
		rc = check_size(fd, path, HEAD_BYTES + bytes, e);
	if (rc < 0)
		return rc;
	memcpy(head, magic, sizeof(magic));
	rc = fd_write_at(fd, head, sizeof(head), 0);
	return rc < 0 ? err_sys(e, rc, "swap file %s: write", path) : 0;
}

/*
 * at: what the path led to when it was looked at. It is opened as that, not by its name, which
 * may lead elsewhere now. O_EXCL: a device that is in use, mounted for example, is refused.
 */
static int open_device(int at, const char *path, struct err *e)
{
	char self[40];
	int fd;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", at);
	fd = open(self, O_RDWR | O_EXCL | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0)
		return fd;
	if (errno == EBUSY)
		return err_set(e, -EBUSY, "swap file %s: in use: the device is mounted, swapped "
			       "to, part of another device, or a disk of a VM; name another one",
			       path);
	return err_sys(e, -errno, "swap file %s: open the device", path);
}

/* ---- either ---- */

static const char *what_is(mode_t mode)
{
	return S_ISREG(mode)    ? "a file"
	       : S_ISDIR(mode)  ? "a directory"
	       : S_ISLNK(mode)  ? "a symbolic link"
	       : S_ISFIFO(mode) ? "a FIFO"
	       : S_ISCHR(mode)  ? "a character device"
				: "a socket";
}

static int refuse(const char *path, mode_t mode, struct err *e)
{
	return err_set(e, -EEXIST, "swap file %s: it exists, as %s, and is left alone, for it may "
		       "be somebody's; name a path where nothing is, or a block device", path,
		       what_is(mode));
}

/* A symbolic link is followed to a block device (/dev/disk/by-id), and nowhere else. */
static int open_or_make(const char *path, bool *ret_device, struct err *e)
{
	struct stat name, st = {0};
	int at, fd;

	if (lstat(path, &name) < 0) {
		*ret_device = false;
		return errno == ENOENT ? make_file(path, e)
				       : err_sys(e, -errno, "swap file %s", path);
	}
	at = open(path, O_PATH | O_CLOEXEC);
	if (at < 0 || fstat(at, &st) < 0 || !S_ISBLK(st.st_mode))
		fd = refuse(path, name.st_mode, e);
	else
		fd = open_device(at, path, e);
	if (at >= 0)
		(void)close(at);
	*ret_device = true;
	return fd;
}

/* Reads go through a source, so that wrappers fit around it. */
static int open_source(struct apf *a, uint64_t file_bytes, struct err *e)
{
	struct src_env env = lib_src_env(a);
	struct src *s;
	int rc = src_file_lend(a->evict.file, file_bytes, a->cfg.swap, &env, &s, e);

	if (rc == 0 && a->cfg.swap_wrap)
		rc = src_wrap(a->cfg.swap_wrap, s, &env, &s, e);
	if (rc == 0)
		a->evict.src = s;
	return rc;
}

int lib_swap_open(struct apf *a, struct err *e)
{
	const char *path = a->cfg.swap;
	uint64_t bytes = a->hst.ram.end, head;
	bool device;
	int fd, rc;

	if (!path)
		return 0;
	a->evict.path = strdup(path);
	if (!a->evict.path)
		return err_sys(e, -ENOMEM, "swap file %s", path);
	fd = open_or_make(path, &device, e);
	if (fd < 0)
		return fd;
	head = device ? HEAD_BYTES : 0;
	rc = device ? mark_device(fd, path, bytes, e) : size_file(fd, path, bytes, e);
	if (rc == 0)
		rc = ioq_file_adopt(fd, &a->evict.file, e);
	if (rc < 0) {
		(void)close(fd);
		return rc;
	}
	a->hst.io.ops->uncached(a->hst.io.ctx, a->evict.file);
	/* Nothing is read that was not written. */
	rc = open_source(a, head + a->span, e);
	if (rc < 0)
		return rc;
	a->evict.fd = fd;
	a->evict.device = device;
	a->evict.in_memory = !device && is_memory(fd);
	a->hst.swap = (struct hst_swap){
		.io = a->hst.io,
		.file = a->evict.file,
		.offset = head,
		.backing = {.bytes = a->span, .src = a->evict.src, .src_offset = head},
	};
	grace_init(&a->hst.swap.backing.grace);
	return 0;
}

int lib_swap_grow(struct apf *a, uint64_t bytes, struct err *e)
{
	const char *path = a->evict.path;

	if (!a->evict.file)
		return 0;
	return a->evict.device ? check_size(a->evict.fd, path, HEAD_BYTES + bytes, e)
			       : size_file(a->evict.fd, path, bytes, e);
}

/* The file goes with its descriptor. */
void lib_swap_close(struct apf *a)
{
	src_close(a->evict.src);
	if (a->evict.file)
		a->hst.io.ops->close(a->hst.io.ctx, a->evict.file);
	free(a->evict.path);
}
