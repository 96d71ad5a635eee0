#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""When `asyncpf run` goes to the lab, and what it says: without a lab. The tool in its place
shows the words that it was given.

usage: run_lab_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL
"""
import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ASYNCPF = str(pathlib.Path(sys.argv.pop(1)).resolve())
MULTIBOOT = str(pathlib.Path(sys.argv.pop(1)).resolve())
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from lab_parts import EXIT_REFUSED, Refused
from lab_parts.relay import listening

HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
TOOL = '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 42\n'


def bzimage():
    """The least that the loader takes for a Linux of the 64-bit boot protocol."""
    sector = 512
    image = bytearray(2 * sector + 4096)
    image[0x1f1] = 1                                      # setup sectors beside the first
    image[0x1fe:0x200] = b"\x55\xaa"
    image[0x201] = 0x66                                   # where the header ends
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20c)           # protocol version
    image[0x211] = 1                                      # loaded high
    struct.pack_into("<I", image, 0x1f4, 4096 // 16)      # size of the protected-mode part
    struct.pack_into("<I", image, 0x22c, 0x7fffffff)      # highest initrd address
    struct.pack_into("<I", image, 0x230, 0x200000)        # alignment
    image[0x234] = 1                                      # relocatable
    struct.pack_into("<H", image, 0x236, 1)               # 64-bit entry
    struct.pack_into("<I", image, 0x238, 2047)            # command line
    struct.pack_into("<Q", image, 0x258, 0x1000000)       # preferred address
    struct.pack_into("<I", image, 0x260, 0x100000)        # what it needs while it starts
    return bytes(image)


def multiboot(code):
    """A kernel of that protocol: 32 bits, no paging."""
    base, size = 1 << 20, 32
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, base,
                       base, base + size + len(code), 0, base + size) + code


FAR = 2 << 20
FAR_RETURNS = b"\xc6\x05" + struct.pack("<I", FAR) + b"\xc3"           # movb $ret, FAR
TO_FAR = b"\xb8" + struct.pack("<I", FAR) + b"\xbc" + struct.pack("<I", 0x9000)


def far_code():
    """Writes a page of code at 2 MiB, then 32 MiB of pages of data, runs that page, and ends by
    port 0xf4."""
    data_at, data_end = 16 << 20, 48 << 20
    touch = bytes.fromhex("8936" "81c600100000") + b"\x81\xfe" + struct.pack("<I", data_end)
    return multiboot(FAR_RETURNS + b"\xbe" + struct.pack("<I", data_at)    # mov $data_at, %esi
                     + touch + b"\x72" + struct.pack("b", -len(touch) - 2)  # a page; jb touch
                     + TO_FAR + bytes.fromhex("ffd0" "b000" "e6f4" "f4"))  # call *%eax; out; hlt


def two_pages():
    """Says a line, and runs code of two pages by turns: a restored guest has one of them."""
    say = b"\xba" + struct.pack("<I", 0x3f8) + b"\xb0\n\xee"              # out '\n', COM1
    return multiboot(FAR_RETURNS + say + TO_FAR + bytes.fromhex("ffd0" "ebfc"))


class Bed(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.linux = self.file("linux", bzimage())
        self.tool = self.file("tool", TOOL.encode())
        os.chmod(self.tool, 0o755)

    def file(self, name, content):
        path = pathlib.Path(self.folder.name, name)
        path.write_bytes(content)
        return str(path)

    def run_it(self, *words, tool=None, cwd=None):
        return subprocess.run([ASYNCPF, "run", *words], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, check=False, timeout=60, cwd=cwd,
                              env={**os.environ, "ASYNCPF_LAB_TOOL": tool or self.tool})


class Asked(Bed):
    def test_the_tool_gets_the_words_and_decides_the_exit_code(self):
        done = self.run_it("--lab", "--kernel", self.linux, "--cmdline", "a b", "--memory=64M")
        self.assertEqual((done.returncode, done.stderr), (42, ""))
        words = done.stdout.splitlines()
        self.assertEqual(words[0], "run")
        self.assertIn(f"--file={os.path.realpath(ASYNCPF)}:asyncpf", words)
        self.assertIn("--cmdline=a b", words[words.index("--"):])

    def test_wrong_files_are_told_before(self):
        short = self.file("short", bzimage()[:3000])
        for words, text in ((["--kernel", short], "bzImage cut short"),
                            (["--kernel", self.linux, "--initrd", "/none"], "No such file"),
                            (["--kernel", self.linux, "--disk", "/none"], "disk /none: ")):
            done = self.run_it("--lab", *words)
            self.assertEqual((done.returncode, done.stdout), (3, ""), done)
            self.assertIn(text, done.stderr)

    def test_what_local_refuses_is_refused_in_the_same_words(self):
        """Files that it would make: the control socket, the report."""
        used = f"{self.folder.name}/used"
        (locked := pathlib.Path(self.folder.name, "locked")).mkdir()
        fd = os.open(locked, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(used)
            server.listen()
            for words, text in (
                    (["--control", used], f"control socket: {used}: a running server answers "
                                          "there; stop it, or name another"),
                    (["--control", f"{locked}/s"],
                     f"control socket: {locked}/s: cannot lock its folder: Resource temporarily "
                     "unavailable; use a folder of your own"),
                    (["--control", self.linux],
                     f"control socket: {self.linux}: something is there that is no socket; "
                     "remove it, or name another"),
                    (["--control", "/none/s"], "control socket: /none/s: its folder: No such file "
                                               "or directory; make it, or name another"),
                    (["--json", "/none/j"], "cannot write: /none/j: No such file or directory; "
                                            "give --json a file that may be written")):
                for place in ("--lab", "--local"):
                    with self.subTest(words=words, place=place):
                        if place == "--local" and not HAS_KVM:
                            continue
                        done = self.run_it(place, "--kernel", MULTIBOOT, "--memory", "16M",
                                           *words)
                        self.assertEqual((done.returncode, done.stdout, done.stderr),
                                         (EXIT_REFUSED, "", f"asyncpf: {text}\n"))
                if words[0] == "--control":  # taken while the lab boots
                    with self.assertRaises(Refused) as said, listening(words[1]):
                        pass
                    self.assertEqual(str(said.exception), text)
        self.assertEqual(os.listdir(locked), [])

    def test_nothing_is_left_of_the_look(self):
        control = f"{self.folder.name}/s"
        done = self.run_it("--lab", "--kernel", self.linux, "--control", control)
        self.assertEqual(done.returncode, 42)
        self.assertFalse(os.path.lexists(control))

    def test_both_is_wrong_usage(self):
        done = self.run_it("--lab", "--local", "--kernel", self.linux)
        self.assertEqual(done.returncode, 2)
        self.assertIn("conflicting options: --lab and --local: ", done.stderr)

    def test_no_tool(self):
        done = self.run_it("--lab", "--kernel", self.linux, tool="/none")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertIn("cannot start the lab: /none: No such file", done.stderr)


class ByItself(Bed):
    """The KVM of the machine decides: what must be true of each kind is asserted."""

    def kvm_is(self):
        """"none", "slow" or "fast", as doctor says."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "none"
        told = subprocess.run([ASYNCPF, "doctor"], capture_output=True, text=True, check=False)
        last = told.stdout.splitlines()[-1]
        self.assertIn("stock Linux guest", last)
        return "fast" if last.startswith("ok") else "slow"

    def test_linux(self):
        kind = self.kvm_is()
        done = self.run_it("--kernel", self.linux, "--memory=64M") if kind != "fast" else None
        if not done:
            print("SKIP: that Linux goes to the lab by itself: this KVM is fast enough")
            return
        self.assertEqual(done.returncode, 42, done)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        why = "emulates guest CPL 0" if kind == "slow" else "/dev/kvm cannot be opened"
        self.assertIn(f"asyncpf: running it in the lab: {'the KVM here ' if kind == 'slow' else ''}"
                      f"{why}", done.stderr)
        quiet = self.run_it("--kernel", self.linux, "--memory=64M", "--quiet")
        self.assertEqual((quiet.returncode, quiet.stderr), (42, ""))

    def test_a_small_kernel_stays_on_a_slow_kvm(self):
        done = self.run_it("--kernel", MULTIBOOT, "--memory=64M", "--cmdline=off")
        self.assertEqual(done.returncode == 42, self.kvm_is() == "none", done)
        if self.kvm_is() != "none":
            self.assertNotIn("lab", done.stderr)

    def test_what_takes_memory_away_goes_to_the_lab_on_a_slow_kvm(self):
        """Its kernel mode would fetch instructions where nothing is, and end."""
        words = ("--kernel", MULTIBOOT, "--memory=64M", "--cmdline=off")
        for more in (("--resident-max", "8M", "--swap", f"{self.folder.name}/s"),
                     ("--swap", f"{self.folder.name}/s")):
            done = self.run_it(*words, *more)
            self.assertEqual(done.returncode == 42, self.kvm_is() != "fast", done)
            if self.kvm_is() == "slow":
                self.assertRegex(done.stderr,
                                 r"\Aasyncpf: running it in the lab: the KVM here emulates guest "
                                 r"CPL 0 \(\d+ instructions/s\), which cannot wait for memory in "
                                 r"--swap[^\n]*\n\Z")

    def test_here_it_is_told_what_may_have_ended_it(self):
        if self.kvm_is() != "slow":
            print("SKIP: this KVM waits for instructions, too")
            return
        kernel = self.file("far", far_code())
        for more, words in (((), ""), (("--swap", "s"), ", or that was swapped out: use --lab")):
            limit = ("--resident-max", "16M") if more else ()
            done = self.run_it("--local", "--kernel", kernel, "--memory=64M", "--cmdline=off",
                               "--exit-port", *limit, *more, cwd=self.folder.name)
            self.assertEqual(done.returncode, 1 if more else 160, done)
            if more:
                self.assertIn(f": an instruction that it cannot emulate{words}): rip=0x200000 ",
                              done.stderr)

    def test_a_restored_guest_is_told_what_may_have_ended_it(self):
        """Beside the page of code that its vCPU stands in none is there when it goes on."""
        if self.kvm_is() != "slow":
            print("SKIP: this KVM waits for instructions, too")
            return
        folder = self.folder.name
        kernel = self.file("two", two_pages())
        with subprocess.Popen([ASYNCPF, "run", "--local", "--kernel", kernel, "--memory=16M",
                               "--control=vm"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, cwd=folder) as vm:
            self.assertEqual(vm.stdout.read(1), b"\n")
            subprocess.run([ASYNCPF, "snapshot", "--control=vm", "snap"], check=True, cwd=folder,
                           stdout=subprocess.DEVNULL)
            vm.kill()
        done = subprocess.run([ASYNCPF, "restore", "snap"], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, check=False, cwd=folder, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(": an instruction that it cannot emulate, or that has not come yet: use "
                      "--faults kernel): rip=", done.stderr)
        advised = subprocess.Popen([ASYNCPF, "restore", "snap", "--faults", "kernel", "--control",
                                    "vm"], stdin=subprocess.DEVNULL, cwd=folder)
        self.addCleanup(advised.wait)
        self.addCleanup(advised.kill)
        end = time.monotonic() + 60
        while (status := subprocess.run([ASYNCPF, "status", "--control", "vm"], cwd=folder,
                                        capture_output=True, text=True, check=False)).returncode:
            self.assertIsNone(advised.poll())
            self.assertLess(time.monotonic(), end)
        self.assertIn("state     running", status.stdout)


if __name__ == "__main__":
    unittest.main()
