#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/engine.md against src/engine: the tables name what exists, all of it, and nothing else."""
import re
import sys
from pathlib import Path

# Enum in engine.h -> the section of the document whose tables list it.
SECTIONS = {
    "eng_wrmsr": "Registers",
    "eng_verdict": "Page missing",
    "eng_halt": "A fault that is not announced",
    "eng_fault_state": "Life of a fault",
    "eng_ready": "Page ready",
    "eng_how": "Page ready",
}
NOT_A_VALUE = {"ENG_VERDICTS"}  # counts the others
PREFIX = {
    "eng_wrmsr": "ENG_WRMSR_",
    "eng_halt": "ENG_HALT_",
    "eng_fault_state": "ENG_FAULT_",
    "eng_ready": "ENG_READY_",
    "eng_how": "ENG_HOW_",
}


def without_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def enum_values(header, name):
    body = re.search(r"enum %s \{(.*?)\};" % name, header, re.S)
    if body is None:
        sys.exit("engine_doc_test: no enum %s in engine.h" % name)
    return [v for v in re.findall(r"\bENG_\w+", body.group(1)) if v not in NOT_A_VALUE]


def sections(doc):
    parts = re.split(r"^## (.+)$", doc, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def first_cells(text):
    """The names that head a table row."""
    return re.findall(r"^\| `(ENG_\w+)` \|", text, re.M)


def check(root):
    header = without_comments((root / "src/engine/engine.h").read_text())
    sources = {p.name: without_comments(p.read_text())
               for p in sorted((root / "src/engine").glob("*.[ch]"))}
    doc_text = (root / "docs/engine.md").read_text()
    doc = sections(doc_text)
    errors = []

    for enum, title in SECTIONS.items():
        values = enum_values(header, enum)
        prefix = PREFIX.get(enum, "ENG_")
        rows = [r for r in first_cells(doc.get(title, "")) if r.startswith(prefix)]
        if rows != sorted(set(rows), key=rows.index):
            errors.append("%s: a value has two rows in '%s'" % (enum, title))
        for value in values:
            if value not in rows:
                errors.append("%s: %s has no row in '%s'" % (enum, value, title))
        for row in rows:
            if row not in values:
                errors.append("%s: '%s' has a row for %s, which does not exist"
                              % (enum, title, row))

    # The words that messages use.
    names = dict(re.findall(r'\[(ENG_\w+)\] = "([\w-]+)"', sources["fault.c"]))
    for value, word in re.findall(r"^\| `(ENG_\w+)` \| ([\w-]+) \|", doc["Page missing"], re.M):
        if names.get(value) != word:
            errors.append("%s is called '%s' in the code, '%s' in the document"
                          % (value, names.get(value), word))

    # Every other identifier in the document exists in the code or its tests.
    known = " ".join(sources.values())
    tests = "".join(p.read_text() for p in sorted((root / "tests/unit").glob("engine_*_test.c")))
    for name in set(re.findall(r"`(\w+_\w+)`", doc_text)):
        where = tests if re.match(r"(s\d|vector)_", name) else known
        if not re.search(r"\b%s\b" % name, where):
            errors.append("the document names %s, which does not exist" % name)
    for hazard in range(1, 9):
        if not re.search(r"^\| S%d " % hazard, doc["Hazards of the founding text"], re.M):
            errors.append("hazard S%d has no row" % hazard)
    return errors


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    errors = check(root)
    for e in errors:
        print("engine_doc_test: " + e, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
