#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf image pack` and `unpack` beside the zstd tool, same level, same threads, same content:
half of it compresses. Files are in memory (/dev/shm), so that no disk is measured.

Promise: at least 0.85 of the tool's rate; the median of rounds, each of which runs all of them by
turns. It is judged by the CPU time that both take; by the clock as well, unless others used more
than a tenth of the machine meanwhile: the tool has a thread more than it says, and gets more of a
busy machine for it. --frames shows what a random 4 KiB costs by frame size.

usage: bench/image.py [--check] [--mib N] [--rounds N] [--threads N] [--frames] [FILE] ASYNCPF
"""
import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PROMISE = 0.85
LEVEL = 3


def make(path, mib):
    """By pages, as memory is: text, small numbers in structures, noise, zeroes."""
    r = random.Random(1)
    words = [r.randbytes(r.randrange(2, 9)).hex().encode() for _ in range(4000)]
    with open(path, "wb") as f:
        for _ in range(mib):
            part = []
            while sum(map(len, part)) < 1 << 20:
                kind = r.randrange(8)
                pages = 4096 * r.randrange(1, 33)
                if kind < 3:
                    part.append(r.randbytes(pages))
                elif kind < 5:
                    part.append(b" ".join(r.choices(words, k=pages // 8))[:pages])
                elif kind < 7:
                    rows = (r.randrange(1 << 20).to_bytes(8, "little") + bytes(8) +
                            (0x7f0000000000 + 16 * r.randrange(1 << 16)).to_bytes(8, "little")
                            for _ in range(pages // 24 + 1))
                    part.append(b"".join(rows)[:pages])
                else:
                    part.append(bytes(pages))
            f.write(b"".join(part)[:1 << 20])


def run(words):
    """Wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def machine():
    """CPU seconds of everybody, and how many there were to be had."""
    words = open("/proc/stat", encoding="ascii").readline().split()[1:9]
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in words]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def frames(asyncpf, source, folder):
    size = os.path.getsize(source)
    packed = f"{folder}/frames.zst"
    print("frame      ratio   pack, CPU s   read and decompress one, us of CPU")
    for kib in (4, 16, 32, 64, 128, 256, 1024):
        pack = min(run([asyncpf, "image", "pack", source, packed, "--force", "--threads", "1",
                        "--frame-bytes", f"{kib}K"])[1] for _ in range(2))
        read = min(run([asyncpf, "image", "verify", packed, "--threads", "1"])[1]
                   for _ in range(3))
        print(f"{kib:4}K {size / os.path.getsize(packed):10.3f} {pack:10.2f} "
              f"{read / size * (kib << 10) * 1e6:16.1f}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("words", nargs="+")
    o = parser.parse_args()
    asyncpf = o.words[-1]
    if not shutil.which("zstd"):
        print("SKIP: the zstd tool is not installed")
        return 77
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = o.words[0] if len(o.words) > 1 else f"{folder}/in"
        if len(o.words) == 1:
            make(source, o.mib)
        if o.frames:
            frames(asyncpf, source, folder)
            return 0
        return compare(o, asyncpf, source, folder)


def compare(o, asyncpf, source, folder):
    ours, theirs, back = f"{folder}/ours.zst", f"{folder}/theirs.zst", f"{folder}/back"
    threads = str(o.threads)
    pairs = {
        "pack": ([asyncpf, "image", "pack", source, ours, "--force", "--threads", threads],
                 ["zstd", "-q", "-f", f"-{LEVEL}", f"-T{threads}", source, "-o", theirs]),
        "unpack": ([asyncpf, "image", "unpack", ours, back, "--force", "--threads", threads],
                   ["zstd", "-q", "-f", "-d", f"-T{threads}", theirs, "-o", back]),
    }
    times = {name: [] for name in pairs}
    before, ours_s = machine(), 0.0
    for turn in range(o.rounds + 1):
        for name, (own, tool) in pairs.items():
            # Who goes first changes; the first round warms up.
            both = [run(own), run(tool)] if turn % 2 else [run(tool), run(own)][::-1]
            ours_s += both[0][1] + both[1][1]
            if turn > 0:
                times[name].append(both)
    others = (machine()[0] - before[0] - ours_s) / (machine()[1] - before[1])
    return report(o, source, ours, theirs, times, others)


def report(o, source, ours, theirs, times, others):
    size = os.path.getsize(source)
    print(f"{size >> 20} MiB, level {LEVEL}, {o.threads} threads; packed to "
          f"{os.path.getsize(ours) / size:.3f}, by zstd to {os.path.getsize(theirs) / size:.3f}")
    print(f"others used {max(0, others):.0%} of the machine: the clock is "
          f"{'' if others <= 0.1 else 'not '}judged")
    kept = True
    for name, rows in times.items():
        wall = sorted(tool[0] / own[0] for own, tool in rows)
        cpu = statistics.median(tool[1] / own[1] for own, tool in rows)
        rate = statistics.median(size / own[0] / 1e6 for own, _ in rows)
        middle = statistics.median(wall)
        kept = kept and cpu >= PROMISE and (middle >= PROMISE or others > 0.1)
        print(f"{name:7} {rate:6.0f} MB/s, {middle:.2f} of zstd ({wall[0]:.2f} to {wall[-1]:.2f}), "
              f"by CPU time {cpu:.2f}; promised {PROMISE}")
    return 1 if o.check and not kept else 0


if __name__ == "__main__":
    sys.exit(main())
