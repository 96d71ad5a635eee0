/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack of its own for each simulated processor, so that the guest's kernel is written as
 * straight code that may be left and resumed in the middle of a function of the shipped guest
 * half. x86-64, as everything here; a switch costs a few nanoseconds, where swapcontext()
 * makes two system calls. A processor's shadow stack would forbid it: meson.build keeps that off
 * in the command. Test: every simulation.
 */
#ifndef SIM_COROUTINE_H
#define SIM_COROUTINE_H

#include <stddef.h>

#define SIM_COROUTINE_STACK_BYTES (64u << 10)

/* Never returns. */
typedef void sim_coroutine_main(void *arg);

struct sim_coroutine {
	unsigned char *stack; /* SIM_COROUTINE_STACK_BYTES, the owner's */
	void *sp;             /* while not running */
	void *caller_sp;      /* while running */
	void *fake, *caller_fake; /* address sanitizer's */
	const void *caller_stack;
	size_t caller_bytes;
	sim_coroutine_main *run;
	void *arg;
};

/* (Re)starts: the next resume enters run(arg). */
void sim_coroutine_start(struct sim_coroutine *co, sim_coroutine_main *run, void *arg);
/* Runs until the next yield. */
void sim_coroutine_resume(struct sim_coroutine *co);
/* Called within run only. */
void sim_coroutine_yield(struct sim_coroutine *co);
/* Of one that does not run: what is on its stack, to as many bytes; and as it was then again. */
void sim_coroutine_save(const struct sim_coroutine *co, unsigned char *to);
void sim_coroutine_restore(struct sim_coroutine *co, void *sp, const unsigned char *from);

#endif
