#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files of `asyncpf run` that are the same one by any name: refused before anything is written
or made.

usage: run_files_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

CONTENT = bytes(range(256)) * 32


class Pairs(RunTest):
    def setUp(self):
        super().setUp()
        (self.folder / "sub").mkdir()

    def listing(self):
        return sorted(str(p) for p in self.folder.rglob("*"))

    def refused(self, first, second, *more):
        """One line that names both, and the folder is as it was."""
        before = self.listing()
        words = []
        for option, path in (first, second):
            words += [f"--{option}", path]
            if option == "swap":
                words += ["--resident-max", "8M"]
        options = {w for w in words if w.startswith("--")}
        boot = [] if "--kernel" in options else ["--kernel", kernel()]
        self.fails([*boot, "--cmdline", "off", *words, *more], "same file: .*; name two")
        self.assertEqual(self.listing(), before)

    def test_a_disk_and_what_is_written(self):
        self.file("d", CONTENT)
        os.link(self.folder / "d", self.folder / "hard")
        os.symlink("../d", self.folder / "sub/soft")
        for name in ("d", "hard", "sub/soft", "sub/../d", "./d", str(self.folder / "d")):
            for option in ("json", "trace", "swap", "control"):
                with self.subTest(name=name, option=option):
                    self.refused(("disk", "d,ro"), (option, name))
                    self.refused(("disk", "d"), (option, name))
            self.refused(("disk", "d"), ("disk", name))
            self.refused(("disk", "d"), ("disk", f"{name},ro"))
        self.assertEqual((self.folder / "d").read_bytes(), CONTENT)
        done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--disk", "d,ro", "--disk",
                           "hard,ro")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_kernel_and_initrd(self):
        shutil.copy(kernel(), self.folder / "k")
        self.file("i", CONTENT)
        for option in ("json", "trace", "control", "swap", "disk"):
            with self.subTest(option=option):
                self.refused(("kernel", "k"), (option, "./k"))
                self.refused(("initrd", "i"), (option, "./i"))
        self.assertEqual((self.folder / "i").read_bytes(), CONTENT)
        self.assertEqual((self.folder / "k").read_bytes(), pathlib.Path(kernel()).read_bytes())

    def test_names_of_what_is_not_there_yet(self):
        os.symlink("../new", self.folder / "sub/dangling")
        os.symlink(self.folder / "sub/dangling", self.folder / "twice")
        for one, other in (("json", "control"), ("json", "swap"), ("control", "swap"),
                           ("trace", "json"), ("swap", "trace"), ("control", "trace")):
            for name in ("new", "./new", "sub/../new", str(self.folder / "new"), "sub/dangling",
                         "twice"):
                with self.subTest(one=one, other=other, name=name):
                    self.refused((one, "new"), (other, name))

    def test_the_same_name_in_two_folders(self):
        (self.folder / "other").mkdir()
        done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--json", "sub/x",
                           "--control", "other/x")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_link_to_itself(self):
        os.symlink("loop", self.folder / "loop")
        done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--json", "loop")
        self.assertEqual((done.returncode, done.stderr), (
            3, "asyncpf: cannot write: loop: Too many levels of symbolic links; give --json a file "
               "that may be written\n"))

    def test_a_stale_socket(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(self.folder / "s"))
        self.refused(("json", "s"), ("control", "sub/../s"))


class DiskWords(RunTest):
    """A word that is none is no part of a name where the rest of it is one."""

    def test_words_that_are_none(self):
        self.file("d", CONTENT)
        for word, advice in (("rO", "; did you mean 'ro'?"), ("iosp=5", "; did you mean 'iops='?"),
                             ("werror=stop", ", or given twice; see 'asyncpf run --help'"),
                             ("", ", or given twice; see 'asyncpf run --help'")):
            done = self.run_it("--kernel", kernel(), "--disk", f"d,{word}")
            self.assertEqual((done.returncode, done.stdout, done.stderr), (
                2, "", f"asyncpf: bad value: --disk d,{word}: '{word}' is no word for a disk"
                       f"{advice}\n"))
        self.file("d,werror=stop", CONTENT)
        done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--disk", "d,werror=stop")
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class InUse(RunTest):
    """What another run has."""

    def spin(self, *words):
        process = self.start("--cmdline", "spin", *words, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
        while "spin" not in process.stdout.readline():
            pass
        return process

    def test_json_is_no_disk_of_another_run(self):
        self.file("d", CONTENT)
        for words in (["--disk", "d"], ["--disk", "d,ro"]):
            process = self.spin(*words)
            for option in ("json", "trace"):
                self.fails(["--kernel", kernel(), "--cmdline", "off", f"--{option}", "d"],
                           "cannot write: d: in use as a disk, or by another run; give "
                           f"--{option} another file")
                demo = subprocess.run([asyncpf(), "demo", "--pages", "16", f"--{option}", "d"],
                                      cwd=self.folder, capture_output=True, text=True, check=False)
                self.assertEqual((demo.returncode, demo.stdout, demo.stderr), (
                    3, "", "asyncpf: cannot write: d: in use as a disk, or by another run; give "
                           f"--{option} another file\n"))
            process.kill()
            process.communicate()
            self.assertEqual((self.folder / "d").read_bytes(), CONTENT)

    def test_json_of_two_runs(self):
        process = self.spin("--json", "j")
        self.fails(["--kernel", kernel(), "--cmdline", "off", "--json", "j"],
                   "cannot write: j: in use as a disk, or by another run; .*")
        self.fails(["--kernel", kernel(), "--cmdline", "off", "--disk", "j"],
                   "disk j: in use as a disk by another process or VM; .*")
        process.kill()
        process.communicate()

    def other(self, *words):
        return subprocess.run([asyncpf(), *words], cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)

    def test_a_snapshot_s_own_files(self):
        """Nothing that a restored VM writes goes there; a FIFO among them is not waited for."""
        process = self.spin("--control", "vm")
        done = self.other("snapshot", "--control", "vm", "-")
        self.assertEqual(done.returncode, 2, done)
        done = self.other("snapshot", "--control", "vm", "snap")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        process.kill()
        process.communicate()
        files = {path: path.read_bytes() for path in (self.folder / "snap").iterdir()}
        self.assertEqual(len(files), 3)
        os.symlink("snap", self.folder / "soft")
        for path in files:
            for option in ("json", "trace", "control", "swap"):
                done = self.other("restore", "snap", f"--{option}", f"soft/{path.name}")
                self.assertEqual(done.returncode, 3, done)
                self.assertIn("one would destroy the other; name two", done.stderr)
        self.file("memory", b"x" * 4096)
        done = self.other("restore", "snap", "--source", "memory", "--json", "./memory")
        self.assertIn("same file: --source memory and --json ./memory", done.stderr)
        self.assertEqual({path: path.read_bytes() for path in files}, files)
        (self.folder / "snap/state").unlink()
        os.mkfifo(self.folder / "snap/state")
        done = self.other("restore", "snap")
        self.assertEqual((done.returncode, done.stderr),
                         (3, "asyncpf: cannot read the snapshot snap: the file 'state' is cut "
                             "short; it is damaged, or something else: name another copy\n"))

    def test_a_fifo_without_a_reader(self):
        """Told soon; who reads may come a little later than we."""
        os.mkfifo(self.folder / "pipe")
        for option in ("json", "trace"):
            self.fails(["--kernel", kernel(), "--cmdline", "off", f"--{option}", "pipe"],
                       "cannot write: pipe: a FIFO that nobody reads; start its reader first, or "
                       f"give --{option} a file", timeout=20)
        with subprocess.Popen(["sh", "-c", "sleep 1; cat pipe"], cwd=self.folder, text=True,
                              stdout=subprocess.PIPE) as cat:
            done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--trace", "pipe")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(json.loads(cat.communicate()[0])[0]["name"], "process_name")

    def test_a_reader_that_does_not_read(self):
        """What it leaves lying ends nothing, nor holds up the end for long."""
        os.mkfifo(self.folder / "pipe")
        reader = os.open(self.folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        process = subprocess.Popen(
            [asyncpf(), "demo", "--quiet", "--runs", "stall", "--pages", "4096", "--delay-us",
             "20000", "--trace", "pipe"], cwd=self.folder, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        there = bytearray(4)
        while struct.unpack("i", there)[0] < 4096:
            self.assertIsNone(process.poll())
            time.sleep(0.01)
            fcntl.ioctl(reader, termios.FIONREAD, there)
        process.terminate()
        _, said = process.communicate(timeout=20)
        self.assertEqual((process.returncode, said), (
            -signal.SIGTERM, "asyncpf: run stopped: stall: by a signal; its result is left out\n"
                             "asyncpf: cannot write: pipe: its reader does not read; give "
                             "--trace one that does, or a file\n"))

    def test_json_may_be_no_file(self):
        for name in ("/dev/stdout", "/dev/null"):
            done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--json", name)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        os.mkfifo(self.folder / "pipe")
        with subprocess.Popen(["cat", "pipe"], cwd=self.folder, stdout=subprocess.PIPE,
                              text=True) as cat:
            done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--json", "pipe")
            self.assertIn('"end": "power-off"', cat.communicate()[0])
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    main()
