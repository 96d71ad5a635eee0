/* SPDX-License-Identifier: Apache-2.0 */
/* See uffd.h. Tests: tests/integration/gmem_test.c, tests/error/. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/size.h"
#include "mem/uffd.h"
#include "mem/uffd_abi.h"

/* The mappings never change while registered, so -EAGAIN can only be a passing state. */
#define EAGAIN_MAX 1000

static int by_call(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : fd;
}

/* Faults of the kernel itself, as KVM's are, need a privilege since 5.11; or this, since 6.1. */
static int by_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

int uffd_new(bool *ret_by_device, struct refusal *ret_refusal)
{
	struct refusal_userfaultfd tried = {.call = by_call(0)};
	int fd;

	*ret_by_device = false;
	if (tried.call >= 0)
		return tried.call;
	/* Whatever was said: a filter that hides the call has no say in the device. */
	fd = by_device();
	*ret_by_device = fd >= 0;
	if (fd >= 0)
		return fd;
	tried.device = fd;
	fd = by_call(UFFD_USER_MODE_ONLY);
	tried.user_only = fd < 0 ? fd : 0;
	if (fd >= 0)
		close(fd);
	refusal_userfaultfd("", &tried, ret_refusal);
	return tried.call;
}

static int open_one(struct err *e)
{
	struct refusal r;
	bool by_dev;
	int fd = uffd_new(&by_dev, &r);

	return fd < 0 ? refusal_err(&r, fd, e) : fd;
}

static int handshake(int fd, uint64_t features, uint64_t *ret_has, struct err *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return err_sys(e, -errno, "userfaultfd: UFFDIO_API");
	*ret_has = api.features;
	return 0;
}

int uffd_open(uint64_t features, uint64_t wanted, uint64_t *ret_has, struct err *e)
{
	uint64_t has = 0;
	int fd = open_one(e);
	int rc;

	if (fd < 0)
		return fd;
	/* Asked without features the kernel tells what it has; it can be asked only once. */
	rc = handshake(fd, 0, &has, e);
	close(fd);
	if (rc < 0)
		return rc;
	if ((features & UFFD_FEATURE_POISON) && !(has & UFFD_FEATURE_POISON))
		return err_set(
			e, -EOPNOTSUPP,
			"userfaultfd: this kernel has no UFFDIO_POISON; Linux 6.6 or later is "
			"needed, or use the kernel's own async page faults");
	if (features & ~has)
		return err_set(
			e, -EOPNOTSUPP,
			"userfaultfd: this kernel lacks feature bits %#llx (shmem, minor faults)",
			(unsigned long long)(features & ~has));
	features |= wanted & has;
	fd = open_one(e);
	if (fd < 0)
		return fd;
	rc = handshake(fd, features, &has, e);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*ret_has = features;
	return fd;
}

int uffd_register(int fd, void *start, uint64_t len, uint64_t modes, struct err *e)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)start, .len = len},
		.mode = modes,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		return err_sys(e, -errno,
			       "userfaultfd: UFFDIO_REGISTER of %s of guest memory",
			       SIZE_WORD(len));
	return 0;
}

void uffd_unregister(int fd, void *start, uint64_t len)
{
	struct uffdio_range range = {.start = (uintptr_t)start, .len = len};

	(void)ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int uffd_wake(int fd, void *start, uint64_t len, struct err *e)
{
	struct uffdio_range range = {.start = (uintptr_t)start, .len = len};

	if (ioctl(fd, UFFDIO_WAKE, &range) < 0)
		return err_sys(e, -errno, "userfaultfd: UFFDIO_WAKE");
	return 0;
}

int uffd_unprotect(int fd, void *start, uint64_t len, struct err *e)
{
	struct uffdio_writeprotect wp = {.range = {.start = (uintptr_t)start, .len = len}};
	unsigned again = 0;

	while (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0) {
		if (errno != EAGAIN || again++ >= EAGAIN_MAX)
			return err_sys(e, -errno, "userfaultfd: UFFDIO_WRITEPROTECT");
		sched_yield();
	}
	return 0;
}

/* One attempt at the rest of a range; *ret_bytes: what it did. 0 or -errno. */
typedef int (*range_step)(int fd, uint64_t start, uint64_t len, int64_t *ret_bytes);

static int do_continue(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *ret_bytes)
{
	struct uffdio_continue c = {.range = {.start = start, .len = len}, .mode = mode};
	int rc = ioctl(fd, UFFDIO_CONTINUE, &c) < 0 ? -errno : 0;

	*ret_bytes = c.mapped;
	return rc;
}

static int step_continue(int fd, uint64_t start, uint64_t len, int64_t *ret_bytes)
{
	return do_continue(fd, start, len, 0, ret_bytes);
}

static int step_continue_protected(int fd, uint64_t start, uint64_t len, int64_t *ret_bytes)
{
	return do_continue(fd, start, len, UFFDIO_CONTINUE_MODE_WP, ret_bytes);
}

static int step_poison(int fd, uint64_t start, uint64_t len, int64_t *ret_bytes)
{
	struct uffdio_poison p = {.range = {.start = start, .len = len}};
	int rc = ioctl(fd, UFFDIO_POISON, &p) < 0 ? -errno : 0;

	*ret_bytes = p.updated;
	return rc;
}

static int over_range(range_step step, const char *what, int fd, void *start, uint64_t len,
		      struct err *e)
{
	uint64_t at = (uintptr_t)start, end = at + len;
	unsigned again = 0;

	while (at < end) {
		int64_t bytes = 0;
		int rc = step(fd, at, end - at, &bytes);

		if (rc == 0)
			return 0;
		if (bytes > 0) {
			at += (uint64_t)bytes;
		} else if (rc == -EEXIST) {
			/* Populated already; somebody may sleep on it all the same. */
			rc = uffd_wake(fd, (void *)(uintptr_t)at, PAGE_BYTES, e);
			if (rc < 0)
				return rc;
			at += PAGE_BYTES;
		} else if (rc == -EAGAIN && again++ < EAGAIN_MAX) {
			sched_yield();
		} else if (rc == -EFAULT) {
			return rc;
		} else {
			return err_sys(e, rc, "userfaultfd: %s", what);
		}
	}
	return 0;
}

int uffd_continue(int fd, void *start, uint64_t len, bool protect, struct err *e)
{
	return over_range(protect ? step_continue_protected : step_continue, "UFFDIO_CONTINUE", fd,
			  start, len, e);
}

int uffd_poison(int fd, void *start, uint64_t len, struct err *e)
{
	return over_range(step_poison, "UFFDIO_POISON", fd, start, len, e);
}
