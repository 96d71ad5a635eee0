/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry points: boot, the hot paths' entries and exits, and one per exception.
 *
 * Frames. All 15 registers lie below the interrupt frame in the order of struct frame.
 * The 9 that C code may destroy come first, so that an interrupt that does not switch
 * tasks saves only those. For an exception with an error code RAX takes that code's
 * place, which makes all frames alike at no cost.
 *
 * A page that user_touch waits for needs no frame: the task has declared every register
 * but RAX dead at that instruction, as at a system call.
 *
 * DF is not cleared at the fast entries: our CPL-3 code never sets it.
 */
#include "kernel.h"
#include "shared/asm.h"

	.macro push_caller_saved_but_rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	.endm

	.macro pop_caller_saved
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	.endm

	.text

/* RDI = CPU number; RSP undefined. */
function _start
	imul	$CPU_BYTES, %rdi, %rax
	lea	cpus+CPU_BYTES(%rax), %rsp
	xor	%ebp, %ebp
	call	kernel_main
	ud2

/* void idle(struct cpu *c): only interrupts leave it, and they do not come back. */
function idle
	lea	CPU_BYTES(%rdi), %rsp
1:	sti
	hlt
	/* KVM may end a HLT without an interrupt (docs/abi.md). */
	jmp	1b

/* resume_full: RAX = task. */
function resume_full
	lea	-FRAME_BYTES(%rax), %rsp
	pop_callee_saved
	pop_caller_saved
	iretq

/* resume_touch: RAX = task, and RAX is all that it has. */
function resume_touch
	lea	-FRAME_RAX_OFF(%rax), %rsp
	pop	%rax
	iretq

	.macro pf_fast_as rev
function pf_fast_\rev
	cmpq	$user_touch_insn, 8(%rsp)
	jne	pf_fast_full
	mov	%rax, (%rsp)
	jmp	pf_touch_\rev
	.endm
	pf_fast_as int
	pf_fast_as pf2
	pf_fast_as any

pf_fast_full:
	xchg	%rax, (%rsp)
	push_caller_saved_but_rax
	push_callee_saved
	mov	%gs:CPU_SELF, %rdi
	mov	%cr2, %rsi
	mov	%rsp, %rdx
	mov	%rax, %rcx
	jmp	pf_full

/* The functions for a running task keep all registers by themselves. */
	.macro ready_fast_as rev
function ready_fast_\rev
	testb	$3, 8(%rsp)
	jz	1f
	call	ready_running_\rev
	iretq
1:	jmp	ready_idle_\rev
	.endm
	ready_fast_as int
	ready_fast_as pf2
	ready_fast_as any

function timer_fast
	testb	$3, 8(%rsp)
	jz	2f
	push	%rax
	push_caller_saved_but_rax
	mov	%gs:CPU_SELF, %rdi
	call	tick_running
	test	%rax, %rax
	jnz	1f
	pop_caller_saved
	iretq
1:	push_callee_saved
	mov	%rax, %gs:CPU_RSP0
	jmp	*TASK_RESUME(%rax)
2:	mov	%gs:CPU_SELF, %rdi
	jmp	tick_idle

/* The general entries: everything saved, whatever the CPL; back to the same frame. */
slow_common:
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
	mov	%rcx, %rsi
	mov	%rax, %rdx
	call	trap_slow
	pop_callee_saved
	pop_caller_saved
	iretq

	.macro slow_entry kind, has_error=0
	.if	\has_error
	xchg	%rax, (%rsp)
	push	%rcx
	.else
	push	%rax
	push	%rcx
	xor	%eax, %eax
	.endif
	mov	$\kind, %ecx
	jmp	slow_common
	.endm

function slow_ready
	slow_entry TRAP_READY
function slow_timer
	slow_entry TRAP_TIMER
function slow_ipi
	slow_entry TRAP_IPI
function slow_spurious
	iretq

/* Exceptions with an error code (SDM vol. 3, table 6-1): 8, 10-14, 17, 21, 29, 30. */
#define WITH_ERROR_CODE 0x60227d00
	.macro exception_stubs from, to
	.if	\from <= \to
exception_\from:
	.if	(WITH_ERROR_CODE >> \from) & 1
	slow_entry \from, 1
	.else
	slow_entry \from, 0
	.endif
	.pushsection .rodata
	.quad	exception_\from
	.popsection
	.endif
	.endm

	.pushsection .rodata
	.balign	8
	.globl	slow_stubs
slow_stubs:
	.popsection
	.altmacro
	.macro each_exception n
	exception_stubs \n, 31
	.endm
	.set	vector, 0
	.rept	32
	each_exception %vector
	.set	vector, vector + 1
	.endr
	.noaltmacro

	.section .note.GNU-stack, "", @progbits
