#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The verbs that speak to a running VM, without one: wrong usage, and everything else that
may be found at the end of a path.

usage: control_test.py PATH_OF_ASYNCPF
"""
import contextlib
import os
import socket
import subprocess
import sys
import time
import unittest

import control_support
from control_support import VERBS, ControlTest

HELLO = b"asyncpf-control 1\n"
POLL = 7  # x86-64
NOT_OURS = "what answers is no control socket of asyncpf; name the VM's"


class Usage(ControlTest):
    def test_no_socket_named(self):
        for verb in VERBS:
            self.failed(self.run_verb(verb), "missing option: --control: which VM is not said; "
                                             f"see 'asyncpf {verb} --help'", 2)

    def test_evict_how_much(self):
        self.failed(self.run_verb("evict", "--control", "x"),
                    "missing option: --all, --to: how much is not said; see 'asyncpf evict --help'",
                    2)
        self.failed(self.run_verb("evict", "--control", "x", "--all", "--to", "4M"),
                    "too many options: --all, --to: they exclude each other; "
                    "see 'asyncpf evict --help'", 2)
        self.failed(self.run_verb("evict", "--control", "x", "--to", "much"),
                    "bad value: --to much: not a size such as 4096, 64K, 512M or 2G; "
                    "see 'asyncpf evict --help'", 2)

    def test_resize_how_much(self):
        self.failed(self.run_verb("resize", "--control", "x"),
                    "missing option: --resident-max, --no-limit: how much is not said; "
                    "see 'asyncpf resize --help'", 2)
        self.failed(self.run_verb("resize", "--control", "x", "--no-limit", "--resident-max", "4M"),
                    "too many options: --resident-max, --no-limit: they exclude each other; "
                    "see 'asyncpf resize --help'", 2)
        self.failed(self.run_verb("resize", "--control", "x", "--resident-max", "0"),
                    "bad value: --resident-max 0: it must lie between 4M and "
                    "64G; see 'asyncpf resize --help'", 2)

    def test_one_form_of_status(self):
        for other in (["--json"], ["--watch", "1"]):
            self.failed(self.run_verb("status", "--control", "x", "--prometheus", *other),
                        f"conflicting options: --prometheus and {other[0]}: it is one text, for "
                        "a scraper; leave one out", 2)

    def test_balloon_how_much(self):
        self.failed(self.run_verb("balloon", "--control", "x", "--no-wait"),
                    "missing option: --to: how much the guest keeps is not said; "
                    "see 'asyncpf balloon --help'", 2)

    def test_bad_values(self):
        self.failed(self.run_verb("status", "--control", ""),
                    "bad value: --control '': it must not be empty; see 'asyncpf status --help'", 2)
        self.failed(self.run_verb("status", "--control", "x", "--watch", "0"),
                    "bad value: --watch 0: it must lie between 1 and 86400; "
                    "see 'asyncpf status --help'", 2)
        self.failed(self.run_verb("stop", "--control", "x", "--timeout", "0"),
                    "bad value: --timeout 0: it must lie between 1 and 86400; "
                    "see 'asyncpf stop --help'", 2)


class Paths(ControlTest):
    def test_missing(self):
        why = "there is no such socket; is the VM running, with --control?"
        self.all_fail(why)
        self.all_fail(why, path=self.folder / "none" / "vm.sock")

    def test_left_behind(self):
        leftover = socket.socket(socket.AF_UNIX)
        leftover.bind(str(self.path))
        leftover.close()
        self.all_fail("nobody answers; the VM has ended without removing it")

    def begins_meanwhile(self):
        """What the client says of a server that listens once the client has been refused."""
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(self.path))
            client = subprocess.Popen(
                [control_support.program(), "status", "--control", str(self.path)],
                stderr=subprocess.PIPE, text=True)
            # It waits in poll() before it tries again.
            while client.poll() is None and not self.in_call(client.pid, POLL):
                pass
            s.listen(1)
            s.settimeout(1)
            with contextlib.suppress(TimeoutError):
                s.accept()[0].close()
            _, said = client.communicate(timeout=60)
        self.path.unlink()
        return said

    @staticmethod
    def in_call(pid, number):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/syscall", encoding="ascii") as f:
                return f.read().split()[0] == str(number)
        return False

    def test_begins_meanwhile(self):
        """Between the making of its name and its listening a server refuses, for no long time."""
        # A busy machine may let us listen too late.
        self.assertTrue(any("nobody answers" not in self.begins_meanwhile() for _ in range(10)))

    def test_plain_file(self):
        self.path.write_bytes(b"data")
        self.all_fail("it is not a socket; name the VM's control socket")
        self.all_fail("it is not a socket; name the VM's control socket", path=self.folder)

    def test_datagram_socket(self):
        self.peer(kind=socket.SOCK_DGRAM)
        self.all_fail("it is a socket of another kind; name the VM's control socket")

    def test_too_long(self):
        path = "x" * 108
        for verb in VERBS:
            self.failed(self.ask(verb, path=path),
                        f"cannot {control_support.WHAT[verb]}: {path[:107]}: a path of 108 bytes; "
                        "at most 107 are possible, use a shorter one", 3)

    @unittest.skipUnless(os.getuid() == 0, "only root can become another user")
    def test_permission(self):
        self.peer(HELLO)
        self.folder.chmod(0o755)
        self.path.chmod(0o600)
        # The command may lie where the other user cannot go: its file is opened before.
        fd = os.open(control_support.program(), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        for verb in VERBS:
            done = control_support.subprocess.run(
                [f"/proc/self/fd/{fd}", verb, "--control", str(self.path), *VERBS[verb]],
                stdin=control_support.subprocess.DEVNULL, capture_output=True, text=True,
                check=False, timeout=control_support.LIMIT_S, pass_fds=[fd],
                preexec_fn=control_support.drop_root)
            self.failed(done, f"cannot {control_support.WHAT[verb]}: {self.path}: Permission "
                              "denied; ask as the user who runs the VM", 3)


class Peers(ControlTest):
    def test_another_program(self):
        for greeting in (b"HTTP/1.1 200 OK\r\n\r\n", b"QMP 1\n", b"\0\1\2\3", b"x" * 1000,
                         b"asyncpf-control\n", b"asyncpf-control -1\n"):
            peer = self.peer(greeting)
            self.all_fail(NOT_OURS)
            peer.close()
            self.path.unlink()

    def test_hangs_up_at_once(self):
        for greeting in (b"", b"asyncpf-con"):
            peer = self.peer(greeting, lines=0)
            self.all_fail("it hung up without a greeting; is it the VM's control socket, and is "
                          "the VM about to end?")
            peer.close()
            self.path.unlink()

    def test_other_versions(self):
        for version, age in ((0, "older"), (2, "newer")):
            peer = self.peer(f"asyncpf-control {version}\n".encode())
            self.all_fail(f"the VM's asyncpf is {age}: it speaks version {version}, this one 1; "
                          "use the one that runs the VM")
            peer.close()
            self.path.unlink()

    def test_ends_meanwhile(self):
        peer = self.peer(HELLO + b"state running\nmemory_bytes 5\n")
        self.all_fail("the VM ended before it answered", code=1,
                      verbs=[verb for verb in VERBS if verb != "events"])
        self.assertIn(b"asyncpf-control 1\nevict 0\n", peer.heard)
        self.assertIn(b"asyncpf-control 1\nstop\n", peer.heard)

    def test_silence(self):
        why = "no answer within 1 s; the VM hangs, or give it more with --timeout"
        peer = self.peer(b"", lines=None)
        start = time.monotonic()
        self.all_fail(why, "--timeout", "1", verbs=["status", "pause", "stop"])
        # Not ten, which is the default.
        self.assertLess(time.monotonic() - start, 8)
        peer.close()
        self.path.unlink()
        self.peer(HELLO + b"state running\n", lines=None)
        self.all_fail(why, "--timeout", "1", verbs=["resume", "evict"], code=1)

    def test_progress_for_long(self):
        """Each status that comes is a whole one, however many came before it."""
        devices = b"".join(b"device d%d requests %d\n" % (i, i) for i in range(4))
        self.peer(HELLO + (b"state running\nmemory_bytes 4096\n" + devices) * 30 + b"ok\n")
        for verb in ("evict", "balloon"):
            done = self.ask(verb)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_nonsense(self):
        for answer, line in ((b"uptime_ns soon\nok\n", "uptime_ns soon"), (b"\nok\n", ""),
                             (b"vcpu 99 stalls 1\nok\n", "vcpu 99 stalls 1")):
            peer = self.peer(HELLO + answer)
            self.all_fail(f"an answer that makes no sense: {line}", code=1)
            peer.close()
            self.path.unlink()
        self.peer(HELLO + b"event note uptime_ns 1\nabi \x1b[2J\nok\n")
        self.all_fail(NOT_OURS, code=1, verbs=[verb for verb in VERBS if verb != "events"])

    def test_unknown_keys_are_passed_over(self):
        self.peer(HELLO + b"colour blue\nstate running\nvcpu 0 shape round\nok\n")
        done = self.ask("status")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("state     running\n", done.stdout)


if __name__ == "__main__":
    sys.exit(control_support.main())
