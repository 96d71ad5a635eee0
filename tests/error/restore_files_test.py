#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf restore`: files that a snapshot, a source's URI and --prefetch name are destroyed by no
other option; what is damaged is named; what does not fit the snapshot is wrong usage. Without KVM.

usage: restore_files_test.py PATH_OF_ASYNCPF
"""
import lzma
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

ASYNCPF = str(pathlib.Path(sys.argv[1]).resolve())
COMPAT = pathlib.Path(__file__).resolve().parents[1] / "compat/snapshot-1"
LIMIT_S = 60
USAGE, REFUSED = 2, 3
XXH3_OF_NOTHING = 0x2d06800538d394c2


class RestoreFiles(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        (self.folder / "snap").mkdir()
        for name in ("memory", "state"):
            content = lzma.decompress((COMPAT / f"{name}.xz").read_bytes())
            (self.folder / "snap" / name).write_bytes(content)
        self.memory_bytes = len((self.folder / "snap/memory").read_bytes())

    def contents(self):
        return {str(p): p.read_bytes() if p.is_file() else None
                for p in self.folder.rglob("*")}

    def refused(self, code, says, *words):
        """One line with its advice; everything is as it was."""
        before = self.contents()
        done = subprocess.run([ASYNCPF, "restore", "snap", *words], cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done)
        self.assertRegex(done.stderr, rf"\Aasyncpf: [^\n]*{says}[^\n]*; [^\n]*\n\Z")
        self.assertEqual(self.contents(), before)

    def test_what_a_source_names(self):
        for name in ("mem", "man"):
            (self.folder / name).write_bytes(b"x" * self.memory_bytes)
        os.link(self.folder / "mem", self.folder / "hard")
        for uri, path in (("mem", "mem"), ("file:mem", "hard"), ("file:./m%65m?direct=1", "mem"),
                          (f"delay+file:{self.folder}/mem?ms=1", "mem"), ("zst:mem", "mem"),
                          ("zst:mem?manifest=man", "man"), ("qemu:mem", "mem"),
                          ("layers:mem", "mem"), ("cache+file:mem?cache-dir=c", "hard"),
                          ("https://localhost/x#http-ca=man", "man")):
            for option in ("json", "trace", "record", "control", "swap"):
                with self.subTest(uri=uri, option=option):
                    self.refused(REFUSED, rf"same file: --source \S+ and --{option} {path}: .*",
                                 "--source", uri, f"--{option}", path)

    def test_what_prefetch_names(self):
        """A working set may be noted anew where it was read; nothing else goes there."""
        (self.folder / "set").write_bytes(b"APFTOUCH" + struct.pack(
            "<IIQQ", 1, 0, self.memory_bytes, XXH3_OF_NOTHING))
        for option in ("json", "trace", "control", "swap"):
            self.refused(REFUSED, "same file: --prefetch set and --\\w+ ./set: .*", "--prefetch",
                         "set", f"--{option}", "./set")
        done = subprocess.run([ASYNCPF, "restore", "snap", "--prefetch", "set", "--record", "set",
                               "--sandbox", "off"], cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        self.assertNotIn("same file", done.stderr)

    def test_a_fifo_is_not_waited_for(self):
        os.mkfifo(self.folder / "fifo")
        self.refused(REFUSED, "cannot read: fifo: a pipe that nobody writes to", "--prefetch",
                     "fifo")

    def test_what_is_damaged_is_named(self):
        state = self.folder / "snap/state"
        whole = state.read_bytes()
        for content, why in ((b"", "is cut short"), (whole[:99], "is cut short, or too long"),
                             (whole[:-1] + b"x", "has changed"), (b"x" * 99, "is something else")):
            state.write_bytes(content)
            self.refused(REFUSED, f"cannot read the snapshot snap: the file 'state' {why}")
        state.unlink()
        state.mkdir()
        self.refused(REFUSED, "cannot read the snapshot snap: reading its state: Is a directory")

    def test_what_does_not_fit_is_wrong_usage(self):
        for says, *words in (
                ("the snapshot has network cards: 0, not 1", "--net", "user"),
                ("the snapshot has no socket device", "--vsock", "uds=v"),
                ("nothing is noted", "--record-time", "5")):
            self.refused(USAGE, says, *words)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
