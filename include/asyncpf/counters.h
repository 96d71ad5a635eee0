/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters: this table is the one place that names them. From it come the driver's
 * statistics, struct apf_counters, what apf_counter_info() tells, the keys of the control socket
 * and of all JSON, and the list in docs/counters.md.
 *
 * A row: name, unit, kind, scope, one sentence.
 *   unit   COUNT, BLOCKS, BYTES, NS; the name of a size ends in _bytes, of a time in _ns, and of
 *          nothing else
 *   kind   COUNTER: since apf_start, never falls; GAUGE: as it is now; PEAK: the highest so far
 *   scope  VM: of the VM only; VCPU: of each vCPU as well, and then the VM's is all of them
 *
 * Rows are added at the end and never removed or moved: a program knows the rows of the header
 * that it was built with, by their place.
 */
#ifndef ASYNCPF_COUNTERS_H
#define ASYNCPF_COUNTERS_H

#include <stdint.h>

#define APF_COUNTER_TABLE(X) \
	/* memory */ \
	X(memory_bytes, BYTES, GAUGE, VM, "Guest RAM.") \
	X(present_bytes, BYTES, GAUGE, VM, \
	  "Guest RAM that the library has shown to the guest and not taken away again.") \
	X(resident_bytes, BYTES, GAUGE, VM, \
	  "Guest RAM in host memory, mapped for the guest or not, what the kernel filled by " \
	  "itself included.") \
	X(absent_bytes, BYTES, GAUGE, VM, "Guest RAM that is not in host memory.") \
	X(resident_max_bytes, BYTES, GAUGE, VM, "The limit of resident_bytes; 0: none.") \
	X(overhead_bytes, BYTES, GAUGE, VM, \
	  "Host memory beside guest RAM, allocated at the start.") \
	/* touches of absent memory */ \
	X(faults_total, COUNT, COUNTER, VCPU, "Touches of absent memory that reached us.") \
	X(redundant, COUNT, COUNTER, VCPU, "Touches of blocks that were there already.") \
	X(joined, COUNT, COUNTER, VCPU, "Touches of blocks that were on their way already.") \
	X(graced, COUNT, COUNTER, VCPU, "Of faults_total: answered within the grace window.") \
	X(blocked, COUNT, COUNTER, VCPU, \
	  "Waits of the vCPU thread itself: every fault (block), or an access or register " \
	  "write that the host carries out.") \
	X(missing_events, COUNT, COUNTER, VCPU, \
	  "Page-missing events that the guest got, those withdrawn in time not counted.") \
	X(ready_events, COUNT, COUNTER, VCPU, "Page-ready events sent, wake-alls not counted.") \
	X(wake_alls, COUNT, COUNTER, VCPU, "Wake-all events sent.") \
	X(ready_late, COUNT, COUNTER, VCPU, \
	  "Blocks that came when the guest's task had been woken otherwise.") \
	X(ready_refused, COUNT, COUNTER, VCPU, \
	  "Page-ready interrupts that the local APIC did not take; sent again later.") \
	X(rechecks, COUNT, COUNTER, VCPU, "Looks at a slot or vCPU that was busy before.") \
	X(faults_outstanding, COUNT, GAUGE, VCPU, \
	  "Faults that the guest was told of and that are not over.") \
	X(stalls, COUNT, COUNTER, VCPU, "Of faults_total: the vCPU was halted.") \
	X(stalls_kernel_mode, COUNT, COUNTER, VCPU, "Of stalls: the guest was in kernel mode.") \
	X(stalls_irqs_off, COUNT, COUNTER, VCPU, "Of stalls: it had interrupts disabled.") \
	X(stalls_slot_busy, COUNT, COUNTER, VCPU, \
	  "Of stalls: it had not taken the event before (pf2).") \
	X(stalls_other, COUNT, COUNTER, VCPU, "Of stalls: for any other reason.") \
	X(host_wait_ns, NS, COUNTER, VCPU, "Time that vCPUs stood still because of us.") \
	X(stall_kernel_mode_ns, NS, COUNTER, VCPU, \
	  "Of host_wait_ns: halted, for a fault at the guest's CPL 0.") \
	X(stall_other_ns, NS, COUNTER, VCPU, "Of host_wait_ns: halted, for another fault.") \
	X(wait_p50_ns, NS, GAUGE, VCPU, \
	  "Half of all waits, from the fault to readable memory, were as long or shorter.") \
	X(wait_p99_ns, NS, GAUGE, VCPU, "99 of 100 waits were as long or shorter.") \
	X(wait_max_ns, NS, PEAK, VCPU, "The longest wait.") \
	/* sources */ \
	X(reads_in_flight, COUNT, GAUGE, VM, "Reads that sources work on.") \
	X(reads, COUNT, COUNTER, VM, "Reads begun, of sources and of the swap file.") \
	X(read_bytes, BYTES, COUNTER, VM, "Bytes that reads brought.") \
	X(read_errors, COUNT, COUNTER, VM, "Reads that failed.") \
	X(read_retries, COUNT, COUNTER, VM, "Failed reads that were tried again.") \
	X(read_timeouts, COUNT, COUNTER, VM, "Reads that took longer than source_timeout_ms.") \
	/* overcommit */ \
	X(unmapped, BLOCKS, COUNTER, VM, "Taken out of the guest's mapping.") \
	X(unmapped_clean, BLOCKS, COUNTER, VM, \
	  "Of unmapped: unchanged, so that nothing was written.") \
	X(unmapped_zero, BLOCKS, COUNTER, VM, "Of unmapped: nothing but zeroes.") \
	X(rescued, BLOCKS, COUNTER, VM, "Touched again while not mapped and still in memory.") \
	X(swapped, BLOCKS, COUNTER, VM, "Of unmapped: written to the swap file.") \
	X(evicted, BLOCKS, COUNTER, VM, \
	  "Memory given back: of what was unmapped, and of what was read ahead or offered.") \
	X(refaulted, BLOCKS, COUNTER, VM, "Of evicted: fetched again.") \
	X(refaults_kernel_mode, BLOCKS, COUNTER, VCPU, \
	  "Of rescued and refaulted: wanted by the guest's CPL 0.") \
	X(read_ahead, BLOCKS, COUNTER, VM, \
	  "Read before anybody waited: around what was needed, ahead of even steps.") \
	X(swap_writes_in_flight, COUNT, GAUGE, VM, \
	  "Writes to the swap file under way, and the sync that makes them durable.") \
	X(swap_writes, COUNT, COUNTER, VM, "Writes to the swap file begun.") \
	X(swap_write_errors, COUNT, COUNTER, VM, \
	  "Of swap_writes, and of the syncs after them: failed.") \
	X(swapped_bytes, BYTES, COUNTER, VM, "Bytes written to the swap file.") \
	X(holds, COUNT, COUNTER, VM, "Times that vCPUs were kept out of KVM_RUN, to unmap.") \
	X(hold_ns, NS, COUNTER, VM, "All holds together.") \
	X(hold_max_ns, NS, PEAK, VM, "The longest hold.") \
	/* the VMM's own mapping */ \
	X(vmm_touches, COUNT, COUNTER, VM, \
	  "Touches of the VMM's view of memory that was not there yet.") \
	X(discarded, BLOCKS, COUNTER, VM, "Discarded on the VMM's command.") \
	/* sources of the VMM's own */ \
	X(offered, BLOCKS, COUNTER, VM, "Taken from what the VMM offered unasked.") \
	/* prefetched by a list */ \
	X(prefetched, BLOCKS, COUNTER, VM, "Reads begun because a list asked for them.") \
	X(prefetched_used, BLOCKS, COUNTER, VM, \
	  "Of prefetched: in memory when they were touched for the first time.") \
	X(prefetched_late, BLOCKS, COUNTER, VM, \
	  "Of prefetched: still on their way when somebody needed them.") \
	X(prefetched_unused, BLOCKS, GAUGE, VM, \
	  "Of prefetched: not touched so far, or filled in before they were.") \
	/* wrappers of sources */ \
	X(cache_hits, COUNT, COUNTER, VM, \
	  "Pieces of reads, of 64 KiB at most each, that a cache had.") \
	X(cache_misses, COUNT, COUNTER, VM, \
	  "Chunks of 64 KiB that a cache had not, or not right, and asked its origin for.") \
	X(cache_filled_bytes, BYTES, COUNTER, VM, "Bytes that were written to a cache.") \
	X(cache_evictions, COUNT, COUNTER, VM, \
	  "Chunks of a cache that others were written over.") \
	X(cache_mismatches, COUNT, COUNTER, VM, \
	  "Chunks of a cache that did not have the hash that they should.") \
	X(cache_write_errors, COUNT, COUNTER, VM, "Writes to a cache that failed.") \
	X(source_retries, COUNT, COUNTER, VM, \
	  "Reads that retry+ asked for again after a failure.") \
	X(source_hedges, COUNT, COUNTER, VM, \
	  "Reads that retry+ sent a second time as they took long.") \
	/* what sources are like */ \
	X(source_reads, COUNT, COUNTER, VM, \
	  "Of reads: of sources, and answered well. Blocks that are read together are one.") \
	X(source_read_bytes, BYTES, COUNTER, VM, "Bytes that source_reads brought.") \
	X(source_read_ns, NS, COUNTER, VM, \
	  "How long source_reads took, each from its beginning to its end, all together.") \
	X(source_read_max_ns, NS, PEAK, VM, "The longest of source_reads.")

#define APF_COUNTER_MEMBER(name, unit, kind, scope, help) uint64_t name;
#define APF_COUNTER_ID(name, unit, kind, scope, help) APF_COUNTER_ID_##name,

/* The values, in the table's order; an array of uint64_t as well. */
struct apf_counters {
	APF_COUNTER_TABLE(APF_COUNTER_MEMBER)
};

/* APF_COUNTER_ID_faults_total, … : places in the table. */
enum apf_counter_id {
	APF_COUNTER_TABLE(APF_COUNTER_ID)
	APF_COUNTER_IDS /* rows of this header's table */
};

enum apf_counter_unit {
	APF_UNIT_COUNT = 0,
	APF_UNIT_BLOCKS = 1,
	APF_UNIT_BYTES = 2,
	APF_UNIT_NS = 3,
};

enum apf_counter_kind {
	APF_KIND_COUNTER = 0,
	APF_KIND_GAUGE = 1,
	APF_KIND_PEAK = 2,
};

enum apf_counter_scope {
	APF_SCOPE_VM = 0,
	APF_SCOPE_VCPU = 1, /* the VM, and each vCPU */
};

/* A row, at run time: apf_counter_info(). */
struct apf_counter_row {
	const char *name; /* "faults_total" */
	const char *help; /* one sentence */
	enum apf_counter_unit unit;
	enum apf_counter_kind kind;
	enum apf_counter_scope scope;
};

#endif
