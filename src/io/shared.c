/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, and making, a file that several processes read and write at a time. One that is made
 * gets its name when it is whole. Test: tests/integration/cache_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "io/file.h"
#include "io/queue.h"

static int fill(int fd, const struct io_shared *w)
{
	int rc = fd_write_at(fd, w->head, w->head_len, 0);

	if (rc < 0)
		return rc;
	return ftruncate(fd, (off_t)w->bytes) < 0 ? -errno : 0;
}

/* Another process may be at it as well: whoever is first, has made it. */
static int name_it(const char *made, const struct io_shared *w)
{
	if (w->anew)
		return rename(made, w->path) < 0 ? -errno : 0;
	return link(made, w->path) < 0 && errno != EEXIST ? -errno : 0;
}

static int make(const struct io_shared *w, struct err *e)
{
	size_t folder = (size_t)(strrchr(w->path, '/') - w->path);
	size_t room = strlen(w->path) + sizeof(".XXXXXX");
	char *made = malloc(room);
	int fd = -1, rc;

	if (!made)
		return err_set(e, -ENOMEM, "make %s: out of memory", w->path);
	memcpy(made, w->path, folder);
	made[folder] = '\0';
	if (folder > 0)
		(void)mkdir(made, 0700); /* where that fails, what follows says why */
	(void)snprintf(made, room, "%s.XXXXXX", w->path);
	fd = mkostemp(made, O_CLOEXEC);
	rc = fd < 0 ? -errno : fill(fd, w);
	if (rc == 0)
		rc = name_it(made, w);
	if (fd >= 0) {
		(void)unlink(made);
		(void)close(fd);
	}
	free(made);
	return rc < 0 ? err_sys(e, rc, "make %s", w->path) : 0;
}

static int open_it(const char *path, bool *ret_read_only)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	*ret_read_only = fd < 0 && (errno == EACCES || errno == EPERM || errno == EROFS);
	if (*ret_read_only)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int ioq_file_share(void *ctx, const struct io_shared *want, struct io_file **ret,
		   bool *ret_read_only, struct err *e)
{
	int fd = want->anew ? -ENOENT : open_it(want->path, ret_read_only), rc;
	uint64_t size;

	(void)ctx;
	if (fd == -ENOENT) {
		rc = make(want, e);
		if (rc < 0)
			return rc;
		fd = open_it(want->path, ret_read_only);
	}
	if (fd < 0)
		return err_sys(e, fd, "open %s", want->path);
	rc = ioq_file_check(fd, want->path, &size, e);
	if (rc == 0)
		rc = ioq_file_adopt(fd, ret, e);
	if (rc < 0)
		(void)close(fd);
	return rc;
}
