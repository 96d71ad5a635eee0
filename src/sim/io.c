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

/* The files of a host are told apart by where their descriptors lie. */
static struct io_file *file_of(struct sim_host *h, enum sim_file file)
{
	return (struct io_file *)(void *)&h->files[file];
}

static enum sim_file file_id(const struct sim_host *h, const struct io_file *file)
{
	return (enum sim_file)((const unsigned char *)(const void *)file - h->files);
}

static const char *const paths[SIM_FILES] = {"simulated", "swap", "part 0", "part 1"};
_Static_assert(SIM_PARTS_MAX == 2, "a path for each");

static uint64_t file_bytes(const struct sim_host *h, enum sim_file file)
{
	const struct sim *w = h->w;
	const struct sim_part *p;

	switch (file) {
	case SIM_FILE_SOURCE:
		return (uint64_t)w->source_pages << PAGE_SHIFT;
	case SIM_FILE_SWAP:
		return sim_pages(w) << PAGE_SHIFT;
	default:
		p = &w->plug.parts[file - SIM_FILE_PARTS];
		return (uint64_t)(p->file_page + p->in_file) << PAGE_SHIFT;
	}
}

/* What a page of the file holds. */
static uint64_t file_value(const struct sim_host *h, enum sim_file file, uint64_t page)
{
	const struct sim_part *p;

	switch (file) {
	case SIM_FILE_SOURCE:
		return h->w->image[page];
	case SIM_FILE_SWAP:
		return h->swap[page];
	default:
		p = &h->w->plug.parts[file - SIM_FILE_PARTS];
		/* Before what stands behind the part there is something else. */
		return page < p->file_page ? GARBAGE : h->w->image[p->page + page - p->file_page];
	}
}

static int io_open(void *ctx, const char *path, struct io_file **ret_file, uint64_t *ret_size,
		   struct err *e)
{
	struct sim_host *h = ctx;
	unsigned file = 0;

	(void)e;
	while (strcmp(path, paths[file]) != 0)
		file++;
	*ret_file = file_of(h, file);
	*ret_size = file_bytes(h, file);
	return 0;
}

static void io_close(void *ctx, struct io_file *file)
{
	struct sim_host *h = ctx;

	for (struct sim_read *r = h->reads; file && r < h->reads + SIM_READS_MAX; r++)
		ASSERT(!r->rd || r->file != file_id(h, file));
}

void sim_io_fill(struct sim_host *h, enum sim_file file, uint64_t off, unsigned char *buf,
		 uint64_t bytes, bool garbage)
{
	uint64_t end = off + bytes;

	/* A word of each page, at either end, as far as the bytes reach. */
	for (uint64_t page = off >> PAGE_SHIFT; page << PAGE_SHIFT < end; page++) {
		uint64_t start = page << PAGE_SHIFT, value = GARBAGE;
		uint64_t at[2] = {start + 64u * SIM_VCPUS_MAX, start + PAGE_BYTES - sizeof(value)};
		uint32_t ram = sim_alias_page(h, buf + (max_u64(start, off) - off));

		if (!garbage)
			value = file_value(h, file, page);
		h->backed[ram] = 1;
		for (unsigned i = 0; i < 2; i++)
			if (at[i] >= off && at[i] + sizeof(value) <= end)
				memcpy(buf + (at[i] - off), &value, sizeof(value));
		if (ram == h->w->vcpus[0].area_page && off <= start)
			memcpy(buf + (start - off),
			       file == SIM_FILE_SWAP ? h->swap_areas : h->w->areas,
			       sizeof(h->w->areas));
	}
}

static void fill(struct sim_host *h, const struct sim_read *r, uint32_t bytes, bool garbage)
{
	sim_io_fill(h, r->file, r->off, r->buf, bytes, garbage);
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
	r->file = file_id(h, file);
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
	sim_chk_ram(h->w, (uint32_t)(off >> PAGE_SHIFT), (uint32_t)((off + len) >> PAGE_SHIFT));
	no_empty_blocks(h, r);
	/* Only ever read from: see store(). */
	r->buf = (unsigned char *)(uintptr_t)buf;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_WRITE, SIM_LOG_NOBODY, off >> PAGE_SHIFT, len);
}

static void io_sync(void *ctx, struct io_file *file, struct io_req *rd)
{
	struct sim_host *h = ctx;

	queue(h, file, rd, 0, 0)->sync = true;
	for (uint32_t page = 0; page < sim_pages(h->w); page++)
		if (h->risky[page] == SIM_WRITTEN)
			h->risky[page] = SIM_SYNCING;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_SYNC, SIM_LOG_NOBODY, 0, 0);
}

static void io_read(void *ctx, struct io_file *file, struct io_req *rd, uint64_t off, void *buf,
		    size_t len)
{
	struct sim_host *h = ctx;
	uint32_t page = sim_alias_page(h, buf);
	uint32_t end = sim_alias_page(h, (unsigned char *)buf + len - 1) + 1;

	queue(h, file, rd, off, len)->buf = buf;
	h->w->counts.reads++;
	sim_log_add(h->w->log, h->w->now_ns, SIM_OP_READ, SIM_LOG_NOBODY, page, len);
	sim_chk_ram(h->w, page, end);
	for (uint32_t p = page; p < end; p++) {
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

static void io_raised(void *ctx, struct io_req *rd, enum turn turn)
{
	(void)ctx;
	rd->turn = (uint8_t)turn;
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
	for (uint32_t page = 0; page < sim_pages(h->w); page++) {
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
	uint32_t page = r->sync ? 0 : sim_alias_page(h, r->buf);

	if (r->sync)
		end_sync(h, res);
	else if (res > 0 && r->write)
		store(h, r, (uint32_t)res);
	else if (res > 0)
		fill(h, r, (uint32_t)res, false);
	if (!r->write && !r->sync) {
		count_failure(h, page, res);
		for (uint32_t p = page; p <= sim_alias_page(h, r->buf + r->len - 1); p++)
			h->reading[p]--;
	}
	sim_log_add(h->w->log, h->w->now_ns, r->sync    ? SIM_OP_SYNC_END
						: r->write ? SIM_OP_WRITE_END
							   : SIM_OP_READ_END,
		    SIM_LOG_NOBODY, page, (uint64_t)(int64_t)res);
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
	.raise = io_raised,
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

/* As a seed has it: with or without wrappers. */
static int open_stack(struct sim *w, struct sim_host *h, enum sim_file file, struct src **ret,
		      struct err *e)
{
	static const struct clock_ops clock_ops = {.now_ns = now};
	const struct sim_cfg *c = &w->cfg;
	const struct src_env env = {
		.io = {&sim_io_ops, h},
		.clock = {&clock_ops, w},
		.timers = &h->hst.timers,
		.reads_max = c->queue_depth,
	};
	const struct src_delay_opts delay = {
		.delay_ns = c->latency_ns / 2, .jitter_ns = c->jitter_ns / 2, .seed = c->seed};
	const struct src_rate_opts rate = {.bytes_per_s = c->rate_bytes_per_s};
	int rc = src_file_open(paths[file], &env, ret, e);

	h->hst.clock = env.clock;
	if (file == SIM_FILE_SWAP)
		return rc;
	if (rc == 0 && c->rate_bytes_per_s)
		rc = src_rate_open(*ret, &env, &rate, ret, e);
	if (rc == 0 && c->delay_wrapper)
		rc = src_delay_open(*ret, &env, &delay, ret, e);
	return rc;
}

int sim_part_source_open(struct sim *w, struct sim_host *h, unsigned part, struct err *e)
{
	return open_stack(w, h, SIM_FILE_PARTS + part, &h->part_src[part], e);
}

int sim_source_open(struct sim *w, struct sim_host *h, struct err *e)
{
	int rc;

	if (w->cfg.evict) {
		rc = open_stack(w, h, SIM_FILE_SWAP, &h->swap_src, e);
		if (rc < 0)
			return rc;
		h->hst.swap = (struct hst_swap){
			.io = {&sim_io_ops, h},
			.file = file_of(h, SIM_FILE_SWAP),
			.backing = {.bytes = sim_pages(w) << PAGE_SHIFT, .src = h->swap_src}};
		grace_init(&h->hst.swap.backing.grace);
	}
	return open_stack(w, h, SIM_FILE_SOURCE, &h->src, e);
}
