/* SPDX-License-Identifier: Apache-2.0 */
/* A file as a block device. Needs root, and the loop driver. */
#ifndef TESTS_INTEGRATION_LOOP_FIXTURE_H
#define TESTS_INTEGRATION_LOOP_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOP_DEV_MAX 64

/*
 * A descriptor of the device, which goes with the last one; dev: its path, LOOP_DEV_MAX bytes. -1:
 * there is none to be had.
 */
static inline int loop_attach(int file, char *dev)
{
	const struct loop_config c = {.fd = (uint32_t)file,
				      .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n, fd;
	bool taken;

	if (control < 0)
		return -1;
	/* Others look for a free one, too. */
	do {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(dev, LOOP_DEV_MAX, "/dev/loop%d", n);
		fd = n < 0 ? -1 : open(dev, O_RDWR | O_CLOEXEC);
		taken = fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &c) < 0;
		if (taken)
			close(fd);
	} while (taken && errno == EBUSY);
	close(control);
	return taken ? -1 : fd;
}

#endif
