/* SPDX-License-Identifier: Apache-2.0 */
/* See fd.h. */
#include "base/fd.h"

#include <errno.h>
#include <unistd.h>

/* What one call has written. 0: it is to be made again. */
static int64_t written(ssize_t n)
{
	if (n > 0)
		return n;
	if (n == 0)
		return -ENOSPC;
	return errno == EINTR ? 0 : -errno;
}

int fd_write(int fd, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;

	while (len > 0) {
		int64_t n = written(write(fd, at, len));

		if (n < 0)
			return (int)n;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int fd_write_at(int fd, const void *bytes, size_t len, uint64_t off)
{
	const unsigned char *at = bytes;

	while (len > 0) {
		int64_t n = written(pwrite(fd, at, len, (off_t)off));

		if (n < 0)
			return (int)n;
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}
