/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content that came along with what a source was asked for. A block takes it only if a read would
 * bring the same: it is absent, and the source stands behind it still. It is FETCHING while the
 * content is copied, so that nobody else fetches it or takes it away, and who touches it
 * meanwhile waits for that. What nobody waits for is made visible at once where memory is never
 * taken away; else it waits for its first touch on standby, and goes first when memory is short.
 * Tests: tests/unit/host_offer_test.c, host_evict_property_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"

/* Made visible by one call. */
#define PIECE_BYTES (64u << 10)
/* Blocks that are looked at under the lock before others get it. */
#define LOOKS_MAX 512u

static uint64_t block_bytes(const struct hst *h)
{
	return 1ull << h->cfg.block_shift;
}

/* A read would bring the block at o->at the same. */
static bool lacks_it(struct hst *h, const struct hst_offer *o, const struct ram_backing *b)
{
	uint32_t block = block_of(h, o->at);

	return block_kind(h, block) == BLOCK_ABSENT && fetch_backing(h, block) == b;
}

/* The block at o->at is one that takes it. */
static bool takes(struct hst *h, const struct hst_offer *o, const struct ram_backing *b)
{
	struct err e;

	return lacks_it(h, o, b) && block_reserve(h, o->at, block_bytes(h), &e);
}

/* What of the block at o->at the source holds; 0: none, or not all of that is in the offer. */
static uint64_t offered_bytes(struct hst *h, const struct hst_offer *o,
			      const struct ram_backing *b)
{
	uint64_t skip = o->at.v - b->roff.v, from = b->src_offset + skip, n;

	if (skip >= b->bytes || from < o->offset)
		return 0;
	n = fetch_backed_bytes(b, o->at, block_bytes(h));
	return from - o->offset <= o->len && n <= o->len - (from - o->offset) ? n : 0;
}

/* To the first block of the backing that may be wholly in the offer. */
static void seek(const struct hst *h, struct hst_offer *o, const struct ram_backing *b)
{
	uint64_t skip = o->offset > b->src_offset ? o->offset - b->src_offset : 0;

	skip = skip < b->bytes ? align_up(skip, block_bytes(h)) : b->bytes;
	o->at.v = max_u64(o->at.v, b->roff.v + skip);
}

static void claim(struct hst *h, struct hst_offer *o, const struct ram_backing *b,
		  struct hst_piece *ret)
{
	uint32_t block = block_of(h, o->at);
	struct hst_fetch *f = fetch_alloc(h, block, h->cfg.vcpus);
	uint64_t n = offered_bytes(h, o, b);

	f->state = HST_FETCH_OFFERED;
	f->charged = true;
	f->ahead = true; /* until somebody joins it */
	f->count = 0;
	*ret = (struct hst_piece){
		.fetch = f,
		.to = h->mem.alias + o->at.v,
		.from = b->src_offset + (o->at.v - b->roff.v) - o->offset,
	};
	do {
		block_set_fetch(h, block + f->count, (uint32_t)(f - h->fetches));
		budget_charge(h, true);
		f->count++;
		ret->len += n;
		o->at.v += block_bytes(h);
		n = offered_bytes(h, o, b);
	} while (n > 0 && ret->len + n <= PIECE_BYTES && fetch_spare(h) && takes(h, o, b));
}

enum hst_offer_next hst_offer_next(struct hst *h, struct hst_offer *o, struct hst_piece *ret)
{
	unsigned looks = 0;

	for (unsigned i = 0; i < h->ram.backing_count; i++) {
		const struct ram_backing *b = ram_backing(&h->ram, i);

		if (b->src != o->src)
			continue;
		for (seek(h, o, b); offered_bytes(h, o, b) > 0; o->at.v += block_bytes(h)) {
			if (h->stopping || !fetch_spare(h))
				return HST_OFFER_END;
			if (looks++ == LOOKS_MAX)
				return HST_OFFER_MORE;
			if (takes(h, o, b)) {
				claim(h, o, b, ret);
				return HST_OFFER_PIECE;
			}
		}
	}
	return HST_OFFER_END;
}

void hst_offered(struct hst_fetch *f)
{
	struct hst *h = f->h;

	ASSERT(f->state == HST_FETCH_OFFERED);
	if (h->stopping)
		return;
	h->stats.offered += f->count;
	if (!f->ahead || !h->cfg.evict) {
		fetch_filled(f);
		return;
	}
	/* If it goes untouched, and is fetched later, that is a second time. */
	for (uint32_t block = f->first; block < f->first + f->count; block++)
		h->blocks[block] |= BLOCK_SEEN;
	fetch_to_standby(f);
}
