/* SPDX-License-Identifier: Apache-2.0 */
/* The multiboot header and the entry point: 32-bit protected mode, EAX magic, EBX info. */

#define HEADER_MAGIC 0x1badb002
#define HEADER_FLAGS 0x3 /* modules on page boundaries, memory map */

	.section .multiboot, "a"
	.balign	4
	.long	HEADER_MAGIC, HEADER_FLAGS, -(HEADER_MAGIC + HEADER_FLAGS)

	.text
	.globl	_start
	.type	_start, @function
_start:
	mov	$stack_top, %esp
	xor	%ebp, %ebp
	sub	$8, %esp
	push	%ebx
	push	%eax
	call	kernel_main
1:	cli
	hlt
	jmp	1b

/* void crash(void): an exception without a handler for it or for what follows. */
	.globl	crash
	.type	crash, @function
crash:
	lidt	no_idt
	ud2

	.section .rodata
no_idt:
	.word	0
	.long	0

	.bss
	.balign	16
	.skip	4096
stack_top:

	.section .note.GNU-stack, "", @progbits
