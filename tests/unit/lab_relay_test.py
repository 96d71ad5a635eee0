#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The two ends of the lab's control socket against each other, without a lab: a socket pair
is the virtio port between tools/lab_parts/relay.py and `asyncpf lab-relay`.

usage: lab_relay_test.py PATH_OF_ASYNCPF SOURCE_FOLDER
"""
import contextlib
import fcntl
import io
import os
import pathlib
import select
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

ASYNCPF = str(pathlib.Path(sys.argv.pop(1)).resolve())
SOURCE = pathlib.Path(sys.argv.pop(1)).resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
from lab_parts import EXIT_REFUSED, Refused, command
from lab_parts.relay import (CONNECTIONS_MAX, DATA, END, FRAME_MAX, HEAD, OPEN, PENDING_MAX,
                             READY, Relay, check_stale, listening)

WAIT_S = 30  # a hang is a failure, whatever the machine's speed


def listens(path):
    """Its file is there a moment earlier. Told without connecting, which the server would see."""
    rows = pathlib.Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    return any(row.split()[3] == "00010000" and row.endswith(f" {path}") for row in rows)


def wait_for_socket(path):
    end = time.monotonic() + WAIT_S
    while not listens(path):
        if time.monotonic() > end:
            raise AssertionError("no socket")
        time.sleep(0.005)


class Bed(unittest.TestCase):
    """self.server listens in the lab; connect() is a program of the host's."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.host = f"{self.folder.name}/host"
        self.inside = f"{self.folder.name}/inside"
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.server.close)
        self.server.settimeout(WAIT_S)
        self.server.bind(self.inside)
        self.server.listen(CONNECTIONS_MAX)
        ours, theirs = socket.socketpair()
        self.port = ours
        self.proc = subprocess.Popen([ASYNCPF, "lab-relay", self.inside], stdin=theirs)
        theirs.close()
        self.failures = []
        self.thread = threading.Thread(
            target=Relay(self.host, ours, self.failures.append).run)
        self.thread.start()
        self.addCleanup(self.finish)
        wait_for_socket(self.host)
        self.accept().close()  # lab-relay has looked whether it is there

    def finish(self):
        self.proc.kill()
        self.proc.wait()
        self.thread.join(WAIT_S)
        self.assertFalse(self.thread.is_alive())
        self.port.close()

    def connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.settimeout(WAIT_S)
        sock.connect(self.host)
        return sock

    def accept(self):
        sock, _ = self.server.accept()
        self.addCleanup(sock.close)
        sock.settimeout(WAIT_S)
        return sock

    def pair(self):
        host = self.connect()
        return host, self.accept()


def everything(sock):
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def exactly(sock, length):
    data = b""
    while len(data) < length and (more := sock.recv(length - len(data))):
        data += more
    return data


class Time(unittest.TestCase):
    """The socket is there while the server is, as it would be without a lab."""

    def test_there_is_none_before_the_server(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            host, inside = f"{folder}/host", f"{folder}/inside"
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            thread = threading.Thread(target=Relay(host, ours).run)
            thread.start()
            with subprocess.Popen([ASYNCPF, "lab-relay", inside], stdin=theirs) as proc:
                theirs.close()
                time.sleep(0.2)  # what must not come is waited for
                self.assertFalse(os.path.exists(host))
                server = stack.enter_context(socket.socket(socket.AF_UNIX))
                server.bind(inside)
                server.listen()
                wait_for_socket(host)
                proc.kill()
            thread.join(WAIT_S)
            self.assertFalse(os.path.exists(host))


class Connections(Bed):
    def test_the_server_speaks_first_and_hangs_up(self):
        host, inside = self.pair()
        inside.sendall(b"greeting 1\n")
        self.assertEqual(host.recv(100), b"greeting 1\n")
        host.sendall(b"status\n")
        self.assertEqual(inside.recv(100), b"status\n")
        inside.sendall(b"ok\n")
        inside.close()
        self.assertEqual(everything(host), b"ok\n")

    def test_what_the_host_has_ended_is_still_answered(self):
        host, inside = self.pair()
        host.sendall(b"last words\n")
        host.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(inside), b"last words\n")
        inside.sendall(b"answer\n")
        inside.close()
        self.assertEqual(everything(host), b"answer\n")

    def test_a_host_program_that_goes_away(self):
        host, inside = self.pair()
        host.close()
        self.assertEqual(everything(inside), b"")

    def test_many_one_after_the_other(self):
        for n in range(3 * CONNECTIONS_MAX):
            host, inside = self.pair()
            inside.sendall(b"%d" % n)
            inside.close()
            self.assertEqual(everything(host), b"%d" % n)
            host.close()

    def test_as_many_at_once_as_there_are_numbers_and_one_that_waits(self):
        pairs = [self.pair() for _ in range(CONNECTIONS_MAX)]
        for n, (host, inside) in enumerate(pairs):
            inside.sendall(b"%d" % n)
            self.assertEqual(host.recv(100), b"%d" % n)
        late = self.connect()
        self.assertEqual(select.select([self.server], [], [], 0.1)[0], [])
        pairs[3][1].close()
        pairs[3][0].close()
        self.accept().sendall(b"your turn")
        self.assertEqual(late.recv(100), b"your turn")

    def test_large_messages_in_both_directions(self):
        host, inside = self.pair()
        for n in range(32):
            sent = os.urandom(PENDING_MAX // 2 + n)
            host.sendall(sent)
            self.assertEqual(exactly(inside, len(sent)), sent)
            inside.sendall(sent)
            self.assertEqual(exactly(host, len(sent)), sent)


class Trouble(Bed):
    def test_a_path_that_somebody_else_takes_meanwhile(self):
        ours, theirs = socket.socketpair()
        taken = f"{self.folder.name}/taken"
        failures = []
        with ours, theirs, listening(taken):
            thread = threading.Thread(target=Relay(taken, ours, failures.append).run)
            thread.start()
            theirs.sendall(HEAD.pack(READY, 0, 0))
            thread.join(WAIT_S)
            self.assertFalse(thread.is_alive())
            self.assertTrue(os.path.exists(taken))
        self.assertIsInstance(failures[0], Refused)
        self.assertEqual(str(failures[0]), f"control socket: {taken}: a running server answers "
                                           "there; stop it, or name another")

    def test_a_client_that_does_not_read_is_dropped_and_others_go_on(self):
        lazy, inside = self.pair()
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                inside.sendall(b"x" * PENDING_MAX)
            # All was taken, and most of it thrown away: the end is told.
            self.assertEqual(everything(inside), b"")
        host, other = self.pair()
        other.sendall(b"still here")
        self.assertEqual(host.recv(100), b"still here")
        lazy.close()

    def test_a_server_that_does_not_read_is_hung_up_and_others_go_on(self):
        host, inside = self.pair()
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                host.sendall(b"x" * PENDING_MAX)
            self.assertEqual(everything(host), b"")
        host2, other = self.pair()
        other.sendall(b"still here")
        self.assertEqual(host2.recv(100), b"still here")
        inside.close()

    def test_the_lab_ends(self):
        host, _ = self.pair()
        self.proc.kill()
        self.assertEqual(host.recv(100), b"")
        self.thread.join(WAIT_S)
        self.assertFalse(self.thread.is_alive())

    def test_the_host_ends(self):
        _, inside = self.pair()
        self.port.shutdown(socket.SHUT_RDWR)
        self.assertEqual(everything(inside), b"")
        self.assertEqual(self.proc.wait(WAIT_S), 0)


class Garbage(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = f"{self.folder.name}/s"
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.server.close)
        self.server.bind(self.path)
        self.server.listen(CONNECTIONS_MAX)

    def refused(self, data):
        ours, theirs = socket.socketpair()
        with ours, subprocess.Popen([ASYNCPF, "lab-relay", self.path], stdin=theirs,
                                    stderr=subprocess.PIPE, text=True) as proc:
            theirs.close()
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)  # one that takes it all ends, too
            self.assertIn("cannot relay: standard input: Protocol error", proc.stderr.read())
            self.assertEqual(proc.wait(WAIT_S), 1)

    def test_no_frames(self):
        self.refused(b"GET / HTTP/1.0\r\n\r\n")

    def test_frames_that_the_host_may_not_send(self):
        opened = HEAD.pack(OPEN, 3, 0)
        for frame in (HEAD.pack(OPEN, CONNECTIONS_MAX, 0), HEAD.pack(DATA, 3, FRAME_MAX + 1),
                      HEAD.pack(END, 3, 1), HEAD.pack(END, 2, 0), opened):
            with self.subTest(frame=frame):
                self.refused(opened + frame)


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = f"{self.folder.name}/s"

    def test_it_is_its_owners_alone_and_goes_away(self):
        with listening(self.path):
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertFalse(os.path.exists(self.path))

    def test_a_dead_one_is_replaced_a_living_one_is_not(self):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        with listening(self.path):
            with self.assertRaisesRegex(Refused, "^control socket: .*/s: a running server answers"):
                with listening(self.path):
                    pass
            self.assertTrue(os.path.exists(self.path))

    def test_the_command_that_finds_one_in_use_ends_as_without_a_lab(self):
        words = ["lab", "run", f"--socket={self.path}:/s", "--file=/dev/null:asyncpf", "--", "true"]
        said = io.StringIO()
        with listening(self.path), mock.patch.object(command, "fetch"), \
                mock.patch.object(command, "stop_on_signals"), \
                mock.patch.object(sys, "argv", words), contextlib.redirect_stderr(said):
            self.assertEqual(command.main(), EXIT_REFUSED)
        self.assertEqual(said.getvalue(), f"asyncpf: control socket: {self.path}: a running server "
                                          "answers there; stop it, or name another\n")

    def test_no_file_of_another_kind_is_touched(self):
        pathlib.Path(self.path).write_text("kept", encoding="utf-8")
        with self.assertRaisesRegex(Refused, "^control socket: "):
            with listening(self.path):
                pass
        self.assertEqual(pathlib.Path(self.path).read_text(encoding="utf-8"), "kept")

    def test_a_folder_that_somebody_has_locked(self):
        """Neither the start nor the end waits for ever."""
        fd = os.open(self.folder.name, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        with listening(self.path):
            fcntl.flock(fd, fcntl.LOCK_EX)
            with self.assertRaisesRegex(Refused, "cannot lock its folder: .*; use a folder of "
                                                  "your own"):
                with listening(f"{self.folder.name}/other"):
                    pass
        check_stale(self.path)  # and may be replaced

    def test_what_took_its_place_stays(self):
        with listening(self.path):
            os.unlink(self.path)
            pathlib.Path(self.path).write_text("new", encoding="utf-8")
        self.assertTrue(os.path.exists(self.path))

    def test_names_that_cannot_be(self):
        for path in (f"{self.folder.name}/none/s", "/" + 200 * "x"):
            with self.assertRaisesRegex(Refused, "^control socket: "):
                with listening(path):
                    pass


if __name__ == "__main__":
    unittest.main()
