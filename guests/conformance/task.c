/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPL 3, as a function call: task_run() returns when the task has loaded its word, or when
 * it met a page-missing event; then it may be run again, or another one meanwhile.
 * Interrupts that come while it runs are taken and do not end it.
 */
#include "kernel.h"

#define TRIES_MAX 8u

static struct {
	struct task *task;
	enum outcome outcome;
} running;
static uint64_t pages_used;

static void start(struct task *t, void (*entry)(void), uint64_t rdi, uint64_t rsi,
		  bool interrupts_on)
{
	*t = (struct task){
		.address = rdi,
		.frame = {
			.rip = (uint64_t)entry,
			.rdi = rdi,
			.rsi = rsi,
			.cs = SEL_UCODE,
			.ss = SEL_UDATA,
			.rflags = 2 | (interrupts_on ? RFLAGS_IF : 0),
		},
	};
}

void task_load(struct task *t, uint64_t address, bool interrupts_on)
{
	start(t, user_load, address, 0, interrupts_on);
}

void task_spin(struct task *t, const uint32_t *word)
{
	/* A turn, with its PAUSE, takes some tens of ticks. */
	start(t, user_spin, (uint64_t)word, apf.patience_ticks / 32, true);
}

enum outcome task_run(struct task *t)
{
	running.task = t;
	user_enter(&t->frame);
	running.task = NULL;
	return running.outcome;
}

_Noreturn void task_stop(const struct frame *f, enum outcome outcome, uint64_t value)
{
	struct task *t = running.task;

	t->frame = *f;
	running.outcome = outcome;
	switch (outcome) {
	case TASK_DONE:
		t->value = value;
		break;
	case TASK_MISSING:
		t->token = (uint32_t)value;
		break;
	case TASK_FAULT:
		t->address = value;
		break;
	}
	user_leave();
}

uint64_t absent_page(void)
{
	uint64_t at = pages_used * setup.stride;

	if (at + PAGE_BYTES > setup.absent_bytes)
		return 0;
	pages_used++;
	return setup.absent_gpa + at;
}

const char *task_miss(struct task *t)
{
	/* One that is waited for instead is allowed: a host may have its reasons now and then. */
	for (unsigned i = 0; i < TRIES_MAX; i++) {
		uint64_t page = absent_page();

		if (!page)
			return skips("the absent memory is used up");
		task_load(t, page, true);
		if (task_run(t) == TASK_MISSING)
			return NULL;
	}
	return fails("%u absent pages were touched at CPL 3, and none was announced",
		     U(TRIES_MAX));
}

const char *task_finish(struct task *t)
{
	uint64_t address = t->frame.rdi;
	enum outcome outcome = task_run(t);

	EXPECT(outcome != TASK_MISSING, "the page at %x was ready and missing again", address);
	EXPECT(outcome == TASK_DONE, "a real page fault at %x", t->address);
	EXPECT(!setup.stamped || t->value == address, "the page at %x holds %x", address,
	       t->value);
	return NULL;
}

uint64_t kernel_load(uint64_t address, enum interrupts interrupts)
{
	uint64_t value;

	switch (interrupts) {
	case IRQS_ON:
		irq_on();
		pause(); /* the shadow of STI is over */
		asm volatile("mov %1, %0" : "=r"(value) : "m"(*(const uint64_t *)address));
		break;
	case IRQS_SHADOW:
		asm volatile("sti\n\tmov %1, %0" : "=r"(value) : "m"(*(const uint64_t *)address)
			     : "memory");
		break;
	case IRQS_OFF:
	default:
		asm volatile("mov %1, %0" : "=r"(value) : "m"(*(const uint64_t *)address));
		break;
	}
	irq_off();
	return value;
}
