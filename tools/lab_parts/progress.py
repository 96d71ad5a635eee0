# SPDX-License-Identifier: Apache-2.0
"""What demonstrations in the lab say while they run. Test: tests/unit/demo_restore_test.py."""
import sys
import time


class Progress:
    """What is under way, on a terminal; and what went wrong, always, with where that was."""

    def __init__(self, quiet, where=""):
        self.shown = sys.stderr.isatty() and not quiet
        self.where = where
        self.began = time.monotonic()

    def say(self, text):
        if self.shown:
            took = time.monotonic() - self.began
            print(f"[{took:4.0f} s] {text}", file=sys.stderr, flush=True)

    def complain(self, text):
        print(f"asyncpf: {self.where}{text}", file=sys.stderr, flush=True)
