/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits that the host has set and that a VM would run into later, in the middle of the guest's
 * work: killed by the kernel instead of being told. Test: tests/integration/limits_test.c.
 */
#ifndef LIB_LIMITS_H
#define LIB_LIMITS_H

#include <stdint.h>

#include "base/err.h"

/*
 * root: what stands before /proc and /sys; "" but for tests. ram: bytes of guest memory, which are
 * mapped twice; held: how many of them may be in host memory at a time. 0, or -Exxx with text that
 * names the limit. What cannot be read is no limit. Blocks; any thread.
 */
int limits_check(const char *root, uint64_t ram, uint64_t held, struct err *e);

#endif
