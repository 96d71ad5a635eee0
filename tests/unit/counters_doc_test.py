#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/counters.md lists what the library has, in the library's words.

usage: counters_doc_test.py COUNTERS_TEST SOURCE_FOLDER [--write]
"""
import pathlib
import subprocess
import sys

BEGIN = "| name |"


def main(program, source, *options):
    page = pathlib.Path(source, "docs/counters.md")
    text = page.read_text(encoding="utf-8")
    table = subprocess.run([program, "--markdown"], capture_output=True, text=True,
                           check=True).stdout
    start = text.index(BEGIN)
    end = text.find("\n\n", start)
    end = len(text) if end < 0 else end + 1
    if text[start:end] == table:
        return 0
    if options == ("--write",):
        page.write_text(text[:start] + table + text[end:], encoding="utf-8")
        return 0
    print("docs/counters.md: its table is not that of include/asyncpf/counters.h; "
          f"run {' '.join(sys.argv)} --write")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
