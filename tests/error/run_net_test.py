#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Network cards of `asyncpf run` with a guest that has no driver for them: what is refused before
it runs, what is told of them, and that outsiders cannot use the VM up. Guests that are asked:
tests/lab/linux_test.py.

usage: run_net_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import contextlib
import json
import os
import signal
import socket
import subprocess

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

SOCKETS_MAX = 256  # of one card


class Net(RunTest):
    def free_port(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def test_a_port_that_is_taken(self):
        for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            with socket.socket(type=kind) as taken:
                taken.bind(("127.0.0.1", 0))
                if kind == socket.SOCK_STREAM:
                    taken.listen()
                port = taken.getsockname()[1]
                self.fails(["--kernel", kernel(), "--net", f"user,host,fwd={name}:{port}:80"],
                           rf"--net: cannot forward {name.upper()} port {port} of 127\.0\.0\.1 to "
                           r"the guest's 80: it is taken; use another one")

    def test_an_address_of_somebody_else(self):
        self.fails(["--kernel", kernel(), "--net", "user,fwd=tcp:203.0.113.1:8080:80"],
                   r"--net: cannot forward TCP port 8080 of 203\.0\.113\.1 to the guest's 80: "
                   r"Cannot assign requested address; use another one")

    def test_no_tap(self):
        self.fails(["--kernel", kernel(), "--net", "tap=lo"],
                   r"--net tap=lo: cannot be opened: .*; [a-z].*")

    def test_they_are_told_of(self):
        done = self.run_it("--kernel", kernel(), "--cmdline", "off", "--json", "out", "--net",
                           "user", "--net", "user,restrict")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        report = json.loads((self.folder / "out").read_text(encoding="utf-8"))
        self.assertEqual([d["name"] for d in report["devices"]], ["net0", "net1", "rng"])
        self.assertEqual(report["devices"][0]["dropped"], 0)

    def test_a_flood_from_outside(self):
        """More connections than there may be: they wait, and who steers the VM does not."""
        port = self.free_port()
        process = self.start("--control", "c", "--cmdline", "spin", "--net",
                             f"user,fwd=tcp:{port}:80", stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        with contextlib.ExitStack() as stack:
            for _ in range(2 * SOCKETS_MAX):
                s = stack.enter_context(socket.socket())
                s.setblocking(False)
                # Refused until the VM is there; then the rest is in the host's hands.
                while s.connect_ex(("127.0.0.1", port)) not in (0, 115):
                    self.assertIsNone(process.poll())
                    s.close()
                    s = stack.enter_context(socket.socket())
                    s.setblocking(False)
            while not (self.folder / "c").exists():
                self.assertIsNone(process.poll())
            for _ in range(20):
                done = subprocess.run([asyncpf(), "status", "--control", "c", "--json"],
                                      cwd=self.folder, capture_output=True, text=True,
                                      check=False, timeout=LIMIT_S)
                self.assertEqual(done.returncode, 0, done.stderr)
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
            self.assertLess(files, SOCKETS_MAX + 100)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGTERM)
        self.assertEqual(process.stderr.read(), "")


if __name__ == "__main__":
    main()
