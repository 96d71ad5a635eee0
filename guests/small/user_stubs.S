/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPL 3: the two instructions at which a task may meet the kernel on purpose. Both
 * functions keep the callee-saved registers by themselves, at native speed, so that the
 * kernel need not: at user_touch_insn and user_call_insn only RAX and RSP are alive.
 */
	.macro save
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	.endm

	.macro restore_and_return
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.endm

	.text
/* uint8_t user_touch(const void *address): one load. */
	.globl	user_touch, user_touch_insn
	.type	user_touch, @function
user_touch:
	save
	mov	%rdi, %rax
user_touch_insn:
	movzbl	(%rax), %eax
	restore_and_return

/* void user_call(uint64_t call): a load that faults; the kernel resumes at user_call_done. */
	.globl	user_call, user_call_insn, user_call_done
	.type	user_call, @function
user_call:
	save
	mov	%rdi, %rax
user_call_insn:
	movzbl	(%rax), %eax
user_call_done:
	restore_and_return

	.section .note.GNU-stack, "", @progbits
