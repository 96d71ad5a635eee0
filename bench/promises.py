#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what docs/numbers.md promises of `asyncpf demo`, and fails when one is broken.

usage: bench/promises.py PATH_OF_ASYNCPF [--rounds N] [--only WORD] [--markdown]

Each promise is a ratio within one run of the demo, so that a slow or noisy machine is
slow for both sides; the median of N rounds (default 5) counts. Absolute times are never
judged, and CPU time is that of the whole machine, kernel threads included.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def demo(asyncpf, *options):
    """One run of the demo: results by "faults:abi"."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([asyncpf, "demo", "--quiet", "--json", out.name, *options],
                              capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            sys.exit(f"asyncpf demo {' '.join(options)}: exit code {done.returncode}\n"
                     f"{done.stderr}")
        data = json.load(open(out.name, encoding="utf-8"))
    runs = {r["faults"] if r["faults"] != "user" else f"user:{r['abi']}": r for r in data["runs"]}
    bad = [name for name, r in runs.items() if not r["verified"]]
    if bad:
        sys.exit(f"asyncpf demo {' '.join(options)}: not verified: {bad}")
    return runs


def rate(run):
    return run["pages"] / run["wall_s"]


# name, options of the demo, {what: (value of one round, "min" or "max", bound)}
PROMISES = [
    ("default", ["--runs", "block,stall,kernel,user:int"], {
        "pages/s, user:int over block":
            (lambda r: rate(r["user:int"]) / rate(r["block"]), "min", 15),
        "pages/s, user:int over stall":
            (lambda r: rate(r["user:int"]) / rate(r["stall"]), "min", 1),
        "wall, user:int over kernel":
            (lambda r: r["user:int"]["wall_s"] / r["kernel"]["wall_s"], "max", 1.05),
        "machine CPU per page, user:int over kernel":
            (lambda r: r["user:int"]["machine_cpu_s"] / r["kernel"]["machine_cpu_s"], "max", 1),
    }),
    ("latency-21ms", ["--runs", "block,user:int", "--delay-us", "21000", "--pages", "1024"], {
        "pages/s, user:int over block, 32 tasks":
            (lambda r: rate(r["user:int"]) / rate(r["block"]), "min", 25),
    }),
    ("tasks-128", ["--runs", "kernel,user:int", "--tasks", "128", "--delay-us", "60000",
                   "--pages", "4096"], {
        "pages/s, user:int over kernel, 128 tasks":
            (lambda r: rate(r["user:int"]) / rate(r["kernel"]), "min", 1.8),
    }),
    ("fast-source", ["--runs", "block,stall,user:int", "--delay-us", "30", "--pages", "16384"], {
        "wall, user:int over the better of block and stall":
            (lambda r: r["user:int"]["wall_s"] /
             min(r["block"]["wall_s"], r["stall"]["wall_s"]), "max", 1.02),
        "share of faults that became events":
            (lambda r: r["user:int"]["missing_events"] / r["user:int"]["pages"], "max", 0.01),
    }),
    ("page-cache", ["--runs", "block,stall,user:int", "--delay-us", "0", "--pages", "32768"], {
        "wall, user:int over the better of block and stall":
            (lambda r: r["user:int"]["wall_s"] /
             min(r["block"]["wall_s"], r["stall"]["wall_s"]), "max", 1.02),
        "share of faults that became events":
            (lambda r: r["user:int"]["missing_events"] / r["user:int"]["pages"], "max", 0.01),
    }),
    ("idle", ["--runs", "user:int", "--pattern", "idle"], {
        "share of a CPU that an idle guest costs":
            (lambda r: r["user:int"]["process_cpu_s"] / r["user:int"]["wall_s"], "max", 0.02),
    }),
]


TRACE_PAIRS = 9  # in each round, as few per cent are looked for


def compute(asyncpf):
    """A counting task beside one that faults at 20 ms a page, against counting alone."""
    alone = demo(asyncpf, "--runs", "user:int", "--pattern", "compute", "--tasks", "1")
    beside = demo(asyncpf, "--runs", "user:int", "--pattern", "compute", "--tasks", "2",
                  "--pages", "100", "--delay-us", "20000")
    return beside["user:int"]["count_per_s"] / alone["user:int"]["count_per_s"]


def trace(asyncpf, key):
    """The same demo with and without --trace, by turns; the median of their ratios."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        traced = ["--trace", os.path.join(folder, "trace.json")]
        for i in range(TRACE_PAIRS):
            took = {}
            for options in ([], traced) if i % 2 else (traced, []):
                run = demo(asyncpf, "--runs", "user:int", *options)["user:int"]
                took[bool(options)] = run[key]
            ratios.append(took[True] / took[False])
    return statistics.median(ratios)


CACHED_PAIRS = 5  # in each round: it is near its bound


def cached(asyncpf):
    """Faults on what a cache has, and on the page cache's file itself, by turns: CPU time."""
    plain = ["--runs", "user:int", "--delay-us", "0", "--pages", "16384"]
    ratios = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        wrap = ["--source-wrap", f"cache?cache-dir={folder}&cache-size=512M&cache-key=1"]
        demo(asyncpf, *plain, *wrap)
        for i in range(CACHED_PAIRS):
            took = {}
            for more in ([], wrap) if i % 2 else (wrap, []):
                run = demo(asyncpf, *plain, *more)["user:int"]
                took[bool(more)] = run["process_cpu_s"]
            ratios.append(took[True] / took[False])
    return statistics.median(ratios)


def measured(asyncpf, rounds, only):
    """(group, what, median, all values, kind, bound) for each promise."""
    for name, options, promises in PROMISES:
        if only and only not in name:
            continue
        runs = [demo(asyncpf, *options) for _ in range(rounds)]
        for what, (value, kind, bound) in promises.items():
            values = sorted(value(r) for r in runs)
            yield name, what, statistics.median(values), values, kind, bound
    if not only or only in "compute":
        values = sorted(compute(asyncpf) for _ in range(rounds))
        yield ("compute", "rate of a counting task beside a faulting one, over its rate alone",
               statistics.median(values), values, "min", 0.95)
    if not only or only in "cached":
        values = sorted(cached(asyncpf) for _ in range(rounds))
        yield ("cached", "CPU time of the process, user:int from a cache over from the file",
               statistics.median(values), values, "max", 1.1)
    if not only or only in "trace":
        values = sorted(trace(asyncpf, "wall_s") for _ in range(rounds))
        yield ("trace", "wall, user:int with --trace over without", statistics.median(values),
               values, "max", 1.02)
        values = sorted(trace(asyncpf, "process_cpu_s") for _ in range(rounds))
        yield ("trace", "CPU time of the process, user:int with --trace over without",
               statistics.median(values), values, "max", 1.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("asyncpf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="only the groups whose name contains this")
    parser.add_argument("--markdown", action="store_true", help="rows for docs/numbers.md")
    args = parser.parse_args()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        return 77
    broken = 0
    for name, what, median, values, kind, bound in measured(args.asyncpf, args.rounds, args.only):
        kept = median >= bound if kind == "min" else median <= bound
        broken += not kept
        sign = "at least" if kind == "min" else "at most"
        spread = f"{values[0]:.3f} to {values[-1]:.3f}"
        if args.markdown:
            print(f"| {name} | {what} | {sign} {bound} | {median:.3f} | {spread} |", flush=True)
        else:
            print(f"{'kept  ' if kept else 'BROKEN'} {name}: {what}: {median:.3f} "
                  f"({spread}), promised {sign} {bound}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
