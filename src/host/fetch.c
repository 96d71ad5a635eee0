/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Residency and fetching. A block is absent, being fetched (then its word names the
 * fetch) or present. A fetch exists once per block, however many wait for it; its
 * waiters hang on it. Reads in flight are bounded by queue_depth; beyond that they
 * wait in one queue per vCPU, served in turn, so that a vCPU that faults a lot does
 * not starve the others.
 *
 * A failed read is repeated with a growing delay; past the limit, or when a source
 * does not answer in time, the VM is paused and nothing is lost: hst_resume goes on.
 *
 * Order of publication: content into the alias (the source), visible in the guest
 * mapping (hst_take_filled's caller), PRESENT in the map, and only then the waiters.
 * Tests: tests/unit/host_fetch_test.c, host_ahead_test.c.
 */
#include "base/assert.h"
#include "host/internal.h"

/*
 * Around a fault: zeroes, which cost nothing to bring, and, as kernel mode cannot be parked,
 * what it will want next.
 */
#define AROUND_BYTES (64u << 10)
#define BACKOFF_FIRST_NS (10 * NS_PER_MS)
#define BACKOFF_MAX_NS NS_PER_S

void fetch_init(struct hst *h)
{
	for (uint32_t i = h->fetch_count; i-- > 0;) {
		h->fetches[i].h = h;
		h->fetches[i].next = h->free_fetches;
		h->free_fetches = &h->fetches[i];
	}
	h->free_count = h->fetch_count;
}

static void queue_push(struct hst_queue *q, struct hst_fetch *f)
{
	f->next = NULL;
	if (q->tail)
		q->tail->next = f;
	else
		q->head = f;
	q->tail = f;
}

static struct hst_fetch *queue_pop(struct hst_queue *q)
{
	struct hst_fetch *f = q->head;

	if (f) {
		q->head = f->next;
		if (!q->head)
			q->tail = NULL;
		f->next = NULL;
	}
	return f;
}

void hst_block_range(const struct hst *h, uint32_t block, roff_t *ret_off, uint64_t *ret_len)
{
	ret_off->v = (uint64_t)block << h->cfg.block_shift;
	*ret_len = min_u64(1ull << h->cfg.block_shift, h->mem.bytes - ret_off->v);
}

/* ---- trouble: the VM is paused while a block cannot be had ---- */

static void trouble_tell(struct hst *h, const struct hst_trouble *t)
{
	h->trouble_told = t != NULL;
	h->hooks.trouble(h->hooks.ctx, t);
}

/* What was told is taken back when the VM really goes on, not while the VMM holds it. */
static void trouble_over(struct hst *h)
{
	if (h->trouble_told && !hst_is_paused(h))
		trouble_tell(h, NULL);
}

void trouble_begin(struct hst *h, uint32_t block, uint32_t tries, const struct err *why)
{
	struct hst_trouble t = {.tries = tries};
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	t.gpa = ram_gpa(&h->ram, off);
	if (why)
		t.why = *why;
	h->troubled++;
	trouble_tell(h, &t);
	vcpu_kick_all(h);
}

void trouble_end(struct hst *h)
{
	ASSERT(h->troubled > 0);
	if (--h->troubled == 0) {
		trouble_over(h);
		vcpu_kick_all(h);
	}
}

/* ---- reading ---- */

static void fetch_trouble(struct hst_fetch *f, enum hst_fetch_state state, const struct err *why)
{
	f->state = state;
	trouble_begin(f->h, f->block, f->tries + 1u, why);
}

void fetch_filled(struct hst_fetch *f)
{
	struct hst *h = f->h;

	f->state = HST_FETCH_FILLED;
	f->filled = true;
	/* A block that has to be written out in any case needs no watching. */
	f->watch_writes = h->cfg.evict && !block_is(h, f->block, BLOCK_WRITTEN);
	queue_push(&h->filled, f);
}

void fetch_queue(struct hst_fetch *f)
{
	f->state = HST_FETCH_QUEUED;
	queue_push(&f->h->queues[f->owner], f);
}

uint64_t backoff_ns(unsigned tries)
{
	uint64_t delay = BACKOFF_FIRST_NS;

	for (unsigned i = 0; i < tries && delay < BACKOFF_MAX_NS; i++)
		delay *= 2;
	return min_u64(delay, BACKOFF_MAX_NS);
}

static void fetch_free(struct hst_fetch *f)
{
	struct hst *h = f->h;

	f->state = HST_FETCH_FREE;
	f->next = h->free_fetches;
	h->free_fetches = f;
	h->free_count++;
}

/* Read along, and nobody has asked for it until now. */
static bool is_unwanted(const struct hst_fetch *f)
{
	return f->ahead && !f->waiters;
}

/* It waits for its first touch out of the guest mapping, as what is taken away does. */
static void fetch_to_standby(struct hst_fetch *f)
{
	struct hst *h = f->h;

	block_set_kind(h, f->block, BLOCK_STANDBY);
	evict_enlist(h, f->block);
	fetch_free(f);
}

/* Who wants it reads it again. What of it came into memory counts again then. */
static void fetch_give_up(struct hst_fetch *f)
{
	struct hst *h = f->h;

	block_set_kind(h, f->block, BLOCK_ABSENT);
	h->evict.resident--;
	fetch_free(f);
}

static void read_failed(struct hst_fetch *f, const struct err *why)
{
	struct hst *h = f->h;

	h->stats.read_errors++;
	if (is_unwanted(f)) {
		fetch_give_up(f);
		return;
	}
	if (f->tries >= h->cfg.retries_max) {
		fetch_trouble(f, HST_FETCH_FAILED, why);
		return;
	}
	h->stats.read_retries++;
	f->state = HST_FETCH_BACKOFF;
	timer_arm(&h->timers, &f->timer, hst_now(h) + backoff_ns(f->tries++));
}

static void read_done(struct src_read *rd, const struct err *why)
{
	struct hst_fetch *f = CONTAINER_OF(rd, struct hst_fetch, rd);
	struct hst *h = f->h;
	enum hst_fetch_state was = f->state;

	ASSERT(was == HST_FETCH_READING || was == HST_FETCH_STUCK || was == HST_FETCH_CANCELLED);
	timer_cancel(&h->timers, &f->timer);
	h->in_flight--;
	if (h->stopping)
		return;
	if (!why) {
		h->stats.read_bytes += rd->len;
		if (f->backing && !f->sampled)
			grace_sample(&f->backing->grace, hst_now(h) - f->issued_ns);
		if (is_unwanted(f))
			fetch_to_standby(f);
		else
			fetch_filled(f);
	} else if (was == HST_FETCH_CANCELLED) {
		f->tries = 0;
		fetch_queue(f);
	} else {
		read_failed(f, why);
	}
	if (was != HST_FETCH_READING)
		trouble_end(h);
	fetch_dispatch(h);
}

static void fetch_timer(struct timer *tm, uint64_t now_ns)
{
	struct hst_fetch *f = CONTAINER_OF(tm, struct hst_fetch, timer);

	(void)now_ns;
	if (f->h->stopping)
		return;
	if (f->state == HST_FETCH_BACKOFF) {
		fetch_queue(f);
		fetch_dispatch(f->h);
	} else if (f->state == HST_FETCH_READING) {
		f->h->stats.read_timeouts++;
		fetch_trouble(f, HST_FETCH_STUCK, NULL);
	}
}

/* How much of the block the source holds; the rest is zeroes. */
static uint64_t backed_bytes(const struct ram_backing *b, roff_t off, uint64_t len)
{
	uint64_t skip = off.v - b->roff.v;
	uint64_t at = b->src_offset + skip;

	if (at >= b->src->size)
		return 0;
	return min_u64(min_u64(len, b->bytes - skip), b->src->size - at);
}

/* What stands behind the block now; NULL: zeroes. */
static struct ram_backing *backing_of(struct hst *h, uint32_t block)
{
	roff_t off;
	uint64_t len;

	hst_block_range(h, block, &off, &len);
	if (block_is(h, block, BLOCK_IN_SWAP))
		return &h->swap.backing;
	return block_is(h, block, BLOCK_ZEROES) ? NULL : ram_backing_at(&h->ram, off);
}

static void around(const struct hst *h, uint32_t block, uint32_t *ret_start, uint32_t *ret_end)
{
	uint32_t count = (uint32_t)max_u64(AROUND_BYTES >> h->cfg.block_shift, 1);

	*ret_start = block & ~(count - 1);
	*ret_end = (uint32_t)min_u64(*ret_start + count, h->block_count);
}

/* A block that was never filled, and is nothing but zeroes. */
static bool is_untouched(struct hst *h, uint32_t block)
{
	return block_kind(h, block) == BLOCK_ABSENT && !block_is(h, block, BLOCK_SEEN) &&
	       !backing_of(h, block);
}

static void fill_one(struct hst_fetch *f, uint32_t block)
{
	struct hst *h = f->h;

	if (block != f->block) {
		block_set_fetch(h, block, (uint32_t)(f - h->fetches));
		evict_charge(h, false);
	}
	/* That the guest will write to it is likely. */
	h->blocks[block] |= BLOCK_WRITTEN;
}

/* A hole in the memfd reads as zeroes. Its untouched neighbours come with it. */
static void fill(struct hst_fetch *f)
{
	struct hst *h = f->h;
	uint32_t start, end;
	bool alone = block_is(h, f->block, BLOCK_SEEN) || !h->cfg.evict;

	around(h, f->block, &start, &end);
	fill_one(f, f->block);
	while (!alone && f->first > start && evict_room(h) && is_untouched(h, f->first - 1)) {
		fill_one(f, --f->first);
		f->count++;
	}
	while (!alone && f->first + f->count < end && evict_room(h) &&
	       is_untouched(h, f->first + f->count)) {
		fill_one(f, f->first + f->count);
		f->count++;
	}
	fetch_filled(f);
}

static void fetch_issue(struct hst_fetch *f)
{
	struct hst *h = f->h;
	struct ram_backing *b = f->backing = backing_of(h, f->block);
	roff_t off;
	uint64_t len;

	if (!f->charged)
		evict_charge(h, f->ahead);
	f->charged = true;
	hst_block_range(h, f->block, &off, &len);
	len = b ? backed_bytes(b, off, len) : 0;
	if (len == 0) {
		fill(f);
		return;
	}
	f->rd = (struct src_read){
		.offset = b->src_offset + (off.v - b->roff.v),
		.buf = h->mem.alias + off.v,
		.len = len,
		.done = read_done,
	};
	f->state = HST_FETCH_READING;
	f->issued_ns = hst_now(h);
	h->in_flight++;
	h->stats.reads++;
	if (h->cfg.source_timeout_ns != NS_NEVER)
		timer_arm(&h->timers, &f->timer, f->issued_ns + h->cfg.source_timeout_ns);
	b->src->ops->read(b->src, &f->rd);
}

/* One vCPU after the other. */
void fetch_dispatch(struct hst *h)
{
	unsigned count = h->cfg.vcpus + 1;
	unsigned empty = 0;

	if (h->stopping)
		return;
	if (h->dispatching)
		return; /* the loop below goes on when this read's done() returns to it */
	h->dispatching = true;
	while (h->in_flight < h->cfg.queue_depth && empty < count && evict_room(h)) {
		struct hst_fetch *f = queue_pop(&h->queues[h->next_queue]);

		h->next_queue = (h->next_queue + 1) % count;
		if (f) {
			empty = 0;
			fetch_issue(f);
		} else {
			empty++;
		}
	}
	h->dispatching = false;
}

static struct hst_fetch *fetch_alloc(struct hst *h, uint32_t block, unsigned owner)
{
	struct hst_fetch *f = h->free_fetches;

	/* One for every waiter that can exist, fetch_count() in host.c; others ask fetch_room. */
	ASSERT(f);
	h->free_fetches = f->next;
	h->free_count--;
	*f = (struct hst_fetch){
		.h = h,
		.block = block,
		.first = block,
		.count = 1,
		.owner = (uint16_t)owner,
		.timer = {.fire = fetch_timer},
	};
	block_set_fetch(h, block, (uint32_t)(f - h->fetches));
	return f;
}

bool fetch_room(const struct hst *h)
{
	/* For each vCPU: its access or register, and its area. */
	return h->free_count > HST_OUTSIDE_MAX + 2 * h->cfg.vcpus;
}

struct hst_fetch *fetch_for(struct hst *h, uint32_t block, unsigned owner, bool *ret_joined)
{
	enum block_kind was = block_kind(h, block);
	struct hst_fetch *f;

	*ret_joined = was == BLOCK_FETCHING;
	if (*ret_joined)
		return block_fetch(h, block);
	ASSERT(was != BLOCK_PRESENT);
	if (was == BLOCK_STANDBY)
		evict_delist(h, block);
	f = fetch_alloc(h, block, owner);
	f->backing = backing_of(h, block);
	f->charged = was != BLOCK_ABSENT;
	if (was == BLOCK_ABSENT) {
		h->stats.refaulted += block_is(h, block, BLOCK_SEEN);
		fetch_queue(f);
		fetch_dispatch(h);
	} else if (was == BLOCK_STANDBY) {
		h->stats.rescued++;
		fetch_filled(f);
	} else {
		f->state = HST_FETCH_BEHIND;
	}
	return f;
}

/* What nobody waits for leaves room for what somebody does. */
static bool ahead_room(const struct hst *h)
{
	return evict_spare(h) && h->in_flight < h->cfg.queue_depth &&
	       h->free_count > h->fetch_count / 2;
}

/*
 * What lies around a block that kernel mode waits for is likely to be kernel mode's, too: Linux
 * keeps apart what it cannot move. While it waits the vCPU does nothing else, so that is read
 * along, onto standby: a touch takes no read then, and tells whose it is; what nobody touches
 * goes first, without a write.
 */
void fetch_around(struct hst *h, uint32_t block)
{
	uint32_t at, end;

	for (around(h, block, &at, &end); at < end && ahead_room(h); at++) {
		struct hst_fetch *f;

		if (block_kind(h, at) != BLOCK_ABSENT || !block_is(h, at, BLOCK_IN_SWAP))
			continue;
		f = fetch_alloc(h, at, h->cfg.vcpus);
		f->ahead = true;
		h->stats.read_ahead++;
		fetch_queue(f);
		fetch_dispatch(h);
	}
}

void fetch_present_again(struct hst *h, uint32_t block)
{
	struct hst_fetch *f;

	evict_delist(h, block);
	/* Who took it out of the mapping, and whether it was written to before, nobody knows. */
	h->blocks[block] |= BLOCK_WRITTEN;
	f = fetch_alloc(h, block, h->cfg.vcpus);
	f->charged = true;
	h->blocks_present--;
	fetch_filled(f);
}

/* ---- waiters ---- */

void waiter_link(struct hst_waiter *w, struct hst_fetch *f, uint64_t since_ns)
{
	ASSERT(!w->fetch);
	w->fetch = f;
	w->since_ns = since_ns;
	w->prev = NULL;
	w->next = f->waiters;
	if (f->waiters)
		f->waiters->prev = w;
	f->waiters = w;
}

void waiter_unlink(struct hst_waiter *w)
{
	if (!w->fetch)
		return;
	if (w->prev)
		w->prev->next = w->next;
	else
		w->fetch->waiters = w->next;
	if (w->next)
		w->next->prev = w->prev;
	w->fetch = NULL;
}

struct hst_fetch *hst_take_filled(struct hst *h)
{
	return queue_pop(&h->filled);
}

int hst_make_visible(const struct hst_fetch *f, struct err *e)
{
	const struct mem *m = &f->h->mem;
	uint64_t len;
	roff_t off;

	hst_block_range(f->h, f->first, &off, &len);
	return m->ops->present(m->ctx, off, len * f->count, f->watch_writes, e);
}

/* Waiters are pushed in front; the one who came first is served first. */
static struct hst_waiter *first_waiter(struct hst_fetch *f)
{
	struct hst_waiter *w = f->waiters;

	while (w && w->next)
		w = w->next;
	return w;
}

void hst_settle(struct hst_fetch *f, const struct err *why)
{
	struct hst *h = f->h;
	uint64_t now = hst_now(h);
	struct hst_waiter *w, *prev;

	ASSERT(f->state == HST_FETCH_FILLED);
	if (why) {
		fetch_trouble(f, HST_FETCH_FAILED, why);
		return;
	}
	for (uint32_t block = f->first; block < f->first + f->count; block++) {
		block_set_kind(h, block, BLOCK_PRESENT);
		h->blocks_present++;
		evict_enlist(h, block);
	}
	for (w = first_waiter(f); w; w = prev) {
		prev = w->prev;
		waiter_unlink(w);
		if (w->v)
			vcpu_block_ready(w, now);
		else
			h->hooks.outside_ready(h->hooks.ctx);
	}
	fetch_free(f);
}

/* ---- outside callers ---- */

bool hst_ensure(struct hst *h, roff_t off, struct hst_waiter *w)
{
	uint32_t block = block_of(h, off);
	bool joined;

	ASSERT(off.v < h->mem.bytes && !w->v);
	if (block_kind(h, block) == BLOCK_PRESENT)
		return true;
	waiter_link(w, fetch_for(h, block, h->cfg.vcpus, &joined), hst_now(h));
	return false;
}

void hst_forget(struct hst_waiter *w)
{
	waiter_unlink(w);
}

void hst_wrote(struct hst *h, roff_t off)
{
	h->blocks[block_of(h, off)] |= BLOCK_WRITTEN;
}

static int poison_chunk(struct hst *h, uint64_t chunk, struct err *e)
{
	uint64_t at = chunk << CHUNK_SHIFT;
	uint64_t end = min_u64(at + CHUNK_BYTES, h->mem.bytes);

	while (at < end) {
		uint64_t run = at;

		while (run < end && block_kind(h, block_of(h, (roff_t){run})) != BLOCK_PRESENT)
			run += 1ull << h->cfg.block_shift;
		run = min_u64(run, end);
		if (run > at) {
			int rc = h->mem.ops->poison(h->mem.ctx, (roff_t){at}, run - at, e);

			if (rc < 0)
				return rc;
		}
		at = run + (1ull << h->cfg.block_shift);
	}
	h->chunk_poisoned[chunk] = 1;
	return 0;
}

/*
 * A touch of a block that is there: reported before it was, or the host has taken the page out
 * of the mapping to reclaim it. Then nobody knows whether it was written to before.
 */
static int show_again(struct hst *h, uint32_t block, struct err *e)
{
	roff_t start;
	uint64_t len;

	hst_block_range(h, block, &start, &len);
	h->blocks[block] |= BLOCK_WRITTEN;
	return h->mem.ops->present(h->mem.ctx, start, len, false, e);
}

int hst_kernel_touch(struct hst *h, roff_t off, struct err *e)
{
	uint32_t block = block_of(h, off);
	roff_t start;
	uint64_t len;
	bool joined;

	ASSERT(off.v < h->mem.bytes);
	hst_block_range(h, block, &start, &len);
	if (h->cfg.faults == HST_FAULTS_KERNEL)
		h->stats.faults_total++;
	if (block_kind(h, block) == BLOCK_PRESENT) {
		h->stats.redundant++;
		return show_again(h, block, e);
	}
	if (h->cfg.faults != HST_FAULTS_KERNEL) {
		if (!h->chunk_poisoned[off.v >> CHUNK_SHIFT])
			return poison_chunk(h, off.v >> CHUNK_SHIFT, e);
		if (h->cfg.evict)
			/* Met while it was being taken out of the mapping. */
			return h->mem.ops->poison(h->mem.ctx, start, len, e);
		return h->mem.ops->wake(h->mem.ctx, start, len, e);
	}
	if (block_kind(h, block) != BLOCK_FETCHING && !fetch_room(h))
		/* Woken, the kernel reports it once more. */
		return h->mem.ops->wake(h->mem.ctx, start, len, e);
	(void)fetch_for(h, block, h->cfg.vcpus, &joined);
	h->stats.joined += joined;
	return 0;
}

/* ---- pause and resume ---- */

bool hst_is_paused(const struct hst *h)
{
	return h->paused || h->troubled > 0;
}

void hst_pause(struct hst *h)
{
	h->paused = true;
	vcpu_kick_all(h);
}

void hst_pause_for(struct hst *h, const struct hst_trouble *t)
{
	trouble_tell(h, t);
	hst_pause(h);
}

void hst_resume(struct hst *h)
{
	if (h->stopping)
		return;
	h->paused = false;
	for (uint32_t i = 0; i < h->fetch_count; i++) {
		struct hst_fetch *f = &h->fetches[i];

		/* What is under way may still fail for the reason that is mended now. */
		f->tries = 0;
		if (f->state == HST_FETCH_FAILED) {
			if (f->filled)
				fetch_filled(f);
			else
				fetch_queue(f);
			trouble_end(h);
		} else if (f->state == HST_FETCH_STUCK) {
			f->state = HST_FETCH_CANCELLED;
			f->backing->src->ops->cancel(f->backing->src, &f->rd);
		}
	}
	swap_resume(h);
	fetch_dispatch(h);
	trouble_over(h);
	vcpu_kick_all(h);
}

void hst_stop(struct hst *h)
{
	h->stopping = true;
	for (uint32_t i = 0; i < h->fetch_count; i++) {
		struct hst_fetch *f = &h->fetches[i];

		if (f->state == HST_FETCH_READING || f->state == HST_FETCH_STUCK ||
		    f->state == HST_FETCH_CANCELLED)
			f->backing->src->ops->cancel(f->backing->src, &f->rd);
	}
	swap_stop(h);
}

bool hst_is_idle(const struct hst *h)
{
	return h->in_flight == 0 && h->evict.writes_in_flight == 0;
}
