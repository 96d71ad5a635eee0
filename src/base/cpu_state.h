/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest CPU state at an exit, as far as event delivery needs it. The KVM binding
 * fills it, the engine decides by it.
 */
#ifndef BASE_CPU_STATE_H
#define BASE_CPU_STATE_H

#include "base/types.h"

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
