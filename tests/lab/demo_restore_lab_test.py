#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo-restore, small: one guest with Redis is restored two ways from nbdkit, and each
answers a client outside with what it holds.

usage: demo_restore_lab_test.py SOURCE_FOLDER BUILD_FOLDER
"""
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
    if not shutil.which("nbdkit") or not pathlib.Path(build, "asyncpf-net.so").exists():
        print("SKIP: there is no nbdkit here, or no network sources in this build")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name, "json")
        done = subprocess.run([f"{source}/tools/demo-restore", build, "--ways",
                               "prefetch,eager", "--sources", "nbd", "--delays", "1",
                               "--servers", "2", "--mib", "1", "--memory", str(MEMORY_MIB),
                               "--seconds", "3", "--slow", "1", "--json", str(out)], check=False)
        bad = [f"exit code {done.returncode}"] if done.returncode else []
        runs = {r["way"]: r for r in json.loads(out.read_text())["runs"]} if out.exists() else {}
    if set(runs) != {"record", "prefetch", "eager"}:
        return f"failed: only these came to their end: {sorted(runs)}; {bad}"
    for way, r in runs.items():
        if not r["verified"]:
            bad.append(f"{way}: {r['answers']} answers, {r['wrong']} wrong, exit {r['exit_code']}")
    if runs["eager"]["status"].get("absent_bytes") != 0:
        bad.append("eager: not all of its memory was there")
    if runs["prefetch"]["read_bytes"] > MEMORY_MIB * MIB / 2:
        bad.append(f"prefetch: {runs['prefetch']['read_bytes']} bytes were read for a few answers")
    if not runs["prefetch"]["status"].get("prefetched_used"):
        bad.append("prefetch: nothing of it was of use")
    for line in bad:
        print(f"failed: {line}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
