# SPDX-License-Identifier: Apache-2.0
"""What tests of `asyncpf snapshot` and `restore` have in common: guests that count in memory, in an
order that a test can compute, and VMs that run them. Each snapshot must hold exactly what so many
steps leave. The first argument is the path of asyncpf."""
import collections
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LIMIT_S = 60
ASYNCPF = str(pathlib.Path(sys.argv[1]).resolve())
BASE = 1 << 20  # where the kernel is loaded
PAGE = 4096
FIRST = 8 << 20   # the pages that it counts in
PAGES = 1024
STEPS = 2000      # of a round; after each it prints R
SEED, FACTOR, SUM = 0x2545f491, 1664525, 1013904223
RUNNING = "--keep-running"
CODE = (b"\xb8" + struct.pack("<I", SEED) +   # again: mov SEED, %eax
        b"\xb9" + struct.pack("<I", STEPS) +  #        mov STEPS, %ecx
        b"\x69\xc0" + struct.pack("<I", FACTOR) +  # 1: imul FACTOR, %eax
        b"\x05" + struct.pack("<I", SUM) +         #    add SUM, %eax
        bytes.fromhex("89c3c1eb1081e3ff030000"  # mov %eax, %ebx; shr $16; and $1023, %ebx
                      "c1e30c81c300008000"      # shl $12; add FIRST, %ebx
                      "ff034975dc"              # incl (%ebx); dec %ecx; jnz 1b
                      "66baf803b052eeb00aee"    # 'R' and a newline to COM1
                      "e9c3ffffff"))            # jmp again
HEADER_BYTES = 32


# One that goes through its pages in order, and counts in each.
IN_ORDER = (b"\xbb" + struct.pack("<I", FIRST) +  # again: mov FIRST, %ebx
            b"\xb9" + struct.pack("<I", PAGES) +  #        mov PAGES, %ecx
            bytes.fromhex("ff0381c3001000004975f5"  # 1: incl (%ebx); add $4096, %ebx; dec %ecx;
                                                    #    jnz 1b
                          "66baf803b052eeb00aee"    # 'R' and a newline to COM1
                          "e9dcffffff"))            # jmp again


def kernel_of(code):
    """A multiboot kernel of that code alone."""
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                       BASE, BASE + HEADER_BYTES + len(code), 0, BASE + HEADER_BYTES) + code


def steps():
    """The page of each step of a round."""
    x = SEED
    for _ in range(STEPS):
        x = (x * FACTOR + SUM) & 0xffffffff
        yield x >> 16 & (PAGES - 1)


ROUND = list(steps())


def state(files):
    """What KVM's own sections are made of: name and index to bytes."""
    data = (files / "state").read_bytes()
    at, ret = 32, {}
    while at < len(data):
        name, index, _, length = struct.unpack_from("<16sIIQ", data, at)
        ret[name.rstrip(b"\0").decode(), index] = data[at + 32:at + 32 + length]
        at += 32 + (length + 7) // 8 * 8
    return ret


def memory_of(files, first, count):
    """Pages of its memory, by whichever file of whichever snapshot has each."""
    layers = [(files / "memory", None)]
    if (files / "layers").exists():
        data = (files / "layers").read_bytes()
        magic, form, _, memory, many = struct.unpack_from("<8sIIQQ", data)
        assert (magic, form) == (b"APFLAYER", 1)
        maps = 32 + many * 4128
        layers = []
        for n in range(many):
            path = data[32 + n * 4128 + 16:32 + (n + 1) * 4128].split(b"\0")[0].decode()
            at = maps + n * (memory // PAGE // 8)
            layers.append((files / path, data[at:at + memory // PAGE // 8]
                           if n < many - 1 else None))
    ret = []
    with contextlib.ExitStack() as stack:
        opened = [(stack.enter_context(open(path, "rb")), pages) for path, pages in layers]
        for page in range(first, first + count):
            file = next(f for f, pages in opened
                        if pages is None or pages[page // 8] >> page % 8 & 1)
            ret.append(os.pread(file.fileno(), PAGE, page * PAGE))
    return b"".join(ret)


class SnapshotCase(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.kernel = self.folder / "kernel"
        self.kernel.write_bytes(kernel_of(CODE))
        self.sockets = itertools.count()

    def spawn(self, *words):
        """A VM whose guest has made a round."""
        path = self.folder / f"vm{next(self.sockets)}"
        vm = subprocess.Popen([ASYNCPF, *words, "--control", str(path)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (vm.kill(), vm.communicate()))
        vm.path = str(path)
        self.rounds(vm, 1)
        return vm

    def run_vm(self, *words, faults="kernel"):
        return self.spawn("run", "--local", "--kernel", str(self.kernel), "--memory", "64M",
                          *(words or ("--faults", faults)))

    def restore(self, files, *words):
        return self.spawn("restore", str(files), *words)

    def rounds(self, vm, count):
        for _ in range(count):
            line = vm.stdout.readline()
            # The first may be the end of one that was printed before.
            if line not in ("R\n", "\n"):
                self.fail(f"the guest says {line!r}: {vm.stderr.read()}")

    def verb(self, vm, name, *words):
        return subprocess.run([ASYNCPF, name, "--control", vm.path, *words], timeout=LIMIT_S,
                              capture_output=True, text=True, check=False)

    def snapshot(self, vm, name, *words):
        files = self.folder / name
        until = time.monotonic() + LIMIT_S
        done = self.verb(vm, "snapshot", *words, str(files))
        # One whose client was killed is not over at once.
        while "is under way" in done.stderr and time.monotonic() < until:
            done = self.verb(vm, "snapshot", *words, str(files))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return files

    def stop(self, vm):
        self.verb(vm, "stop")
        _, err = vm.communicate(timeout=LIMIT_S)
        self.assertEqual((vm.returncode, err), (5, ""))

    def status(self, vm):
        return json.loads(self.verb(vm, "status", "--json").stdout)

    def steps_of(self, files):
        """How many steps its memory has seen: all of it must be what so many leave."""
        memory = memory_of(files, FIRST // PAGE, PAGES)
        got = [struct.unpack_from("<I", memory, page * PAGE)[0] for page in range(PAGES)]
        whole, part = divmod(sum(got), STEPS)
        want = collections.Counter({p: n * whole for p, n in collections.Counter(ROUND).items()})
        want.update(ROUND[:part])
        self.assertEqual(got, [want[page] for page in range(PAGES)])
        for page in range(PAGES):
            self.assertFalse(any(memory[page * PAGE + 4:(page + 1) * PAGE]), page)
        # And the registers are of that very step: ECX counts down, by the next instruction.
        ecx = struct.unpack_from("<Q", state(files)["vcpu.regs", 0], 16)[0]
        self.assertIn(ecx, {STEPS - part, STEPS - part + 1, 0} if part else {STEPS, 0, 1}, part)
        return sum(got)

    def refused(self, words, text, code=3):
        done = subprocess.run([ASYNCPF, "restore", *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(text, done.stderr)


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
