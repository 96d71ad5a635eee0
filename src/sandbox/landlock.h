/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files by Landlock: also for what no filter of system calls sees, such as what a ring is asked
 * to do. Linux 5.13; a kernel has it built in or not, and switched on or not (lsm=).
 */
#ifndef SANDBOX_LANDLOCK_H
#define SANDBOX_LANDLOCK_H

#include <stdbool.h>

/* The version of its interface, or -ENOSYS (not there, or filtered), -EOPNOTSUPP (switched off). */
int landlock_version(void);

/* What may be done below a folder, or with a file. */
enum landlock_access {
	LANDLOCK_REMOVES, /* files of a folder are removed */
	LANDLOCK_READS,   /* opened to be read; devices are asked how large they are */
	LANDLOCK_SOCKETS, /* sockets are made in a folder, and removed */
	LANDLOCK_SHARES,  /* files of a folder are made, read, written and removed */
};

/*
 * No file may be opened, made or removed, and no TCP port used but where `tcp`. A descriptor for
 * landlock_allow and landlock_enter, or -Exxx.
 */
int landlock_rules(int version, bool tcp);
/* An exception; fd may be O_PATH, and closed afterwards. 0 or -Exxx. */
int landlock_allow(int version, int rules, enum landlock_access access, int fd);

/* The calling thread, which has no_new_privs, for good. 0 or -Exxx. */
int landlock_enter(int rules);

#endif
