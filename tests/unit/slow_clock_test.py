#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/slow_clock.c, called by name: how much slower the clock is, exactly, and that a wait
takes as long as it should by it.

usage: slow_clock_test.py LIBRARY
"""
import ctypes
import os
import pathlib
import subprocess
import sys
import time
import unittest

LIBRARY = str(pathlib.Path(sys.argv.pop(1)).resolve())
NS_PER_S = 10**9
PROGRAM = "import time; print(time.monotonic_ns(), time.time_ns())"


class Timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]


class SlowClock(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.environ["ASYNCPF_SLOW_CLOCK"] = "7"
        cls.library = ctypes.CDLL(LIBRARY)

    def read(self, clock):
        now = Timespec()
        self.assertEqual(self.library.clock_gettime(clock, ctypes.byref(now)), 0)
        self.assertLess(now.ns, NS_PER_S)
        return now.s * NS_PER_S + now.ns

    def test_the_monotonic_clock_is_slow(self):
        for _ in range(1000):
            before = time.monotonic_ns()
            now = self.read(time.CLOCK_MONOTONIC)
            self.assertTrue(before // 7 <= now <= time.monotonic_ns() // 7)

    def test_others_are_as_they_were(self):
        for clock in (time.CLOCK_REALTIME, time.CLOCK_BOOTTIME, time.CLOCK_PROCESS_CPUTIME_ID):
            before = time.clock_gettime_ns(clock)
            now = self.read(clock)
            self.assertTrue(before <= now <= time.clock_gettime_ns(clock), clock)

    def test_no_such_clock(self):
        self.assertEqual(self.library.clock_gettime(1000, ctypes.byref(Timespec())), -1)

    def test_a_wait_is_longer(self):
        before = time.monotonic_ns()
        self.assertEqual(self.library.ppoll(None, 0, ctypes.byref(Timespec(0, 10**7)), None), 0)
        self.assertGreaterEqual(time.monotonic_ns() - before, 7 * 10**7)

    def test_a_wait_without_a_limit_ends_by_what_it_waits_for(self):
        ours, theirs = os.pipe()
        try:
            os.write(theirs, b"x")
            poll = (ctypes.c_int * 2)(ours, 1)  # struct pollfd: fd, events (POLLIN), revents
            for limit in (None, ctypes.byref(Timespec(2**62, 0))):
                self.assertEqual(self.library.ppoll(poll, 1, limit, None), 1)
        finally:
            os.close(ours)
            os.close(theirs)

    def run_preloaded(self, times):
        env = {**os.environ, "LD_PRELOAD": LIBRARY, "ASYNCPF_SLOW_CLOCK": times}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, text=True, check=True,
                              stdout=subprocess.PIPE)
        return [int(word) for word in done.stdout.split()]

    def test_preloaded(self):
        for word, times in (("4", 4), ("0", 1), ("65", 1), ("", 1), ("x", 1)):
            before, wall_before = time.monotonic_ns(), time.time_ns()
            now, wall = self.run_preloaded(word)
            self.assertTrue(before // times <= now <= time.monotonic_ns() // times, word)
            self.assertTrue(wall_before <= wall <= time.time_ns(), word)


if __name__ == "__main__":
    unittest.main()
