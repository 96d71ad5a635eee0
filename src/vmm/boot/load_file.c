/* SPDX-License-Identifier: Apache-2.0 */
/* See load_file.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/boot/load_file.h"

static int read_all(int fd, const char *path, const char *what, unsigned char *to, size_t len,
		    struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, to + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "%s %s", what, path);
		if (n == 0)
			return err_set(e, -EIO, "%s %s: became shorter while it was read", what,
				       path);
		done += (size_t)n;
	}
	return 0;
}

static int read_fd(int fd, const char *path, const char *what, uint64_t bytes_max,
		   struct load_bytes *ret, struct err *e)
{
	unsigned char *bytes;
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "%s %s", what, path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s %s: not a regular file; name one", what, path);
	if (st.st_size == 0)
		return err_set(e, -EINVAL, "%s %s: an empty file; name a whole one", what,
			       path);
	if ((uint64_t)st.st_size > bytes_max)
		return err_set(e, -EFBIG, "%s %s: %lld bytes; at most %llu are possible", what,
			       path, (long long)st.st_size, (unsigned long long)bytes_max);
	bytes = malloc((size_t)st.st_size);
	if (!bytes)
		return err_sys(e, -ENOMEM, "%s %s: %lld bytes", what, path,
			       (long long)st.st_size);
	rc = read_all(fd, path, what, bytes, (size_t)st.st_size, e);
	if (rc < 0) {
		free(bytes);
		return rc;
	}
	*ret = (struct load_bytes){.name = path, .bytes = bytes, .len = (size_t)st.st_size};
	return 0;
}

int load_file_read(const char *path, const char *what, uint64_t bytes_max, struct load_bytes *ret,
		   struct err *e)
{
	/* O_NONBLOCK: opening a FIFO must not wait for a writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc;

	if (fd < 0)
		return err_sys(e, -errno, "%s %s", what, path);
	rc = read_fd(fd, path, what, bytes_max, ret, e);
	close(fd);
	return rc;
}

void load_file_free(struct load_bytes *f)
{
	free((void *)(uintptr_t)f->bytes);
	*f = (struct load_bytes){0};
}
