#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A page's tables are those of the program that prints them, in the code's words. Each begins with
a heading that the page has once; the program prints one after the other, an empty line between.

usage: tables_doc_test.py PROGRAM PAGE [--write]
"""
import pathlib
import subprocess
import sys


def place(text, table):
    """Where the page has the table with the same first row."""
    start = text.index(table[:table.index("\n") + 1])
    end = text.find("\n\n", start)
    return start, len(text) if end < 0 else end + 1


def main(program, name, *options):
    page = pathlib.Path(name)
    before = text = page.read_text(encoding="utf-8")
    printed = subprocess.run([program, "--markdown"], capture_output=True, text=True,
                             check=True).stdout
    tables = printed.rstrip("\n").split("\n\n")
    for table in tables:
        start, end = place(text, table + "\n")
        text = text[:start] + table + "\n" + text[end:]
    if text == before:
        return 0
    if options == ("--write",):
        page.write_text(text, encoding="utf-8")
        return 0
    print(f"{page.name}: its tables are not those of the code; run {' '.join(sys.argv)} --write")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
