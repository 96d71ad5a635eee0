#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md do what it says: each line of a block marked `sh` that calls
build/asyncpf runs and succeeds, each `make VERB` names a verb of the Makefile.

usage: readme_test.py PATH_OF_ASYNCPF SOURCE_FOLDER

Blocks with another mark (`console`, `text`) are not run.
"""
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

SECONDS = 240  # of one command
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)


def commands(text):
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split(" #")[0].strip()
            if line and not line.startswith("#"):
                yield line


def shell(line, source, seconds):
    """(exit code, error output) of a command; after that long it ends, with all it started."""
    with subprocess.Popen(["sh", "-c", line], cwd=source, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as proc:
        try:
            said = proc.communicate(timeout=seconds)[1]
        except BaseException:
            os.killpg(proc.pid, signal.SIGKILL)
            raise
        return proc.returncode, said


def failure(line, asyncpf, source):
    """What is wrong with the command, or None."""
    words = shlex.split(line)
    if words[0] == "make":
        verbs = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
        done = subprocess.run(["make", "-n", *verbs], cwd=source, capture_output=True, text=True,
                              check=False)
        return None if done.returncode == 0 else done.stderr
    if words[0] not in ("build/asyncpf", "./build/asyncpf"):
        return None  # git clone and the like
    try:
        code, said = shell(line.replace(words[0], shlex.quote(asyncpf), 1), source, SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    return None if code == 0 else f"exit code {code}\n{said}"


def needs_kvm(line):
    return "asyncpf" in line and "--help" not in line


def main():
    asyncpf, source = (str(pathlib.Path(w).resolve()) for w in sys.argv[1:3])
    readme = pathlib.Path(source, "README.md")
    if not readme.exists():
        print("SKIP: there is no README.md")
        return 77
    # Meson ends a test that takes too long by SIGTERM: nothing may stay behind then, either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    lines = list(commands(readme.read_text(encoding="utf-8")))
    bad = 0
    for line in lines:
        if not os.access("/dev/kvm", os.R_OK | os.W_OK) and needs_kvm(line):
            print(f"SKIP: no /dev/kvm: {line}")
            continue
        why = failure(line, asyncpf, source)
        print(f"{'FAILED' if why else 'ok'}: {line}{': ' + why if why else ''}")
        bad += why is not None
    if not lines:
        print("README.md has no block marked sh")
    return 1 if bad or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
