/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of every block: a word each, and the list that it is on, which follows from the word
 * alone. Whoever changes a word while the block is PRESENT or STANDBY goes by the functions below.
 */
#ifndef HOST_BLOCK_H
#define HOST_BLOCK_H

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
#define BLOCK_VMM (1u << 11)   /* the VMM's view shows it, as PRESENT says of the guest's */
#define BLOCK_FETCH_SHIFT 12
/* Of STANDBY: read ahead by the list of hst_plan, and not touched since. */
#define BLOCK_PLANNED (1u << BLOCK_FETCH_SHIFT)
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

void block_init(struct hst *h);
/*
 * The block, which is PRESENT, shows in the VMM's view, too, where there is one; one that does so
 * already is taken for written to. False: there is no room; nothing is undone.
 */
bool block_show_vmm(struct hst *h, uint32_t block);
/* Its content has changed, and not by the guest: the VMM is told. */
void block_changed(struct hst *h, uint32_t block);
/*
 * The host has lost the page of off, which is in memory, or one of the block's, to a memory error:
 * to touch that in the alias would end the process. A system call for each page; no lock is needed.
 */
bool block_page_is_lost(const struct hst *h, roff_t off);
bool block_is_lost(const struct hst *h, uint32_t block);
/* Its source may write there by a pointer. False: the host refuses that, for *e. */
bool block_reserve(const struct hst *h, roff_t off, uint64_t len, struct err *e);
/*
 * The list that a block belongs on; HST_LISTS: none, as it cannot be taken. A write under way
 * must end before the block is taken again, or an older one could overtake the next.
 */
enum hst_list_id block_list_of(const struct hst *h, uint32_t block);
/* A block becomes PRESENT or STANDBY, or is about to leave that. */
void block_enlist(struct hst *h, uint32_t block);
void block_delist(struct hst *h, uint32_t block);
/* Changes flags, and with them the list that the block is on. */
void block_flags(struct hst *h, uint32_t block, uint32_t set, uint32_t clear);

#endif
