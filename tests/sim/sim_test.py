#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator: seeds keep the promises, one seed always does the same, whoever runs it.

usage: sim_test.py PATH_OF_ASYNCPF
"""
import csv
import re
import subprocess
import sys

SEEDS = 100000


class Failed(Exception):
    pass


def sim(asyncpf, *args, rc=0):
    done = subprocess.run([asyncpf, "sim", *map(str, args)], capture_output=True, text=True,
                          check=False, timeout=280)
    if done.returncode != rc:
        raise Failed(f"asyncpf sim {' '.join(map(str, args))}: exit code {done.returncode}, "
                     f"not {rc}\n{done.stdout[-4000:]}{done.stderr}")
    return done.stdout


def number(text, pattern):
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"no '{pattern}' in: {text}")
    return int(found.group(1))


def without_time(text):
    return re.sub(r"^[\d.]+ s, .*", "", text, flags=re.M)


def seeds_keep_the_promises(asyncpf):
    out = sim(asyncpf, "--seeds", SEEDS)
    if number(out, r"^(\d+) seeds") != SEEDS:
        raise Failed("not all seeds were run")
    # Everything that the fault model promises has really happened.
    for what in ("page-missing", "page-ready", "wake-all", "stalls", "resets", "migrations",
                 "pauses", "troubles", "refused interrupts", "spurious", "real faults",
                 "evicted blocks", "swapped", "VMM accesses", "VMM touches",
                 "discarded pages", "overwritten", "holds", "parts adopted", "removed",
                 "kept back", "accesses to what has left", "offered pages",
                 "snapshots", "cuts tried again", "given up", "restores"):
        if number(out, rf"{what} (\d+)") < SEEDS // 1000:
            raise Failed(f"too little happened: {what}\n{out}")
    print(out)


def strict_shows_its_hazards(asyncpf):
    out = sim(asyncpf, "--seeds", 5000, "--abi", "pf2-strict")
    if number(out, r"hazards met (\d+)") == 0:
        raise Failed("pf2-strict lost no task: the liveness check is blind")
    if number(sim(asyncpf, "--seeds", 5000, "--abi", "pf2"), r"hazards met (\d+)") != 0:
        raise Failed("pf2 met a hazard")


def equal_seeds_give_equal_logs(asyncpf):
    """Addresses are random from run to run: one of them in the log would be seen."""
    lines = 0
    for seed in (1, 7, 251, 1408, 2919, 11597, 46095, 2**64 - 1):
        first = sim(asyncpf, "--seed", seed, "--log")
        if without_time(first) != without_time(sim(asyncpf, "--seed", seed, "--log")):
            raise Failed(f"seed {seed}: two runs differ")
        lines += first.count("\n")
    if lines < 1000:
        raise Failed(f"only {lines} lines of log")


def the_digest_does_not_depend_on_history(asyncpf):
    """A world that was used before behaves as a new one."""
    alone = sim(asyncpf, "--seed", 500, "--log")
    text = sim(asyncpf, "--seed", 499, "--seeds", 2, "--jobs", 1)
    again = sim(asyncpf, "--seed", 499, "--seeds", 2, "--jobs", 1)
    if without_time(text) != without_time(again) or "digest" not in alone:
        raise Failed("two seeds in a row differ from run to run")


def small_scopes_are_walked(asyncpf):
    """All interleavings of a small scope, as far as a test has time for it."""
    out = sim(asyncpf, "--exhaustive", "--states", 20000)
    for rev in ("legacy", "pf2", "pf2-strict", "int"):
        line = re.search(rf"^{rev} .*: (\d+) states, (\d+) runs,\s+(\d+) ends, up to (\d+) ", out,
                         re.M)
        if not line or int(line[1]) < 20000 or int(line[3]) < 50 or int(line[4]) < 30:
            raise Failed(f"{rev}: too little was walked\n{out}")
    print(out)


def scale_obeys_its_limits(asyncpf):
    """No part of the queueing model does more than it can, and the full one is full."""
    out = sim(asyncpf, "--scale", "--tasks", 8, "--faults", 1000000)
    rows = {r["source"]: {k: int(v) for k, v in r.items() if k != "source"}
            for r in csv.DictReader(out.splitlines())}
    rate = {name: r["faults_per_s"] for name, r in rows.items()}
    limits = {"network": 10**6, "flash": 4 * 10**6, "far": 160 * 256 * 1000 // 60,
              "storm": 160 * 10**9 // 6000}
    for name, limit in limits.items():
        if not 0.95 * limit < rate[name] <= limit:
            raise Failed(f"{name}: {rate[name]} faults per second, the limit is {limit}")
    if rows["far"]["queue_permille"] < 900 or rows["storm"]["thread_permille"] < 900:
        raise Failed(f"a full part is not reported as full\n{out}")


def wrong_usage_is_refused(asyncpf):
    for args in (("--tasks", 9), ("--log", "--seeds", 2), ("--abi", "new"), ("--vcpus", 5)):
        sim(asyncpf, *args, rc=2)


def main():
    asyncpf = sys.argv[1]
    failed = 0
    for test in (seeds_keep_the_promises, strict_shows_its_hazards, equal_seeds_give_equal_logs,
                 the_digest_does_not_depend_on_history, small_scopes_are_walked,
                 scale_obeys_its_limits, wrong_usage_is_refused):
        try:
            test(asyncpf)
            print(f"ok: {test.__name__}")
        except Failed as e:
            failed += 1
            print(f"failed: {test.__name__}: {e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
