# SPDX-License-Identifier: Apache-2.0
"""Plants single-line defects in the shipped code, one at a time, and lets the tests find them:
the proof that they are not blind. Those of tests/mutants.txt are the simulator's to find, those
of tests/mutants-edges.txt the unit, error and integration tests' that each of them names.

usage: tools/mutants [--list sim|edges] [--seconds N] [--jobs N] [--write] [NAME...]
       tools/mutants --table
       tools/mutants [--list FILE] --document FILE

A record of a list has file, old text, new text and why. Of the simulator only a copy is built, in
a temporary folder, and for each mutant only its file. For the others tools/mutant_tree.py keeps a
copy of the tree in --tree (build-mutants). --write puts what found them into the table of
docs/testing.md; --table makes that anew from the list, with the results that it has. --document
writes the simulator's list, or another of its kind, as a table into FILE (docs/sim.md), between
the marks that stand there. Exit code 1 when a mutant was not found that should be, or does not
apply any more, or nothing was tried. Tests: tests/sim/mutants_test.py runs a sample,
tests/unit/mutants_doc_test.py has the table of docs/sim.md.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import mutant_tree

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("base", "engine", "guest", "host", "source", "sim")
FILES = ("vmm/snap/snap_plan", "cli/cmd_sim", "cli/cli", "cli/opts", "cli/words")
FLAGS = ["-std=gnu11", "-O2", "-D_GNU_SOURCE", '-DAPF_VERSION_TEXT="mutant"', "-w"]
# What the sources of compressed images need.
LIBS = ["-lzstd", "-lxxhash", "-lcrypto"]
MAIN = '#include "cli/cli.h"\nint main(int c, char **v) { return cmd_sim(c, v); }\n'
KEYS = ("name", "file", "why", "old", "new")
MORE_KEYS = ("tests", "missed")
# The document that has what found them, and what its table begins with; "": none.
LISTS = {
    "sim": ("tests/mutants.txt", "", ""),
    "edges": ("tests/mutants-edges.txt", "docs/testing.md",
              "| mutant | file | defect | found by |"),
}


def read_list(path):
    """Records separated by empty lines; `old` and `new` may have several lines."""
    records, record = [], {}
    for n, line in enumerate(path.read_text(encoding="utf-8").splitlines() + [""], 1):
        if line.startswith("#"):
            continue
        if not line:
            if record:
                missing = [k for k in KEYS if k not in record]
                if missing:
                    raise SystemExit(f"{path}:{n}: record without {', '.join(missing)}")
                records.append(record)
            record = {}
            continue
        key, colon, text = line.partition(":")
        if key not in KEYS + MORE_KEYS or not colon:
            raise SystemExit(f"{path}:{n}: not 'key: text', with key one of "
                             f"{', '.join(KEYS + MORE_KEYS)}")
        text = text[1:] if text.startswith(" ") else text
        record[key] = record[key] + "\n" + text if key in record else text
    return records


def squeezed(text):
    """Indentation does not matter: a regular expression for the text."""
    return r"\s*\n\s*".join(re.escape(line.strip()) for line in text.split("\n"))


def mutate(text, record):
    """The mutated text; None when the old text is not there exactly once."""
    found = list(re.finditer(squeezed(record["old"]), text))
    if len(found) != 1:
        return None
    m = found[0]
    return text[:m.start()] + record["new"] + text[m.end():]


class Build:
    """The simulator's objects, and a program for each mutant."""

    def __init__(self, folder, cc):
        self.folder, self.cc = pathlib.Path(folder), cc
        self.objects = {}
        main = self.folder / "main.c"
        main.write_text(MAIN, encoding="utf-8")
        sources = [f for name in FOLDERS for f in sorted((ROOT / "src" / name).glob("*.c"))]
        sources += [ROOT / "src" / f"{name}.c" for name in FILES] + [main]
        for source in sources:
            self.objects[source] = self.compile(source, source)

    def compile(self, source, text_of):
        name = str(source).replace("/", "_") + ("" if source == text_of else ".mutant")
        out = self.folder / (name + ".o")
        done = subprocess.run([*self.cc, *FLAGS, f"-I{ROOT / 'src'}", f"-I{ROOT / 'include'}",
                               "-c", str(text_of), "-o",
                               str(out)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{source}: does not compile:\n{done.stderr}")
        return out

    def program(self, record=None):
        objects = dict(self.objects)
        if record:
            source = ROOT / record["file"]
            text = mutate(source.read_text(encoding="utf-8"), record)
            if text is None:
                return None
            # Beside nothing: the line that the compiler names is the original's.
            copy = self.folder / "mutant.c"
            copy.write_text(f'#line 1 "{record["file"]}"\n{text}', encoding="utf-8")
            objects[source] = self.compile(source, copy)
        out = self.folder / "sim"
        subprocess.run([*self.cc, *map(str, objects.values()), *LIBS, "-o", str(out)],
                       check=True)
        return out


def hunt(program, seconds, jobs):
    """(seed, what) of what the simulator found, or None."""
    command = [str(program), "--seeds", "4000000000", "--jobs", str(jobs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          start_new_session=True) as proc:
        try:
            out, _ = proc.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(proc.pid, 9)
            proc.communicate()
            return None
    found = re.search(r"^seed (\d+): (.*)$", out, re.M)
    return (int(found.group(1)), found.group(2)) if found else None


@dataclasses.dataclass
class Outcome:
    """Of one mutant: `cells` are the end of its row in the table."""
    found: bool
    cells: str
    note: str = ""


def hunt_sim(records, args):
    """Yields (record, Outcome)."""
    with tempfile.TemporaryDirectory() as folder:
        build = Build(folder, os.environ.get("CC", "gcc").split())
        if hunt(build.program(), 3, args.jobs):
            raise SystemExit("the unchanged code does not pass: mutants would prove nothing")
        for record in records:
            program = build.program(record)
            result = hunt(program, args.seconds, args.jobs) if program else None
            if result:
                what = re.sub(r" \([0-9a-f]+, [0-9a-f]+\)$", "", result[1])
                yield record, Outcome(True, f"{result[0]} | {what}")
            else:
                yield record, Outcome(False, "- | NOT FOUND", "" if program else CHANGED)


def hunt_edges(records, args):
    """Yields (record, Outcome)."""
    tree = mutant_tree.Tree(ROOT, args.tree, os.environ.get("CC", "gcc"), args.jobs)
    tree.check_unchanged({t for r in records for t in r["tests"].split()})
    for record in records:
        text = mutate((ROOT / record["file"]).read_text(encoding="utf-8"), record)
        if text is None:
            yield record, Outcome(False, "NOT FOUND", CHANGED)
            continue
        test, line = tree.hunt(record["file"], text, record["tests"].split())
        if test:
            yield record, Outcome(True, test, line)
        else:
            yield record, Outcome(False, f"not found: {record.get('missed', 'NO REASON')}", line)


CHANGED = "it does not apply: the file has changed"
HUNTERS = {"sim": hunt_sim, "edges": hunt_edges}


def row_begin(record):
    return f"| {record['name']} | {record['file'].removeprefix('src/')} | {record['why']} | "


def table_of(text, head):
    """(before, rows, behind) of the one table of a document that begins with `head`."""
    before, found, rest = text.partition(head + "\n")
    if not found:
        raise SystemExit(f"no table '{head}'")
    separator, _, rest = rest.partition("\n")
    rows = []
    while rest.startswith("|"):
        row, _, rest = rest.partition("\n")
        rows.append(row)
    return before + found + separator + "\n", rows, rest


def write_table(name, outcomes):
    """Rows of the list's records, in its order: with these outcomes, or those that they had."""
    listed, document, head = LISTS[name]
    path = ROOT / document
    before, rows, rest = table_of(path.read_text(encoding="utf-8"), head)
    columns = head.count("|") - 4
    had = {row.split(" | ")[0][2:]: row.rstrip(" |").split(" | ", 3)[3] for row in rows}
    fresh = []
    for record in read_list(ROOT / listed):
        cells = outcomes[record["name"]].cells if record["name"] in outcomes else \
            had.get(record["name"], " | ".join(["-"] * columns))
        fresh.append(row_begin(record) + cells + " |\n")
    path.write_text(before + "".join(fresh) + rest, encoding="utf-8")


def document(records, path):
    """Replaces what stands between the marks in the file by a table of the records."""
    text = path.read_text(encoding="utf-8")
    begin, end = "<!-- tools/mutants -->\n", "<!-- end -->\n"
    if text.count(begin) != 1 or end not in text.partition(begin)[2]:
        raise SystemExit(f"{path}: no lines '{begin.strip()}' and '{end.strip()}'")
    before, _, rest = text.partition(begin)
    rows = [row_begin(r).rstrip() for r in records]
    table = "\n".join(["| mutant | file | defect |", "| --- | --- | --- |", *rows]) + "\n"
    path.write_text(before + begin + table + end + rest.partition(end)[2], encoding="utf-8")


def hunt_list(name, records, args):
    """Returns the names of those that should have been found and were not."""
    outcomes, missed = {}, []
    for record, outcome in HUNTERS[name](records, args):
        outcomes[record["name"]] = outcome
        print(f"{record['name']:28} {outcome.cells}  {outcome.note}".rstrip(), flush=True)
        if outcome.found and "missed" in record:
            print(f"{'':28} it is found after all: its line 'missed' can go")
        if not outcome.found and ("missed" not in record or outcome.note == CHANGED):
            missed.append(record["name"])
    if args.write and LISTS[name][1]:
        write_table(name, outcomes)
    found = sum(o.found for o in outcomes.values())
    print(f"{name}: {len(records)} mutants, {found} found, {len(records) - found} not")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--list", help="only this one: sim or edges")
    parser.add_argument("--seconds", type=int, default=60,
                        help="for each mutant in the simulator (60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT / "build-mutants")
    parser.add_argument("--write", action="store_true", help="results into the documents")
    parser.add_argument("--table", action="store_true",
                        help="only the documents' tables, from the lists")
    parser.add_argument("--document", type=pathlib.Path, metavar="FILE",
                        help="write the list as a table into FILE, and try nothing")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if args.document:
        document(read_list(pathlib.Path(args.list or ROOT / LISTS["sim"][0])), args.document)
        return 0
    if args.list and args.list not in LISTS:
        parser.error(f"--list {args.list}: neither {' nor '.join(LISTS)}")
    lists = [args.list] if args.list else list(LISTS)
    if args.table:
        for name in lists:
            if LISTS[name][1]:
                write_table(name, {})
        return 0
    records = {n: [r for r in read_list(ROOT / LISTS[n][0])
                   if not args.names or r["name"] in args.names] for n in lists}
    unknown = set(args.names) - {r["name"] for l in records.values() for r in l}
    if unknown:
        raise SystemExit(f"no such mutant: {', '.join(sorted(unknown))}")
    missed = [m for n in lists if records[n] for m in hunt_list(n, records[n], args)]
    for name in missed:
        print(f"missed: {name}")
    return 1 if missed or not any(records.values()) else 0
