/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every exception and interrupt. It tells events from real faults as a guest must, by the
 * area's first word, and writes down what it saw; judging is left to the checks.
 */
#include "kernel.h"

struct log log;

void log_clear(void)
{
	log.count = 0;
	log.timer_count = 0;
	for (unsigned i = 0; i < EVENT_KINDS; i++)
		log.of[i] = 0;
}

const struct event *log_find(enum event_kind kind, unsigned n)
{
	for (unsigned i = 0; i < log.count && i < EVENTS_MAX; i++)
		if (log.events[i].kind == kind && n-- == 0)
			return &log.events[i];
	return NULL;
}

/* Counted even when there is no room to keep it. */
static void note(const struct frame *f, enum event_kind kind, uint32_t token, uint64_t cr2)
{
	if (log.count < EVENTS_MAX)
		log.events[log.count] = (struct event){
			.kind = kind,
			.token = token,
			.word = {load(&apf.area->reason), load(&apf.area->token)},
			.cr2 = cr2,
			.error = f->error,
			.vector = (uint8_t)f->vector,
			.user = (f->cs & 3) != 0,
			.interrupts_on = (f->rflags & RFLAGS_IF) != 0,
		};
	log.of[kind]++;
	store(&log.count, log.count + 1);
}

static void note_ready(const struct frame *f, uint32_t token, uint64_t cr2)
{
	if (token == APF_TOKEN_WAKE_ALL) {
		note(f, EVENT_WAKE_ALL, token, cr2);
		ledger_wake_all();
	} else {
		note(f, EVENT_READY, token, cr2);
		ledger_ready(token);
	}
}

static _Noreturn void die(const struct frame *f, uint64_t cr2)
{
	bail_out("exception %u at rip %x cs %x rsp %x error %x cr2 %x", f->vector, f->rip, f->cs,
		 f->rsp, f->error, cr2);
}

/* SEND_ALWAYS: the kernel itself waits, as the handler of a kernel that cannot sleep does. */
static void wait_in_kernel(uint32_t token)
{
	uint64_t deadline = rdtsc() + apf.patience_ticks;
	unsigned from = log.count;

	irq_on();
	while (rdtsc() < deadline) {
		for (unsigned i = from; i < log.count && i < EVENTS_MAX; i++)
			if (log.events[i].token == token ||
			    log.events[i].kind == EVENT_WAKE_ALL)
				goto out;
		pause();
	}
out:
	irq_off();
}

static void missing(struct frame *f, uint64_t cr2)
{
	uint32_t token = (uint32_t)cr2;

	note(f, EVENT_MISSING, token, cr2);
	/* Before anything that could fault: the next #PF must not see it. */
	store(&apf.area->reason, 0);
	ledger_missing(token);
	if (f->cs & 3)
		task_stop(f, TASK_MISSING, token);
	wait_in_kernel(token);
}

static void page_fault(struct frame *f)
{
	uint64_t cr2 = read_cr2();
	uint32_t word = load(&apf.area->reason);

	if (word == APF_REASON_MISSING) {
		missing(f, cr2);
		return;
	}
	/* pf2 by interrupt: word 0 may belong to an event that is still to come. */
	if (word == APF_REASON_READY && !apf_by_irq()) {
		note_ready(f, (uint32_t)cr2, cr2);
		store(&apf.area->reason, 0);
		return;
	}
	if (!(f->cs & 3))
		die(f, cr2);
	task_stop(f, cr2 == USER_DONE ? TASK_DONE : TASK_FAULT, cr2 == USER_DONE ? f->rax : cr2);
}

static void ready_interrupt(const struct frame *f)
{
	uint32_t token = slot_token();

	if (token == 0)
		note(f, EVENT_EMPTY, 0, 0);
	else
		note_ready(f, token, 0);
	if (apf.take)
		slot_free();
	wrmsr(MSR_X2APIC_EOI, 0);
	if (apf.take)
		apf_ack();
}

void trap(struct frame *f)
{
	if (f->vector == APF_PF_VECTOR) {
		page_fault(f);
	} else if (f->vector == GP_VECTOR && (f->rip == (uint64_t)wrmsr_insn ||
					      f->rip == (uint64_t)rdmsr_insn)) {
		f->rip = (uint64_t)msr_fixup;
	} else if (f->vector < 32 && f->vector != LOW_VECTOR) {
		die(f, 0);
	} else if (f->vector == apf.vector || f->vector == apf.vector_before) {
		ready_interrupt(f);
	} else if (f->vector == TIMER_VECTOR) {
		log.timer_count++;
		wrmsr(MSR_X2APIC_EOI, 0);
		if (apf.on_at_timer)
			(void)apf_register(apf.area);
		apf.on_at_timer = false;
	} else if (f->vector != SPURIOUS_VECTOR) {
		note(f, EVENT_STRAY, 0, 0);
		wrmsr(MSR_X2APIC_EOI, 0);
	}
}
