/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack of its own for each simulated processor, so that the guest's kernel is written as
 * straight code that may be left and resumed in the middle of a function of the shipped guest
 * half. x86-64, as everything here; a switch costs a few nanoseconds, where swapcontext()
 * makes two system calls. A processor's shadow stack would forbid it: meson.build keeps that off
 * in the command. Test: every simulation.
 */
#ifndef SIM_CO_H
#define SIM_CO_H

#include <stddef.h>

#define SIM_CO_STACK_BYTES (64u << 10)

/* Never returns. */
typedef void sim_co_main(void *arg);

struct sim_co {
	unsigned char *stack; /* SIM_CO_STACK_BYTES, the owner's */
	void *sp;             /* while not running */
	void *caller_sp;      /* while running */
	void *fake, *caller_fake; /* address sanitizer's */
	const void *caller_stack;
	size_t caller_bytes;
	sim_co_main *run;
	void *arg;
};

/* (Re)starts: the next resume enters run(arg). */
void sim_co_start(struct sim_co *co, sim_co_main *run, void *arg);
/* Runs until the next yield. */
void sim_co_resume(struct sim_co *co);
/* Called within run only. */
void sim_co_yield(struct sim_co *co);
/* Of one that does not run: what is on its stack, to as many bytes; and as it was then again. */
void sim_co_save(const struct sim_co *co, unsigned char *to);
void sim_co_restore(struct sim_co *co, void *sp, const unsigned char *from);

#endif
