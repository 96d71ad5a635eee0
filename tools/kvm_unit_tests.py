# SPDX-License-Identifier: Apache-2.0
"""Runs kernels of kvm-unit-tests (kvm-unit-tests.git, x86, as its `make` leaves them) under
`asyncpf run`, as they come.

usage: tools/kvm-unit-tests ASYNCPF FOLDER [--here | --lab] [--timeout S] [--only NAME]...
                            [-- OPTION OF asyncpf run...]

FOLDER holds NAME.flat (or .elf) for each test; those of the list below that it has are run, one
line each, and what a failed one printed. They run here where KVM can run Linux, and otherwise in
one lab (docs/lab.md), as several of them need what an emulating KVM has not. Exit code 0: all that
ran passed, and at least one ran.
Test: tests/error/kvm_unit_tests_test.py.
"""
import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAB = ROOT / "tools" / "lab"
# What `asyncpf run --exit-port` makes of what exit() of the suite writes.
GUEST = 160
PASSED, FAILED, SKIPPED = GUEST, GUEST + 1, GUEST + 77
TIMED_OUT = 124
LAB_SLOWER = 4
MARK = re.compile(r"^@@ (\S+) (\d+)$")

# name: (kernel, processors, memory in MiB, command line); the suite's unittests.cfg.
TESTS = {
    "setjmp": ("setjmp", 1, 128, ""),
    "idt_test": ("idt_test", 1, 128, ""),
    "hypercall": ("hypercall", 1, 128, ""),
    "syscall": ("syscall", 1, 128, ""),
    "rdpru": ("rdpru", 1, 128, ""),
    "realmode": ("realmode", 1, 128, ""),
    "smptest": ("smptest", 2, 128, ""),
    "smptest3": ("smptest", 3, 128, ""),
    "kvmclock_test": ("kvmclock_test", 2, 128, "10000000 {epoch}"),
    "umip": ("umip", 1, 128, ""),
    "pcid": ("pcid", 1, 128, ""),
    "memory": ("memory", 1, 128, ""),
    "tsc": ("tsc", 1, 128, ""),
    "rmap_chain": ("rmap_chain", 1, 128, ""),
    "eventinj": ("eventinj", 1, 128, ""),
    "ioapic": ("ioapic", 4, 128, ""),
    "asyncpf": ("asyncpf", 1, 2048, ""),
}


def parse(argv):
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="tools/kvm-unit-tests", usage=__doc__.split("\n\n")[1],
                                     allow_abbrev=False)
    parser.add_argument("asyncpf", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--lab", action="store_true")
    parser.add_argument("--timeout", type=int, default=90)
    parser.add_argument("--only", action="append", default=[])
    o = parser.parse_args(argv[:at])
    o.options = argv[at + 1:]
    unknown = [name for name in o.only if name not in TESTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: no such test; there are {' '.join(TESTS)}")
    return o


def kernel_of(folder, name):
    for suffix in (".flat", ".elf"):
        path = folder / (TESTS[name][0] + suffix)
        if path.is_file():
            return path
    return None


def words(name, kernel, options):
    """What follows `asyncpf`."""
    _, cpus, memory, line = TESTS[name]
    return ["run", "--local", "--exit-port", "--kernel", str(kernel), "--cpus", str(cpus),
            "--memory", f"{memory}M", "--cmdline", line.format(epoch=int(time.time())), *options]


def runs_linux(asyncpf):
    done = subprocess.run([asyncpf, "doctor", "--json"], stdout=subprocess.PIPE, text=True,
                          check=False)
    return json.loads(done.stdout)["linux_guest"]


def here(o, kernels):
    """Yields (name, status, output)."""
    for name, kernel in kernels.items():
        try:
            done = subprocess.run([o.asyncpf, *words(name, kernel, o.options)],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace",
                                  check=False, timeout=o.timeout)
        except subprocess.TimeoutExpired as e:
            yield name, TIMED_OUT, (e.stdout or b"").decode(errors="replace")
        else:
            yield name, done.returncode, done.stdout


def in_lab(o, kernels):
    limit = o.timeout * LAB_SLOWER
    script = "".join(
        f"timeout {limit} ./asyncpf {shlex.join(words(name, kernel.name, o.options))} "
        f"</dev/null 2>&1; code=$?; echo; echo \"@@ {name} $code\"\n"
        for name, kernel in kernels.items())
    files = [f"--file={path}:{path.name}" for path in dict.fromkeys(kernels.values())]
    lab = [str(LAB), "run", "--memory=3584", f"--timeout={len(kernels) * limit + 120}",
           f"--file={o.asyncpf}:asyncpf", *files, "--", "sh", "-c", script]
    output = []
    with subprocess.Popen(lab, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            mark = MARK.match(line)
            if mark:
                yield mark[1], int(mark[2]), "".join(output)
                output = []
            else:
                output.append(line)
    if process.returncode:
        sys.exit(f"asyncpf: the lab failed: exit code {process.returncode}")


def main(argv):
    o = parse(argv)
    names = o.only or list(TESTS)
    kernels = {n: k for n in names if (k := kernel_of(o.folder, n))}
    if not kernels:
        print(f"asyncpf: no tests: {o.folder}: it has none of {', '.join(TESTS)}; build "
              "kvm-unit-tests and name its folder x86", file=sys.stderr)
        return 2
    run = in_lab if o.lab or not (o.here or runs_linux(o.asyncpf)) else here
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, status, output in run(o, kernels):
        word = {PASSED: "passed", SKIPPED: "skipped"}.get(status, "failed")
        counts[word] += 1
        why = {TIMED_OUT: " (it did not end in time)", FAILED: "", PASSED: "", SKIPPED: ""}
        print(f"{word}: {name}{why.get(status, f' (exit code {status})')}", flush=True)
        if word == "failed":
            print("".join(f"    {line}\n" for line in output.splitlines()[-40:]), end="")
    missing = [n for n in names if n not in kernels]
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped" +
          (f"; not there: {' '.join(missing)}" if missing else ""))
    return 1 if counts["failed"] or not counts["passed"] else 0
