/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded by tests/error/demo_host_test.py, run_disk_test.py, run_lost_test.py,
 * run_memory_test.py and sandbox_test.py, and by tests/integration/check_test.py: lets one call
 * fail, or hides what the host has, so that every refusal can be provoked on a host that refuses
 * nothing.
 *
 *   SHIM_FAIL="CALL FIRST TIMES ERRNO"  calls FIRST..FIRST+TIMES-1 of CALL fail (from 1).
 *             CALL: calloc, mmap, memfd_create, eventfd, timerfd_create,
 *             pthread_create, preadv, pwritev, fdatasync,
 *             tmpfile (open with O_TMPFILE), ioctl:0xNNNN
 *   SHIM_FORBIDDEN=1 each of these calls makes socket(2) before, which no role of a sandbox has
 *   SHIM_CAP=N       KVM_CHECK_EXTENSION(N) answers 0
 *   SHIM_NO_POISON=1 userfaultfd does not announce UFFDIO_POISON
 *   SHIM_HIT=FILE    is created when a call was made to fail
 *   SHIM_GATE=FIFO   such a call returns when somebody opens it for writing
 *   SHIM_ADDRESSES=1 takes half of all addresses, and no memory
 *   SHIM_LATE_US=N   KVM_RUN returns that much later, as if its thread had not had a CPU
 *   SHIM_LOSE_UFFD=FIFO  once somebody opens it for writing, every userfaultfd of the process is
 *             closed
 *
 * Counting starts with main(); any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* struct uffdio_api and its request: older headers than the kernel are fine for this. */
struct shim_uffdio_api {
	uint64_t api, features, ioctls;
};
#define SHIM_UFFDIO_API _IOWR(0xaa, 0x3f, struct shim_uffdio_api)
#define SHIM_FEATURE_POISON (1ull << 14)

#define EXPORT __attribute__((visibility("default")))

void *__libc_calloc(size_t n, size_t size);

/* Not a call that fails: the descriptor goes while it is in use. */
static void *lose_userfaultfds(void *fifo)
{
	char path[64], target[64];

	(void)syscall(SYS_close, syscall(SYS_open, fifo, O_RDONLY | O_CLOEXEC));
	for (int fd = 3; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(path, target, sizeof(target) - 1);

		if (n > 0) {
			target[n] = '\0';
			if (strstr(target, "userfaultfd"))
				(void)syscall(SYS_close, fd);
		}
	}
	return NULL;
}

static struct {
	char call[32];
	unsigned first, times;
	int code;
	unsigned seen; /* atomic */
	unsigned cap;
	unsigned late_us;
	bool hide_cap, hide_poison, forbidden;
	const char *hit, *gate;
} shim;

__attribute__((constructor)) static void shim_start(void)
{
	const char *fail = getenv("SHIM_FAIL");
	const char *cap = getenv("SHIM_CAP");
	const char *late = getenv("SHIM_LATE_US");

	if (fail && sscanf(fail, "%31s %u %u %d", shim.call, &shim.first, &shim.times,
			   &shim.code) != 4)
		abort();
	shim.hide_cap = cap && sscanf(cap, "%u", &shim.cap) == 1;
	if (late && sscanf(late, "%u", &shim.late_us) != 1)
		abort();
	shim.hide_poison = getenv("SHIM_NO_POISON") != NULL;
	shim.forbidden = getenv("SHIM_FORBIDDEN") != NULL;
	shim.hit = getenv("SHIM_HIT");
	shim.gate = getenv("SHIM_GATE");
	if (getenv("SHIM_ADDRESSES") &&
	    syscall(SYS_mmap, NULL, 1ul << 46, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0)
		abort();
	if (getenv("SHIM_LOSE_UFFD")) {
		sigset_t all, old;
		pthread_t thread;

		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		if (pthread_create(&thread, NULL, lose_userfaultfds, getenv("SHIM_LOSE_UFFD")))
			abort();
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
}

/* True, with errno set, if this call is one that shall fail. */
static bool fails(const char *call)
{
	unsigned n;

	if (strcmp(call, shim.call) != 0)
		return false;
	n = __atomic_add_fetch(&shim.seen, 1, __ATOMIC_RELAXED);
	if (n < shim.first || n - shim.first >= shim.times)
		return false;
	if (shim.hit)
		(void)syscall(SYS_close, syscall(SYS_open, shim.hit, O_CREAT | O_WRONLY, 0600));
	if (shim.gate)
		(void)syscall(SYS_close, syscall(SYS_open, shim.gate, O_RDONLY));
	if (shim.forbidden)
		(void)syscall(SYS_socket, 1, 1, 0);
	errno = shim.code;
	return true;
}

EXPORT void *calloc(size_t n, size_t size)
{
	return fails("calloc") ? NULL : __libc_calloc(n, size);
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (fails("mmap"))
		return MAP_FAILED;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

EXPORT int memfd_create(const char *name, unsigned flags)
{
	return fails("memfd_create") ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

EXPORT int eventfd(unsigned count, int flags)
{
	return fails("eventfd") ? -1 : (int)syscall(SYS_eventfd2, count, flags);
}

/* On x86-64 the offset is in one register; the other is for larger ones. */
EXPORT ssize_t preadv(int fd, const struct iovec *v, int count, off_t off)
{
	return fails("preadv") ? -1 : syscall(SYS_preadv, fd, v, count, off, 0);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *v, int count, off_t off)
{
	return fails("pwritev") ? -1 : syscall(SYS_pwritev, fd, v, count, off, 0);
}

EXPORT int fdatasync(int fd)
{
	return fails("fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

EXPORT int timerfd_create(clockid_t clock, int flags)
{
	return fails("timerfd_create") ? -1 : (int)syscall(SYS_timerfd_create, clock, flags);
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	unsigned mode = va_arg(ap, unsigned); /* unused when the caller gave none */
	va_end(ap);
	if ((flags & O_TMPFILE) == O_TMPFILE && fails("tmpfile"))
		return -1;
	return (int)syscall(SYS_open, path, flags, mode);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	void *symbol = dlsym(RTLD_NEXT, "pthread_create");

	if (fails("pthread_create"))
		return errno;
	memcpy(&real, &symbol, sizeof(real));
	return real(thread, attr, run, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	char call[32];
	va_list ap;
	int rc;

	va_start(ap, request);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	snprintf(call, sizeof(call), "ioctl:%#lx", request);
	if (fails(call))
		return -1;
	if (request == KVM_CHECK_EXTENSION && shim.hide_cap && (uintptr_t)arg == shim.cap)
		return 0;
	rc = (int)syscall(SYS_ioctl, fd, request, arg);
	if (request == KVM_RUN && shim.late_us) {
		int code = errno;

		(void)usleep(shim.late_us);
		errno = code;
	}
	if (rc == 0 && request == SHIM_UFFDIO_API && shim.hide_poison)
		((struct shim_uffdio_api *)arg)->features &= ~SHIM_FEATURE_POISON;
	return rc;
}
