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

#ifndef HXS_PAGES
#define HXS_PAGES 1024u /* at most */
#endif
#define HXS_HEAD PAGE_BYTES
#define HXS_WRITES 64u
#define HXS_LOST 0x6c
#define HXS_LIMIT 64u /* slack 4, goal 8: budget.c */

enum hx_page {
	HX_HOLE,     /* a touch is a missing event, once watched; else the kernel fills it */
	HX_POISONED, /* a touch is a fault */
	HX_VISIBLE,
};

struct hx_write {
	struct io_req *rq;
	uint64_t off;
	const unsigned char *buf;
	size_t len;
	bool cancelled;
};

/* What each call of the new mem ops answers; one counter for all of them. */
enum hx_take {
	HX_TAKE_UNMAP,
	HX_TAKE_COLLECT,
	HX_TAKE_DROP,
	HX_TAKE_WATCH,
	HX_TAKE_RESIDENT,
	HX_TAKES
};

struct hx_swap {
	enum hx_page pages[HXS_PAGES];
	bool guarded[HXS_PAGES];   /* visible, and nobody has written to it since */
	bool vmm[HXS_PAGES];       /* the VMM's view shows it */
	bool vmm_guarded[HXS_PAGES];
	bool allocated[HXS_PAGES]; /* takes up host memory */
	bool watched;
	uint64_t want[HXS_PAGES]; /* what was written last; 0: as it was at the start */
	bool source;              /* at the start: the source's content; else zeroes */
	struct hx_src src;        /* reads the file */
	unsigned char disk[HXS_HEAD + HXS_PAGES * PAGE_BYTES];
	struct hx_write writes[HXS_WRITES]; /* outstanding, oldest first */
	unsigned count;
	bool later;         /* writes wait for hxs_write_end */
	struct io_req *sync; /* outstanding */
	bool sync_later;    /* it waits for hxs_sync_end; else it ends well with the next write */
	bool sync_cancelled;
	unsigned syncs;
	bool risky[HXS_PAGES]; /* written to the file since the last sync that went well */
	bool syncing[HXS_PAGES]; /* and before the sync under way began */
	unsigned fail[HX_TAKES]; /* so many of the next calls fail */
	unsigned calls[HX_TAKES];
	unsigned half; /* failing unmap, collect and drop have done so many pages before */
	bool held[HX_VCPUS]; /* came out of the guest because of a hold, and waits */
	unsigned woken[HXS_PAGES]; /* how often sleepers on it were */
	bool lost[HXS_PAGES]; /* the host has lost it: nobody may touch it */
	bool broken_drop; /* memory was given back that the guest could see, or half a block */
};

struct hx_swap *hxs(struct hx *x);

/* ---- memory ---- */

uint64_t hxs_first(roff_t off);
bool hxs_fails(struct hx *x, enum hx_take kind, struct err *e);
void hxs_woken(struct hx *x, roff_t off, uint64_t len);
int hxs_present(void *ctx, roff_t off, uint64_t len, unsigned views, bool watch, struct err *e);
int hxs_poison(void *ctx, roff_t off, uint64_t len, struct err *e);
int hxs_unmap(void *ctx, roff_t off, uint64_t len, struct err *e);
int hxs_collect(void *ctx, roff_t off, uint64_t len, mem_pages written, mem_pages ret_vmm,
		struct err *e);
int hxs_drop(void *ctx, roff_t off, uint64_t len, struct err *e);
bool hxs_is_broken(void *ctx, roff_t off);

/* Its memory holds what nobody else puts there. */
void hxs_lose(struct hx *x, uint64_t page);
int hxs_watch_all(void *ctx, struct err *e);
int hxs_resident(void *ctx, roff_t off, uint64_t len, mem_pages ret, struct err *e);

uint64_t hxs_resident_bytes(void *ctx);

/* ---- the file ---- */

/* Every other 64 bytes. */
void hxs_copy(struct hx_swap *s, const struct hx_write *w, size_t len, size_t from);

/* The sync ends. One that fails takes what was not durable with it. */
void hxs_sync_end(struct hx *x, int res);
void hxs_sync(void *ctx, struct io_file *file, struct io_req *rq);

/* Outstanding write i ends; res: bytes that arrived, of its own accord 0 to all, or -Exxx. */
void hxs_write_end(struct hx *x, unsigned i, int res);
void hxs_write_ok(struct hx *x, unsigned i);
void hxs_write(void *ctx, struct io_file *file, struct io_req *rq, uint64_t off, const void *buf,
	       size_t len);
void hxs_cancel(void *ctx, struct io_req *rq);

/* ---- set-up ---- */

const struct mem_ops *hxs_mem_ops(void);

/* `pages` of RAM, a source behind all of it or behind nothing; a limit in blocks, 0: none. */
struct hx *hxs_open(const struct hst_cfg *cfg, uint64_t pages, bool source, uint64_t limit);

/* ---- content ---- */

uint64_t *hxs_words(struct hx *x, uint64_t page);

/* Sees what the page must hold; first, middle and last word, as a torn write would show. */
bool hxs_right(struct hx *x, uint64_t page);

/* value 1 stands for zeroes. */
void hxs_put(struct hx *x, uint64_t page, uint64_t value);
bool hxs_visible(const struct hx *x, uint64_t page);

/* The guest writes to a page that it can see. */
void hxs_guest_writes(struct hx *x, uint64_t page, uint64_t value);

/* A thread of the VMM's touches a page, sleeping until it is there, and writes to it or not. */
void hxs_vmm(struct hx *x, uint64_t page, uint64_t value);

/* The kernel fills a page that nobody watches yet. */
void hxs_native(struct hx *x, uint64_t page);

/* A device has the page fetched, and reads or writes it by way of the driver. */
void hxs_device(struct hx *x, uint64_t page, uint64_t value);

/* ---- the evictor ---- */

/* What vCPU threads do about a hold: they come out, and go on when it is over. */
void hxs_obey(struct hx *x);

/* The next job, begun; no vCPU is in the guest while it unmaps. False: there is none. */
bool hxs_next(struct hx *x, struct hst_job *ret);

/* One job from beginning to end; false: there was none. */
bool hxs_job(struct hx *x);

/* Until nothing is left to be done. */
void hxs_evict(struct hx *x);
void hxs_evict_all(struct hx *x);

/* ---- what most tests begin with ---- */

struct hx *hxs_sized(enum hst_faults faults, uint64_t pages, bool source, uint64_t limit);

/* Faults that halt the vCPU; no events. Page 0 may be anything. */
struct hx *hxs_plain(bool source, uint64_t limit);
enum block_kind hxs_kind(const struct hx *x, uint64_t page);
void hxs_write_pages(struct hx *x, uint64_t first, uint64_t count);
void hxs_check_pages(struct hx *x, uint64_t first, uint64_t count);

/* The guest touches a page, waits for it, and goes on. */
void hxs_touch(struct hx *x, uint64_t page, unsigned cpl);
void hxs_end_job(struct hx *x, struct hst_job *job);

/* The next job that takes something away, begun. */
struct hst_job hxs_take_job(struct hx *x, int want);
void hxs_close(struct hx *x);

#endif
