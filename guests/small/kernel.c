/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot, scheduler and the hot paths of the small guest. The guest half is built into
 * this file so that a fault is one function without calls; it stays its own source,
 * and its tests use it as its own object.
 *
 * SMALL_WALK, what is measured, uses only what is here. Every other scenario gets the
 * general entries and scenario.c instead: the hot paths ask for no scenario.
 */
#include "kernel.h"

static inline bool small_wrmsr(struct gst_cpu *g, uint32_t msr, uint64_t value);
static inline void small_wake(struct gst_cpu *g, void *task);
/* Cold calls keep all registers, so that the hot functions around them need save none. */
#define GST_COLD __attribute__((noinline, cold)) KEEPS_REGISTERS
#define GST_WRMSR(cpu, msr, value) small_wrmsr((cpu), (msr), (value))
#define GST_WAKE(cpu, task) small_wake((cpu), (task))
#include "guest/guest.c"
#include "guest/sleepers.c"

#define HOT __attribute__((flatten, aligned(16)))
#define COLD __attribute__((noinline, cold))

_Static_assert(offsetof(struct cpu, self) == CPU_SELF, "entry.S");
_Static_assert(offsetof(struct cpu, tss.rsp) == CPU_RSP0, "entry.S");
_Static_assert(offsetof(struct task, resume) == TASK_RESUME, "entry.S");
_Static_assert(sizeof(struct frame) == FRAME_BYTES, "entry.S");
_Static_assert(FRAME_BYTES - offsetof(struct frame, rax) == FRAME_RAX_OFF, "entry.S");
_Static_assert(sizeof(union cpu_slot) == CPU_BYTES, "entry.S");
_Static_assert(CPU_BYTES - sizeof(struct cpu) >= 4096, "room for the idle stack");
_Static_assert(sizeof(struct task_slot) == TASK_SLOT_BYTES, "no padding behind the task");

union cpu_slot cpus[SMALL_VCPUS_MAX];
struct gst_table sleepers;
static struct task_slot tasks[SMALL_TASKS_MAX];
/* All tasks asleep, and as many early wake-ups before the table is flushed. */
static struct gst_node nodes[2 * SMALL_TASKS_MAX];
static uint64_t gdt[5 + 2 * SMALL_VCPUS_MAX];
static struct {
	uint64_t lo, hi;
} idt[256];
static uint32_t tasks_left;
static uint32_t boot_done;

_Noreturn void apf_assert_fail(const char *expr, const char *file, int line);
_Noreturn COLD void apf_assert_fail(const char *expr, const char *file, int line)
{
	(void)expr;
	(void)file;
	/* An invalid opcode reports where it was; the line is in a register. */
	asm volatile("ud2" : : "a"(line));
	__builtin_unreachable();
}

/* The acknowledgement is on the hot path, and cannot fail where EN was taken. */
static inline bool small_wrmsr(struct gst_cpu *g, uint32_t msr, uint64_t value)
{
	(void)g;
	if (msr != APF_MSR_ACK)
		return !wrmsr_safe(msr, value);
	wrmsr(msr, value);
	return true;
}

static COLD void cpuid(void *ctx, uint32_t leaf, uint32_t ret[4])
{
	(void)ctx;
	asm volatile("cpuid" : "=a"(ret[0]), "=b"(ret[1]), "=c"(ret[2]), "=d"(ret[3])
		     : "a"(leaf), "c"(0));
}

/* pf2 is announced by leaves of its own; the boot block alone is not believed. */
static COLD void pf2_look(struct cpu *c)
{
	uint32_t want = c->gst.rev == APF_REV_PF2	 ? APF_CPUID_REV_PF2
			: c->gst.rev == APF_REV_PF2_STRICT ? APF_CPUID_REV_PF2_STRICT
							   : 0;

	if (want && !(gst_pf2_revisions(cpuid, NULL) & want))
		report_refused(c);
}

void apf_enable(struct cpu *c)
{
	if (!gst_enable(&c->gst) && c->gst.rev != APF_REV_OFF)
		report_refused(c);
}

/* Of another CPU's task: only when the sleeper table overflowed. Or the kernel's waiter. */
static GST_COLD void wake_elsewhere(struct task *t)
{
	if (t->cpu == CPU_NONE) {
		t->woken = true;
		return;
	}
	struct cpu *c = &cpus[t->cpu].cpu;
	while (__atomic_exchange_n(&c->inbox_lock, 1u, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	c->inbox[c->inbox_count++] = t;
	__atomic_store_n(&c->inbox_lock, 0u, __ATOMIC_RELEASE);
	/* Fixed, physical destination: x2APIC id = CPU number. */
	wrmsr(MSR_X2APIC_ICR, (uint64_t)t->cpu << 32 | c->ipi_vector);
}

void inbox_drain(struct cpu *c)
{
	while (__atomic_exchange_n(&c->inbox_lock, 1u, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	for (uint32_t i = 0; i < c->inbox_count; i++)
		enqueue(c, c->inbox[i]);
	c->inbox_count = 0;
	__atomic_store_n(&c->inbox_lock, 0u, __ATOMIC_RELEASE);
}

static inline void small_wake(struct gst_cpu *g, void *task)
{
	struct cpu *c = CONTAINER_OF(g, struct cpu, gst);
	struct task *t = task;

	if (__builtin_expect(t->cpu != c->n, 0))
		wake_elsewhere(t);
	else
		enqueue(c, t);
}

/* The next runnable task, or idle. The caller's stack is given up. */
static inline _Noreturn void next(struct cpu *c)
{
	struct task *t = dequeue(c);

	if (t)
		run(c, t);
	idle(c);
}

/* The same where the queue may have grown by more than one since somebody ran. */
_Noreturn void go_next(struct cpu *c)
{
	struct task *t = dequeue(c);

	if (!t)
		idle(c);
	if (__builtin_expect(anybody_runnable(c), 0))
		timer_arm(c);
	run(c, t);
}

static COLD _Noreturn void task_exit(struct cpu *c)
{
	c->tasks_alive--;
	if (__atomic_sub_fetch(&tasks_left, 1u, __ATOMIC_ACQ_REL) == 0)
		finish();
	next(c);
}

/* A real #PF: a task's call, or something that must not happen. */
COLD _Noreturn void real_fault(struct frame *f, uint64_t cr2, uint64_t err)
{
	struct cpu *c = this_cpu();
	struct task *t = current(c);

	c->real_faults++;
	if (!(f->cs & 3) || f->rip != (uint64_t)user_call_insn)
		report_exception(c, f, PF_VECTOR, err, cr2);
	switch (cr2) {
	case SMALL_CALL_EXIT:
		task_exit(c);
	case SMALL_CALL_YIELD:
		f->rip = (uint64_t)user_call_done;
		enqueue(c, t);
		next(c);
	case SMALL_CALL_PROBE:
		scenario_probe(c, f);
		run(c, t);
	case CALL_REENABLE:
		f->rip = (uint64_t)user_call_done;
		gst_disable(&c->gst);
		apf_enable(c);
		run(c, t);
	default:
		report_exception(c, f, PF_VECTOR, err, cr2);
	}
}

/* legacy: page ready came as a #PF, to a task or to an idle CPU. */
static COLD _Noreturn void event_by_fault(bool user)
{
	struct cpu *c = this_cpu();

	if (!user)
		go_next(c);
	if (anybody_runnable(c))
		timer_arm(c);
	run(c, current(c));
}

/* gst_sleep said no. */
static COLD _Noreturn void touch_again(void)
{
	struct cpu *c = this_cpu();

	run(c, current(c));
}

/*
 * The hot functions exist once for each revision that is measured and once for any:
 * which one is decided by the IDT, not by a test in every event.
 */
#define ANY APF_REV_OFF
static inline void rev_is(const struct cpu *c, enum apf_rev rev)
{
	if (rev != ANY && c->gst.rev != rev)
		__builtin_unreachable();
}

/* #PF at user_touch: nothing but RAX to keep. */
static inline _Noreturn void pf_touch(enum apf_rev rev)
{
	struct cpu *c = this_cpu();
	uint64_t cr2 = read_cr2();
	struct task *t = current(c);
	uint32_t token;

	rev_is(c, rev);
	t->resume = resume_touch;
	enum gst_pf what = gst_pf_enter(&c->gst, cr2, &token);
	if (__builtin_expect(what == GST_PF_MISSING, 1)) {
		if (__builtin_expect(gst_sleep(&c->gst, token, t), 1))
			next(c);
		touch_again();
	}
	if (what == GST_PF_DONE)
		event_by_fault(true);
	/* Most registers are not what they were, but where and why is what counts. */
	real_fault(frame_of(t), read_cr2(), frame_of(t)->rax);
}

HOT void pf_touch_int(void)
{
	pf_touch(APF_REV_INT);
}

HOT void pf_touch_pf2(void)
{
	pf_touch(APF_REV_PF2);
}

HOT void pf_touch_any(void)
{
	pf_touch(ANY);
}

/* #PF anywhere else: all registers are saved. */
HOT void pf_full(struct cpu *c, uint64_t cr2, struct frame *f, uint64_t err)
{
	struct task *t = current(c);
	uint32_t token;

	enum gst_pf what = gst_pf_enter(&c->gst, cr2, &token);
	t->resume = resume_full;
	if (__builtin_expect(what == GST_PF_MISSING, 1)) {
		/* Never at CPL 0 without SEND_ALWAYS (msr.rst): there is no task to park. */
		if (__builtin_expect(!(f->cs & 3), 0))
			report_exception(c, f, PF_VECTOR, err, cr2);
		if (__builtin_expect(gst_sleep(&c->gst, token, t), 1))
			next(c);
		touch_again();
	}
	if (what == GST_PF_DONE)
		event_by_fault(f->cs & 3);
	real_fault(f, cr2, err);
}

/*
 * Page ready while a task runs: the woken one waits for its turn. The timer is armed
 * also for a spurious event; one tick more than needed does no harm.
 */
static inline void ready_running(enum apf_rev rev)
{
	struct cpu *c = this_cpu();

	rev_is(c, rev);
	gst_ready_irq(&c->gst);
	eoi();
	timer_arm(c);
}

/* These save what they use, and no more, by themselves: nothing is switched here. */
KEEPS_REGISTERS HOT void ready_running_int(void)
{
	ready_running(APF_REV_INT);
}

KEEPS_REGISTERS HOT void ready_running_pf2(void)
{
	ready_running(APF_REV_PF2);
}

KEEPS_REGISTERS HOT void ready_running_any(void)
{
	ready_running(ANY);
}

/* Page ready while nobody runs: the woken one runs at once. */
static inline _Noreturn void ready_idle(enum apf_rev rev)
{
	struct cpu *c = this_cpu();

	rev_is(c, rev);
	gst_ready_irq(&c->gst);
	eoi();
	go_next(c);
}

HOT void ready_idle_int(void)
{
	ready_idle(APF_REV_INT);
}

HOT void ready_idle_pf2(void)
{
	ready_idle(APF_REV_PF2);
}

HOT void ready_idle_any(void)
{
	ready_idle(ANY);
}

/* The task to switch to, or NULL: go on. The caller saves the rest of the registers. */
struct task *tick_running(struct cpu *c)
{
	struct task *t = current(c);

	c->ticks++;
	c->timer_armed = 0;
	eoi();
	struct task *to = dequeue(c);
	if (!to)
		return NULL;
	t->resume = resume_full;
	enqueue(c, t);
	timer_arm(c);
	return to;
}

/* The last task to preempt for has gone to sleep meanwhile. */
void tick_idle(struct cpu *c)
{
	c->ticks++;
	c->timer_armed = 0;
	eoi();
	idle(c);
}

static void gate_set(unsigned vector, const char *entry, unsigned ist)
{
	uint64_t a = (uint64_t)entry;

	/* Interrupt gate, DPL 0: IF=0 on entry, as the guest half requires. */
	idt[vector].lo = (a & 0xffff) | (uint64_t)SEL_KCODE << 16 | (uint64_t)ist << 32 |
			 0x8eull << 40 | (a >> 16 & 0xffff) << 48;
	idt[vector].hi = a >> 32;
}

static void tables_build(void)
{
	bool walk = BOOT->scenario == SMALL_WALK && BOOT->pattern != SMALL_IDLE;
	unsigned ist = BOOT->scenario == SMALL_STACK ? IST_EVENTS : 0;
	const char *pf = pf_fast_any, *ready = ready_fast_any;
	struct cpu *c = &cpus[0].cpu;

	if (BOOT->rev == APF_REV_INT) {
		pf = pf_fast_int;
		ready = ready_fast_int;
	} else if (BOOT->rev == APF_REV_PF2) {
		pf = pf_fast_pf2;
		ready = ready_fast_pf2;
	}
	gdt[1] = 0x00af9b000000ffffull; /* SEL_KCODE */
	gdt[2] = 0x00cf93000000ffffull; /* SEL_KDATA */
	gdt[3] = 0x00cff3000000ffffull; /* SEL_UDATA */
	gdt[4] = 0x00affb000000ffffull; /* SEL_UCODE */
	for (unsigned v = 0; v < 32; v++)
		gate_set(v, slow_stubs[v], v == 2 || v == 8 ? 1 : ist);
	gate_set(BOOT->vector & 0xff, walk ? ready : slow_ready, ist);
	gate_set(c->timer_vector, walk ? timer_fast : slow_timer, ist);
	gate_set(c->ipi_vector, slow_ipi, ist);
	gate_set(SPURIOUS_VECTOR, slow_spurious, 0);
	if (walk)
		gate_set(PF_VECTOR, pf, 0);
}

static void tables_load(struct cpu *c)
{
	uint64_t base = (uint64_t)&c->tss;
	uint64_t *d = &gdt[SEL_TSS / 8 + 2 * c->n];
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdtr = {sizeof(gdt) - 1, (uint64_t)gdt},
				  idtr = {sizeof(idt) - 1, (uint64_t)idt};

	c->tss.ist[0] = (uint64_t)(c->ist_stack + sizeof(c->ist_stack));
	c->tss.ist[IST_EVENTS - 1] = (uint64_t)c + CPU_BYTES; /* idle keeps nothing there */
	c->tss.iomap = sizeof(c->tss);
	/* Available 64-bit TSS, present. */
	d[0] = (sizeof(c->tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
	       (base >> 24 & 0xff) << 56;
	d[1] = base >> 32;
	asm volatile("lgdt %0\n\tlidt %1\n\t"
		     /* CS by IRETQ, which a CPL-0 emulator must know anyway; then the rest. */
		     "mov %%rsp, %%rax\n\t"
		     "push %q2\n\tpush %%rax\n\tpushf\n\tpush %q3\n\tpush $1f\n\tiretq\n"
		     /*
		      * Null selectors: a descriptor of DPL 0 would be thrown out at the
		      * IRETQ to CPL 3, and GS might lose its base with it (SDM, IRET).
		      */
		     "1:\txor %%eax, %%eax\n\tmov %%eax, %%ds\n\tmov %%eax, %%es\n\t"
		     "mov %%eax, %%fs\n\tmov %%eax, %%gs\n\t"
		     "ltr %w4"
		     :
		     : "m"(gdtr), "m"(idtr), "r"(SEL_KDATA), "r"((uint64_t)SEL_KCODE),
		       "r"(SEL_TSS + 16 * c->n)
		     : "rax", "memory");
	wrmsr(MSR_GS_BASE, (uint64_t)c);
}

/* Software enable, and what only works behind it: LVT entries are masked before. */
void apic_switch_on(struct cpu *c)
{
	wrmsr(MSR_X2APIC_SVR, 0x100 | SPURIOUS_VECTOR);
	wrmsr(MSR_X2APIC_TDCR, TIMER_TDCR);
	wrmsr(MSR_X2APIC_LVT_TIMER, c->timer_vector); /* one-shot */
	c->timer_armed = c->timer_count == 0;
}

static void tasks_create(struct cpu *c)
{
	uint32_t count = BOOT->pattern == SMALL_IDLE ? 0 : BOOT->tasks;

	for (uint32_t id = c->n; id < count; id += BOOT->vcpus) {
		struct task *t = &tasks[id].task;
		struct frame *f = frame_of(t);

		t->resume = resume_full;
		t->cpu = c->n;
		t->id = id;
		f->rdi = id;
		f->rip = (uint64_t)user_main;
		f->cs = SEL_UCODE;
		f->ss = SEL_UDATA;
		f->rflags = 0x202; /* IF */
		/* As if called: the ABI wants RSP 8 below a multiple of 16. */
		f->rsp = (uint64_t)user_stacks[id] + USER_STACK_BYTES - 8;
		enqueue(c, t);
		c->tasks_alive++;
	}
}

static void boot_block_check(void)
{
	const struct small_boot *b = BOOT;

	ASSERT(b->magic == SMALL_MAGIC && b->version == SMALL_VERSION);
	ASSERT(b->vcpus >= 1 && b->vcpus <= SMALL_VCPUS_MAX);
	ASSERT(b->tasks <= SMALL_TASKS_MAX && (b->tasks >= 1 || b->pattern == SMALL_IDLE));
	ASSERT(b->rev <= APF_REV_INT && b->vector >= 32 && b->vector < SPURIOUS_VECTOR);
}

/* CPU 0, before any other goes on. */
static void boot_shared(struct cpu *c)
{
	for (uint32_t n = 0; n < SMALL_VCPUS_MAX; n++) {
		/* Neither may be the page-ready vector. */
		cpus[n].cpu.timer_vector = BOOT->vector == 0x41 ? 0x43 : 0x41;
		cpus[n].cpu.ipi_vector = BOOT->vector == 0x42 ? 0x43 : 0x42;
	}
	tables_build();
	tables_load(c);
	boot_block_check(); /* an exception can be reported from here on */
	gst_table_init(&sleepers, nodes, ARRAY_LEN(nodes));
	tasks_left = BOOT->tasks;
	user_walkers_left = BOOT->tasks - 1;
	__atomic_store_n(&boot_done, 1u, __ATOMIC_RELEASE);
}

void kernel_main(uint64_t n)
{
	struct cpu *c = &cpus[n].cpu;

	c->self = c;
	c->n = (uint32_t)n;
	if (n == 0) {
		boot_shared(c);
	} else {
		while (!__atomic_load_n(&boot_done, __ATOMIC_ACQUIRE))
			__builtin_ia32_pause();
		tables_load(c);
	}
	c->gst.area = &user_areas[n];
	c->gst.area_gpa = (uint64_t)&user_areas[n];
	c->gst.table = &sleepers;
	c->gst.rev = (enum apf_rev)BOOT->rev;
	c->gst.cpu = (uint16_t)n;
	c->gst.vector = (uint8_t)BOOT->vector;
	c->timer_count = BOOT->timer_hz ? TIMER_HZ / BOOT->timer_hz : 0;

	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00); /* x2APIC */
	tasks_create(c);
	if (n == 0)
		pf2_look(c);
	if (BOOT->scenario == SMALL_WALK) {
		apic_switch_on(c);
		apf_enable(c);
	} else {
		scenario_enable(c);
	}
	scenario_start(c);
	go_next(c);
}
