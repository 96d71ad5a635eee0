/* SPDX-License-Identifier: Apache-2.0 */
/* See landlock.h. The C library has no names for these calls; the header is of Linux 6.1. */
#include "sandbox/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
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

static int allow(int rules, uint64_t access, int fd)
{
	const struct landlock_path_beneath_attr beneath = {
		.allowed_access = access,
		.parent_fd = fd,
	};

	if (fd < 0)
		return 0;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0
		       ? -errno : 0;
}

int landlock_rules(int version, const struct landlock_allowed *allowed)
{
	size_t known = version < (int)ARRAY_LEN(files_of) ? (size_t)version : ARRAY_LEN(files_of);
	const struct rules_attr attr = {
		.files = files_of[known - 1], .net = allowed->tcp ? 0 : NET_ALL};
	size_t bytes = version < NET_VERSION ? offsetof(struct rules_attr, net) : sizeof(attr);
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, bytes, 0);
	int rc = 0;

	if (fd < 0)
		return -errno;
	for (unsigned i = 0; rc == 0 && i < LANDLOCK_FOLDERS_MAX; i++)
		rc = allow(fd, LANDLOCK_ACCESS_FS_REMOVE_FILE, allowed->removal[i]);
	if (rc == 0)
		rc = allow(fd, LANDLOCK_ACCESS_FS_READ_FILE, allowed->reading);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int landlock_enter(int rules)
{
	return syscall(SYS_landlock_restrict_self, rules, 0) < 0 ? -errno : 0;
}
