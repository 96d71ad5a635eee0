/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a multiboot loader's 32-bit protected mode, or from a processor's real mode after
 * INIT and SIPI, to 64-bit code; and every page of the first 4 GiB mapped one to one. The
 * tables are data: where CPL 0 is emulated, building them would be most of the boot.
 *
 * The header has the addresses too (flag 16): loaders that take no 64-bit ELF load the
 * file by them. Multiboot Specification 0.6.96, sections 3.1 and 3.2.
 */
#include "kernel.h"

#define HEADER_MAGIC 0x1badb002
#define HEADER_FLAGS 0x10003 /* addresses, memory map, modules on page boundaries */

#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define CR0_PE 0x1
#define CR0_CACHE_OFF 0x60000000 /* CD and NW, as INIT leaves them */
#define CR0_PG_WP 0x80010000
#define CR4_PAE 0x20

#define PTE_USER_LARGE 0x87 /* present, writable, user, 2 MiB */
#define PTE_USER_TABLE 0x07

	.section .boot, "ax"
	.code32
	.balign	4
header:
	.long	HEADER_MAGIC, HEADER_FLAGS, -(HEADER_MAGIC + HEADER_FLAGS)
	.long	header, image_start, image_data_end, image_end, _start

/* EAX: the loader's magic, EBX: what it tells. They become the first two parameters. */
	.globl	_start
_start:
	cli
	cld
	mov	%eax, %edi
	mov	%ebx, %esi
	mov	$kernel_main, %ebx
	mov	$boot_stack_top, %esp

/* EBX: 64-bit function that does not return; EDI, ESI: its parameters; ESP: its stack. */
enter_long_mode:
	mov	$CR4_PAE, %eax
	mov	%eax, %cr4
	mov	$page_map, %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	and	$~CR0_CACHE_OFF, %eax
	or	$CR0_PG_WP, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$SEL_KCODE, $1f
	.code64
1:	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%esp, %esp
	mov	%ebx, %ebx
	call	*%rbx
	ud2

/* What a second processor starts with: copied to AP_PAGE, whose number is the SIPI's vector. */
	.code16
	.globl	ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	AP_PAGE + ap_gdt_pointer - ap_trampoline
	mov	%cr0, %eax
	or	$CR0_PE, %al
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $ap_start32
ap_gdt_pointer:
	.word	GDT_BYTES - 1
	.long	gdt
ap_trampoline_end:

	.code32
ap_start32:
	mov	$SEL_KDATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$ap_stack_top, %esp
	mov	$ap_main, %ebx
	jmp	enter_long_mode

	.data
	.balign	16
	.globl	gdt
gdt:
	.quad	0
	.quad	0x00af9b000000ffff /* SEL_KCODE: 64-bit */
	.quad	0x00cf93000000ffff /* SEL_KDATA */
	.quad	0x00cff3000000ffff /* SEL_UDATA */
	.quad	0x00affb000000ffff /* SEL_UCODE: 64-bit */
	.quad	0x00cf9b000000ffff /* SEL_CODE32 */
	.quad	0, 0               /* SEL_TSS */
gdt_pointer:
	.word	GDT_BYTES - 1
	.quad	gdt

	.balign	4096
page_map:
	.quad	page_pointers + PTE_USER_TABLE
	.fill	511, 8, 0
	.globl	page_pointers
page_pointers:
	.set	i, 0
	.rept	4
	.quad	page_directories + i * 4096 + PTE_USER_TABLE
	.set	i, i + 1
	.endr
	.fill	508, 8, 0
page_directories:
	.set	i, 0
	.rept	4 * 512
	.quad	(i << 21) + PTE_USER_LARGE
	.set	i, i + 1
	.endr

	.bss
	.balign	16
	.skip	16384
boot_stack_top:
	.skip	4096
ap_stack_top:

	.section .note.GNU-stack, "", @progbits
