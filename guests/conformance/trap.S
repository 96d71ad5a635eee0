/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry per vector, all frames alike; the way to CPL 3 and back; and the instructions
 * at which a fault is expected.
 */
#include "kernel.h"
#include "shared/asm.h"

	.text
/* Exceptions with an error code (SDM vol. 3, table 6-1): 8, 10-14, 17, 21, 29, 30. */
#define WITH_ERROR_CODE 0x60227d00

	.globl	vector_stubs
	.balign	16
vector_stubs:
	.set	vector, 0
	.rept	256
	.balign	VECTOR_STUB_BYTES
	.if	vector > 31
	pushq	$0
	.elseif	((WITH_ERROR_CODE >> vector) & 1) == 0
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap_common
	.set	vector, vector + 1
	.endr

trap_common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push_callee_saved
	cld
	mov	%rsp, %rdi
	call	trap
trap_return:
	pop_callee_saved
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

/* void user_enter(struct frame *f): returns when the trap handler calls user_leave. */
function user_enter
	push_callee_saved
	mov	%rsp, kernel_rsp
	mov	%rsp, tss + TSS_RSP0
	mov	%rdi, %rsp
	jmp	trap_return

/* void user_leave(void): on the stack of a trap from CPL 3, which is given up. */
function user_leave
	mov	kernel_rsp, %rsp
	pop_callee_saved
	ret

/* void halt(void): interrupts on for as long as it lasts. */
function halt
	sti
	hlt
	cli
	ret

/*
 * CPL 3. A task ends by a touch of USER_DONE, which nothing maps, with its result in RAX.
 * RDI: an address; RSI: how often to look, or the address to touch.
 */
function user_load
	mov	(%rdi), %rax
	movabs	$USER_DONE, %rcx
	mov	%rax, (%rcx)
	ud2

function user_spin
1:	mov	(%rdi), %eax
	test	%eax, %eax
	jnz	2f
	pause
	dec	%rsi
	jnz	1b
2:	movabs	$USER_DONE, %rcx
	mov	%rax, (%rcx)
	ud2

	.bss
	.balign	8
kernel_rsp:
	.skip	8

	.section .note.GNU-stack, "", @progbits
