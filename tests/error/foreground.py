# SPDX-License-Identifier: Apache-2.0
"""Signals as a program in the foreground has them, for tests that send some to their children.

A shell has what it puts into the background ignore SIGINT, nohup has it ignore SIGHUP, and both
are inherited. What has a handler here is at its default in whatever is started.
"""
import signal

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def restore():
    """Of this process; children are started after it. What is not ignored stays as it is."""
    for number in SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            handler = (signal.default_int_handler if number == signal.SIGINT else
                       lambda *_: None)
            signal.signal(number, handler)
