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

#define LANDLOCK_FOLDERS_MAX 2u

/* What stays allowed. */
struct landlock_allowed {
	/* Descriptors of folders below which files may be removed; -1: none. */
	int removal[LANDLOCK_FOLDERS_MAX];
	int reading; /* one of a file that may be opened to be read; -1: none */
	bool tcp;    /* ports may be used */
};

/*
 * No file may be opened, made or removed, and no TCP port used, but for what is allowed. A
 * descriptor for landlock_enter, or -Exxx.
 */
int landlock_rules(int version, const struct landlock_allowed *allowed);

/* The calling thread, which has no_new_privs, for good. 0 or -Exxx. */
int landlock_enter(int rules);

#endif
