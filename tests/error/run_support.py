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

import foreground

LIMIT_S = 60  # for one run, on a slow and busy machine


def asyncpf():
    return str(pathlib.Path(sys.argv[1]).resolve())


def kernel():
    return str(pathlib.Path(sys.argv[2]).resolve())


def has_kvm():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def toucher():
    """
    A multiboot kernel that waits for a key, writes a word to each page from 16 to 64 MiB, compares
    them, and ends.
    """
    base, header_bytes, first, last = 1 << 20, 32, 16 << 20, 64 << 20
    code = bytes.fromhex("66bafd03" "ec" "a801" "74fb")  # in (0x3fd), %al; test $1, %al; jz
    pages = b"\xbe" + struct.pack("<I", first)            # mov $first, %esi
    tail = bytes.fromhex("81c600100000") + b"\x81\xfe" + struct.pack("<I", last)
    write = b"\x89\x36" + tail                            # mov %esi, (%esi)
    code += pages + write + b"\x72" + struct.pack("b", -len(write) - 2)
    check = b"\x39\x36" + b"\x75\x13" + tail              # cmp %esi, (%esi); jne
    code += pages + check + b"\x72" + struct.pack("b", -len(check) - 2)
    code += bytes.fromhex("b000" "e6f4" "f4" "b009" "e6f4" "f4")
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, base,
                       base, base + header_bytes + len(code), 0, base + header_bytes) + code


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
    foreground.restore()
    unittest.main(argv=sys.argv[:1])
