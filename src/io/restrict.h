/* SPDX-License-Identifier: Apache-2.0 */
/* What a ring may be asked to do. Test: tests/integration/uring_restrict_test.c. */
#ifndef IO_RESTRICT_H
#define IO_RESTRICT_H

struct io_uring;

/*
 * What our rings are used for and nothing else: no filter of system calls sees what a ring is
 * asked to do. For one that is still disabled. 0 or -Exxx.
 */
int ioq_restrict(struct io_uring *ring);

#endif
