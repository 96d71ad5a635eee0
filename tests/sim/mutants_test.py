#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator is not blind: it finds defects that are planted in the shipped code. A sample
of tests/mutants.txt, one for each kind of checker; `make mutants` tries all of them. The
others must at least still apply.

usage: mutants_test.py SOURCE_FOLDER
"""
import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys

SAMPLE = ("token-0", "refusal-unnoticed", "ready-before-present", "halted-for-ever",
          "guest-swallows-event", "vmm-view-not-asked", "discarded-in-swap")
MUTANTS_MIN = 30


def load(path):
    """tools/mutants as a module; it has no .py at its end."""
    loader = importlib.machinery.SourceFileLoader("mutants", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mutants", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def main():
    source = pathlib.Path(sys.argv[1])
    mutants = load(source / "tools/mutants")
    records = mutants.read_list(source / "tests/mutants.txt")
    bad = []
    if len(records) < MUTANTS_MIN:
        bad.append(f"only {len(records)} mutants")
    if len({r["name"] for r in records}) != len(records):
        bad.append("two mutants of one name")
    for r in records:
        text = (source / r["file"]).read_text(encoding="utf-8")
        if mutants.mutate(text, r) is None:
            bad.append(f"{r['name']}: does not apply: {r['file']} has changed")
        elif mutants.squeezed(r["old"]) == mutants.squeezed(r["new"]):
            bad.append(f"{r['name']}: changes nothing")
    done = subprocess.run([source / "tools/mutants", *SAMPLE], capture_output=True, text=True,
                          check=False)
    print(done.stdout + done.stderr)
    if done.returncode:
        bad.append("the sample was not found")
    for line in bad:
        print(f"failed: {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
