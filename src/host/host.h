/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host driver: feeds what happens to the engine and performs what the engine
 * says, keeps the residency of every block, fetches each missing block once however
 * many wait for it. Pure: time, sources, guest memory and vCPUs are reached through
 * port/ tables. It never blocks: where a vCPU has to wait, it says so, and the layer
 * around it (lib/) waits.
 *
 * Threads: every function is called under one lock, the VM lock, which the caller
 * holds; "vCPU thread" below means in addition: by the thread of that vCPU, while it is
 * not in guest mode. One system call is made outside the lock: the one that makes a
 * filled block visible, see hst_take_filled.
 *
 * One fault: hst_fault -> (read done) -> hst_take_filled, mem present, hst_shown ->
 * waiters -> hst_next, or an event by deliver.c.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <asyncpf/counters.h>
#include <asyncpf/trace.h>

#include "abi/pv.h"
#include "base/hist.h"
#include "base/list.h"
#include "base/timer.h"
#include "base/walk.h"
#include "engine/engine.h"
#include "host/ram.h"
#include "host/stream.h"
#include "port/clock.h"
#include "port/io.h"
#include "port/mem.h"
#include "port/platform.h"

#define HST_VCPUS_MAX 1024
#define HST_TOUCHES_MAX 32u
#define HST_BLOCK_SHIFT_MAX CHUNK_SHIFT
/* Writes to the swap file at a time, and blocks (256 KiB at least one) in one of them. */
#define HST_WRITES_MAX 32u
_Static_assert(HST_WRITES_MAX + 1 <= IO_WRITES_MAX, "no write waits for a place in the kernel");
#define HST_WRITE_BYTES_MAX (256u << 10)
_Static_assert(HST_WRITE_BYTES_MAX >> PAGE_SHIFT <= 64, "struct hst_write has a bit per block");

enum hst_faults {
	HST_FAULTS_BLOCK,  /* the vCPU thread waits, no interrupts */
	HST_FAULTS_STALL,  /* the vCPU is halted and takes interrupts */
	HST_FAULTS_KERNEL, /* the kernel's async page fault; we only serve the page */
	HST_FAULTS_USER,   /* ours */
};

#define HST_GRACE_AUTO UINT64_MAX

struct hst_cfg {
	enum hst_faults faults;
	enum apf_rev rev;
	bool told_before;           /* with BLOCK and STALL: the guest speaks `rev` already */
	uint32_t vcpus;             /* 1..HST_VCPUS_MAX */
	uint32_t block_shift;       /* 12..21: what is fetched as one */
	uint32_t faults_max;        /* outstanding faults per vCPU, 1..ENG_FAULTS_MAX */
	uint32_t queue_depth;       /* reads in flight, all vCPUs together, >= 1 */
	uint32_t retries_max;       /* of a failed read before the VM is paused */
	uint32_t ahead_max;         /* blocks, for whoever goes through memory in even steps */
	uint64_t grace_ns;          /* or HST_GRACE_AUTO */
	uint64_t source_timeout_ns; /* a read that takes longer pauses the VM; NS_NEVER: none */
	bool evict;                 /* memory may be taken away again: h->swap is set */
	uint64_t resident_max; /* bytes of guest memory in host memory; 0: no limit; blocks_min */
};

/*
 * The least number of blocks below the limit that can be evicted: an instruction needs all of its
 * memory at once, page tables included, and each vCPU is in the middle of one.
 */
static inline uint32_t hst_blocks_min(uint32_t vcpus)
{
	return 32 + 16 * vcpus;
}

/*
 * What asyncpf/counters.h names, since hst_init. Gauges and quantiles stay 0 here; hst_stats_sum
 * and hst_vcpu_stats work them out, and of stall_why the stalls_*.
 */
struct hst_stats {
	union {
		struct apf_counters all;
		struct {
			APF_COUNTER_TABLE(APF_COUNTER_MEMBER)
		};
	};
	uint64_t stall_why[ENG_VERDICTS];
};

struct hst;
struct hst_fetch;
struct hst_vcpu;

/*
 * One who waits for a block. Lies in the vCPU (sync, tokens) or with an outside
 * caller (device access); linked in exactly one fetch while `fetch` is set.
 */
struct hst_waiter {
	struct list_link link;
	struct hst_fetch *fetch;
	struct hst_vcpu *v; /* NULL: an outside waiter */
	/* The block is there; called once, `fetch` is NULL by then. */
	void (*ready)(struct hst *h, struct hst_waiter *w, uint64_t now_ns);
	uint64_t since_ns;
};

enum hst_fetch_state {
	HST_FETCH_FREE,
	HST_FETCH_QUEUED,  /* waits for its turn */
	HST_FETCH_READING, /* with the source, alone or with neighbours: see `follows` */
	HST_FETCH_BACKOFF, /* failed; tried again when the timer fires */
	HST_FETCH_FAILED,  /* retries used up: the VM is paused */
	HST_FETCH_STUCK,   /* with the source for too long: the VM is paused */
	HST_FETCH_CANCELLED, /* stuck and asked to end; read again when it does */
	HST_FETCH_FILLED,  /* the content is in the alias; to be made visible */
	HST_FETCH_OFFERED, /* somebody copies the content in, without the lock */
	HST_FETCH_BEHIND, /* the block is taken away or discarded; goes on when that is over */
};

/* Of hst_fetch.showing: watch_writes of mem present. */
#define HST_SHOW_WATCHED 0x80u

struct hst_fetch {
	struct src_read rd;
	struct hst *h;
	struct timer timer; /* time-out while READING, delay while BACKOFF */
	struct list waiters;    /* who came first is first */
	/*
	 * Of its queue, the filled list, what becomes visible with it, what is read with it, or
	 * the free list.
	 */
	struct list_link link;
	struct ram_backing *backing;
	uint64_t issued_ns;
	/* There are hundreds of fetches for each vCPU: no more bits than are needed. */
	uint32_t block;
	uint32_t first; /* what becomes visible: `block` and, of zeroes, its neighbours */
	uint16_t count;
	uint16_t owner; /* whose queue: vCPU index, or cfg.vcpus for everybody else */
	uint8_t tries;
	/*
	 * MEM_VIEW_*: where it is being made visible, and HST_SHOW_WATCHED. Read without the lock
	 * then, so that nothing else may lie in the same byte.
	 */
	uint8_t showing;
	bool sampled : 1; /* the grace window has been told */
	bool touched : 1; /* somebody sleeps in the kernel for it */
	/* The content is in the alias. Never read again: parts may be visible, and written to. */
	bool filled : 1;
	bool charged : 1;      /* the block counts as resident */
	bool urgent : 1;       /* a vCPU waits for it that can do nothing else meanwhile */
	bool ahead : 1;        /* read along: goes to standby unless somebody waits by then */
	bool planned : 1;      /* the same, by the list of hst_plan */
	bool follows : 1;      /* the read is its neighbour's, which brings this one as well */
	uint8_t rank : 2;      /* enum src_rank */
	uint8_t views : 2;     /* MEM_VIEW_*: where it is wanted */
	enum hst_fetch_state state : 4;
};

static inline struct hst_fetch *hst_fetch_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct hst_fetch, link);
}

static inline struct hst_fetch *hst_fetch_next(const struct hst_fetch *f)
{
	return hst_fetch_of(f->link.next);
}

static inline struct hst_waiter *hst_waiter_of(struct list_link *link)
{
	return LIST_ENTRY(link, struct hst_waiter, link);
}

struct hst_queue {
	struct list fetches;
	struct hst_queue *next; /* whose turn comes after it */
	bool in_turn;
};

/* ---- taking memory away (evict.c) ---- */

/* Of one block, while it is on a list. */
struct hst_link {
	uint32_t next, prev;
};

struct hst_list {
	uint32_t head, tail, len; /* UINT32_MAX: none */
};

enum hst_list_id {
	HST_LIST_USER,   /* present, oldest first */
	HST_LIST_KERNEL, /* present, and the guest's kernel mode needed it lately: taken last */
	HST_LIST_DIRTY,  /* standby, to be written to the swap file */
	HST_LIST_WRITING, /* standby, a write is under way */
	HST_LIST_CLEAN,   /* standby, may be dropped */
	HST_LISTS,
};

/* One write of adjacent blocks to the swap file. */
struct hst_write {
	struct io_req rq;
	struct hst *h;
	struct timer timer; /* time-out of the write, or delay before the next try */
	uint32_t block, count;
	uint64_t changed; /* a bit per block: discarded meanwhile, what is written does not count */
	uint64_t done_bytes;
	uint8_t tries;
	int lost; /* while BUSY: -Exxx of a sync that failed meanwhile, its content may be gone */
	enum {
		HST_WRITE_FREE,
		HST_WRITE_BUSY,
		HST_WRITE_STUCK, /* takes too long: the VM is paused */
		HST_WRITE_BACKOFF,
		HST_WRITE_FAILED, /* retries used up: the VM is paused */
		HST_WRITE_ENDED,  /* the next sync is to make it durable */
		HST_WRITE_SYNCING, /* the sync under way makes it durable */
	} state;
};

/* Of the swap file: one at a time. */
struct hst_sync {
	struct io_req rq;
	struct hst *h;
	struct timer timer; /* time-out */
	uint32_t block;     /* one that it makes durable */
	enum {
		HST_SYNC_NONE,
		HST_SYNC_BUSY,
		HST_SYNC_STUCK, /* takes too long: the VM is paused */
	} state;
};

/* Adjacent blocks. */
struct hst_run {
	uint32_t block, count;
};

#define HST_JOB_RUNS 32u

/* One step, made without the lock: hst_evict_next. */
struct hst_job {
	enum {
		HST_JOB_WATCH,  /* report first touches */
		HST_JOB_IMPORT, /* what is resident? */
		HST_JOB_UNMAP,
		HST_JOB_COLLECT, /* what was unmapped: written to? report touches */
		HST_JOB_DROP,
	} kind;
	struct hst_run runs[HST_JOB_RUNS];
	uint32_t run_count;
	uint32_t blocks; /* of all runs; at most MEM_PAGES_MAX pages */
	/* A bit per block, those of all runs one after the other, from bit 0 of word 0 on: */
	mem_pages yes;  /* resident; or written, before and after hst_evict_work */
	mem_pages vmm;  /* what the VMM's view showed */
	mem_pages zero; /* of the written ones: nothing but zeroes */
	struct err why; /* code 0: done */
};

/* Where evicted content goes. Set by the caller before hst_init, if cfg.evict. */
struct hst_swap {
	struct io io;
	struct io_file *file;
	uint64_t offset;            /* of RAM offset 0 in the file, bytes */
	struct ram_backing backing; /* its src reads what was written; roff 0, all of RAM */
};

/* Memory without a source is filled by the kernel unseen, until memory becomes short. */
enum hst_watch {
	HST_WATCH_NOT,
	HST_WATCH_IMPORT, /* finding out what was filled unseen */
	HST_WATCH_ALL,
};

/* Keeps vCPUs out of the guest for a moment (hold.c). */
struct hst_hold {
	bool on;
	uint64_t since_ns;
	uint64_t after_ns; /* not again before that */
	struct timer timer;
};

struct hst_evict {
	struct hst_link *links; /* NULL: nothing is ever taken away */
	uint32_t *sums;  /* of each block IN_SWAP, what it held: base/sum.h */
	uint32_t held;    /* of hst_hold */
	uint32_t staying; /* blocks that are pinned, or held long */
	uint16_t *keeps; /* of each block, how many need it where it is, */
	uint16_t *holds; /* and how many of these are of hst_hold_long */
	struct hst_list lists[HST_LISTS];
	uint32_t limit;    /* blocks; UINT32_MAX: none */
	uint32_t resident; /* blocks that take up memory, as far as we know of them */
	uint32_t unmap_credit; /* blocks that may be taken out of the mapping ahead of demand */
	uint32_t force_drops;  /* blocks still to be evicted on command */
	uint32_t force_unmaps;
	struct hst_hold hold;
	enum hst_watch watch;
	uint32_t import_block; /* next one to look at */
	bool import_stale;     /* some was discarded since it was handed out to be looked at */
	bool unmapping;        /* in the middle of what is due */
	bool dropping;
	bool working;          /* a job is out */
	enum hst_list_id mostly; /* the list that most blocks were taken from lately */
	uint64_t turn_credit; /* blocks taken since the other list's turn, times its length */
	bool uncollected;      /* `job` has unmapped, and is to collect next */
	bool failed;           /* `job` is to be done again, */
	bool again;            /* now: hst_resume was called since it failed */
	struct hst_job job;
	struct hst_write *writes;
	uint32_t write_count; /* HST_WRITES_MAX; 0: nothing is ever taken away */
	struct hst_sync sync;
	uint32_t writes_in_flight; /* with the kernel, and the sync */
	uint32_t writes_used;      /* not FREE */
};

/* What is read before anybody waits for it: hst_plan, hst_fill. */
struct hst_plan {
	const struct hst_run *runs; /* in the order in which they are wanted; the caller's */
	uint32_t count;
	uint32_t run, in_run; /* the next block of them */
	bool on;
	bool fill;      /* after the runs: all that a source stands behind */
	uint32_t block; /* of that, the next to look at */
	bool missed;    /* in this round some was not there yet */
	bool filled;    /* all of it is there */
	struct timer timer;
};

/* Where the vCPU thread is; decides whether it must be kicked to notice something. */
enum hst_where {
	HST_IN_HOST,
	HST_IN_GUEST,
	HST_IN_WAIT,
};

/* Of blocks that come while the vCPU is in the guest; those beyond are touched like any other. */
#define HST_ARRIVED_MAX 8

/*
 * What a vCPU needs to stay where it is, an entry each: KVM's areas (enum pv_area), ours, what
 * KVM will read to go on with the instruction of the last exit, and what it is to map ahead.
 */
#define HST_KEPT_AREA PV_AREAS
#define HST_KEPT_WALK (PV_AREAS + 1)
#define HST_KEPT_ARRIVED (HST_KEPT_WALK + WALK_MAX)
#define HST_KEPT (HST_KEPT_ARRIVED + HST_ARRIVED_MAX)

/*
 * Stores of one instruction to absent RAM: KVM hands out 8 bytes at a time, of at most 64 for
 * each of two pages.
 */
#define HST_STORES_MAX 16

/* The guest has executed it, as far as KVM is concerned; the block is not there yet. */
struct hst_store {
	roff_t off;
	uint64_t data; /* its first len bytes in memory */
	uint32_t len;
};

/* What the vCPU thread is in the middle of. */
enum hst_phase {
	HST_PHASE_RUN,    /* nothing: enter the guest */
	HST_PHASE_GRACE,  /* a fault within its grace window, or in block: until it is there */
	HST_PHASE_STALL,  /* halted by us until the block is there or an interrupt comes */
	HST_PHASE_LOAD,   /* KVM waits for data that the host loads from an absent block */
	HST_PHASE_STORE,  /* a store of the guest's waits for its block */
	HST_PHASE_WRMSR,  /* a register write whose area is absent: it has not taken effect */
	HST_PHASE_AREA,   /* memory that the kernel writes must be there before the guest runs */
};

struct hst_vcpu {
	struct hst *h;
	unsigned index;
	struct eng_vcpu eng;
	uint32_t kept[HST_KEPT]; /* blocks that stay where they are; UINT32_MAX: none */
	bool kept_walk;		 /* of these, any from HST_KEPT_WALK on */
	/* drive.c: between calls of the VMM, and on the way back to it. */
	bool called;       /* between a call of the VMM's and the way back: not at rest */
	bool back_wanted;  /* by the VMM */
	bool half;         /* KVM has yet to finish the instruction of the last exit */
	bool halted;       /* by us, as far as KVM is concerned */
	bool changed;      /* the VMM may have set registers in KVM's state */
	bool cpu_stale;    /* `cpu` is older than what the VMM may have done to it */
	struct eng_event queued; /* the #PF of ours that `cpu.untaken_token` is of */
	struct hst_store stores[HST_STORES_MAX]; /* in the order of the program */
	uint32_t store_count;
	struct plat_io load; /* of HST_PHASE_LOAD */
	uint32_t areas_again; /* bits of enum pv_area: told to KVM again when they are there */
	uint64_t area_value[PV_AREAS]; /* ... with this value; else as it was told last */
	enum hst_phase phase;
	bool stall_event;    /* of HST_PHASE_STALL: an event was half delivered when it began */
	bool stall_by_text;  /* of HST_PHASE_STALL: whatever becomes ready ends it (eng_halt) */
	bool unhalt;         /* pf2-strict: something has, since the vCPU entered the guest */
	roff_t fault_off; /* of the phase */
	uint64_t phase_since_ns;
	bool phase_kernel_mode; /* the fault came from the guest's CPL 0 */
	uint64_t grace_until_ns; /* NS_NEVER: no limit */
	struct timer wake;       /* ends a wait at the earlier of the two */
	uint64_t crowded_until_ns; /* no fetch was left: the guest touches it again after that */
	struct hst_waiter sync; /* the phase's waiter */
	bool sync_done;
	bool left; /* the phase's memory has left since */
	struct hst_waiter *tokens; /* one per engine fault, same index */
	roff_t arrived[HST_ARRIVED_MAX]; /* since it entered: see hst_take_arrived */
	uint32_t arrived_count;
	uint32_t arrived_kept; /* of those that the platform was told of */
	struct cpu_state cpu;      /* at the last exit; valid while where != HST_IN_GUEST */
	enum hst_where where;
	bool kicked; /* a kick is on its way */
	struct {
		uint32_t index;
		uint64_t value;
	} msr; /* of HST_PHASE_WRMSR */
	uint64_t now_ns; /* by the clock, a moment ago: deliver.c */
	uint64_t area_seen_ns; /* the area's page was looked at, and not lost; 0: not yet */
	struct timer recheck;
	uint64_t recheck_ns; /* interval of the next one; 0: start afresh */
	uint64_t recheck_first_ns; /* int: the first interval */
	bool recheck_by_vcpu; /* needs the vCPU thread */
	bool redundant_last;    /* the last exit was one of these: */
	uint32_t redundant_run; /* faults in a row on blocks that were there */
	struct hst_stats stats;
	uint32_t wait_hist[HIST_BUCKETS]; /* fault to block readable, microseconds */
};

/* Why the VM stands still. */
struct hst_trouble {
	struct err why; /* the source's words; code 0 when it never answered */
	gpa_t gpa;      /* first byte of the block */
	uint32_t tries; /* 0: it is about no block */
};

/*
 * Ranges of guest RAM that are to be zeroes from now on, without memory behind them:
 * hst_discard_step. `at` and `end`: blocks; the rest starts as zeroes.
 */
struct hst_discard {
	uint32_t at, end;
	struct hst_run run; /* taken in hand; count 0: nothing */
	unsigned was;       /* all of it: an enum block_kind */
	bool unmapped;      /* of hst_discard_work: all of it is out of the views */
	struct err why;     /* the same: code 0 when all was done */
};

enum hst_discarding {
	HST_DISCARD_DONE,
	HST_DISCARD_WORK,  /* hst_discard_work without the lock, then step again */
	HST_DISCARD_LATER, /* block `at` must be there first: have it come, then step again */
};

/* Called under the VM lock; must not call back. */
struct hst_hooks {
	/* An outside waiter's block is there: its `fetch` is NULL now. */
	void (*outside_ready)(void *ctx);
	/* The VM was paused by a source or the swap file (t), or goes on (NULL). */
	void (*trouble)(void *ctx, const struct hst_trouble *t);
	void *ctx;
	/*
	 * NULL, or: we have written to guest memory ourselves, or what it holds is zeroes from now
	 * on, as KVM's dirty log cannot tell.
	 */
	void (*wrote)(void *ctx, gpa_t gpa, uint64_t bytes);
	/* NULL, or: a step, for who draws a picture of it. */
	void (*trace)(void *ctx, const struct apf_trace *t);
	/* Where that is called only while this is not 0; NULL: always. */
	const volatile uint16_t *trace_wanted;
};

struct hst {
	struct hst_cfg cfg;
	struct ram ram;
	struct mem mem;
	struct plat plat;
	struct clock clock;
	struct io io; /* of the sources and the swap file: drive.c submits and reaps */
	struct hst_hooks hooks;
	struct timers timers;
	uint32_t *blocks; /* residency, one word per block: see block.h */
	uint32_t block_count; /* words; those of RAM are fewer: ram.end */
	uint8_t *chunk_poisoned; /* one byte per 2 MiB */
	uint64_t blocks_present;
	struct hst_evict evict;
	struct hst_swap swap;
	struct hst_fetch *fetches;
	uint32_t fetch_count;
	struct list free_fetches; /* the one that was used last is first */
	uint32_t free_count;
	struct hst_queue *queues; /* one per vCPU, and one for everybody else */
	/* The queues that may have something in them, in the order of their turns. */
	struct hst_queue *turn_first, *turn_last;
	struct hst_queue urgent; /* goes before those */
	unsigned urgent_run;     /* reads from there in a row */
	struct list ahead[SRC_FILL]; /* behind all of them, by rank: what nobody waits for */
	uint32_t ahead_queued;  /* in these */
	uint32_t ahead_fetches; /* of fetch_count: for those alone */
	struct streams streams;  /* who is read ahead for */
	struct hst_plan plan;
	uint32_t in_flight;
	uint64_t read_ns;  /* moving mean of what reads took */
	uint32_t standing; /* who stand still: waiters that are no tokens, and touches */
	uint32_t in_guest; /* vCPUs whose `where` is HST_IN_GUEST */
	struct list filled;
	struct mem_touch later[HST_TOUCHES_MAX]; /* there was no fetch left for them */
	unsigned later_count;
	unsigned touched_again; /* touches in a row of what had been touched already */
	bool stopping;     /* hst_stop: nothing is read any more */
	bool dispatching;  /* fetch.c: reads that end at once must not recurse */
	unsigned troubled; /* fetches FAILED, STUCK or CANCELLED, writes FAILED or STUCK,
			      a STUCK sync: paused while > 0 */
	bool paused;       /* by the VMM */
	bool trouble_told; /* and not yet taken back */
	struct hst_vcpu *vcpus;
	struct hst_stats stats; /* what belongs to no vCPU */
};

/* ---- set-up ---- */

/* Bytes of zeroed memory that hst_init needs for RAM offsets up to ram_end. */
size_t hst_bytes(const struct hst_cfg *cfg, uint64_t ram_end);

/*
 * mem, plat, clock and hooks are set by the caller first, and h->swap, if cfg.evict, before
 * anything is evicted. space: hst_bytes(cfg, mem.bytes) zeroed bytes, 16-byte aligned, the
 * driver's until the end. What is not used of the part for blocks is never touched.
 */
void hst_init(struct hst *h, const struct hst_cfg *cfg, void *space);
/* h->ram has become larger. */
void hst_ram_added(struct hst *h);
/*
 * [off, off + len) holds memory of the VMM's that was there before: nothing is read for it, and
 * it counts as written. Before anybody can touch it.
 */
void hst_ram_found(struct hst *h, roff_t off, uint64_t len);
/*
 * The region at gpa is to leave, and nobody touches it any more: nothing of it is pinned then. It
 * is to be discarded as *ret says, and removed. False: somebody holds a block of it.
 */
bool hst_ram_leave(struct hst *h, gpa_t gpa, struct hst_discard *ret);
/*
 * False: a block is there again, a write of one is under way, or a job of the evicting thread is
 * out: once more, later. hst_ram_is_stuck: not before the VM goes on.
 */
bool hst_ram_remove(struct hst *h, gpa_t gpa);
bool hst_ram_is_stuck(const struct hst *h, gpa_t gpa);

/* No more outside waiters (hst_ensure) than this at a time; the caller sees to it. */
#define HST_OUTSIDE_MAX 64u

/* Timers that sources may have (timers_lend) on top of the driver's own; see hst_init. */
#define HST_SOURCE_TIMERS 128u

/* ---- vCPU thread ---- */

enum hst_next {
	HST_ENTER,          /* enter the guest, PLAT_ENTER */
	HST_ENTER_HALTED,   /* PLAT_ENTER_HALTED */
	HST_ENTER_RUNNABLE, /* PLAT_ENTER_RUNNABLE */
	HST_WAIT,           /* plat wait, then hst_next again */
};

/*
 * What happened at an exit; hst_exit first, then at most one of the others, then
 * hst_next. kick_only: PLAT_EXIT_KICK, the guest may not have executed anything.
 */
void hst_exit(struct hst_vcpu *v, const struct cpu_state *cpu, bool kick_only);
void hst_fault(struct hst_vcpu *v, roff_t off);
/* A store is copied; a load goes to io->data before hst_next says HST_ENTER. */
void hst_ram_io(struct hst_vcpu *v, roff_t off, const struct plat_io *io);
void hst_wrmsr(struct hst_vcpu *v, uint32_t msr, uint64_t value);
void hst_rdmsr(struct hst_vcpu *v, uint32_t msr);

/* Decides how the vCPU goes on; after HST_ENTER* it counts as being in the guest. */
enum hst_next hst_next(struct hst_vcpu *v);
/*
 * After HST_ENTER*: where the guest has faulted, the block has come, and it is about to touch it
 * again, for plat prefault; up to HST_ARRIVED_MAX, how many. These blocks stay while the vCPU
 * counts as being in the guest.
 */
unsigned hst_take_arrived(struct hst_vcpu *v, roff_t *ret);

/* INIT or reset: events off, and whatever the vCPU thread was in the middle of is dropped. */
void hst_vcpu_reset(struct hst_vcpu *v);

/* ---- anybody ---- */

/*
 * A block whose content is in the alias and that is not visible yet, with adjacent ones that are
 * as far (a list by `next`), or NULL. The caller makes them visible (hst_make_visible), without
 * the lock if it likes, and calls hst_shown with the outcome. To be repeated until NULL after every
 * call that may have moved a source: hst_fault, hst_ram_io, hst_ensure, timers, io reap.
 */
struct hst_fetch *hst_take_filled(struct hst *h);
int hst_make_visible(const struct hst_fetch *f, struct err *e);
void hst_shown(struct hst_fetch *f, const struct err *why);

void hst_block_range(const struct hst *h, uint32_t block, roff_t *ret_off, uint64_t *ret_len);

/*
 * Makes sure that the block of off is there, or comes: true, it is; false, w is linked
 * and hooks.outside_ready will tell. w->v must be NULL.
 */
bool hst_ensure(struct hst *h, roff_t off, struct hst_waiter *w);
/*
 * Who may give up waiting asks this before hst_ensure, and does not call it while the answer is
 * false: the fetch that he leaves behind is nobody's claim.
 */
bool hst_ensure_room(const struct hst *h, roff_t off);
/* The block of off is there. */
bool hst_is_there(const struct hst *h, roff_t off);
/*
 * It is not, and will not come before the VM goes on, which is paused for a source, the swap file
 * or want of memory. Of what nobody has asked for yet, there may be no room to.
 */
bool hst_is_stuck(const struct hst *h, roff_t off);
/* Gives up waiting. Harmless when not linked. */
void hst_forget(struct hst_waiter *w);
/*
 * The block of off is there and stays until hst_release, so that it can be copied without the
 * lock. False: it is not there, or HST_HOLDS_MAX hold it. Nobody waits while he holds one:
 * memory that is short could then never be had.
 */
bool hst_hold(struct hst *h, roff_t off);
void hst_release(struct hst *h, roff_t off);
#define HST_HOLDS_MAX 1024u
/*
 * The same for as long as somebody likes, who may wait meanwhile; it shows in the VMM's view, too.
 * False, too, when too little would be left for the rest, or there is no room for the view.
 */
bool hst_hold_long(struct hst *h, roff_t off);
/*
 * [off, off + len), of one block, has been written to by whoever held it. Without a hold: nothing.
 */
void hst_release_long(struct hst *h, roff_t off, uint64_t len);
/*
 * [off, off + len), of one block, which has been there meanwhile, has been written to through the
 * alias. Afterwards: who is told copies it, and must find what was written.
 */
void hst_wrote(struct hst *h, roff_t off, uint64_t len);
/* The block of off, which is there, stays there. False: too little else would be left. */
bool hst_pin(struct hst *h, roff_t off);
void hst_unpin(struct hst *h, roff_t off);

/*
 * Content of a source that nobody asked for: its bytes [offset, offset + len). Blocks that are
 * wholly among them, absent, and backed by that source still, take it. The rest starts as zeroes.
 */
struct hst_offer {
	const struct src *src; /* as it was put behind RAM */
	uint64_t offset, len;
	roff_t at; /* where to look next */
};

struct hst_piece {
	struct hst_fetch *fetch; /* of these blocks, which are the caller's until hst_offered */
	unsigned char *to;       /* where to copy */
	uint64_t from, len;      /* what: bytes from the start of the offer */
};

enum hst_offer_next {
	HST_OFFER_PIECE, /* *ret: copy, without the lock if the caller likes; then hst_offered */
	HST_OFFER_MORE,  /* that was long enough; let others have the lock, and ask again */
	HST_OFFER_END,   /* nothing more is taken */
};

enum hst_offer_next hst_offer_next(struct hst *h, struct hst_offer *o, struct hst_piece *ret);
void hst_offered(struct hst_fetch *f);

/*
 * Blocks that somebody is likely to need, in this order, instead of those of an earlier call: read
 * while nobody waits for a read's turn, with half of queue_depth at most. What is there already, or
 * has no source behind it, is passed over. They wait on standby for their first touch, which counts
 * them as used. runs: stay until the next call or the end.
 */
void hst_plan(struct hst *h, const struct hst_run *runs, uint32_t count);
/*
 * After those all that a source stands behind; made visible at once, unless memory may be taken
 * away again: then what there is room for is read, onto standby.
 */
void hst_fill(struct hst *h);
/*
 * Something stands behind more of h->ram, and is watched: all of that too, where all is being read.
 * What is being made visible meanwhile is made so once more.
 */
void hst_source_added(struct hst *h);
/*
 * When all of it is there, and nothing is on its way: no source stands behind anything any more.
 * False: not yet; asked again after each hst_serve_step, of which there is one soon. Never where
 * memory may be taken away. ret_whole: nothing was ever discarded, so that all has memory.
 */
bool hst_let_go(struct hst *h, bool *ret_whole);

/*
 * Taking memory away: what is to be done next, by one thread at a time. False: nothing, until
 * something else has happened. hst_evict_work does it, without the lock; then, under the lock,
 * hst_evict_done. Writes to the swap file are queued at h->swap.io on the way.
 */
bool hst_evict_next(struct hst *h, struct hst_job *ret);
void hst_evict_work(const struct hst *h, struct hst_job *job);
void hst_evict_done(struct hst *h, struct hst_job *job);
/* There is something that hst_evict_next would hand out or begin. Cheap. */
bool hst_evict_wanted(const struct hst *h);
/*
 * Evicts on command until at most `bytes` are resident, or nothing more can be taken. Goes on
 * until hst_evict_forced says false.
 */
void hst_evict_to(struct hst *h, uint64_t bytes);
/*
 * cfg.resident_max from now on; cfg.evict is set. Not below hst_resident_min, or whoever is to work
 * with it cannot. What is resident beyond it goes as if it had come just now; until it has,
 * reads wait.
 */
void hst_resident_max_set(struct hst *h, uint64_t bytes);
/* Bytes: what cannot be taken away now, and room to work. */
uint64_t hst_resident_min(const struct hst *h);
bool hst_evict_forced(const struct hst *h);
/* Bytes of guest memory that host memory holds. */
uint64_t hst_resident_bytes(const struct hst *h);

/*
 * The kernel reported a touch (userfaultfd). In the guest's view, with user, block, stall: the
 * chunk is poisoned, so that the next touch comes as a fault; else the block is fetched.
 * What there is no fetch left for waits, and its thread in the kernel, for hst_serve_step: at most
 * HST_TOUCHES_MAX, so that no more are to be read than hst_touch_room; the kernel keeps the rest.
 * Returns 0 or -Exxx with text.
 */
int hst_kernel_touch(struct hst *h, const struct mem_touch *t, struct err *e);
unsigned hst_touch_room(const struct hst *h);
/* One that waits can be served now. */
bool hst_touch_due(const struct hst *h);
/* How long to sleep before more are read: they tell nothing new, and come as fast as that. */
uint64_t hst_touch_pause_ns(const struct hst *h);

/*
 * What is discarded reads as zeroes from then on and takes no memory; what is pinned or held keeps
 * its memory and is overwritten, unless the host has lost it: then it gets another. What could not
 * be read, shown or written out is no trouble any more. A failure (d->why, with DONE) leaves what
 * it met as it was; some of what was in memory may be zeroes.
 */
enum hst_discarding hst_discard_step(struct hst *h, struct hst_discard *d);
void hst_discard_work(const struct hst *h, struct hst_discard *d);

/* Pause and resume by the VMM. Resume also tries again whatever had failed. */
void hst_pause(struct hst *h);
/* The same for a reason, which the trouble hook is told; gone with hst_resume. */
void hst_pause_for(struct hst *h, const struct hst_trouble *t);
void hst_resume(struct hst *h);
bool hst_is_paused(const struct hst *h);

/*
 * The end: cancels every read and write and starts none. They are over when hst_is_idle, which
 * takes reaping and timers as before.
 */
void hst_stop(struct hst *h);
bool hst_is_stopping(const struct hst *h);
bool hst_is_idle(const struct hst *h);
/* Timers, for whoever reaps after hst_stop; before that hst_serve_step runs them. */
uint64_t hst_next_timer_ns(const struct hst *h);
void hst_run_timers(struct hst *h);

/*
 * Where the content of [off, off + len) is, a byte per block: HST_BLOCK_*. Within one 2 MiB chunk.
 * 0 or -Exxx with text.
 */
#define HST_BLOCK_THERE 1u   /* in memory */
#define HST_BLOCK_CHANGED 2u /* may differ from the source */
#define HST_BLOCK_ZEROES 4u  /* known to be zeroes */
int hst_residency(struct hst *h, roff_t off, uint64_t len, unsigned char *ret, struct err *e);

/* By the driver's clock. */
uint64_t hst_now_ns(const struct hst *h);

/* All counters: of the VM, and those of one vCPU (the others are 0). */
void hst_stats_sum(const struct hst *h, struct hst_stats *ret);
void hst_vcpu_stats(const struct hst_vcpu *v, struct hst_stats *ret);

/* Save and restore of one vCPU's protocol state; the vCPU must not be in the guest. */
size_t hst_vcpu_save_bytes(const struct hst_vcpu *v);
size_t hst_vcpu_save(const struct hst_vcpu *v, unsigned char *buf);
/* False: refused, nothing changed. Faults in flight are fetched again. */
bool hst_vcpu_restore(struct hst_vcpu *v, const unsigned char *buf, size_t len);
/* One register, as a VMM restores it from an MSR list. False: the value is not acceptable. */
bool hst_vcpu_set_msr(struct hst_vcpu *v, uint32_t msr, uint64_t value);
/* One of the protocol's registers. False: there is none of that number. */
bool hst_vcpu_get_msr(const struct hst_vcpu *v, uint32_t msr, uint64_t *ret);

#endif
