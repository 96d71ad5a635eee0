#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What cannot be used is refused in one line: what, on what, why; what to do. Each verb is given
files of every other kind, put together here, and values that cannot be.

usage: advice_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL
"""
import bz2
import gzip
import io
import lzma
import os
import pathlib
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest

ASYNCPF, KERNEL = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
LIMIT_S = 60
USAGE, REFUSED = 2, 3
NEEDS_KVM = unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK),
                                "/dev/kvm may not be used")
LINE = re.compile(r"asyncpf: [^\n;]+: [^\n]+; [^\n;]+\n")
MACHINE_ARM64, MACHINE_RISCV, MACHINE_X86_64, MACHINE_I386 = 183, 243, 0x8664, 0x14c


def changed(data, *changes):
    """With (offset, bytes) written over it."""
    data = bytearray(data)
    for at, new in changes:
        data[at:at + len(new)] = new
    return bytes(data)


def pe(machine, *changes):
    """An EFI application, or a program of Windows."""
    return changed(bytes(4096), (0, b"MZ"), (0x3c, struct.pack("<I", 0x80)), (0x80, b"PE\0\0"),
                   (0x84, struct.pack("<H", machine)), *changes)


def bzimage(*changes):
    """As memtest86+ has it: its size is rounded up to 16, its last paragraph is not full."""
    code = b"\xf4" * 0x1005
    head = changed(bytes(1024), (0x1f1, b"\1"),
                   (0x1f4, struct.pack("<I", (len(code) + 15) // 16)), (0x1fe, b"\x55\xaa"),
                   (0x201, b"\x6aHdrS\x0f\x02"), (0x211, b"\1"), (0x22c, b"\xff\xff\xff\x7f"),
                   (0x230, struct.pack("<IBBH", 0x200000, 1, 0, 1)),
                   (0x238, struct.pack("<I", 2047)), (0x258, struct.pack("<QI", 0x200000, 1 << 20)))
    return changed(head, *changes) + code


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("kernel"))
    return out.getvalue()


def kernels():
    """{name: (content, what the line says)}"""
    elf = KERNEL.read_bytes()
    return {
        "gzip": (gzip.compress(elf, mtime=0), "gzip has compressed"),
        "xz": (lzma.compress(elf), "xz has compressed"),
        "lzma": (lzma.compress(elf, lzma.FORMAT_ALONE), "lzma has compressed"),
        "bzip2": (bz2.compress(elf), "bzip2 has compressed"),
        "zstd": (b"\x28\xb5\x2f\xfd" + bytes(60), "zstd has compressed"),
        "arm64": (changed(bytes(4096), (0, b"MZ"), (56, b"ARM\x64")), "a Linux kernel for arm64"),
        "arm64-efi": (pe(0xaa64), "an EFI application (PE) for arm64"),
        "efi": (pe(MACHINE_X86_64), "an EFI application (PE), and there is no EFI firmware"),
        "pe32": (pe(MACHINE_I386), "an EFI application or Windows program"),
        "zboot": (pe(MACHINE_X86_64, (4, b"zimg")), "unpacks itself under EFI"),
        "elf-arm64": (changed(elf, (18, struct.pack("<H", MACHINE_ARM64))), "for arm64"),
        "elf-riscv": (changed(elf, (18, struct.pack("<H", MACHINE_RISCV))), "for RISC-V"),
        "elf-short": (elf[:1000], "cut short"),
        "elf-head": (elf[:52], "cut short within its program headers"),
        "program": (pathlib.Path(sys.executable).resolve().read_bytes()[:4096], "ELF file"),
        "bzimage-old": (bzimage((0x206, b"\x0b\x02")), "boot protocol 2.11"),
        "bzimage-low": (bzimage((0x211, b"\0")), "zImage"),
        "bzimage-32": (bzimage((0x236, b"\0\0")), "without a 64-bit entry point"),
        "bzimage-short": (bzimage((0x1f4, struct.pack("<I", 0x102))), "bzImage cut short"),
        "tar": (tar(), "a tar archive"),
        "script": (b"#!/bin/sh\n", "a script"),
        "qcow2": (b"QFI\xfb" + bytes(508), "a qcow2 disk image"),
        "empty": (b"", "an empty file"),
        "byte": (b"x", "not a kernel that can be loaded"),
        "zeroes": (bytes(8192), "not a kernel that can be loaded"),
    }


# What else each verb refuses; `x` is a file of some words, `d` a folder.
VALUES = """
run --kernel missing
run --kernel d
run --kernel fifo
run --kernel /dev/null
run --kernel K --initrd missing
run --kernel K --initrd d
run --kernel K --initrd empty
run --kernel K --disk d
run --kernel K --disk x
run --kernel K --disk /dev/null
run --kernel K --disk qcow2
run --kernel K --disk gzip
run --kernel K --disk zeroes --disk zeroes
run --kernel K --disk zeroes --json zeroes
run --kernel K --disk zeroes,bw=0
run --kernel K --disk zeroes,word
run --kernel K --memory 3M
run --kernel K --memory 65G
run --kernel K --cpus 17
run --kernel K --resident-max 8M
run --kernel K --net word
run --kernel K --net tap=
run --kernel K --net user,fwd=tcp:0:80
run --kernel K --net user,mac=1
run --kernel K --rng word
run --kernel K --balloon follow
run --kernel K --vsock word
run --kernel K --vsock uds=v,cid=1
run --kernel K --user nobody-has-this-name
run --kernel K --control nowhere/s
run --kernel K --control x
run --kernel K --trace nowhere/t
run --kernel K --json d
run --kernel K --abi legacy --faults kernel
run --kernel K --lab --local
restore missing
restore d
restore x
restore damaged
restore d --record -
snapshot snap
snapshot --control missing snap
snapshot --control x snap
balloon --control missing --to 8M
evict --control missing --to 5
evict --control missing --to 64M --all
resize --control missing --resident-max 64M
pause --control d
status --control missing --watch 0
events --control missing
image pack missing out
image pack zeroes x
image pack d out
image pack zeroes nowhere/out
image pack zeroes dangling
image pack loop out
image pack zeroes loop
image unpack x out
image info d
image info missing
image info loop
image verify d
pager --listen nowhere/s --source zeroes
pager --listen s --source missing
pager --listen s --source missing --json new
pager --listen s --source d
pager --map x
pager --map d
pager --map norules
pager --listen nowhere/s --source zeroes --json new --control c
pager --listen s --source zst:x
pager --listen s --source http://127.0.0.1:1/x
pager --listen s --source tape:x
report missing
demo --runs word
demo --image missing
demo --json nowhere/x
sim --seed word
sim --exhaustive --seed 4
sim --exhaustive --scale
sim --scale --seeds 2
sim --scale --tasks 7
sim --scale --log
sim --faults 5000
sim --states 5000
statsu
"""


class Refusals(unittest.TestCase):
    """Tried in a folder that has a file of some words."""

    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.holder.cleanup)
        cls.folder = pathlib.Path(cls.holder.name)
        (cls.folder / "x").write_bytes(b"some words\n" * 100)

    def refused(self, *words):
        """The line; nothing is made or changed."""
        names = sorted(os.listdir(self.folder))
        done = subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S, cwd=self.folder)
        self.assertIn(done.returncode, (USAGE, REFUSED), done)
        self.assertRegex(done.stderr, r"\A" + LINE.pattern + r"\Z")
        self.assertEqual(sorted(os.listdir(self.folder)), names)
        return done.stderr


class Files(Refusals):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name, (content, _) in kernels().items():
            (cls.folder / name).write_bytes(content)
        for name in ("d", "damaged"):
            (cls.folder / name).mkdir()
        (cls.folder / "damaged/state").write_bytes(b"words")
        (cls.folder / "norules").write_bytes(b"[]")
        os.symlink("nothing", cls.folder / "dangling")
        os.symlink("loop", cls.folder / "loop")
        os.mkfifo(cls.folder / "fifo")

    @NEEDS_KVM
    def test_kernels(self):
        for name, (content, says) in kernels().items():
            with self.subTest(kernel=name):
                self.assertIn(says, self.refused("run", "--local", "--kernel", name))
                self.assertEqual((self.folder / name).read_bytes(), content)

    def test_values(self):
        for line in VALUES.strip().splitlines():
            with self.subTest(line):
                self.refused(*(str(KERNEL) if word == "K" else word for word in line.split()))

    @NEEDS_KVM
    def test_a_kernel_whose_last_paragraph_is_not_full(self):
        """It runs, and does nothing: its code is HLT, with interrupts off."""
        (self.folder / "memtest").write_bytes(bzimage())
        self.addCleanup((self.folder / "memtest").unlink)
        with subprocess.Popen([ASYNCPF, "run", "--local", "--kernel", "memtest", "--memory", "16M"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              cwd=self.folder) as run:
            try:
                self.assertIn("halted", run.stderr.readline())
            finally:
                run.kill()


@NEEDS_KVM
class Snapshots(Refusals):
    def test_what_is_not_as_it_was(self):
        """Of a VM that has a disk and a network card, and goes on with them."""
        (self.folder / "disk").write_bytes(bytes(4096))
        vm = subprocess.Popen([ASYNCPF, "run", "--local", "--kernel", KERNEL, "--memory", "16M",
                               "--cmdline", "spin", "--disk", "disk", "--net", "user",
                               "--control", "vm"], stdin=subprocess.DEVNULL, cwd=self.folder,
                              stdout=subprocess.PIPE)
        try:
            while b"spin" not in vm.stdout.readline():
                pass
            subprocess.run([ASYNCPF, "snapshot", "--control", "vm", "snap"], cwd=self.folder,
                           stdout=subprocess.DEVNULL, check=True, timeout=LIMIT_S)
            self.refused("snapshot", "--control", "vm", "snap")
            self.refused("restore", "snap")
        finally:
            vm.terminate()
            vm.communicate(timeout=LIMIT_S)
        for words in (("--net", "user", "--net", "user"), ("--record", "disk"),
                      ("--prefetch", "x"), ("--json", "snap/memory"), ("--source", "x")):
            self.refused("restore", "snap", *words)
        for length in (4096 + 512, 100):
            os.truncate(self.folder / "disk", length)
            self.refused("restore", "snap")
        (self.folder / "disk").unlink()
        self.refused("restore", "snap")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
