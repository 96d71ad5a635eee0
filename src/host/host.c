/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Set-up, and what goes down to each part: resume, stop. All memory is taken from the caller at
 * hst_init; nothing is allocated afterwards.
 */
#include "base/assert.h"
#include "host/block.h"
#include "host/budget.h"
#include "host/deliver.h"
#include "host/evict.h"
#include "host/fetch.h"
#include "host/hold.h"
#include "host/kick.h"
#include "host/plan.h"
#include "host/swap.h"
#include "host/trace.h"
#include "host/trouble.h"
#include "host/vcpu.h"

/*
 * Fetches beyond one per vCPU waiter and outside waiter: touches that the kernel reports, which may
 * use most of the others as well. 144 bytes each.
 */
#define KERNEL_FETCHES 128u

static uint64_t block_count(const struct hst_cfg *cfg, uint64_t ram_end)
{
	return (ram_end + (1ull << cfg->block_shift) - 1) >> cfg->block_shift;
}

/* And for what is read ahead: of the largest depth that a pace asks for. */
#define AHEAD_FETCHES_MAX 4096u

static uint32_t ahead_fetches(const struct hst_cfg *cfg)
{
	return (uint32_t)min_u64(cfg->ahead_max, AHEAD_FETCHES_MAX);
}

static uint32_t fetch_count(const struct hst_cfg *cfg)
{
	return cfg->vcpus * (cfg->faults_max + 1) + HST_OUTSIDE_MAX + KERNEL_FETCHES +
	       ahead_fetches(cfg);
}

static uint32_t write_count(const struct hst_cfg *cfg)
{
	return cfg->evict ? HST_WRITES_MAX : 0;
}

static uint32_t timer_count(const struct hst_cfg *cfg)
{
	return fetch_count(cfg) + 2 * cfg->vcpus + write_count(cfg) + 3 + HST_SOURCE_TIMERS;
}

/* Takes `bytes` from the space; with *at == NULL only counts. */
static void *take(unsigned char *base, size_t *used, size_t bytes)
{
	size_t at = *used;

	*used += (bytes + 15) & ~(size_t)15;
	return base ? base + at : NULL;
}

static size_t lay_out(struct hst *h, const struct hst_cfg *cfg, uint64_t ram_end,
		      unsigned char *base)
{
	struct hst scratch;
	size_t used = 0;

	if (!h)
		h = &scratch;
	h->blocks = take(base, &used, block_count(cfg, ram_end) * sizeof(*h->blocks));
	h->chunk_poisoned = take(base, &used, (ram_end + CHUNK_BYTES - 1) >> CHUNK_SHIFT);
	h->evict.keeps = take(base, &used, block_count(cfg, ram_end) * sizeof(*h->evict.keeps));
	h->evict.holds = take(base, &used, block_count(cfg, ram_end) * sizeof(*h->evict.holds));
	if (cfg->evict) {
		h->evict.links = take(base, &used,
				      block_count(cfg, ram_end) * sizeof(*h->evict.links));
		h->evict.sums = take(base, &used,
				     block_count(cfg, ram_end) * sizeof(*h->evict.sums));
		h->evict.writes = take(base, &used, write_count(cfg) * sizeof(*h->evict.writes));
	}
	h->fetches = take(base, &used, fetch_count(cfg) * sizeof(*h->fetches));
	h->timers.heap = take(base, &used, timer_count(cfg) * sizeof(*h->timers.heap));
	h->queues = take(base, &used, (cfg->vcpus + 1) * sizeof(*h->queues));
	h->vcpus = take(base, &used, cfg->vcpus * sizeof(*h->vcpus));
	for (unsigned i = 0; i < cfg->vcpus; i++) {
		struct hst_waiter *tokens = take(base, &used, cfg->faults_max * sizeof(*tokens));
		struct eng_fault *faults = take(base, &used, cfg->faults_max * sizeof(*faults));

		if (base) {
			h->vcpus[i].tokens = tokens;
			h->vcpus[i].eng.faults = faults;
		}
	}
	return used;
}

size_t hst_bytes(const struct hst_cfg *cfg, uint64_t ram_end)
{
	return lay_out(NULL, cfg, ram_end, NULL);
}

static void init_vcpu(struct hst *h, unsigned index)
{
	struct hst_vcpu *v = &h->vcpus[index];
	bool speaks = h->cfg.faults == HST_FAULTS_USER ||
		      (h->cfg.faults != HST_FAULTS_KERNEL && h->cfg.told_before);
	struct eng_cfg eng = {
		.rev = speaks ? h->cfg.rev : APF_REV_OFF,
		.vcpu_id = index,
		.features = eng_features(h->cfg.rev),
		.has_lapic = true,
		.faults_max = h->cfg.faults_max,
	};

	v->h = h;
	v->index = index;
	eng_init(&v->eng, &eng, v->eng.faults);
	vcpu_init(v);
	deliver_init(v);
}

void hst_init(struct hst *h, const struct hst_cfg *cfg, void *space)
{
	ASSERT(cfg->vcpus >= 1 && cfg->vcpus <= HST_VCPUS_MAX);
	ASSERT(cfg->block_shift >= PAGE_SHIFT && cfg->block_shift <= HST_BLOCK_SHIFT_MAX);
	ASSERT(cfg->retries_max < UINT8_MAX);
	ASSERT(cfg->queue_depth >= 1 && h->ram.end <= h->mem.bytes);
	ASSERT(block_count(cfg, h->mem.bytes) < BLOCK_NONE);
	ASSERT(fetch_count(cfg) <= BLOCK_FETCHES_MAX);
	h->cfg = *cfg;
	lay_out(h, cfg, h->mem.bytes, space);
	h->block_count = (uint32_t)block_count(cfg, h->mem.bytes);
	h->fetch_count = fetch_count(cfg);
	h->evict.write_count = write_count(cfg);
	h->ahead_fetches = ahead_fetches(cfg);
	timers_init(&h->timers, h->timers.heap, timer_count(cfg));
	h->timers.to_lend = HST_SOURCE_TIMERS;
	block_init(h);
	budget_limit(h);
	fetch_init(h);
	plan_init(h);
	hold_init(h);
	evict_init(h);
	for (unsigned i = 0; i < cfg->vcpus; i++)
		init_vcpu(h, i);
}

void hst_resume(struct hst *h)
{
	bool was_paused = hst_is_paused(h);

	if (h->stopping)
		return;
	h->paused = false;
	trace_pause(h, was_paused);
	/* Whoever pauses it before that was done again does not prevent it. */
	h->evict.again = true;
	fetch_resume(h);
	swap_resume(h);
	fetch_dispatch(h);
	trouble_over(h);
	vcpu_kick_all(h);
}

void hst_stop(struct hst *h)
{
	h->stopping = true;
	fetch_stop(h);
	swap_stop(h);
}

bool hst_is_idle(const struct hst *h)
{
	return h->in_flight == 0 && h->evict.writes_in_flight == 0;
}

bool hst_is_stopping(const struct hst *h)
{
	return h->stopping;
}

uint64_t hst_now_ns(const struct hst *h)
{
	return clock_now_ns(&h->clock);
}

uint64_t hst_next_timer_ns(const struct hst *h)
{
	return timers_next_ns(&h->timers);
}

void hst_run_timers(struct hst *h)
{
	timers_run(&h->timers, hst_now(h));
}
