/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest CPU state at an exit, as far as event delivery needs it. The KVM binding
 * fills it, the engine decides by it.
 */
#ifndef BASE_CPU_STATE_H
#define BASE_CPU_STATE_H

#include "base/types.h"

/* Control registers and EFER, as far as somebody here asks (SDM vol. 3, 2.2.1 and 2.5). */
#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define CR4_VMXE (1ull << 13)
#define EFER_LMA (1ull << 10)
#define EFER_SVME (1ull << 12)

struct cpu_state {
	uint8_t cpl;
	bool interrupts_on;   /* RFLAGS.IF */
	bool shadow;          /* STI or MOV SS shadow */
	bool event_pending;   /* an exception is pending, or any event needs re-injection */
	bool paging;          /* CR0.PG */
	bool nested;          /* in L2 */
	bool protected_state; /* registers are not visible to the host; cpl is meaningless */
	/*
	 * KVM is in the middle of an instruction and will go on with it at the next entry; then
	 * the rest is valid: where it is (linear address), and by what it is translated.
	 */
	bool in_instruction;
	uint64_t ip, cr3, cr4, efer;
	uint32_t untaken_token; /* our own #PF, queued but not yet taken: its token; else 0 */
};

#endif
