# SPDX-License-Identifier: Apache-2.0
"""Checks the protocol's model (model/*.pml) with spin, one configuration after the other, and
compares each outcome with the expected one.

usage: tools/model [--quick] [--out FOLDER] [--list] [--trail] [NAME…]

  NAME      only configurations whose name starts with it
  --quick   the subset for `make test`
  --trail   print, for a violation, the shortest way there that was found
  --out     where verifiers and trails are made (default build/model)

Every violation's way is left in FOLDER/NAME.txt: the narrative first, then every statement.
Exit code 0 when everything came out as expected, 1 when not, 77 when there is no spin.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEMORY_MB = 3800
# The stack of a search is taken at its start, so the small bound comes first.
DEPTHS_HOLDS = (20_000, 3_000_000)
TOO_DEEP = "max search depth too small"
# A violation is looked for with a growing bound, so that the way there is short.
DEPTHS_BREAKS = (150, 200, 300, 400, 600, 900, 1500, 3000, 10_000)
SECONDS = 1800  # of one search; reaching it is a failure
# A search is bound by memory: -O2 makes it a twentieth faster, and takes ten seconds more
# to compile.
OPTIMIZE = "-O0"

HOLDS, BREAKS = "holds", "breaks"
# What is checked: every assertion and the absence of deadlock; one property; or a formula.
ALL = "all"

GUEST = "REAL_FAULTS OPEN_GATE KERNEL_TOUCH EXITS"
LIFE = "REENABLE LAPIC_LATE"
TEXT = "TEXT_HOST"

# name, revision, expected, what is checked, options, in the quick subset
CONFIGURATIONS = [
    # The protocol as it is shipped.
    ("pf2", "PF2", HOLDS, ALL, "EVICT", False),
    ("int", "INT", HOLDS, ALL, "EVICT", False),
    ("legacy", "LEGACY", HOLDS, ALL, "EVICT", False),
    ("pf2-guest", "PF2", HOLDS, ALL, f"EVICT {GUEST}", False),
    ("int-guest", "INT", HOLDS, ALL, f"EVICT {GUEST}", False),
    ("legacy-guest", "LEGACY", HOLDS, ALL, "REAL_FAULTS KERNEL_TOUCH REENABLE", False),
    ("pf2-always", "PF2", HOLDS, ALL, "SEND_ALWAYS KERNEL_TOUCH", False),
    ("int-always", "INT", HOLDS, ALL, "SEND_ALWAYS KERNEL_TOUCH", False),
    ("pf2-masked", "PF2", HOLDS, ALL, "EVICT TASK_PRIORITY REAL_FAULTS", False),
    ("int-masked", "INT", HOLDS, ALL, "EVICT TASK_PRIORITY REAL_FAULTS", False),
    ("pf2-life", "PF2", HOLDS, ALL, f"EVICT {LIFE}", False),
    ("int-life", "INT", HOLDS, ALL, f"EVICT {LIFE}", False),
    ("pf2-life-quick", "PF2", HOLDS, ALL, f"{LIFE} REAL_FAULTS KERNEL_TOUCH", True),
    ("int-life-quick", "INT", HOLDS, ALL, f"{LIFE} REAL_FAULTS KERNEL_TOUCH", True),
    ("pf2-rewrite", "PF2", HOLDS, ALL, "REWRITE KERNEL_TOUCH", False),
    ("int-rewrite", "INT", HOLDS, ALL, "REWRITE KERNEL_TOUCH", False),
    ("pf2-2cpu", "PF2", HOLDS, ALL, "NCPU=2", False),
    ("int-2cpu", "INT", HOLDS, ALL, "NCPU=2", False),
    ("int-reset", "INT", HOLDS, ALL, "RESET", False),
    # Every parked task wakes, every halted vCPU goes on, under weak fairness.
    ("pf2-wakes", "PF2", HOLDS, "wakes", "", True),
    ("int-wakes", "INT", HOLDS, "wakes", "", True),
    ("legacy-wakes", "LEGACY", HOLDS, "wakes", "", False),
    ("pf2-wakes-life", "PF2", HOLDS, "wakes", LIFE, False),
    ("int-wakes-life", "INT", HOLDS, "wakes", LIFE, False),
    ("pf2-wakes-rewrite", "PF2", HOLDS, "wakes", "REWRITE", False),
    ("int-wakes-rewrite", "INT", HOLDS, "wakes", "REWRITE", False),
    ("pf2-wakes-evict", "PF2", HOLDS, "wakes", "EVICT", False),
    ("int-wakes-evict", "INT", HOLDS, "wakes", "EVICT", False),
    ("pf2-wakes-2cpu", "PF2", HOLDS, "wakes", "NCPU=2 NPAGE=1", False),
    ("int-wakes-2cpu", "INT", HOLDS, "wakes", "NCPU=2 NPAGE=1", False),
    ("pf2-runs", "PF2", HOLDS, "runs", "KERNEL_TOUCH", True),
    ("int-runs", "INT", HOLDS, "runs", "KERNEL_TOUCH", False),
    ("pf2-reads", "PF2", HOLDS, "reads", "LAPIC_LATE", False),
    ("int-reads", "INT", HOLDS, "reads", "LAPIC_LATE", False),
    ("legacy-runs", "LEGACY", HOLDS, "runs", "KERNEL_TOUCH", False),
    # The re-check; int's acknowledgement, which is an exit only where a VMM's filter makes it one.
    ("pf2-no-recheck", "PF2", BREAKS, "wakes", "NO_RECHECK", True),
    ("int-no-recheck", "INT", BREAKS, "wakes", "NO_RECHECK", True),
    ("int-no-ack", "INT", HOLDS, "wakes", "NO_ACK", False),
    ("int-ack-first", "INT", HOLDS, "wakes", "ACK_FIRST", False),
    ("int-ack-exits", "INT", HOLDS, "wakes", "ACK_EXITS", False),
    ("int-ack-exits-first", "INT", HOLDS, "wakes", "ACK_EXITS ACK_FIRST", False),
    ("int-ack-exits-no-recheck", "INT", BREAKS, "wakes", "ACK_EXITS NO_RECHECK", False),
    # A guest that keeps interrupts off for as long as it likes.
    ("pf2-wakes-irqs-off", "PF2", HOLDS, "wakes", "IRQS_OFF", False),
    ("int-wakes-irqs-off", "INT", HOLDS, "wakes", "IRQS_OFF", True),
    # A slot that is never freed: its sleepers sleep, and nobody else.
    ("int-stuck", "INT", BREAKS, "wakes", "STUCK_SLOT", True),
    ("pf2-stuck-rest", "PF2", HOLDS, ALL, "STUCK_SLOT KERNEL_TOUCH REAL_FAULTS", False),
    ("int-stuck-rest", "INT", HOLDS, ALL, "STUCK_SLOT KERNEL_TOUCH REAL_FAULTS", False),
    ("pf2-stuck-runs", "PF2", HOLDS, "runs", "STUCK_SLOT KERNEL_TOUCH", False),
    ("int-stuck-runs", "INT", HOLDS, "runs", "STUCK_SLOT KERNEL_TOUCH", False),
    ("pf2-stuck-goes-on", "PF2", HOLDS, "goes_on", "STUCK_SLOT KERNEL_TOUCH", False),
    ("int-stuck-goes-on", "INT", HOLDS, "goes_on", "STUCK_SLOT KERNEL_TOUCH", False),
    ("pf2-stuck-others", "PF2", HOLDS, "others", "STUCK_SLOT NCPU=2 NPAGE=1", False),
    ("int-stuck-others", "INT", HOLDS, "others", "STUCK_SLOT NCPU=2 NPAGE=1", False),
    # Saved at any moment, and restored on another host.
    ("pf2-restore", "PF2", HOLDS, ALL, "RESTORE REAL_FAULTS KERNEL_TOUCH LAPIC_LATE", False),
    ("int-restore", "INT", HOLDS, ALL, "RESTORE REAL_FAULTS KERNEL_TOUCH LAPIC_LATE", False),
    ("pf2-wakes-restore", "PF2", HOLDS, "wakes", "RESTORE", False),
    ("int-wakes-restore", "INT", HOLDS, "wakes", "RESTORE", False),
    ("int-wakes-restore-irqs-off", "INT", HOLDS, "wakes", "RESTORE IRQS_OFF", False),
    ("pf2-wakes-registers", "PF2", HOLDS, "wakes", "RESTORE RESTORE_REGISTERS", False),
    ("int-wakes-registers", "INT", HOLDS, "wakes", "RESTORE RESTORE_REGISTERS", False),
    ("int-runs-restore", "INT", HOLDS, "runs", "RESTORE KERNEL_TOUCH", False),
    # The collision: a handler open to events before it has read CR2.
    ("legacy-real", "LEGACY", BREAKS, "P_REAL", "OPEN_GATE REAL_FAULTS", True),
    ("legacy-missing", "LEGACY", BREAKS, "P_EVENT", "OPEN_GATE", False),
    ("legacy-slot", "LEGACY", BREAKS, "P_SLOT", "OPEN_GATE", False),
    # Hazards of the founding text, each with pf2 under the same guest.
    ("strict-wakes", "STRICT", HOLDS, "wakes", "", False),
    ("strict-s1", "STRICT", BREAKS, "wakes", "LATE_CTL", False),
    ("strict-s2", "STRICT", BREAKS, "P_REAL", "TASK_PRIORITY REAL_FAULTS", True),
    ("strict-s3", "STRICT", BREAKS, "P_HELD", "EXIT_IN_HANDLER", False),
    ("strict-s4", "STRICT", BREAKS, "P_ANNOUNCED", "TASK_PRIORITY", False),
    ("strict-s5", "STRICT", BREAKS, "wakes", TEXT, False),
    ("strict-s6", "STRICT", BREAKS, "P_VECTOR", "LATE_VECTOR", False),
    ("strict-s7", "STRICT", BREAKS, "P_NOWHERE", "CTL_FIRST", False),
    ("strict-s8", "STRICT", BREAKS, "wakes", "CTL_TOGGLE", False),
    ("strict-b7", "STRICT", BREAKS, "P_ONCE", "KERNEL_TOUCH", False),
    # And what it does with a fault that only halts, to the letter.
    ("strict-unhalted", "STRICT", HOLDS, "P_UNHALTED", "KERNEL_TOUCH", True),
    ("strict-runs", "STRICT", HOLDS, "runs", "KERNEL_TOUCH", False),
    ("strict-wakes-kernel", "STRICT", HOLDS, "wakes", "KERNEL_TOUCH", False),
    ("strict-reads", "STRICT", HOLDS, "reads", "KERNEL_TOUCH", False),
    ("pf2-b7", "PF2", HOLDS, "P_ONCE", "EVICT KERNEL_TOUCH", False),
    ("pf2-s1", "PF2", HOLDS, "wakes", "LATE_CTL", False),
    ("pf2-s2", "PF2", HOLDS, "P_REAL", "TASK_PRIORITY REAL_FAULTS", False),
    ("pf2-s3", "PF2", HOLDS, "P_HELD", "EXIT_IN_HANDLER KERNEL_TOUCH", False),
    ("pf2-s4", "PF2", BREAKS, "P_ANNOUNCED", "", False),
    ("int-s3", "INT", HOLDS, "P_HELD", "EXIT_IN_HANDLER KERNEL_TOUCH", False),
    ("int-s4", "INT", HOLDS, "P_ANNOUNCED", "TASK_PRIORITY", False),
    ("pf2-s6", "PF2", HOLDS, "P_VECTOR", "LATE_VECTOR", False),
    ("pf2-s6-wakes", "PF2", HOLDS, "wakes", "LATE_VECTOR", False),
    ("pf2-s7", "PF2", HOLDS, "P_NOWHERE", "CTL_FIRST", False),
    ("pf2-s7-wakes", "PF2", HOLDS, "wakes", "CTL_FIRST", False),
    ("pf2-s8", "PF2", HOLDS, "wakes", "CTL_TOGGLE", False),
    # What the model found; docs/model.md.
    ("pf2-reset", "PF2", BREAKS, "P_VECTOR", "RESET", False),
    ("pf2-open-wake-all", "PF2", HOLDS, "wakes", "OPEN_GATE LAPIC_LATE", False),
    ("int-open-wake-all", "INT", BREAKS, "wakes", "OPEN_GATE LAPIC_LATE", False),
    ("int-token-reuse", "INT", BREAKS, "P_TOKEN", "EVICT MUT_SENT_TOKEN_REUSED", False),
    # Bugs that others had, put in: the model must find them.
    ("int-no-take-back", "INT", BREAKS, "reads", "LAPIC_LATE MUT_NO_TAKE_BACK", False),
    ("pf2-no-take-back", "PF2", BREAKS, "reads", "LAPIC_LATE MUT_NO_TAKE_BACK", False),
    ("int-ready-first", "INT", BREAKS, "P_READABLE", "MUT_READY_FIRST", False),
    ("int-token-0", "INT", BREAKS, "P_TOKEN", "MUT_TOKEN_0", True),
    ("int-wake-all-twice", "INT", BREAKS, "P_ONCE", "LAPIC_LATE "
     "MUT_WAKE_ALL_RELEASES_NOBODY", False),
    ("pf2-slot-ignored", "PF2", BREAKS, "P_SLOT", "MUT_SLOT_IGNORED", False),
    ("int-if-ignored", "INT", BREAKS, "P_ALLOWED", "SEND_ALWAYS KERNEL_TOUCH MUT_IF_IGNORED",
     False),
    ("int-looks-for-ever", "INT", BREAKS, "P_QUIET", "MUT_NO_STOP", False),
    ("int-ready-too-early", "INT", BREAKS, "P_ONCE", "RESTORE MUT_READY_TOO_EARLY", False),
    ("int-restore-forgets", "INT", BREAKS, "wakes", "RESTORE MUT_RESTORE_FORGETS", True),
    ("int-no-kick", "INT", BREAKS, "runs", "KERNEL_TOUCH MUT_NO_KICK", False),
    ("strict-no-unhalt", "STRICT", BREAKS, "P_UNHALTED", "KERNEL_TOUCH MUT_NO_UNHALT", False),
]


def is_formula(checked):
    return checked in ("wakes", "runs", "reads", "goes_on", "others")


def defines(revision, checked, options):
    words = [f"-DREV={revision}"] + [f"-D{o}" for o in options.split()]
    if is_formula(checked):
        words += ["-DLIVE", "-DWATCH=0"]
    elif checked != ALL:
        words.append(f"-DWATCH={checked}")
    return words


class Run:
    """One configuration in a folder of its own."""

    def __init__(self, out, row):
        self.name, self.revision, self.expected, self.checked, self.options, _ = row
        self.folder = out / self.name
        self.defines = defines(self.revision, self.checked, self.options)
        self.model = str(ROOT / "model/apf.pml")
        self.text = ""

    def command(self, *words, **more):
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True,
                              errors="replace", check=False, **more)

    def build(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        done = self.command("spin", *self.defines, "-a", self.model)
        if done.returncode or not (self.folder / "pan.c").exists():
            sys.exit(f"tools/model: cannot translate: {self.name}: {done.stdout.strip()}")
        kind = ["-DNFAIR=3"] if is_formula(self.checked) else ["-DSAFETY"]
        if self.expected == BREAKS and not is_formula(self.checked):
            kind.append("-DBFS")  # the way to the violation is then the shortest
        done = self.command("gcc", OPTIMIZE, "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", *kind,
                            "-o", "pan", "pan.c")
        if done.returncode:
            sys.exit(f"tools/model: cannot compile: {self.name}: {done.stderr.strip()}")

    def verify(self, depth):
        words = ["./pan", f"-m{depth}", "-w22"]
        if is_formula(self.checked):
            words += ["-a", "-f", "-N", self.checked]
        elif self.checked != ALL:
            words.append("-E")  # one property: a deadlock is another configuration's matter
        try:
            done = self.command(*words, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            sys.exit(f"tools/model: no end: {self.name}: not done within {SECONDS} s")
        self.text = done.stdout
        if done.returncode < 0:
            sys.exit(f"tools/model: cannot search: {self.name}: the verifier was killed by signal "
                     f"{-done.returncode}; if that is 9, the machine may be out of memory "
                     f"(a search takes up to {MEMORY_MB} MB)")

    def outcome(self):
        """holds, breaks, or why neither is known."""
        self.build()
        for depth in DEPTHS_BREAKS if self.expected == BREAKS else DEPTHS_HOLDS:
            self.verify(depth)
            if re.search(r"errors: [1-9]", self.text):
                self.keep_trail()
                return BREAKS
            if self.expected == HOLDS and TOO_DEEP not in self.text:
                break
        if "errors: 0" not in self.text:
            return "pan: " + (self.text.strip().splitlines() or ["no output"])[-1]
        # A search that gave up proves nothing.
        if TOO_DEEP in self.text or "out of memory" in self.text:
            return "incomplete"
        return HOLDS

    def number(self, pattern):
        m = re.search(pattern, self.text)
        return int(float(m.group(1))) if m else 0

    def states(self):
        return self.number(r"([\d.e+]+) states, stored")

    def depth(self):
        return self.number(r"depth reached (\d+)")

    def megabytes(self):
        return self.number(r"([\d.]+)\s+total actual memory usage")

    def replay(self, *words):
        text = self.command("spin", "-k", next(self.folder.glob("*.trail")).name, *self.defines,
                            "-t", *words, self.model).stdout
        text = text.split("#processes:")[0].replace(str(ROOT) + "/", "")
        return [line.rstrip() for line in text.splitlines()
                if not line.startswith(("ltl ", "Never claim moves"))]

    def keep_trail(self):
        narrative = [line.strip() for line in self.replay()]
        text = "\n".join(narrative + ["", "every statement:"] + self.replay("-p")) + "\n"
        (self.folder.parent / f"{self.name}.txt").write_text(text, encoding="utf-8")
        self.narrative = narrative


def chosen(args):
    rows = [r for r in CONFIGURATIONS if not args.quick or r[5]]
    if args.names:
        rows = [r for r in rows if any(r[0].startswith(n) for n in args.names)]
    return rows


def check(run, show_trail):
    """One line; True when it came out as expected."""
    begin = time.monotonic()
    got = run.outcome()
    good = got == run.expected and run.states() > 0
    print(f"{'ok' if good else 'FAILED':6} {run.name:26} {run.checked:11} {got:7} "
          f"{run.states():>9} states, depth {run.depth():>7}, "
          f"{run.megabytes():>4} MB, {time.monotonic() - begin:6.1f} s"
          f"{'' if good else f'   expected: {run.expected}'}", flush=True)
    if got == BREAKS and (show_trail or not good):
        print("\n".join("       " + line for line in run.narrative))
    for name in ("pan", "pan.c", "pan.m", "pan.b", "pan.t", "pan.p", "pan.h"):
        (run.folder / name).unlink(missing_ok=True)
    return good, run.states()


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--trail", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/model")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    rows = chosen(args)
    if args.list:
        for name, revision, expected, checked, options, _ in rows:
            print(f"{name:26} {revision:7} {expected:7} {checked:11} {options}")
        return 0
    if not rows:
        print(f"tools/model: no such configuration: {' '.join(args.names)}: see --list",
              file=sys.stderr)
        return 2
    for program, package in (("spin", "spin"), ("gcc", "gcc")):
        if not shutil.which(program):
            print(f"SKIP: there is no {program}; install the package {package}, "
                  "or run tools/setup model as root")
            return 77
    os.nice(10)
    begin = time.monotonic()
    results = [check(Run(args.out.resolve(), row), args.trail) for row in rows]
    bad = sum(not good for good, _ in results)
    print(f"{len(results) - bad} as expected, {bad} not; {sum(s for _, s in results)} states, "
          f"{time.monotonic() - begin:.0f} s")
    return 1 if bad else 0
