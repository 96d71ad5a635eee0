/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking memory away: which blocks, in which order, and when. A block goes
 *
 *   PRESENT -> UNMAPPING -> STANDBY -> DROPPING -> ABSENT
 *
 * STANDBY is the second chance: the block is out of the guest mapping but in memory, so a
 * touch brings it back without a read, and tells who needed it (BLOCK_KERNEL). What was
 * written to is on the way to the swap file meanwhile; what is as it was, or all zeroes, is
 * dropped without a write. Blocks that the guest's kernel mode wanted back stay longer, as
 * waiting for them cannot be hidden; what lies around them is read along, onto standby.
 *
 * How much: below `low` nothing is dropped. Fetches that need memory grant credit for taking
 * blocks out of the mapping ahead of demand, rescues do not: a guest whose working set fits
 * is left alone. At the limit fetches wait for a drop.
 *
 * Nothing is taken out of the mapping while a vCPU is in KVM_RUN: see hold.c. One job unmaps,
 * the next collects what was written of what the first has unmapped, when the vCPUs run again.
 *
 * Mapping calls are made without the lock, as jobs, by one thread at a time; writing is
 * swap.c. A block that is wanted meanwhile is FETCHING, its fetch BEHIND the job, which then
 * hands it on. A job that fails is done again when the VM is told to go on.
 * Tests: tests/unit/host_evict_*test.c, host_ahead_test.c.
 */
#include "base/assert.h"
#include "base/zero.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/evict.h"
#include "host/fetch.h"
#include "host/hold.h"
#include "host/swap.h"
#include "host/trace.h"

/*
 * What nobody waits for yet is done so many blocks at a time: the thread wakes up for each
 * batch, and vCPUs are held for it.
 */
#define AHEAD_BLOCKS 32u
/*
 * Kernel mode's blocks stay so many times as long as others: about what it costs more to wait for
 * one. That stops the vCPU for all of a read; for another it takes some of what others let it do.
 */
#define KERNEL_STAYS 32u
/* Memory that the kernel fills unseen is looked at before it can have grown by what is left. */
#define FILL_BYTES_PER_MS (2ull << 20)
#define LOOK_MS_MIN 2
#define LOOK_MS_MAX 250

void evict_init(struct hst *h)
{
	struct hst_evict *ev = &h->evict;

	for (unsigned i = 0; i < ev->write_count; i++)
		ev->writes[i].h = h;
	ev->sync.h = h;
	/* A larger block that is there in part could neither be counted nor taken. */
	ev->watch = h->cfg.block_shift == PAGE_SHIFT ? HST_WATCH_NOT : HST_WATCH_ALL;
}

/* ---- how much ---- */

/* Blocks that are to be dropped now: all that are due, once a quarter of the slack is used. */
static uint32_t drops_due(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;
	uint32_t over = budget_over(ev);

	if (!ev->dropping && over < budget_slack(ev) / 4)
		over = 0;
	return (uint32_t)max_u64(over, ev->force_drops);
}

/* Blocks that are to be taken out of the mapping now. */
static uint32_t unmaps_due(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;
	uint32_t over = budget_over(ev), standby = budget_standby(ev), goal = ev->limit / 8;
	uint32_t need = over > standby ? over - standby : 0;

	if (budget_is_limited(ev) && standby < goal)
		need = (uint32_t)max_u64(need, min_u64(ev->unmap_credit, goal - standby));
	return (uint32_t)max_u64(need, ev->force_unmaps);
}

/* Somebody waits for them. */
static bool is_urgent(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return budget_over(ev) > budget_standby(ev) || ev->force_unmaps > 0;
}

/* ---- which ---- */

/* Blocks per job. */
static uint32_t run_max(const struct hst *h)
{
	uint32_t pages_shift = h->cfg.block_shift - PAGE_SHIFT;

	return (uint32_t)max_u64(MEM_PAGES_MAX >> pages_shift, 1);
}

/*
 * Takes the list's first block, and those that are adjacent as well as next on the list, up to
 * the end of the 2 MiB chunk and `max` in all.
 */
static struct hst_run *add_run(struct hst *h, struct hst_job *job, enum hst_list_id id,
			       uint32_t max, enum block_kind kind)
{
	struct hst_run *run = &job->runs[job->run_count++];
	uint32_t next = h->evict.lists[id].head;

	*run = (struct hst_run){.block = next};
	do {
		uint32_t after = h->evict.links[next].next;

		block_delist(h, next);
		block_set_kind(h, next, kind);
		run->count++;
		if (after != next + 1 || after % run_max(h) == 0)
			break;
		next = after;
	} while (run->count < max);
	job->blocks += run->count;
	return run;
}

/* Blocks that can be taken out of the mapping. */
static uint32_t takeable_len(const struct hst_evict *ev)
{
	return ev->lists[HST_LIST_USER].len + ev->lists[HST_LIST_KERNEL].len;
}

/* On a list no longer than this, blocks that are wanted in turn displace each other. */
static uint32_t short_len(const struct hst_evict *ev)
{
	if (!budget_is_limited(ev) || ev->force_unmaps > 0)
		return 0;
	return (uint32_t)max_u64(ev->limit / 16, 4);
}

static bool others_are_short(const struct hst_evict *ev)
{
	return ev->lists[HST_LIST_USER].len <= short_len(ev);
}

/* The list that most blocks are taken from: kernel mode's only when few others are left. */
static enum hst_list_id take_mostly(const struct hst_evict *ev)
{
	uint32_t others = ev->lists[HST_LIST_USER].len, kernels = ev->lists[HST_LIST_KERNEL].len;

	return others == 0 || (others_are_short(ev) && kernels > short_len(ev)) ? HST_LIST_KERNEL
										  : HST_LIST_USER;
}

static enum hst_list_id take_by_turns(const struct hst_evict *ev)
{
	return take_mostly(ev) == HST_LIST_USER ? HST_LIST_KERNEL : HST_LIST_USER;
}

static uint64_t turn_cost(const struct hst_evict *ev)
{
	return (others_are_short(ev) ? 1 : KERNEL_STAYS) * (uint64_t)ev->lists[take_mostly(ev)].len;
}

/*
 * Now and then the oldest block of the other list is taken, to see who wants it back: the guest's
 * kernel also clears pages for its processes, and what it needed to boot it may never need again.
 * While the first list is taken from as many times as it has blocks, 1/KERNEL_STAYS of the other
 * list is taken; all of it where few others are left. Otherwise blocks that nobody wants could stay
 * for ever while those that one instruction needs displace each other.
 */
static bool turn_due(const struct hst_evict *ev)
{
	uint32_t stay = others_are_short(ev) ? 0 : ev->limit / 16;

	return short_len(ev) > 0 && ev->mostly == take_mostly(ev) &&
	       ev->lists[take_by_turns(ev)].len > stay && ev->turn_credit >= turn_cost(ev);
}

/* The list to take from. */
static enum hst_list_id victims(const struct hst_evict *ev)
{
	return turn_due(ev) ? take_by_turns(ev) : take_mostly(ev);
}

/* Blocks to unmap now; 0 while the batch is too small. */
static uint32_t takeable(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;
	uint32_t due = (uint32_t)min_u64(unmaps_due(h), takeable_len(ev));
	uint64_t enough = min_u64(AHEAD_BLOCKS, max_u64(ev->limit / 16, 1));

	return ev->unmapping || is_urgent(h) || due >= enough ? due : 0;
}

/* Adds one run of what is to go next, of `due` blocks at most, to the job; false: there is none. */
static bool take_victims(struct hst *h, struct hst_job *job, uint32_t due)
{
	struct hst_evict *ev = &h->evict;
	enum hst_list_id id = victims(ev);
	bool turn = turn_due(ev);
	uint64_t cost = turn_cost(ev);
	uint32_t others = ev->lists[take_by_turns(ev)].len;
	struct hst_run *run;

	if (takeable_len(ev) == 0)
		return false;
	run = add_run(h, job, id, turn ? 1 : due, BLOCK_UNMAPPING);
	h->blocks_present -= run->count;
	if (turn) {
		ev->turn_credit -= cost;
	} else {
		ev->turn_credit = ev->mostly == id ? min_u64(ev->turn_credit, cost) : 0;
		ev->turn_credit += (uint64_t)run->count * others;
		ev->mostly = id;
	}
	ev->unmap_credit -= (uint32_t)min_u64(ev->unmap_credit, run->count);
	ev->force_unmaps -= (uint32_t)min_u64(ev->force_unmaps, run->count);
	for (uint32_t i = 0, bit = job->blocks - run->count; i < run->count; i++, bit++) {
		if (block_is(h, run->block + i, BLOCK_WRITTEN))
			job->yes[bit / 64] |= 1ull << (bit % 64);
		if (block_is(h, run->block + i, BLOCK_VMM))
			job->vmm[bit / 64] |= 1ull << (bit % 64);
	}
	return true;
}

/* One job is one hold: what is scattered goes by runs, not by blocks. */
static bool next_unmap(struct hst *h, struct hst_job *job)
{
	uint32_t due = (uint32_t)min_u64(takeable(h), run_max(h));

	h->evict.unmapping = due > 0;
	if (!hold_for(h, due))
		return false;
	job->kind = HST_JOB_UNMAP;
	while (job->blocks < due && job->run_count < HST_JOB_RUNS &&
	       take_victims(h, job, due - job->blocks))
		;
	ASSERT(job->run_count > 0);
	return true;
}

static bool next_drop(struct hst *h, struct hst_job *job)
{
	struct hst_list *l = &h->evict.lists[HST_LIST_CLEAN];
	uint32_t due = drops_due(h);

	h->evict.dropping = due > 0;
	if (due == 0 || l->len == 0)
		return false;
	job->kind = HST_JOB_DROP;
	(void)add_run(h, job, HST_LIST_CLEAN, (uint32_t)min_u64(due, run_max(h)), BLOCK_DROPPING);
	return true;
}

/* ---- memory that the kernel filled by itself ---- */

/* Starts early: pages that the kernel fills before watching takes effect are not reported. */
static bool watch_due(const struct hst *h, uint64_t resident)
{
	const struct hst_evict *ev = &h->evict;

	return ev->force_drops > 0 || (budget_is_limited(ev) && resident >= ev->limit / 4 * 3);
}

/* What came after is watched from the start. */
static uint32_t import_end(const struct hst *h)
{
	return (uint32_t)(h->ram.end >> h->cfg.block_shift);
}

static bool next_watch(struct hst *h, struct hst_job *job)
{
	struct hst_evict *ev = &h->evict;
	struct hst_run *run = &job->runs[0];

	job->run_count = 1;
	if (ev->watch == HST_WATCH_NOT) {
		job->kind = HST_JOB_WATCH;
		return watch_due(h, ev->resident) ||
		       watch_due(h, hst_resident_bytes(h) >> h->cfg.block_shift);
	}
	job->kind = HST_JOB_IMPORT;
	ev->import_stale = false;
	run->block = ev->import_block;
	/* Of a region that leaves meanwhile there is nothing to import. */
	run->count = import_end(h) - (uint32_t)min_u64(import_end(h), run->block);
	run->count = (uint32_t)min_u64(run_max(h), run->count);
	job->blocks = run->count;
	return true;
}

/* Takes each block once at most, so that a guest that touches them again cannot prolong this. */
static void force(struct hst *h, uint32_t drops)
{
	struct hst_evict *ev = &h->evict;
	uint32_t standby = budget_standby(ev);

	ev->force_drops = drops;
	ev->force_unmaps =
		drops > standby ? (uint32_t)min_u64(drops - standby, h->blocks_present) : 0;
}

/* Blocks that are wholly there and that we did not know of. */
static void import(struct hst *h, const struct hst_job *job)
{
	struct hst_evict *ev = &h->evict;

	if (ev->import_stale)
		/* What was there may be gone. Once more. */
		return;
	for (uint32_t i = 0; i < job->blocks; i++) {
		uint32_t block = job->runs[0].block + i;

		if (!(job->yes[i / 64] >> (i % 64) & 1) || block_kind(h, block) != BLOCK_ABSENT)
			continue;
		h->blocks[block] |= BLOCK_WRITTEN;
		block_set_kind(h, block, BLOCK_PRESENT);
		h->blocks_present++;
		budget_charge(h, false);
		block_enlist(h, block);
	}
	ev->import_block += job->blocks;
	if (ev->import_block < import_end(h))
		return;
	ev->watch = HST_WATCH_ALL;
	/* A command that came before we knew what there is. */
	force(h, (uint32_t)min_u64(ev->force_drops, ev->resident));
}

/* ---- jobs ---- */

/* Nothing is left that could be dropped on command, nor will come back by itself. */
static bool force_is_over(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;
	bool none = takeable_len(ev) == 0 && ev->writes_used == 0;

	return ev->force_drops > 0 && budget_standby(ev) == 0 && (ev->force_unmaps == 0 || none);
}

bool hst_evict_next(struct hst *h, struct hst_job *ret)
{
	struct hst_evict *ev = &h->evict;

	if (!ev->links || h->stopping || ev->working)
		return false;
	if (ev->failed && !ev->again)
		return false;
	if (ev->failed || ev->uncollected) {
		*ret = ev->job;
		ev->failed = false;
		ev->uncollected = false;
		ev->working = true;
		return true;
	}
	*ret = (struct hst_job){.run_count = 0};
	if (ev->watch != HST_WATCH_ALL) {
		ev->working = next_watch(h, ret);
		return ev->working;
	}
	swap_start_writes(h);
	/* Held vCPUs wait for the unmapping, fetches for the dropping. */
	ev->working = (hold_is_on(h) && next_unmap(h, ret)) || next_drop(h, ret) ||
		      next_unmap(h, ret);
	if (!ev->working && force_is_over(h)) {
		ev->force_drops = 0;
		ev->force_unmaps = 0;
	}
	return ev->working;
}

bool hst_evict_wanted(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	if (!ev->links || h->stopping || ev->working)
		return false;
	if (ev->failed)
		return ev->again;
	if (ev->uncollected)
		return true;
	if (ev->watch != HST_WATCH_ALL)
		return ev->watch == HST_WATCH_IMPORT || watch_due(h, ev->resident);
	if (swap_writes_due(h) || force_is_over(h))
		return true;
	if (drops_due(h) > 0 && ev->lists[HST_LIST_CLEAN].len > 0)
		return true;
	return hold_ready(h, takeable(h));
}

/*
 * From a bit per page to a bit per block, and only the zero blocks among the written ones. vmm: of
 * what its view has shown.
 */
static void look_at_run(const struct hst *h, const struct hst_run *run, const mem_pages pages,
			const mem_pages vmm, struct hst_job *job, uint32_t first)
{
	uint32_t per = 1u << (h->cfg.block_shift - PAGE_SHIFT);
	bool all = job->kind == HST_JOB_IMPORT;

	for (uint32_t i = 0; i < run->count; i++) {
		uint64_t *yes = &job->yes[(first + i) / 64], bit = 1ull << ((first + i) % 64);
		uint32_t set = 0, there;
		uint64_t len, shown;
		roff_t off;

		hst_block_range(h, run->block + i, &off, &len);
		there = (uint32_t)(len >> PAGE_SHIFT);
		shown = job->vmm[(first + i) / 64] & bit;
		for (uint32_t k = i * per; k < i * per + there; k++)
			set += (uint32_t)(pages[k / 64] >> (k % 64) & 1) |
			       (shown && (vmm[k / 64] >> (k % 64) & 1));
		if (all ? set == there : set > 0)
			*yes |= bit;
		/* A lost page is not read here: writing it out will fail, and pause the VM. */
		if (!all && (*yes & bit) && !block_is_lost(h, run->block + i) &&
		    is_zero(h->mem.alias + off.v, len))
			job->zero[(first + i) / 64] |= bit;
	}
}

static int work_on(const struct hst *h, struct hst_job *job, const struct hst_run *run,
		   mem_pages ret, mem_pages ret_vmm)
{
	const struct mem *m = &h->mem;
	roff_t off = {(uint64_t)run->block << h->cfg.block_shift};
	uint64_t len = min_u64((uint64_t)run->count << h->cfg.block_shift, m->bytes - off.v);

	switch (job->kind) {
	case HST_JOB_WATCH:
		return m->ops->watch_all(m->ctx, &job->why);
	case HST_JOB_IMPORT:
		return m->ops->resident(m->ctx, off, len, ret, &job->why);
	case HST_JOB_UNMAP:
		return m->ops->unmap(m->ctx, off, len, &job->why);
	case HST_JOB_COLLECT:
		return m->ops->collect(m->ctx, off, len, ret, ret_vmm, &job->why);
	case HST_JOB_DROP:
		return m->ops->drop(m->ctx, off, len, &job->why);
	}
	return 0;
}

void hst_evict_work(const struct hst *h, struct hst_job *job)
{
	uint32_t first = 0;

	for (uint32_t i = 0; i < job->run_count; i++) {
		const struct hst_run *run = &job->runs[i];
		mem_pages pages = {0}, vmm = {0};

		if (work_on(h, job, run, pages, vmm) < 0)
			return;
		if (job->kind == HST_JOB_IMPORT || job->kind == HST_JOB_COLLECT)
			look_at_run(h, run, pages, vmm, job, first);
		first += run->count;
	}
	job->why.code = 0;
}

static void collected(struct hst *h, uint32_t block, bool written, bool zero)
{
	h->blocks[block] = (h->blocks[block] | BLOCK_SEEN) & ~BLOCK_VMM;
	if (zero) {
		h->blocks[block] &= ~(BLOCK_WRITTEN | BLOCK_IN_SWAP);
		h->blocks[block] |= BLOCK_ZEROES;
	} else if (written) {
		h->blocks[block] |= BLOCK_WRITTEN;
	}
	h->stats.unmapped++;
	trace_blocks(h, APF_TRACE_TAKEN, block, 1, 0);
	h->stats.unmapped_zero += zero;
	h->stats.unmapped_clean += !written;
	if (block_kind(h, block) == BLOCK_FETCHING) {
		/* Wanted meanwhile: it comes back at once. */
		h->stats.rescued++;
		fetch_filled(block_fetch(h, block));
		return;
	}
	block_set_kind(h, block, BLOCK_STANDBY);
	block_enlist(h, block);
}

static void dropped(struct hst *h, uint32_t block)
{
	struct hst_evict *ev = &h->evict;

	budget_uncharge(h);
	ev->force_drops -= ev->force_drops > 0;
	h->stats.evicted++;
	trace_blocks(h, APF_TRACE_DROPPED, block, 1, 0);
	if (block_kind(h, block) == BLOCK_FETCHING) {
		struct hst_fetch *f = block_fetch(h, block);

		f->charged = false;
		h->stats.refaulted++;
		fetch_queue(f);
		return;
	}
	block_set_kind(h, block, BLOCK_ABSENT);
}

/*
 * It is done again once the VM goes on. Until then nobody can tell what it did in part: its
 * blocks stay as they are, and who wants them waits.
 */
static void job_failed(struct hst *h, const struct hst_job *job)
{
	struct hst_trouble t = {.why = job->why, .tries = 1};
	roff_t off = {(uint64_t)job->runs[0].block << h->cfg.block_shift};
	struct hst_evict *ev = &h->evict;

	ev->job = *job;
	ev->failed = true;
	ev->again = false;
	ev->force_drops = 0;
	ev->force_unmaps = 0;
	/* Between regions, and of all RAM, there is nothing to name. */
	if (job->kind != HST_JOB_WATCH && ram_region_at(&h->ram, off))
		t.gpa = ram_gpa(&h->ram, off);
	hst_pause_for(h, &t);
}

static void all_collected(struct hst *h, const struct hst_job *job)
{
	uint32_t bit = 0;

	for (const struct hst_run *run = job->runs; run < job->runs + job->run_count; run++)
		for (uint32_t i = 0; i < run->count; i++, bit++)
			collected(h, run->block + i, job->yes[bit / 64] >> (bit % 64) & 1,
				job->zero[bit / 64] >> (bit % 64) & 1);
}

void hst_evict_done(struct hst *h, struct hst_job *job)
{
	struct hst_evict *ev = &h->evict;

	ASSERT(ev->working);
	ev->working = false;
	if (job->why.code != 0) {
		job_failed(h, job);
		return;
	}
	switch (job->kind) {
	case HST_JOB_WATCH:
		ev->watch = HST_WATCH_IMPORT;
		break;
	case HST_JOB_IMPORT:
		import(h, job);
		break;
	case HST_JOB_UNMAP:
		hold_end(h);
		ev->job = *job;
		ev->job.kind = HST_JOB_COLLECT;
		ev->uncollected = true;
		break;
	case HST_JOB_COLLECT:
		all_collected(h, job);
		break;
	case HST_JOB_DROP:
		for (uint32_t i = 0; i < job->blocks; i++)
			dropped(h, job->runs[0].block + i);
		fetch_dispatch(h);
		break;
	}
}

void hst_evict_to(struct hst *h, uint64_t bytes)
{
	struct hst_evict *ev = &h->evict;
	uint64_t keep = bytes >> h->cfg.block_shift;
	/* Before the import the number is a guess, which the import corrects. */
	uint64_t have = ev->watch == HST_WATCH_ALL
				? ev->resident
				: hst_resident_bytes(h) >> h->cfg.block_shift;

	/* Not less than somebody else has asked for. */
	force(h, (uint32_t)max_u64(ev->force_drops, have > keep ? have - keep : 0));
}

void hst_resident_max_set(struct hst *h, uint64_t bytes)
{
	h->cfg.resident_max = bytes;
	budget_limit(h);
	/* More may have room now. */
	fetch_dispatch(h);
}

uint64_t hst_resident_min(const struct hst *h)
{
	const struct hst_evict *ev = &h->evict;

	return (uint64_t)(ev->staying + hst_blocks_min(h->cfg.vcpus)) << h->cfg.block_shift;
}

bool hst_evict_forced(const struct hst *h)
{
	return h->evict.force_drops > 0 && !h->stopping;
}

uint64_t evict_next_look_ns(const struct hst *h)
{
	uint64_t full = h->cfg.resident_max / 4 * 3, have = hst_resident_bytes(h);
	uint64_t ms = have < full ? (full - have) / FILL_BYTES_PER_MS : 0;

	if (h->cfg.resident_max == 0 || h->evict.watch != HST_WATCH_NOT)
		return NS_NEVER;
	return hst_now(h) + min_u64(max_u64(ms, LOOK_MS_MIN), LOOK_MS_MAX) * NS_PER_MS;
}
