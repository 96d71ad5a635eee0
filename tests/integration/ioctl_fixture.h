/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ioctl() of a test program, instead of the C library's, for the library under test as well: one
 * UFFDIO_REGISTER fails where a test says so. Included by one file of a program.
 */
#ifndef TESTS_INTEGRATION_IOCTL_FIXTURE_H
#define TESTS_INTEGRATION_IOCTL_FIXTURE_H

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The how manieth from now on fails; 0: none. */
static unsigned fail_register;

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == UFFDIO_REGISTER && fail_register > 0 && --fail_register == 0) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

#endif
