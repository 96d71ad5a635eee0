/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that touches guest memory by pointers and survives a touch that fails (guest_mem.h):
 * SIGBUS of an address in that memory takes it back to where it set out. What it called in
 * between is left as it was: between begin and end nothing is locked or allocated while guest
 * memory is touched. All other SIGBUS go where they went before.
 *
 *     struct guest_touch t;
 *
 *     guest_touch_begin(&t, mem);
 *     if (sigsetjmp(t.env, 1) != 0)
 *             return -EFAULT;
 *     ...
 *     guest_touch_end();
 *
 * Process-wide, as signal handlers are, are the handler and what it replaced.
 * Test: tests/unit/guest_touch_test.c.
 */
#ifndef VMM_GUEST_TOUCH_H
#define VMM_GUEST_TOUCH_H

#include <setjmp.h>

#include "vmm/memory/guest_mem.h"

struct guest_touch {
	const struct guest_mem *mem;
	sigjmp_buf env;
};

/* Installs the handler, unless it is there. Any thread. */
void guest_touch_init(void);

/*
 * This thread's touches of mem are guarded, once t->env is set, until guest_touch_end() or until
 * one has failed. It does not block SIGBUS, and the function that sets t->env, in which t is, does
 * not return before the end. Not nested.
 */
void guest_touch_begin(struct guest_touch *t, const struct guest_mem *mem);
void guest_touch_end(void);

#endif
