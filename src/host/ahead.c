/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads for which nobody waits yet: what an even stream comes to next, and then what lies around a
 * block that was waited for. They stand in queues of their own, of which a read is
 * issued only when nobody waits for one, and which leave half of the reads in flight to those who
 * will. Neighbours go together, as many as the source's pace makes worth while (pace.h); each
 * stays a fetch of its own, so that a failure, a discard or a touch is of one block.
 * Test: tests/unit/host_stream_test.c, host_ahead_test.c.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/fetch.h"
#include "host/stream.h"

/* Of what even the fastest source brings: made visible by one call. */
#define DEPTH_BYTES_MIN (64u << 10)
/* So many requests of a stream: the reader waits for one in nine of what it takes to bring them. */
#define DEPTH_REQUESTS 8u
/* One block in so many says that the others will be wanted, too. */
#define DENSE 8u

static struct list *queue_of(struct hst *h, const struct hst_fetch *f)
{
	ASSERT(f->rank >= SRC_AHEAD && f->rank <= SRC_FILL);
	return &h->ahead[f->rank - SRC_AHEAD];
}

void ahead_queue(struct hst_fetch *f)
{
	f->h->ahead_queued++;
	list_append(queue_of(f->h, f), &f->link);
}

void ahead_leave(struct hst_fetch *f)
{
	f->h->ahead_queued--;
	list_remove(queue_of(f->h, f), &f->link);
}

struct hst_fetch *ahead_next(struct hst *h)
{
	struct hst_fetch *f = NULL;

	if (h->in_flight >= fetch_depth(h) / 2)
		return NULL;
	for (unsigned i = 0; !f && i < ARRAY_LEN(h->ahead); i++)
		f = hst_fetch_of(h->ahead[i].first);
	if (f)
		ahead_leave(f);
	return f;
}

/* The block's fetch stands in f's queue, and its bytes lie beside f's in the same source. */
static struct hst_fetch *neighbour(struct hst *h, const struct hst_fetch *f, uint32_t block)
{
	struct hst_fetch *n;

	if (block >= h->block_count || block_kind(h, block) != BLOCK_FETCHING)
		return NULL;
	n = block_fetch(h, block);
	return n->state == HST_FETCH_QUEUED && n->rank == f->rank && !n->urgent &&
			       fetch_backing(h, block) == f->backing
		       ? n
		       : NULL;
}

struct hst_fetch *ahead_gather(struct hst_fetch *f)
{
	struct hst *h = f->h;
	uint32_t room = pace_bytes(&f->backing->pace) >> h->cfg.block_shift;
	struct hst_fetch *first = f, *last = f, *n;

	if (f->rank == SRC_DEMAND || f->urgent)
		return f;
	for (uint32_t count = 1; count < room; count++) {
		/* The last block of a source may be cut short, and has no neighbour behind it. */
		if ((n = neighbour(h, f, last->block + 1)) && fetch_prepare(n)) {
			ahead_leave(n);
			n->link.next = NULL;
			last->link.next = &n->link;
			last = n;
		} else if (first->block > 0 && (n = neighbour(h, f, first->block - 1)) &&
			   fetch_prepare(n)) {
			ahead_leave(n);
			n->link.next = &first->link;
			first = n;
		} else {
			break;
		}
	}
	return first;
}

/*
 * No more is queued than there are reads for now, `together` blocks in each: what waits has its
 * room already, and that would be taken from what is in use.
 */
static bool has_reads(const struct hst *h, uint32_t together)
{
	uint32_t half = fetch_depth(h) / 2;
	uint32_t left = half > h->in_flight ? half - h->in_flight : 0;

	return h->ahead_queued < (uint64_t)left * together;
}

/*
 * A fetch for nobody yet, charged before it is issued, or what waits in the queue would be more
 * than there is room for.
 */
static struct hst_fetch *take_ahead(struct hst *h, uint32_t block, enum src_rank rank)
{
	struct hst_fetch *f = fetch_alloc(h, block, h->cfg.vcpus);

	f->ahead = true;
	f->rank = rank & 3u; /* two bits */
	f->charged = true;
	budget_charge(h, true);
	return f;
}

/* False: there is no room. */
static bool read_ahead(struct hst *h, uint32_t block, enum src_rank rank, uint32_t together)
{
	if (!fetch_spare(h) || !has_reads(h, together))
		return false;
	h->stats.read_ahead++;
	fetch_queue(take_ahead(h, block, rank));
	return true;
}

static uint32_t request_blocks(const struct hst *h, const struct ram_backing *b)
{
	return (uint32_t)max_u64(pace_bytes(&b->pace) >> h->cfg.block_shift, 1);
}

/* Blocks that are read ahead of a stream at most. */
static uint32_t depth(const struct hst *h, const struct ram_backing *b)
{
	uint64_t bytes = max_u64(DEPTH_REQUESTS * (uint64_t)pace_bytes(&b->pace), DEPTH_BYTES_MIN);

	return (uint32_t)min_u64(max_u64(bytes >> h->cfg.block_shift, 1), h->cfg.ahead_max);
}

static void follow(struct hst *h, uint32_t block, struct stream *s, const struct ram_backing *b)
{
	uint32_t together = s->stride == 1 || s->stride == -1 ? request_blocks(h, b) : 1;

	for (; s->asked < s->window; s->asked++) {
		int64_t at = (int64_t)block + (int64_t)s->stride * (s->asked + 1);
		roff_t off = {(uint64_t)at << h->cfg.block_shift};

		if (at < 0 || off.v >= h->mem.bytes || !ram_region_at(&h->ram, off))
			return;
		if (block_kind(h, (uint32_t)at) != BLOCK_ABSENT ||
		    !fetch_backing(h, (uint32_t)at))
			continue;
		if (!read_ahead(h, (uint32_t)at, SRC_AHEAD, together))
			return;
	}
}

void ahead_follow(struct hst *h, uint32_t block)
{
	const struct ram_backing *b = fetch_backing(h, block);
	struct stream *s = b ? stream_touch(&h->streams, block, depth(h, b)) : NULL;

	if (!s)
		return;
	follow(h, block, s, b);
	fetch_dispatch(h);
}

/* Of a source: what it brings in the time of a block, as a power of two. */
static uint64_t around_bytes(const struct hst *h, const struct ram_backing *b)
{
	uint64_t most = min_u64(pace_bytes(&b->pace), (uint64_t)h->cfg.ahead_max
							       << h->cfg.block_shift);

	if (b == &h->swap.backing)
		return AROUND_BYTES;
	return most ? 1ull << (63 - __builtin_clzll(most)) : 0;
}

/* Blocks of start to end that are here, or on their way. */
static uint32_t known(const struct hst *h, uint32_t start, uint32_t end)
{
	uint32_t n = 0;

	for (uint32_t at = start; at < end; at++)
		n += block_kind(h, at) != BLOCK_ABSENT;
	return n;
}

/* The most around the block of which more than one in DENSE is known, itself among them. */
static uint64_t dense_bytes(const struct hst *h, uint32_t block, uint64_t most)
{
	uint32_t start, end, from = block, to = block, n = 0;
	uint64_t dense = 0;

	for (uint64_t bytes = AROUND_BYTES; bytes <= most; bytes *= 2) {
		fetch_near(h, block, bytes, &start, &end);
		n += known(h, start, from) + known(h, to, end);
		from = start;
		to = end;
		if (n * DENSE > end - start)
			dense = bytes;
	}
	return dense;
}

/*
 * What lies around a block that kernel mode waits for is likely to be kernel mode's, too: Linux
 * keeps apart what it cannot move. While it waits the vCPU does nothing else, so that is read
 * along. User mode's lies anywhere, and others run meanwhile: of a source that is away, what lies
 * around is read where some of it was wanted before, and nobody goes through it in even steps. All
 * that goes onto standby where memory is evicted: a touch takes no read then, and tells whose it
 * is; what nobody touches goes first, without a write.
 */
void fetch_around(const struct hst_fetch *f, bool kernel_mode)
{
	struct hst *h = f->h;
	const struct ram_backing *b = f->backing;
	uint32_t at, end, together;
	uint64_t bytes = around_bytes(h, b);

	/* Each fault comes by here. */
	if (bytes == 0)
		return;
	if (!kernel_mode && (b == &h->swap.backing || stream_is_at(&h->streams, f->block)))
		return;
	if (!kernel_mode)
		bytes = dense_bytes(h, f->block, bytes);
	together = request_blocks(h, b);
	for (fetch_near(h, f->block, bytes, &at, &end); at < end; at++)
		if (block_kind(h, at) == BLOCK_ABSENT && fetch_backing(h, at) == b &&
		    !read_ahead(h, at, SRC_FILL, together))
			break;
	fetch_dispatch(h);
}

/* ---- what a list says, plan.c ---- */

void fetch_ahead(struct hst *h, uint32_t block, bool listed)
{
	struct hst_fetch *f = take_ahead(h, block, listed ? SRC_AHEAD : SRC_FILL);

	f->planned = listed;
	h->stats.prefetched += listed;
	/* Of reads that leave half to demand there is none where only one is made at a time. */
	if (h->cfg.queue_depth == 1)
		f->rank = SRC_DEMAND;
	fetch_queue(f);
	fetch_dispatch(h);
}

void fetch_show(struct hst *h, uint32_t block)
{
	struct hst_fetch *f;

	block_delist(h, block);
	f = fetch_alloc(h, block, h->cfg.vcpus);
	f->charged = true;
	fetch_filled(f);
}

bool fetch_is_quiet(const struct hst *h)
{
	return !h->urgent.fetches.first && !h->turn_first && fetch_spare(h) &&
	       h->in_flight < max_u64(fetch_depth(h) / 2, 1);
}
