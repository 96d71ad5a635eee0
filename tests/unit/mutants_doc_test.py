#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/sim.md has the table of tests/mutants.txt as it is now.

usage: mutants_doc_test.py SOURCE_FOLDER
"""
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(sys.argv[1])
RECORD = "name: a-b\nfile: src/host/a.c\nwhy: B1: c\nold: x\nnew: y\n"


def document(path, *words):
    return subprocess.run([SOURCE / "tools/mutants", *words, "--document", path],
                          capture_output=True, text=True, check=False)


def main():
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        page, of = pathlib.Path(folder, "page.md"), pathlib.Path(folder, "list.txt")
        text = (SOURCE / "docs/sim.md").read_text(encoding="utf-8")
        page.write_text(text, encoding="utf-8")
        done = document(page)
        if done.returncode or page.read_text(encoding="utf-8") != text:
            bad.append("docs/sim.md is not made of tests/mutants.txt: "
                       f"tools/mutants --document docs/sim.md{done.stderr and ': '}{done.stderr}")
        of.write_text(RECORD, encoding="utf-8")
        page.write_text("a\n<!-- tools/mutants -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
        document(page, "--list", of)
        made = page.read_text(encoding="utf-8")
        if made != ("a\n<!-- tools/mutants -->\n| mutant | file | defect |\n| --- | --- | --- |\n"
                    "| a-b | host/a.c | B1: c |\n<!-- end -->\nb\n"):
            bad.append(f"a list of one record becomes {made!r}")
        page.write_text("no marks\n", encoding="utf-8")
        done = document(page)
        if not done.returncode or "no lines '<!-- tools/mutants -->'" not in done.stderr:
            bad.append(f"a page without marks: exit code {done.returncode}, {done.stderr!r}")
    for line in bad:
        print("FAIL:", line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
