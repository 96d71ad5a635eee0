/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies from and to guest memory that may have pages which the host has lost to a memory error, or
 * has no room for. A touch of one is SIGBUS. The library has no handler; a VMM that has one asks
 * guard_is_ours, by apf_sigbus, and what was copied until then counts. All else costs nothing.
 * Test: tests/integration/guard_test.c.
 */
#ifndef LIB_GUARD_H
#define LIB_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/*
 * guest: `to` or `from`, whichever is guest memory. 0; or, with all that lies before it copied,
 * -EHWPOISON: a page is lost; -EFAULT: the kernel has none to put there. *ret_done: bytes copied.
 * 2, 4 and 8 bytes that are aligned go in one piece. Any thread that does not block SIGBUS.
 */
int guard_copy(void *to, const void *from, size_t n, const void *guest, size_t *ret_done);

/*
 * info and context: what a handler of SIGBUS was called with. True: guard_copy has touched such a
 * page, and ends when the handler returns. For the thread that the signal was sent to.
 */
bool guard_is_ours(const void *info, void *context);

#endif
