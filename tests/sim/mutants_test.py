#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator is not blind: it finds defects that are planted in the shipped code. A sample
of tests/mutants.txt, one for each kind of checker; `make mutants` tries all of them. The
others, and those of tests/mutants-edges.txt, must at least still apply, and stand in the documents'
tables. What plants the latter is tried on a project of one file.

usage: mutants_test.py SOURCE_FOLDER
"""
import importlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SAMPLE = ("token-0", "refusal-unnoticed", "ready-before-present", "halted-for-ever",
          "guest-swallows-event", "vmm-view-not-asked", "discarded-in-swap",
          "written-and-not-copied-again")
MUTANTS_MIN = {"sim": 30, "edges": 60}
MISSED_PERCENT_MAX = 10

PROJECT = {
    "meson.build": """project('toy', 'c')
test('limit', executable('limit', 'limit.c'))
test('blind', executable('blind', 'limit.c', c_args: '-DBLIND'))
""",
    "limit.c": """static int small(int x)
{
    return x <= 5;
}

int main(void)
{
#ifdef BLIND
    return !(small(1) && !small(9));
#else
    return !(small(5) && !small(6));
#endif
}
""",
}


def check_records(mutants, source, records):
    bad = []
    for r in records:
        text = (source / r["file"]).read_text(encoding="utf-8")
        if mutants.mutate(text, r) is None:
            bad.append(f"{r['name']}: does not apply: {r['file']} has changed")
        elif mutants.squeezed(r["old"]) == mutants.squeezed(r["new"]):
            bad.append(f"{r['name']}: changes nothing")
    return bad


def check_table(mutants, source, name, records):
    """The document has the list's rows, in its order; nearly all are found, the rest explained."""
    _, document, head = mutants.LISTS[name]
    rows = mutants.table_of((source / document).read_text(encoding="utf-8"), head)[1]
    want = [mutants.row_begin(r) for r in records]
    bad = []
    if len(rows) != len(want) or not all(r.startswith(w) for r, w in zip(rows, want)):
        bad.append(f"{document}: its table is not that of the list: tools/mutants --table")
    missed = [r for r in records if "missed" in r]
    if len(missed) * 100 > MISSED_PERCENT_MAX * len(records):
        bad.append(f"{name}: {len(missed)} of {len(records)} are not found")
    for row in rows:
        if "NOT FOUND" in row or "NO REASON" in row or row.endswith("| - |"):
            bad.append(f"{document}: not found, or not tried, and no reason: {row}")
    return bad


def check_tests(source, records):
    """Each record of the second list names tests that there are."""
    there = {p.stem for p in source.glob("tests/*/*_test.*")}
    for path in source.glob("tests/*/meson.build"):
        there |= set(re.findall(r"'([\w-]+)'", path.read_text(encoding="utf-8")))
    return [f"{r['name']}: no test {t!r}" for r in records
            for t in r.get("tests", "").split() or ["(none)"]
            if t not in there and t.removesuffix("_threads") not in there]


def check_tree(source):
    """A planted defect is found by a test that looks, not by one that does not, and not by the
    compiler; and nothing stays of it."""
    sys.path.insert(0, str(source / "tools"))
    import mutant_tree  # pylint: disable=import-outside-toplevel

    bad = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "root"
        root.mkdir()
        for name, text in PROJECT.items():
            (root / name).write_text(text, encoding="utf-8")
        subprocess.run(["git", "-C", str(root), "init", "-q"], check=True)
        tree = mutant_tree.Tree(root, pathlib.Path(folder) / "copy", "cc", 1)
        tree.check_unchanged({"limit", "blind"})
        text = PROJECT["limit.c"]
        for new, tests, want in (("x < 5", ["blind", "limit"], "limit"),
                                 ("x < 5", ["blind"], None),
                                 ("y <= 5", ["limit"], None)):
            found, said = tree.hunt("limit.c", text.replace("x <= 5", new), tests)
            if found != want or ("compiler" in said) != new.startswith("y"):
                bad.append(f"'{new}' for {tests}: found by {found}: {said}")
        if (tree.source / "limit.c").read_text(encoding="utf-8") != text:
            bad.append("the mutant stays in the copy")
        # What a killed run has left is made good by the next one.
        (tree.source / "limit.c").write_text("rubbish", encoding="utf-8")
        tree.sync(root)
        if (tree.source / "limit.c").read_text(encoding="utf-8") != text:
            bad.append("what a mutant left is not made good")
    return bad


def main():
    source = pathlib.Path(sys.argv[1])
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(source / "tools"))
    mutants = importlib.import_module("mutants")
    lists = {n: mutants.read_list(source / mutants.LISTS[n][0]) for n in mutants.LISTS}
    records = [r for l in lists.values() for r in l]
    bad = check_records(mutants, source, records) + check_tests(source, lists["edges"])
    for name, l in lists.items():
        if mutants.LISTS[name][1]:
            bad += check_table(mutants, source, name, l)
        if len(l) < MUTANTS_MIN[name]:
            bad.append(f"{name}: only {len(l)} mutants")
    if len({r["name"] for r in records}) != len(records):
        bad.append("two mutants of one name")
    if shutil.which("git"):
        bad += check_tree(source)
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
