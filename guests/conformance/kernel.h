/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance guest: a kernel that checks from the inside what a hypervisor promises
 * about asynchronous page faults, and prints it as TAP on the first serial port. Nothing
 * of the host's is linked in: abi/apf.h is all that both know.
 *
 * Where CPL 0 is emulated instructions are dear (guests/README.md), so code here is plain.
 * Interrupts are off unless a check opens a window for them (await, quiet). One processor
 * runs all checks; a second one only serves check_reset.c.
 */
#ifndef CONFORMANCE_KERNEL_H
#define CONFORMANCE_KERNEL_H

#define SEL_KCODE 0x08
#define SEL_KDATA 0x10
#define SEL_UDATA (0x18 | 3)
#define SEL_UCODE (0x20 | 3)
#define SEL_CODE32 0x28
#define SEL_TSS 0x30
#define GDT_BYTES 0x40

#define AP_PAGE 0x8000 /* where a second processor starts, below 1 MiB */
#define VECTOR_STUB_BYTES 16
#define TSS_RSP0 4
/* Not mapped, in the second half TiB: a touch is a real page fault. */
#define USER_DONE 0x8000000000
#define USER_HOLE 0x8000001000

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/apf.h"
#include "shared/insn.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define PAGE_BYTES 4096u

/* ---- vectors and local APIC registers (x2APIC, SDM vol. 3, table 11-6) ---- */

#define GP_VECTOR 13
#define READY_VECTOR 0xe1
#define OTHER_VECTOR 0xd1 /* for what must not, or not yet, be READY_VECTOR */
#define TIMER_VECTOR 0x41
#define LOW_VECTOR 9 /* below 16: an exception's, which processors no longer raise */
#define SPURIOUS_VECTOR 0xff

#define MSR_APIC_BASE 0x1b
#define MSR_X2APIC_ID 0x802
#define MSR_X2APIC_EOI 0x80b
#define MSR_X2APIC_SVR 0x80f
#define MSR_X2APIC_ICR 0x830
#define MSR_X2APIC_LVT_TIMER 0x832
#define MSR_X2APIC_LVT_LINT0 0x835
#define MSR_X2APIC_TMICT 0x838
#define MSR_X2APIC_TDCR 0x83e
#define SVR_ON (0x100 | SPURIOUS_VECTOR)

#define RFLAGS_IF 0x200

/* Registers as the entry code leaves them, lowest address first. */
struct frame {
	uint64_t r15, r14, r13, r12, rbp, rbx;
	uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t iomap;
} __attribute__((packed));

extern struct tss tss;
extern uint64_t gdt[];
extern uint64_t page_pointers[512];

/* entry.S, trap.S */
extern char vector_stubs[], wrmsr_insn[], rdmsr_insn[], msr_fixup[];
extern char ap_trampoline[], ap_trampoline_end[];
bool wrmsr_safe(uint32_t msr, uint64_t value); /* true: #GP */
bool rdmsr_safe(uint32_t msr, uint64_t *ret_value);
void halt(void); /* until an interrupt, or less: HLT may end without one */
void user_enter(struct frame *f);
_Noreturn void user_leave(void);
void user_load(void);
void user_spin(void);

/* ---- instructions ---- */

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf)
{
	struct cpuid r;

	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(0));
	return r;
}

static inline void out8(uint16_t port, uint8_t v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void pause(void)
{
	asm volatile("pause" : : : "memory");
}

static inline uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void store(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* ---- console.c ---- */

/* %s text, %u and %x 64-bit numbers, nothing else: numbers are passed as uint64_t. */
void print(const char *format, ...);
_Noreturn void stop(uint32_t value); /* ends the machine: status (value << 1) | 1 */
_Noreturn void bail_out(const char *format, ...);

#define U(x) ((uint64_t)(x))

/* ---- boot.c: what the loader, the command line and the processor say ---- */

struct setup {
	const char *only;       /* run checks whose name starts with one of these; or NULL */
	const char *brief;      /* checks that are expected to fail: less patience; or NULL */
	enum apf_rev rev;       /* APF_REV_OFF: find out */
	uint64_t absent_gpa;
	uint64_t absent_bytes;  /* 0: none */
	uint64_t stride;        /* between two pages of it that are touched */
	bool stamped;           /* each absent page starts with its own address */
	uint64_t quiet_ticks;   /* to wait for what must not come */
	uint64_t patience_ticks; /* to wait for what must come */
	uint64_t tsc_khz;
	unsigned cpus;          /* 0: unknown */
	uint64_t ram_end;       /* of the RAM that starts at 1 MiB; 0: unknown */
	uint64_t outside_gpa;   /* where no RAM is */
	uint32_t kvm_leaf;      /* base of the hypervisor's CPUID leaves; 0: none */
	bool kernel_is_real;    /* CPL 0 runs, it is not emulated */
	uint64_t en_at_start;
	uint64_t ctl_at_start;
};

extern struct setup setup;

void kernel_main(uint32_t magic, const void *info);
void tables_load(void);
void apic_on(void);

/* ---- trap.c: what was delivered ---- */

enum event_kind {
	EVENT_MISSING,
	EVENT_READY,
	EVENT_WAKE_ALL,
	EVENT_EMPTY, /* the page-ready interrupt, and nothing in the slot */
	EVENT_STRAY, /* an interrupt on a vector that nobody asked for */
	EVENT_KINDS,
};

struct event {
	enum event_kind kind;
	uint32_t token;
	uint32_t word[2]; /* the area as the handler found it */
	uint64_t cr2;
	uint64_t error;
	uint8_t vector;
	bool user;          /* it interrupted CPL 3 */
	bool interrupts_on; /* there */
};

#define EVENTS_MAX 256
struct log {
	struct event events[EVENTS_MAX];
	uint32_t count; /* CPL 3 may look at it */
	uint32_t of[EVENT_KINDS];
	uint32_t timer_count;
};

extern struct log log;

void log_clear(void);
/* The nth event of a kind, from 0; NULL: there were fewer. */
const struct event *log_find(enum event_kind kind, unsigned n);
void trap(struct frame *f);

/* ---- apf.c: registration, the slot, waiting ---- */

struct registration {
	enum apf_rev rev;
	struct apf_area *area; /* the last one that was registered */
	uint8_t vector;
	uint8_t vector_before; /* what was raised before a change comes on it */
	bool by_fault; /* pf2 with EN.3 clear: page ready comes as a #PF, as in legacy */
	bool take; /* the handlers free the slot and acknowledge */
	bool on_at_timer; /* the timer's handler registers the area */
	uint64_t patience_ticks; /* of the check that runs: to wait for what must come */
};

extern struct registration apf;
extern struct apf_area areas[];
#define AREAS 130 /* more than two pages of them */

bool apf_is_pf2(void); /* or pf2-strict */
bool apf_by_irq(void); /* page ready comes as an interrupt */
/* EN for an area, with the bits that the revision wants for everything to work. */
uint64_t apf_en(const struct apf_area *area);
/* Registers `area` as the revision has it, READY_VECTOR. True: #GP. The area is not touched. */
bool apf_register(struct apf_area *area);
/* Zeroes the area, registers it and takes the wake-all. NULL, or what failed. */
const char *apf_on(struct apf_area *area);
void apf_off(void);
/* Back to the state before any check, whatever it left. */
void apf_clean(void);

uint32_t slot_token(void); /* 0: free */
void slot_free(void);
void apf_ack(void); /* nothing where there is no such register */

/* With interrupts on, until there have been n events of a kind. False: patience is over. */
bool await(enum event_kind kind, unsigned n);
/* With interrupts off, until something is in the slot. */
bool await_slot(void);
/* With interrupts on or off, as long as something that must not come might take. */
void quiet(bool interrupts_on);

/* ---- ledger.c: each page missing ends in one page ready ---- */

void ledger_missing(uint32_t token);
void ledger_ready(uint32_t token);
void ledger_wake_all(void);
void ledger_off(void); /* the host forgets, so do we */
unsigned ledger_waiting(void);
const char *ledger_fault(void); /* what went wrong since the last call, or NULL */

/* ---- task.c: CPL 3 ---- */

enum outcome {
	TASK_DONE,    /* value: what it loaded */
	TASK_MISSING, /* token: run it again when that is ready */
	TASK_FAULT,   /* a real page fault at `address` */
};

struct task {
	struct frame frame;
	uint32_t token;
	uint64_t address;
	uint64_t value;
};

/* Loads 8 bytes from address. */
void task_load(struct task *t, uint64_t address, bool interrupts_on);
/* Spins until *word is not 0, for patience_ticks or so. */
void task_spin(struct task *t, const uint32_t *word);
enum outcome task_run(struct task *t);
/* Trap handler only: gives the running task's frame back to task_run. */
_Noreturn void task_stop(const struct frame *f, enum outcome outcome, uint64_t value);

/* The next absent page, never the same twice. 0: there is none (left): the check is skipped. */
uint64_t absent_page(void);
/* Runs t on absent pages until one is announced. NULL, or why not. */
const char *task_miss(struct task *t);
/* The event of t's page has come: it must run to its end without another. NULL, or why not. */
const char *task_finish(struct task *t);

/* A load of the kernel's own. */
enum interrupts {
	IRQS_OFF,
	IRQS_ON,
	IRQS_SHADOW, /* right behind STI: interrupts are on, and wait for one instruction */
};
uint64_t kernel_load(uint64_t address, enum interrupts interrupts);

/* ---- checks ---- */

#define REV(r) (1u << APF_REV_##r)
#define PF2_WIRE (REV(PF2) | REV(PF2_STRICT))
#define BY_IRQ (PF2_WIRE | REV(INT))
#define ALL_REVS (REV(LEGACY) | BY_IRQ)

/*
 * NULL: passed. SKIP: its reason is in skip_reason. Otherwise what was wrong; `fails`
 * composes such a text, good until the next one.
 */
typedef const char *check_fn(uint64_t arg);

struct check {
	const char *name;
	const char *promise;
	unsigned revs;
	check_fn *run;
	uint64_t arg;
	bool absent; /* needs absent memory */
};

struct check_list {
	const struct check *checks;
	unsigned count;
};

extern const struct check_list registers_checks, enable_checks, missing_checks, ready_checks,
	reset_checks;

const char *fails(const char *format, ...);
const char *skips(const char *reason);
extern const char skip_mark[];

#define TRY(call)                                                                                  \
	do {                                                                                       \
		const char *why_ = (call);                                                         \
		if (why_)                                                                          \
			return why_;                                                               \
	} while (0)
#define EXPECT(condition, ...)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return fails(__VA_ARGS__);                                                 \
	} while (0)

_Noreturn void checks_run(void);

/* check_reset.c: the second processor */
_Noreturn void ap_main(void);

#endif
#endif
