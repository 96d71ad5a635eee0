/* SPDX-License-Identifier: Apache-2.0 */
/* See output.h. */
#include "image/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define BUFFER_BYTES (1u << 20)
#define TEMPORARY "/.asyncpf-XXXXXX"

static void end(struct img_out *o)
{
	if (o->fd >= 0)
		close(o->fd);
	free(o->folder);
	free(o->temporary);
	free(o->buffer);
	o->fd = -1;
	o->folder = o->temporary = NULL;
	o->buffer = NULL;
}

void img_out_drop(struct img_out *o)
{
	if (o->fd >= 0)
		(void)unlink(o->temporary);
	end(o);
}

static int refuse_existing(const char *path, bool force, struct err *e)
{
	struct stat st;

	/* A link to nothing is there, too. */
	if (stat(path, &st) < 0 && (errno != ENOENT || lstat(path, &st) < 0))
		return errno == ENOENT ? 0 : err_sys(e, -errno, "cannot write %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return err_set(e, -EEXIST, "cannot write %s: it is no regular file; name "
			       "another", path);
	if (!force)
		return err_set(e, -EEXIST, "cannot write %s: it exists; --force replaces it", path);
	return 0;
}

/* "folder/.asyncpf-XXXXXX"; the folder's own name, too. */
static bool name_parts(struct img_out *o)
{
	const char *slash = strrchr(o->path, '/');
	size_t len = slash ? (size_t)(slash - o->path) : 0;

	o->folder = !slash ? strdup(".") : len == 0 ? strdup("/") : strndup(o->path, len);
	return o->folder && asprintf(&o->temporary, "%s" TEMPORARY, o->folder) >= 0;
}

static mode_t masked(mode_t mode)
{
	mode_t mask = umask(0777);

	(void)umask(mask);
	return mode & 0666 & ~mask;
}

int img_out_open(struct img_out *o, const char *path, mode_t mode, bool force, struct err *e)
{
	const char *slash = strrchr(path, '/');
	int rc = refuse_existing(path, force, e);

	if (rc < 0)
		return rc;
	if (!*(slash ? slash + 1 : path))
		return err_set(e, -EISDIR, "cannot write %s: a folder's name; name a file", path);
	*o = (struct img_out){.fd = -1, .path = path, .force = force};
	o->buffer = malloc(BUFFER_BYTES);
	if (!name_parts(o) || !o->buffer) {
		end(o);
		return err_sys(e, -ENOMEM, "cannot write %s", path);
	}
	o->fd = mkostemp(o->temporary, O_CLOEXEC);
	if (o->fd < 0) {
		rc = err_sys(e, -errno, "cannot write %s: a file in %s", path, o->folder);
		end(o);
		return rc;
	}
	/* Where it fails it stays what nobody else may read. */
	(void)fchmod(o->fd, masked(mode));
	return 0;
}

/* rc: of a write. */
static int written(const struct img_out *o, int rc, struct err *e)
{
	return rc < 0 ? err_sys(e, rc, "cannot write %s", o->path) : 0;
}

static int flush(struct img_out *o, struct err *e)
{
	size_t len = o->buffered;

	o->buffered = 0;
	return written(o, fd_write(o->fd, o->buffer, len), e);
}

int img_out_add(struct img_out *o, const void *bytes, size_t len, struct err *e)
{
	if (len > BUFFER_BYTES - o->buffered) {
		int rc = flush(o, e);

		if (rc < 0 || len > BUFFER_BYTES)
			return rc < 0 ? rc : written(o, fd_write(o->fd, bytes, len), e);
	}
	memcpy(o->buffer + o->buffered, bytes, len);
	o->buffered += len;
	return 0;
}

int img_out_write(const struct img_out *o, uint64_t offset, const void *bytes, size_t len,
		  struct err *e)
{
	return written(o, fd_write_at(o->fd, bytes, len, offset), e);
}

int img_out_sync(struct img_out *o, struct err *e)
{
	int rc = flush(o, e);

	if (rc == 0 && fsync(o->fd) < 0)
		rc = err_sys(e, -errno, "cannot write %s to its disk", o->path);
	return rc;
}

/* 0 or -errno. */
static int give_name(const struct img_out *o)
{
	if (o->force)
		return rename(o->temporary, o->path) < 0 ? -errno : 0;
	/* Nobody's file is replaced that was made meanwhile. */
	if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EPERM)
		return -errno;
	/* A file system that cannot do it in one step, or a filter that does not let it. */
	if (link(o->temporary, o->path) == 0)
		return unlink(o->temporary) < 0 ? -errno : 0;
	if (errno != EPERM && errno != EOPNOTSUPP)
		return -errno;
	if (access(o->path, F_OK) == 0)
		return -EEXIST;
	return rename(o->temporary, o->path) < 0 ? -errno : 0;
}

int img_out_commit(struct img_out *o, struct err *e)
{
	int rc = give_name(o), fd;

	if (rc < 0) {
		rc = rc == -EEXIST ? err_set(e, rc, "cannot write %s: somebody has made it "
					     "meanwhile; "
					     "--force replaces it", o->path)
				   : err_sys(e, rc, "cannot write %s", o->path);
		img_out_drop(o);
		return rc;
	}
	/* The name as well. A folder that cannot be synced has it as soon as it can. */
	fd = open(o->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	end(o);
	return 0;
}
