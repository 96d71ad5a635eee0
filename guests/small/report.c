/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the small guest ends: results into the boot area, one line on the console port,
 * the status on the exit port. The line is built in memory and sent by one `rep outsb`:
 * one instruction for an emulator, an exit for each piece of it for KVM.
 */
#include "kernel.h"

struct line {
	char text[256];
	uint32_t len;
};

static void put(struct line *l, const char *s)
{
	while (*s && l->len < sizeof(l->text))
		l->text[l->len++] = *s++;
}

static void put_number(struct line *l, const char *before, uint64_t v, unsigned base)
{
	char digits[24];
	unsigned i = sizeof(digits) - 1;

	digits[i] = 0;
	do {
		digits[--i] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	put(l, before);
	put(l, digits + i);
}

/* Of several vCPUs that end the guest at a time the first one says why. */
static _Noreturn void end(struct line *l, uint32_t status)
{
	static uint32_t ending;
	const char *text = l->text;
	uint64_t count;

	while (__atomic_exchange_n(&ending, 1, __ATOMIC_ACQUIRE))
		asm volatile("cli\n\thlt");
	if (l->len == sizeof(l->text))
		l->len--;
	l->text[l->len++] = '\n';
	count = l->len;
	asm volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(SMALL_PORT_CONSOLE) : "memory");
	for (;;)
		asm volatile("outl %0, %w1\n\tcli\n\thlt" : : "a"(status), "d"(SMALL_PORT_EXIT));
}

/* clang asks for it by name when it clears a struct; `rep stosb` is one instruction. */
void *memset(void *to, int value, size_t count);
void *memset(void *to, int value, size_t count)
{
	void *p = to;

	asm volatile("rep stosb" : "+D"(p), "+c"(count) : "a"(value) : "memory");
	return to;
}

/* The same for copying one. */
void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
	void *p = to;

	asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(count) : : "memory");
	return to;
}

/* A trap that nobody expects: the VM ends here, and says why. */
_Noreturn void report_exception(struct cpu *c, struct frame *f, uint64_t vector, uint64_t err,
				uint64_t cr2)
{
	struct line l = {.len = 0};

	put_number(&l, "small: exception ", vector, 10);
	put_number(&l, " on cpu ", c->n, 10);
	put_number(&l, ": rip 0x", f->rip, 16);
	put_number(&l, " cs 0x", f->cs, 16);
	put_number(&l, " rsp 0x", f->rsp, 16);
	put_number(&l, " rax 0x", f->rax, 16);
	put_number(&l, " cr2 0x", cr2, 16);
	put_number(&l, " error 0x", err, 16);
	end(&l, 2);
}

/* The host raised #GP where it had announced the revision, or does not announce it. */
_Noreturn void report_refused(struct cpu *c)
{
	struct line l = {.len = 0};

	put_number(&l, "small: the host refuses revision ", c->gst.rev, 10);
	put_number(&l, " on cpu ", c->n, 10);
	end(&l, 2);
}

static void cpu_result(uint32_t n)
{
	const struct cpu *c = &cpus[n].cpu;
	struct small_cpu_result *r = &RESULTS->cpu[n];

	r->missing = c->gst.missing_count;
	r->ready = c->gst.ready_count;
	r->wake_all = c->gst.wake_all_count;
	r->spurious = c->gst.spurious_count;
	r->real_faults = c->real_faults;
	r->ticks = c->ticks;
}

/* Early wake-ups by CPU: only worth a look at 256 chains if there are any. */
static void early_results(void)
{
	for (unsigned b = 0; b < GST_BUCKETS && sleepers.early_count; b++) {
		for (const struct gst_node *n = sleepers.buckets[b]; n; n = n->next) {
			if (!n->task)
				RESULTS->cpu[n->cpu].early++;
		}
	}
}

/* Called once, by whoever ends the last task (or the idle time). */
_Noreturn void finish(void)
{
	struct small_results *r = RESULTS;
	uint64_t done = 0, bad = 0, missing = 0, ready = 0;
	struct line l = {.len = 0};

	for (uint32_t n = 0; n < BOOT->vcpus; n++) {
		cpu_result(n);
		scenario_finish(&cpus[n].cpu);
		missing += r->cpu[n].missing;
		ready += r->cpu[n].ready;
	}
	early_results();
	for (uint32_t t = 0; t < BOOT->tasks; t++) {
		done += r->task[t].pages_done;
		bad += r->task[t].pages_bad;
	}
	put_number(&l, "small: ", done, 10);
	put_number(&l, " pages, ", bad, 10);
	put_number(&l, " bad; missing ", missing, 10);
	put_number(&l, ", ready ", ready, 10);
	put_number(&l, "; tsc ", r->end_tsc - r->start_tsc, 10);
	end(&l, bad ? 1 : 0);
}
