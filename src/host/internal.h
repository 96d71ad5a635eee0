/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver's own files share. */
#ifndef HOST_INTERNAL_H
#define HOST_INTERNAL_H

#include "host/host.h"

/*
 * Residency word of a block: the kind, flags, and while FETCHING the fetch's index. The
 * kinds from UNMAPPING on occur only where memory is taken away again.
 */
enum block_kind {
	BLOCK_ABSENT,
	BLOCK_FETCHING,
	BLOCK_PRESENT,
	BLOCK_UNMAPPING, /* somebody takes it out of the guest mapping, without the lock */
	BLOCK_STANDBY,   /* out of the guest mapping, the content still in the alias */
	BLOCK_DROPPING,  /* somebody gives its memory back, without the lock */
};

#define BLOCK_KIND_MASK 7u
/* Memory may differ from what stands behind it: must be written out before it is dropped. */
#define BLOCK_WRITTEN (1u << 3)
/* What stands behind it: the swap file, or zeroes; neither: what was there at the start. */
#define BLOCK_IN_SWAP (1u << 4)
#define BLOCK_ZEROES (1u << 5)
#define BLOCK_SEEN (1u << 6)    /* was in memory before: its next fault is a refault */
#define BLOCK_KERNEL (1u << 7)  /* its last refault came from guest kernel mode */
#define BLOCK_WRITING (1u << 8) /* a write of it to the swap file is under way */
#define BLOCK_PINNED (1u << 9) /* for good */
#define BLOCK_KEPT (1u << 10)  /* somebody needs it where it is: keep.c */
#define BLOCK_FETCH_SHIFT 11
#define BLOCK_FETCHES_MAX (1u << (32 - BLOCK_FETCH_SHIFT))

#define BLOCK_NONE UINT32_MAX

static inline enum block_kind block_kind(const struct hst *h, uint32_t block)
{
	return (enum block_kind)(h->blocks[block] & BLOCK_KIND_MASK);
}

/* Any of the flags. */
static inline bool block_is(const struct hst *h, uint32_t block, uint32_t flags)
{
	return (h->blocks[block] & flags) != 0;
}

/* Flags stay. For FETCHING: block_set_fetch. */
static inline void block_set_kind(struct hst *h, uint32_t block, enum block_kind kind)
{
	uint32_t flags = h->blocks[block] & ((1u << BLOCK_FETCH_SHIFT) - 1) & ~BLOCK_KIND_MASK;

	h->blocks[block] = flags | kind;
}

static inline void block_set_fetch(struct hst *h, uint32_t block, uint32_t fetch)
{
	block_set_kind(h, block, BLOCK_FETCHING);
	h->blocks[block] |= fetch << BLOCK_FETCH_SHIFT;
}

/* The block is FETCHING. */
static inline struct hst_fetch *block_fetch(const struct hst *h, uint32_t block)
{
	return &h->fetches[h->blocks[block] >> BLOCK_FETCH_SHIFT];
}

static inline uint32_t block_of(const struct hst *h, roff_t off)
{
	return (uint32_t)(off.v >> h->cfg.block_shift);
}

static inline uint64_t hst_now(const struct hst *h)
{
	return clock_now_ns(&h->clock);
}

/* fetch.c */
void fetch_init(struct hst *h);
/*
 * The fetch that brings the block; started if there is none. The block must not be PRESENT.
 * One in STANDBY comes back as it is, without a read.
 */
struct hst_fetch *fetch_for(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined);
/*
 * There is room for a fetch that nobody has a claim to. What is left then belongs to RAM
 * accesses, registers, areas and devices, of which each can have only so many.
 */
bool fetch_room(const struct hst *h);
/* Reads what lies around a block that kernel mode waits for, to be on standby. */
void fetch_around(struct hst *h, uint32_t block);
/* Makes a PRESENT block visible once more. */
void fetch_present_again(struct hst *h, uint32_t block);
void waiter_link(struct hst_waiter *w, struct hst_fetch *f, uint64_t since_ns);
void waiter_unlink(struct hst_waiter *w);

/* How long to wait before what has failed `tries` times before is tried again. */
uint64_t backoff_ns(unsigned tries);
/* The content is in the alias; to be made visible. */
void fetch_filled(struct hst_fetch *f);
/* What it waited behind is over: read it. */
void fetch_queue(struct hst_fetch *f);
/* Issues queued fetches while there is room. */
void fetch_dispatch(struct hst *h);
/* The VM is paused for a reason; ended by trouble_end. */
void trouble_begin(struct hst *h, uint32_t block, uint32_t tries, const struct err *why);
void trouble_end(struct hst *h);

/* evict.c: a block becomes PRESENT, or leaves PRESENT or STANDBY for a fetch. */
/* The list that a block belongs on, which follows from its word; HST_LISTS: none. */
enum hst_list_id evict_list_of(const struct hst *h, uint32_t block);
void evict_enlist(struct hst *h, uint32_t block);
void evict_delist(struct hst *h, uint32_t block);
/* Changes flags, and with them the list that the block is on. */
void evict_flags(struct hst *h, uint32_t block, uint32_t set, uint32_t clear);
/* Another block takes up memory; ahead: one that is to be on standby. */
void evict_charge(struct hst *h, bool ahead);
/* No: a fetch has to wait until memory is given back. */
bool evict_room(const struct hst *h);
/* There is room for what nobody waits for. */
bool evict_spare(const struct hst *h);
/* cfg, mem and block_count are there. */
void evict_init(struct hst *h);

/* keep.c: the block is not taken away until it is let go of as often. False: too often. */
bool block_keep(struct hst *h, uint32_t block);
void block_let_go(struct hst *h, uint32_t block);

/* hold.c. due: blocks to be taken. */
void hold_init(struct hst *h);
/* hold_for would begin, go on or end something. */
bool hold_ready(const struct hst *h, uint32_t due);
/* They may be taken now. If not: not yet, or none are due any more. */
bool hold_for(struct hst *h, uint32_t due);
/* They are taken. */
void hold_end(struct hst *h);
/* At an exit: what KVM needs to go on with the instruction stays until it enters. */
void hold_instruction(struct hst_vcpu *v);
void hold_no_instruction(struct hst_vcpu *v);

/* swap.c: writes what has to be written, as many at a time as there may be. */
bool swap_writes_due(const struct hst *h);
void swap_start_writes(struct hst *h);
/* Writes again what had failed. */
void swap_resume(struct hst *h);
void swap_stop(struct hst *h);

/* deliver.c */
struct eng_slot slot_read(struct hst_vcpu *v);
void slot_store(struct hst_vcpu *v, const struct eng_store *st);
/* Sends whatever page-ready events may go out now. cpu: as for eng_next_ready. */
void deliver(struct hst_vcpu *v, struct cpu_state *cpu);
void deliver_init(struct hst_vcpu *v);
/* Queues a #PF of ours. cpu: the vCPU's, at an exit. */
void pf_queue(struct hst_vcpu *v, struct cpu_state *cpu, const struct eng_event *ev);
/* Takes one that the guest has not taken back from it: page missing never was, ready is due. */
void pf_take_back(struct hst_vcpu *v);

/* msr.c */
/* Carries out a register write whose memory is there. */
void msr_apply(struct hst_vcpu *v, uint32_t msr, uint64_t value);
/* The VMM may have set registers in KVM's state: takes over what concerns us. */
void msr_look(struct hst_vcpu *v);
/* Shows it there what the protocol's registers hold. */
void msr_show(struct hst_vcpu *v);
/* Memory that the kernel writes must be there before the guest runs. True: it is not, and waits. */
bool areas_wait(struct hst_vcpu *v);

/* vcpu.c */
/* Block of a waiter is readable; called once per waiter, already unlinked. */
void vcpu_block_ready(struct hst_waiter *w, uint64_t now);
/* Makes the vCPU thread look, wherever it is. */
void vcpu_kick(struct hst_vcpu *v);
void vcpu_kick_all(struct hst *h);
/* Its thread looks: a kick that was on its way has done its work. */
void vcpu_back_in_host(struct hst_vcpu *v);
void vcpu_init(struct hst_vcpu *v);
/* Begins to wait for the block of off; false: it is there. */
bool vcpu_wait_for(struct hst_vcpu *v, roff_t off, enum hst_phase phase);
/* What the guest has stored is carried out as soon as its blocks are there. */
void vcpu_stores_begin(struct hst_vcpu *v);
/* The fault is a memory error of the host's own, which only the VMM can do something about. */
bool vcpu_fault_is_error(struct hst_vcpu *v, roff_t off);
/* On the way back to the VMM. */
void vcpu_rest(struct hst_vcpu *v);
/* Entry of v->kept: the block stays, the one before may go. */
void vcpu_keep(struct hst_vcpu *v, unsigned entry, uint32_t block);
/* The engine's registers have changed, and with them where the area is. */
void vcpu_keep_area(struct hst_vcpu *v);

#endif
