/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPL 3: the two instructions at which a task may meet the kernel on purpose. Both
 * functions keep the callee-saved registers by themselves, at native speed, so that the
 * kernel need not: at user_touch_insn and user_call_insn only RAX and RSP are alive.
 */
#include "shared/asm.h"

	.text
/* uint8_t user_touch(const void *address): one load. */
	.globl	user_touch, user_touch_insn
	.type	user_touch, @function
user_touch:
	push_callee_saved
	mov	%rdi, %rax
user_touch_insn:
	movzbl	(%rax), %eax
	pop_callee_saved
	ret

/* void user_call(uint64_t call): a load that faults; the kernel resumes at user_call_done. */
	.globl	user_call, user_call_insn, user_call_done
	.type	user_call, @function
user_call:
	push_callee_saved
	mov	%rdi, %rax
user_call_insn:
	movzbl	(%rax), %eax
user_call_done:
	pop_callee_saved
	ret

	.section .note.GNU-stack, "", @progbits
