/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters of asyncpf/counters.h, from what the driver counts as it goes and from its state.
 * Test: tests/unit/host_test.c.
 */
#include "base/assert.h"
#include "host/deliver.h"
#include "host/host.h"

/* Gauges are 0 in both; the members stand as they do in struct apf_counters. */
static void add(struct hst_stats *to, const struct hst_stats *from)
{
#define ADD_COUNTER(name) to->name += from->name;
#define ADD_GAUGE(name)
#define ADD_PEAK(name) to->name = max_u64(to->name, from->name);
#define ADD(name, unit, kind, scope, help) ADD_##kind(name)
	APF_COUNTER_TABLE(ADD)
	for (unsigned w = 0; w < ENG_VERDICTS; w++)
		to->stall_why[w] += from->stall_why[w];
}

static void add_hist(uint32_t *to, const struct hst_vcpu *v)
{
	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		to[b] += v->wait_hist[b];
}

/* A bucket of the histogram is wider than what is in it: nothing is longer than the longest. */
static uint64_t quantile_ns(const uint32_t *hist, uint64_t percent, uint64_t max_ns)
{
	return min_u64(hist_quantile(hist, percent, 100, max_ns / NS_PER_US) * NS_PER_US, max_ns);
}

static void work_out(struct hst_stats *s, const uint32_t *hist)
{
	s->stalls_kernel_mode = s->stall_why[ENG_KERNEL_MODE];
	s->stalls_irqs_off = s->stall_why[ENG_IRQS_OFF];
	s->stalls_slot_busy = s->stall_why[ENG_SLOT_BUSY];
	s->stalls_other =
		s->stalls - s->stalls_kernel_mode - s->stalls_irqs_off - s->stalls_slot_busy;
	s->wait_p50_ns = quantile_ns(hist, 50, s->wait_max_ns);
	s->wait_p99_ns = quantile_ns(hist, 99, s->wait_max_ns);
}

void hst_stats_sum(const struct hst *h, struct hst_stats *ret)
{
	uint32_t hist[HIST_BUCKETS] = {0};

	_Static_assert(offsetof(struct hst_stats, stall_why) == sizeof(struct apf_counters),
		       "the same members");
	*ret = h->stats;
	for (unsigned i = 0; i < h->cfg.vcpus; i++) {
		add(ret, &h->vcpus[i].stats);
		pf_leave_out(&h->vcpus[i], ret);
		add_hist(hist, &h->vcpus[i]);
		ret->faults_outstanding += h->vcpus[i].eng.outstanding;
	}
	work_out(ret, hist);
	ret->memory_bytes = h->ram.bytes;
	ret->present_bytes = min_u64(h->blocks_present << h->cfg.block_shift, h->ram.bytes);
	ret->resident_bytes = min_u64(hst_resident_bytes(h), h->ram.bytes);
	ret->absent_bytes = ret->memory_bytes - ret->resident_bytes;
	ret->resident_max_bytes = h->cfg.resident_max;
	ret->reads_in_flight = h->in_flight;
	ret->prefetched_unused = ret->prefetched - ret->prefetched_used - ret->prefetched_late;
	ret->swap_writes_in_flight = h->evict.writes_in_flight;
}

void hst_vcpu_stats(const struct hst_vcpu *v, struct hst_stats *ret)
{
	*ret = v->stats;
	pf_leave_out(v, ret);
	ret->faults_outstanding = v->eng.outstanding;
	work_out(ret, v->wait_hist);
}
