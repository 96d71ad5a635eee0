/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing blocks. Whoever waits hangs a waiter on the fetch, whose `ready` is called when the
 * block is there: who that is, this file does not know.
 */
#ifndef HOST_FETCH_H
#define HOST_FETCH_H

#include "host/host.h"

void fetch_init(struct hst *h);
/*
 * The fetch that brings the block; started if there is none. The block must not be PRESENT.
 * One in STANDBY comes back as it is, without a read.
 */
struct hst_fetch *fetch_for(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined);
/* The same for a vCPU that can do nothing else until it has the block. */
struct hst_fetch *fetch_for_urgent(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined);
/*
 * There is room for a fetch that nobody has a claim to. What is left then belongs to RAM
 * accesses, registers, areas and devices, of which each can have only so many.
 */
bool fetch_room(const struct hst *h);
/* There is room for a block that nobody waits for: what somebody waits for finds enough. */
bool fetch_spare(const struct hst *h);
/* A new fetch of the block, which is FETCHING from now on. There must be a free one. */
struct hst_fetch *fetch_alloc(struct hst *h, uint32_t block, unsigned owner);
/* It is over: its block's word names it no longer. */
void fetch_free(struct hst_fetch *f);
/* What it waited behind is over: read it. */
void fetch_queue(struct hst_fetch *f);
/*
 * Reads at a time: queue_depth, and where memory is limited no more than fill half of it.
 * Had they all of it, each block would displace the one before, which nobody has touched yet.
 */
uint32_t fetch_depth(const struct hst *h);
/* Issues queued fetches while there is room. */
void fetch_dispatch(struct hst *h);
/* The content is in the alias; to be made visible. */
void fetch_filled(struct hst_fetch *f);
/*
 * The content is in the alias, and nobody waits for it: the blocks wait for their first touch out
 * of the guest mapping, as what is taken away does. Frees the fetch.
 */
void fetch_to_standby(struct hst_fetch *f);
/* Has the plan go on, if there is one. */
void fetch_plan_on(struct hst *h);
/* Makes a PRESENT block visible once more; in the guest's view, and in these. */
void fetch_present_again(struct hst *h, uint32_t block, unsigned views);
/*
 * The content of a FAILED fetch is not wanted any more: the caller gives the block's memory back,
 * and then has it fetched anew. False: it has not failed, or is of several blocks.
 */
bool fetch_take_failed(struct hst_fetch *f);
/* Tries again what had failed, and cancels what takes too long to read it anew. */
void fetch_resume(struct hst *h);
/* Cancels every read. */
void fetch_stop(struct hst *h);

/* ---- read.c ---- */

/* What stands behind the block now; NULL: zeroes. */
struct ram_backing *fetch_backing(struct hst *h, uint32_t block);
/* How much of the block, len bytes at off, the source holds; the rest is zeroes. */
uint64_t fetch_backed_bytes(const struct ram_backing *b, roff_t off, uint64_t len);
/* Bytes around a fault: zeroes, which cost nothing to bring, and what kernel mode has swapped. */
#define AROUND_BYTES (64u << 10)
/* The blocks of so many bytes around it, of its region. bytes: a power of two, 2 MiB at most. */
void fetch_near(const struct hst *h, uint32_t block, uint64_t bytes, uint32_t *ret_start,
		uint32_t *ret_end);
/* f->backing and f->rd, but for how to read it. False: there is nothing but zeroes. */
bool fetch_prepare(struct hst_fetch *f);
/* Reads it, with the neighbours that are queued alike; or fills it, where it is zeroes. */
void fetch_issue(struct hst_fetch *f);
/* The fetch's timer: the pause before another try is over, or a read takes too long. */
void fetch_timer(struct timer *tm, uint64_t now_ns);
/* The VM is paused: f cannot go on from `state` before hst_resume. why: NULL if it is only late. */
void fetch_trouble(struct hst_fetch *f, enum hst_fetch_state state, const struct err *why);

/* ---- show.c; hst_take_filled, hst_make_visible and hst_shown are in host.h ---- */

/* Somebody sleeps in the kernel for it, who is no waiter of ours. */
void fetch_touch(struct hst_fetch *f);
void waiter_link(struct hst_waiter *w, struct hst_fetch *f, uint64_t since_ns);
void waiter_unlink(struct hst_waiter *w);

/* ---- ahead.c ---- */

/* Reads what lies around a block that is waited for, to be on standby. */
void fetch_around(const struct hst_fetch *f, bool kernel_mode);
/*
 * Somebody has to wait for the block. If he goes through memory in even steps, what comes next is
 * read before he is there.
 */
void ahead_follow(struct hst *h, uint32_t block);
/* Queues of what nobody waits for yet, by rank. NULL: none, or none for now. */
void ahead_queue(struct hst_fetch *f);
void ahead_leave(struct hst_fetch *f);
struct hst_fetch *ahead_next(struct hst *h);
/*
 * f is about to be read. Its neighbours that are queued alike leave the queue, to be read with it:
 * a list by `next` in the order of their blocks. Returns the first.
 */
struct hst_fetch *ahead_gather(struct hst_fetch *f);
/* Reads an ABSENT block for nobody; listed: by hst_plan's list. A fetch is spare. */
void fetch_ahead(struct hst *h, uint32_t block, bool listed);
/* Makes one on standby visible although nobody has touched it. A fetch is spare. */
void fetch_show(struct hst *h, uint32_t block);
/* A place for a read, and nobody waits for one. */
bool fetch_is_quiet(const struct hst *h);

#endif
