#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `asyncpf run` promises: exit codes, what is told about the end, and one line for
each thing that cannot be.

usage: run_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import json
import os
import pathlib
import resource
import signal
import subprocess

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main


class Ends(RunTest):
    def guest(self, cmdline, *words, **options):
        return self.run_it("--kernel", kernel(), "--cmdline", cmdline, *words, **options)

    def test_power_off(self):
        done = self.guest("off")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("multiboot guest\nloader: asyncpf\n", done.stdout)

    def test_reset(self):
        done = self.guest("reset")
        self.assertEqual(done.returncode, 4)
        self.assertEqual(done.stderr, "asyncpf: the guest reset the machine (a reboot, or a "
                                      "panic); it has ended\n")
        self.assertEqual(self.guest("reset", "--quiet").stderr, "")

    def test_exit_port(self):
        for value, code in ((0, 160), (1, 161), (42, 202), (95, 255), (96, 255), (2 ** 31, 255)):
            done = self.guest(f"exit={value}", "--exit-port")
            self.assertEqual((done.returncode, done.stderr), (code, ""))

    def test_no_guest_chooses_our_exit_code_unasked(self):
        """It may write where it wants to, and goes on."""
        process = self.start("--cmdline", "exit=0", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
        while process.stdout.readline() != "exit 0\n":
            pass
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, -signal.SIGTERM)

    def test_triple_fault(self):
        done = self.guest("crash")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aasyncpf: vCPU 0: the guest triple-faulted.* "
                                      r"rip=0x[0-9a-f]+ cr2=0 cr3=0 .*cpl=0.*\n\Z")
        self.assertIn("argument 1: crash\n", done.stdout)

    def test_typed(self):
        done = self.guest("echo off", stdin=None, input="some words\n")
        self.assertEqual(done.returncode, 0)
        self.assertIn("some words\n", done.stdout)

    def test_closed_streams(self):
        done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&-', "sh", asyncpf(), "run",
                               "--kernel", kernel(), "--memory", "16M", "--cmdline", "off"],
                              stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aasyncpf: console: ")

    def test_reader_is_gone(self):
        process = self.start("--cmdline", "flood=1000000", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.stdout.close()
        _, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, err), (1, "asyncpf: console: writing what the "
                                                        "guest prints: Broken pipe\n"))

    def test_full_disk(self):
        """The guest goes on to its end; that its words are lost is told then."""
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run(
                [asyncpf(), "run", "--kernel", kernel(), "--memory", "16M", "--cmdline", "off"],
                stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
                check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "asyncpf: console: writing what the guest prints: No space left "
                             "on device; free space there\n"))

    def test_signals(self):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.start("--cmdline", "spin", "--json", "out", stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while "spin" not in process.stdout.readline():
                pass
            process.send_signal(signum)
            _, err = process.communicate(timeout=LIMIT_S)
            self.assertEqual((process.returncode, err), (-signum, ""))
            self.assertEqual(json.loads((self.folder / "out").read_text())["end"], "signal")

    def test_ignored_signal(self):
        """nohup asyncpf run … lives on when the terminal goes."""
        process = self.start("--cmdline", "echo off", stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        while "echo" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate("still here\n", timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0)
        self.assertIn("still here", out)

    def test_json_and_stats(self):
        done = self.guest("exit=5", "--json", "out", "--stats", "--cpus", "2", "--abi", "pf2",
                          "--exit-port")
        self.assertEqual(done.returncode, 165)
        self.assertIn("memory    16 MiB: resident ", done.stderr)
        self.assertLessEqual(max(map(len, done.stderr.splitlines())), 80)
        out = json.loads((self.folder / "out").read_text())
        self.assertEqual([out[k] for k in ("end", "exit_port_value", "cpus", "faults", "abi",
                                           "memory_bytes", "error")],
                         ["exit-port", 5, 2, "user", "pf2", 16 << 20, None])
        self.assertEqual(out["stats"]["memory_bytes"], 16 << 20)
        # To standard output: behind what the guest printed.
        done = self.guest("off", "--json", "-")
        self.assertIn("argument 1: off\n", done.stdout)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1])["end"], "power-off")
        self.assertFalse((self.folder / "-").exists())
        self.guest("crash", "--json", "out", "--faults", "stall")
        out = json.loads((self.folder / "out").read_text())
        self.assertEqual((out["end"], out["abi"]), ("error", None))
        self.assertIn("triple-faulted", out["error"])


class Refusals(RunTest):
    def test_kernel_files(self):
        (self.folder / "folder").mkdir()
        os.mkfifo(self.folder / "pipe")
        image = pathlib.Path(kernel()).read_bytes()
        for name, pattern in (
                ("missing", "kernel missing: No such file or directory; check the path"),
                ("folder", "kernel folder: not a regular file; name one"),
                ("pipe", "kernel pipe: not a regular file; name one"),
                (self.file("empty", b""), "kernel empty: an empty file; name a whole one"),
                (self.file("text", b"some words\n"), r"text: not a kernel that can be loaded "
                                                     r"\(11 bytes, neither .*\); .*"),
                (self.file("script", b"#!/bin/sh\n"), "script: this is a script, which cannot be "
                                                       "loaded; an x86 kernel is needed: .*"),
                (self.file("packed", b"\x1f\x8b" + bytes(50)),
                 "packed: this is a file that gzip has compressed, which cannot be loaded; unpack "
                 "it first: gunzip -c FILE > KERNEL"),
                (self.file("short", image[:200]), "short: .*cut short.*"),
                (self.file("half", image[:0x1400]), "half: .*cut short.*")):
            with self.subTest(kernel=name):
                self.fails(["--kernel", name], pattern)

    def test_initrd(self):
        self.fails(["--kernel", kernel(), "--initrd", "missing"],
                   "initrd missing: No such file or directory; check the path")
        big = self.file("big", b"x" * (20 << 20))
        self.fails(["--kernel", kernel(), "--initrd", big],
                   "big: 20971520 bytes do not fit into guest memory .*; give the guest more "
                   "memory")

    def test_memory_is_too_small(self):
        """A kernel of 8 MiB in a guest of 4."""
        head = bytearray(1024 + (8 << 20))
        head[0x1f1] = 1
        head[0x1f4:0x1f8] = ((8 << 20) // 16).to_bytes(4, "little")
        head[0x1fe:0x206] = b"\x55\xaa\xeb\x6aHdrS"
        head[0x206:0x208] = b"\x0f\x02"
        head[0x211] = 1
        head[0x22c:0x238] = b"\xff\xff\xff\x7f\x00\x00\x20\x00\x01\x00\x01\x00"
        head[0x238:0x23c] = (2047).to_bytes(4, "little")
        head[0x258:0x268] = (0x200000).to_bytes(8, "little") + (8 << 20).to_bytes(8, "little")
        self.file("k", head)
        self.fails(["--kernel", "k", "--memory", "4M"], "k: .*memory.*")

    def test_command_line_is_too_long(self):
        self.fails(["--kernel", kernel(), "--cmdline", "x" * 70000],
                   "[^ ]*multiboot.elf: command line of .* bytes; there is room for .*")

    def test_disks(self):
        (self.folder / "folder").mkdir()
        self.file("disk", bytes(4096))
        for name, pattern in (
                ("missing", "disk missing: open for reading and writing: No such file or "
                            "directory; check the path"),
                ("missing,ro", "disk missing: open for reading: No such file or directory; "
                               "check the path"),
                ("folder,ro", "disk folder: neither a regular file nor a block device; name one"),
                (self.file("odd", b"x" * 700), "disk odd: 700 bytes are no whole number of .*")):
            with self.subTest(disk=name):
                self.fails(["--kernel", kernel(), "--disk", name], pattern)

    def test_disk_of_a_running_machine(self):
        self.file("disk", bytes(4096))
        process = self.start("--cmdline", "spin", "--disk", "disk", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
        while "spin" not in process.stdout.readline():
            pass
        self.fails(["--kernel", kernel(), "--disk", "disk,ro"],
                   "disk disk: in use as a disk by another process or VM; .*")
        process.terminate()
        process.communicate(timeout=LIMIT_S)
        self.assertEqual(self.run_it("--kernel", kernel(), "--disk", "disk", "--cmdline",
                                     "off").returncode, 0)

    def test_no_memory(self):
        """An address space too small for the guest's."""
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

        self.fails(["--kernel", kernel(), "--memory", "4G"],
                   r"guest memory: 4G .*RLIMIT_AS.*\(ulimit -v\)",
                   preexec_fn=limit)

    def test_no_descriptors(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

        self.fails(["--kernel", kernel()], ".*Too many open files.*", preexec_fn=limit)

    def test_json_cannot_be_written(self):
        self.fails(["--kernel", kernel(), "--json", "nowhere/out"],
                   "cannot write: nowhere/out: No such file or directory; give --json a file "
                   "that may be written")

    def test_nothing_is_left(self):
        """Refused after the machine was built: no process holds the folder's disk."""
        self.file("disk", bytes(4096))
        self.file("text", b"some words\n")
        for _ in range(3):
            self.fails(["--kernel", "text", "--disk", "disk"], "text: not a kernel .*")


if __name__ == "__main__":
    main()
