/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits that the host has set and that a VM would run into later, in the middle of the guest's
 * work: killed by the kernel instead of being told. Test: tests/integration/limits_test.c.
 */
#ifndef RIGHTS_LIMITS_H
#define RIGHTS_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define LIMITS_NONE UINT64_MAX
#define LIMITS_PATH_BYTES 1024
/* What version 1 of cgroups says where there is none: the largest multiple of a page. */
#define LIMITS_NEVER_REACHED (1ull << 62)

struct limits {
	/* What guest memory in the host's may take, LIMITS_NONE: as much as there is. */
	uint64_t cgroup_bytes;
	uint64_t promise_bytes; /* with vm.overcommit_memory=2, what is left to promise */
	/* Of the process, and up to where it may raise them itself. */
	uint64_t address_bytes, file_bytes, files, processes;
	uint64_t address_bytes_max, file_bytes_max, files_max, processes_max;
	char cgroup_file[LIMITS_PATH_BYTES]; /* which has cgroup_bytes; "": none */
};

/* A folder of a cgroup that has a say in the process's memory; it may not be there. */
typedef void limits_group(void *ctx, const char *folder, bool first_version);
/* Calls it for the process's own group, and for those around it. */
void limits_groups(const char *root, limits_group *call, void *ctx);

/* root: what stands before /proc and /sys; "" but for tests. What cannot be read is no limit. */
void limits_read(const char *root, struct limits *ret);

/* vm.overcommit_memory=2: the kernel may refuse memory page by page. */
bool limits_promises(const char *root);
/*
 * ram: bytes of guest memory, which are mapped twice; held: how many of them may be in host memory
 * at a time. 0, or -Exxx with text that names the limit. Blocks; any thread.
 */
int limits_check(const char *root, uint64_t ram, uint64_t held, struct err *e);

#endif
