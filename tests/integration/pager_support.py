# SPDX-License-Identifier: Apache-2.0
"""What tests of `asyncpf pager` have in common: the command, running, an image, and a stand-in VMM
that is served from it. The first two arguments are the paths of asyncpf and of the stand-in."""
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

LIMIT_S = 60
REFUSED = 3
ASYNCPF, STANDIN = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
PAGE = 4096


def until(what, condition):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.01)
    raise AssertionError(f"never: {what}")


def make_image(path, pages, seed):
    """Pages that differ, every fourth of them zeroes."""
    r = random.Random(seed)
    with open(path, "wb") as out:
        for i in range(pages):
            out.write(bytes(PAGE) if i % 4 == 3 else r.randbytes(PAGE))


class Pager:
    """The command, running."""

    def __init__(self, test, *options, command=None, **more):
        self.log = []
        self.process = subprocess.Popen(command or [ASYNCPF, "pager", *options],
                                        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        **more)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        test.addCleanup(self.end)
        until("serving", lambda: self.said("serving") or self.process.poll() is not None)

    def read(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def said(self, pattern):
        return [line for line in list(self.log) if re.search(pattern, line)]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        self.process.stdout.close()
        return code

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))


class PagerCase(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.image = self.folder / "image"
        make_image(self.image, 2048, 1)
        self.path = self.folder / "fc.sock"
        self.control = self.folder / "control.sock"

    def pager(self, source=None, *options, **more):
        return Pager(self, "--listen", self.path, "--source", source or str(self.image),
                     "--control", self.control, *options, **more)

    def standin(self, *settings, path=None, image=None):
        vmm = subprocess.Popen([STANDIN, path or self.path, image or self.image, *settings],
                               stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        self.addCleanup(self.reap, vmm)
        return vmm

    @staticmethod
    def reap(vmm):
        if vmm.poll() is None:
            vmm.kill()
        vmm.wait()
        vmm.stdout.close()
        vmm.stdin.close()

    def finish(self, vmm):
        out, _ = vmm.communicate(timeout=LIMIT_S)
        if vmm.returncode == 77:
            self.skipTest(out.strip())
        self.assertEqual((vmm.returncode, out[:3]), (0, "ok "), out)

    def check(self, *settings, **where):
        self.finish(self.standin(*settings, **where))

    def status(self):
        out = subprocess.run([ASYNCPF, "status", "--json", "--control", self.control],
                             stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
        return json.loads(out.stdout)

    def ask(self, request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(LIMIT_S)
            s.connect(str(self.control))
            s.sendall(b"asyncpf-control 1\n" + request.encode() + b"\n")
            s.shutdown(socket.SHUT_WR)
            got = b""
            while piece := s.recv(4096):
                got += piece
        return got.decode().splitlines()[-1]

    def serve_image(self, delay_ms=0):
        """The image at a Unix socket, by NBD, so far away; its URI."""
        if not shutil.which("nbdkit"):
            self.skipTest("no nbdkit")
        path = self.folder / "nbd.sock"
        server = subprocess.Popen(
            ["nbdkit", "-f", "-r", "-U", path, "--filter=log", "--filter=delay", "file",
             self.image, f"rdelay={delay_ms}ms", f"logfile={self.folder}/log"],
            stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        until("a server", path.exists)
        return server, f"nbd+unix:///?socket={path}"

    def served_log(self):
        return (self.folder / "log").read_text(encoding="ascii")

    def served_ranges(self):
        """Of each read of that server's: (offset, bytes)."""
        found = re.findall(r"Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)",
                           self.served_log())
        return [(int(offset, 16), int(count, 16)) for offset, count in found]

    def served_end(self):
        return max((sum(r) for r in self.served_ranges()), default=0)

    def served_reads(self):
        """Of each line of that server's about a read: (id, bytes); None for an answer."""
        text = self.served_log()
        found = re.findall(r"Read id=(\d+) (?:offset=\S+ count=(0x[0-9a-f]+)|return=0)", text)
        return [(int(number), int(count, 16) if count else None) for number, count in found]

    def need_network(self, code, log):
        if code is not None and any("not built" in line or "there is no" in line for line in log):
            self.skipTest(log[-1])
