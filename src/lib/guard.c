/* SPDX-License-Identifier: Apache-2.0 */
/* See guard.h. */
#include "lib/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

#include "base/types.h"

/*
 * RDI to, RSI from, RCX bytes left, R8 where guest memory begins, R9 where it ends; they are right
 * before each instruction that touches memory, string instructions among them. One that fails
 * before guard_bytes goes on there, so that all before the page is copied; one that fails there
 * goes on at guard_end. RDX: the signal's code, if it has failed.
 */
__asm__(".text\n"
	".p2align 4\n"
	".type guard_left, @function\n"
	"guard_left:\n"
	"	.cfi_startproc\n"
	"	movq %rcx, %r8\n"
	"	leaq (%rcx,%rdx), %r9\n"
	"	movq %rdx, %rcx\n"
	"	xorl %edx, %edx\n"
	"	cmpq $128, %rcx\n"
	"	ja 5f\n"
	"1:	cmpq $8, %rcx\n"
	"	jb 2f\n"
	"	movq (%rsi), %rax\n"
	"	movq %rax, (%rdi)\n"
	"	addq $8, %rsi\n"
	"	addq $8, %rdi\n"
	"	subq $8, %rcx\n"
	"	jmp 1b\n"
	"2:	testb $4, %cl\n"
	"	jz 3f\n"
	"	movl (%rsi), %eax\n"
	"	movl %eax, (%rdi)\n"
	"	addq $4, %rsi\n"
	"	addq $4, %rdi\n"
	"	subq $4, %rcx\n"
	"3:	testb $2, %cl\n"
	"	jz 4f\n"
	"	movw (%rsi), %ax\n"
	"	movw %ax, (%rdi)\n"
	"	addq $2, %rsi\n"
	"	addq $2, %rdi\n"
	"	subq $2, %rcx\n"
	"4:	testq %rcx, %rcx\n"
	"	jz guard_end\n"
	"	jmp guard_bytes\n"
	"5:	rep movsb\n"
	"	jmp guard_end\n"
	"guard_bytes:\n"
	"	movb (%rsi), %al\n"
	"	movb %al, (%rdi)\n"
	"	incq %rsi\n"
	"	incq %rdi\n"
	"	decq %rcx\n"
	"	jnz guard_bytes\n"
	"guard_end:\n"
	"	movq %rcx, %rax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size guard_left, . - guard_left\n");

/* As two registers are returned. */
struct left {
	size_t bytes; /* not copied */
	uint64_t code;
};

struct left guard_left(void *to, const void *from, size_t n, const void *guest)
	__attribute__((visibility("hidden")));
extern const char guard_bytes[] __attribute__((visibility("hidden")));
extern const char guard_end[] __attribute__((visibility("hidden")));

int guard_copy(void *to, const void *from, size_t n, const void *guest, size_t *ret_done)
{
	struct left left = guard_left(to, from, n, guest);

	*ret_done = n - left.bytes;
	if (left.bytes == 0)
		return 0;
	return left.code == BUS_MCEERR_AR ? -EHWPOISON : -EFAULT;
}

bool guard_is_ours(const void *info, void *context)
{
	const siginfo_t *si = info;
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t ip = (uintptr_t)regs[REG_RIP], at = (uintptr_t)si->si_addr;
	uintptr_t start = (uintptr_t)guard_left, bytes = (uintptr_t)guard_bytes;
	uintptr_t end = (uintptr_t)guard_end;
	/* The kernel may tell the page alone. */
	uintptr_t from = (uintptr_t)regs[REG_R8] & ~(uintptr_t)(PAGE_BYTES - 1);

	/* What was sent by somebody, or is told early, is no touch of this thread's. */
	if (si->si_signo != SIGBUS || si->si_code <= 0 || si->si_code == BUS_MCEERR_AO ||
	    ip < start || ip >= end || at < from || at >= (uintptr_t)regs[REG_R9])
		return false;
	regs[REG_RIP] = (greg_t)(ip < bytes ? bytes : end);
	regs[REG_RDX] = si->si_code;
	return true;
}
