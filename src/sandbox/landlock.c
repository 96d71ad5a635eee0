/* SPDX-License-Identifier: Apache-2.0 */
/* See landlock.h. The C library has no names for these calls; the header is of Linux 6.1. */
#include "sandbox/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

/* struct landlock_ruleset_attr has grown: TCP with version 4. */
struct rules_attr {
	uint64_t files;
	uint64_t net;
};
#define NET_VERSION 4
#define NET_ALL ((1ull << 2) - 1) /* bind, connect */

/* All that each version knows, from the first: documentation of Linux 6.12, landlock(7). */
static const uint64_t files_of[] = {
	(1ull << 13) - 1, /* execute to make a symbolic link */
	(1ull << 14) - 1, /* link and rename elsewhere */
	(1ull << 15) - 1, /* truncate */
	(1ull << 15) - 1,
	(1ull << 16) - 1, /* ioctl of devices */
};

int landlock_version(void)
{
	long rc = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return rc < 0 ? -errno : (int)rc;
}

static uint64_t all_of(int version)
{
	size_t known = version < (int)ARRAY_LEN(files_of) ? (size_t)version : ARRAY_LEN(files_of);

	return files_of[known - 1];
}

int landlock_rules(int version, bool tcp)
{
	const struct rules_attr attr = {.files = all_of(version), .net = tcp ? 0 : NET_ALL};
	size_t bytes = version < NET_VERSION ? offsetof(struct rules_attr, net) : sizeof(attr);
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);

	return fd < 0 ? -errno : fd;
}

/* Newer than the header. */
#define TRUNCATE (1ull << 14)
#define IOCTL_DEV (1ull << 15)
#define OF_FILES \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | TRUNCATE | IOCTL_DEV)

static uint64_t access_of(enum landlock_access access)
{
	const uint64_t reads = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;

	switch (access) {
	case LANDLOCK_REMOVES:
		return LANDLOCK_ACCESS_FS_REMOVE_FILE;
	case LANDLOCK_READS:
		return reads | IOCTL_DEV;
	case LANDLOCK_SOCKETS:
		return LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE |
		       LANDLOCK_ACCESS_FS_READ_DIR;
	case LANDLOCK_SHARES:
		return reads | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
		       LANDLOCK_ACCESS_FS_REMOVE_FILE | TRUNCATE;
	}
	return 0;
}

int landlock_allow(int version, int rules, enum landlock_access access, int fd)
{
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = access_of(access) & all_of(version),
		.parent_fd = fd,
	};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		beneath.allowed_access &= OF_FILES;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0
		       ? -errno : 0;
}

int landlock_enter(int rules)
{
	return syscall(SYS_landlock_restrict_self, rules, 0) < 0 ? -errno : 0;
}
