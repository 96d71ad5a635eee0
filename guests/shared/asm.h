/* SPDX-License-Identifier: Apache-2.0 */
/* What assembly files have in common. For the assembler only. */
	.macro push_callee_saved
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	.endm

	.macro pop_callee_saved
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	.endm

	.macro function name
	.globl	\name
	.type	\name, @function
	.balign	16
\name:
	.endm
