// SPDX-License-Identifier: Apache-2.0
//! The C interface of libasyncpf, `asyncpf/asyncpf.h`, declared for Rust: asynchronous page faults
//! for KVM guests, from user space. What everything does, who owns what, which thread may call and
//! what is promised is written in that header, under the same names. A test of the project compares
//! each struct, constant and function here with it.
//!
//! Enums are `c_uint` with constants, as a newer library may return values that this crate does not
//! know. The structs of `linux/kvm.h` are opaque: cast from whatever declares them.
#![allow(non_camel_case_types, non_upper_case_globals)]

use std::marker::{PhantomData, PhantomPinned};
use std::mem::{size_of, zeroed};
use std::os::raw::{c_char, c_int, c_uint, c_void};

mod counters;
pub use counters::*;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        #[repr(C)]
        pub struct $name {
            _data: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        })*
    };
}

opaque! {
    /// One VM's memory.
    apf
    /// One vCPU of it.
    apf_vcpu
    /// A page source of the VMM's own.
    apf_source
    /// Of linux/kvm.h.
    kvm_run
    /// Of linux/kvm.h.
    kvm_msr_filter
    /// Of linux/kvm.h.
    kvm_cpuid2
}

pub type apf_faults = c_uint;
pub const APF_FAULTS_BLOCK: apf_faults = 0;
pub const APF_FAULTS_STALL: apf_faults = 1;
pub const APF_FAULTS_KERNEL: apf_faults = 2;
pub const APF_FAULTS_USER: apf_faults = 3;

pub type apf_io = c_uint;
pub const APF_IO_AUTO: apf_io = 0;
pub const APF_IO_URING: apf_io = 1;
pub const APF_IO_THREADS: apf_io = 2;

pub type apf_abi = c_uint;
pub const APF_ABI_OFF: apf_abi = 0;
pub const APF_ABI_LEGACY: apf_abi = 1;
pub const APF_ABI_PF2: apf_abi = 2;
pub const APF_ABI_PF2_STRICT: apf_abi = 3;
pub const APF_ABI_INT: apf_abi = 4;

pub type apf_event_kind = c_uint;
pub const APF_EVENT_PAUSED: apf_event_kind = 1;
pub const APF_EVENT_RESUMED: apf_event_kind = 2;

pub type apf_slot = c_uint;
pub const APF_SLOT_AUTO: apf_slot = 0;
pub const APF_SLOT_RAM: apf_slot = 1;
pub const APF_SLOT_ROM: apf_slot = 2;
pub const APF_SLOT_HOLE: apf_slot = 3;

/// Bits of what `apf_residency` writes.
pub const APF_BLOCK_PRESENT: u8 = 1;
pub const APF_BLOCK_CHANGED: u8 = 2;
pub const APF_BLOCK_ZEROES: u8 = 4;

pub const APF_GRACE_AUTO: i64 = -1;
pub const APF_CPUID_FIRST: u32 = 0x4000_0300;

pub type apf_read_id = u64;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_error {
    pub code: c_int,
    pub text: [c_char; 240],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_event {
    pub kind: apf_event_kind,
    pub gpa: u64,
    pub text: *const c_char,
}

pub type apf_trace_kind = c_uint;
pub const APF_TRACE_TOUCH: apf_trace_kind = 1;
pub const APF_TRACE_TOLD: apf_trace_kind = 2;
pub const APF_TRACE_HALT: apf_trace_kind = 3;
pub const APF_TRACE_GO: apf_trace_kind = 4;
pub const APF_TRACE_READ: apf_trace_kind = 5;
pub const APF_TRACE_READ_END: apf_trace_kind = 6;
pub const APF_TRACE_SHOWN: apf_trace_kind = 7;
pub const APF_TRACE_READY: apf_trace_kind = 8;
pub const APF_TRACE_TAKEN: apf_trace_kind = 9;
pub const APF_TRACE_DROPPED: apf_trace_kind = 10;
pub const APF_TRACE_PAUSED: apf_trace_kind = 11;
pub const APF_TRACE_RESUMED: apf_trace_kind = 12;
pub const APF_TRACE_USED: apf_trace_kind = 13;
pub const APF_TRACE_WITHDRAWN: apf_trace_kind = 14;
pub const APF_NOBODY: u32 = 0xffff_ffff;

/// A step of what happens to memory: `asyncpf/trace.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_trace {
    pub ns: u64,
    pub gpa: u64,
    pub bytes: u64,
    pub kind: u32,
    pub vcpu: u32,
    pub value: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_config {
    pub size: usize,
    pub faults: apf_faults,
    pub abi: apf_abi,
    pub vcpus_max: c_uint,
    pub block_bytes: u32,
    pub faults_max: u32,
    pub queue_depth: u32,
    pub grace_us: i64,
    pub retries_max: u32,
    pub source_timeout_ms: u32,
    pub swap: *const c_char,
    pub swap_wrap: *const c_char,
    pub resident_max: u64,
    pub kick_signal: c_int,
    pub on_event: Option<unsafe extern "C" fn(*mut c_void, *const apf_event)>,
    pub on_event_ctx: *mut c_void,
    pub x2apic_ids: c_int,
    pub memory_max: u64,
    pub pins_are_held: c_int,
    pub on_write: Option<unsafe extern "C" fn(*mut c_void, u64, u64)>,
    pub on_write_ctx: *mut c_void,
    pub on_thread: Option<unsafe extern "C" fn(*mut c_void, *const c_char)>,
    pub on_thread_ctx: *mut c_void,
    pub sigbus_handler: c_int,
    pub read_ahead_bytes: u32,
    pub io: apf_io,
    pub on_trace: Option<unsafe extern "C" fn(*mut c_void, *const apf_trace)>,
    pub on_trace_ctx: *mut c_void,
    pub told_before: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_memory {
    pub size: usize,
    pub gpa: u64,
    pub bytes: u64,
    pub fd: c_int,
    pub offset: u64,
    pub vmm: *mut c_void,
    pub guest: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_read_request {
    pub size: usize,
    pub id: apf_read_id,
    pub offset: u64,
    pub len: u64,
    pub buf: *mut c_void,
    pub urgent: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_source_config {
    pub size: usize,
    pub ctx: *mut c_void,
    pub bytes: u64,
    pub wrap: *const c_char,
    pub read: Option<unsafe extern "C" fn(*mut c_void, *const apf_read_request)>,
    pub cancel: Option<unsafe extern "C" fn(*mut c_void, apf_read_id)>,
    pub close: Option<unsafe extern "C" fn(*mut c_void)>,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_range {
    pub gpa: u64,
    pub buf: *mut c_void,
    pub len: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_wait {
    pub size: usize,
    pub timeout_ns: i64,
    pub vcpu: *mut apf_vcpu,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_counter_row {
    pub name: *const c_char,
    pub help: *const c_char,
    pub unit: apf_counter_unit,
    pub kind: apf_counter_kind,
    pub scope: apf_counter_scope,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_stats {
    pub size: usize,
    pub bytes: u64,
    pub bytes_present: u64,
    pub faults: u64,
    pub redundant: u64,
    pub joined: u64,
    pub graced: u64,
    pub blocked: u64,
    pub missing_events: u64,
    pub ready_events: u64,
    pub wake_alls: u64,
    pub stalls: u64,
    pub stalls_kernel_mode: u64,
    pub stalls_irqs_off: u64,
    pub stalls_slot_busy: u64,
    pub stalls_other: u64,
    pub ready_refused: u64,
    pub rechecks: u64,
    pub host_wait_ns: u64,
    pub reads: u64,
    pub read_errors: u64,
    pub retries: u64,
    pub read_timeouts: u64,
    pub bytes_read: u64,
    pub overhead_bytes: u64,
    pub wait_us_p50: u64,
    pub wait_us_p99: u64,
    pub wait_us_max: u64,
    pub bytes_resident: u64,
    pub resident_max: u64,
    pub reads_in_flight: u64,
    pub writes_in_flight: u64,
    pub unmapped: u64,
    pub unmapped_clean: u64,
    pub unmapped_zero: u64,
    pub swapped: u64,
    pub rescued: u64,
    pub evicted: u64,
    pub refaulted: u64,
    pub refaults_kernel_mode: u64,
    pub read_ahead: u64,
    pub swap_writes: u64,
    pub swap_write_errors: u64,
    pub bytes_swapped: u64,
    pub stall_ns_kernel_mode: u64,
    pub stall_ns_other: u64,
    pub holds: u64,
    pub hold_ns: u64,
    pub hold_ns_max: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct apf_vcpu_stats {
    pub size: usize,
    pub faults: u64,
    pub missing_events: u64,
    pub ready_events: u64,
    pub wake_alls: u64,
    pub stalls: u64,
    pub stalls_kernel_mode: u64,
    pub host_wait_ns: u64,
    pub outstanding: u64,
}

/// Fills in the defaults and the size: the macro of that name in C.
///
/// # Safety
/// `c` can be written to.
pub unsafe fn apf_config_init(c: *mut apf_config) {
    apf_config_init_sized(c, size_of::<apf_config>())
}

/// Empties it, and sets the size; `fd` is -1.
///
/// # Safety
/// `m` can be written to.
pub unsafe fn apf_memory_init(m: *mut apf_memory) {
    m.write(zeroed());
    (*m).size = size_of::<apf_memory>();
    (*m).fd = -1;
}

/// Empties it, and sets the size.
///
/// # Safety
/// `c` can be written to.
pub unsafe fn apf_source_config_init(c: *mut apf_source_config) {
    c.write(zeroed());
    (*c).size = size_of::<apf_source_config>();
}

/// Empties it, and sets the size: no limit.
///
/// # Safety
/// `w` can be written to.
pub unsafe fn apf_wait_init(w: *mut apf_wait) {
    w.write(zeroed());
    (*w).size = size_of::<apf_wait>();
    (*w).timeout_ns = -1;
}

/// Empties it, and sets the size.
///
/// # Safety
/// `s` can be written to.
pub unsafe fn apf_stats_init(s: *mut apf_stats) {
    s.write(zeroed());
    (*s).size = size_of::<apf_stats>();
}

/// Empties it, and sets the size.
///
/// # Safety
/// `s` can be written to.
pub unsafe fn apf_vcpu_stats_init(s: *mut apf_vcpu_stats) {
    s.write(zeroed());
    (*s).size = size_of::<apf_vcpu_stats>();
}

extern "C" {
    pub fn apf_config_init_sized(c: *mut apf_config, size: usize);
    pub fn apf_open(
        vm_fd: c_int,
        c: *const apf_config,
        ret: *mut *mut apf,
        e: *mut apf_error,
    ) -> c_int;
    pub fn apf_stop(a: *mut apf);
    pub fn apf_close(a: *mut apf);
    pub fn apf_memory_add(a: *mut apf, gpa: u64, bytes: u64, e: *mut apf_error) -> c_int;
    pub fn apf_memory_adopt(a: *mut apf, m: *mut apf_memory, e: *mut apf_error) -> c_int;
    pub fn apf_memory_remove(a: *mut apf, gpa: u64, e: *mut apf_error) -> c_int;
    pub fn apf_discard(a: *mut apf, gpa: u64, len: u64) -> c_int;
    pub fn apf_memory_hva(a: *mut apf, gpa: u64) -> *mut c_void;
    pub fn apf_source_add(
        a: *mut apf,
        gpa: u64,
        bytes: u64,
        uri: *const c_char,
        offset: u64,
        ret_size: *mut u64,
        e: *mut apf_error,
    ) -> c_int;
    pub fn apf_source_custom(
        a: *mut apf,
        c: *const apf_source_config,
        ret: *mut *mut apf_source,
        e: *mut apf_error,
    ) -> c_int;
    pub fn apf_source_place(
        s: *mut apf_source,
        gpa: u64,
        bytes: u64,
        offset: u64,
        e: *mut apf_error,
    ) -> c_int;
    pub fn apf_source_free(s: *mut apf_source) -> c_int;
    pub fn apf_read_done(s: *mut apf_source, id: apf_read_id) -> c_int;
    pub fn apf_read_zeroes(s: *mut apf_source, id: apf_read_id) -> c_int;
    pub fn apf_read_failed(
        s: *mut apf_source,
        id: apf_read_id,
        code: c_int,
        why: *const c_char,
    ) -> c_int;
    pub fn apf_source_offer(
        s: *mut apf_source,
        offset: u64,
        data: *const c_void,
        len: u64,
        ret_taken: *mut u64,
    ) -> c_int;
    pub fn apf_slot_set(a: *mut apf, gpa: u64, bytes: u64, kind: apf_slot) -> c_int;
    pub fn apf_msr_filter(a: *mut apf, filter: *const kvm_msr_filter, e: *mut apf_error) -> c_int;
    pub fn apf_msr_exits(a: *mut apf, exits: u32, e: *mut apf_error) -> c_int;
    pub fn apf_start(a: *mut apf, e: *mut apf_error) -> c_int;
    pub fn apf_cpuid_features(a: *const apf, eax: u32) -> u32;
    pub fn apf_cpuid_leaf(a: *const apf, leaf: u32, ret: *mut u32) -> c_int;
    pub fn apf_cpuid_fill(a: *const apf, c: *mut kvm_cpuid2, room: c_uint) -> c_int;
    pub fn apf_read(a: *mut apf, gpa: u64, buf: *mut c_void, len: usize) -> c_int;
    pub fn apf_write(a: *mut apf, gpa: u64, buf: *const c_void, len: usize) -> c_int;
    pub fn apf_readv(a: *mut apf, v: *const apf_range, count: c_uint, wait: *const apf_wait)
        -> i64;
    pub fn apf_writev(
        a: *mut apf,
        v: *const apf_range,
        count: c_uint,
        wait: *const apf_wait,
    ) -> i64;
    pub fn apf_populate(a: *mut apf, gpa: u64, len: u64) -> c_int;
    pub fn apf_prefetch(a: *mut apf, v: *const apf_range, count: c_uint) -> c_int;
    pub fn apf_fill(a: *mut apf) -> c_int;
    pub fn apf_pin(a: *mut apf, gpa: u64, len: u64) -> c_int;
    pub fn apf_unpin(a: *mut apf, gpa: u64, len: u64) -> c_int;
    pub fn apf_hold(a: *mut apf, gpa: u64, len: u64) -> c_int;
    pub fn apf_io_used(a: *const apf) -> apf_io;
    pub fn apf_release(a: *mut apf, gpa: u64, len: u64);
    pub fn apf_evict(a: *mut apf, bytes: u64, ret_resident: *mut u64, e: *mut apf_error) -> c_int;
    pub fn apf_resident_max_set(a: *mut apf, bytes: u64, e: *mut apf_error) -> c_int;
    pub fn apf_sigbus(info: *const c_void, context: *mut c_void) -> c_int;
    pub fn apf_residency(a: *mut apf, gpa: u64, len: u64, ret: *mut u8) -> c_int;
    pub fn apf_shared_bytes(a: *mut apf) -> i64;
    pub fn apf_vcpu_attach(
        a: *mut apf,
        index: c_uint,
        fd: c_int,
        run: *mut kvm_run,
        apic_id: u32,
        ret: *mut *mut apf_vcpu,
        e: *mut apf_error,
    ) -> c_int;
    pub fn apf_vcpu_detach(v: *mut apf_vcpu);
    pub fn apf_vcpu_run(v: *mut apf_vcpu) -> c_int;
    pub fn apf_kvm_run(v: *mut apf_vcpu) -> c_int;
    pub fn apf_vcpu_kick(v: *mut apf_vcpu);
    pub fn apf_vcpu_signal_mask(v: *mut apf_vcpu, set: *const c_void, bytes: usize) -> c_int;
    pub fn apf_vcpu_reset(v: *mut apf_vcpu);
    pub fn apf_vcpu_msr_list(a: *const apf, ret_count: *mut c_uint) -> *const u32;
    pub fn apf_vcpu_get_msr(v: *mut apf_vcpu, msr: u32, ret_value: *mut u64) -> c_int;
    pub fn apf_vcpu_set_msr(v: *mut apf_vcpu, msr: u32, value: u64) -> c_int;
    pub fn apf_vcpu_save(v: *mut apf_vcpu, buf: *mut c_void, len: usize) -> usize;
    pub fn apf_vcpu_restore(v: *mut apf_vcpu, buf: *const c_void, len: usize) -> c_int;
    pub fn apf_pause(a: *mut apf);
    pub fn apf_resume(a: *mut apf);
    pub fn apf_is_paused(a: *mut apf) -> c_int;
    pub fn apf_trouble_get(a: *mut apf, e: *mut apf_error) -> c_int;
    pub fn apf_counter_info(index: c_uint) -> *const apf_counter_row;
    pub fn apf_counters_get(a: *mut apf, ret_values: *mut c_void, size: usize);
    pub fn apf_vcpu_counters_get(v: *mut apf_vcpu, ret_values: *mut c_void, size: usize);
    pub fn apf_stats_get(a: *mut apf, ret: *mut apf_stats);
    pub fn apf_vcpu_stats_get(v: *mut apf_vcpu, ret: *mut apf_vcpu_stats);
    pub fn apf_version() -> *const c_char;
}
