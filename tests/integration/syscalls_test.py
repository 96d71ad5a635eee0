#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""System calls per page of `asyncpf demo`, counted by the kernel's own trace point: not time, so
that a busy machine changes little. Each is the difference of two runs, one with twice the pages, so
that set-up and end cancel out. Exits 77 where trace points cannot be counted.

usage: syscalls_test.py PATH_OF_ASYNCPF
"""
import ctypes
import os
import struct
import sys
import tempfile

ID_FILES = ["/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
            "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id"]
PERF_EVENT_OPEN = 298  # x86-64
PERF_TYPE_TRACEPOINT = 2
# perf_event_attr.flags
DISABLED, INHERIT, ENABLE_ON_EXEC = 1 << 0, 1 << 1, 1 << 12
# The demo reads each page of the image once by itself, to know what the guest must find.
OF_THE_DEMO = 1
TRIES = 10

# what, pages of the smaller run, options, at most this many for each page
ROWS = [
    ("many in flight", 4096, ["--tasks", "256", "--delay-us", "60000"], 4),
    ("32 tasks, 5 ms", 2048, ["--delay-us", "5000"], 6),
    ("page cache", 4096, ["--delay-us", "0"], 4),
    ("cold, each told of", 2048,
     ["--delay-us", "0", "--cold", "--grace-us", "0", "--pattern", "random"], 5),
]


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def tracepoint():
    for name in ID_FILES:
        try:
            with open(name, encoding="ascii") as f:
                return int(f.read())
        except OSError:
            pass
    skip("no trace points here (tracefs, as root)")


def open_counter(event, pid):
    libc = ctypes.CDLL(None, use_errno=True)
    attr = struct.pack("<IIQQQQQ", PERF_TYPE_TRACEPOINT, 128, event, 0, 0, 0,
                       DISABLED | INHERIT | ENABLE_ON_EXEC).ljust(128, b"\0")
    fd = libc.syscall(PERF_EVENT_OPEN, attr, pid, -1, -1, 0)
    if fd < 0:
        skip(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return fd


def count(event, command):
    """System calls of the command and all of its threads."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read_end, 1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execv(command[0], command)
    fd = open_counter(event, pid)
    os.write(write_end, b"x")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    calls = struct.unpack("<Q", os.read(fd, 8))[0]
    for each in (fd, read_end, write_end):
        os.close(each)
    return calls


def per_page(event, asyncpf, image, pages, options):
    def run(n):
        return count(event, [asyncpf, "demo", "--quiet", "--runs", "user:int", "--image", image,
                             "--pages", str(n), *options])
    return (run(2 * pages) - run(pages)) / pages - OF_THE_DEMO


def main():
    asyncpf = os.path.abspath(sys.argv[1])
    event = tracepoint()
    bad = 0
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.write(os.urandom(8192 * 4096))
        image.flush()
        for what, pages, options, bound in ROWS:
            # The least: a thread that is preempted in the wrong place costs calls, and saves none.
            least = float("inf")
            for _ in range(TRIES):
                least = min(least, per_page(event, asyncpf, image.name, pages, options))
                if least <= bound:
                    break
            print(f"{what}: {least:.2f} system calls for each page, at most {bound}")
            bad += least > bound
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
