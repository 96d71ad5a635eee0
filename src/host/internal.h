/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver's own files share. */
#ifndef HOST_INTERNAL_H
#define HOST_INTERNAL_H

#include "host/host.h"

/* Residency word of a block: the kind in two bits, the fetch's index above them. */
enum block_kind {
	BLOCK_ABSENT,
	BLOCK_FETCHING,
	BLOCK_PRESENT,
};

static inline enum block_kind block_kind(const struct hst *h, uint32_t block)
{
	return (enum block_kind)(h->blocks[block] & 3);
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
/* The fetch that brings the block; started if there is none. The block must not be PRESENT. */
struct hst_fetch *fetch_for(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined);
/*
 * There is room for a fetch that nobody has a claim to. What is left then belongs to RAM
 * accesses, registers, areas and devices, of which each can have only so many.
 */
bool fetch_room(const struct hst *h);
/* Makes a PRESENT block visible once more. */
void fetch_present_again(struct hst *h, uint32_t block);
void waiter_link(struct hst_waiter *w, struct hst_fetch *f, uint64_t since_ns);
void waiter_unlink(struct hst_waiter *w);

/* deliver.c */
struct eng_slot slot_read(struct hst_vcpu *v);
void slot_store(struct hst_vcpu *v, const struct eng_store *st);
/* Sends whatever page-ready events may go out now. cpu: as for eng_next_ready. */
void deliver(struct hst_vcpu *v, struct cpu_state *cpu);
void deliver_init(struct hst_vcpu *v);

/* vcpu.c */
/* Block of a waiter is readable; called once per waiter, already unlinked. */
void vcpu_block_ready(struct hst_waiter *w, uint64_t now);
/* Makes the vCPU thread look, wherever it is. */
void vcpu_kick(struct hst_vcpu *v);
void vcpu_kick_all(struct hst *h);
void vcpu_init(struct hst_vcpu *v);

#endif
