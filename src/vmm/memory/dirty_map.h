/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest RAM were written to by somebody whom KVM's log does not show: a device of
 * ours, or the library (apf_config.on_write). A bit per page, RAM above the hole behind that below
 * it, as in a snapshot's file of memory. Header only.
 *
 * A writer marks pages after it has written to them. A device marks a buffer earlier, when it takes
 * it, and is held while the bits are taken (virtio_mmio_hold). Marks are made by any thread.
 */
#ifndef VMM_DIRTY_MAP_H
#define VMM_DIRTY_MAP_H

#include <stdatomic.h>

#include "base/types.h"

#define DIRTY_WORD_PAGES 64u

struct dirty_map {
	atomic_bool on;       /* somebody wants to know */
	uint64_t low_pages;   /* below the hole */
	uint64_t high_gpa;    /* where RAM above it starts */
	uint64_t pages;       /* of both */
	_Atomic uint64_t *bits; /* a word for each 64 pages; NULL: never on */
};

static inline void dirty_map_mark_pages(struct dirty_map *d, uint64_t from, uint64_t end)
{
	for (uint64_t p = from; p < min_u64(end, d->pages); p++)
		atomic_fetch_or(&d->bits[p / DIRTY_WORD_PAGES], 1ull << p % DIRTY_WORD_PAGES);
}

/* [gpa, gpa + len), which lies in one of the two ranges. */
static inline void dirty_map_mark(struct dirty_map *d, uint64_t gpa, uint64_t len)
{
	bool high = gpa >= d->high_gpa;
	uint64_t off = high ? gpa - d->high_gpa : gpa, base = high ? d->low_pages : 0;

	if (len == 0 || !atomic_load(&d->on))
		return;
	dirty_map_mark_pages(d, base + (off >> PAGE_SHIFT),
			     base + ((off + len - 1) >> PAGE_SHIFT) + 1);
}

/* Adds what was marked to `to`, of as many words, and forgets it. */
static inline void dirty_map_take(struct dirty_map *d, uint64_t *to)
{
	for (uint64_t w = 0; w < d->pages / DIRTY_WORD_PAGES; w++)
		if (atomic_load_explicit(&d->bits[w], memory_order_relaxed))
			to[w] |= atomic_exchange(&d->bits[w], 0);
}

#endif
