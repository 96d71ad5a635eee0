/* SPDX-License-Identifier: Apache-2.0 */
/* See remote.h. */
#include "mem/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mem/uffd_abi.h"

int remote_check(int fd)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char path[40], to[sizeof(want)];
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, to, sizeof(to));
	if (n != (ssize_t)sizeof(want) - 1 || memcmp(to, want, sizeof(want) - 1) != 0)
		return -EINVAL;
	/* poll and read would be of no use without. */
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -EINVAL;
	return 0;
}

static struct remote_event event_of(const struct uffd_msg *m)
{
	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		return (struct remote_event){.kind = REMOTE_FAULT,
					     .start = m->arg.pagefault.address};
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return (struct remote_event){.kind = REMOTE_REMOVE, .start = m->arg.remove.start,
					     .end = m->arg.remove.end};
	case UFFD_EVENT_FORK:
		/* It is in our table now. */
		close((int)m->arg.fork.ufd);
		return (struct remote_event){.kind = REMOTE_OTHER};
	default:
		return (struct remote_event){.kind = REMOTE_OTHER};
	}
}

int remote_events(int fd, struct remote_event ret[static REMOTE_EVENTS_MAX])
{
	struct uffd_msg messages[REMOTE_EVENTS_MAX];
	ssize_t n = read(fd, messages, sizeof(messages));
	int count;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	count = (int)((size_t)n / sizeof(messages[0]));
	for (int i = 0; i < count; i++)
		ret[i] = event_of(&messages[i]);
	return count;
}

int64_t remote_copy(int fd, uint64_t to, const void *from, uint64_t len)
{
	struct uffdio_copy c = {.dst = to, .src = (uintptr_t)from, .len = len};

	if (ioctl(fd, UFFDIO_COPY, &c) == 0)
		return (int64_t)len;
	return c.copy > 0 ? c.copy : -errno;
}

int64_t remote_zero(int fd, uint64_t to, uint64_t len)
{
	struct uffdio_zeropage z = {.range = {.start = to, .len = len}};

	if (ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0)
		return (int64_t)len;
	return z.zeropage > 0 ? z.zeropage : -errno;
}

void remote_wake(int fd, uint64_t start, uint64_t len)
{
	struct uffdio_range range = {.start = start, .len = len};

	(void)ioctl(fd, UFFDIO_WAKE, &range);
}

bool remote_owner_lives(int fd, uint64_t at)
{
	/* What was registered for missing pages alone has no protection to be ended: -ENOENT. */
	struct uffdio_writeprotect wp = {.range = {.start = at, .len = PAGE_BYTES}};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp) == 0 || errno != ESRCH;
}
