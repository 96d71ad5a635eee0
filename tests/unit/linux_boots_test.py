#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/linux_boots.sh: each guest's console is read to its end and its exit code told, however
many children of the shell end meanwhile, in busybox's shell, too, where that is installed. The
guests are a script.

usage: linux_boots_test.py SOURCE_FOLDER
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

BOOTS = 20
GUEST = """#!/bin/sh
echo '"step":"cut"'
printf fir
sleep 0.1
echo st
sleep 0.01
echo last
exit 7
"""
# The shell hears of a child's end while it opens and reads what the guest prints.
DRIVER = f"""
. {{script}}
cut_off() {{{{ sleep 0.05; }}}}
n=0
while [ $n -lt {BOOTS} ]; do
    for ms in 1 2 3 4 5 6 7 8; do
        sleep 0.00$ms &
        sleep 0.01$ms &
    done
    boot $n 20 words
    n=$((n + 1))
done
"""


def run_in(shell):
    """What is wrong, or nothing."""
    script = pathlib.Path(sys.argv[1]).resolve() / "tools/linux_boots.sh"
    with tempfile.TemporaryDirectory() as folder:
        guest = pathlib.Path(folder) / "asyncpf"
        guest.write_text(GUEST, encoding="ascii")
        guest.chmod(0o755)
        try:
            done = subprocess.run([*shell, "-c", DRIVER.format(script=script)], cwd=folder,
                                  capture_output=True, text=True, check=False, timeout=60,
                                  start_new_session=True)
        except subprocess.TimeoutExpired as e:
            return (f"still at it after {e.timeout} s:\n{(e.stdout or b'').decode()}"
                    f"{(e.stderr or b'').decode()}")
        left = sorted(set(os.listdir(folder)) - {"asyncpf"})
    want = [line for n in range(BOOTS)
            for line in (f"@@ {n} begin", f'{n}| "step":"cut"', f"{n}| first", f"{n}| last",
                         f"@@ {n} end 7 ")]
    if done.stdout.splitlines() != want or done.stderr or left:
        return f"printed:\n{done.stdout}{done.stderr}left behind: {left}"
    return ""


def main():
    for shell in (["sh"], ["busybox", "sh"]):
        wrong = shutil.which(shell[0]) and run_in(shell)
        if wrong:
            sys.exit(f"failed: {' '.join(shell)}: {wrong}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
