#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks of `asyncpf run`: what the guest sees of one, which are refused, and what becomes of a
guest whose host cannot write. What needs root or a loop device is skipped without.

usage: run_disk_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL PATH_OF_SHIM
"""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

MIB = 1 << 20
QCOW2 = b"QFI\xfb\0\0\0\3"
GZIP = b"\x1f\x8b\x08\0"


def shim():
    return os.path.abspath(sys.argv[3])


def sector(n):
    return struct.pack("<I", n) * 128


class DiskTest(RunTest):
    def guest(self, cmdline, *words, **options):
        return self.run_it("--kernel", kernel(), "--cmdline", cmdline, *words, **options)

    def sees(self, disk, sectors, block=512, physical=0, stderr=""):
        done = self.guest("disk off", "--disk", disk)
        self.assertEqual((done.returncode, done.stderr), (0, stderr))
        self.assertIn(f"disk: {sectors} sectors, blocks of {block}, 2^{physical} of them "
                      "physical\n", done.stdout)

    def start_guest(self, cmdline, *words, env=None, **options):
        process = self.start("--control", "c", "--cmdline", cmdline, *words,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True,
                             env={**os.environ, **(env or {})}, **options)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def ask(self, verb, *words):
        return subprocess.run([asyncpf(), verb, "--control", "c", *words], cwd=self.folder,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)

    def status(self):
        return json.loads(self.ask("status", "--json").stdout)


class Files(DiskTest):
    def test_it_is_written(self):
        self.file("d", bytes(16384))
        done = self.guest("disk fill=4+20 off", "--disk", "d")
        self.assertIn("filled: 20 requests, the last with status 0, flush 0\n", done.stdout)
        self.assertEqual((self.folder / "d").read_bytes(),
                         bytes(2048) + b"".join(sector(n) for n in range(4, 24)) + bytes(4096))

    def test_odd_sizes(self):
        self.file("odd", bytes(1300))
        self.fails(["--kernel", kernel(), "--disk", "odd"],
                   "disk odd: 1300 bytes are no whole number of 512-byte sectors; give ',ro' to "
                   "read it without the last 276 bytes, or make it larger with truncate -s %512")
        note = "asyncpf: note: disk odd: its last 276 bytes are no whole sector: the guest " \
               "does not see them\n"
        self.sees("odd,ro", 2, stderr=note)
        done = self.guest("disk off", "--quiet", "--disk", "odd,ro")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.file("little", bytes(100))
        for words in ("little", "little,ro"):
            self.fails(["--kernel", kernel(), "--disk", words],
                       "disk little: 100 bytes; a disk has a sector of 512 at least")

    def test_formats(self):
        for name, head, pattern in (
                ("q", QCOW2, "it looks like a qcow2 image, and only raw disks are known; convert "
                             "it with 'qemu-img convert -O raw', or give ',raw' to use it as it "
                             "is"),
                ("v", b"KDMV\1\0\0\0", "it looks like a VMDK image, .*"),
                ("g", GZIP, "it looks like what gzip compresses, and only raw disks are known; "
                            "unpack it with gunzip, or give ',raw' to use it as it is")):
            self.file(name, head + bytes(4096 - len(head)))
            for words in (name, f"{name},ro"):
                self.fails(["--kernel", kernel(), "--disk", words], f"disk {name}: {pattern}")
            self.sees(f"{name},raw", 8)
            self.sees(f"{name},ro,raw", 8)
        # A VHD of fixed size is a disk with something behind it.
        self.file("f", bytes(4096) + b"conectix" + bytes(504))
        self.fails(["--kernel", kernel(), "--disk", "f"], "disk f: it looks like a VHD image, .*")
        # Nor is one whose size is odd blamed for that.
        self.file("g", GZIP + bytes(777))
        self.fails(["--kernel", kernel(), "--disk", "g"], "disk g: it looks like .*")

    @unittest.skipUnless(shutil.which("qemu-img"), "no qemu-img here")
    def test_images_as_their_own_tool_makes_them(self):
        """Told as a disk, and as a kernel."""
        for kind, name in (("vpc", "VHD"), ("vhdx", "VHDX"), ("vdi", "VDI"), ("qed", "QED"),
                           ("parallels", "Parallels"), ("vmdk", "VMDK"), ("qcow2", "qcow2")):
            with self.subTest(kind=kind):
                subprocess.run(["qemu-img", "create", "-q", "-f", kind, kind, "1M"], check=True,
                               cwd=self.folder)
                self.fails(["--kernel", kernel(), "--disk", kind],
                           f"disk {kind}: it looks like an? {name} image, and only raw disks are "
                           "known; convert it with 'qemu-img convert -O raw', .*")
                self.fails(["--kernel", kind],
                           f"{kind}: this is an? {name} disk image, which cannot be loaded; a disk "
                           "is given with --disk, .*")

    def test_somebody_writes_to_it(self):
        self.file("d", bytes(4096))
        with open(self.folder / "d", "r+b"):
            for words in ("d", "d,ro"):
                self.fails(["--kernel", kernel(), "--disk", words],
                           "disk d: in use: another program has it open for writing; end that "
                           "first, or copy the file")
        with open(self.folder / "d", "rb"):
            self.sees("d", 8)


class Limits(DiskTest):
    def devices(self, *words, cmdline):
        """By their names, of the run's JSON."""
        done = self.guest(cmdline, "--json", "out", *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        report = json.loads((self.folder / "out").read_text(encoding="utf-8"))
        return {d.pop("name"): d for d in report["devices"]}

    def test_what_devices_did(self):
        self.file("a", bytes(MIB))
        self.file("b", bytes(MIB))
        free = self.devices("--disk", "a", "--disk", "b,ro", cmdline="disk fill=0+200 off")
        self.assertEqual(list(free), ["blk0", "blk1", "rng"])
        self.assertEqual(free["blk0"]["written_bytes"], 200 * 512)
        self.assertGreater(free["blk0"]["requests"], 200)
        self.assertGreater(free["blk0"]["cpu_ns"], 0)
        for name, device in free.items():
            self.assertEqual(device["throttled_ns"], 0, name)
        self.assertEqual(free["blk1"]["written_bytes"], 0)

    def test_held_back(self):
        """Far below what a guest asks for, however busy the host is."""
        for words, sectors in (("a,bw=16K", 200), ("a,iops=20", 40)):
            self.file("a", bytes(MIB))
            disk = self.devices("--disk", words, cmdline=f"disk fill=0+{sectors} off")["blk0"]
            self.assertGreater(disk["throttled_ns"], 0)
            self.assertEqual(disk["written_bytes"], sectors * 512)
            self.assertEqual((self.folder / "a").read_bytes()[:sectors * 512],
                             b"".join(sector(n) for n in range(sectors)))

    def held_back(self):
        """A guest whose disk gives nothing any more."""
        self.file("a", bytes(MIB))
        process = self.start_guest("disk fill=0+1000 spin", "--disk", "a,bw=1")
        while not self.devices_now().get("blk0", {}).get("throttled_ns"):
            self.assertIsNone(process.poll())
        return process

    def devices_now(self):
        done = self.ask("status", "--json")
        return {d["name"]: d for d in json.loads(done.stdout)["devices"]} if done.stdout else {}

    def test_nobody_waits_for_what_is_held_back(self):
        process = self.held_back()
        names = {(task / "comm").read_text(encoding="ascii").strip()
                 for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()}
        self.assertLessEqual({"blk0", "rng"}, names)
        text = self.ask("status").stdout
        self.assertRegex(text, r"\ndevice +requests +read +written +held, s +CPU, s +dropped\n"
                               r"blk0 +\d+ ")
        self.assertEqual(self.ask("pause").stdout, "paused\n")
        self.assertEqual(self.ask("resume").stdout, "running\n")
        self.assertEqual(self.ask("stop").returncode, 0)
        self.assertEqual(process.wait(LIMIT_S), 5)

    def test_nor_does_a_signal(self):
        process = self.held_back()
        process.terminate()
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGTERM)

    def test_no_rate(self):
        self.file("a", bytes(MIB))
        for words, text in (
                (("--disk", "a,bw=0"), "--disk a,bw=0: '0' is no rate; give bytes (64M) per "
                 "second, above 0, or leave it out"),
                (("--disk", "a,ro,iops=1K"), "--disk a,ro,iops=1K: '1K' is no rate; give a number "
                 "per second, above 0, or leave it out"),
                (("--rng", "bw=0"), "--rng bw=0: '0' is no rate; give bytes (64M) per second, "
                 "above 0, or leave it out"),
                (("--rng", "64K"), "--rng 64K: there is no such word; write bw=SIZE, as in "
                 "bw=64K")):
            done = self.guest("off", *words)
            self.assertEqual((done.returncode, done.stderr), (2, f"asyncpf: bad value: {text}\n"))


class Failing(DiskTest):
    """The host cannot write, for a while."""

    def resume(self, process):
        """It may be paused again before the command has looked."""
        done = self.ask("resume")
        self.assertIn((done.returncode, done.stdout), ((0, "running\n"), (1, "")), done)
        self.told(process, "the VM goes on: what the host failed to do is tried again")

    def told(self, process, pattern):
        line = process.stderr.readline()
        self.assertRegex(line, rf"\Aasyncpf: {pattern}\n\Z")
        return line

    def preload(self, call, first, times, code):
        return {"LD_PRELOAD": shim(), "SHIM_FAIL": f"{call} {first} {times} {code}"}

    @staticmethod
    def fill(names, count):
        return b"".join(sector(n) for n in range(names, names + count))

    def folder_fd(self, name):
        fd = os.open(self.folder / name, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        return fd

    def ends_well(self, process, requests, flush=0, status=0):
        out, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn(f"filled: {requests} requests, the last with status {status}, "
                      f"flush {flush}\n", out)
        return err

    def test_too_large_a_file(self):
        """By the limit of a running process, so that it can be mended."""
        with open(self.folder / "d", "wb") as f:
            f.truncate(32 * MIB)
        first = 20 * MIB // 512 - 8
        process = self.start_guest(f"fill={first}+16 off", "--disk", "d", preexec_fn=lambda:
                                   resource.setrlimit(resource.RLIMIT_FSIZE,
                                                      (20 * MIB, resource.RLIM_INFINITY)))
        what = "disk d: writing 512 bytes at 20971520: File too large"
        self.told(process, rf"the VM is paused: {what}; mend that, then 'asyncpf resume "
                           r"--control c'")
        s = self.status()
        self.assertEqual((s["state"], s["why"], s["disk_errors"]), ("paused", what, 1))
        # Not mended: it says so again.
        self.resume(process)
        self.told(process, f"the VM is paused: {what}; mend .*")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.resume(process)
        self.ends_well(process, 16)
        data = (self.folder / "d").read_bytes()
        self.assertEqual(data[first * 512:(first + 16) * 512], self.fill(first, 16))

    def test_a_restored_one_that_never_runs(self):
        """Its write fails before it is refused for something else: nobody waits for a resume."""
        with open(self.folder / "d", "wb") as f:
            f.truncate(32 * MIB)
        first = 24 * MIB // 512
        process = self.start_guest(f"fill={first}+400 off", "--disk", "d,iops=20")
        until = time.monotonic() + LIMIT_S
        while b"\0" * 512 == os.pread(self.folder_fd("d"), 512, first * 512):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.05)
        self.assertEqual(self.ask("snapshot", "snap").stderr, "")
        self.ask("stop")
        process.wait(LIMIT_S)
        (self.folder / "held").mkdir()
        fcntl.flock(self.folder_fd("held"), fcntl.LOCK_EX)
        done = subprocess.run([asyncpf(), "restore", "snap", "--control", "held/c"],
                              cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S / 4, preexec_fn=lambda:
                              resource.setrlimit(resource.RLIMIT_FSIZE,
                                                 (20 * MIB, resource.RLIM_INFINITY)))
        self.assertRegex(done.stderr, "the VM is paused: disk .*d: writing .*: File too large")
        self.assertIn("cannot lock its folder", done.stderr)
        self.assertEqual(done.returncode, 3)

    def test_each_call(self):
        """Whichever write fails, and however often: nothing is lost."""
        for first, times, code, why in ((1, 1, 28, "No space left on device"),
                                        (5, 3, 5, "Input/output error")):
            with self.subTest(first=first):
                self.file("d", bytes(8192))
                process = self.start_guest("fill=0+16 off", "--disk", "d",
                                           env=self.preload("pwritev", first, times, code))
                for _ in range(times):
                    self.told(process, f"the VM is paused: disk d: writing 512 bytes at "
                                       f"{512 * (first - 1)}: {why}; mend that, .*")
                    self.resume(process)
                self.assertEqual(self.ends_well(process, 16), "")
                self.assertEqual((self.folder / "d").read_bytes(), self.fill(0, 16))

    def test_the_guest_is_told(self):
        self.file("d", bytes(8192))
        process = self.start_guest("fill=0+16 spin", "--disk", "d,werror=report",
                                   env=self.preload("pwritev", 3, 1, 28))
        self.told(process, "note: disk d: writing 512 bytes at 1024: No space left on device; the "
                           "guest was told")
        while not (line := process.stdout.readline()).startswith("filled"):
            self.assertTrue(line)
        self.assertEqual(line, "filled: 3 requests, the last with status 1, flush 0\n")
        s = self.status()
        self.assertEqual((s["state"], s["why"], s["disk_errors"]), ("running", None, 1))

    def test_a_flush_that_failed_is_told(self):
        """Nobody knows what it kept: to try again would be a lie."""
        self.file("d", bytes(8192))
        process = self.start_guest("fill=0+2 off", "--disk", "d",
                                   env=self.preload("fdatasync", 1, 1, 5))
        self.told(process, "the VM is paused: disk d: flushing: Input/output error; what the "
                           "guest wrote since it last flushed may be lost, and it is told when it "
                           "goes on; mend that, .*")
        self.resume(process)
        self.ends_well(process, 2, flush=1)

    def test_a_flush_fails_while_a_snapshot_is_made(self):
        """That holds the disk by then, and is given up at once: it waits for nobody who resumes."""
        self.file("d", bytes(8192))
        os.mkfifo(self.folder / "gate")
        process = self.start_guest("fill=0+2 off", "--disk", "d", "--sandbox", "off",
                                   env={**self.preload("fdatasync", 1, 1, 5), "SHIM_HIT": "hit",
                                        "SHIM_GATE": "gate"})
        end = time.monotonic() + LIMIT_S
        while not (self.folder / "hit").exists():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        snapshot = subprocess.Popen([asyncpf(), "snapshot", "--control", "c", "snap"],
                                    cwd=self.folder, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True)
        self.addCleanup(snapshot.kill)
        time.sleep(0.5)  # nothing tells when it holds the disk; too early it is refused, too
        os.close(os.open(self.folder / "gate", os.O_WRONLY))
        self.told(process, "the VM is paused: disk d: flushing: Input/output error; .*")
        _, said = snapshot.communicate(timeout=LIMIT_S)
        self.assertEqual(snapshot.returncode, 1, said)
        self.assertRegex(said, "snapshot: the VM is paused: disk d: flushing: Input/output error; ")
        self.assertFalse((self.folder / "snap").exists())
        s = self.status()
        self.assertEqual((s["state"], s["disk_errors"]), ("paused", 1))
        self.assertIn("flushing", s["why"])
        self.resume(process)
        self.ends_well(process, 2, flush=1)

    def test_it_can_be_ended(self):
        for act in (lambda p: p.terminate(), lambda p: self.ask("stop")):
            self.file("d", bytes(8192))
            process = self.start_guest("fill=0+16 off", "--disk", "d",
                                       env=self.preload("pwritev", 1, 1000000, 28))
            self.told(process, "the VM is paused: .*")
            act(process)
            process.communicate(timeout=LIMIT_S)
            self.assertIn(process.returncode, (5, -15))

    def test_without_a_socket(self):
        self.file("d", bytes(8192))
        process = self.start("--cmdline", "fill=0+16 off", "--disk", "d",
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True,
                             env={**os.environ, **self.preload("pwritev", 1, 1000000, 28)})
        self.told(process, r"the VM is paused: disk d: .*; Ctrl-C ends it \(with --control it "
                           r"could be resumed\)")
        process.terminate()
        process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, -15)

    def test_nobody_reads_what_is_said(self):
        """It is left out, and `status` says it; the VM can be resumed and ended."""
        self.file("d", bytes(8192))
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        os.set_blocking(ends[1], False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ends[1], bytes(select.PIPE_BUF))
        os.set_blocking(ends[1], True)
        process = self.start("--control", "c", "--cmdline", "fill=0+16 off", "--disk", "d",
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=ends[1],
                             env={**os.environ, **self.preload("pwritev", 1, 1000000, 28)})
        for errors in (1, 2):
            self.wait_until_paused(errors)
            self.ask("resume")
        self.wait_until_paused(3)
        process.terminate()
        self.assertEqual(process.wait(timeout=LIMIT_S), -15)

    def wait_until_paused(self, errors):
        end = time.monotonic() + LIMIT_S
        while True:
            done = self.ask("status", "--json")
            if done.returncode == 0:
                s = json.loads(done.stdout)
                if s["state"] == "paused" and s["disk_errors"] >= errors:
                    return
            self.assertLess(time.monotonic(), end, done)
            time.sleep(0.01)


class Devices(DiskTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which("losetup"):
            self.skipTest("loop devices are root's")
        self.file("image", bytes(32 * MIB))
        self.loop = self.attach()

    def content(self):
        with open(self.loop, "rb") as device:
            return device.read()

    def attach(self, *words):
        done = subprocess.run(["losetup", "--show", "-f", *words, "image"], cwd=self.folder,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no loop device: {done.stderr.strip()}")
        loop = done.stdout.strip()
        self.addCleanup(self.detach, loop)
        return loop

    @staticmethod
    def detach(loop):
        """Now, and not when whoever looks at it (udev) has let go of it."""
        subprocess.run(["losetup", "-d", loop], capture_output=True, check=False)
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                with open(f"/sys/block/{os.path.basename(loop)}/loop/backing_file"):
                    time.sleep(0.01)
                    continue
            return

    def test_its_blocks_are_announced(self):
        self.sees(self.loop, 65536)
        self.detach(self.loop)
        self.sees(self.attach("-b", "4096"), 65536, block=4096)

    def test_its_file_is_in_use(self):
        self.fails(["--kernel", kernel(), "--disk", "image"],
                   "disk image: in use as a loop device; name that instead, or detach it with "
                   "losetup -d")
        self.fails(["--kernel", kernel(), "--json", "image"],
                   "cannot write: image: in use as a disk, or by another run; .*")
        self.detach(self.loop)
        # Read-only on both sides: they may share it, and nobody may write to it.
        self.attach("-r")
        self.sees("image,ro", 65536)
        self.fails(["--kernel", kernel(), "--disk", "image"],
                   "disk image: in use as a loop device; .*")

    def test_it_is_read_only(self):
        self.detach(self.loop)
        loop = self.attach("-r")
        self.sees(f"{loop},ro", 65536)
        self.fails(["--kernel", kernel(), "--disk", loop],
                   f"disk {loop}: open for reading and writing: Read-only file system; give ',ro' "
                   "to read it")
        self.fails(["--kernel", kernel(), "--swap", loop, "--resident-max", "8M"],
                   f"swap file {loop}: the device is read-only; name another one")

    def test_it_is_mounted(self):
        if subprocess.run(["mke2fs", "-q", self.loop], check=False).returncode != 0:
            self.skipTest("no mke2fs")
        (self.folder / "mnt").mkdir()
        if subprocess.run(["mount", self.loop, self.folder / "mnt"], check=False).returncode != 0:
            self.skipTest("it cannot be mounted")
        try:
            for words in (self.loop, f"{self.loop},ro"):
                self.fails(["--kernel", kernel(), "--disk", words],
                           f"disk {self.loop}: in use: the device is mounted, swapped to, part "
                           "of another device, or a disk of another VM; end that first")
        finally:
            subprocess.run(["umount", self.folder / "mnt"], check=True)
        self.sees(self.loop, 65536)

    def test_disks_and_swap_of_other_runs(self):
        """By two nodes of the same device."""
        node = self.folder / "node"
        os.mknod(node, 0o600 | 0o060000, os.stat(self.loop).st_rdev)
        busy = f"disk ({re.escape(self.loop)}|node): in use.*"
        for first, refused in (
                (["--disk", self.loop], (["--disk", self.loop], ["--disk", "node"],
                                         ["--disk", "node,ro"],
                                         ["--swap", "node", "--resident-max", "8M"])),
                (["--disk", f"{self.loop},ro"], (["--disk", self.loop],
                                                 ["--swap", self.loop, "--resident-max", "8M"])),
                (["--swap", self.loop, "--resident-max", "8M"],
                 (["--disk", "node"], ["--disk", self.loop], ["--disk", f"{self.loop},ro"]))):
            process = self.start("--cmdline", "spin", *first, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while "spin" not in (line := process.stdout.readline()):
                self.assertTrue(line, first)
            before = self.content()
            for words in refused:
                with self.subTest(first=first, words=words):
                    self.fails(["--kernel", kernel(), "--cmdline", "off", *words],
                               busy if "--disk" in words else
                               f"swap file {words[1]}: (in use: the device is mounted, swapped to, "
                               "part of another device, or a disk of a VM; name another one"
                               "|another VM uses it; name another one)")
            self.assertEqual(self.content(), before)
            process.kill()
            process.communicate()
            process.stderr.close()

    def test_the_same_device_twice(self):
        node = self.folder / "node"
        os.mknod(node, 0o600 | 0o060000, os.stat(self.loop).st_rdev)
        before = self.content()
        for words in (["--disk", self.loop, "--disk", "node,ro"],
                      ["--disk", self.loop, "--swap", "node", "--resident-max", "8M"]):
            self.fails(["--kernel", kernel(), *words], "same file: .*; name two")
        self.fails(["--kernel", kernel(), "--json", self.loop],
                   f"cannot write: {self.loop}: it is a block device; give --json a file")
        self.assertEqual(self.content(), before)


if __name__ == "__main__":
    main()
