#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf run` on a terminal: raw while it runs, as it was afterwards, whatever ends it.

usage: run_terminal_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import fcntl
import os
import select
import signal
import subprocess
import termios
import time

from run_support import LIMIT_S, RunTest, kernel, main


class Terminal(RunTest):
    def setUp(self):
        super().setUp()
        self.keyboard, self.tty = os.openpty()
        self.addCleanup(os.close, self.keyboard)
        self.addCleanup(os.close, self.tty)
        self.modes = termios.tcgetattr(self.tty)
        self.seen = b""

    def on_terminal(self, cmdline, *words):
        def take_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # A shell has what it puts into the background ignore this one.
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)

        return self.start("--cmdline", cmdline, *words, stdin=self.tty, stdout=self.tty,
                          stderr=subprocess.PIPE, preexec_fn=take_terminal)

    def wait_for(self, text):
        end = time.monotonic() + LIMIT_S
        while text not in self.seen:
            left = max(end - time.monotonic(), 0)
            if not select.select([self.keyboard], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.keyboard, 4096)

    def is_raw(self):
        return not termios.tcgetattr(self.tty)[3] & (termios.ICANON | termios.ECHO)

    def wait_for_modes(self):
        """The guard puts them back soon after the process has gone."""
        end = time.monotonic() + LIMIT_S
        while termios.tcgetattr(self.tty) != self.modes:
            if time.monotonic() > end:
                self.fail("the terminal's modes are not as they were")
            time.sleep(0.01)

    def restored_after(self, cmdline, act, code):
        process = self.on_terminal(cmdline)
        self.wait_for(b"argument 1: ")
        if act:
            self.assertTrue(self.is_raw())
            act(process)
        process.wait(timeout=LIMIT_S)
        self.assertEqual(process.returncode, code, process.stderr.read())
        process.stderr.close()
        self.wait_for_modes()

    def test_power_off(self):
        self.restored_after("off", None, 0)

    def test_escape(self):
        self.restored_after("spin", lambda p: os.write(self.keyboard, b"\x01x"), 5)

    def test_triple_fault(self):
        self.restored_after("crash", None, 1)

    def test_signals(self):
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV,
                       signal.SIGABRT, signal.SIGQUIT):
            with self.subTest(signal=signum):
                self.seen = b""
                self.restored_after("spin", lambda p, s=signum: p.send_signal(s), -signum)

    def test_keys_are_the_guests(self):
        """Ctrl-C and Ctrl-Z are typed, not signals; the return key is a carriage return."""
        process = self.on_terminal("echo off")
        self.wait_for(b"argument 1: echo")
        os.write(self.keyboard, b"\x03\x1a\x01\x01!\r")
        self.wait_for(b"\x03\x1a\x01!")
        process.wait(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 0)
        process.stderr.close()

    def test_refused_before_it_was_raw(self):
        process = self.start("--disk", "missing", stdin=self.tty, stdout=self.tty,
                             stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 3)
        self.assertIn(b"disk missing", err)
        self.assertEqual(termios.tcgetattr(self.tty), self.modes)

    def test_in_the_background(self):
        """Not the terminal's foreground: its modes stay, its keys are somebody else's."""
        process = self.start("--cmdline", "off", stdin=self.tty, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, preexec_fn=os.setsid)
        out, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, err), (0, b""))
        self.assertIn(b"argument 1: off", out)
        self.assertEqual(termios.tcgetattr(self.tty), self.modes)

    def test_no_guard_is_left(self):
        self.restored_after("off", None, 0)
        listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True,
                                 check=True).stdout
        self.assertNotIn(f"--kernel {kernel()} --memory 16M --cmdline off", listing)


if __name__ == "__main__":
    main()
