/* SPDX-License-Identifier: Apache-2.0 */
/* See own.h. Test: tests/integration/adopt_test.c. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/size.h"
#include "base/types.h"
#include "mem/memfd.h"
#include "mem/own.h"
#include "rights/refusal.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

int own_check_fd(int fd, uint64_t offset, uint64_t bytes, struct err *e)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return err_sys(e, -errno, "guest memory: descriptor %d", fd);
	if (fs.f_type == HUGETLBFS_MAGIC)
		return err_set(e, -EINVAL, "guest memory: descriptor %d is of hugetlbfs, where no "
			       "single page can be absent; use a memfd without MFD_HUGETLB", fd);
	if (!S_ISREG(st.st_mode) || fs.f_type != TMPFS_MAGIC)
		return err_set(e, -EINVAL, "guest memory: descriptor %d is no memfd and no file of "
			       "a tmpfs; only there can absent memory be watched", fd);
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return err_set(e, -EINVAL, "guest memory: descriptor %d is not open for reading "
			       "and writing", fd);
	if (offset % PAGE_BYTES != 0 || (uint64_t)st.st_size < bytes ||
	    (uint64_t)st.st_size - bytes < offset)
		return err_set(e, -EINVAL, "guest memory: descriptor %d has %llu bytes, from %llu "
			       "on are to be %llu", fd, (unsigned long long)st.st_size,
			       (unsigned long long)offset, (unsigned long long)bytes);
	return 0;
}

struct mapping {
	unsigned long long start, end, offset, inode;
	unsigned major, minor;
	char perms[5];
};

/* What is wrong with it for [at, ...) to be `st` from offset on; NULL: nothing. */
static const char *wrong_with(const struct mapping *m, uint64_t at, const struct stat *st,
			      uint64_t offset)
{
	if (m->inode != st->st_ino || makedev(m->major, m->minor) != st->st_dev)
		return "it is a mapping of something else than the descriptor";
	if (m->perms[3] != 's')
		return "it is mapped with MAP_PRIVATE, so that writes would not reach the guest; "
		       "use MAP_SHARED";
	if (m->perms[0] != 'r' || m->perms[1] != 'w')
		return "it is not mapped for reading and writing";
	return m->offset + (at - m->start) == offset ? NULL : "it is mapped at another offset";
}

int own_check_mapping(const void *start, int fd, uint64_t offset, uint64_t bytes, struct err *e)
{
	uint64_t at = (uintptr_t)start, end = at + bytes;
	const char *wrong = "nothing is mapped there";
	struct stat st;
	char line[512];
	FILE *maps;

	if (at % PAGE_BYTES != 0 || fstat(fd, &st) < 0)
		return err_set(e, -EINVAL, "guest memory: the VMM's mapping at %p: no page", start);
	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return err_sys(e, -errno, "/proc/self/maps");
	while (at < end && fgets(line, sizeof(line), maps)) {
		struct mapping m;

		if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu", &m.start, &m.end, m.perms,
			   &m.offset, &m.major, &m.minor, &m.inode) != 7 || m.end <= at)
			continue;
		wrong = m.start <= at ? wrong_with(&m, at, &st, offset) : "nothing is mapped there";
		if (wrong)
			break;
		offset += m.end - at;
		at = m.end;
		wrong = "nothing is mapped there";
	}
	(void)fclose(maps);
	if (at >= end)
		return 0;
	return err_set(e, -EINVAL, "guest memory: the VMM's mapping at %#llx: %s",
		       (unsigned long long)at, wrong);
}

bool own_is_limited(int fd)
{
	struct statfs fs;

	/* What memfds are in has no size. */
	return fstatfs(fd, &fs) == 0 && fs.f_blocks > 0;
}

int own_no_room(bool limited, uint64_t len, struct err *e)
{
	if (limited)
		return err_set(e, -ENOSPC, "guest memory: its file system (a tmpfs) has no room "
			       "for %s more; make it larger (mount -o remount,size=)",
			       SIZE_WORD(len));
	return err_set(e, -ENOMEM, "guest memory: the host has no room for %s more, or may not "
		       "promise it (vm.overcommit_memory=2)", SIZE_WORD(len));
}

int own_reserve(bool limited, void *at, uint64_t len, struct err *e)
{
	if (madvise(at, len, MADV_POPULATE_WRITE) == 0)
		return 0;
	return errno == EFAULT || errno == ENOMEM
		       ? own_no_room(limited, len, e)
		       : err_sys(e, -errno, "guest memory: %s more", SIZE_WORD(len));
}

int own_new_memfd(const char *name, struct err *e)
{
	int fd = memfd_new(name), code = -errno;
	struct refusal r;

	if (fd >= 0)
		return fd;
	refusal_memfd("", code, &r);
	return refusal_err(&r, code, e);
}
