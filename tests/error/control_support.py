# SPDX-License-Identifier: Apache-2.0
"""What the tests of the control verbs share: a folder for sockets, the command with a time
limit, and servers that are none of ours."""
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import foreground

LIMIT_S = 60  # for one call of the command, on a slow and busy machine
VERBS = {"status": (), "events": (), "pause": (), "resume": (), "evict": ("--all",),
         "resize": ("--no-limit",), "balloon": ("--to", "64M"), "stop": ()}
WHAT = {verb: {"status": "show the status", "events": "follow",
               "balloon": "change the balloon"}.get(verb, verb) for verb in VERBS}


def program():
    return str(pathlib.Path(sys.argv[1]).resolve())


class Peer:
    """Says `say` to each who connects to `path`. Then it hangs up after so many lines of the
    client's, which are in .heard; or never, if lines is None."""

    def __init__(self, path, say=b"", lines=2, kind=socket.SOCK_STREAM):
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.bind(str(path))
        self.say, self.lines, self.heard, self.open = say, lines, b"", []
        if kind == socket.SOCK_STREAM:
            self.socket.listen(4)
            self.thread = threading.Thread(target=self._serve, daemon=True)
            self.thread.start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            peer.sendall(self.say)
            if self.lines is None:
                self.open.append(peer)
                continue
            self._hear(peer)
            peer.close()

    def _hear(self, peer):
        heard = b""
        while heard.count(b"\n") < self.lines:
            try:
                data = peer.recv(4096)
            except OSError:  # it hung up without having read everything
                data = b""
            if not data:
                break
            heard += data
        self.heard += heard

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        for peer in self.open:
            peer.close()


class ControlTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.path = self.folder / "vm.sock"

    def run_verb(self, verb, *words, **options):
        return subprocess.run([program(), verb, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S,
                              **options)

    def ask(self, verb, *words, path=None, **options):
        return self.run_verb(verb, "--control", str(path or self.path),
                             *VERBS.get(verb, ()), *words, **options)

    def failed(self, done, text, code=1):
        """Exit code, no result, and exactly this one line on stderr."""
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (code, "", f"asyncpf: {text}\n"))

    def all_fail(self, why, *words, path=None, verbs=VERBS, code=3):
        """By default for want of somebody to ask; 1 where it had been asked."""
        for verb in verbs:
            with self.subTest(verb=verb):
                self.failed(self.ask(verb, *words, path=path),
                            f"cannot {WHAT[verb]}: {path or self.path}: {why}", code)

    def peer(self, *args, **options):
        peer = Peer(self.path, *args, **options)
        self.addCleanup(peer.close)
        return peer


class Vm:
    """A process with a control socket: control_vm.c."""

    def __init__(self, binary, path):
        self.process = subprocess.Popen([binary, str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, line):
        got = self.process.stdout.readline()
        if got != f"{line}\n":
            raise AssertionError(f"expected {line!r}, got {got!r}")

    def order(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.expect("done")

    def end(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        code = self.process.wait(LIMIT_S)
        self.process.stdout.close()
        return code

    def kill(self):
        self.process.kill()
        self.end()


def main():
    foreground.restore()
    run = unittest.main(module="__main__", argv=sys.argv[:1], exit=False)
    for case, reason in run.result.skipped:
        print(f"SKIP: {case.id().rsplit('.', 1)[1]}: {reason}")
    if run.result.testsRun == 0:
        return 1
    return 0 if run.result.wasSuccessful() else 1


def drop_root():
    """For a child: another user than the one who owns the sockets."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
