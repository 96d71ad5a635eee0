#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How soon a restored guest runs, by the size of its memory: from the start of `asyncpf restore` to
what its first instructions print. Beside it: `asyncpf --version`, all of which is the kernel's
exec and the loader's work.

usage: restore.py [--check] [--rounds N] [--sizes LIST] PATH_OF_ASYNCPF

The guest prints a letter, waits a moment, and again, from one page of code. Promises: the median of
N rounds (default 15) is at most 20 ms, and with the largest memory at most twice what it is with
the smallest. --check makes a broken promise the exit code. Sizes: default 64M,1G,4G,16G; what
a snapshot does not hold takes no room.
"""
import argparse
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BASE = 1 << 20
CODE = bytes.fromhex("66baf803"      # again: mov $0x3f8, %dx
                     "b052ee"        #        mov $'R', %al; out %al, %dx
                     "b900020000"    #        mov $0x200, %ecx
                     "f390e2fc"      # 1:     pause; loop 1b
                     "ebee")         #        jmp again
HEADER_BYTES = 32
KERNEL = struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                     BASE, BASE + HEADER_BYTES + len(CODE), 0, BASE + HEADER_BYTES) + CODE
FIRST_MS_MAX = 20
LARGER_MAX = 2
LIMIT_S = 60


def start(asyncpf, *words):
    return subprocess.Popen([asyncpf, *map(str, words)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE)


def make_snapshot(asyncpf, folder, size):
    """Where it is."""
    kernel, control, snap = folder / "kernel", folder / "vm", folder / f"snap-{size}"
    kernel.write_bytes(KERNEL)
    with start(asyncpf, "run", "--local", "--kernel", kernel, "--memory", size, "--faults",
               "kernel", "--control", control) as vm:
        if vm.stdout.read(1) != b"R":
            sys.exit("the guest has not begun")
        # It goes on printing, to nobody who reads.
        subprocess.run([asyncpf, "snapshot", "--timeout", str(LIMIT_S), "--control", control, snap],
                       check=True, stdout=subprocess.DEVNULL)
        vm.kill()
    control.unlink()
    return snap


def first_ms(asyncpf, snap):
    began = time.monotonic()
    with start(asyncpf, "restore", "--quiet", snap) as vm:
        got = vm.stdout.read(1)
        took = time.monotonic() - began
        vm.kill()
    if got != b"R":
        sys.exit(f"{snap}: the guest did not go on")
    return took * 1000


def version_ms(asyncpf):
    began = time.monotonic()
    subprocess.run([asyncpf, "--version"], check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("asyncpf")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", default="64M,1G,4G,16G")
    o = parser.parse_args()
    asyncpf = str(pathlib.Path(o.asyncpf).resolve())
    sizes = o.sizes.split(",")
    with tempfile.TemporaryDirectory(prefix="asyncpf-bench-") as name:
        snaps = {size: make_snapshot(asyncpf, pathlib.Path(name), size) for size in sizes}
        took = {size: [] for size in sizes}
        base = []
        # Sizes in turn, so that what the machine does meanwhile meets all of them.
        for _ in range(o.rounds):
            base.append(version_ms(asyncpf))
            for size in sizes:
                took[size].append(first_ms(asyncpf, snaps[size]))
    medians = {size: statistics.median(took[size]) for size in sizes}
    print(f"{'memory':>8} {'first instruction, ms':>22} {'least':>7}")
    print(f"{'-':>8} {statistics.median(base):>22.1f} {min(base):>7.1f}  (asyncpf --version)")
    for size in sizes:
        print(f"{size:>8} {medians[size]:>22.1f} {min(took[size]):>7.1f}")
    larger = medians[sizes[-1]] / medians[sizes[0]]
    kept = max(medians.values()) <= FIRST_MS_MAX and larger <= LARGER_MAX
    print(f"promised: {FIRST_MS_MAX} ms, {LARGER_MAX} times for {sizes[-1]}: {larger:.2f}; "
          f"{'kept' if kept else 'BROKEN'}")
    return o.check and not kept


if __name__ == "__main__":
    sys.exit(main())
