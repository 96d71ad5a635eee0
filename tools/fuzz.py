# SPDX-License-Identifier: Apache-2.0
"""Runs the fuzzing entries of a build folder with libFuzzer, each for a while, as many at a
time as there are processors, and prints a line for each.

usage: tools/fuzz [--seconds N] [--jobs N] BUILD_FOLDER [NAME...]

An entry starts from its corpus in tests/fuzz/corpus and from what earlier runs kept in
BUILD_FOLDER/fuzz/NAME, where new inputs go, and what ends the entry: until the cause is
mended, later runs end by it at once. Exit code 1 on a finding, when an entry executed
nothing, and when there is none. Test: tests/unit/fuzz_test.py.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOG_LINES_MAX = 40
# libFuzzer stops by itself; this is for an entry that does not let it.
EXTRA_S = 120
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192"]


def numbers(log):
    """(executions, coverage edges, corpus inputs) from libFuzzer's output."""
    executed = re.findall(r"^stat::number_of_executed_units:\s*(\d+)", log, re.M)
    progress = re.findall(r"^#(\d+)\s+[A-Z]+\s+cov: (\d+) .*?corp: (\d+)/", log, re.M)
    last = progress[-1] if progress else ("0", "0", "0")
    return int(executed[-1] if executed else last[0]), int(last[1]), int(last[2])


def finding(log, code):
    """What ended the entry, and the input that did; None when nothing has."""
    if code == 0:
        return None
    what = re.findall(r"^(?:SUMMARY|ERROR|==\d+== ?ERROR): (.*)", log, re.M)
    paths = re.findall(r"Test unit written to (\S+)", log)
    return what[-1] if what else f"exit code {code}", paths[-1] if paths else None


def run(program, name, work, seconds):
    """The entry's output and exit code."""
    kept = work / name
    kept.mkdir(parents=True, exist_ok=True)
    command = [program, f"-max_total_time={seconds}", f"-artifact_prefix={kept}/",
               "-print_final_stats=1", *LIMITS, kept, ROOT / "tests/fuzz/corpus" / name]
    log = work / f"{name}.log"
    with log.open("wb") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False,
                                  stdin=subprocess.DEVNULL, timeout=seconds + EXTRA_S).returncode
        except subprocess.TimeoutExpired:
            code = "none, it did not stop"
    return log.read_text(encoding="utf-8", errors="replace"), code


def report(name, program, seconds, log, code):
    """Prints the entry's line, and what was found. True: nothing was, and it did run."""
    executions, edges, inputs = numbers(log)
    found = finding(log, code)
    if found or executions == 0:
        print("\n".join("    " + line for line in log.splitlines()[-LOG_LINES_MAX:]))
    print(f"{name}: {executions} executions, {inputs} inputs, {edges} edges, {seconds} s",
          flush=True)
    if executions == 0:
        print(f"{name}: nothing was executed")
    if found:
        print(f"{name}: found: {found[0]}")
        if found[1]:
            print(f"{name}: replay: {shlex.join([str(program), found[1]])}", flush=True)
    return not found and executions > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    programs = {p.name.removesuffix("_fuzz"): p for p in
                sorted((args.build / "tests/fuzz").glob("*_fuzz")) if p.is_file()}
    unknown = set(args.names) - set(programs)
    if unknown or not programs:
        print(f"asyncpf: cannot fuzz: {' '.join(sorted(unknown)) or args.build}: there is no such "
              "entry; build it with 'make fuzz-smoke'", file=sys.stderr)
        return 1
    work, good = args.build / "fuzz", 0
    chosen = {n: p for n, p in programs.items() if not args.names or n in args.names}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = {pool.submit(run, p, n, work, args.seconds): n for n, p in chosen.items()}
        for done in concurrent.futures.as_completed(runs):
            name = runs[done]
            good += report(name, chosen[name], args.seconds, *done.result())
    print(f"{good} entries without a finding, {len(chosen) - good} with")
    return 0 if good == len(chosen) else 1
