#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf demo` on hosts that refuse it something: devices, rights, kernel features, memory,
descriptors, and calls that fail in the middle.

usage: demo_host_test.py PATH_OF_ASYNCPF PATH_OF_SHIM PATH_OF_REFUSE

Where a condition can be had for real (namespaces, another user, limits) it is real;
otherwise shim/shim.c or shim/refuse.c make it.
"""
import errno
import os
import pathlib
import shutil
import signal
import sys
import time

sys.dont_write_bytecode = True
from demo_support import KINDS, DemoTest, main, need, program  # noqa: E402

SHIM, REFUSE = (str(pathlib.Path(word).resolve()) for word in sys.argv[2:4])
TINY = ("--quiet", "--pages", "16", "--tasks", "4", "--delay-us", "500")
DOCTOR = "; see 'asyncpf doctor'"
OWN_DEV = "mount -t tmpfs none /dev"
NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all " \
         "--bounding-set=-all "
NR_IO_URING_SETUP = 425  # x86-64
CALLS_MAX = 150  # far above what one run makes

# <linux/kvm.h>
KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_RUN = 0xae01, 0xae41, 0xae80
KVM_CREATE_IRQCHIP, KVM_SET_MEMORY, KVM_GET_MMAP_SIZE = 0xae60, 0x4020ae46, 0xae04
KVM_SET_CPUID2, KVM_SET_SIGNAL_MASK, KVM_SET_SREGS = 0x4008ae90, 0x4004ae8b, 0x4138ae84
CAPS = {"SIGNAL_MSI": 77, "SYNC_REGS": 74, "EXCEPTION_PAYLOAD": 164, "X86_USER_SPACE_MSR": 188}


class Namespace(DemoTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("needs root and setpriv")
        if self.script(OWN_DEV).returncode != 0:
            self.skipTest("no mount namespaces here")
        self.copy = shutil.copy(program(), self.folder)
        os.chmod(self.copy, 0o755)

    def script(self, text):
        return self.command(["unshare", "--mount", "sh", "-ec", text])

    def with_dev(self, devices, user="", runs="user:int,block"):
        words = " ".join([self.copy, "demo", *TINY, "--runs", runs])
        return self.script(f"{OWN_DEV}; {devices}; exec {user}{words}")

    def node(self, name, mode="666"):
        number = os.stat(f"/dev/{name}").st_rdev
        return f"mknod -m {mode} /dev/{name} c {os.major(number)} {os.minor(number)}"

    def test_kvm_is_something_else(self):
        for device in ("touch /dev/kvm", "mknod -m 666 /dev/kvm c 1 3"):
            self.refused(self.with_dev(device),
                         "run failed: user:int: /dev/kvm: not KVM with API version 12; see "
                         "`asyncpf doctor`")

    def test_another_user_with_both_devices(self):
        """Nothing else is needed: no root."""
        need(self, "user", "block")
        if not os.path.exists("/dev/userfaultfd"):
            self.skipTest("no /dev/userfaultfd here")
        done = self.with_dev(f"{self.node('kvm')}; {self.node('userfaultfd')}", NOBODY,
                             "user:int,block,stall,kernel")
        self.verified(done, "user:int", "block", "stall", "kernel")


class Limits(DemoTest):
    def limited(self, option, *words):
        done = self.command(["prlimit", option, program(), "demo", *TINY, "--runs", "user:int",
                             *words])
        if done.returncode == 1 and done.stderr.startswith("prlimit:"):
            self.skipTest(done.stderr.strip())
        if "Sanitizer" in done.stderr:
            self.skipTest("a sanitizer needs more itself")
        return done

    def test_address_space(self):
        need(self, "user")
        self.refused(self.limited(f"--as={64 << 20}", "--pages", "16384"),
                     "run failed: user:int: guest memory: [0-9]+M cannot be set aside twice; use "
                     r"less \(memory_max\), or raise RLIMIT_AS \(ulimit -v\)")

    def test_address_space_at_every_size(self):
        """Wherever memory ends, one line says so."""
        need(self, "user")
        went_well = False
        for megabytes in range(8, 200, 12):
            done = self.limited(f"--as={megabytes << 20}")
            if done.returncode == 0:
                went_well = True
            elif "error while loading shared libraries" not in done.stderr:
                self.assertFalse(went_well, megabytes)
                self.refused(done, "(run failed: user:int|cannot .*): .*; .*")
        self.assertTrue(went_well)

    def test_open_files(self):
        need(self, "user")
        for count in range(4, 40):
            done = self.limited(f"--nofile={count}")
            if done.returncode == 0:
                break
            if "error while loading shared libraries" not in done.stderr:
                self.refused(done, "(run failed: user:int|cannot .*): .*: Too many open "
                             "files; .*")
        self.verified(done, "user:int")

    def test_no_room_for_signals(self):
        """Any process of the user can use up its queue of signals: a kick must not need it."""
        need(self, "user")
        self.verified(self.limited("--sigpending=0"), "user:int")

    def test_too_many_pages(self):
        """More than the guest's table of hashes has room for."""
        path = self.folder / "large"
        with path.open("wb") as f:
            f.truncate(1 << 42)
        done = self.demo(*TINY, "--image", str(path), "--pages", str(1 << 25))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"\Aasyncpf: bad value: --pages 33554432: .*\n\Z")


class Refused(DemoTest):
    """System calls that a container's seccomp profile refuses."""

    def refuse(self, number, code, *words):
        done = self.command([REFUSE, str(number), str(code), program(), "demo", *TINY, *words])
        if done.returncode == 77:
            self.skipTest(done.stderr.strip())
        return done

    def test_io_uring(self):
        """What a filter means by an error is tests/error/refusal_test.py's."""
        need(self, "user")
        for kind in ("user:int", "kernel"):
            self.refused(self.refuse(NR_IO_URING_SETUP, errno.ENOMEM, "--io", "uring", "--runs",
                                     kind),
                         f"run failed: {kind}: io_uring_setup: Cannot allocate memory; free "
                         r"memory, or raise the limits of it \(ulimit -l, ulimit -v, cgroup\)")

    def test_threads_instead_of_io_uring(self):
        need(self, *KINDS)
        for code in (errno.ENOSYS, errno.EPERM, errno.ENOMEM):
            done = self.refuse(NR_IO_URING_SETUP, code)
            self.assertEqual((done.returncode, done.stderr), (0, ""))


class Shim(DemoTest):
    def setUp(self):
        super().setUp()
        need(self, *KINDS)
        done = self.shim({}, "--runs", "block")
        if done.returncode != 0:
            self.skipTest("a preloaded library does not work with this build")

    def shim(self, env, *words):
        hit = self.folder / "hit"
        hit.unlink(missing_ok=True)
        return self.demo(*TINY, *words,
                         env={"LD_PRELOAD": SHIM, "SHIM_HIT": str(hit), **env})

    def fail(self, call, code, *words, first=1, times=1):
        """Like demo(); the call must have been reached."""
        if isinstance(call, int):
            call = f"ioctl:{call:#x}"
        done = self.shim({"SHIM_FAIL": f"{call} {first} {times} {code}"}, *words)
        self.assertTrue((self.folder / "hit").exists(), f"{call} is never called")
        return done

    def test_no_poison(self):
        for kind in ("user:int", "block", "stall"):
            self.refused(self.shim({"SHIM_NO_POISON": "1"}, "--runs", kind),
                         f"run failed: {kind}: userfaultfd: this kernel has no UFFDIO_POISON; "
                         "Linux 6.6 or later is needed, or use the kernel's own async page "
                         "faults")
        self.verified(self.shim({"SHIM_NO_POISON": "1"}, "--runs", "kernel"), "kernel")

    def test_no_poison_keeps_earlier_results(self):
        done = self.shim({"SHIM_NO_POISON": "1"}, "--runs", "kernel,user:int,block")
        self.failed(done, "run failed: user:int: userfaultfd: .*")
        self.assertEqual(self.rows(done.stdout), ["kernel"])

    def test_missing_capability(self):
        for name, number in CAPS.items():
            env = {"SHIM_CAP": str(number)}
            for kind in ("user:int", "stall"):
                self.refused(self.shim(env, "--runs", kind),
                             f"run failed: {kind}: kvm: this host (has no|lacks) .*{name}.*; see "
                             "`asyncpf doctor`")
            self.verified(self.shim(env, "--runs", "kernel"), "kernel")

    def test_making_the_vm(self):
        other = "; end the other hypervisor that uses the processor's virtualisation"
        memory = r"; free memory, or raise the limits \(ulimit -v, ulimit -d\)"
        for call, code, text in (
                (KVM_CREATE_VM, errno.EBUSY, "kvm: creating a virtual machine: Device or "
                 "resource busy" + other),
                (KVM_CREATE_VM, errno.ENOMEM, "kvm: creating a virtual machine: Cannot allocate "
                 "memory" + memory),
                (KVM_CREATE_IRQCHIP, errno.EINVAL, "kvm: in-kernel interrupt controllers: "
                 "Invalid argument" + DOCTOR),
                (KVM_SET_MEMORY, errno.ENOMEM, r"kvm: memory slot 0 \([0-9]+M at 0\): "
                 "Cannot allocate memory" + memory),
                (KVM_GET_MMAP_SIZE, errno.EINVAL, "kvm: size of a vCPU's state: Invalid argument"
                 + DOCTOR),
                (KVM_CREATE_VCPU, errno.EINVAL, "kvm: creating vCPU 0: Invalid argument"
                 + DOCTOR),
                (KVM_CREATE_VCPU, errno.ENOMEM, "kvm: creating vCPU 0: Cannot allocate memory"
                 + memory),
                (KVM_SET_CPUID2, errno.EINVAL, "kvm: CPUID of vCPU 0: Invalid argument" + DOCTOR),
                (KVM_SET_SREGS, errno.EINVAL, "kvm: entering 64-bit mode: Invalid argument"
                 + DOCTOR)):
            for kind in ("user:int", "kernel"):
                with self.subTest(text=text, kind=kind):
                    self.refused(self.fail(call, code, "--runs", kind),
                                 f"run failed: {kind}: {text}")

    def test_second_vcpu(self):
        self.refused(self.fail(KVM_CREATE_VCPU, errno.ENOMEM, "--vcpus", "2", "--runs", "user:int",
                               first=2),
                     "run failed: user:int: kvm: creating vCPU 1: Cannot allocate memory; .*")

    def test_kvm_run_fails(self):
        """At the first entry, and in the middle; with other vCPUs running."""
        for kind in KINDS:
            for first in (1, 20):
                with self.subTest(kind=kind, first=first):
                    self.refused(
                        self.fail(KVM_RUN, errno.EFAULT, "--vcpus", "2", "--runs", kind,
                                  first=first),
                        f"run failed: {kind}: vCPU [01]: running the guest: Bad address{DOCTOR}",
                        code=1)

    def test_kvm_run_never_begins(self):
        """As where KVM cannot make its thread for the VM (RLIMIT_NPROC)."""
        self.refused(self.fail(KVM_RUN, errno.EAGAIN, "--runs", "user:int", times=1000000),
                     "run failed: user:int: vCPU 0: running the guest: Resource temporarily "
                     r"unavailable; raise the limits .*\(ulimit -v, ulimit -d, ulimit -u\)", code=1)

    def test_kvm_run_interrupted(self):
        """EINTR without a signal of ours, and EAGAIN, are nothing."""
        for code in (errno.EINTR, errno.EAGAIN):
            self.verified(self.fail(KVM_RUN, code, "--runs", "user:int", first=5, times=3),
                          "user:int")

    def test_doctor_when_kvm_run_is_interrupted(self):
        """The verdict on which these tests decide what to skip must not depend on chance."""
        hit = self.folder / "hit"
        for first in (1, 2):
            done = self.command([program(), "doctor", "--json"], env={
                "LD_PRELOAD": SHIM, "SHIM_HIT": str(hit),
                "SHIM_FAIL": f"ioctl:{KVM_RUN:#x} {first} 2 {errno.EINTR}"})
            self.assertTrue(hit.exists())
            hit.unlink()
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_signal_mask(self):
        self.refused(self.fail(KVM_SET_SIGNAL_MASK, errno.EINVAL, "--runs", "user:int"),
                     f"run failed: user:int: vCPU 0: .*Invalid argument{DOCTOR}", code=1)

    def test_failure_ends_a_long_run(self):
        """The other vCPU waits for a page that takes seconds."""
        done = self.fail(KVM_RUN, errno.EFAULT, "--runs", "user:int", "--vcpus", "2", "--delay-us",
                         "3000000", first=10)
        self.refused(done, "run failed: user:int: vCPU [01]: running the guest: Bad address.*",
                     code=1)

    def test_later_run_fails(self):
        """The runs before it are shown; those after it are not tried."""
        done = self.fail(KVM_CREATE_VM, errno.ENOMEM, "--runs", "block,user:int,stall", first=2)
        self.failed(done, "run failed: user:int: kvm: creating a virtual machine: .*")
        self.assertEqual(self.rows(done.stdout), ["block"])

    def test_userfaultfd_is_lost(self):
        """The VM pauses and says so; nobody spins for it, and a signal ends it at once."""
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for kind in KINDS:
            with self.subTest(kind=kind), self.running(
                    "--pages", "4096", "--delay-us", "20000", "--runs", kind, terminal=True,
                    env={"LD_PRELOAD": SHIM, "SHIM_LOSE_UFFD": str(fifo)}) as demo:
                demo.wait_for(" [1-9][0-9]* %")
                os.close(os.open(fifo, os.O_WRONLY))
                demo.wait_for(f"paused: {kind}: memory at guest address .*: userfaultfd: .*\r\n")
                before = demo.cpu_s()
                time.sleep(0.5)
                self.assertLess(demo.cpu_s() - before, 0.2)
                demo.send(signal.SIGTERM)
                code, _, took = demo.finish()
                self.assertEqual(code, -signal.SIGTERM)
                self.assertLess(took, 3)

    def test_no_o_tmpfile(self):
        """A file system without O_TMPFILE: the image has a name for a moment."""
        self.verified(self.fail("tmpfile", errno.EOPNOTSUPP, "--runs", "block"), "block")

    def fail_each(self, call, code, *words, either=False):
        """Call number 1, 2, … fails until a run makes no such call any more. either: some may, and
        nobody minds."""
        for first in range(1, CALLS_MAX):
            done = self.shim({"SHIM_FAIL": f"{call} {first} 1 {code}"}, "--vcpus", "2",
                             "--runs", "kernel,user:int", *words)
            if not (self.folder / "hit").exists():
                break
            with self.subTest(call=call, number=first):
                if either and done.returncode == 0:
                    self.verified(done, "kernel", "user:int")
                    continue
                begun = "kernel " in done.stdout or "user:int:" in done.stderr
                self.failed(done, "(run failed: (kernel|user:int)|cannot .*): .*; .*",
                            code=1 if begun else 3)
        self.assertLess(first, CALLS_MAX - 1)
        self.assertGreater(first, 1, f"{call} is never called")
        self.verified(done, "kernel", "user:int")

    def test_every_call_fails_once(self):
        for call, code in (("calloc", errno.ENOMEM), ("mmap", errno.ENOMEM),
                           ("memfd_create", errno.ENFILE), ("eventfd", errno.EMFILE),
                           ("timerfd_create", errno.EMFILE), ("pthread_create", errno.EAGAIN)):
            self.fail_each(call, code)

    def test_every_call_of_the_threads_that_read_fails_once(self):
        self.fail_each("eventfd", errno.EMFILE, "--io", "threads")
        # The C library's for a thread are among them.
        self.fail_each("calloc", errno.ENOMEM, "--io", "threads", either=True)
        # Only the first of each kind is needed.
        self.fail_each("pthread_create", errno.EAGAIN, "--io", "threads", either=True)


if __name__ == "__main__":
    sys.exit(main())
