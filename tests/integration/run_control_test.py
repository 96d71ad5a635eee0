#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf run --control` and the verbs that use it, on a guest that spins for ever.

usage: run_control_test.py PATH_OF_ASYNCPF
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LIMIT_S = 60
ASYNCPF = str(pathlib.Path(sys.argv[1]).resolve())
BASE = 1 << 20  # where the kernel is loaded
# Multiboot 0.6.96, 3.1.1: magic, flags (addresses follow), checksum; header, load, end of
# load, end of bss, entry.
CODE = bytes.fromhex("66baf803"  # mov $0x3f8, %dx
                     "b052ee"    # mov $'R', %al; out %al, %dx
                     "b00aee"    # the same with a newline
                     "f390ebfc") # pause; jmp back to it
HEADER_BYTES = 32
KERNEL = struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                     BASE, BASE + HEADER_BYTES + len(CODE), 0, BASE + HEADER_BYTES) + CODE


class RunTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.path = self.folder / "vm.sock"
        self.swap = self.folder / "swap"
        self.kernel = self.folder / "kernel"
        self.kernel.write_bytes(KERNEL)

    def command(self, path, *words):
        # The socket's mode must not depend on the umask.
        return ["sh", "-c", 'umask 0; exec "$@"', "sh", ASYNCPF, "run", "--local", "--kernel",
                str(self.kernel), "--memory", "64M", "--control", str(path), *words]

    def start(self, *words, around=()):
        vm = subprocess.Popen([*around, *self.command(self.path, *words)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (vm.kill(), vm.communicate()))
        if vm.stdout.readline() != "R\n":
            self.fail(f"the guest did not start: {vm.stderr.read()}")
        return vm

    def end(self, vm):
        """(exit code, stderr)"""
        _, err = vm.communicate(timeout=LIMIT_S)
        return vm.returncode, err

    def ask(self, verb, *words):
        return subprocess.run([ASYNCPF, verb, "--control", str(self.path), *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)

    def answers(self, verb, text, *words):
        done = self.ask(verb, *words)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, text, ""))

    def status(self):
        done = self.ask("status", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def cpu_ticks(self, vm):
        fields = pathlib.Path(f"/proc/{vm.pid}/stat").read_text(
            encoding="ascii").rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def wait_spinning(self, vm):
        start = self.cpu_ticks(vm)
        end = time.monotonic() + LIMIT_S
        while self.cpu_ticks(vm) < start + 20:
            self.assertLess(time.monotonic(), end, "the guest does not run")
            time.sleep(0.01)


class Control(RunTest):
    def test_status(self):
        self.start()
        s = self.status()
        self.assertEqual((s["state"], s["why"], s["faults"], s["abi"]),
                         ("running", None, "user", "int"))
        self.assertEqual((s["memory_bytes"], s["block_bytes"]), (64 << 20, 4096))
        self.assertEqual(s["resident_bytes"] + s["absent_bytes"], s["memory_bytes"])
        self.assertGreater(s["resident_bytes"], 0)
        self.assertEqual((len(s["vcpus"]), s["vcpus"][0]["missing_events"]), (1, 0))

    def test_every_processor_is_shown(self):
        self.start("--cpus", "3", "--faults", "stall")
        s = self.status()
        self.assertEqual((len(s["vcpus"]), s["faults"], s["abi"]), (3, "stall", None))

    def test_seventeenth_client(self):
        self.start()
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.settimeout(LIMIT_S)
                client.connect(str(self.path))
                client.recv(100)
            done = self.ask("status")
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"asyncpf: cannot show the status: {self.path}: too many clients: try "
                             "again when one has gone\n"))

    def test_mode(self):
        self.start()
        self.assertEqual(os.lstat(self.path).st_mode, stat.S_IFSOCK | 0o600)

    def test_pause_and_resume(self):
        vm = self.start()
        self.wait_spinning(vm)
        self.answers("pause", "paused\n")
        self.assertEqual(self.status()["state"], "paused")
        # It used a whole CPU; it now uses none, however busy the machine is.
        before = self.cpu_ticks(vm)
        time.sleep(0.5)
        self.assertLess(self.cpu_ticks(vm) - before, 10)
        self.answers("resume", "running\n")
        self.wait_spinning(vm)

    def test_stop(self):
        report = self.folder / "report"
        for paused in (False, True):
            vm = self.start("--json", str(report))
            if paused:
                self.answers("pause", "paused\n")
            self.answers("stop", "ended\n")
            self.assertFalse(os.path.lexists(self.path))
            # It has: the verb waited for it.
            self.assertIsNotNone(vm.poll())
            self.assertEqual(self.end(vm), (5, ""))
            self.assertEqual(json.loads(report.read_bytes())["end"], "stop")

    def test_evict_without_swap(self):
        self.start()
        done = self.ask("evict", "--all")
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"asyncpf: cannot evict: {self.path}: this VM cannot evict; "
                             "run it with --swap\n"))

    def test_signal_removes_the_socket(self):
        vm = self.start()
        self.ask("pause")
        vm.terminate()
        self.assertEqual(self.end(vm), (-signal.SIGTERM, ""))
        self.assertEqual(os.listdir(self.folder), ["kernel"])

    def test_killed_one_is_replaced(self):
        vm = self.start()
        vm.kill()
        self.end(vm)
        self.assertTrue(os.path.lexists(self.path))
        self.start()
        self.assertEqual(self.status()["state"], "running")


class Watched(RunTest):
    def test_who_it_is(self):
        vm = self.start("--name", "web-1", "--cpus", "2")
        s = self.status()
        # The command is run by a shell, which becomes it.
        self.assertEqual((s["name"], s["pid"], s["protocol"]), ("web-1", vm.pid, 1))
        self.wait_spinning(vm)
        after = self.status()
        self.assertGreater(after["vcpus"][0]["cpu_ns"], s["vcpus"][0]["cpu_ns"])
        self.assertEqual(after["vcpus_cpu_ns"], sum(v["cpu_ns"] for v in after["vcpus"]))
        # Two characters for the console; the second processor waits to be started.
        self.assertEqual([v["exits"] for v in after["vcpus"]], [2, 0])
        self.assertEqual(after["exits"], 2)

    def test_the_same_names_at_the_end(self):
        report = self.folder / "report"
        self.start("--name", "a", "--json", str(report), "--balloon", "on", "--vsock",
                   f"uds={self.folder / 'vsock'}")
        s = self.status()
        self.assertEqual((s["has_balloon"], s["has_vsock"]), (1, 1))
        self.answers("stop", "ended\n")
        end = json.loads(report.read_bytes())
        # What it is doing, and how, is over.
        devices = {"has_balloon", "has_vsock", *end["balloon"], *end["vsock"]}
        snapshot = {key for key in s if key.startswith("snapshot_")}
        missing = set(s) - set(end) - set(end["stats"]) - devices - snapshot
        self.assertEqual(missing, {"state", "why", "note", "protocol", "served",
                                   "sources", "shared_bytes"})
        for key in ("name", "version", "pid", "faults", "abi", "io", "block_bytes", "exits"):
            self.assertEqual(end[key], s[key], key)
        self.assertEqual(list(end["vcpus"][0]), list(s["vcpus"][0]))
        self.assertEqual(list(end["devices"][0]), list(s["devices"][0]))
        self.assertGreaterEqual(end["vcpus_cpu_ns"], s["vcpus_cpu_ns"])

    def test_events(self):
        self.start("--swap", str(self.swap))
        child = subprocess.Popen([ASYNCPF, "events", "--control", str(self.path)],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (child.kill(), child.communicate()))
        self.assertEqual(json.loads(child.stdout.readline())["event"], "following")
        self.answers("pause", "paused\n")
        self.assertEqual(self.ask("resize", "--resident-max", "8M").returncode, 0)
        self.assertEqual(self.status()["resident_max_bytes"], 8 << 20)
        self.answers("evict", "resident: 0 bytes of 64 MiB\n", "--all")
        self.answers("stop", "ended\n")
        out, _ = child.communicate(timeout=LIMIT_S)
        events = [json.loads(line) for line in out.splitlines()]
        # Beside what memory does, which comes once a second at most.
        self.assertEqual([e["event"] for e in events if e["event"] != "memory"],
                         ["paused", "limit", "evicted", "ended"])
        self.assertEqual(events[-1]["text"], "stop")
        self.assertEqual(child.returncode, 0)

    def test_bad_names(self):
        for name in ("a b", "a\"", "x" * 64):
            done = subprocess.run(self.command(self.path, "--name", name), capture_output=True,
                                  text=True, check=False, timeout=LIMIT_S)
            self.assertEqual(done.returncode, 2)
            self.assertIn("bad value: --name", done.stderr)


class Devices(RunTest):
    """What can be seen of them where the guest has no driver."""

    def start_with_vsock(self):
        self.vsock = self.folder / "vm.vsock"
        return self.start("--vsock", f"uds={self.vsock}")

    def test_the_balloon_follows_the_limit(self):
        self.start("--balloon", "follow", "--swap", str(self.swap), "--resident-max", "32M")
        self.assertEqual(self.status()["balloon_target_bytes"], 32 << 20)
        for word, target in ("--resident-max=16M", 48), ("--no-limit", 0):
            self.assertEqual(self.ask("resize", word).returncode, 0)
            self.assertEqual(self.status()["balloon_target_bytes"], target << 20)

    def test_a_limit_does_not_move_a_balloon_that_is_only_on(self):
        self.start("--balloon", "on", "--swap", str(self.swap))
        self.answers("balloon", "the guest has 64 MiB of 64 MiB\n", "--to", "60M", "--no-wait")
        self.assertEqual(self.ask("resize", "--resident-max", "16M").returncode, 0)
        self.assertEqual(self.status()["balloon_target_bytes"], 4 << 20)

    def test_there_is_no_balloon(self):
        self.start()
        done = self.ask("balloon", "--to", "32M")
        self.assertEqual((done.returncode, done.stderr),
                         (1, "asyncpf: cannot change the balloon: vm.sock: this VM has no balloon; "
                             "run it with --balloon on\n".replace("vm.sock", str(self.path))))

    def test_nobody_listens_in_the_guest(self):
        vm = self.start_with_vsock()
        self.assertEqual(self.vsock.stat().st_mode & 0o7777, 0o600)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.vsock))
            s.sendall(b"CONNECT 1024\n")
            self.assertEqual(s.recv(1), b"")
        self.assertEqual(self.status()["vsock_refused"], 1)
        self.answers("stop", "ended\n")
        self.assertEqual(self.end(vm), (5, ""))
        self.assertFalse(self.vsock.exists())
        self.assertFalse(self.path.exists())

    def test_a_socket_that_is_in_use(self):
        self.start_with_vsock()
        done = subprocess.run(self.command(self.folder / "b", "--vsock", f"uds={self.vsock}"),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)
        self.assertIn(f"vsock: {self.vsock}: a running server answers there; stop it, or name "
                      "another", done.stderr)
        self.assertEqual((done.returncode, done.stdout), (3, ""))

    def test_a_snapshot_needs_its_files(self):
        """The lab's relay hands on lines, and no descriptors."""
        self.start()
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LIMIT_S)
            s.connect(str(self.path))
            s.sendall(b"asyncpf-control 1\nsnapshot\n")
            with s.makefile() as said:
                self.assertEqual([said.readline() for _ in range(2)], [
                    "asyncpf-control 1\n",
                    "error a snapshot's files have not come with the request; a VM in the lab "
                    "cannot be saved\n"])


class Evict(RunTest):
    """Paused: a KVM that emulates kernel mode does not fetch its code again (docs/caveats.md)."""

    def test_evict(self):
        self.start("--swap", str(self.swap), "--resident-max", "32M")
        self.answers("pause", "paused\n")
        before = self.status()
        self.assertEqual(before["resident_max_bytes"], 32 << 20)
        self.assertGreater(before["resident_bytes"], 4096)
        self.answers("evict", "resident: 4 KiB of 64 MiB\n", "--to", "4K")
        self.answers("evict", "resident: 0 bytes of 64 MiB\n", "--all")
        s = self.status()
        self.assertEqual(s["evicted"] * 4096, before["resident_bytes"])
        # The kernel is neither unchanged nor all zeroes: RAM has no source here.
        self.assertGreaterEqual(s["swapped_bytes"], 4096)
        self.answers("stop", "ended\n")
        self.assertEqual(os.listdir(self.folder), ["kernel"])

    @unittest.skipUnless(os.getuid() == 0, "only root can mount")
    def test_full_swap(self):
        disk = self.folder / "disk"
        disk.mkdir()
        vm = self.start("--swap", str(disk / "swap"), around=(
            "unshare", "-m", "sh", "-c",
            f'mount -t tmpfs -o size=4k none {disk} && exec "$@"', "sh"))
        self.answers("pause", "paused\n")
        # Several blocks meet it; whose text is kept is not said.
        why = "memory at guest address .*: swap file: .*No space left on device"
        done = self.ask("evict", "--all")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, rf"\Aasyncpf: cannot evict: {self.path}: {why}.*\n\Z")
        self.assertRegex(self.status()["why"], why)
        self.assertRegex(self.ask("status").stdout, f"^state     paused: {why}")
        self.answers("stop", "ended\n")
        code, err = self.end(vm)
        self.assertEqual(code, 5)
        self.assertRegex(err, f"^asyncpf: the VM is paused: {why}")


class Refusals(RunTest):
    def refused(self, path, text):
        done = subprocess.run(self.command(path), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (3, "", f"asyncpf: control socket: {path}: {text}\n"))

    def test_in_use(self):
        self.start()
        self.refused(self.path, "a running server answers there; stop it, or name another")
        self.assertEqual(self.status()["state"], "running")

    def test_not_a_socket(self):
        self.path.write_bytes(b"data")
        self.refused(self.path, "something is there that is no socket; remove it, or name another")
        self.assertEqual(self.path.read_bytes(), b"data")

    def test_no_folder(self):
        self.refused(self.folder / "none" / "s", "its folder: No such file or directory; make it, "
                                                 "or name another")


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        return 77
    run = unittest.main(argv=sys.argv[:1], exit=False)
    return 0 if run.result.wasSuccessful() and run.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
