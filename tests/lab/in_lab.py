#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs on a real kvm_amd, one after the other in one boot of the lab. Each gets a line
of its own: passed, failed, skipped, or not run because the lab ended before.

usage: in_lab.py SOURCE_FOLDER [OPTION OF tools/lab...] [-- PROGRAM [WORDS...]]...

Exit code 0 when none failed and at least one passed. 77, with the reason, where the lab
cannot be fetched: a machine that has never had a network has none.
"""
import collections
import os
import re
import shlex
import subprocess
import sys

PROGRAM_S = 500  # for one program
LAB_S = 1200     # for all of them
LAST_LINES = 12  # of a failed program's output, shown again in the summary
SKIPPED = 77
# Each program's first and last line, which no program prints by itself.
MARK = "@@in_lab@@"
BEGIN = re.compile(rf"^{MARK} begin (\d+)$")
END = re.compile(rf"^{MARK} end (\d+) status (\d+) after (\d+)$")


def split_words(words):
    """[options, [program, word, …], …], which -- separates."""
    lists = [[]]
    for word in words:
        if word == "--":
            lists.append([])
        else:
            lists[-1].append(word)
    return lists[0], lists[1:]


def inside(words):
    """The program as it is called in there, where it is in the folder."""
    return ["./" + os.path.basename(words[0]), *words[1:]]


def script_of(commands):
    """The shell script that runs [(seconds it may take, words), …], one after the other."""
    lines = []
    for n, (limit_s, words) in enumerate(commands):
        # A line of its own even behind output without an end of line.
        lines += [f"printf '\\n{MARK} begin {n}\\n'; from=$(date +%s)",
                  f"timeout -s KILL {limit_s} {shlex.join(words)} 2>&1",
                  f"printf '\\n{MARK} end {n} status %d after %d\\n' $? $(($(date +%s) - from))"]
    return "\n".join(lines)


def outcomes_of(lines, commands):
    """Passes the programs' output on. Returns one (outcome, text, its last lines) for each
    command."""
    outcomes = [("not run", "the lab ended before", ())] * len(commands)
    last = collections.deque(maxlen=LAST_LINES)
    for line in lines:
        begin, end = BEGIN.match(line), END.match(line)
        if begin:
            print(f"--- {shlex.join(name_of(commands[int(begin[1])]))}", flush=True)
            last = collections.deque(maxlen=LAST_LINES)
            outcomes[int(begin[1])] = ("failed", "the lab ended in it", last)
        elif end:
            outcomes[int(end[1])] = (*outcome_of(int(end[2]), int(end[3])), last)
        elif line:
            last.append(line)
            print(line, flush=True)
    return outcomes


def outcome_of(status, seconds):
    if status == SKIPPED:
        return "skipped", "see its SKIP line"
    if status == 128 + 9:
        return "failed", f"killed after {seconds} s"
    return ("failed", f"exit code {status}") if status else ("passed", f"{seconds} s")


def name_of(words):
    return [os.path.basename(words[0]), *words[1:]]


def report(outcomes, commands):
    """Prints the summary. Returns the exit code."""
    print("--- in the lab")
    for (outcome, text, _), words in zip(outcomes, commands):
        print(f"{outcome}: {shlex.join(name_of(words))}: {text}")
    for (outcome, text, last), words in zip(outcomes, commands):
        if outcome == "failed":
            print(f"--- last of {shlex.join(name_of(words))}")
            for line in last:
                print(f"failed: {line}")
    good = [o for o, _, _ in outcomes if o == "passed"]
    bad = [o for o, _, _ in outcomes if o in ("failed", "not run")]
    return 1 if bad or not good else 0


def run(source, words, script, commands):
    """One boot with these words for tools/lab, in which the script runs. Returns the exit code."""
    tool = os.path.join(source, "tools/lab")
    fetched = subprocess.run([tool, "fetch"], capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        print(f"SKIP: there is no lab here: {fetched.stderr.strip().splitlines()[-1]}")
        return SKIPPED
    with subprocess.Popen([tool, "run", *words, "--", "sh", "-c", script],
                          stdout=subprocess.PIPE, text=True, errors="replace") as lab:
        outcomes = outcomes_of((line.rstrip("\n") for line in lab.stdout), commands)
    code = report(outcomes, commands)
    if lab.returncode != 0:
        print(f"failed: the lab itself: exit code {lab.returncode}")
    return code or lab.returncode


def main():
    options, commands = split_words(sys.argv[2:])
    files = [word for p in sorted({words[0] for words in commands}) for word in ("--file", p)]
    script = script_of([(PROGRAM_S, inside(words)) for words in commands])
    return run(sys.argv[1], ["--timeout", str(LAB_S), *options, *files], script, commands)


if __name__ == "__main__":
    sys.exit(main())
