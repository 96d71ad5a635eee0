#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An example reads through libasyncpf what the file holds: minimal in one VM, snapshot in two.

usage: minimal_test.py PATH_OF_EXAMPLE
"""
import os
import subprocess
import sys
import tempfile

PAGE = 4096


def main():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        return 77
    with tempfile.NamedTemporaryFile() as image:
        data = os.urandom(16 * PAGE)
        image.write(data)
        image.flush()
        done = subprocess.run([sys.argv[1], image.name], capture_output=True, text=True,
                              check=False, timeout=30)
    want = f"{sum(data[i * PAGE] for i in range(16))}\n"
    if done.returncode or done.stdout != want:
        print(f"exit code {done.returncode}, printed {done.stdout!r}, expected {want!r}, "
              f"stderr {done.stderr!r}")
        return 1
    missing = subprocess.run([sys.argv[1], "/nonexistent"], capture_output=True, text=True,
                             check=False, timeout=30)
    if missing.returncode != 1 or "/nonexistent" not in missing.stderr:
        print(f"a missing file: exit code {missing.returncode}, stderr {missing.stderr!r}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
