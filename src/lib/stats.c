/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters for the caller: those of asyncpf/counters.h, and the two structs of the first header,
 * filled from them. Nothing is written beyond the size that a caller has told; what it has room
 * for and we do not know is 0. Tests: tests/unit/counters_test.c, tests/compat/.
 */
#include <string.h>

#include "lib/internal.h"
#include "source/source.h"

#define ROW(name_, unit_, kind_, scope_, help_) \
	{.name = #name_, \
	 .help = help_, \
	 .unit = APF_UNIT_##unit_, \
	 .kind = APF_KIND_##kind_, \
	 .scope = APF_SCOPE_##scope_},

static const struct apf_counter_row rows[] = {APF_COUNTER_TABLE(ROW)};

_Static_assert(ARRAY_LEN(rows) == APF_COUNTER_IDS &&
		       sizeof(struct apf_counters) == APF_COUNTER_IDS * sizeof(uint64_t),
	       "one value per row");

const struct apf_counter_row *apf_counter_info(unsigned index)
{
	return index < ARRAY_LEN(rows) ? &rows[index] : NULL;
}

static void sum(struct apf *a, struct apf_counters *ret)
{
	struct hst_stats h = {.stall_why = {0}};

	if (a->started) {
		lib_lock(a);
		hst_stats_sum(&a->hst, &h);
		src_counts_get(&a->source_counts, &h.all);
		lib_unlock(a);
	}
	*ret = h.all;
	/* Of the tables, what the guest RAM there is takes. */
	ret->overhead_bytes = hst_bytes(&a->hcfg, a->hst.ram.end) + sizeof(*a) +
			      (a->ram_tables ? sizeof(*a->ram_tables) : 0);
}

static void of_vcpu(struct apf_vcpu *v, struct apf_counters *ret)
{
	struct hst_stats h;

	lib_lock(v->a);
	hst_vcpu_stats(v->hv, &h);
	lib_unlock(v->a);
	*ret = h.all;
}

/* From `skip` on, which is the caller's own `size`. */
static void hand_out(void *to, size_t size, const void *from, size_t known, size_t skip)
{
	size_t n = size < known ? size : known;

	if (n > skip)
		memcpy((char *)to + skip, (const char *)from + skip, n - skip);
	if (size > known)
		memset((char *)to + known, 0, size - known);
}

void apf_counters_get(struct apf *a, void *ret_values, size_t size)
{
	struct apf_counters c;

	sum(a, &c);
	hand_out(ret_values, size, &c, sizeof(c), 0);
}

void apf_vcpu_counters_get(struct apf_vcpu *v, void *ret_values, size_t size)
{
	struct apf_counters c;

	of_vcpu(v, &c);
	hand_out(ret_values, size, &c, sizeof(c), 0);
}

/* ---- the structs of the first header ---- */

/* Member, counter; these in microseconds there: member, counter in nanoseconds. */
#define STATS(X, US) \
	X(bytes, memory_bytes) \
	X(bytes_present, present_bytes) \
	X(faults, faults_total) \
	X(redundant, redundant) \
	X(joined, joined) \
	X(graced, graced) \
	X(blocked, blocked) \
	X(missing_events, missing_events) \
	X(ready_events, ready_events) \
	X(wake_alls, wake_alls) \
	X(stalls, stalls) \
	X(stalls_kernel_mode, stalls_kernel_mode) \
	X(stalls_irqs_off, stalls_irqs_off) \
	X(stalls_slot_busy, stalls_slot_busy) \
	X(stalls_other, stalls_other) \
	X(ready_refused, ready_refused) \
	X(rechecks, rechecks) \
	X(host_wait_ns, host_wait_ns) \
	X(reads, reads) \
	X(read_errors, read_errors) \
	X(retries, read_retries) \
	X(read_timeouts, read_timeouts) \
	X(bytes_read, read_bytes) \
	X(overhead_bytes, overhead_bytes) \
	US(wait_us_p50, wait_p50_ns) \
	US(wait_us_p99, wait_p99_ns) \
	US(wait_us_max, wait_max_ns) \
	X(bytes_resident, resident_bytes) \
	X(resident_max, resident_max_bytes) \
	X(reads_in_flight, reads_in_flight) \
	X(writes_in_flight, swap_writes_in_flight) \
	X(unmapped, unmapped) \
	X(unmapped_clean, unmapped_clean) \
	X(unmapped_zero, unmapped_zero) \
	X(swapped, swapped) \
	X(rescued, rescued) \
	X(evicted, evicted) \
	X(refaulted, refaulted) \
	X(refaults_kernel_mode, refaults_kernel_mode) \
	X(read_ahead, read_ahead) \
	X(swap_writes, swap_writes) \
	X(swap_write_errors, swap_write_errors) \
	X(bytes_swapped, swapped_bytes) \
	X(stall_ns_kernel_mode, stall_kernel_mode_ns) \
	X(stall_ns_other, stall_other_ns) \
	X(holds, holds) \
	X(hold_ns, hold_ns) \
	X(hold_ns_max, hold_max_ns)

#define VCPU_STATS(X) \
	X(faults, faults_total) \
	X(missing_events, missing_events) \
	X(ready_events, ready_events) \
	X(wake_alls, wake_alls) \
	X(stalls, stalls) \
	X(stalls_kernel_mode, stalls_kernel_mode) \
	X(host_wait_ns, host_wait_ns) \
	X(outstanding, faults_outstanding)

#define COPY(member, counter) s.member = c.counter;
#define COPY_US(member, counter) s.member = c.counter / NS_PER_US;
#define COUNT_ONE(member, counter) +1

_Static_assert(sizeof(struct apf_stats) ==
		       sizeof(size_t) + (STATS(COUNT_ONE, COUNT_ONE)) * sizeof(uint64_t),
	       "every member is filled, and there are no others");
_Static_assert(sizeof(struct apf_vcpu_stats) ==
		       sizeof(size_t) + (VCPU_STATS(COUNT_ONE)) * sizeof(uint64_t),
	       "every member is filled, and there are no others");

void apf_stats_get(struct apf *a, struct apf_stats *ret)
{
	struct apf_stats s = {.size = 0};
	struct apf_counters c;

	sum(a, &c);
	STATS(COPY, COPY_US)
	hand_out(ret, ret->size, &s, sizeof(s), sizeof(s.size));
}

void apf_vcpu_stats_get(struct apf_vcpu *v, struct apf_vcpu_stats *ret)
{
	struct apf_vcpu_stats s = {.size = 0};
	struct apf_counters c;

	of_vcpu(v, &c);
	VCPU_STATS(COPY)
	hand_out(ret, ret->size, &s, sizeof(s), sizeof(s.size));
}
