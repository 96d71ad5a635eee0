/* SPDX-License-Identifier: Apache-2.0 */
/* See coroutine.h. */
#include "sim/coroutine.h"

#include <stdint.h>

#include "base/assert.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_COROUTINE_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SIM_COROUTINE_ASAN 1
#endif

#ifdef SIM_COROUTINE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
/* What the sanitizer must be told about a change of stacks; nothing without it. */
#define __sanitizer_start_switch_fiber(save, bottom, bytes) ((void)(bottom), (void)(bytes))
#define __sanitizer_finish_switch_fiber(save, bottom, bytes) ((void)(save))
#define __asan_unpoison_memory_region(at, bytes) ((void)0)
#endif

/* Stores the stack pointer at *save and goes on where `to` was stored. System V x86-64 ABI:
 * these registers, and no others, outlive a call. */
void sim_coroutine_switch(void **save, void *to);

__asm__(".text\n"
	".type sim_coroutine_switch, @function\n"
	"sim_coroutine_switch:\n"
	"	push %rbx\n"
	"	push %rbp\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbp\n"
	"	pop %rbx\n"
	"	ret\n"
	".size sim_coroutine_switch, . - sim_coroutine_switch\n"
	/* The first switch comes here, with the coroutine in rbx. */
	".type sim_coroutine_first, @function\n"
	"sim_coroutine_first:\n"
	"	mov %rbx, %rdi\n"
	"	call sim_coroutine_enter\n"
	"	ud2\n"
	".size sim_coroutine_first, . - sim_coroutine_first\n");

void sim_coroutine_first(void);
void sim_coroutine_enter(struct sim_coroutine *co);

__attribute__((used)) void sim_coroutine_enter(struct sim_coroutine *co)
{
	__sanitizer_finish_switch_fiber(co->fake, &co->caller_stack, &co->caller_bytes);
	co->run(co->arg);
	ASSERT(0 && "a coroutine came to its end");
}

void sim_coroutine_start(struct sim_coroutine *co, sim_coroutine_main *run, void *arg)
{
	/* The first return leaves the stack aligned by 16, as a call wants it. */
	void **top = (void **)(void *)(co->stack + SIM_COROUTINE_STACK_BYTES - 24);

	__asan_unpoison_memory_region(co->stack, SIM_COROUTINE_STACK_BYTES);
	co->run = run;
	co->arg = arg;
	co->fake = NULL;
	top[0] = (void *)(uintptr_t)sim_coroutine_first;
	top[-1] = co; /* rbx */
	for (int i = 2; i <= 6; i++)
		top[-i] = NULL;
	co->sp = top - 6;
}

void sim_coroutine_resume(struct sim_coroutine *co)
{
	__sanitizer_start_switch_fiber(&co->caller_fake, co->stack, SIM_COROUTINE_STACK_BYTES);
	sim_coroutine_switch(&co->caller_sp, co->sp);
	__sanitizer_finish_switch_fiber(co->caller_fake, NULL, NULL);
}

/* The sanitizer allows nobody else to read or write between the variables of a frame. */
__attribute__((no_sanitize("address"))) static void copy(volatile unsigned char *to,
							 const volatile unsigned char *from,
							 size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = from[i];
}

static size_t used_from(const struct sim_coroutine *co, const void *sp)
{
	return (size_t)((const unsigned char *)sp - co->stack);
}

void sim_coroutine_save(const struct sim_coroutine *co, unsigned char *to)
{
	size_t from = used_from(co, co->sp);

	copy(to + from, co->stack + from, SIM_COROUTINE_STACK_BYTES - from);
}

void sim_coroutine_restore(struct sim_coroutine *co, void *sp, const unsigned char *from)
{
	size_t at = used_from(co, sp);

	__asan_unpoison_memory_region(co->stack, SIM_COROUTINE_STACK_BYTES);
	copy(co->stack + at, from + at, SIM_COROUTINE_STACK_BYTES - at);
	co->sp = sp;
}

void sim_coroutine_yield(struct sim_coroutine *co)
{
	__sanitizer_start_switch_fiber(&co->fake, co->caller_stack, co->caller_bytes);
	sim_coroutine_switch(&co->sp, co->caller_sp);
	__sanitizer_finish_switch_fiber(co->fake, &co->caller_stack, &co->caller_bytes);
}
