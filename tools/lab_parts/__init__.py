# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/lab, in reading order: session (one start of the lab), fetch (Debian's
packages into the cache), cpio and initramfs (what the lab boots), machine (QEMU), watch (what
it says while it runs), terminal (standard input), relay (a UNIX socket that leads in).

This file holds what all of them share. Test: tests/unit/lab_test.py.
"""
import os
import pathlib
import signal
import sys

# As src/cli/cli.h has them; EXIT_REFUSED: what is needed here is in use or cannot be made,
# EXIT_STOPPED: by Ctrl-A x.
EXIT_USAGE, EXIT_REFUSED, EXIT_STOPPED = 2, 3, 5
EXIT_TIMEOUT, EXIT_LAB = 124, 125


class LabError(Exception):
    """what failed: on what: why; what to do"""
    code = EXIT_LAB


class Refused(LabError):
    """Not the lab's failure: the command would be refused the same without it."""
    code = EXIT_REFUSED


class Stopped(KeyboardInterrupt):
    """A signal asks us to end; .number says which."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def stop(number, _frame):
    raise Stopped(number)


def stop_on_signals():
    """From now on SIGINT, SIGTERM and SIGHUP are exceptions, unless we were started to ignore
    them; so that QEMU ends before us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def end_by(number):
    """Ends this process as the signal would have: whoever started it sees which."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


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
