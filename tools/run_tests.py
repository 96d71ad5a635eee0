# SPDX-License-Identifier: Apache-2.0
"""Runs `meson test` and sums up: progress, logs of what failed, reasons of what was
skipped, and as the last line `N passed, N failed[, N skipped]`.

usage: tools/run-tests BUILD_FOLDER [OPTIONS OF MESON TEST]

Exit code 1 when something failed or when nothing ran. A test skips by exit code 77; the
last line of its output that starts with "SKIP:" is the reason. A test that passes but
prints such lines has left something out: these are shown as well, and not counted.
Test: tests/unit/run_tests_test.py.
"""
import json
import pathlib
import re
import subprocess
import sys

PASSED = {"OK", "EXPECTEDFAIL"}
LOG_LINES_MAX = 200  # of one failed test; the rest is in the log file
REASONS_MAX = 16  # lines shown again beside the name of a failed test
# What cmocka, unittest, the sanitizers and the project's own runners call a failure.
REASON = re.compile(r"^(failed|not run|FAILED|FAIL|ERROR)\b|^\[  (ERROR|FAILED)|[Aa]ssertion"
                    r"|^\w*Error:|ERROR: \w+Sanitizer|runtime error:")
PROGRESS = re.compile(r"^\s*\d+/\d+ ")


def skip_lines(record):
    text = record.get("stdout", "") + "\n" + record.get("stderr", "")
    return [line.strip()[5:].strip() for line in text.splitlines()
            if line.strip().startswith("SKIP:")]


def reasons_of(record):
    """The lines of a failed test that say why, the last ones: whoever keeps only the end of
    the output still sees them."""
    lines = (record.get("stdout", "") + "\n" + record.get("stderr", "")).splitlines()
    return [line.strip() for line in lines if REASON.search(line.strip())][-REASONS_MAX:]


def run_meson(build, options, log):
    """Runs the tests, passing progress lines on. Returns meson's other output."""
    log.unlink(missing_ok=True)
    command = ["meson", "test", "-C", str(build), "--no-rebuild", *options]
    rest = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as proc:
        for line in proc.stdout:
            if PROGRESS.match(line):
                print(line.rstrip(), flush=True)
            else:
                rest.append(line.rstrip())
    return rest


def read_log(log):
    if not log.exists():
        return []
    with log.open(encoding="utf-8", errors="replace") as f:
        return [json.loads(line) for line in f if line.strip()]


def print_failure(record):
    print(f"\n--- failed: {record['name']} ({record['result']}, "
          f"exit code {record.get('returncode')}, {record.get('duration', 0):.1f} s)")
    for key in ("stdout", "stderr"):
        lines = record.get(key, "").rstrip().splitlines()
        if len(lines) > LOG_LINES_MAX:
            print(f"[{len(lines) - LOG_LINES_MAX} lines left out]")
        for line in lines[-LOG_LINES_MAX:]:
            print("    " + line)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    build = pathlib.Path(sys.argv[1])
    options = sys.argv[2:]
    name = "testlog.json"
    if "--benchmark" in options:  # a log of its own, as `ninja benchmark` has it
        options += ["--logbase", "benchmarklog"]
        name = "benchmarklog.json"
    if "--wrapper" in options or any(o.startswith("--wrapper=") for o in options):
        # Meson names the log after the wrapper's program.
        at = [i for i, o in enumerate(options) if o.startswith("--wrapper")][0]
        wrapper = options[at].partition("=")[2] or options[at + 1]
        name = name.replace(".json", f"-{pathlib.Path(wrapper.split()[0]).name}.json")
    log = build / "meson-logs" / name
    rest = run_meson(build, options, log)
    records = read_log(log)
    passed = [r for r in records if r["result"] in PASSED]
    skipped = [r for r in records if r["result"] == "SKIP"]
    failed = [r for r in records if r not in passed and r not in skipped]

    for record in failed:
        print_failure(record)
    if not records:
        print("\n".join(rest))
    print()
    for record in skipped:
        reasons = skip_lines(record)
        print(f"skipped: {record['name']}: {reasons[-1] if reasons else 'no reason given'}")
    for record in passed:
        for reason in skip_lines(record):
            print(f"passed, but left out: {record['name']}: {reason}")
    for record in failed:
        print(f"failed: {record['name']}")
        for reason in reasons_of(record):
            print(f"    {reason}")
    if not passed and not failed:
        print("no test ran")
    line = f"{len(passed)} passed, {len(failed)} failed"
    print(line + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed or not passed else 0
