/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a file or block device is somebody else's just now, and saying that it is ours. What is
 * held ends with the descriptor, however that is closed, and holds between two VMs of one process:
 *
 * - open file description locks on the whole file (fcntl(2), F_OFD_SETLK): of readers many, of
 *   writers one. Other VMMs that lock their disks (QEMU: single bytes) are met by them.
 * - on a block device flock(2) as well, by which udev and our own swap files tell; and O_EXCL of
 *   open(2) by the caller, which the kernel itself respects: mounts, swap, other devices on top.
 *
 * A program that writes to the file without a lock is found by asking for a lease, which is given
 * back at once.
 * Test: tests/unit/file_use_test.c.
 */
#ifndef VMM_FILE_USE_H
#define VMM_FILE_USE_H

#include <sys/stat.h>

#include "base/types.h"

/* 0, or -EBUSY. A file system without locks is used without. */
int file_use_lock(int fd, bool write);

/*
 * Somebody has the regular file open for writing; we must not. fd is open for reading alone. False
 * also where that cannot be found out (not our file, some file systems).
 */
bool file_use_is_written(int fd);

/*
 * Somebody has it: a VM as its disk, a loop device, another command that writes to it. If not, it
 * is ours to write until the descriptor is closed. False for what is no regular file.
 */
bool file_use_is_taken(int fd);

/* A loop device lies on the regular file. */
bool file_use_is_loop(const struct stat *st);

#endif
