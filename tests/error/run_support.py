# SPDX-License-Identifier: Apache-2.0
"""What the tests of `asyncpf run` share: the test kernel, a folder, a run with a time limit."""
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

LIMIT_S = 60  # for one run, on a slow and busy machine


def asyncpf():
    return str(pathlib.Path(sys.argv[1]).resolve())


def kernel():
    return str(pathlib.Path(sys.argv[2]).resolve())


def has_kvm():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def toucher():
    """
    A multiboot kernel that writes to each page from 16 to 64 MiB, again and again, in user mode:
    a KVM that emulates kernel mode cannot fetch instructions from memory that was taken away.
    """
    base, header_bytes, first, last = 1 << 20, 32, 16 << 20, 64 << 20
    at = base + header_bytes
    write = bytes.fromhex("8936" "81c600100000" "81fe") + struct.pack("<I", last)
    loop = b"\xbe" + struct.pack("<I", first) + write               # mov $first, %esi
    loop += b"\x72" + struct.pack("b", -len(write) - 2)
    loop += b"\xeb" + struct.pack("b", -len(loop) - 2)
    enter_bytes = 24
    enter = bytes.fromhex("b974010000" "b808000000" "31d2" "0f30")  # SYSENTER_CS = 8
    enter += b"\xba" + struct.pack("<I", at + enter_bytes)          # mov $loop, %edx
    enter += b"\x31\xc9" b"\x0f\x35" + b"\x90"                     # xor %ecx, %ecx; sysexit; nop
    code = enter + loop
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, base,
                       base, at + len(code), 0, at) + code


class RunTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def file(self, name, data):
        (self.folder / name).write_bytes(data)
        return name

    def run_it(self, *words, **options):
        """A run in the test's folder, with nothing typed."""
        options = {"stdin": subprocess.DEVNULL, "timeout": LIMIT_S, **options}
        return subprocess.run([asyncpf(), "run", "--local", "--memory", "16M", *words], check=False,
                              capture_output=True, text=True, cwd=self.folder, **options)

    def fails(self, words, pattern, **options):
        """Exit code 3, one line on stderr that matches, and nothing was printed."""
        done = self.run_it(*words, **options)
        self.assertRegex(done.stderr, rf"\Aasyncpf: {pattern}\n\Z")
        self.assertEqual((done.returncode, done.stdout), (3, ""))

    def start(self, *words, **options):
        process = subprocess.Popen(
            [asyncpf(), "run", "--local", "--kernel", kernel(), "--memory", "16M",
             *words],
            cwd=self.folder, **options)
        self.addCleanup(process.wait)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)


def main():
    """argv: PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL"""
    if not has_kvm():
        print("SKIP: /dev/kvm may not be used")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
