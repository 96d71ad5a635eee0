/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open() of a test program, instead of the C library's, for the library under test as well: it
 * refuses O_DIRECT and O_TMPFILE where a test says so. Included by one file of a program.
 */
#ifndef TESTS_INTEGRATION_OPEN_FIXTURE_H
#define TESTS_INTEGRATION_OPEN_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool no_direct, no_tmpfile;

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (no_direct && (flags & O_DIRECT)) {
		errno = EINVAL;
		return -1;
	}
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#endif
