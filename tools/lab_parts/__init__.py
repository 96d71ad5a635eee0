# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/lab, in reading order: session (one start of the lab), fetch (Debian's
packages into the cache), cpio and initramfs (what the lab boots), machine (QEMU), watch (what
it says while it runs), terminal (standard input), relay (a UNIX socket that leads in).

This file holds what all of them share. Test: tests/unit/lab_test.py.
"""
import os
import pathlib

EXIT_USAGE, EXIT_TIMEOUT, EXIT_LAB, EXIT_CTRL_C = 2, 124, 125, 130


class LabError(Exception):
    """what failed: on what: why; what to do"""


def cache_folder():
    """cache/lab of the source tree, or the user's own where asyncpf is installed."""
    named = os.environ.get("ASYNCPF_LAB_CACHE")
    if named:
        return pathlib.Path(named).absolute()
    tree = pathlib.Path(__file__).resolve().parent.parent.parent
    if (tree / "meson.build").is_file():
        return tree / "cache" / "lab"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(home, "asyncpf", "lab")


CACHE = cache_folder()
KERNEL_LOG = CACHE / "kernel.log"  # of the last run
