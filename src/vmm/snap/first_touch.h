/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM touches before anything else when it goes on: where its vCPUs' registers point, through
 * which page tables, and what interrupts and system calls find by the descriptor tables. Nobody has
 * to have watched it: that can be read from a VM that stands still, and brings memory that is far
 * away in one round trip instead of one after the other. What of it is absent itself is named, and
 * what lies behind that is not found. Pure. Test: tests/unit/first_touch_test.c.
 */
#ifndef VMM_SNAP_FIRST_TOUCH_H
#define VMM_SNAP_FIRST_TOUCH_H

#include "base/walk.h"

#define FIRST_TOUCH_MAX 512u /* pages; what is named later is not noted */

/* A vCPU at rest; addresses are linear. */
struct first_vcpu {
	struct cpu_state cpu;
	uint64_t sp, gdt, idt, tss, fs, gs;
	uint64_t kernel_gs, syscall; /* MSRs 0xc0000102 and 0xc0000082; 0: none */
	uint16_t idt_limit;
};

/* Reads `len` bytes of one page; false: they are not RAM, or absent. */
typedef bool (*first_read)(void *ctx, gpa_t gpa, void *ret, unsigned len);

struct first_touch {
	first_read read;
	void *ctx;
	unsigned count;
	uint64_t pages[FIRST_TOUCH_MAX]; /* gpa of each, in the order in which they were named */
};

/* Where a register points by its physical address, or a device's ring lies. */
void first_touch_range(struct first_touch *t, gpa_t gpa, uint64_t len);
void first_touch_vcpu(struct first_touch *t, const struct first_vcpu *v);

#endif
