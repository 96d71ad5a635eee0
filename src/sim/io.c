/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated files behind port/io.h, and the source stack of a seed over them: reads end late,
 * out of order, early, with an error, or never. What a read that failed leaves in its buffer
 * is garbage, and a read that is under way has garbage there already. What was written is lost by
 * chance when a sync fails, and it is told only once.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "host/block.h"
#include "sim/world.h"
#include "source/source.h"

#define GARBAGE 0xeeeeeeeeeeeeeeeeull
#define SECTOR_BYTES 512u

enum sim_risk {
	SIM_DURABLE,
	SIM_WRITTEN, /* since the last sync that went well */
	SIM_SYNCING, /* and before the sync under way began */
};

/* The two files of a host are told apart by where their descriptors lie. */
static struct io_file *file_of(struct sim_host *h, bool swap)
{
	return (struct io_file *)(void *)(swap ? (void *)h->swap : (void *)h);
}

static int io_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		   struct err *e)
{
	struct sim_host *h = ctx;
	bool swap = strcmp(path, "swap") == 0;

	(void)e;
	*ret_file = file_of(h, swap);
	*ret_size = swap ? SIM_RAM_BYTES : (uint64_t)h->w->source_pages << PAGE_SHIFT;
	return 0;
}

static void io_close(void *ctx, struct io_file *file)
{
	struct sim_host *h = ctx;

	ASSERT(!file || h->read_count == 0);
}

static bool within(const struct sim_read *r, uint64_t at, uint64_t end)
{
	return at >= r->off && at + sizeof(uint64_t) <= end;
}

/* Puts a word of each page that lies within the read, as far as its bytes got. */
static void fill(struct sim_host *h, const struct sim_read *r, uint32_t bytes, bool garbage)
{
	uint64_t end = r->off + bytes;
	uint32_t page = (uint32_t)(r->off >> PAGE_SHIFT);

	for (; ((uint64_t)page << PAGE_SHIFT) < end; page++) {
		uint64_t start = (uint64_t)page << PAGE_SHIFT;
		uint64_t value = garbage ? GARBAGE : r->swap ? h->swap[page] : h->w->image[page];
		uint64_t at[2] = {start + 64u * SIM_VCPUS_MAX, start + PAGE_BYTES - sizeof(value)};

		h->backed[page] = 1;
		for (unsigned i = 0; i < 2; i++)
			if (within(r, at[i], end))
				memcpy(r->buf + (at[i] - r->off), &value, sizeof(value));
		if (page == h->w->vcpus[0].area_page && r->off <= start)
			memcpy(r->buf + (start - r->off), r->swap ? h->swap_areas : h->w->areas,
			       sizeof(h->w->areas));
	}
}

/* What arrives in the swap file of a page that changed meanwhile is a mixture. */
static void store(struct sim_host *h, const struct sim_read *r, uint32_t bytes)
{
	uint32_t first = (uint32_t)(r->off >> PAGE_SHIFT);

	for (uint32_t i = 0; i < bytes >> PAGE_SHIFT; i++) {
		uint64_t now = sim_page_get(h, first + i);

		h->swap[first + i] = now == r->was[i] && !r->lost ? now : GARBAGE;
		h->risky[first + i] = SIM_WRITTEN;
		if (first + i == h->w->vcpus[0].area_page)
			memcpy(h->swap_areas, r->buf + ((uint64_t)i << PAGE_SHIFT),
			       sizeof(h->swap_areas));
	}
}

static struct sim_read *queue(struct sim_host *h, struct io_file *file, struct io_req *rd,
			      uint64_t off, size_t len)
{
	struct sim_read *r = h->reads;

	while (r->rd)
		r++;
	ASSERT(r < h->reads + SIM_READS_MAX && len <= UINT32_MAX);
	r->rd = rd;
	r->off = off;
	r->len = (uint32_t)len;
	r->swap = file == file_of(h, true);
	r->write = false;
	r->sync = false;
	r->lost = false;
	r->flushed = false;
	r->due_ns = 0;
	h->read_count++;
	return r;
}

/* What was discarded is not worth a write; what has come back meanwhile is part of an old one. */
static void no_empty_blocks(struct sim_host *h, const struct sim_read *r)
{
	uint32_t per = 1u << (h->w->cfg.block_shift - PAGE_SHIFT);
	uint32_t end = (uint32_t)((r->off + r->len) >> PAGE_SHIFT);

	for (uint32_t p = (uint32_t)align_up(r->off >> PAGE_SHIFT, per); p + per <= end; p += per) {
		uint32_t empty = 0;

		for (uint32_t i = 0; i < per; i++)
			empty += h->empty[p + i];
		if (empty == per && block_kind(&h->hst, p / per) == BLOCK_STANDBY)
			sim_broken(h->w, 0, "what was discarded goes to the swap file", p, 0);
	}
}

static void io_write(void *ctx, struct io_file *file, struct io_req *rd, uint64_t off,
		     const void *buf, size_t len)
{
	struct sim_host *h = ctx;
	struct sim_read *r = queue(h, file, rd, off, len);

	r->write = true;
	no_empty_blocks(h, r);
	/* Only ever read from: see store(). */
	r->buf = (unsigned char *)(uintptr_t)buf;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_WRITE, SIM_LOG_NOBODY, off >> PAGE_SHIFT, len);
}

static void io_sync(void *ctx, struct io_file *file, struct io_req *rd)
{
	struct sim_host *h = ctx;

	queue(h, file, rd, 0, 0)->sync = true;
	for (uint32_t page = 0; page < SIM_RAM_PAGES; page++)
		if (h->risky[page] == SIM_WRITTEN)
			h->risky[page] = SIM_SYNCING;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_SYNC, SIM_LOG_NOBODY, 0, 0);
}

static void io_read(void *ctx, struct io_file *file, struct io_req *rd, uint64_t off, void *buf,
		    size_t len)
{
	struct sim_host *h = ctx;

	queue(h, file, rd, off, len)->buf = buf;
	h->w->counts.reads++;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_READ, SIM_LOG_NOBODY, off >> PAGE_SHIFT, len);
	for (uint64_t p = off >> PAGE_SHIFT; p << PAGE_SHIFT < off + len; p++) {
		/* A short read's rest lies in the same page: that is the same read. */
		if (h->visible[p])
			sim_broken(h->w, 15, "a page is read that the guest sees", p, off);
		if (h->reading[p]++)
			sim_broken(h->w, 15, "a page is read twice at a time", p, off);
	}
}

static void io_cancel(void *ctx, struct io_req *rd)
{
	struct sim_host *h = ctx;

	for (struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++) {
		if (r->rd != rd)
			continue;
		/* One that was not sent off ends at once. */
		if (!r->flushed || r->due_ns == NS_NEVER || sim_chance(h->w, 2)) {
			r->flushed = true;
			r->res = -ECANCELED;
			r->due_ns = h->w->now_ns;
		}
		return;
	}
	ASSERT(0 && "cancel of a read that is not outstanding");
}

/* What becomes of a read is decided when it is sent off. */
static void submit(struct sim *w, struct sim_read *r)
{
	const struct sim_cfg *c = &w->cfg;

	r->flushed = true;
	r->res = (int)r->len;
	r->due_ns = w->now_ns + c->latency_ns;
	if (c->jitter_ns)
		r->due_ns += sim_rnd(w, c->jitter_ns);
	if (sim_has(w, SIM_FAULT_LATE) && sim_chance(w, 4))
		r->due_ns += sim_rnd(w, 50 * NS_PER_MS);
	if (sim_has(w, SIM_FAULT_ERROR) && sim_chance(w, 5))
		r->res = sim_chance(w, 2) ? -EIO : -EAGAIN;
	else if (sim_has(w, SIM_FAULT_SHORT) && r->len > SECTOR_BYTES && sim_chance(w, 4))
		r->res = (int)(SECTOR_BYTES * (1 + sim_rnd(w, r->len / SECTOR_BYTES - 1)));
	else if (sim_has(w, SIM_FAULT_HANG) && sim_chance(w, 12))
		r->due_ns = NS_NEVER;
	if (r->sync)
		return;
	if (!r->write) {
		fill(w->host, r, r->len, true);
		return;
	}
	/* Whole pages arrive. */
	if (r->res > 0 && r->res < (int)r->len)
		r->res = (int)(align_up((uint64_t)r->res, PAGE_BYTES));
	ASSERT(r->len >> PAGE_SHIFT <= ARRAY_LEN(r->was));
	for (uint32_t i = 0; i < r->len >> PAGE_SHIFT; i++)
		r->was[i] = sim_page_get(w->host, (uint32_t)(r->off >> PAGE_SHIFT) + i);
}

static void io_flush(void *ctx)
{
	struct sim_host *h = ctx;

	for (struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++)
		if (r->rd && !r->flushed)
			submit(h->w, r);
}

/* 44: tries without end are not allowed, nor is silence about them. */
static void count_failure(struct sim_host *h, uint64_t page, int res)
{
	page &= ~((1ull << (h->w->cfg.block_shift - PAGE_SHIFT)) - 1);
	if (res > 0)
		h->failed[page] = 0;
	/* One more than asked for: what fails while it is being cancelled counts from 0. */
	else if (res != -ECANCELED && h->failed[page]++ > h->w->cfg.retries_max + 1)
		sim_broken(h->w, 44, "a source fails again and again, and nobody is told", page, 0);
}

/*
 * A failed one takes with it what is not durable, or some of it: that includes writes which have
 * ended in the kernel, though nobody has been told.
 */
static void end_sync(struct sim_host *h, int res)
{
	for (uint32_t page = 0; page < SIM_RAM_PAGES; page++) {
		if (res < 0 && h->risky[page] != SIM_DURABLE && sim_chance(h->w, 2)) {
			h->swap[page] = GARBAGE;
			if (page == h->w->vcpus[0].area_page)
				memset(h->swap_areas, 0xee, sizeof(h->swap_areas));
		}
		if (res < 0 || h->risky[page] == SIM_SYNCING)
			h->risky[page] = SIM_DURABLE;
	}
	for (struct sim_read *r = h->reads; res < 0 && r < h->reads + SIM_READS_MAX; r++)
		r->lost |= r->rd && r->write && r->flushed && sim_chance(h->w, 2);
}

static void end(struct sim_host *h, struct sim_read *r)
{
	struct io_req *rd = r->rd;
	int res = r->res;

	if (r->sync)
		end_sync(h, res);
	else if (res > 0 && r->write)
		store(h, r, (uint32_t)res);
	else if (res > 0)
		fill(h, r, (uint32_t)res, false);
	if (!r->write && !r->sync) {
		count_failure(h, r->off >> PAGE_SHIFT, res);
		for (uint64_t p = r->off >> PAGE_SHIFT; p << PAGE_SHIFT < r->off + r->len; p++)
			h->reading[p]--;
	}
	sim_log_add(h->w->log, h->w->now_ns, r->sync    ? SIM_OP_SYNC_END
						: r->write ? SIM_OP_WRITE_END
							   : SIM_OP_READ_END,
		    SIM_LOG_NOBODY, r->off >> PAGE_SHIFT, (uint64_t)(int64_t)res);
	/* Free first: done may read again. */
	r->rd = NULL;
	h->read_count--;
	rd->done(rd, res);
}

static struct sim_read *any_due(struct sim_host *h)
{
	struct sim_read *due[SIM_READS_MAX];
	unsigned n = 0;

	if (h->read_count == 0)
		return NULL;
	/* Where every interleaving is tried, time stands still: the library's thread reaps. */
	if (h->w->pick && !h->lib_pumping)
		return NULL;
	for (struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++)
		if (r->rd && r->flushed && r->due_ns <= h->w->now_ns)
			due[n++] = r;
	return n ? due[sim_pick(h->w, n)] : NULL;
}

static unsigned io_reap(void *ctx)
{
	struct sim_host *h = ctx;
	struct sim_read *r = any_due(h);

	if (!r)
		return 0;
	/* One at a time: what it leaves is announced as any later completion is. */
	end(h, r);
	io_flush(h);
	return 1;
}

static bool io_due(void *ctx)
{
	const struct sim_host *h = ctx;

	if (h->read_count == 0)
		return false;
	for (const struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++)
		if (r->rd && !r->flushed)
			return true;
	return false;
}

const struct io_ops sim_io_ops = {
	.open = io_open,
	.close = io_close,
	.read = io_read,
	.write = io_write,
	.sync = io_sync,
	.cancel = io_cancel,
	.flush = io_flush,
	.reap = io_reap,
	.due = io_due,
};

uint64_t sim_io_next_ns(const struct sim_host *h)
{
	uint64_t next = NS_NEVER;

	if (h->read_count == 0)
		return next;
	for (const struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++)
		if (r->rd && r->flushed)
			next = min_u64(next, r->due_ns);
	return next;
}

void sim_io_drain(struct sim *w, struct sim_host *h)
{
	for (struct sim_read *r = h->reads; r < h->reads + SIM_READS_MAX; r++) {
		if (!r->rd)
			continue;
		if (r->flushed && r->due_ns == NS_NEVER)
			sim_broken(w, 43, "a read was not cancelled at the end", r->off, 0);
		r->flushed = true;
		end(h, r);
	}
}

static uint64_t now(void *ctx)
{
	return ((struct sim *)ctx)->now_ns;
}

int sim_source_open(struct sim *w, struct sim_host *h, struct err *e)
{
	static const struct clock_ops clock_ops = {.now_ns = now};
	const struct sim_cfg *c = &w->cfg;
	const struct src_env env = {
		.io = {&sim_io_ops, h},
		.clock = {&clock_ops, w},
		.timers = &h->hst.timers,
		.reads_max = c->queue_depth,
	};
	struct src *inner;
	int rc;

	h->hst.clock = env.clock;
	if (c->evict) {
		rc = src_file_open("swap", &env, &h->swap_src, e);
		if (rc < 0)
			return rc;
		h->hst.swap = (struct hst_swap){
			.io = env.io,
			.file = file_of(h, true),
			.backing = {.bytes = SIM_RAM_BYTES, .src = h->swap_src}};
		grace_init(&h->hst.swap.backing.grace);
	}
	rc = src_file_open("simulated", &env, &h->src, e);
	if (rc < 0 || !c->delay_wrapper)
		return rc;
	const struct src_delay_opts delay = {
		.delay_ns = c->latency_ns / 2, .jitter_ns = c->jitter_ns / 2, .seed = c->seed};
	inner = h->src;
	return src_delay_open(inner, &env, &delay, &h->src, e);
}
