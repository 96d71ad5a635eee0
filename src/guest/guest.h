/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest half of asynchronous page faults, for kernels that have no Linux:
 * registration, #PF entry, token sleepers, ready interrupt, acknowledgement.
 * Freestanding; bounded tables; no allocation. Linux has its own.
 *
 * Contract with the embedding kernel:
 *  - every function runs with interrupts off on the CPU it names, except
 *    gst_table_init;
 *  - the #PF and ready vectors are interrupt gates (IF=0 on entry), and
 *    gst_pf_enter is the first thing the #PF handler does that could itself fault;
 *  - one struct gst_table is shared by all CPUs: a ready event may arrive on another
 *    CPU than its page-missing event (msr.rst promises nothing else).
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include "abi/apf.h"
#include "base/types.h"

/* What the guest half asks of its kernel. */
struct gst_ops {
	/* False: the write raised #GP, which the kernel has caught. */
	bool (*wrmsr)(void *ctx, uint32_t msr, uint64_t value);
	/*
	 * Makes a task runnable that gst_sleep told to block. May be called on any CPU, and
	 * with the table's lock held: it must not call the guest half.
	 */
	void (*wake)(void *ctx, void *task);
};

/* One sleeper, or one wake-up that came before its sleeper. Owned by the table. */
struct gst_node {
	struct gst_node *next; /* in a bucket or the free list */
	void *task;            /* NULL: the wake-up came first */
	uint32_t token;
	uint16_t cpu; /* the sleeper's, or the one that took the early wake-up */
};

#define GST_BUCKETS 256 /* power of two */

struct gst_table {
	struct gst_node *buckets[GST_BUCKETS];
	struct gst_node *free_list;
	uint32_t lock; /* spin lock; only ever held with interrupts off */
	uint32_t node_count;
	uint32_t early_count;    /* wake-ups waiting for their sleeper; 0 at quiescence */
	uint32_t flush_gen;      /* times that wake-ups were forgotten; see sleepers.c */
	uint64_t overflow_count; /* times it was emptied for want of room: all sleepers retried */
};

struct gst_cpu {
	const struct gst_ops *ops;
	void *ctx;
	struct apf_area *area; /* 64-byte aligned, private to this CPU */
	uint64_t area_gpa;
	struct gst_table *table;
	enum apf_rev rev;
	uint16_t cpu; /* this CPU's number, for wake-all */
	uint8_t vector;
	bool enabled;
	bool send_always;
	uint32_t flush_seen; /* table->flush_gen that this CPU's sleepers know of */
	/* Counters, each event once. */
	uint64_t missing_count;   /* page-missing events taken */
	uint64_t ready_count;     /* page-ready events taken, wake-all not counted */
	uint64_t wake_all_count;
	uint64_t spurious_count;  /* ready interrupts with an empty slot */
	uint64_t bad_count;       /* reasons that the protocol does not define */
};

/* What a #PF turned out to be. */
enum gst_pf {
	GST_PF_REAL,    /* an ordinary page fault: the kernel handles it */
	GST_PF_MISSING, /* page missing: *ret_token; call gst_sleep */
	GST_PF_DONE,    /* the event was consumed (legacy page ready): return from the exception */
};

/*
 * The APF_CPUID_REV_* that the host announces in leaves of its own; 0: none. Any CPU, interrupts
 * on or off. cpuid: the instruction, subleaf 0, into EAX, EBX, ECX, EDX. legacy and int
 * are bits of KVM's leaf (abi/apf.h).
 */
typedef void gst_cpuid_fn(void *ctx, uint32_t leaf, uint32_t ret[4]);
uint32_t gst_pf2_revisions(gst_cpuid_fn *cpuid, void *ctx);

/* nodes: the caller's array, count >= 1, all owned by the table from here on. */
void gst_table_init(struct gst_table *t, struct gst_node *nodes, uint32_t count);

/*
 * Registers this CPU with the host, in the order that the revision asks for: the
 * area is zeroed, then int: CTL before EN; pf2: CTL cleared, EN, CTL; legacy: EN.
 * cpu->ops, ctx, area, area_gpa, table, rev, cpu, vector and send_always are the
 * caller's. May be called again after gst_disable.
 * False: the host refused a write, EN is 0, and this CPU is not registered (for APF_REV_OFF
 * it never is). The kernel runs on without events.
 */
bool gst_enable(struct gst_cpu *cpu);

/*
 * Unregisters (EN is 0, pf2's CTL too): no event will come any more, every sleeper of this CPU
 * is woken (it touches its page again), the area is zeroed for the next gst_enable.
 */
void gst_disable(struct gst_cpu *cpu);

/*
 * Demultiplexes a #PF. cr2 is the register's value, read before anything could fault.
 * GST_PF_MISSING obliges the kernel to call gst_sleep for that token on this CPU before
 * it takes another page-missing event here.
 */
enum gst_pf gst_pf_enter(struct gst_cpu *cpu, uint64_t cr2, uint32_t *ret_token);

/*
 * Puts `task` to sleep under `token`. True: the task is registered and the kernel must
 * not run it until ops->wake names it (which may happen before the caller gets round
 * to switching, on another CPU). False: do not sleep, touch the page again (the wake-up
 * came first, or somebody sleeps under that token already, or there was no room, or wake-ups
 * were forgotten since this CPU's last call). task is not NULL.
 */
bool gst_sleep(struct gst_cpu *cpu, uint32_t token, void *task);

/*
 * The page-ready interrupt. int: reads the token, wakes its sleeper, frees the slot,
 * acknowledges. pf2: reads the token, frees the slot, wakes its sleeper. An empty slot is
 * spurious: nobody wakes. EOI is the kernel's.
 */
void gst_ready_irq(struct gst_cpu *cpu);

/* Wakes the sleeper of `token`, or remembers that it came early. ~0 wakes all of this CPU. */
void gst_wake(struct gst_cpu *cpu, uint32_t token);

#endif
