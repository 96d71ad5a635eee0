/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd system calls, one function each, with the errors that users meet
 * spelled out. Nothing here decides anything.
 */
#ifndef MEM_UFFD_H
#define MEM_UFFD_H

#include "base/err.h"
#include "base/types.h"
#include "rights/refusal.h"

/*
 * A userfaultfd that takes faults in kernel mode, too, as KVM's are: by system call, else by its
 * device, which *ret_by_device tells. The fd, or -Exxx with what that means.
 */
int uffd_new(bool *ret_by_device, struct refusal *ret_refusal);
/*
 * Opens a userfaultfd with at least these UFFD_FEATURE_* bits, and those of `wanted` that
 * there are, which *ret_has gets. Returns the fd or -Exxx.
 */
int uffd_open(uint64_t features, uint64_t wanted, uint64_t *ret_has, struct err *e);
/* modes: UFFDIO_REGISTER_MODE_*; registering a range again replaces them. */
int uffd_register(int fd, void *start, uint64_t len, uint64_t modes, struct err *e);
/* Nobody waits there any more; harmless where nothing was registered. */
void uffd_unregister(int fd, void *start, uint64_t len);

/*
 * Each works on [start, start + len) and skips pages that are populated already; waiters
 * are woken. uffd_continue returns -EFAULT without text when a page is not in the
 * page cache yet; protect: the first write is noted (UFFD_FEATURE_WP_ASYNC).
 */
int uffd_continue(int fd, void *start, uint64_t len, bool protect, struct err *e);
int uffd_poison(int fd, void *start, uint64_t len, struct err *e);
/* Ends the protection, where there is one: of pages that were unmapped a marker has it. */
int uffd_unprotect(int fd, void *start, uint64_t len, struct err *e);
int uffd_wake(int fd, void *start, uint64_t len, struct err *e);

#endif
