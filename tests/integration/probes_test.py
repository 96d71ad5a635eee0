#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The USDT probes: library and command have, as ELF notes, those that docs/trace.md lists, with
so many arguments, and one counter of listeners, which can be written to.

usage: probes_test.py TRACE_MD yes|no BINARY...        yes: they were built
"""
import pathlib
import re
import subprocess
import sys

ROW = re.compile(r"^\| `([a-z_]+)` \| (.*?) \|", re.M)
NOTE = re.compile(r"Provider: (\S+)\s+Name: (\S+)\s+Location: (\S+), Base: \S+, "
                  r"Semaphore: (\S+)\s+Arguments: ?([^\n]*)")
SECTION = re.compile(r"^\s*\[ *\d+\] \.probes +PROGBITS +([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) "
                     r"\d+ +(\w+)", re.M)


def readelf(*words):
    return subprocess.run(["readelf", *words], capture_output=True, text=True, check=True,
                          env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout


def check(binary, listed):
    bad = []
    notes = [n for n in NOTE.findall(readelf("-n", "--wide", binary)) if n[0] == "asyncpf"]
    have = {name: len(args.split()) for _, name, _, _, args in notes}
    if have != listed:
        bad.append(f"has {have}, docs/trace.md lists {listed}")
    section = SECTION.search(readelf("-S", "--wide", binary))
    if not section or "W" not in section[3]:
        bad.append("has no writable section .probes")
    else:
        start, size = (int(word, 16) for word in section.groups()[:2])
        away = [s for _, _, _, s, _ in notes if not start <= int(s, 16) < start + size]
        if away or len({s for _, _, _, s, _ in notes}) != 1:
            bad.append("not one counter, or outside .probes")
    return [f"{binary}: {line}" for line in bad]


def main(page, built, *binaries):
    if built != "yes":
        print("SKIP: built without <sys/sdt.h> (Debian: systemtap-sdt-dev)")
        return 77
    text = pathlib.Path(page).read_text(encoding="utf-8")
    rows = ROW.findall(text[text.index("## Probes"):])
    listed = {name: 0 if args == "-" else len(args.split(",")) for name, args in rows}
    bad = [line for binary in binaries for line in check(binary, listed)]
    print("\n".join(bad))
    return 1 if bad or len(listed) < 10 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
