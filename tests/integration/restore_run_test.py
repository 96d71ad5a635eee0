#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf restore` of a guest that counts in memory: what comes before it is touched, what working
sets, page caches and servers do for it, and what cannot be restored.

usage: restore_run_test.py PATH_OF_ASYNCPF
"""
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import time
import unittest

import page_cache as cache
from snapshot_support import (ASYNCPF, FIRST, IN_ORDER, LIMIT_S, PAGE, PAGES, ROUND, RUNNING,
                              SnapshotCase, kernel_of, main, memory_of, state)

NET_MODULE = os.environ.get("ASYNCPF_NET_MODULE")
HAS_SLIRP = False
with contextlib.suppress(OSError):
    HAS_SLIRP = bool(ctypes.CDLL("libslirp.so.0"))


class RestoreTest(SnapshotCase):
    def test_the_kernel_takes_over_what_was_served_by_us(self):
        """The other ways round need a KVM that does not emulate kernel mode: the lab's test."""
        for way in (["--faults", "user"], ["--faults", "stall"], ["--faults", "block"]):
            vm = self.run_vm(*way)
            files = self.snapshot(vm, f"of-{way[1]}")
            self.stop(vm)
            seen = self.steps_of(files)
            vm = self.restore(files, "--faults", "kernel")
            self.assertEqual(self.status(vm)["faults"], "kernel")
            self.rounds(vm, 2)
            self.assertGreater(self.steps_of(self.snapshot(vm, f"by-{way[1]}")), seen)
            self.stop(vm)
        vm = self.run_vm("--faults", "user", "--abi", "pf2")
        files = self.snapshot(vm, "pf2")
        self.stop(vm)
        self.refused([str(files), "--faults", "kernel"], "speaks pf2", 2)

    def test_read_ahead_of_a_guest_that_goes_in_order(self):
        self.kernel.write_bytes(kernel_of(IN_ORDER))
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        vm = self.restore(files, "--source", f"delay+file:{files}/memory?ms=2",
                          "--read-ahead", "1M")
        self.rounds(vm, 1)
        self.assertGreater(self.status(vm)["read_ahead"], PAGES / 2)
        files = self.snapshot(vm, "next")
        counts = [struct.unpack_from("<I", memory_of(files, FIRST // PAGE + page, 1))[0]
                  for page in range(PAGES)]
        # Each page as often as the one before it, or once less: behind where the guest is.
        self.assertIn(counts[0] - counts[-1], (0, 1))
        self.assertEqual(counts, sorted(counts, reverse=True))
        self.stop(vm)

    def serve(self, files):
        """nbdkit, and the source's words."""
        if not shutil.which("nbdkit") or not pathlib.Path(ASYNCPF).with_name(
                "asyncpf-net.so").exists():
            self.skipTest("there is no nbdkit here, or no network sources in this build")
        socket = self.folder / "nbd"
        socket.unlink(missing_ok=True)
        server = subprocess.Popen(["nbdkit", "-f", "-r", "-U", str(socket), "file",
                                   str(files / "memory")])
        self.addCleanup(lambda: (server.kill(), server.wait()))
        until = time.monotonic() + LIMIT_S
        while not socket.exists() and time.monotonic() < until:
            time.sleep(0.01)
        return server, ["--source", f"nbd+unix:///?socket={socket}"]

    def test_a_server_that_goes_and_comes_back_under_the_sandbox(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        server, words = self.serve(files)
        vm = self.spawn("restore", str(files), *words, "--quiet")
        server.kill()
        server.wait()
        # What it touches next is nowhere to be had; what it has, it goes on with.
        done = self.verb(vm, "snapshot", "--timeout", str(LIMIT_S), str(self.folder / "none"))
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.folder / "none").exists())
        self.serve(files)
        # The source looks for its server now and then.
        until = time.monotonic() + LIMIT_S
        done = self.verb(vm, "resume")
        while done.returncode != 0 and time.monotonic() < until:
            time.sleep(0.1)
            done = self.verb(vm, "resume")
        self.assertEqual(done.stderr, "")
        self.rounds(vm, 2)
        self.steps_of(self.snapshot(vm, "next"))
        self.verb(vm, "stop")
        vm.communicate(timeout=LIMIT_S)
        self.assertEqual(vm.returncode, 5)

    def has_opened(self, vm, path):
        with contextlib.suppress(OSError):
            fds = os.listdir(f"/proc/{vm.pid}/fd")
            return str(path) in [self.link(vm.pid, fd) for fd in fds]
        return False

    def test_it_can_be_ended_while_its_first_page_does_not_come(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        for scheme, query, told in (("delay", "ms=600000", ""),
                                    ("fault", "fault-error-after=0", "mend that; Ctrl-C ends it")):
            vm = subprocess.Popen([ASYNCPF, "restore", str(files), "--source",
                                   f"{scheme}+file:{files}/memory?{query}", "--control",
                                   str(self.folder / "early")], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.addCleanup(lambda vm=vm: (vm.kill(), vm.communicate()))
            until = time.monotonic() + LIMIT_S
            while not self.has_opened(vm, files / "memory") and time.monotonic() < until:
                time.sleep(0.01)
            # It is told once the source was tried again; nobody answers a resume yet.
            if told:
                self.assertRegex(vm.stderr.readline(), f"the VM is paused: .*{told}")
            else:
                time.sleep(0.2)
            self.assertIsNone(vm.poll())
            self.assertFalse((self.folder / "early").exists())
            vm.send_signal(signal.SIGINT)
            _, more = vm.communicate(timeout=LIMIT_S / 4)
            self.assertEqual((vm.returncode, more), (-signal.SIGINT, ""))

    def test_memory_by_a_descriptor_that_it_was_started_with(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        for given, words in ((files / "memory", (str(files), "--source", "file:/dev/fd/{}")),
                             (files, ("/dev/fd/{}",))):
            fd = os.open(given, os.O_RDONLY)
            path = self.folder / f"by-{given.name}"
            vm = subprocess.Popen([ASYNCPF, "restore", *(word.format(fd) for word in words),
                                   "--control", str(path)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  pass_fds=(fd,))
            self.addCleanup(lambda vm=vm: (vm.kill(), vm.communicate()))
            os.close(fd)
            vm.path = str(path)
            self.rounds(vm, 2)
            self.stop(vm)

    def test_what_cannot_be_restored_is_refused(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        good = (files / "state").read_bytes()
        (files / "state").write_bytes(good[:8] + struct.pack("<I", 2) + good[12:])
        self.refused([str(files)], "format 2")
        (files / "state").write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
        self.refused([str(files)], "has changed")
        (files / "state").write_bytes(good)
        odd = self.folder / "odd"
        odd.write_bytes(b"no set")
        self.refused([str(files), "--prefetch", str(odd)], "cut short")
        self.refused([str(files), "--prefetch", str(self.folder / "none")], "none")
        self.refused([str(files), "--record", str(files / "memory")], "memory")
        size = (files / "memory").stat().st_size
        for other in (size - 4096, size + 4096, 0):
            os.truncate(files / "memory", other)
            self.refused([str(files)], "it is not as long as the guest's memory")
        (files / "memory").unlink()
        self.refused([str(files)], "memory")

    def named_first(self, files):
        return [gpa for gpa, in struct.iter_unpack("<Q", state(files)["memory.first", 0])]

    def test_what_the_snapshot_names_comes_before_it_is_touched(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap", RUNNING)
        self.stop(vm)
        self.assertTrue(any(FIRST <= gpa < FIRST + PAGES * PAGE for gpa in self.named_first(files)))
        rip = struct.unpack_from("<Q", state(files)["vcpu.regs", 0], 128)[0]
        self.assertIn(rip & -PAGE, self.named_first(files))
        vm = self.restore(files)
        status = self.status(vm)
        self.stop(vm)
        self.assertGreater(status["prefetched"], 0)
        self.assertGreater(status["prefetched_used"] + status["prefetched_late"], 0)

    def test_a_recorded_set_removes_the_reads_of_the_next_run(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        found = self.folder / "set"
        vm = self.restore(files, "--record", str(found))
        self.rounds(vm, 2)
        first = self.status(vm)
        self.stop(vm)
        self.assertGreater(first["reads"], len(set(ROUND)))
        vm = self.restore(files, "--prefetch", str(found), "--record", str(found))
        self.rounds(vm, 2)
        second = self.status(vm)
        self.steps_of(self.snapshot(vm, "next"))
        self.stop(vm)
        # Of what the snapshot says itself, where content is.
        self.assertLessEqual(first["prefetched"], len(self.named_first(files)))
        self.assertLessEqual(second["reads"] - second["prefetched"], first["reads"] * 0.05)
        self.assertLessEqual(second["read_bytes"], first["read_bytes"] * 1.3)
        self.assertGreaterEqual(second["prefetched_used"] + second["prefetched_late"],
                                second["prefetched"] * 0.9)
        self.assertEqual(second["prefetched_unused"], second["prefetched"] -
                         second["prefetched_used"] - second["prefetched_late"])
        # What was recorded with it is as good.
        vm = self.restore(files, "--prefetch", str(found))
        self.rounds(vm, 2)
        third = self.status(vm)
        self.stop(vm)
        self.assertLessEqual(third["reads"] - third["prefetched"], first["reads"] * 0.05)

    def test_a_filled_vm_needs_its_snapshot_no_longer(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        vm = self.restore(files, "--fill")
        until = time.monotonic() + LIMIT_S
        opened = [str(files / "memory")]
        while opened and time.monotonic() < until:
            time.sleep(0.01)
            opened = [p for fd in os.listdir(f"/proc/{vm.pid}/fd")
                      for p in [self.link(vm.pid, fd)] if p == str(files / "memory")]
        self.assertEqual(opened, [])
        os.truncate(files / "memory", 0)
        self.rounds(vm, 2)
        self.assertEqual(self.status(vm)["absent_bytes"], 0)
        next_files = self.snapshot(vm, "next")
        self.stop(vm)
        self.steps_of(next_files)
        vm = self.restore(next_files)
        self.rounds(vm, 2)
        self.stop(vm)

    def test_clones_share_the_page_cache(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.rounds(vm, 1)
        layers = self.snapshot(vm, "next", "--base", str(files))
        self.assertIsNone(self.status(vm)["shared_bytes"])
        self.stop(vm)
        with open(files / "memory", "rb") as memory:
            if not cache.is_told(memory):
                self.skipTest("this kernel does not say it (Linux 6.5)")
            clones = [self.restore(files), self.restore(files)]
            for vm in clones:
                self.rounds(vm, 2)
            for vm in clones:
                s, inside = cache.beside(memory, lambda vm=vm: self.status(vm))
                # Once for both; what each has read, it has for itself.
                self.assertGreater(s["shared_bytes"], 0)
                self.assertEqual(s["shared_bytes"], inside)
                self.assertGreaterEqual(s["resident_bytes"], s["source_read_bytes"])
            for vm in clones:
                self.stop(vm)
            if not cache.drop(memory):
                self.skipTest("this file system keeps all of a file in memory")
        # Of a snapshot of what changed, all files count, each for what comes from it.
        vm = self.restore(layers)
        self.rounds(vm, 2)
        with open(files / "memory", "rb") as old, open(layers / "changed", "rb") as new:
            both = cache.bytes_of(old) + cache.bytes_of(new)
        shared = self.status(vm)["shared_bytes"]
        self.stop(vm)
        self.assertTrue(0 < shared <= both, (shared, both))

    def test_a_balloon_follows_the_limit_of_now(self):
        vm = self.run_vm("--faults", "kernel", "--balloon", "follow", "--resident-max", "32M",
                         "--swap", str(self.folder / "swap"))
        self.assertEqual(self.status(vm)["balloon_target_bytes"], 32 << 20)
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        for words, asked in ((["--resident-max", "16M", "--swap", str(self.folder / "other")],
                              48 << 20), ([], 0)):
            vm = self.restore(files, *words)
            self.assertEqual(self.status(vm)["balloon_target_bytes"], asked)
            self.stop(vm)

    @staticmethod
    def card(files):
        """The hardware address that is saved as given, if one was."""
        section = state(files)["machine.net", 0]
        return section[14], section[8:14]

    @unittest.skipUnless(HAS_SLIRP, "there is no libslirp here")
    def test_a_card_keeps_its_hardware_address(self):
        vm = self.run_vm("--faults", "kernel", "--net", "user,mac=02:00:00:00:00:05")
        files = self.snapshot(vm, "first")
        self.stop(vm)
        given = (1, bytes.fromhex("020000000005"))
        self.assertEqual(self.card(files), given)
        for n, words in enumerate(("user", "user,mac=02:00:00:00:00:05")):
            vm = self.restore(files, "--net", words)
            self.assertEqual(self.card(self.snapshot(vm, f"next{n}")), given)
            self.stop(vm)
        self.refused([str(files), "--net", "user,mac=02:00:00:00:00:06"],
                     "keeps the hardware address", 2)

    def test_a_socket_device_comes_along(self):
        where = [self.folder / name for name in ("a.vsock", "b.vsock")]
        vm = self.run_vm("--faults", "kernel", "--vsock", f"uds={where[0]},cid=7", "--balloon",
                         "on")
        files = self.snapshot(vm, "snap")
        self.assertEqual(json.loads((files / "snapshot.json").read_text())["vsock"],
                         {"path": str(where[0]), "cid": 7})
        # Its place is taken as long as the VM that was saved is there; another one is not.
        self.refused([str(files)], f"vsock: {where[0]}: a running server answers there")
        both = [vm, self.restore(files, "--vsock", f"uds={where[1]}")]
        for one, path in zip(both, where):
            self.assertEqual(self.status(one)["has_vsock"], 1)
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(path))
                s.sendall(b"CONNECT 1024\n")
                self.assertEqual(s.recv(1), b"")
        self.steps_of(self.snapshot(both[1], "next"))
        for one in both:
            self.stop(one)
        vm = self.restore(files)
        self.assertTrue(where[0].exists())
        self.stop(vm)

    def test_a_socket_device_that_is_not_there(self):
        vm = self.run_vm()
        files = self.snapshot(vm, "snap")
        self.stop(vm)
        self.assertNotIn("vsock", json.loads((files / "snapshot.json").read_text()))
        self.refused([str(files), "--vsock", f"uds={self.folder}/v"],
                     "the snapshot has no socket device", 2)

    @staticmethod
    def listens(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    @contextlib.contextmanager
    def nginx(self, port):
        """Serves the folder, until it is killed in the middle of whatever it does."""
        places = "".join(f"{name}_temp_path {self.folder}/t-{name};" for name in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; events {{}}"
            f"http {{ access_log off; {places} keepalive_requests 20;"
            f"server {{ listen 127.0.0.1:{port}; root {self.folder}; }} }}")
        self.folder.chmod(0o755)
        with subprocess.Popen(["nginx", "-p", str(self.folder), "-e", "stderr", "-c",
                               str(self.folder / "nginx.conf")]) as server:
            try:
                until = time.monotonic() + LIMIT_S
                while not self.listens(port):
                    self.assertLess(time.monotonic(), until)
                    time.sleep(0.01)
                yield
            finally:
                server.kill()

    @unittest.skipUnless(NET_MODULE and shutil.which("nginx"), "no nginx, or no network sources")
    def test_memory_from_a_server_through_a_cache(self):
        """Two VMs at once, in their sandboxes; what the cache has, it has without the server."""
        vm = self.run_vm()
        files = self.snapshot(vm, "first")
        self.stop(vm)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        source = (f"cache+http://localhost:{port}/first/memory#cache-dir={self.folder}/cache"
                  "&cache-size=256M&net-stall-ms=1000")
        with self.nginx(port):
            both = [self.restore(files, "--source", source) for _ in range(2)]
            for n, vm in enumerate(both):
                self.rounds(vm, 2)
                self.steps_of(self.snapshot(vm, f"own{n}"))
                told = self.status(vm)
                self.assertGreater(told["cache_hits"], 0)
                self.assertEqual(told["cache_mismatches"], 0)
                self.stop(vm)
            # All of it was read for the snapshots. What came too fast was not kept.
            for n in range(10):
                vm = self.restore(files, "--source", source)
                self.snapshot(vm, f"warm{n}")
                misses = self.status(vm)["cache_misses"]
                self.stop(vm)
                if misses == 0:
                    break
            vm = self.restore(files, "--source", source)
        self.rounds(vm, 2)
        gone = self.snapshot(vm, "gone")
        self.steps_of(gone)
        self.assertEqual(self.status(vm)["cache_misses"], 0)
        with self.nginx(port):
            self.rounds(vm, 2)
            self.steps_of(self.snapshot(vm, "back"))
            self.stop(vm)

    @unittest.skipUnless(NET_MODULE and shutil.which("nginx"), "no nginx, or no network sources")
    def test_a_server_that_is_gone_for_a_while(self):
        """What the cache has not is waited for; the VM goes on when the server is back."""
        vm = self.run_vm()
        files = self.snapshot(vm, "first")
        self.stop(vm)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with self.nginx(port):
            vm = self.restore(files, "--source", f"cache+http://127.0.0.1:{port}/first/memory"
                              f"#cache-dir={self.folder}/cache&cache-size=256M")
        with subprocess.Popen([ASYNCPF, "snapshot", "--control", vm.path, self.folder / "own"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
            until = time.monotonic() + LIMIT_S
            while self.status(vm)["reads_in_flight"] == 0:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
            with self.nginx(port):
                self.assertEqual((client.communicate(timeout=LIMIT_S)[1], client.returncode),
                                 (b"", 0))
        self.steps_of(self.folder / "own")
        self.stop(vm)

    @staticmethod
    def link(pid, fd):
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{pid}/fd/{fd}")
        return ""


if __name__ == "__main__":
    main()
