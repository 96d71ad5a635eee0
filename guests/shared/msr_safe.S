/* SPDX-License-Identifier: Apache-2.0 */
/* Registers that may not be there: the #GP handler looks for the two instructions here. */
#include "shared/asm.h"

	.text

/* bool wrmsr_safe(uint32_t msr, uint64_t value): a #GP resumes at msr_fixup. */
function wrmsr_safe
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
	.globl	wrmsr_insn
wrmsr_insn:
	wrmsr
	xor	%eax, %eax
	ret

/* bool rdmsr_safe(uint32_t msr, uint64_t *ret_value) */
function rdmsr_safe
	mov	%edi, %ecx
	.globl	rdmsr_insn
rdmsr_insn:
	rdmsr
	mov	%eax, (%rsi)
	mov	%edx, 4(%rsi)
	xor	%eax, %eax
	ret
	.globl	msr_fixup
msr_fixup:
	mov	$1, %eax
	ret

	.section .note.GNU-stack, "", @progbits
