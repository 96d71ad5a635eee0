/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated world: one VM whose guest half, engines, driver and sources are the shipped
 * ones, on a host whose clock, memory, files and processors are arrays in here. One seed
 * decides everything; one thread; nothing is read from outside.
 *
 * An event is one step of the loop in run.c: what one thread does until it lets go of the VM
 * lock, or one piece of guest code up to the point where hypervisor, device or another
 * processor may come in between.
 *
 * Reading order: this file, run.c (the loop), thread.c (host threads), platform.c, mem.c, io.c
 * (behind port/), guest.c (the guest's kernel), vmm_threads.c, parts.c, offer.c, snap.c, faults.c
 * (what may break), check.c and check_state.c (what must hold), swarm.c (a seed's settings).
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "base/prng.h"
#include "guest/guest.h"
#include "host/drive.h"
#include "sim/coroutine.h"
#include "sim/log.h"
#include "sim/sim.h"
#include "vmm/memory/dirty_map.h"
#include "vmm/snap/snap_plan.h"

#define SIM_VCPUS_MAX 4u
#define SIM_TASKS_MAX 8u  /* per vCPU */
#define SIM_NODES_MAX 64u /* of the guest's table of sleepers */
#define SIM_QUEUE_MAX 32u /* reads of sources in flight */
#define SIM_AHEAD_MAX 64u /* blocks that are read ahead */
#define SIM_READS_MAX (SIM_QUEUE_MAX + HST_WRITES_MAX + 1)
#define SIM_TOUCHES_MAX 16u
#define SIM_WRITERS_MAX 3u
#define SIM_FAULTS_MAX 32u /* outstanding per vCPU */

/* Two chunks of RAM that stay; what the guest uses of it lies astride their border. */
#define SIM_RAM_BYTES (2 * CHUNK_BYTES)
#define SIM_RAM_PAGES (SIM_RAM_BYTES >> PAGE_SHIFT)
/* Behind it a chunk for each part that comes and goes, of which few pages are used. */
#define SIM_PARTS_MAX 2u
#define SIM_PART_PAGES 16u
#define SIM_SPAN_BYTES (SIM_RAM_BYTES + SIM_PARTS_MAX * CHUNK_BYTES)
#define SIM_SPAN_PAGES (SIM_SPAN_BYTES >> PAGE_SHIFT)
#define SIM_USED_PAGES 64u /* in the middle */
#define SIM_PAGE_FIRST (SIM_RAM_PAGES / 2 - SIM_USED_PAGES / 2)
#define SIM_GPA 0x40000000ull /* where RAM starts: a gpa and a RAM offset never agree by luck */
#define SIM_PARTS_GPA 0x80000000ull /* where parts are put, at one of: */
#define SIM_PARTS_PLACES 4u         /* so many, a chunk each */

#define SIM_VECTOR_READY 0xf3u
#define SIM_VECTOR_TICK 0xecu
#define SIM_REAL_ADDRESS 0x7f0000000000ull /* CR2 of the guest's own page faults */

/* ---- the processor ---- */

enum sim_event_kind {
	SIM_EV_NONE,
	SIM_EV_MISSING, /* #PF of ours */
	SIM_EV_READY,   /* #PF of ours: legacy, pf2 without bit 3 */
	SIM_EV_REAL,    /* #PF of the guest's own */
	SIM_EV_IRQ,
	SIM_EV_NMI,
};

struct sim_event {
	enum sim_event_kind kind;
	uint64_t cr2;   /* #PF */
	uint8_t vector; /* IRQ */
};

struct sim_cpu {
	bool interrupts_on;
	bool shadow; /* of STI or MOV SS: ends with the next instruction */
	bool paging;
	uint8_t cpl;
	uint64_t cr2;
	uint64_t irr[4];
	bool in_service; /* until EOI */
	bool apic_on;    /* software-enabled */
	bool nmi_pending, in_nmi;
	struct sim_event pf;       /* queued by the host, not taken */
	bool pf_known;             /* by the host that the VM is on */
	struct sim_event reinject; /* half delivered: its frame met an absent page */
	bool halted;
	bool halted_by_host; /* PLAT_ENTER_HALTED, not ended yet */
};

/* ---- the guest ---- */

enum sim_task_state {
	SIM_TASK_READY,
	SIM_TASK_RUNS,
	SIM_TASK_SLEEPS, /* under its token */
	SIM_TASK_DONE,
};

struct sim_task {
	unsigned id;
	unsigned cpu; /* whose queue */
	enum sim_task_state state;
	uint32_t token;
	uint32_t left; /* accesses to go */
	uint32_t page; /* of the next one */
	bool write;
	bool kernel; /* it is made at CPL 0 */
	bool orphan; /* sleeps under a token of a host that did not pass its books on */
};

/* What the guest's kernel is to do when it next gets round to it. */
enum sim_wish {
	SIM_WISH_DISABLE = 1 << 0,
	SIM_WISH_ENABLE = 1 << 1,
	SIM_WISH_APIC_OFF = 1 << 2,
	SIM_WISH_APIC_ON = 1 << 3,
	SIM_WISH_FORAY = 1 << 4,    /* firmware call with paging off */
	SIM_WISH_REGISTERS = 1 << 5, /* reads its registers, writes values that are refused */
	SIM_WISH_CONTROL = 1 << 6,   /* pf2: CTL off and on again; int: vector 0 and back */
	SIM_WISH_CLOCK = 1 << 7,     /* the kernel's clock moves to another page */
};

/* ---- what the checkers know ---- */

/* One page-missing event that has not ended. */
struct sim_missing {
	uint32_t token; /* 0: free */
	uint32_t page;
	bool taken;     /* the handler has seen it */
	uint64_t ready; /* its place in the order in which pages came; 0: not yet */
	bool moved;     /* it came on another host: here the task touches it again */
	bool halted;    /* pf2-strict: nobody was told, the vCPU was halted for it */
};

struct sim_check_vcpu {
	struct sim_missing missing[SIM_FAULTS_MAX];
	uint64_t slot;       /* the area's two words, as far as what the driver did is accounted */
	uint64_t before;     /* the same when the driver was entered */
	uint64_t stalls;     /* how often it had halted the vCPU then, */
	uint32_t outstanding; /* and the faults in its books */
	bool wrote_en;       /* since the driver was entered: an EN write was carried out */
	bool injected;       /* and a #PF was queued */
	struct sim_missing queued; /* page ready by #PF: what it ended, until it is taken */
	bool taken_back;     /* a #PF was withdrawn though its page is not there */
	struct eng_vcpu eng; /* before the last register write */
	uint32_t in_slot;    /* token that was delivered last; 0: not known */
	uint32_t in_slot_page;
	bool wake_all_owed;  /* since an enabling write */
	bool halt_by_text;   /* pf2-strict: the last halt ends with whatever becomes ready */
	bool unhalted;       /* pf2-strict: something has, since the vCPU was entered */
	uint64_t en, ctl;    /* last accepted values, as the guest knows them */
	unsigned eoi_due;    /* interrupts taken and not ended */
	unsigned futile;     /* entries since the guest last got on or time passed */
	uint64_t futile_ns;
};

/* ---- host side ---- */

/* Every thread that moved the driver pumps. */
struct sim_pump {
	struct hst_pump pump;
	bool shows; /* the next thing is to make its block visible */
};

enum sim_thread_state {
	SIM_TH_STEP,    /* tells the driver what it did, asks what is next */
	SIM_TH_PUMP,    /* makes blocks visible, then does that */
	SIM_TH_WAIT,    /* waits for a kick */
	SIM_TH_GUEST,   /* in the guest */
	SIM_TH_STOPPED, /* with the VMM */
};

struct sim_vcpu {
	struct sim *w;
	unsigned index;
	/* the thread */
	enum sim_thread_state th;
	enum hst_did did;
	struct hst_step step;
	struct sim_pump pump;
	struct plat_exit exit;
	unsigned char io_data[8];
	bool io_pending;  /* the host is to carry out an access, of io_data: */
	uint32_t io_page;
	bool io_write;
	bool io_done;
	bool io_left; /* the memory that it was for has left since */
	bool msr_done, msr_gp;
	uint64_t msr_value;
	bool incomplete;  /* the last exit was in the middle of an instruction */
	/* Accesses to a device of the VMM's: made by the guest, seen by the device. */
	uint64_t port_made, port_seen;
	bool port_done;   /* KVM has what the device answered */
	/* The protocol's registers as KVM holds them, and as the driver left them there. */
	uint64_t kvm_en, kvm_ctl, shown_en, shown_ctl;
	uint64_t kvm_clock; /* the register that says where the kernel writes its clock */
	bool clock_there;   /* it could, when it was last told */
	bool clock_left;    /* the memory that it names has left since */
	bool kick;        /* signal pending */
	bool vmm_signal;  /* ... of the VMM's own */
	bool wanted;      /* that has ended a wait */
	bool vmm_keeps;   /* the VMM has something to do with it */
	bool reset;       /* and will reset the vCPU */
	bool init;        /* it has, in the guest: the processor follows when it is out */
	bool kernel_wait; /* a touch waits in the kernel for kernel_page */
	uint32_t kernel_page;
	uint64_t busy_until_ns; /* computes */
	uint64_t late_until_ns; /* its thread has come out of the guest, and gets no CPU */
	uint64_t tick_ns;       /* next timer interrupt; NS_NEVER: none */
	/* the processor and what runs on it */
	struct sim_cpu cpu;
	struct sim_coroutine co;
	struct gst_cpu gst;
	struct sim_task *current;
	struct sim_task tasks[SIM_TASKS_MAX];
	unsigned wishes;
	bool up; /* the kernel has started */
	unsigned acks; /* that the handler in progress asked for */
	uint32_t area_page, stack_page, clock_page;
	struct sim_check_vcpu chk;
};

struct sim_read {
	struct io_req *rd; /* NULL: free */
	uint64_t off;
	unsigned char *buf;
	uint32_t len;
	unsigned file; /* enum sim_file */
	bool write;
	bool sync;
	bool lost;  /* write: a sync that failed meanwhile took it with it */
	uint64_t was[SIM_USED_PAGES]; /* write: the pages when it was sent off */
	uint64_t due_ns; /* NS_NEVER: hangs */
	int res;
	bool flushed;
};

/* The thread that takes memory away. */
struct sim_evict {
	struct hst_evicting evicting;
	bool worked; /* the calls of the job that is out are made */
	bool pumping;
	struct sim_pump pump;
	uint64_t look_ns;
};

enum sim_file {
	SIM_FILE_SOURCE,
	SIM_FILE_SWAP,
	SIM_FILE_PARTS, /* what the first part's source holds */
	SIM_FILES = SIM_FILE_PARTS + SIM_PARTS_MAX,
};

/* One simulated host: a migration goes from one to the next. */
struct sim_host {
	struct sim *w;
	struct hst hst;
	void *space;
	size_t space_bytes;
	unsigned char *alias;
	uint8_t visible[SIM_SPAN_PAGES];
	uint8_t poisoned[SIM_SPAN_PAGES];
	uint8_t reading[SIM_SPAN_PAGES]; /* reads in flight, for the checkers */
	uint8_t failed[SIM_SPAN_PAGES];  /* reads in a row, since somebody was told, or resumed */
	uint8_t dirty[SIM_SPAN_PAGES];   /* the guest may have written since it was made visible */
	uint8_t vmm_visible[SIM_SPAN_PAGES]; /* both for the VMM's view */
	uint8_t vmm_dirty[SIM_SPAN_PAGES];
	uint8_t held[SIM_SPAN_PAGES];    /* by devices, which write past every view */
	uint8_t empty[SIM_SPAN_PAGES];   /* discarded, and not written to since */
	uint8_t backed[SIM_SPAN_PAGES];  /* takes up memory */
	uint64_t swap[SIM_SPAN_PAGES];   /* what the swap file holds */
	unsigned char swap_areas[64 * SIM_VCPUS_MAX];
	uint8_t risky[SIM_SPAN_PAGES]; /* in there, but not durable: see enum sim_risk in io.c */
	uint8_t pinned[SIM_SPAN_PAGES];
	bool lost_area; /* the areas were taken away and have not come back */
	uint32_t over;  /* so many blocks were resident when memory that was found had no room */
	struct sim_evict evict;
	struct src *src, *swap_src;
	struct src *part_src[SIM_PARTS_MAX];
	unsigned char files[SIM_FILES]; /* whose addresses are the descriptors */
	struct sim_read reads[SIM_READS_MAX];
	unsigned read_count;
	struct mem_touch touches[SIM_TOUCHES_MAX]; /* reported by the kernel, not yet read */
	unsigned touch_count;
	bool lib_pumping; /* the library's thread is at work */
	uint64_t lib_late_ns; /* it has touches, and gets no CPU */
	struct sim_pump lib;
};

/* An access by a device, through hst_ensure. */
struct sim_device {
	struct hst_waiter waiter;
	struct sim_pump pump;
	bool pumping, waiting, ready;
	uint64_t due_ns;
	uint32_t page;
};

/* A thread of the VMM's that accesses memory through the VMM's view. */
struct sim_writer {
	bool wants;  /* it is about to */
	bool asleep; /* in the kernel, until somebody wakes it */
	bool write;
	uint32_t page;
	uint64_t due_ns; /* the next access */
};

/* One that gives memory back (a balloon), or has a device write to memory that it holds. */
struct sim_giver {
	struct hst_waiter waiter;
	struct sim_pump pump;
	bool on; /* in the middle of it: */
	bool pumping, waiting, ready;
	uint64_t due_ns;
};

struct sim_discard {
	struct sim_giver t;
	struct hst_discard hst;
	bool working, worked; /* a run is taken in hand; and the calls for it are made */
};

struct sim_holder {
	struct sim_giver t;
	bool holds;
	uint32_t page;
	uint32_t writes; /* the device's, to go */
};

enum sim_part_state {
	SIM_PART_OUT,
	SIM_PART_IN,
	SIM_PART_LEAVES, /* its memslot is gone; the driver has yet to give it up */
};

/* Memory that comes and goes. */
struct sim_part {
	enum sim_part_state state;
	uint64_t gpa;
	uint32_t page, pages; /* of RAM */
	uint32_t backed;      /* of these, from the first on: a source is behind them, */
	uint32_t in_file;     /* which holds so many; what is behind reads as zeroes */
	uint32_t file_page;   /* of the source: the first of them */
};

/* The thread that adopts and removes it. */
struct sim_plug {
	struct sim_discard d; /* what it does to a part that leaves */
	bool leaves;          /* of it: the driver has said that it may */
	unsigned index;       /* the part at hand */
	bool pins;            /* page `pin` is to be pinned */
	uint32_t pin;
	struct sim_part parts[SIM_PARTS_MAX];
};

/* A source brings neighbours along that nobody has asked it for. */
struct sim_offer {
	struct sim_pump pump;
	bool pumping;
	bool on, copying; /* in the middle of it; and of a piece, without the lock */
	uint64_t due_ns;
	enum sim_file file;
	struct hst_offer hst;
	struct hst_piece piece;
};

enum sim_vmm_job {
	SIM_VMM_NONE,
	SIM_VMM_RESET,
	SIM_VMM_MIGRATE,
	SIM_VMM_RESTORE, /* the VM ends, and another is restored from the last snapshot */
	SIM_VMM_STAND,   /* the snapshot's thread wants the vCPUs at rest, or has them */
};

/* ---- what is passed on of a VM ---- */

#define SIM_SAVE_BYTES_MAX (64u + 16u * SIM_FAULTS_MAX + 20u * HST_STORES_MAX + 8u)

struct sim_saved {
	unsigned char bytes[SIM_SAVE_BYTES_MAX];
	size_t len;
	uint64_t en, ctl, kvm_en, kvm_ctl;
};

/* Of the protocol. */
enum sim_way { SIM_WAY_WHOLE, SIM_WAY_EN_FIRST, SIM_WAY_CTL_FIRST, SIM_WAY_KVM };

/* The guest at one moment, and what its memory must hold there. */
struct sim_moment {
	struct sim_saved saved[SIM_VCPUS_MAX];
	struct sim_vcpu vcpus[SIM_VCPUS_MAX];
	unsigned char *stacks[SIM_VCPUS_MAX];
	struct gst_table table;
	struct gst_node nodes[SIM_NODES_MAX];
	uint64_t expect[SIM_USED_PAGES];
	unsigned char areas[64 * SIM_VCPUS_MAX];
};

/* Memory in a snapshot: both numbers of each page. */
struct sim_memory {
	uint64_t first[SIM_USED_PAGES], last[SIM_USED_PAGES];
	unsigned char areas[64 * SIM_VCPUS_MAX];
};

#define SIM_MAP_WORDS (SIM_USED_PAGES / SNAP_WORD_PAGES)

/* The thread that makes a snapshot: machine_snap.c's part. */
struct sim_snap {
	struct sim_giver t;
	struct snap_plan plan;
	struct snap_step step;
	bool begun;     /* the step is */
	uint32_t page;  /* of its run, so many are done, */
	bool half;      /* and of the next one its first number, without the lock */
	uint64_t rest_ns; /* vCPUs have come to rest by then, or it is left */
	bool holds;     /* no device takes anything in hand */
	bool moment;    /* all stands still, and stays so whatever the operator says */
	/* who writes */
	struct dirty_map map; /* devices, and the library */
	_Atomic uint64_t marks[SIM_MAP_WORDS];
	bool logs;            /* KVM */
	uint64_t logged[SIM_MAP_WORDS];
	uint64_t pending[SIM_MAP_WORDS], kept[SIM_MAP_WORDS], found[SIM_MAP_WORDS];
	uint64_t since[SIM_MAP_WORDS], in_it[SIM_MAP_WORDS];
	/* what it consists of */
	struct sim_memory file, store; /* store: what is kept */
	struct sim_moment *cut;
	/* The last one that was made. */
	bool has_one, has_base; /* it is of this VM */
	struct sim_memory memory;
	struct sim_moment *made;
};

struct sim {
	struct sim_cfg cfg;
	struct prng rng;
	uint64_t now_ns;
	uint64_t events;
	bool fair; /* liveness phase: no more faults */
	bool hold; /* tasks wait: the kernels start first (exhaustive.c) */
	struct sim_host hosts[2];
	struct sim_host *host; /* the one that runs the VM */
	struct sim_vcpu vcpus[SIM_VCPUS_MAX];
	struct gst_table table;
	struct gst_node nodes[SIM_NODES_MAX];
	struct sim_device device;
	struct sim_writer writers[SIM_WRITERS_MAX];
	struct sim_discard discard;
	struct sim_holder holder;
	struct sim_plug plug;
	struct sim_offer offer;
	struct sim_snap snap;
	bool discarding; /* hst_discard_work is at it */
	uint64_t image[SIM_SPAN_PAGES];  /* what the source holds of each page */
	uint64_t expect[SIM_SPAN_PAGES]; /* what the last write left in each page */
	/* Of the vCPUs' areas: what the source holds, and what they held when last seen. */
	unsigned char areas[64 * SIM_VCPUS_MAX], areas_expect[64 * SIM_VCPUS_MAX];
	uint64_t next_value;
	uint32_t source_pages; /* where the source ends now */
	uint64_t ready_seq;
	/* the VMM and the director of faults */
	uint64_t director_ns;
	uint64_t resume_ns; /* the operator resumes the VM then; NS_NEVER */
	bool paused;        /* he has paused it */
	enum sim_vmm_job job;
	unsigned job_vcpu;
	uint32_t present_fails; /* the next calls of mem present that fail */
	uint32_t unmap_fails;
	struct sim_pump vmm_pump;
	bool vmm_pumping;
	/* what was seen */
	struct sim_counts counts;
	int actor; /* whose step it is: vCPU, or -1 */
	struct sim_verdict verdict;
	struct sim_log *log;
	/* scheduling choices: from the seed, or from a script (exhaustive.c) */
	unsigned (*pick)(void *ctx, struct sim *w, unsigned n);
	void *pick_ctx;
};

/* ---- randomness: rnd is the environment's, pick is who goes next ---- */

static inline uint64_t sim_rnd(struct sim *w, uint64_t n)
{
	return w->pick ? 0 : prng_below(&w->rng, n);
}

/* True once in n times; never for 0. */
static inline bool sim_chance(struct sim *w, uint32_t n)
{
	return n != 0 && !w->pick && prng_below(&w->rng, n) == 0;
}

static inline unsigned sim_pick(struct sim *w, unsigned n)
{
	if (n <= 1)
		return 0;
	return w->pick ? w->pick(w->pick_ctx, w, n) : (unsigned)prng_below(&w->rng, n);
}

static inline uint32_t sim_page(roff_t off)
{
	return (uint32_t)(off.v >> PAGE_SHIFT);
}

static inline roff_t sim_roff(uint32_t page)
{
	return (roff_t){(uint64_t)page << PAGE_SHIFT};
}

static inline struct hst_vcpu *sim_hv(const struct sim_vcpu *v)
{
	return &v->w->host->hst.vcpus[v->index];
}

static inline bool sim_hostile(const struct sim *w)
{
	return w->cfg.faults_on >> SIM_FAULT_HOSTILE & 1;
}

static inline bool sim_strict(const struct sim *w)
{
	return w->cfg.rev == APF_REV_PF2_STRICT;
}

static inline struct apf_area *sim_area(const struct sim_vcpu *v)
{
	uint64_t at = ((uint64_t)v->area_page << PAGE_SHIFT) + 64u * v->index;

	return (struct apf_area *)(void *)(v->w->host->alias + at);
}

static inline uint64_t sim_area_gpa(const struct sim_vcpu *v)
{
	return SIM_GPA + ((uint64_t)v->area_page << PAGE_SHIFT) + 64u * v->index;
}

/* RAM offsets that the driver has tables for. */
static inline uint32_t sim_pages(const struct sim *w)
{
	return w->cfg.parts ? SIM_SPAN_PAGES : SIM_RAM_PAGES;
}

/* Of an access through the alias or a view: the page of RAM. */
static inline uint32_t sim_alias_page(const struct sim_host *h, const unsigned char *at)
{
	return (uint32_t)((uint64_t)(at - h->alias) >> PAGE_SHIFT);
}

/* Fault kinds that this seed has: see faults.c. */
static inline bool sim_has(const struct sim *w, enum sim_fault f)
{
	return !w->fair && (w->cfg.faults_on >> f & 1);
}

/* Taken away since it came. */
static inline bool sim_may_be_gone(const struct sim *w, uint32_t page)
{
	return w->cfg.evict || w->cfg.discards || page >= SIM_RAM_PAGES;
}

/* What could not be unmapped, and then not be shown again, is shown when it is touched. */
static inline bool sim_shown_late(const struct sim *w)
{
	const unsigned both = 1u << SIM_FAULT_UNMAP | 1u << SIM_FAULT_PRESENT;

	return (w->cfg.discards || w->cfg.parts) && (w->cfg.faults_on & both) == both;
}

/* ---- run.c ---- */
void sim_begin(struct sim *w, const struct sim_cfg *c);
/* One event. False: nobody can go on, ever. */
bool sim_step(struct sim *w);
/* All tasks are done, and nothing is under way. */
bool sim_quiet(const struct sim *w);
void sim_broken(struct sim *w, unsigned invariant, const char *what, uint64_t a, uint64_t b);
uint64_t sim_step_ns(struct sim *w);

/* ---- mem.c: RAM and what is in it ---- */
extern const struct mem_ops sim_mem_ops;
void sim_mem_init(struct sim *w, struct sim_host *h);
/* Pages of a part that comes, with nothing in them, or that has left. */
void sim_mem_part(struct sim_host *h, const struct sim_part *p, uint64_t value);
/* What the page holds in the alias; SIM_TORN when its ends differ. */
#define SIM_TORN 0xdead0000dead0000ull
uint64_t sim_page_get(const struct sim_host *h, uint32_t page);
void sim_page_put(struct sim_host *h, uint32_t page, uint64_t value);
/* Whose access it is: the driver's, by the guest's view, the VMM's, or past all of these. */
enum sim_by { SIM_BY_HOST, SIM_BY_GUEST, SIM_BY_VMM, SIM_BY_DEVICE };
/* A checked access to a page that is there. */
void sim_page_access(struct sim *w, uint32_t page, bool write, enum sim_by by);
/* A touch waits in the kernel, which reports it. False: later, its queue is full. */
bool sim_touch(struct sim *w, uint32_t page, unsigned view);
/* Accesses that the driver has carried out for the guest by now. */
void sim_page_ios(struct sim *w);

/* ---- evict.c: taking memory away ---- */
int sim_mem_watch_all(void *ctx, struct err *e);
int sim_mem_look(void *ctx, roff_t off, uint64_t len, mem_pages ret_there, mem_pages ret_guest,
		 mem_pages ret_vmm, struct err *e);
int sim_mem_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e);
int sim_mem_unmap(void *ctx, roff_t off, uint64_t len, struct err *e);
int sim_mem_collect(void *ctx, roff_t off, uint64_t len, mem_pages ret_written,
		    mem_pages ret_vmm, struct err *e);
int sim_mem_drop(void *ctx, roff_t off, uint64_t len, struct err *e);
uint64_t sim_mem_resident_bytes(void *ctx);
bool sim_evict_runnable(const struct sim *w);
void sim_evict_step(struct sim *w);

/* ---- io.c: files ---- */
extern const struct io_ops sim_io_ops;
int sim_source_open(struct sim *w, struct sim_host *h, struct err *e);
uint64_t sim_io_next_ns(const struct sim_host *h);
/* The source of a part. */
int sim_part_source_open(struct sim *w, struct sim_host *h, unsigned part, struct err *e);
/* As a read of that many bytes at `off` of the file leaves them in buf. */
void sim_io_fill(struct sim_host *h, enum sim_file file, uint64_t off, unsigned char *buf,
		 uint64_t bytes, bool garbage);
/* Ends every read, for the end of a host. */
void sim_io_drain(struct sim *w, struct sim_host *h);

/* ---- platform.c: the processor as the driver sees it ---- */
extern const struct plat_ops sim_plat_ops;
void sim_cpu_reset(struct sim_vcpu *v);
void sim_cpu_irq(struct sim_vcpu *v, uint8_t vector);
/* An interrupt, NMI or exception that would be taken now. */
bool sim_cpu_wakes(const struct sim_vcpu *v);
void sim_cpu_state(const struct sim_vcpu *v, struct cpu_state *ret);

/* ---- guest.c ---- */
void sim_guest_init(struct sim *w);
/* (Re)starts the kernel on this processor. */
void sim_guest_boot(struct sim_vcpu *v);
bool sim_tasks_done(const struct sim *w);

/* ---- thread.c ---- */
bool sim_vcpu_runnable(const struct sim_vcpu *v);
void sim_vcpu_step(struct sim_vcpu *v);
bool sim_lib_runnable(const struct sim *w);
void sim_lib_step(struct sim *w);
bool sim_device_runnable(const struct sim *w);
void sim_device_step(struct sim *w);
/* One piece of settling; true when nothing is left to do. */
bool sim_pump_step(struct sim *w, struct sim_pump *s);

/* ---- vmm_threads.c: the VMM's view, a balloon, held memory ---- */
bool sim_writer_runnable(const struct sim *w, unsigned i);
void sim_writer_step(struct sim *w, unsigned i);
bool sim_discard_runnable(const struct sim *w);
void sim_discard_step(struct sim *w);
bool sim_holder_runnable(const struct sim *w);
void sim_holder_step(struct sim *w);
/* Parts of those who use the driver's calls. */
bool sim_giver_runnable(const struct sim *w, const struct sim_giver *t);
bool sim_giver_pumps(struct sim *w, struct sim_giver *t);
/* The block is there, or will be: then `ready` is set. */
bool sim_giver_is_there(struct sim *w, struct sim_giver *t, roff_t off);
void sim_giver_over(struct sim *w, struct sim_giver *t);
/* The driver's step of a discard, between sim_chk_enter and _leave; its work, without the lock. */
enum hst_discarding sim_discard_go_on(struct sim *w, struct sim_discard *d);
void sim_discard_work(struct sim *w, struct sim_discard *d);
/* One that a task, a device or a thread may touch. */
uint32_t sim_any_page(struct sim *w);
uint64_t sim_vmm_threads_next_ns(const struct sim *w);
/* In the middle of something. */
bool sim_vmm_threads_busy(const struct sim *w);
/* Somebody's block may be there. */
void sim_vmm_threads_ready(struct sim *w);
/* Nothing is under way that a VMM ends before it saves. */
bool sim_vmm_threads_may_move(const struct sim *w);
/* The host goes: nobody waits for its driver any more. */
void sim_vmm_threads_leave(struct sim *w);

/* ---- parts.c: memory that comes and goes ---- */
bool sim_plug_runnable(const struct sim *w);
void sim_plug_step(struct sim *w);
/* The part that the page is of, for as long as the driver has it; NULL: none. */
const struct sim_part *sim_part_at(const struct sim *w, uint32_t page);
/* There is no memslot for it: the VMM answers. */
bool sim_page_left(const struct sim *w, uint32_t page);
gpa_t sim_gpa(const struct sim *w, uint32_t page);
bool sim_gpa_page(const struct sim *w, gpa_t gpa, uint32_t *ret);
static inline bool sim_is_ram(const struct sim *w, uint32_t page)
{
	return page < SIM_RAM_PAGES || sim_part_at(w, page);
}
/* All of the pages are RAM, at present. */
void sim_chk_ram(struct sim *w, uint32_t from, uint32_t end);
/* A host begins or ends with them. */
void sim_parts_start(struct sim *w, struct sim_host *h);
void sim_parts_stop(struct sim *w, struct sim_host *h);
void sim_parts_save(struct sim *w);

/* ---- offer.c: content that comes unasked ---- */
bool sim_offer_runnable(const struct sim *w);
void sim_offer_step(struct sim *w);

/* ---- snap.c: a snapshot of the running VM, and another VM from it ---- */
bool sim_snap_alloc(struct sim *w);
void sim_snap_free(struct sim *w);
void sim_snap_init(struct sim *w);
bool sim_snap_runnable(const struct sim *w);
void sim_snap_step(struct sim *w);
uint64_t sim_snap_next_ns(const struct sim *w);
/* The host goes: what is being made of it is lost. */
void sim_snap_leave(struct sim *w);
/* On another host than the one that has stopped, in place of the VM. */
void sim_snap_restore(struct sim *w, struct sim_host *to);
/* The guest has written there, or KVM for it. */
void sim_snap_log(struct sim *w, uint32_t page);
/* Of the library's, and a device's. */
void sim_snap_mark(struct sim *w, gpa_t gpa, uint64_t bytes);

/* ---- vmm.c: hosts, pause, reset, migration ---- */
void sim_host_start(struct sim *w, struct sim_host *h);
void sim_host_age(struct sim *w, struct sim_host *h);
void sim_host_stop(struct sim *w, struct sim_host *h);
/* Of vCPUs at rest, and into those of another host. */
void sim_vcpus_save(struct sim *w, struct sim_host *h, struct sim_saved *s);
void sim_vcpu_arrive(struct sim_vcpu *v, const struct sim_saved *s, enum sim_way way);
/* Tries again what has failed, and delivers again. True: there is more to pump. */
bool sim_vmm_resume(struct sim *w, struct sim_pump *pump);
bool sim_vmm_runnable(const struct sim *w);
void sim_vmm_step(struct sim *w);
void sim_vmm_want(struct sim *w, enum sim_vmm_job job, unsigned vcpu);
/* Resets a vCPU whose thread goes on meanwhile. */
void sim_vmm_reset_running(struct sim_vcpu *v);
/* The processor is reset, and its kernel starts. */
void sim_vmm_reset_cpu(struct sim_vcpu *v);
/* The thread has come back to the VMM, which has something to do with the vCPU. */
bool sim_vmm_keeps(struct sim_vcpu *v);

/* ---- faults.c ---- */
void sim_faults_step(struct sim *w);
/* For a while. */
void sim_pause_vm(struct sim *w);
/* The liveness phase begins: everything that was broken is mended; and on this vCPU. */
void sim_faults_end(struct sim *w);
void sim_faults_end_on(struct sim_vcpu *v);

/* ---- check.c: at each event ---- */
void sim_chk_enter(struct sim *w); /* before the driver is called */
void sim_chk_leave(struct sim *w); /* after it */
void sim_chk_inject(struct sim_vcpu *v, uint32_t token, enum sim_event_kind *ret_kind);
void sim_chk_cancel(struct sim_vcpu *v);
void sim_chk_irq(struct sim_vcpu *v, uint8_t vector, bool accepted);
void sim_chk_host_access(struct sim *w, uint32_t page);
void sim_chk_step(struct sim_vcpu *v);
void sim_chk_rest(struct sim_vcpu *v);
void sim_chk_clock(struct sim_vcpu *v); /* the kernel enters the guest */
void sim_chk_ahead(struct sim_vcpu *v); /* and maps ahead what came */
/* Events are on, by the registers as the guest wrote them. */
bool sim_chk_enabled(const struct sim_vcpu *v);
void sim_chk_shown(struct sim *w, const struct hst_fetch *f);
void sim_chk_written(struct sim_vcpu *v, uint32_t msr, uint64_t value, bool gp);
void sim_chk_forget(struct sim_vcpu *v); /* disable, reset: nobody waits any more */
void sim_chk_moved(struct sim_vcpu *v);  /* to another host */

/* ---- check_strict.c: faults that nobody was told about ---- */
void sim_chk_strict_step(struct sim_vcpu *v);
void sim_chk_strict_leave(struct sim_vcpu *v);
void sim_chk_strict_shown(struct sim *w, uint32_t page, uint32_t end);
/* Page ready is due, and nothing stands in its way. */
bool sim_chk_strict_lying(const struct sim_vcpu *v);

/* ---- check_guest.c: what the guest sees ---- */
void sim_chk_guest_pf(struct sim_vcpu *v, const struct sim_event *ev, enum gst_pf got,
		      uint32_t token, bool user);
void sim_chk_guest_wake(struct sim_vcpu *v, const struct sim_task *t);
void sim_chk_guest_words(struct sim_vcpu *v, uint64_t before);
void sim_chk_guest_ack(struct sim_vcpu *v);
void sim_chk_guest_ready(struct sim_vcpu *v); /* the interrupt's handler is through */
void sim_chk_guest_rdmsr(struct sim_vcpu *v, uint32_t msr, uint64_t value);

/* ---- state_hash.c: what decides how it goes on, as one number ---- */
uint64_t sim_state_hash(const struct sim *w);

/* ---- check_state.c: over everything, now and then and at the end ---- */
void sim_chk_state(struct sim *w);
void sim_chk_end(struct sim *w);

#endif
