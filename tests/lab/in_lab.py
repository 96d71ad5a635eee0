#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One program in the lab, as a test: `make lab-test` runs them all.

usage: in_lab.py SOURCE_FOLDER PROGRAM [WORDS...]

Skipped unless ASYNCPF_LAB is 1: the lab downloads 60 MB once, and takes minutes.
"""
import os
import subprocess
import sys


def main():
    source, program, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    if os.environ.get("ASYNCPF_LAB") != "1":
        print("SKIP: runs in the lab, by `make lab-test`")
        return 77
    command = [os.path.join(source, "tools/lab"), "run", "--timeout", "600", "--module", "loop",
               "--file", program, "--", "./" + os.path.basename(program), *words]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
