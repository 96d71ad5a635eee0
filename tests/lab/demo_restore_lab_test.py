#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo-restore, small: one guest with Redis is restored two ways from nbdkit and from nginx,
and each answers a client outside with what it holds.

usage: demo_restore_lab_test.py SOURCE_FOLDER BUILD_FOLDER
"""
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
MIB = 1 << 20
MEMORY_MIB = 160


def main(source, build):
    fetched = subprocess.run([f"{source}/tools/lab", "fetch"], capture_output=True, text=True,
                             check=False)
    if fetched.returncode != 0:
        print(f"SKIP: there is no lab here: {fetched.stderr.strip().splitlines()[-1]}")
        return SKIPPED
    if not all(map(shutil.which, ("nbdkit", "nginx"))) or \
            not pathlib.Path(build, "asyncpf-net.so").exists():
        print("SKIP: there is no nbdkit or nginx here, or no network sources in this build")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name, "json")
        done = subprocess.run([f"{source}/tools/demo-restore", build, "--ways",
                               "prefetch,eager", "--sources", "nbd,http", "--delays", "1",
                               "--servers", "2", "--mib", "1", "--memory", str(MEMORY_MIB),
                               "--seconds", "3", "--slow", "1", "--json", str(out)], check=False)
        bad = [f"exit code {done.returncode}"] if done.returncode else []
        runs = json.loads(out.read_text())["runs"] if out.exists() else []
    over = sorted((r["way"], r["source"]) for r in runs)
    if over != sorted([("record", "file"), *itertools.product(("prefetch", "eager"),
                                                              ("nbd", "http"))]):
        return f"failed: only these came to their end: {over}; {bad}"
    for r in runs:
        name = f"{r['way']} from {r['source']}"
        if not r["verified"]:
            bad.append(f"{name}: {r['answers']} answers, {r['wrong']} wrong, exit {r['exit_code']}")
        if r["way"] == "eager" and r["status"].get("absent_bytes") != 0:
            bad.append(f"{name}: not all of its memory was there")
        if r["way"] == "prefetch" and r["read_bytes"] > MEMORY_MIB * MIB / 2:
            bad.append(f"{name}: {r['read_bytes']} bytes were read for a few answers")
        if r["way"] == "prefetch" and not r["status"].get("prefetched_used"):
            bad.append(f"{name}: nothing of it was of use")
    for line in bad:
        print(f"failed: {line}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
