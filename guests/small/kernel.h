/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small guest's kernel: its objects and what its files share. entry.S includes the
 * constants at the top; kernel.c checks them against the structs.
 *
 * Why it looks as it does: where the hypervisor emulates CPL 0 each instruction here is dear
 * (guests/README.md, "Invariants"), so the two hot paths (page missing, page ready) are counted
 * in instructions and nothing is saved, copied or looked up twice.
 */
#ifndef SMALL_KERNEL_H
#define SMALL_KERNEL_H

#define SEL_KCODE 0x08
#define SEL_KDATA 0x10
#define SEL_UDATA (0x18 | 3)
#define SEL_UCODE (0x20 | 3)
#define SEL_TSS 0x28 /* + 16 * cpu */

#define CPU_BYTES 0x3000 /* struct cpu with its stack */
#define CPU_SELF 96
#define CPU_RSP0 108 /* the TSS's, which is also "the current task" */
#define TASK_RESUME 0
#define FRAME_BYTES 160
#define FRAME_RAX_OFF 48 /* saved RAX lies this far below struct task */

/* What trap_slow is told: a vector below 32, or one of these. */
#define TRAP_READY 256
#define TRAP_TIMER 257
#define TRAP_IPI 258

#ifndef __ASSEMBLER__

#include "abi/small.h"
#include "guest/guest.h"
#include "shared/insn.h"

/* Registers as the entry code leaves them, lowest address first. */
struct frame {
	uint64_t r15, r14, r13, r12, rbp, rbx;
	uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t rip, cs, rflags, rsp, ss;
};

/*
 * A task. TSS.RSP0 points at it while it runs, so the CPU and the entry code push its
 * registers right below it and nothing need be copied: its frame is (struct frame *)t - 1,
 * and the kernel runs on the stack below that.
 */
struct task {
	void (*resume)(void); /* resume_full or resume_touch: what its frame holds */
	uint32_t cpu;
	uint32_t id;
	struct task *next; /* in the run queue */
	bool woken; /* the kernel's own waiter only, see scenario.c */
} __attribute__((aligned(16)));

#define TASK_SLOT_BYTES 4096
struct task_slot {
	uint8_t stack[TASK_SLOT_BYTES - sizeof(struct task)];
	struct task task;
};

#define CPU_NONE UINT32_MAX /* task.cpu of the kernel's own waiter */

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t iomap;
} __attribute__((packed));

/* State that only the scenarios other than SMALL_WALK use. */
struct cpu_scenario {
	bool in_kernel;     /* CPL 0 has interrupts on outside of idle: return there */
	bool hostile;       /* SMALL_HOSTILE_NO_CLEAR: still doing harm */
	bool probing;       /* SMALL_COLLIDE_B: the next touch of SMALL_CALL_PROBE is the probe */
	uint32_t probes;    /* collisions tried */
	uint32_t stacks;    /* SMALL_STACK: absent ones used up */
	struct task waiter; /* the kernel itself, SMALL_SEND_ALWAYS */
	uint64_t missing_last; /* SMALL_REENABLE: the count at the last time */
	uint64_t ready_before; /* SMALL_COLLIDE_B, legacy: the event is lost if it stays here */
	uint32_t token_due;    /* the others: lost if this one does not come */
	bool arrived;          /* it came */
	uint64_t deadline_tsc; /* until then; 0 = nothing to wait for */
	uint64_t random;
};

/* One CPU; only its own code touches it, except inbox. GS base points at it for ever. */
struct cpu {
	struct gst_cpu gst; /* first: the guest half's pointer is ours */
	struct cpu *self;
	struct tss tss; /* packed: RSP0 is unaligned, as the SDM has it */
	uint32_t n;
	uint32_t tasks_alive;
	struct task *head; /* run queue; tail means nothing while head is NULL */
	struct task *tail;
	uint8_t timer_armed; /* one-shot running; stays 1 without preemption */
	uint8_t timer_vector;
	uint8_t ipi_vector;
	uint32_t timer_count; /* one tick in APIC timer counts */
	uint64_t ticks;
	uint64_t real_faults;
	/* Tasks woken by other CPUs, each at most once. */
	uint32_t inbox_lock;
	uint32_t inbox_count;
	struct task *inbox[SMALL_TASKS_MAX];
	struct cpu_scenario sc;
	uint8_t ist_stack[2048] __attribute__((aligned(16)));
};

union cpu_slot {
	struct cpu cpu;
	uint8_t bytes[CPU_BYTES];
} __attribute__((aligned(4096)));

extern union cpu_slot cpus[SMALL_VCPUS_MAX];
extern struct gst_table sleepers;

#define BOOT ((const struct small_boot *)SMALL_BOOT_GPA)
#define RESULTS ((struct small_results *)SMALL_RESULTS_GPA)

/* x2APIC MSRs (SDM vol. 3, table 11-6) and friends. */
#define MSR_APIC_BASE 0x1b
#define MSR_X2APIC_TPR 0x808
#define MSR_X2APIC_EOI 0x80b
#define MSR_X2APIC_SVR 0x80f
#define MSR_X2APIC_ICR 0x830
#define MSR_X2APIC_LVT_TIMER 0x832
#define MSR_X2APIC_TMICT 0x838
#define MSR_X2APIC_TDCR 0x83e
#define MSR_GS_BASE 0xc0000101

#define PF_VECTOR 14
#define GP_VECTOR 13
#define SPURIOUS_VECTOR 0xff
#define IST_EVENTS 2 /* SMALL_STACK: the stack of everything but NMI and double fault */

/* KVM's APIC timer: 1 GHz bus, divided by 128 (TDCR 1010b). */
#define TIMER_TDCR 0xa
#define TIMER_HZ (1000000000u / 128u)

static inline void eoi(void)
{
	wrmsr(MSR_X2APIC_EOI, 0);
}

static inline struct cpu *this_cpu(void)
{
	struct cpu *c;

	asm("mov %%gs:%c1, %0" : "=r"(c) : "i"(CPU_SELF));
	return c;
}

static inline struct task *current(const struct cpu *c)
{
	return (struct task *)c->tss.rsp[0];
}

static inline struct frame *frame_of(struct task *t)
{
	return (struct frame *)(void *)t - 1;
}

static inline void enqueue(struct cpu *c, struct task *t)
{
	t->next = NULL;
	if (c->head)
		c->tail->next = t;
	else
		c->head = t;
	c->tail = t;
}

static inline bool anybody_runnable(const struct cpu *c)
{
	return c->head != NULL;
}

/* NULL: nobody. */
static inline struct task *dequeue(struct cpu *c)
{
	struct task *t = c->head;

	if (__builtin_expect(t != NULL, 1))
		c->head = t->next;
	return t;
}

/* The timer runs only while there is somebody to preempt for. */
static inline void timer_arm(struct cpu *c)
{
	if (__builtin_expect(!c->timer_armed, 0)) {
		c->timer_armed = 1;
		wrmsr(MSR_X2APIC_TMICT, c->timer_count);
	}
}

/* Back to CPL 3. Nothing of the kernel's stacks is kept. */
static inline _Noreturn void run(struct cpu *c, struct task *t)
{
	c->tss.rsp[0] = (uint64_t)t;
	asm volatile("jmp *%c1(%0)" : : "a"(t), "i"(TASK_RESUME) : "memory");
	__builtin_unreachable();
}

/* entry.S */
void resume_full(void);
void resume_touch(void);
_Noreturn void idle(struct cpu *c);
bool wrmsr_safe(uint32_t msr, uint64_t value); /* true: #GP */
bool rdmsr_safe(uint32_t msr, uint64_t *ret_value);
extern char wrmsr_insn[], rdmsr_insn[], msr_fixup[];
extern char pf_fast_int[], pf_fast_pf2[], pf_fast_any[];
extern char ready_fast_int[], ready_fast_pf2[], ready_fast_any[], timer_fast[];
extern char slow_ready[], slow_timer[], slow_ipi[], slow_spurious[];
extern char *const slow_stubs[32];

/* user_stubs.S and user.c: CPL 3, at SMALL_USER_GPA. */
extern char user_touch_insn[], user_call_insn[], user_call_done[];
extern struct apf_area user_areas[SMALL_VCPUS_MAX];
extern uint32_t user_walkers_left;
#define USER_STACK_BYTES 2048
extern uint8_t user_stacks[SMALL_TASKS_MAX][USER_STACK_BYTES];
void user_main(uint64_t id);

/* Private calls, beside those of abi/small.h. */
#define CALL_REENABLE (SMALL_HOLE_GPA + 0x10) /* SMALL_HOSTILE_SLOT: the harm is done */

/* kernel.c */
void apf_enable(struct cpu *c); /* or ends the VM: the host refuses what it was told */
void pf_touch_int(void);
void pf_touch_pf2(void);
void pf_touch_any(void);
void pf_full(struct cpu *c, uint64_t cr2, struct frame *f, uint64_t err);
#define KEEPS_REGISTERS __attribute__((no_caller_saved_registers))
KEEPS_REGISTERS void ready_running_int(void);
KEEPS_REGISTERS void ready_running_pf2(void);
KEEPS_REGISTERS void ready_running_any(void);
void ready_idle_int(void);
void ready_idle_pf2(void);
void ready_idle_any(void);
struct task *tick_running(struct cpu *c);
void tick_idle(struct cpu *c);
void kernel_main(uint64_t n);
_Noreturn void go_next(struct cpu *c);
_Noreturn void real_fault(struct frame *f, uint64_t cr2, uint64_t err);
void apic_switch_on(struct cpu *c);
void inbox_drain(struct cpu *c);

/* scenario.c */
void trap_slow(struct frame *f, uint64_t kind, uint64_t err);
void scenario_enable(struct cpu *c);
void scenario_start(struct cpu *c);
void scenario_finish(const struct cpu *c);
void scenario_probe(struct cpu *c, struct frame *f);

/* report.c */
_Noreturn void report_exception(struct cpu *c, struct frame *f, uint64_t vector, uint64_t err,
				uint64_t cr2);
_Noreturn void report_refused(struct cpu *c);
_Noreturn void finish(void);

#endif
#endif
