#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf pager` beside a plain handler of one thread (bench/plain_pager.c): pages per second that
stand-in VMs touch for the first time, by turns, the median of rounds.

Promises: from a source that takes 10 ms, one VM with 32 threads, at least 20 times the plain
handler's; from a file in the page cache, 8 VMs whose threads go through their memory, at least 1.5
times; beside buffers with a stated limit, at most 1 MiB of memory for each of 64 VMs. What VMs that
touch at random get from a file is shown as well, and not promised: there each page costs both
handlers the same system calls.

usage: bench/pager.py [--check] [--rounds N] ASYNCPF PLAIN_PAGER STANDIN_VMM
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

PAGE = 4096
SLOW_TIMES, WARM_TIMES, KIB_PER_VM = 20, 1.5, 1024


class Handler:
    def __init__(self, words, socket):
        self.socket = socket
        socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        while not socket.exists():
            if self.process.poll() is not None:
                sys.exit(f"bench/pager.py: it ended: {words}")
            time.sleep(0.01)

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))

    def cpu_s(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        return sum(map(int, text.rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.kill()
        self.process.wait()


def come(standin, handler, image, vms, settings):
    """VMs that have handed their memory over and wait for the word."""
    all_vms = [subprocess.Popen([standin, handler.socket, image, "bench=1", "go=0", *settings],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(vms)]
    for vm in all_vms:
        if vm.stdout.readline() != "ready\n":
            sys.exit("bench/pager.py: a VM did not begin: " + vm.stdout.read())
    return all_vms


def go(vms):
    """Pages per second of all of them together, and pages."""
    start = time.monotonic()
    for vm in vms:
        vm.stdin.close()
    pages = 0
    for vm in vms:
        said = vm.stdout.read()
        if vm.wait() != 0:
            sys.exit("bench/pager.py: a VM failed: " + said)
        pages += int(re.search(r"touched (\d+)", said).group(1))
    return pages / (time.monotonic() - start), pages


def measure(args, folder, what, image, vms, delay_us, settings):
    socket = folder / "fc.sock"
    rates = {"asyncpf": [], "plain": []}
    costs = {"asyncpf": [], "plain": []}
    source = f"delay+file:{image}?us={delay_us}" if delay_us else image
    for _ in range(args.rounds):
        for name, words in (
                ("asyncpf", [args.asyncpf, "pager", "--quiet", "--listen", socket, "--source",
                             source]),
                ("plain", [args.plain, socket, image, str(delay_us)])):
            handler = Handler(words, socket)
            try:
                rate, pages = go(come(args.standin, handler, image, vms, settings))
                rates[name].append(rate)
                costs[name].append(handler.cpu_s() * 1e6 / pages)
            finally:
                handler.end()
    ours, plain = (statistics.median(rates[name]) for name in ("asyncpf", "plain"))
    print(f"{what:<40} {ours:>9.0f} {plain:>9.0f} {ours / plain:>7.2f}"
          f" {statistics.median(costs['asyncpf']):>7.1f} {statistics.median(costs['plain']):>7.1f}",
          flush=True)
    return ours / plain


def memory(args, folder, image, vms):
    """KiB that a VM costs, all of whose memory was touched."""
    handler = Handler([args.asyncpf, "pager", "--quiet", "--listen", folder / "fc.sock",
                       "--source", image], folder / "fc.sock")
    try:
        # The buffers are the first VM's; what the others add is theirs.
        go(come(args.standin, handler, image, 4, ["threads=4"]))
        before = handler.rss_kib()
        all_vms = come(args.standin, handler, image, vms, ["hold=1", "touches=2000"])
        for vm in all_vms:
            vm.stdin.close()
        for vm in all_vms:
            vm.stdout.readline()
        cost = (handler.rss_kib() - before) / vms
        for vm in all_vms:
            vm.kill()
            vm.wait()
    finally:
        handler.end()
    print(f"{f'memory of a VM, one of {vms}, KiB':<40} {cost:>9.1f}")
    return cost


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("asyncpf")
    parser.add_argument("plain")
    parser.add_argument("standin")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asyncpf-bench-", dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        image = folder / "image"
        image.write_bytes(os.urandom(64 << 20))
        print(f"{'pages per second; CPU us per page':<40} {'asyncpf':>9} {'plain':>9} {'times':>7}"
              f" {'asyncpf':>7} {'plain':>7}")
        slow = measure(args, folder, "10 ms, 1 VM of 32 threads, random", image, 1, 10000,
                       ["threads=32", "touches=20"])
        measure(args, folder, "10 ms, 8 VMs of 8 threads, random", image, 8, 10000,
                ["threads=8", "touches=10"])
        measure(args, folder, "file, 1 VM of 4 threads, in order", image, 1, 0,
                ["order=even"])
        warm = measure(args, folder, "file, 8 VMs of 4 threads, in order", image, 8, 0,
                       ["order=even"])
        measure(args, folder, "file, 64 VMs of 1 thread, in order", image, 64, 0,
                ["order=even", "threads=1"])
        measure(args, folder, "file, 1 VM of 4 threads, random", image, 1, 0, [])
        measure(args, folder, "file, 8 VMs of 4 threads, random", image, 8, 0, [])
        cost = memory(args, folder, image, 64)
    broken = [text for bad, text in (
        (slow < SLOW_TIMES, f"10 ms: {slow:.1f} times, promised {SLOW_TIMES}"),
        (warm < WARM_TIMES, f"8 VMs: {warm:.2f} times, promised {WARM_TIMES}"),
        (cost > KIB_PER_VM, f"a VM costs {cost:.0f} KiB, promised {KIB_PER_VM}")) if bad]
    for text in broken:
        print("BROKEN:", text)
    return 1 if args.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
