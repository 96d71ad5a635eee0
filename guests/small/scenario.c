/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything but the plain walk: the general trap handler that these scenarios use
 * instead of the hot paths, and what each of them does (abi/small.h lists them).
 * Speed does not matter here; that a guest with odd habits ends in bounded time does.
 */
#include "kernel.h"

#define PROBES_MAX 8        /* per CPU: each may wait for an event that never comes */
#define COLLIDE_WAIT_MS 200 /* phase A: for the event */
#define WINDOW_MS 50        /* phase B: for the event to become due */
#define LOST_MS 200         /* phase B: then it is not coming any more */
#define NO_CLEAR_MS 200     /* how long SMALL_HOSTILE_NO_CLEAR is hostile */
#define APIC_LATE_MS 5
#define KERNEL_PAGES 8

#define RFLAGS_IF 0x200u

static uint64_t tsc_after_ms(uint64_t ms)
{
	return rdtsc() + ms * BOOT->tsc_khz;
}

static void relax(void)
{
	asm volatile("pause" : : : "memory");
}

static struct small_cpu_result *result_of(const struct cpu *c)
{
	return &RESULTS->cpu[c->n];
}

static uint64_t events(const struct cpu *c)
{
	return c->gst.ready_count + c->gst.wake_all_count;
}

/* While a task of this CPU is in the kernel: how many others wait for pages. */
static bool somebody_sleeps(const struct cpu *c)
{
	uint32_t awake = 1;

	for (const struct task *t = c->head; t; t = t->next)
		awake++;
	return c->tasks_alive > awake;
}

/* Ticks until deadline_tsc, whatever the scheduler wants. */
static void deadline_set(struct cpu *c, uint64_t ms)
{
	c->sc.deadline_tsc = tsc_after_ms(ms);
	c->timer_armed = 1;
	wrmsr(MSR_X2APIC_TMICT, TIMER_HZ / 250);
}

/* ---- MSRs ---------------------------------------------------------------------- */

static void expect(struct cpu *c, bool as_expected)
{
	if (as_expected)
		result_of(c)->gp_expected++;
	else
		result_of(c)->gp_missing++;
}

/* A write that must raise #GP and change nothing (invariant 20). */
static void expect_gp(struct cpu *c, uint32_t msr, uint64_t value)
{
	uint64_t before = 0, after = 0;
	bool readable = !rdmsr_safe(msr, &before);

	expect(c, wrmsr_safe(msr, value));
	if (readable && (rdmsr_safe(msr, &after) || after != before))
		result_of(c)->gp_missing++;
}

static void expect_value(struct cpu *c, uint32_t msr, uint64_t write, uint64_t read)
{
	uint64_t v = ~read;

	if (wrmsr_safe(msr, write) || rdmsr_safe(msr, &v) || v != read)
		result_of(c)->gp_missing++;
}

/* The registers of docs/abi.md, before the proper registration. */
static void hostile_msr(struct cpu *c)
{
	enum apf_rev rev = c->gst.rev;
	bool pf2 = rev == APF_REV_PF2 || rev == APF_REV_PF2_STRICT;
	uint64_t on = APF_EN_ENABLED | (rev == APF_REV_LEGACY ? 0 : APF_EN_INT), v;

	if (rev == APF_REV_OFF)
		return;
	for (unsigned bit = rev == APF_REV_LEGACY ? 3 : 4; bit <= 5; bit++)
		expect_gp(c, APF_MSR_EN, c->gst.area_gpa | 1ull << bit);
	/* Outside of RAM: the hole, and where no guest-physical address can be. */
	expect_gp(c, APF_MSR_EN, SMALL_HOLE_GPA | on);
	expect_gp(c, APF_MSR_EN, 1ull << 51 | on);
	expect_gp(c, APF_MSR_EN, APF_EN_GPA_MASK | on);

	if (rev == APF_REV_LEGACY) {
		expect_gp(c, APF_MSR_CTL, c->gst.vector);
		expect(c, rdmsr_safe(APF_MSR_CTL, &v));
	} else {
		for (unsigned bit = pf2 ? 9 : 8; bit < 64; bit++)
			expect_gp(c, APF_MSR_CTL, c->gst.vector | 1ull << bit);
		expect_value(c, APF_MSR_CTL, c->gst.vector, c->gst.vector);
		expect_value(c, APF_MSR_CTL, 0, 0);
	}
	if (rev == APF_REV_INT) {
		expect_value(c, APF_MSR_ACK, 0, 0);
		expect_value(c, APF_MSR_ACK, ~0ull, 0);
		/* Stored, but without the interrupt bit not enabled. */
		expect_value(c, APF_MSR_EN, c->gst.area_gpa | APF_EN_ENABLED,
			     c->gst.area_gpa | APF_EN_ENABLED);
	} else {
		expect_gp(c, APF_MSR_ACK, APF_ACK_READY);
		expect(c, rdmsr_safe(APF_MSR_ACK, &v));
	}
	expect_value(c, APF_MSR_EN, 0, 0);
}

/* ---- The kernel's own touches --------------------------------------------------- */

/* With SEND_ALWAYS: a page-missing event at CPL 0. The CPU halts until it is ready. */
static void wait_in_kernel(struct cpu *c, uint32_t token)
{
	bool nested = c->sc.in_kernel;

	c->sc.waiter.cpu = CPU_NONE;
	c->sc.waiter.woken = false;
	if (!gst_sleep(&c->gst, token, &c->sc.waiter))
		return;
	c->sc.in_kernel = true;
	/* STI's shadow: the event cannot come between the test and the HLT. */
	while (!c->sc.waiter.woken)
		asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	c->sc.in_kernel = nested;
}

/* The first pages, at CPL 0: by turns with interrupts off and on, unless always on. */
static void kernel_touch(struct cpu *c)
{
	struct small_task_result *r = &RESULTS->task[0];
	const uint64_t *expected = (const uint64_t *)SMALL_EXPECT_GPA;

	for (uint64_t i = 0; i < min_u64(KERNEL_PAGES, BOOT->pages); i++) {
		const uint8_t *p = (const uint8_t *)BOOT->image_gpa + i * PAGE_BYTES;
		bool on = BOOT->scenario == SMALL_SEND_ALWAYS || i % 2;

		if (on) {
			c->sc.in_kernel = true;
			timer_arm(c); /* a stalled CPU still has to take its ticks */
			irq_on();
		}
		uint64_t hash = small_page_hash(p);
		irq_off();
		c->sc.in_kernel = false;
		if (hash != expected[i]) {
			r->first_bad_page = i;
			r->pages_bad++;
		}
	}
}

/* ---- Collisions ----------------------------------------------------------------- */

/*
 * Phase A, a handler that a trap gate might have: interrupts are on before CR2 and the
 * reason are read. Known by RIP and RAX alone that this is the probe.
 */
static bool collide_a(struct cpu *c, struct frame *f)
{
	uint32_t token;
	uint64_t before = events(c), end = tsc_after_ms(COLLIDE_WAIT_MS);

	c->sc.probes++;
	c->sc.in_kernel = true;
	irq_on();
	while (events(c) == before && rdtsc() < end)
		relax();
	irq_off();
	c->sc.in_kernel = false;
	if (events(c) == before)
		return false; /* nothing came: not a collision */

	uint64_t cr2 = read_cr2();
	if (gst_pf_enter(&c->gst, cr2, &token) == GST_PF_REAL && cr2 == SMALL_CALL_PROBE)
		result_of(c)->probe_ok++;
	else
		result_of(c)->probe_wrong++;
	c->real_faults++;
	f->rip = (uint64_t)user_call_done;
	return true;
}

static bool slot_filled(const struct cpu *c)
{
	const struct apf_area *a = c->gst.area;

	if (c->gst.rev == APF_REV_INT)
		return __atomic_load_n(&a->token, __ATOMIC_ACQUIRE) != 0;
	return __atomic_load_n(&a->reason, __ATOMIC_ACQUIRE) != 0;
}

static void wait_for_slot(const struct cpu *c, uint64_t ms)
{
	uint64_t end = tsc_after_ms(ms);

	while (!slot_filled(c) && rdtsc() < end)
		relax();
}

/*
 * Phase B, first half: wait until the event is due while it cannot be taken. With IF=0;
 * and for a host that holds a page-ready *interrupt* back for IF=0 (pf2-strict, S3) once
 * more with IF=1 and the task priority at its highest. legacy has no slot to look at:
 * its host holds the #PF back.
 */
static bool collide_b_prepare(struct cpu *c, struct frame *f)
{
	wait_for_slot(c, WINDOW_MS);
	if (c->gst.rev == APF_REV_LEGACY || slot_filled(c)) {
		f->rflags &= ~(uint64_t)RFLAGS_IF;
	} else {
		wrmsr(MSR_X2APIC_TPR, 0xf0);
		c->sc.in_kernel = true;
		irq_on();
		wait_for_slot(c, WINDOW_MS);
		irq_off();
		c->sc.in_kernel = false;
		if (!slot_filled(c)) {
			wrmsr(MSR_X2APIC_TPR, 0);
			return false; /* nothing due: not a collision */
		}
	}
	c->sc.probing = true;
	c->sc.ready_before = events(c);
	c->sc.token_due = c->gst.area->token;
	return true;
}

/* Second half: the real fault that was taken meanwhile. */
static void collide_b(struct cpu *c, struct frame *f)
{
	uint32_t token;
	uint64_t cr2 = read_cr2();

	if (gst_pf_enter(&c->gst, cr2, &token) == GST_PF_REAL && cr2 == SMALL_CALL_PROBE)
		result_of(c)->probe_ok++;
	else
		result_of(c)->probe_wrong++;
	c->real_faults++;
	c->sc.probing = false;
	f->rip = (uint64_t)user_call_done;
	f->rflags |= RFLAGS_IF;
	wrmsr(MSR_X2APIC_TPR, 0);
	deadline_set(c, LOST_MS);
}

/* SMALL_CALL_PROBE, taken as the real fault that it is. */
void scenario_probe(struct cpu *c, struct frame *f)
{
	if (BOOT->scenario == SMALL_COLLIDE_B && c->sc.deadline_tsc == 0 && somebody_sleeps(c) &&
	    c->sc.probes < PROBES_MAX) {
		c->sc.probes++;
		if (collide_b_prepare(c, f))
			return; /* the task touches the address again */
	}
	f->rip = (uint64_t)user_call_done;
}

/* ---- The general trap handler --------------------------------------------------- */

static void ack_at_random(struct cpu *c)
{
	uint64_t x = c->sc.random;

	if (BOOT->scenario != SMALL_HOSTILE_ACK || c->gst.rev != APF_REV_INT)
		return;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	c->sc.random = x;
	if (x & 1)
		wrmsr(APF_MSR_ACK, APF_ACK_READY);
}

static bool is_call(uint64_t cr2)
{
	return cr2 - SMALL_HOLE_GPA < PAGE_BYTES;
}

/* A page-missing event: park the task, or the CPU if it was the kernel that touched. */
static void slow_missing(struct cpu *c, struct frame *f, uint32_t token, uint64_t err)
{
	if (!(f->cs & 3)) {
		if (BOOT->scenario != SMALL_SEND_ALWAYS)
			report_exception(c, f, PF_VECTOR, err, token);
		wait_in_kernel(c, token);
		return;
	}
	if (!gst_sleep(&c->gst, token, current(c)))
		return;
	if (BOOT->scenario == SMALL_REENABLE && c->n == 0 &&
	    c->gst.missing_count - c->sc.missing_last >= 8) {
		c->sc.missing_last = c->gst.missing_count;
		gst_disable(&c->gst);
		apf_enable(c);
	}
	go_next(c);
}

static void slow_pf(struct cpu *c, struct frame *f, uint64_t err)
{
	bool user = f->cs & 3;
	uint32_t token;

	if (user && f->rip == (uint64_t)user_call_insn && f->rax == SMALL_CALL_PROBE) {
		if (c->sc.probing) {
			collide_b(c, f);
			return;
		}
		if (BOOT->scenario == SMALL_COLLIDE_A && somebody_sleeps(c) &&
		    c->sc.probes < PROBES_MAX && collide_a(c, f))
			return;
	}
	uint64_t cr2 = read_cr2();
	ack_at_random(c);
	switch (gst_pf_enter(&c->gst, cr2, &token)) {
	case GST_PF_MISSING:
		slow_missing(c, f, token, err);
		return;
	case GST_PF_DONE:
		/* legacy: the event of an idle CPU; nothing to go back to. */
		if (!user && !c->sc.in_kernel)
			go_next(c);
		if (user && anybody_runnable(c))
			timer_arm(c);
		return;
	case GST_PF_REAL:
		if (BOOT->scenario == SMALL_HOSTILE_SLOT && user && !is_call(cr2)) {
			c->real_faults++;
			return; /* an event whose reason was scribbled over: touch again */
		}
		real_fault(f, cr2, err);
	}
}

static void slow_ready_event(struct cpu *c)
{
	ack_at_random(c);
	/* SMALL_COLLIDE_B: the very event that was due has arrived. */
	if (c->sc.deadline_tsc && slot_filled(c) && c->gst.area->token == c->sc.token_due)
		c->sc.arrived = true;
	if (!c->sc.hostile)
		gst_ready_irq(&c->gst);
	eoi();
}

static void deadline_check(struct cpu *c)
{
	if (c->sc.deadline_tsc == 0)
		return;
	if (BOOT->scenario == SMALL_COLLIDE_B && c->gst.rev == APF_REV_LEGACY)
		c->sc.arrived = events(c) != c->sc.ready_before; /* its host delivers in order */
	if (c->sc.arrived) {
		c->sc.arrived = false;
		c->sc.deadline_tsc = 0;
		return;
	}
	if (rdtsc() < c->sc.deadline_tsc) {
		c->timer_armed = 1;
		wrmsr(MSR_X2APIC_TMICT, TIMER_HZ / 250);
		return;
	}
	c->sc.deadline_tsc = 0;
	if (BOOT->scenario == SMALL_COLLIDE_B) {
		/* Lost. Its sleeper touches again, so that the guest can end. */
		result_of(c)->probe_lost++;
		gst_wake(&c->gst, APF_TOKEN_WAKE_ALL);
	}
	if (c->sc.hostile) {
		c->sc.hostile = false;
		gst_disable(&c->gst);
		apf_enable(c);
	}
}

static void slow_tick(struct cpu *c)
{
	c->ticks++;
	c->timer_armed = c->timer_count == 0;
	eoi();
	if (BOOT->pattern == SMALL_IDLE && c->n == 0)
		finish();
	ack_at_random(c);
	deadline_check(c);
}

/* The last task has ended: an event that has not come by now does not come any more. */
void scenario_finish(const struct cpu *c)
{
	bool arrived = c->sc.arrived ||
		       (c->gst.rev == APF_REV_LEGACY && events(c) != c->sc.ready_before);

	if (BOOT->scenario == SMALL_COLLIDE_B && c->sc.deadline_tsc && !arrived)
		result_of(c)->probe_lost++;
}

/* SMALL_STACK: the next event pushes its frame where nothing is yet. */
static void stack_move(struct cpu *c)
{
	if (c->n == 0 && c->sc.stacks < SMALL_STACK_PAGES)
		c->tss.ist[IST_EVENTS - 1] =
			BOOT->image_gpa + (BOOT->pages - c->sc.stacks++) * PAGE_BYTES;
	else
		c->tss.ist[IST_EVENTS - 1] = (uint64_t)c + CPU_BYTES;
}

static void trap(struct cpu *c, struct frame *f, uint64_t kind, uint64_t err)
{
	bool user = f->cs & 3;

	if (user)
		current(c)->resume = resume_full;
	switch (kind) {
	case TRAP_READY:
		slow_ready_event(c);
		break;
	case TRAP_TIMER:
		slow_tick(c);
		break;
	case TRAP_IPI:
		inbox_drain(c);
		eoi();
		break;
	case PF_VECTOR:
		slow_pf(c, f, err);
		return;
	case GP_VECTOR:
		if (f->rip == (uint64_t)wrmsr_insn || f->rip == (uint64_t)rdmsr_insn) {
			f->rip = (uint64_t)msr_fixup;
			return;
		}
		__attribute__((fallthrough));
	default:
		report_exception(c, f, kind, err, read_cr2());
	}
	/* An interrupt. Out of idle: to whoever is runnable now. */
	if (!user) {
		if (!c->sc.in_kernel)
			go_next(c);
		return;
	}
	if (!anybody_runnable(c))
		return;
	if (kind == TRAP_TIMER && c->timer_count) {
		enqueue(c, current(c));
		go_next(c);
	}
	timer_arm(c);
}

/* From slow_common. Returns to the frame, or does not return. */
void trap_slow(struct frame *f, uint64_t kind, uint64_t err)
{
	struct cpu *c = this_cpu();
	struct task *t = current(c);

	if (BOOT->scenario == SMALL_STACK) {
		stack_move(c);
		if (f->cs & 3) {
			/* To where a task keeps its frame; this stack is used once. */
			*frame_of(t) = *f;
			trap(c, frame_of(t), kind, err);
			run(c, t);
		}
	}
	trap(c, f, kind, err);
}

/* Instead of "APIC on, gst_enable" of the plain walk. */
void scenario_enable(struct cpu *c)
{
	c->gst.send_always = BOOT->scenario == SMALL_SEND_ALWAYS;
	c->sc.random = (BOOT->seed + c->n) | 1;
	if (BOOT->scenario == SMALL_APIC_LATE) {
		apf_enable(c);
		uint64_t end = tsc_after_ms(APIC_LATE_MS);
		while (rdtsc() < end)
			relax();
		apic_switch_on(c);
		return;
	}
	apic_switch_on(c);
	if (BOOT->scenario == SMALL_HOSTILE_MSR && c->n == 0)
		hostile_msr(c);
	if (BOOT->scenario == SMALL_HOSTILE_NO_CLEAR) {
		c->sc.hostile = true;
		deadline_set(c, NO_CLEAR_MS);
	}
	apf_enable(c);
}

/* Before the first task of this CPU runs. */
void scenario_start(struct cpu *c)
{
	if (c->n != 0)
		return;
	if (BOOT->pattern == SMALL_IDLE)
		wrmsr(MSR_X2APIC_TMICT, max_u64(BOOT->idle_ms, 1) * (TIMER_HZ / 1000));
	else if (BOOT->scenario == SMALL_CPL0 || BOOT->scenario == SMALL_SEND_ALWAYS)
		kernel_touch(c);
	else if (BOOT->scenario == SMALL_STACK)
		stack_move(c);
}
