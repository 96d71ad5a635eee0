#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bindings/python/asyncpf.py on the real /dev/kvm: the guest of examples/minimal.c adds up the
first bytes of 16 pages that a Python function makes.

usage: python_test.py [OPTIONS OF UNITTEST]
"""
import errno
import faulthandler
import fcntl
import mmap
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import asyncpf

PAGE = 4096
MIB = 1 << 20
RAM = 2 * MIB
CODE = 0x1000
DATA = 0x10000
PAGES = 16
LIMIT_S = 90  # no test takes a tenth of it

KVM_GET_REGS, KVM_SET_REGS, REGS_BYTES = 0x8090ae81, 0x4090ae82, 144
KVM_GET_SREGS, KVM_SET_SREGS, SREGS_BYTES = 0x8138ae83, 0x4138ae84, 312
EXIT_IO = 2

# Real mode: for (si = 0; ; si += 4096) bx += data[si]; then out 0x10, bx.
ADD_UP = bytes.fromhex("b80010 8ed8 31f6 31db 8a04 30e4 01c3 81c60010 75f4 89d8 e710")
FOR_EVER = bytes.fromhex("ebfe")


def byte_of(page):
    return (7 * page + 3) % 256


def content(offset, length):
    return bytes([byte_of(offset // PAGE)]) * length


SUM = sum(byte_of(page) for page in range(PAGES))


def real_mode(vcpu, code=CODE):
    """Registers by KVM's own calls: struct kvm_sregs begins with cs, base first."""
    sregs = bytearray(SREGS_BYTES)
    fcntl.ioctl(vcpu.fd, KVM_GET_SREGS, sregs)
    struct.pack_into("<Q", sregs, 0, 0)
    struct.pack_into("<H", sregs, 12, 0)
    fcntl.ioctl(vcpu.fd, KVM_SET_SREGS, sregs)
    fcntl.ioctl(vcpu.fd, KVM_SET_REGS, struct.pack("<18Q", *[0] * 16, code, 2))


def run(vcpu):
    """Until the guest's out: what it wrote."""
    reason = asyncpf.EXIT_INTR
    while reason == asyncpf.EXIT_INTR:
        reason = vcpu.run()
    if reason != EXIT_IO:
        raise AssertionError(f"exit {reason}")
    (at,) = struct.unpack_from("<Q", vcpu.kvm_run, 40)
    return struct.unpack_from("<H", vcpu.kvm_run, at)[0]


class Thread(threading.Thread):
    """Has what the function returned, or raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.result = function, args, None
        self.start()

    def run(self):
        try:
            self.result = self.function(*self.args)
        except Exception as e:
            self.result = e

    def done(self):
        self.join(LIMIT_S)
        return self.result


def until(true):
    while not true():
        time.sleep(0.001)


class VmTest(unittest.TestCase):
    def setUp(self):
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)

    def open(self, **options):
        vm = asyncpf.VM(**options)
        self.addCleanup(vm.close)
        return vm

    def guest(self, read, code=ADD_UP, workers=1, **options):
        """A VM with the guest, ready to run."""
        vm = self.open(**options)
        vm.memory_add(0, RAM)
        vm.source_custom(PAGES * PAGE, read, workers).place(DATA, PAGES * PAGE)
        vm.start()
        vm.write(CODE, code)
        vm.memslot(0, 0, RAM)
        vcpu = vm.vcpu()
        real_mode(vcpu)
        return vm, vcpu

    def adopted(self, read, gpa=1 << 32, length=MIB, **options):
        vm = self.open(**options)
        memory = vm.memory_adopt(gpa, length)
        if read:
            vm.source_custom(length, read).place(gpa, length)
        vm.start()
        return vm, memory


class Guest(VmTest):
    def test_it_adds_up_what_a_function_makes(self):
        for workers in (1, 4, 0):
            with self.subTest(workers=workers):
                vm, vcpu = self.guest(content, workers=workers)
                self.assertEqual(run(vcpu), SUM)
                counters = vm.counters()
                self.assertEqual(counters["reads"], PAGES)
                self.assertEqual(counters["read_bytes"], PAGES * PAGE)
                self.assertEqual(counters["read_errors"], 0)
                self.assertEqual(counters["memory_bytes"], RAM)
                self.assertEqual(vcpu.counters()["faults_total"], counters["faults_total"])
                self.assertEqual(vcpu.counters()["memory_bytes"], 0)
                vm.close()

    def test_pages_of_zeroes_and_of_a_file(self):
        vm, vcpu = self.guest(lambda offset, length: None)
        self.assertEqual(run(vcpu), 0)
        vm.close()
        with tempfile.NamedTemporaryFile() as image:
            image.write(content(5 * PAGE, PAGE) * PAGES)
            image.flush()
            vm = self.open()
            vm.memory_add(0, RAM)
            self.assertEqual(vm.source_add(DATA, PAGES * PAGE, "file:" + image.name), PAGES * PAGE)
            vm.start()
            self.assertEqual(vm.read(DATA + 7 * PAGE, 1), bytes([byte_of(5)]))

    def test_an_exception_pauses_and_resume_goes_on(self):
        ready = threading.Event()
        heard = []

        def read(offset, length):
            if offset == 3 * PAGE and not ready.is_set():
                raise ValueError("page 3 is\nnot ready")
            return content(offset, length)

        vm, vcpu = self.guest(read, retries_max=1,
                              on_event=lambda *event: heard.append(event))
        runner = Thread(run, vcpu)
        until(lambda: vm.is_paused)
        trouble = vm.trouble
        self.assertIn("ValueError: page 3 is not ready", trouble.strerror)
        self.assertEqual((trouble.errno, str(trouble)), (errno.EIO, trouble.strerror))
        until(lambda: heard)
        self.assertEqual(heard, [(asyncpf.Event.PAUSED, DATA + 3 * PAGE, trouble.strerror)])
        self.assertEqual(vm.counters()["read_errors"], 2)
        ready.set()
        vm.resume()
        self.assertEqual(runner.done(), SUM)
        self.assertIsNone(vm.trouble)
        self.assertFalse(vm.is_paused)
        self.assertEqual([event[0] for event in heard],
                         [asyncpf.Event.PAUSED, asyncpf.Event.RESUMED])

    def test_what_is_no_page_is_an_error_too(self):
        for answer, why in ((b"short", "5 bytes, not 4096"), (4096, "TypeError")):
            vm, vcpu = self.guest(lambda offset, length, a=answer: a, retries_max=0)
            runner = Thread(vcpu.run)
            until(lambda vm=vm: vm.trouble)
            self.assertIn(why, str(vm.trouble))
            vm.close()
            self.assertEqual(runner.done(), asyncpf.EXIT_INTR)

    def test_the_number_of_an_oserror(self):
        def read(offset, length):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

        vm, vcpu = self.guest(read, retries_max=0, workers=0)
        runner = Thread(vcpu.run)
        until(lambda: vm.trouble)
        self.assertEqual(vm.trouble.errno, errno.ENODEV)
        vm.close()
        self.assertEqual(runner.done(), asyncpf.EXIT_INTR)

    def test_kicks_and_the_end(self):
        vm, vcpu = self.guest(content, code=FOR_EVER)
        runner = Thread(vcpu.run)
        vcpu.kick()
        self.assertEqual(runner.done(), asyncpf.EXIT_INTR)
        self.assertEqual(vcpu.exit_reason, asyncpf.EXIT_INTR)
        runner = Thread(run, vcpu)  # goes on after each kick, until it may not
        vcpu.kick()
        vm.close()
        self.assertIsInstance(runner.done(), ValueError)
        with self.assertRaises(ValueError):
            vcpu.kick()
        with self.assertRaises(ValueError):
            vm.read(0, 1)

    def test_a_paused_vcpu_is_saved_and_restored(self):
        vm, vcpu = self.guest(content)
        vm.pause()
        vcpu.kick()
        self.assertEqual(vcpu.run(), asyncpf.EXIT_INTR)
        state = vcpu.save()
        vcpu.detach()
        with self.assertRaises(ValueError):
            vcpu.run()
        vcpu = vm.vcpu_attach(0, vcpu.fd, vcpu.kvm_run)
        with self.assertRaises(asyncpf.Error):
            vcpu.restore(b"no state")
        vcpu.restore(state)
        msrs = vm.msr_list()
        self.assertIn(0x4b564d02, msrs)
        vcpu.set_msr(0x4b564d06, 0xf3)
        self.assertEqual(vcpu.get_msr(0x4b564d06), 0xf3)
        vcpu.signal_mask([])
        vcpu.signal_mask(None)
        vcpu.reset()
        self.assertEqual(vcpu.get_msr(0x4b564d06), 0)
        vm.resume()
        self.assertEqual(run(vcpu), SUM)

    def test_a_vm_and_a_vcpu_of_the_callers_own(self):
        fd = asyncpf.create_vm()
        vm = self.open(vm_fd=fd, faults="stall", vcpus_max=2)
        vm.memory_add(0, RAM)
        vm.source_custom(PAGES * PAGE, content).place(DATA, PAGES * PAGE)
        vm.start()
        vm.write(CODE, ADD_UP)
        vm.memslot(0, 0, RAM)
        vcpu_fd = fcntl.ioctl(fd, asyncpf.KVM_CREATE_VCPU, 0)
        fcntl.ioctl(vcpu_fd, asyncpf.KVM_SET_CPUID2, vm.cpuid())
        vcpu = vm.vcpu_attach(0, vcpu_fd, mmap.mmap(vcpu_fd, 3 * PAGE))
        real_mode(vcpu)
        self.assertEqual(run(vcpu), SUM)
        vm.close()
        os.close(vcpu_fd)
        os.close(fd)


class View(VmTest):
    def test_it_waits_for_what_python_itself_makes(self):
        vm, memory = self.adopted(content, on_write=lambda gpa, length: writes.append(gpa))
        writes = []
        self.assertEqual(memory[5 * PAGE], byte_of(5))
        self.assertEqual(memory[7 * PAGE - 1:7 * PAGE + 1], bytes([byte_of(6), byte_of(7)]))
        self.assertEqual(memory[-1], byte_of(len(memory) // PAGE - 1))
        memory[8 * PAGE:8 * PAGE + 4] = b"four"
        self.assertEqual(vm.read(memory.gpa + 8 * PAGE, 5), b"four" + bytes([byte_of(8)]))
        vm.write(memory.gpa + 9 * PAGE, b"nine")
        self.assertEqual(writes, [memory.gpa + 8 * PAGE, memory.gpa + 9 * PAGE])
        self.assertEqual(memory[9 * PAGE:9 * PAGE + 4], b"nine")
        self.assertEqual(vm.counters()["reads"], 6)
        self.assertEqual(memory[3:3], b"")
        for wrong in (lambda: memory[len(memory)], lambda: memory[0:8:2],
                      lambda: memory.__setitem__(slice(0, 4), b"five!")):
            self.assertRaises((IndexError, ValueError), wrong)

    def test_system_calls_reach_it(self):
        vm, memory = self.adopted(content)
        with tempfile.TemporaryFile() as file:
            os.pwrite(file.fileno(), b"from a file", 0)
            os.preadv(file.fileno(), [memory.raw[PAGE:PAGE + 11]], 0)
            os.pwritev(file.fileno(), [memory.raw[2 * PAGE:2 * PAGE + 2]], 0)
            self.assertEqual(os.pread(file.fileno(), 2, 0), content(2 * PAGE, 2))
        self.assertEqual(vm.read(memory.gpa + PAGE, 12), b"from a file" + content(PAGE, 1))

    def test_what_is_held_is_a_plain_memoryview(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        vm, memory = self.adopted(content, swap=folder.name + "/swap", pins_are_held=1)
        with memory.hold(4 * PAGE, 2 * PAGE) as view:
            self.assertEqual((len(view), view[0], view[PAGE]),
                             (2 * PAGE, byte_of(4), byte_of(5)))
            view[1:3] = b"ok"
            vm.evict()
            self.assertTrue(vm.residency(memory.gpa + 5 * PAGE, PAGE)[0] & asyncpf.Block.PRESENT)
            with self.assertRaises(asyncpf.Error) as refused:
                memory.remove()
            self.assertEqual(refused.exception.errno, errno.EBUSY)
        self.assertEqual(vm.read(memory.gpa + 4 * PAGE + 1, 2), b"ok")

    def test_residency_discard_remove(self):
        vm, memory = self.adopted(content, length=4 * PAGE)
        self.assertEqual(vm.residency(memory.gpa, 4 * PAGE), bytes(4))
        with self.assertRaises(asyncpf.Error) as refused:
            vm.shared_bytes() # there is no file
        self.assertEqual(refused.exception.errno, errno.ENOENT)
        vm.populate(memory.gpa, PAGE)
        memory[PAGE] = 99
        flags = vm.residency(memory.gpa, 4 * PAGE)
        self.assertEqual([bool(f & asyncpf.Block.PRESENT) for f in flags],
                         [True, True, False, False])
        self.assertTrue(flags[1] & asyncpf.Block.CHANGED)
        vm.discard(memory.gpa, 2 * PAGE)
        self.assertTrue(vm.residency(memory.gpa, PAGE)[0] & asyncpf.Block.ZEROES)
        self.assertEqual(memory[0:2 * PAGE], bytes(2 * PAGE))
        self.assertEqual(memory[2 * PAGE], byte_of(2))
        memory.remove()
        with self.assertRaises(asyncpf.Error) as refused:
            vm.residency(memory.gpa, PAGE)
        self.assertEqual(refused.exception.errno, errno.EFAULT)
        self.assertEqual(memory.raw[2 * PAGE], 0)

    def test_memory_and_mapping_of_the_callers_own(self):
        fd = os.memfd_create("own")
        os.ftruncate(fd, MIB)
        os.pwrite(fd, b"before", PAGE)
        vm = self.open()
        with mmap.mmap(fd, MIB // 2, offset=PAGE) as mapping:
            memory = vm.memory_adopt(0, MIB // 2, fd, PAGE, mapping)
            vm.start()
            self.assertEqual(vm.read(0, 6), b"before")
            vm.write(2, b"hind")
            self.assertEqual(mapping[0:6], b"behind")
            self.assertEqual((memory.fd, memory.offset), (fd, PAGE))
            vm.close()
            del memory
        self.assertEqual(os.pread(fd, 6, PAGE), b"behind")
        os.close(fd)

    def test_python_touches_what_a_file_has(self):
        with tempfile.NamedTemporaryFile() as image:
            image.write(content(5 * PAGE, PAGE) * 4)
            image.flush()
            vm = self.open()
            memory = vm.memory_adopt(0, MIB)
            vm.source_add(0, MIB, f"delay+file:{image.name}?ms=1")
            vm.start()
            self.assertEqual(memory.raw[PAGE], byte_of(5))
            memory.raw[2 * PAGE] = 77
            self.assertEqual(memory[2 * PAGE:2 * PAGE + 2], bytes([77, byte_of(5)]))
            self.assertGreaterEqual(vm.counters()["vmm_touches"], 2)

    def test_views_outlive_the_vm(self):
        vm, memory = self.adopted(content)
        memory[0:5] = b"still"
        raw = memory.raw
        vm.close()
        self.assertEqual((bytes(raw[0:6]), raw[PAGE]), (b"still" + bytes([byte_of(0)]), 0))
        with self.assertRaises(ValueError):
            memory[0:5]


class Access(VmTest):
    def test_vectors(self):
        vm, memory = self.adopted(content)
        first, second = bytearray(3), bytearray(5)
        gpa = memory.gpa
        self.assertEqual(vm.writev([(gpa + PAGE, b"one"), (gpa + 2 * PAGE, b"three")]), 8)
        self.assertEqual(vm.readv([(gpa + PAGE, first), (gpa + 2 * PAGE, second)], timeout=10), 8)
        self.assertEqual((first, second), (b"one", b"three"))

    def test_the_end_of_waiting(self):
        go = threading.Event()

        def read(offset, length):
            go.wait()
            return content(offset, length)

        vm, vcpu = self.guest(read)
        page = bytearray(1)
        with self.assertRaises(asyncpf.Error) as late:
            vm.readv([(DATA, page)], timeout=0.01)
        self.assertEqual(late.exception.errno, errno.ETIMEDOUT)
        vcpu.kick()
        with self.assertRaises(asyncpf.Error) as kicked:
            vm.readv([(DATA, page)], vcpu=vcpu)
        self.assertEqual(kicked.exception.errno, errno.EINTR)
        go.set()
        self.assertEqual(vm.readv([(DATA, page)], timeout=60), 1)
        self.assertEqual(page[0], byte_of(0))

    def test_close_ends_waiting(self):
        go, asked = threading.Event(), threading.Event()

        def read(offset, length):
            asked.set()
            go.wait()

        vm, _ = self.guest(read)
        reader = Thread(vm.read, DATA, 1)
        asked.wait()
        waiting = Thread(vm.read, DATA + PAGE, 1)  # no worker is left for it
        closer = Thread(vm.close)
        for thread in (reader, waiting):
            self.assertIsInstance(thread.done(), (asyncpf.Error, ValueError))
        go.set()  # a read that has begun is waited for
        self.assertIsNone(closer.done())
        self.assertFalse(closer.is_alive())

    def test_what_came_along_is_not_read(self):
        reads = []

        def read(offset, length):
            reads.append(offset)
            return content(offset, length)

        vm = self.open()
        vm.memory_add(0, RAM)
        source = vm.source_custom(RAM, read).place(0, RAM)
        vm.start()
        self.assertEqual(source.offer(PAGE, content(PAGE, PAGE)), PAGE)
        self.assertEqual(vm.read(PAGE, 1) + vm.read(2 * PAGE, 1),
                         bytes([byte_of(1), byte_of(2)]))
        self.assertEqual(reads, [2 * PAGE])

    def test_eviction(self):
        with tempfile.TemporaryDirectory() as folder:
            vm, memory = self.adopted(content, length=8 * MIB, pins_are_held=1,
                                      swap=os.path.join(folder, "swap"))
            vm.populate(memory.gpa, len(memory))
            for page in range(0, len(memory), 16 * PAGE):
                memory[page + 1] = 200
            self.assertLess(vm.evict(), MIB)
            self.assertGreater(vm.counters()["evicted"], 1000)
            for page in range(0, len(memory), 16 * PAGE):
                self.assertEqual(memory[page:page + 3],
                                 bytes([byte_of(page // PAGE), 200, byte_of(page // PAGE)]))
            vm.close()
            self.assertEqual(os.listdir(folder), [])


class Examples(VmTest):
    def test_the_readme(self):
        readme = pathlib.Path(asyncpf.__file__).parent.parent / "README.md"
        program = readme.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "2 1\n", ""))


class Refusals(VmTest):
    def test_errors_have_code_and_text(self):
        with self.assertRaises(asyncpf.Error) as e:
            asyncpf.VM(block_bytes=5000)
        self.assertEqual(e.exception.errno, errno.EINVAL)
        self.assertEqual(str(e.exception), "apf_config: block_bytes is 5000, not a power of two "
                                           "from 4096 to 2097152")
        vm = self.open()
        vm.memory_add(0, RAM)
        with self.assertRaises(asyncpf.Error) as e:
            vm.source_add(0, RAM, "file:/nonexistent")
        self.assertEqual(e.exception.errno, errno.ENOENT)
        self.assertIn("/nonexistent", str(e.exception))
        vm.start()
        with self.assertRaises(asyncpf.Error) as e:
            vm.read(RAM, 1)
        self.assertEqual((e.exception.errno, str(e.exception)),
                         (errno.EFAULT, "apf_read: Bad address"))
        with self.assertRaises(OSError):
            vm.memory_add(0, RAM)

    def test_threads_in_the_place_of_io_uring(self):
        names = []
        with asyncpf.VM(io="threads", on_thread=names.append) as vm:
            self.assertEqual(vm.io, asyncpf.Io.THREADS)
            memory = vm.memory_adopt(0, 1 << 20)
            vm.source_add(0, 1 << 20, f"file:{__file__}")
            vm.start()
            with open(__file__, "rb") as f:
                self.assertEqual(bytes(memory[:100]), f.read(100))
        self.assertEqual(set(names), {"asyncpf", "asyncpf-read", "asyncpf-write"})

    def test_unknown_options(self):
        for name in ("block_byte", "size", "on_event_ctx"):
            with self.assertRaises(TypeError):
                asyncpf.VM(**{name: 1})
        with self.assertRaises(KeyError):
            asyncpf.VM(faults="sometimes")

    def test_what_is_forgotten_is_closed_at_exit(self):
        program = ("import asyncpf, sys\n"
                   "vm = asyncpf.VM(faults='block', abi='pf2-strict')\n"
                   "m = vm.memory_adopt(0, 1 << 20)\n"
                   "vm.source_custom(1 << 20, lambda o, n: b'x' * n).place(0, 1 << 20)\n"
                   "vm.start()\n"
                   "print(m[5] == ord('x'), flush=True)\n")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "True\n", ""))


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        return 77
    return not unittest.main(exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
