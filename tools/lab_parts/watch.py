# SPDX-License-Identifier: Apache-2.0
"""What the machine says while it runs, and when it is over."""
import math
import os
import re
import selectors
import sys
import time

from lab_parts import LabError

BOOT_LIMIT_S = 120
# After the first complaint of the kernel: long enough for the rest of it.
COMPLAINT_GRACE_S = 5
COMPLAINT = re.compile(
    r"WARNING: |BUG: |\bOops\b|Kernel panic|Unable to handle kernel|blocked for more than|"
    r"rcu.*(?:detected (?:expedited )?stalls|self-detected stall)|soft lockup|hard LOCKUP|"
    r"unchecked MSR access|Out of memory: Killed|cut here")
CUT_HERE = re.compile(r"-+\[ cut here \]-+")


class Watch:
    """Reads what the machine says, and decides when it is over."""

    def __init__(self, o, on_ready=lambda: None):
        self.o = o
        self.on_ready = on_ready
        self.began = time.monotonic()
        self.log = bytearray()
        self.control = bytearray()
        self.seen = 0  # bytes of the log that were looked at
        self.failure = None  # a LabError of somebody else's, who has ended the machine
        self.complaint = None
        self.complained_at = None
        self.ready_s = None

    def console(self, data):
        self.log += data
        if self.o.verbose:
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
        end = self.log.rfind(b"\n") + 1
        for line in self.log[self.seen:end].decode(errors="replace").splitlines():
            if COMPLAINT.search(line) and (
                    self.complaint is None or CUT_HERE.search(self.complaint)):
                # "cut here" announces the line that says what it is.
                self.complaint = re.sub(r"^\[\s*[\d.]+\] ", "", line).strip()
                self.complained_at = self.complained_at or time.monotonic()
                if self.o.verb == "shell":
                    print(f"asyncpf: the lab's kernel complains: {self.complaint}\r",
                          file=sys.stderr)
        self.seen = end

    @staticmethod
    def output(data):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    @staticmethod
    def errors(data):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    def answer(self, data):
        self.control += data
        if self.ready_s is None and b"ready\n" in self.control:
            self.ready_s = time.monotonic() - self.began
            if self.o.verbose:
                print(f"lab: up after {self.ready_s:.1f} s", file=sys.stderr)
            self.on_ready()

    def deadline(self):
        """(when, exception) of what ends the run first."""
        o = self.o
        ends = []
        if o.timeout:
            ends.append((self.began + o.timeout, TimeoutError()))
        if self.ready_s is None:
            ends.append((self.began + BOOT_LIMIT_S, LabError(
                f"cannot start: the lab's Linux: not up after {BOOT_LIMIT_S} s; see "
                f"{o.log}")))
        if self.complained_at:
            ends.append((self.complained_at + COMPLAINT_GRACE_S, None))
        return min(ends, key=lambda e: e[0], default=(math.inf, None))


def watch_run(proc, watch, handlers):
    """handlers: fd -> what takes its bytes. Until all are closed: then QEMU has ended."""
    with selectors.DefaultSelector() as selector:
        for fd, handler in handlers.items():
            selector.register(fd, selectors.EVENT_READ, handler)
        while selector.get_map():
            when, why = watch.deadline()
            if time.monotonic() >= when:
                proc.kill()
                if why:
                    raise why
                return
            left_s = None if when == math.inf else max(0, when - time.monotonic())
            for key, _ in selector.select(left_s):
                data = read_some(key.fd)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fd)


def read_some(fd):
    try:
        return os.read(fd, 65536)
    except ConnectionResetError:
        return b""  # a socket whose other end did not read all
