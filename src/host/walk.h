/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which guest memory an instruction is fetched through: its page tables and its own page. KVM's
 * emulator reads these by itself, and cannot wait for what is absent: a table that is not
 * there would become a page fault which the guest never caused. Pure.
 * Test: tests/unit/walk_test.c.
 */
#ifndef HOST_WALK_H
#define HOST_WALK_H

#include "base/cpu_state.h"
#include "base/types.h"

/* Five levels and the page; for two pages, as an instruction may cross into the next one. */
#define WALK_MAX 12u

/* Reads a table entry of `len` (4 or 8) bytes; false: there is no memory at gpa. */
typedef bool (*walk_read)(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret);

/* Stores what is read on the way to the instruction at cpu->ip; how many, WALK_MAX at most. */
unsigned walk_instruction(const struct cpu_state *cpu, walk_read read, void *ctx, gpa_t *ret);

#endif
