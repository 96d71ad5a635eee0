/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory that can be taken away, for the tests of evict.c and swap.c: which pages the
 * guest's and the VMM's view show, what is protected, what was written; a swap file whose writes
 * end when told and take what memory holds at their beginning for one half, at their end for the
 * other, so that a torn write is seen; syncs, which lose what they do not make durable when they
 * fail; and what each page must hold, by who wrote last.
 */
#ifndef HOST_SWAP_FIXTURE_H
#define HOST_SWAP_FIXTURE_H

#include "host_fixture.h"

#ifndef RIG_SWAP_PAGES
#define RIG_SWAP_PAGES 1024u /* at most */
#endif
#define RIG_SWAP_HEAD PAGE_BYTES
#define RIG_WRITES 64u
#define RIG_LOST 0x6c
#define RIG_LIMIT 64u /* slack 4, goal 8: budget.c */

enum rig_page {
	RIG_HOLE,     /* a touch is a missing event, once watched; else the kernel fills it */
	RIG_POISONED, /* a touch is a fault */
	RIG_VISIBLE,
};

struct rig_write {
	struct io_req *rq;
	uint64_t off;
	const unsigned char *buf;
	size_t len;
	bool cancelled;
};

/* What each call of the new mem ops answers; one counter for all of them. */
enum rig_take {
	RIG_TAKE_UNMAP,
	RIG_TAKE_COLLECT,
	RIG_TAKE_DROP,
	RIG_TAKE_WATCH,
	RIG_TAKE_RESIDENT,
	RIG_TAKES
};

struct rig_swap {
	enum rig_page pages[RIG_SWAP_PAGES];
	bool guarded[RIG_SWAP_PAGES];   /* visible, and nobody has written to it since */
	bool vmm[RIG_SWAP_PAGES];       /* the VMM's view shows it */
	bool vmm_guarded[RIG_SWAP_PAGES];
	bool allocated[RIG_SWAP_PAGES]; /* takes up host memory */
	bool watched;
	uint64_t want[RIG_SWAP_PAGES]; /* what was written last; 0: as it was at the start */
	bool source;              /* at the start: the source's content; else zeroes */
	struct rig_src src;        /* reads the file */
	unsigned char disk[RIG_SWAP_HEAD + RIG_SWAP_PAGES * PAGE_BYTES];
	struct rig_write writes[RIG_WRITES]; /* outstanding, oldest first */
	unsigned count;
	bool later;         /* writes wait for rig_write_end */
	struct io_req *sync; /* outstanding */
	bool sync_later;    /* it waits for rig_sync_end; else it ends well with the next write */
	bool sync_cancelled;
	unsigned syncs;
	bool risky[RIG_SWAP_PAGES]; /* written to the file since the last sync that went well */
	bool syncing[RIG_SWAP_PAGES]; /* and before the sync under way began */
	unsigned fail[RIG_TAKES]; /* so many of the next calls fail */
	unsigned calls[RIG_TAKES];
	unsigned half; /* failing unmap, collect and drop have done so many pages before */
	bool held[RIG_VCPUS]; /* came out of the guest because of a hold, and waits */
	unsigned woken[RIG_SWAP_PAGES]; /* how often sleepers on it were */
	bool lost[RIG_SWAP_PAGES]; /* the host has lost it: nobody may touch it */
	bool broken_drop; /* memory was given back that the guest could see, or half a block */
};

struct rig_swap *rig_swap(struct rig *x);

/* ---- memory ---- */

uint64_t rig_first(roff_t off);
bool rig_fails(struct rig *x, enum rig_take kind, struct err *e);
void rig_woken(struct rig *x, roff_t off, uint64_t len);
int rig_swap_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch,
		     struct err *e);
int rig_poison(void *ctx, roff_t off, uint64_t len, struct err *e);
int rig_unmap(void *ctx, roff_t off, uint64_t len, struct err *e);
int rig_collect(void *ctx, roff_t off, uint64_t len, mem_pages written, mem_pages ret_vmm,
		struct err *e);
int rig_drop(void *ctx, roff_t off, uint64_t len, struct err *e);
bool rig_is_broken(void *ctx, roff_t off);

/* Its memory holds what nobody else puts there. */
void rig_lose(struct rig *x, uint64_t page);
int rig_watch_all(void *ctx, struct err *e);
int rig_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e);

uint64_t rig_resident_bytes(void *ctx);

/* ---- the file ---- */

/* Every other 64 bytes. */
void rig_copy(struct rig_swap *s, const struct rig_write *w, size_t len, size_t from);

/* The sync ends. One that fails takes what was not durable with it. */
void rig_sync_end(struct rig *x, int res);
void rig_sync(void *ctx, struct io_file *file, struct io_req *rq);

/* Outstanding write i ends; res: bytes that arrived, of its own accord 0 to all, or -Exxx. */
void rig_write_end(struct rig *x, unsigned i, int res);
void rig_write_ok(struct rig *x, unsigned i);
void rig_swap_write(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off,
		    const void *buf, size_t len);
void rig_cancel(void *ctx, struct io_req *rq);

/* ---- set-up ---- */

const struct mem_ops *rig_mem_ops(void);

/* `pages` of RAM, a source behind all of it or behind nothing; a limit in blocks, 0: none. */
struct rig *rig_swap_open(const struct hst_cfg *cfg, uint64_t pages, bool source, uint64_t limit);

/* ---- content ---- */

uint64_t *rig_words(struct rig *x, uint64_t page);

/* Sees what the page must hold; first, middle and last word, as a torn write would show. */
bool rig_right(struct rig *x, uint64_t page);

/* value 1 stands for zeroes. */
void rig_put(struct rig *x, uint64_t page, uint64_t value);
bool rig_visible(const struct rig *x, uint64_t page);

/* The guest writes to a page that it can see. */
void rig_guest_writes(struct rig *x, uint64_t page, uint64_t value);

/* A thread of the VMM's touches a page, sleeping until it is there, and writes to it or not. */
void rig_vmm(struct rig *x, uint64_t page, uint64_t value);

/* The kernel fills a page that nobody watches yet. */
void rig_native(struct rig *x, uint64_t page);

/* A device has the page fetched, and reads or writes it by way of the driver. */
void rig_device(struct rig *x, uint64_t page, uint64_t value);

/* ---- the evictor ---- */

/* What vCPU threads do about a hold: they come out, and go on when it is over. */
void rig_obey(struct rig *x);

/* The next job, begun; no vCPU is in the guest while it unmaps. False: there is none. */
bool rig_swap_next(struct rig *x, struct hst_job *ret);

/* One job from beginning to end; false: there was none. */
bool rig_job(struct rig *x);

/* Until nothing is left to be done. */
void rig_evict(struct rig *x);
void rig_evict_all(struct rig *x);

/* ---- what most tests begin with ---- */

struct rig *rig_sized(enum hst_faults faults, uint64_t pages, bool source, uint64_t limit);

/* Faults that halt the vCPU; no events. Page 0 may be anything. */
struct rig *rig_plain(bool source, uint64_t limit);
enum block_kind rig_kind(const struct rig *x, uint64_t page);
void rig_write_pages(struct rig *x, uint64_t first, uint64_t count);
void rig_check_pages(struct rig *x, uint64_t first, uint64_t count);

/* The guest touches a page, waits for it, and goes on. */
void rig_touch(struct rig *x, uint64_t page, unsigned cpl);
void rig_end_job(struct rig *x, struct hst_job *job);

/* The next job that takes something away, begun. */
struct hst_job rig_take_job(struct rig *x, int want);
void rig_swap_close(struct rig *x);

#endif
