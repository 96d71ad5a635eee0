#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf demo`: which images it takes, what it says about the others, and where its own
image goes.

usage: demo_image_test.py PATH_OF_ASYNCPF
"""
import os
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
from demo_support import (KINDS, PAGE, SMALL, DemoTest, main, need,  # noqa: E402
                          program)

ODD_NAMES = ("a b", "a+b", "a?b", "a%41b", "a%b", "a:b", "a#b", "a&b=c", "file:x", "fault+file:x",
             "ä", "-x", "'q\"")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all",
          "--bounding-set=-all")


class Image(DemoTest):
    def image(self, path, *words):
        return self.demo(*SMALL, "--runs", "user:int", "--image", path, *words)

    def test_missing(self):
        path = self.folder / "nothing here"
        self.refused(self.image(str(path)),
                     f"cannot open image: {path}: No such file or directory; give --image a "
                     "file that exists and may be read")

    def test_directory(self):
        self.refused(self.image(str(self.folder)),
                     f"cannot use image: {self.folder}: it is a directory; give --image a "
                     "regular file or a block device")

    def test_neither_file_nor_device(self):
        """Above all a FIFO without a writer: opening it must not wait."""
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        for path in (fifo, "/dev/zero"):
            self.refused(self.image(path),
                         f"cannot use image: {path}: it is neither a file nor a block device; "
                         "give --image a regular file or a block device")

    def test_empty(self):
        path = self.file("empty", b"")
        for pages in ("64", "0"):
            self.refused(self.image(path, "--pages", pages),
                         f"cannot use image: {path}: it is empty; give --image a file with "
                         "something to read")

    def test_too_short(self):
        path = self.file("short", bytes(3 * PAGE + 17))
        self.refused(self.image(path),
                     f"cannot use image: {path}: it has 4 pages, not the 64 of --pages; use "
                     "--pages 0 for all that it has")

    def test_last_page_is_partial(self):
        need(self, *KINDS)
        path = self.file("partial", os.urandom(3 * PAGE + 17))
        runs = ",".join(KINDS)
        for pages in ("0", "4"):
            self.verified(self.image(path, "--pages", pages, "--runs", runs), *KINDS)
        for data in (b"x", bytes(PAGE - 1)):
            self.verified(self.image(self.file("tiny", data), "--pages", "0"), "user:int")

    def test_part_of_an_image(self):
        need(self, "user:int")
        path = self.file("long", os.urandom(100 * PAGE))
        self.verified(self.image(path), "user:int")

    def test_unreadable(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("needs root and setpriv, to be somebody else")
        path = self.file("secret", bytes(PAGE))
        os.chmod(path, 0)
        copy = shutil.copy(program(), self.folder)
        os.chmod(copy, 0o755)
        self.refused(self.command([*NOBODY, copy, "demo", "--image", path]),
                     f"cannot open image: {path}: Permission denied; give --image a file that "
                     "exists and may be read")

    def test_name_too_long(self):
        self.refused(self.image("x" * 5000),
                     r"cannot open image: \.\.\.x+: a name of more than 4095 bytes; use a "
                     "shorter path")

    def test_long_name_leaves_room_for_the_reason(self):
        path = "/".join(["d" * 200] * 5)
        self.refused(self.image(path),
                     r"cannot open image: \.\.\.d+: No such file or directory; give --image a "
                     "file that exists and may be read")

    def test_names_that_mean_something_in_a_uri(self):
        need(self, "user:int")
        data = os.urandom(5 * PAGE)
        for name in ODD_NAMES:
            self.file(name, data)
            for delay in ("0", "100"):  # with and without a wrapper
                with self.subTest(name=name, delay=delay):
                    self.verified(self.image(name, "--pages", "0", "--delay-us", delay),
                                  "user:int")

    def test_control_characters_stay_on_the_line(self):
        self.refused(self.image("a\nb\x1b[31m"),
                     r"cannot open image: a\?b\?\[31m: No such file or directory; .*")

    def test_truncated_while_the_guest_runs(self):
        need(self, *KINDS)
        for kind in KINDS:
            path = self.file("shrinks", os.urandom(256 * PAGE))
            with self.subTest(kind=kind), self.running(
                    "--image", path, "--pages", "0", "--tasks", "4", "--delay-us", "20000",
                    "--runs", kind, terminal=True) as demo:
                demo.wait_for(" [0-9]+ %")
                os.truncate(path, 2 * PAGE)
                demo.wait_for(rf"asyncpf: paused: {kind}: memory at guest address 0x[0-9a-f]+: "
                              rf"{path} ended at byte [0-9]+ although it had 1048576 when it "
                              r"was opened \(tried 5 times\); waiting for it, Ctrl-C ends the "
                              "run\r\n")
                self.assertTrue(demo.alive())
                demo.send(signal.SIGINT)
                code, out, took = demo.finish()
                self.assertEqual((code, self.rows(out)), (-signal.SIGINT, []))
                self.assertLess(took, 3)
                self.assertRegex(demo.err, f"asyncpf: run stopped: {kind}: by a signal, while it "
                                 "was paused for want of [0-9]+ blocks?; see why above\r\n\\Z")


class OwnImage(DemoTest):
    def test_folder_for_it(self):
        for folder, why in (("/nonexistent", "No such file or directory"),
                            ("/proc", "[A-Z].*"), (program(), "Not a directory")):
            self.refused(self.demo(*SMALL, env={"TMPDIR": folder}),
                         f"cannot make the demo's image: {folder}: {why}; set TMPDIR to a "
                         "folder that takes files")

    def test_no_space(self):
        mount = f"mount -t tmpfs -o size=64k none {self.temporary}"
        if self.command(["unshare", "--mount", "sh", "-ec", mount]).returncode != 0:
            self.skipTest("no mount namespace here")
        done = self.command(["unshare", "--mount", "sh", "-ec",
                             f"{mount}; exec {program()} demo {' '.join(SMALL)}"])
        self.refused(done, f"cannot write the demo's image: page 16 in {self.temporary}: No "
                     "space left on device; free space there, set TMPDIR, or use fewer --pages")

    def test_file_size_limit(self):
        done = self.command(["sh", "-c", f"ulimit -f 8; exec {program()} demo {' '.join(SMALL)}"])
        self.refused(done, "cannot write the demo's image: page [0-9]+ in .*: File too large; "
                     r"raise the limit of file sizes \(ulimit -f\)")

    def test_stopped_while_it_is_prepared(self):
        """Hashing a large image takes long; it ends when it is told to."""
        need(self, "user:int")
        path = self.folder / "sparse"
        with path.open("wb") as f:
            f.truncate(64 << 30)
        for signum in (signal.SIGINT, signal.SIGTERM):
            with self.running("--image", str(path), "--pages", "0") as demo:
                with self.assertRaises(subprocess.TimeoutExpired):
                    demo.process.wait(0.3)
                self.assertEqual(
                    self.stopped(demo, "stopped: the memory image: by a signal, before it was "
                                 "ready", signum), "")


if __name__ == "__main__":
    sys.exit(main())
