// SPDX-License-Identifier: Apache-2.0
//! A VM on the real /dev/kvm whose memory a Rust function makes: by apf_read, and by the VMM's own
//! view of it. Without KVM it does nothing, and says so.
use asyncpf_sys::*;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::mem::{size_of, zeroed};
use std::os::raw::{c_int, c_ulong, c_void};
use std::os::unix::io::{AsRawFd, FromRawFd};
use std::ptr::null_mut;

extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

const KVM_CREATE_VM: c_ulong = 0xae01;
const KVM_CREATE_IRQCHIP: c_ulong = 0xae60;
const PAGE: u64 = 4096;
const BYTES: u64 = 1 << 20;
const GPA: u64 = 1 << 32;

fn open_vm() -> Option<File> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let kvm = match kvm {
        Ok(file) => file,
        Err(e) => {
            println!("SKIP: /dev/kvm: {e}");
            return None;
        }
    };
    let vm = unsafe { ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    assert!(vm >= 0);
    let vm = unsafe { File::from_raw_fd(vm) };
    assert_eq!(unsafe { ioctl(vm.as_raw_fd(), KVM_CREATE_IRQCHIP, 0) }, 0);
    Some(vm)
}

fn text(e: &apf_error) -> String {
    unsafe { CStr::from_ptr(e.text.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

#[track_caller]
fn ok(rc: c_int, e: &apf_error) {
    assert_eq!(rc, 0, "{}", text(e));
}

/// Each byte of a page is its number; page 9 has failed for good.
unsafe extern "C" fn read(ctx: *mut c_void, rd: *const apf_read_request) {
    let (source, rd) = (*(ctx as *const *mut apf_source), &*rd);
    let page = rd.offset / PAGE;

    if page == 9 {
        let why = CString::new("page 9 is lost").unwrap();
        apf_read_failed(source, rd.id, -61, why.as_ptr());
        return;
    }
    std::slice::from_raw_parts_mut(rd.buf as *mut u8, rd.len as usize).fill(page as u8);
    apf_read_done(source, rd.id);
}

#[test]
fn open_adopt_read() {
    let vm = match open_vm() {
        Some(vm) => vm,
        None => return,
    };
    let mut source: *mut apf_source = null_mut();
    unsafe {
        let mut e: apf_error = zeroed();
        let mut a: *mut apf = null_mut();
        let mut config: apf_config = zeroed();
        apf_config_init(&mut config);
        config.retries_max = 0;
        ok(apf_open(vm.as_raw_fd(), &config, &mut a, &mut e), &e);

        let mut memory: apf_memory = zeroed();
        apf_memory_init(&mut memory);
        memory.gpa = GPA;
        memory.bytes = BYTES;
        ok(apf_memory_adopt(a, &mut memory, &mut e), &e);
        assert_eq!(apf_memory_hva(a, GPA), memory.guest);

        let uri = CString::new("file:/nonexistent").unwrap();
        assert!(apf_source_add(a, GPA, BYTES, uri.as_ptr(), 0, null_mut(), &mut e) < 0);
        assert_eq!(e.code, -2);
        assert!(text(&e).contains("/nonexistent"), "{}", text(&e));

        let mut of_ours: apf_source_config = zeroed();
        apf_source_config_init(&mut of_ours);
        of_ours.ctx = &mut source as *mut _ as *mut c_void;
        of_ours.bytes = BYTES;
        of_ours.read = Some(read);
        ok(apf_source_custom(a, &of_ours, &mut source, &mut e), &e);
        ok(apf_source_place(source, GPA, BYTES, 0, &mut e), &e);
        ok(apf_start(a, &mut e), &e);

        let mut bytes = [0u8; 2];
        let at = GPA + 4 * PAGE - 1;
        assert_eq!(apf_read(a, at, bytes.as_mut_ptr() as *mut c_void, 2), 0);
        assert_eq!(bytes, [3, 4]);
        let view = memory.vmm as *mut u8;
        assert_eq!(view.add(7 * PAGE as usize).read_volatile(), 7);
        view.write_volatile(200);
        assert_eq!(apf_read(a, GPA, bytes.as_mut_ptr() as *mut c_void, 2), 0);
        assert_eq!(bytes, [200, 0]);

        let mut there = [0u8; 10];
        assert_eq!(apf_residency(a, GPA, 10 * PAGE, there.as_mut_ptr()), 0);
        let present = there.map(|flags| flags & APF_BLOCK_PRESENT != 0);
        let want = [0, 3, 4, 7];
        for (page, is) in present.iter().enumerate() {
            assert_eq!(*is, want.contains(&page), "page {page}");
        }

        assert_eq!(apf_shared_bytes(a), -2); // ENOENT: no source has a file

        let mut wait: apf_wait = zeroed();
        apf_wait_init(&mut wait);
        wait.timeout_ns = 200_000_000;
        let range = apf_range {
            gpa: GPA + 9 * PAGE,
            buf: bytes.as_mut_ptr() as *mut c_void,
            len: 1,
        };
        assert_eq!(apf_readv(a, &range, 1, &wait), -110);
        assert_eq!(apf_trouble_get(a, &mut e), -61);
        assert!(text(&e).contains("page 9 is lost"), "{}", text(&e));

        let mut all = apf_counters::default();
        apf_counters_get(
            a,
            &mut all as *mut _ as *mut c_void,
            size_of::<apf_counters>(),
        );
        assert_eq!((all.reads, all.read_errors), (5, 1));
        let info = &*apf_counter_info(APF_COUNTER_ID_reads as u32);
        assert_eq!(CStr::from_ptr(info.name).to_str(), Ok("reads"));
        apf_close(a);
        assert_eq!(apf_source_free(source), 0);
    }
}
