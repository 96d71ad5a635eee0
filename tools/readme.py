# SPDX-License-Identifier: Apache-2.0
"""Writes the part of README.md that is measured: the demo's tables, and on what machine.

usage: tools/readme BUILD_FOLDER [--check]

--check changes nothing: it fails when the tables in README.md have not the form that the command
prints now, whatever the numbers. Test: tests/error/readme_test.py.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- tools/readme writes what follows; do not edit -->\n"
END = "<!-- end of tools/readme -->\n"
COMMAND = ["demo", "--quiet"]
COLUMNS = 80


def wrapped(text):
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > COLUMNS:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def machine(asyncpf):
    """One sentence about where the numbers are from."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    doctor = subprocess.run([asyncpf, "doctor", "--json"], capture_output=True, text=True,
                            check=False).stdout
    emulates = '"linux_guest": false' in doctor
    return wrapped(
        f"Measured by `tools/readme`, which runs `asyncpf {' '.join(COMMAND)}`, on "
        f"{len(os.sched_getaffinity(0))} CPUs ({model[1].strip() if model else 'unknown'}), "
        f"Linux {re.match(r'[0-9.]+', os.uname().release)[0]}, whose KVM "
        + ("emulates the guest's kernel mode: there a fault costs about 0.25 ms whatever we do; "
           "yours is likely faster:" if emulates else "runs all of the guest in hardware:"))


def part(asyncpf):
    done = subprocess.run([asyncpf, *COMMAND], capture_output=True, text=True, check=True)
    return f"{machine(asyncpf)}\n\n```text\n{done.stdout}```\n\n"


def form(text):
    """What does not depend on the numbers, nor on the machine."""
    table, shown, rest = text[text.index("```text"):].partition("Shown:")
    # Which runs it compares is a matter of the numbers.
    sentence, fence, rest = rest.partition("```")
    table += shown + " ".join(re.sub(r"\([a-z0-9:-]+\)", "(#)", sentence).split()) + fence + rest
    return re.sub(r"[ =-]+", " ", re.sub(r"\d[\d.]*%?", "#", table))


def main(argv):
    if len(argv) not in (1, 2) or argv[1:] not in ([], ["--check"]):
        print("asyncpf: wrong usage: tools/readme: BUILD_FOLDER [--check]; see its head",
              file=sys.stderr)
        return 2
    text = README.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    new = part(pathlib.Path(argv[0], "asyncpf").resolve())
    if argv[1:]:
        if form(text[start:end]) == form(new):
            return 0
        print("README.md: its tables have not the form of what the command prints; run "
              "tools/readme BUILD_FOLDER", file=sys.stderr)
        return 1
    README.write_text(f"{text[:start]}\n{new}{text[end:]}", encoding="utf-8")
    return 0
