/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing all of something to a file that blocks: a call that a signal interrupts, or that takes
 * less than it was given, is followed by another. Test: tests/unit/fd_test.c.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stddef.h>
#include <stdint.h>

/* 0 or -errno. -ENOSPC: also a file that takes nothing and names no error. */
int fd_write(int fd, const void *bytes, size_t len);
/* The same at an offset of the file's, which keeps its position. */
int fd_write_at(int fd, const void *bytes, size_t len, uint64_t off);

#endif
