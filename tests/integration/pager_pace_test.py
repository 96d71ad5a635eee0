#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How `asyncpf pager` reads ahead from a server that is some way off, by what the server has seen:
nbdkit with a delay, which logs each request.

usage: pager_pace_test.py PATH_OF_ASYNCPF PATH_OF_STANDIN_VMM
"""
import pathlib
import signal
import sys
import unittest

from pager_support import PAGE, PagerCase, make_image, until

PAGES = 8192
DEPTH = 4


def sleeps(pid):
    """No thread of that process has anything to do."""
    states = [stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0]
              for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
    return not {"R"} & set(states)


class PaceTest(PagerCase):
    def setUp(self):
        super().setUp()
        make_image(self.image, PAGES, 1)

    def serve(self, delay_ms, more=""):
        """The pager's source is the image, so far away."""
        self.server, uri = self.serve_image(delay_ms)
        p = self.pager(f"{uri}&net-connections=1{more}")
        self.need_network(p.process.poll(), p.log)

    def test_requests_are_as_large_as_the_way_is_long(self):
        self.serve(100)
        self.check("order=even", "threads=1")
        s = self.status()
        self.assertGreater(s["read_ahead"], PAGES * 3 / 4)
        # Of a near one no request is larger than 64 KiB, and the mean is smaller than that.
        self.assertGreater(s["read_bytes"] / s["reads"], 64 << 10)

    def stream_far_ahead(self):
        """Of an even stream the source has been asked for 3 MiB more than the server."""
        self.serve(50, f"&net-depth={DEPTH}")
        stream = self.standin("order=even", "threads=1", "asked=1")
        until("a stream that is far ahead of the server",
              lambda: self.status()["read_ahead"] * PAGE - self.served_end() > 3 << 20)
        return stream

    def test_what_nobody_waits_for_leaves_half_of_the_way(self):
        stream = self.stream_far_ahead()
        stream.send_signal(signal.SIGSTOP)
        self.addCleanup(stream.send_signal, signal.SIGCONT)
        # What it waits for is of one read, of 2 MiB at most.
        beyond = self.served_end() + (2 << 20)
        until("all that was asked for", lambda: self.status()["reads_in_flight"] == 0)
        flying, most, ranges = set(), 0, iter(self.served_ranges())
        for number, count in self.served_reads():
            if count is None:
                flying.discard(number)
            elif next(ranges)[0] >= beyond:
                flying.add(number)
            most = max(most, len(flying))
        self.assertGreater(most, 0)
        self.assertLessEqual(most, DEPTH // 2)
        stream.send_signal(signal.SIGCONT)
        self.finish(stream)

    def test_who_waits_goes_before_what_is_read_ahead(self):
        # Slow enough that most of it is still to come when the server is stopped.
        self.serve(50, f"&net-depth={DEPTH}")
        stream = self.standin("order=even", "threads=1")
        until("a stream", lambda: len(self.served_reads()) >= 50)
        self.server.send_signal(signal.SIGSTOP)
        self.addCleanup(self.server.send_signal, signal.SIGCONT)
        seen = len(self.served_reads())
        other = self.standin("order=random", "threads=8", "touches=1", "seed=7")
        until("touches", lambda: any(vm["pid"] == other.pid and vm["faults_total"] >= 8
                                     for vm in self.status()["served"]))
        self.server.send_signal(signal.SIGCONT)
        self.finish(other)
        self.finish(stream)
        sizes = [count for _, count in self.served_reads()[seen:] if count is not None]
        small = [i for i, count in enumerate(sizes) if count == PAGE][:8]
        self.assertEqual(len(small), 8, sizes)
        # What was on its way already, and what the answers to it let go before it was seen.
        self.assertLessEqual(small[-1] + 1 - len(small), DEPTH, sizes)
        self.assertGreater(len(sizes), 4 * DEPTH, sizes)

    def test_what_is_read_ahead_and_wanted_goes_before_the_rest(self):
        stream = self.stream_far_ahead()
        self.server.send_signal(signal.SIGSTOP)
        self.addCleanup(self.server.send_signal, signal.SIGCONT)
        until("a stream that waits", lambda: sleeps(stream.pid))
        seen, end, was = len(self.served_ranges()), self.served_end(), self.status()
        stream.stdin.write(f"{was['read_ahead'] - 1}\n")
        stream.stdin.flush()
        until("a touch of what comes last",
              lambda: self.status()["joined"] > was["joined"] and sleeps(stream.pid))
        self.server.send_signal(signal.SIGCONT)
        self.finish(stream)
        # One request begins where the last one ended, but for the first of what was wanted.
        jumps = []
        for number, (offset, count) in enumerate(self.served_ranges()[seen:]):
            if offset > end:
                jumps.append(number)
            end = max(end, offset + count)
        # Behind what was on its way already, and what the answers to it let go before it was seen.
        self.assertTrue(jumps)
        self.assertLessEqual(jumps[0], DEPTH)


if __name__ == "__main__":
    sys.argv[1:3] = []
    unittest.main(verbosity=2)
