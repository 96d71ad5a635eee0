/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd system calls, one function each, with the errors that users meet
 * spelled out. Nothing here decides anything.
 */
#ifndef MEM_UFFD_H
#define MEM_UFFD_H

#include "base/err.h"
#include "base/types.h"

/* Opens a userfaultfd with at least these UFFD_FEATURE_* bits. Returns the fd or -Exxx. */
int uffd_open(uint64_t features, struct err *e);
int uffd_register(int fd, void *start, uint64_t len, struct err *e);

/*
 * Each works on [start, start + len) and skips pages that are populated already; waiters
 * are woken. uffd_continue returns -EFAULT without text when a page is not in the
 * page cache yet.
 */
int uffd_continue(int fd, void *start, uint64_t len, struct err *e);
int uffd_poison(int fd, void *start, uint64_t len, struct err *e);
int uffd_wake(int fd, void *start, uint64_t len, struct err *e);

#endif
