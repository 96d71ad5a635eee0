// SPDX-License-Identifier: Apache-2.0
//! The counters of `asyncpf/counters.h`: their places, and a struct of them.
use std::os::raw::c_uint;

pub type apf_counter_unit = c_uint;
pub const APF_UNIT_COUNT: apf_counter_unit = 0;
pub const APF_UNIT_BLOCKS: apf_counter_unit = 1;
pub const APF_UNIT_BYTES: apf_counter_unit = 2;
pub const APF_UNIT_NS: apf_counter_unit = 3;

pub type apf_counter_kind = c_uint;
pub const APF_KIND_COUNTER: apf_counter_kind = 0;
pub const APF_KIND_GAUGE: apf_counter_kind = 1;
pub const APF_KIND_PEAK: apf_counter_kind = 2;

pub type apf_counter_scope = c_uint;
pub const APF_SCOPE_VM: apf_counter_scope = 0;
pub const APF_SCOPE_VCPU: apf_counter_scope = 1;

/// Places in the table, and in an array of `u64` for `apf_counters_get`.
pub const APF_COUNTER_ID_memory_bytes: usize = 0;
pub const APF_COUNTER_ID_present_bytes: usize = 1;
pub const APF_COUNTER_ID_resident_bytes: usize = 2;
pub const APF_COUNTER_ID_absent_bytes: usize = 3;
pub const APF_COUNTER_ID_resident_max_bytes: usize = 4;
pub const APF_COUNTER_ID_overhead_bytes: usize = 5;
pub const APF_COUNTER_ID_faults_total: usize = 6;
pub const APF_COUNTER_ID_redundant: usize = 7;
pub const APF_COUNTER_ID_joined: usize = 8;
pub const APF_COUNTER_ID_graced: usize = 9;
pub const APF_COUNTER_ID_blocked: usize = 10;
pub const APF_COUNTER_ID_missing_events: usize = 11;
pub const APF_COUNTER_ID_ready_events: usize = 12;
pub const APF_COUNTER_ID_wake_alls: usize = 13;
pub const APF_COUNTER_ID_ready_late: usize = 14;
pub const APF_COUNTER_ID_ready_refused: usize = 15;
pub const APF_COUNTER_ID_rechecks: usize = 16;
pub const APF_COUNTER_ID_faults_outstanding: usize = 17;
pub const APF_COUNTER_ID_stalls: usize = 18;
pub const APF_COUNTER_ID_stalls_kernel_mode: usize = 19;
pub const APF_COUNTER_ID_stalls_irqs_off: usize = 20;
pub const APF_COUNTER_ID_stalls_slot_busy: usize = 21;
pub const APF_COUNTER_ID_stalls_other: usize = 22;
pub const APF_COUNTER_ID_host_wait_ns: usize = 23;
pub const APF_COUNTER_ID_stall_kernel_mode_ns: usize = 24;
pub const APF_COUNTER_ID_stall_other_ns: usize = 25;
pub const APF_COUNTER_ID_wait_p50_ns: usize = 26;
pub const APF_COUNTER_ID_wait_p99_ns: usize = 27;
pub const APF_COUNTER_ID_wait_max_ns: usize = 28;
pub const APF_COUNTER_ID_reads_in_flight: usize = 29;
pub const APF_COUNTER_ID_reads: usize = 30;
pub const APF_COUNTER_ID_read_bytes: usize = 31;
pub const APF_COUNTER_ID_read_errors: usize = 32;
pub const APF_COUNTER_ID_read_retries: usize = 33;
pub const APF_COUNTER_ID_read_timeouts: usize = 34;
pub const APF_COUNTER_ID_unmapped: usize = 35;
pub const APF_COUNTER_ID_unmapped_clean: usize = 36;
pub const APF_COUNTER_ID_unmapped_zero: usize = 37;
pub const APF_COUNTER_ID_rescued: usize = 38;
pub const APF_COUNTER_ID_swapped: usize = 39;
pub const APF_COUNTER_ID_evicted: usize = 40;
pub const APF_COUNTER_ID_refaulted: usize = 41;
pub const APF_COUNTER_ID_refaults_kernel_mode: usize = 42;
pub const APF_COUNTER_ID_read_ahead: usize = 43;
pub const APF_COUNTER_ID_swap_writes_in_flight: usize = 44;
pub const APF_COUNTER_ID_swap_writes: usize = 45;
pub const APF_COUNTER_ID_swap_write_errors: usize = 46;
pub const APF_COUNTER_ID_swapped_bytes: usize = 47;
pub const APF_COUNTER_ID_holds: usize = 48;
pub const APF_COUNTER_ID_hold_ns: usize = 49;
pub const APF_COUNTER_ID_hold_max_ns: usize = 50;
pub const APF_COUNTER_ID_vmm_touches: usize = 51;
pub const APF_COUNTER_ID_discarded: usize = 52;
pub const APF_COUNTER_ID_offered: usize = 53;
pub const APF_COUNTER_ID_prefetched: usize = 54;
pub const APF_COUNTER_ID_prefetched_used: usize = 55;
pub const APF_COUNTER_ID_prefetched_late: usize = 56;
pub const APF_COUNTER_ID_prefetched_unused: usize = 57;
pub const APF_COUNTER_ID_cache_hits: usize = 58;
pub const APF_COUNTER_ID_cache_misses: usize = 59;
pub const APF_COUNTER_ID_cache_filled_bytes: usize = 60;
pub const APF_COUNTER_ID_cache_evictions: usize = 61;
pub const APF_COUNTER_ID_cache_mismatches: usize = 62;
pub const APF_COUNTER_ID_cache_write_errors: usize = 63;
pub const APF_COUNTER_ID_source_retries: usize = 64;
pub const APF_COUNTER_ID_source_hedges: usize = 65;
pub const APF_COUNTER_ID_source_reads: usize = 66;
pub const APF_COUNTER_ID_source_read_bytes: usize = 67;
pub const APF_COUNTER_ID_source_read_ns: usize = 68;
pub const APF_COUNTER_ID_source_read_max_ns: usize = 69;
/// Rows of this crate's table; a newer library may have more.
pub const APF_COUNTER_IDS: usize = 70;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct apf_counters {
    pub memory_bytes: u64,
    pub present_bytes: u64,
    pub resident_bytes: u64,
    pub absent_bytes: u64,
    pub resident_max_bytes: u64,
    pub overhead_bytes: u64,
    pub faults_total: u64,
    pub redundant: u64,
    pub joined: u64,
    pub graced: u64,
    pub blocked: u64,
    pub missing_events: u64,
    pub ready_events: u64,
    pub wake_alls: u64,
    pub ready_late: u64,
    pub ready_refused: u64,
    pub rechecks: u64,
    pub faults_outstanding: u64,
    pub stalls: u64,
    pub stalls_kernel_mode: u64,
    pub stalls_irqs_off: u64,
    pub stalls_slot_busy: u64,
    pub stalls_other: u64,
    pub host_wait_ns: u64,
    pub stall_kernel_mode_ns: u64,
    pub stall_other_ns: u64,
    pub wait_p50_ns: u64,
    pub wait_p99_ns: u64,
    pub wait_max_ns: u64,
    pub reads_in_flight: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub read_errors: u64,
    pub read_retries: u64,
    pub read_timeouts: u64,
    pub unmapped: u64,
    pub unmapped_clean: u64,
    pub unmapped_zero: u64,
    pub rescued: u64,
    pub swapped: u64,
    pub evicted: u64,
    pub refaulted: u64,
    pub refaults_kernel_mode: u64,
    pub read_ahead: u64,
    pub swap_writes_in_flight: u64,
    pub swap_writes: u64,
    pub swap_write_errors: u64,
    pub swapped_bytes: u64,
    pub holds: u64,
    pub hold_ns: u64,
    pub hold_max_ns: u64,
    pub vmm_touches: u64,
    pub discarded: u64,
    pub offered: u64,
    pub prefetched: u64,
    pub prefetched_used: u64,
    pub prefetched_late: u64,
    pub prefetched_unused: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub cache_filled_bytes: u64,
    pub cache_evictions: u64,
    pub cache_mismatches: u64,
    pub cache_write_errors: u64,
    pub source_retries: u64,
    pub source_hedges: u64,
    pub source_reads: u64,
    pub source_read_bytes: u64,
    pub source_read_ns: u64,
    pub source_read_max_ns: u64,
}
