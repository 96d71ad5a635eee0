/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which guest memory a linear address is reached through: page tables and a page. Pure.
 * Test: tests/unit/walk_test.c.
 */
#ifndef BASE_WALK_H
#define BASE_WALK_H

#include "base/cpu_state.h"
#include "base/types.h"

/* Five levels and the page. */
#define WALK_LINEAR_MAX 6u
/* For two pages, as an instruction may cross into the next one. */
#define WALK_MAX (2 * WALK_LINEAR_MAX)

/* Reads a table entry of `len` (4 or 8) bytes; false: there is no memory at gpa. */
typedef bool (*walk_read)(void *ctx, gpa_t gpa, unsigned len, uint64_t *ret);

/*
 * Stores what is read on the way to `linear`; how many, WALK_LINEAR_MAX at most. *ret_there: the
 * last of them is what lies there; else a table cannot be read, or has no entry for it.
 */
unsigned walk_linear(const struct cpu_state *cpu, uint64_t linear, walk_read read, void *ctx,
		     gpa_t *ret, bool *ret_there);

/*
 * The same for the instruction at cpu->ip, WALK_MAX at most. KVM's emulator reads these by itself,
 * and cannot wait for what is absent: a table that is not there would become a page fault which the
 * guest never caused.
 */
unsigned walk_instruction(const struct cpu_state *cpu, walk_read read, void *ctx, gpa_t *ret);

#endif
