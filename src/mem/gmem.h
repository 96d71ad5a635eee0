/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: parts, each of a memfd, ours or the VMM's own, mapped up to three times. The guest
 * view is what KVM maps into the guest; the VMM view, which not every part has, is what the VMM's
 * threads touch; both are registered with userfaultfd and show nothing until a block is made
 * present. The alias is ours: content is written there, it never faults to user space. The guest
 * view and the alias are two ranges of addresses that are set aside once: where a part lies in
 * them is its RAM offset.
 *
 * Any thread may call any function of an open gmem, except open and close; gmem_add and
 * gmem_remove one thread at a time. A part that leaves must not be in use by another call.
 */
#ifndef MEM_GMEM_H
#define MEM_GMEM_H

#include "port/mem.h"

struct gmem;

#define GMEM_PARTS_MAX 1024u

/* roff: a multiple of 2 MiB; bytes: of 4096. */
struct gmem_part {
	roff_t roff;
	uint64_t bytes;
	int fd; /* -1: of our own memfd, at the RAM offset; else it is duplicated */
	uint64_t offset;
	void *vmm;     /* the VMM's mapping of it; NULL: none */
	bool make_vmm; /* map it for the VMM, too */
};

/*
 * Sets aside addresses for RAM offsets up to span, a multiple of 2 MiB; they cost nothing yet.
 * poison: UFFDIO_POISON will be used; unmap: memory will be taken away again. The kernel must
 * be able to (6.6, 6.7); the text says so when it is not. 0 or -Exxx.
 */
int gmem_open(uint64_t span, bool poison, bool unmap, struct gmem **ret, struct err *e);
/* Unmaps and frees. NULL is harmless. No vCPU may run on it any more. */
void gmem_close(struct gmem *g);

/* Nothing of it is watched yet. -EINVAL: it cannot be served, with text. */
int gmem_add(struct gmem *g, const struct gmem_part *part, struct err *e);
void gmem_remove(struct gmem *g, roff_t roff);
/* The memfd of the part at roff, the offset in it, and the VMM view (NULL: none). */
int gmem_fd(const struct gmem *g, roff_t roff, uint64_t *ret_offset);
void *gmem_vmm(const struct gmem *g, roff_t roff);
/* Some of [at, at + len) is in the guest's view, or in one of the VMM's: a touch may wait. */
bool gmem_is_view(const struct gmem *g, const void *at, uint64_t len);
/*
 * The host may refuse pages of that part: any, or its file system may be full before all of it is
 * filled. From then on all is reserved before it is written, and gmem_is_refusable.
 */
bool gmem_may_be_refused(struct gmem *g, roff_t roff, bool any);
bool gmem_is_refusable(const struct gmem *g);
/*
 * What is in memory from *at on, before `end`, of one part: false: nothing. *at and *ret_len: the
 * range, in whole pages.
 */
bool gmem_next_data(const struct gmem *g, roff_t *at, roff_t end, uint64_t *ret_len);

/*
 * From now on touches in [off, off + len), of one part, of the guest view are reported. first: also
 * of memory that was never filled; otherwise the kernel fills that by itself, with zeroes. May be
 * called again for a range.
 */
int gmem_watch(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e);
/* The same for the VMM view, where there is one; what it shows already is taken out of it. */
int gmem_watch_vmm(struct gmem *g, roff_t off, uint64_t len, bool first, struct err *e);

/*
 * No touch in the part at roff is reported any more: the kernel shows what is in memory, and fills
 * the rest. No page of it may be marked (poison) then.
 */
void gmem_unwatch(struct gmem *g, roff_t roff);
/* So it is where off lies. */
bool gmem_is_unwatched(const struct gmem *g, roff_t off);
/* Of an unwatched part: all of it, in both views, is watched once more. */
void gmem_watched_again(struct gmem *g, roff_t roff);

/*
 * Becomes readable when touches wait. Whoever keeps it open, a ring for one, does not keep the
 * userfaultfd open.
 */
int gmem_event_fd(const struct gmem *g);
/*
 * Takes up to max reported touches; returns how many, 0 when there are none, or -Exxx. *ret_more:
 * there may be others left, of which no edge will tell. Never blocks.
 */
int gmem_touches(struct gmem *g, struct mem_touch *ret, unsigned max, bool *ret_more,
		 struct err *e);

/*
 * How much of [off, off + len), of one part, comes before the first page that the host has lost to
 * a memory error: all of it, without a look, as long as no lost page has been met.
 */
uint64_t gmem_whole(struct gmem *g, roff_t off, uint64_t len);

/* The seam that the driver works on. */
struct mem gmem_mem(struct gmem *g);

/* Address of off in the guest view, for KVM_SET_USER_MEMORY_REGION. */
hva_t gmem_hva(const struct gmem *g, roff_t off);
/* The reverse; false when the address is not in the guest view. */
bool gmem_roff(const struct gmem *g, hva_t hva, roff_t *ret_off);
/* The guest view's address of the byte at an address in the alias; any other as it is. */
hva_t gmem_guest_hva(const struct gmem *g, hva_t hva);

#endif
