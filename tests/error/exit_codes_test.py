#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One meaning of each exit code in every verb, one rule for signals, and asyncpf(1) has both.

usage: exit_codes_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL SOURCE_FOLDER
"""
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ASYNCPF, KERNEL, SOURCE = (pathlib.Path(word).resolve() for word in sys.argv[1:4])
LIMIT_S = 60
OK, FAILED, USAGE, REFUSED, RESET, STOPPED, GUEST = 0, 1, 2, 3, 4, 5, 160
GUEST_WORDS = ("run", "--kernel", str(KERNEL), "--memory", "16M", "--cmdline")
HAS_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
NEEDS_KVM = unittest.skipUnless(HAS_KVM, "/dev/kvm may not be used")


# The verbs that ask a running VM.
ASKS = {"status": (), "events": (), "pause": (), "resume": (), "stop": (), "evict": ("--all",),
        "resize": ("--no-limit",), "balloon": ("--to", "8M"), "snapshot": ("snap",)}


def verbs():
    said = subprocess.run([ASYNCPF, "--help"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in said.split("Verbs:\n")[1].split("\n\n")[0].splitlines()]


def tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def children(pid):
    found = []
    for task in tasks(pid):
        try:
            found += pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text(
                encoding="ascii").split()
        except OSError:
            pass
    return [int(word) for word in found]


def wait_until(condition, what):
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} within {LIMIT_S} s")
        time.sleep(0.005)


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(
            encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def reads(pid, path):
    """Whether it has the file open, itself or a child of its."""
    for process in (pid, *children(pid)):
        try:
            for fd in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{fd}") == path:
                    return True
        except OSError:
            pass
    return False


class SilentVm:
    """Takes what it is told at the socket `s` of the folder, and does not answer."""

    def __init__(self, folder):
        self.peer = None
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(f"{folder}/s")
        self.server.listen()

    def is_asked(self, _):
        """Once by each who connects."""
        if not select.select([self.server], [], [], 0)[0]:
            return False
        if self.peer:
            self.peer.close()
        self.peer, _ = self.server.accept()
        self.peer.settimeout(LIMIT_S)
        self.peer.sendall(b"asyncpf-control 1\n")
        heard = b""
        while heard.count(b"\n") < 2:
            heard += self.peer.recv(4096) or b"\n\n"
        return True

    def close(self):
        self.peer.close()
        self.server.close()


def saved_guest(folder, cmdline, sign, *words):
    """The snapshot `snap` of a guest that has printed the sign. KVM may emulate its kernel."""
    with subprocess.Popen([ASYNCPF, *GUEST_WORDS, cmdline, "--local", "--faults", "kernel",
                           "--control", "s", *words], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as vm:
        try:
            while (line := vm.stdout.readline()) and sign not in line:
                pass
            subprocess.run([ASYNCPF, "snapshot", "--control", "s", "snap"], check=True,
                           stdout=subprocess.DEVNULL, cwd=folder, timeout=LIMIT_S)
        finally:
            vm.terminate()
            vm.wait(LIMIT_S)


class Codes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def code(self, *words, **options):
        done = subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S, cwd=self.folder.name,
                              **options)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 0 if done.returncode == OK else 1, done)
        return done.returncode

    def guest(self, cmdline, *words):
        done = subprocess.run([ASYNCPF, *GUEST_WORDS, cmdline, "--exit-port", *words],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=LIMIT_S)
        return done.returncode

    @NEEDS_KVM
    def test_the_ways_in_which_a_run_ends(self):
        self.assertEqual(self.guest("off"), OK)
        self.assertEqual(self.guest("crash"), FAILED)
        self.assertEqual(self.guest("off", "--disk", "/none"), REFUSED)
        self.assertEqual(self.guest("reset"), RESET)
        self.assertEqual(self.guest("exit=0"), GUEST)
        self.assertEqual(self.guest("exit=5"), GUEST + STOPPED)

    @NEEDS_KVM
    def test_ended_by_its_user(self):
        control = f"{self.folder.name}/s"
        with subprocess.Popen([ASYNCPF, *GUEST_WORDS, "spin", "--control", control],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as vm:
            while b"spin" not in vm.stdout.readline():
                pass
            self.assertEqual(self.code("stop", "--control", control), OK)
            self.assertEqual(vm.wait(LIMIT_S), STOPPED)

    @NEEDS_KVM
    def test_the_ways_in_which_a_restored_guest_ends(self):
        """It waits for a line, and does the rest in its second life."""
        folder = self.folder.name
        for then, code in (("off", OK), ("crash", FAILED), ("reset", RESET), ("exit=0", GUEST),
                           ("exit=5", GUEST + STOPPED)):
            with self.subTest(then=then):
                saved_guest(folder, f"echo {then}", b"echo", "--exit-port")
                done = subprocess.run([ASYNCPF, "restore", "snap"], input=b"\n", cwd=folder,
                                      capture_output=True, check=False, timeout=LIMIT_S)
                self.assertEqual(done.returncode, code, done)
                shutil.rmtree(f"{folder}/snap")
        saved_guest(folder, "spin", b"spin")
        with subprocess.Popen([ASYNCPF, "restore", "snap", "--control", "s"], cwd=folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as vm:
            wait_until(lambda: os.path.exists(f"{folder}/s"), "no control socket")
            self.assertEqual(self.code("stop", "--control", "s"), OK)
            self.assertEqual(vm.wait(LIMIT_S), STOPPED)

    def test_wrong_usage(self):
        for verb in verbs():
            self.assertEqual(self.code(verb, "--no-such-option"), USAGE, verb)
        self.assertEqual(self.code("no-such-verb"), USAGE)

    def test_what_could_not_begin(self):
        """Something that it needs is not there, or is not allowed."""
        def few_files():
            resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))

        def little_memory():
            # As much as the libraries take, and little more.
            resource.setrlimit(resource.RLIMIT_AS, (14 << 20, 14 << 20))

        all_words = [(("check",), few_files), (("demo", "--image", "/none"), None),
                     (("demo", "--quiet"), few_files), (("image", "info", "/none"), None),
                     (("run", "--kernel", "/none", "--local"), None)]
        # A sanitizer needs more addresses than that itself.
        symbols = subprocess.run(["nm", "-D", ASYNCPF], capture_output=True, text=True, check=True)
        if "san_init" not in symbols.stdout:
            all_words += [(("sim",), little_memory), (("sim", "--exhaustive"), little_memory)]
        for words, limit in all_words:
            self.assertEqual(self.code(*words, preexec_fn=limit), REFUSED, words)
        for verb, words in ASKS.items():
            self.assertEqual(self.code(verb, "--control", "none", *words), REFUSED, verb)
        for words in (("restore", "none"), ("pager", "--listen", "s", "--source", "none"),
                      ("image", "pack", "none", "out"), ("image", "verify", "none"),
                      ("report", "none")):
            self.assertEqual(self.code(*words), REFUSED, words)
        self.assertEqual(os.listdir(self.folder.name), [])


class Signals(unittest.TestCase):
    """What a signal ends has taken everything down, and ends by that signal."""

    def ended_by(self, number, words, begun, **options):
        with subprocess.Popen([ASYNCPF, *words], stdin=subprocess.DEVNULL, **options,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              # A shell has what it puts into the background ignore SIGINT.
                              preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
            try:
                wait_until(lambda: begun(process.pid) or process.poll() is not None,
                           f"{words}: not begun")
                below = children(process.pid)
                process.send_signal(number)
                self.assertEqual(process.wait(LIMIT_S), -number, words)
            finally:
                process.kill()
            wait_until(lambda: all(map(is_gone, below)), f"{words}: children left")

    def test_verbs_without_a_guest(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for words in (("sim", "--seeds", "100000000"),
                          ("sim", "--exhaustive", "--states", "1000000000")):
                self.ended_by(number, words, children)
            self.ended_by(number, ("sim", "--scale", "--faults", "10000000000"), tasks)

    def test_verbs_that_read_what_does_not_come(self):
        """Of what they began to write nothing is left."""
        with tempfile.TemporaryDirectory() as folder:
            os.mkfifo(f"{folder}/fifo")
            # It is open for reading and writing, so that who reads it waits for more.
            fifo = os.open(f"{folder}/fifo", os.O_RDWR)
            self.addCleanup(os.close, fifo)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                for words in (("image", "pack", "fifo", "out"), ("report", "fifo")):
                    self.ended_by(number, words, lambda pid: reads(pid, f"{folder}/fifo"),
                                  cwd=folder)
                self.assertEqual(os.listdir(folder), ["fifo"])

    def test_verbs_that_wait_for_a_vm(self):
        """One that takes what it is told, and is silent."""
        with tempfile.TemporaryDirectory() as folder:
            vm = SilentVm(folder)
            self.addCleanup(vm.close)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                for verb, words in ASKS.items():
                    self.ended_by(number, (verb, "--control", "s", *words), vm.is_asked,
                                  cwd=folder)
                    self.assertEqual(os.listdir(folder), ["s"], verb)

    def test_the_pager(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "memory").write_bytes(bytes(1 << 20))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self.ended_by(number, ("pager", "--listen", "s", "--source", "memory"),
                              lambda _: os.path.exists(f"{folder}/s"), cwd=folder)
                self.assertEqual(os.listdir(folder), ["memory"])

    @NEEDS_KVM
    def test_a_restored_guest(self):
        with tempfile.TemporaryDirectory() as folder:
            saved_guest(folder, "spin", b"spin")
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self.ended_by(number, ("restore", "snap", "--control", "s"),
                              lambda _: os.path.exists(f"{folder}/s"), cwd=folder)
                self.assertEqual(os.listdir(folder), ["snap"])

    @NEEDS_KVM
    def test_verbs_with_a_guest(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for words in (("demo", "--quiet", "--delay-us", "60000000", "--runs", "kernel"),
                          ("check", "--delay-us", "1000000"), (*GUEST_WORDS, "spin")):
                # The thread that waits for signals, the library's, and a vCPU's at least.
                self.ended_by(number, words, lambda pid: len(tasks(pid)) >= 4)


class ManPage(unittest.TestCase):
    def test_it_has_every_code(self):
        enum = re.search(r"enum cli_exit \{(.*?)\};",
                         (SOURCE / "src/cli/cli.h").read_text(encoding="utf-8"), re.S)[1]
        page = (SOURCE / "docs/man/asyncpf.1").read_text(encoding="utf-8")
        told = page[page.index(".Sh EXIT STATUS"):page.index(".Sh DIAGNOSTICS")]
        self.assertEqual(re.findall(r"^\tCLI_\w+ = (\d+),", enum, re.M),
                         re.findall(r"^\.It (\d+)", told, re.M))


if __name__ == "__main__":
    if not HAS_KVM:
        print("SKIP: what needs a guest: /dev/kvm may not be used")
    unittest.main(argv=sys.argv[:1])
