/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory the cgroups of this process still allow, looked at again and again: a limit may
 * be lowered at any time, and others in the group take memory, too. The kernel does not refuse
 * there, it kills. Version 1 and 2. Test: tests/integration/limits_test.c.
 */
#ifndef RIGHTS_ROOM_H
#define RIGHTS_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "rights/limits.h"

#define ROOM_GROUPS_MAX 16u

/* The descriptors of one group's files. */
struct room_group {
	int limit_fd, used_fd, stat_fd;
	bool first_version;
	char file[LIMITS_PATH_BYTES]; /* that has the limit */
};

struct room {
	struct room_group groups[ROOM_GROUPS_MAX];
	unsigned count;
	int watch_fd;        /* becomes readable when a limit is written to; -1: nobody tells */
	uint64_t swap_bytes; /* of the kernel's own, beyond any limit */
};

struct room_left {
	uint64_t bytes;       /* LIMITS_NONE: as much as there is */
	uint64_t limit_bytes; /* of the group that has the least left, whose file that is */
	const char *file;
};

/*
 * Opens the files of the process's groups, and of those around them; what cannot be opened is no
 * limit. root: what stands before /proc and /sys. Ended by room_close.
 */
void room_open(struct room *r, const char *root);
/* Harmless where room_open was never called, and all is zeroes. */
void room_close(struct room *r);
/*
 * What can be taken until the first limit; `enough`: the caller does not care how much more than
 * that it is. What the kernel would give back first (page cache) counts as free. It only reads
 * files; any thread, one at a time.
 */
void room_look(const struct room *r, uint64_t enough, struct room_left *ret);
/* watch_fd is not readable any more, until the next time. */
void room_seen(const struct room *r);

#endif
