/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files by Landlock: also for what no filter of system calls sees, such as what a ring is asked
 * to do. Linux 5.13; a kernel has it built in or not, and switched on or not (lsm=).
 */
#ifndef SANDBOX_LANDLOCK_H
#define SANDBOX_LANDLOCK_H

/* The version of its interface, or -ENOSYS (not there, or filtered), -EOPNOTSUPP (switched off). */
int landlock_version(void);

/*
 * No file may be opened, made or removed, and no TCP port used; but below `folder`, a descriptor,
 * files may be removed; -1: nowhere. A descriptor for landlock_enter, or -Exxx.
 */
int landlock_rules(int version, int folder);

/* The calling thread, which has no_new_privs, for good. 0 or -Exxx. */
int landlock_enter(int rules);

#endif
