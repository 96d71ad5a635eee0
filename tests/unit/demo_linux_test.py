#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo-linux without a lab: its command line, and what it makes of results.

usage: demo_linux_test.py SOURCE_FOLDER
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
import demo_linux as demo
from linux_guests import Result


def result_of(boot, visits_per_s=50.0, bad=0, well=True):
    """What a guest and the command say, in the guest's own words."""
    result = Result(boot, status=0)
    for report in (
            {"step": "boot", "uptime_ms": 4500},
            {"step": "load", "fill_s": 3.5, "seconds": 20.0, "visits": 1000, "bad": bad,
             "visits_per_s": visits_per_s, "visit_us": {"p50": 5, "p99": 40000}, "hyp": 700},
            {"step": "ticker", "late_us": {"p50": 100, "p99": 25000, "max": 61000}},
            {"step": "end", "hyp": [701], "well": well}):
        result.take_line(f"guest: {json.dumps(report)}")
    for n in (1, 2):
        counters = {"missing_events": 698, "ready_events": 697, "stalls": 40,
                    "stalls_kernel_mode": 10, "stall_kernel_mode_ns": 250_000_000,
                    "stall_other_ns": 750_000_000}
        result.take_mark("counters", json.dumps({k: n * v for k, v in counters.items()}))
    return result


class Demo(unittest.TestCase):
    def parse(self, *words):
        return demo.parse(["build", *words])

    def table(self, outcomes, *words):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            demo.print_table(self.parse(*words), outcomes)
        return out.getvalue()

    def test_the_guests(self):
        boots = demo.boots_of(self.parse("--memory", "128", "--delay-ms", "7", "--runs",
                                         "user,block"))
        self.assertEqual([b.faults for b in boots], ["user", "block"])
        words = boots[1].words(1)
        for option, value in (("--memory", "128M"), ("--resident-max", "32M"),
                              ("--swap", "swap.1"), ("--swap-wrap", "delay?ms=7"),
                              ("--faults", "block")):
            self.assertEqual(words[words.index(option) + 1], value)
        self.assertIn("load=processes:16,pages:2048,file:128,file_visits:10,seconds:20,", words[-1])

    def test_a_delay_of_nothing_needs_no_wrapper(self):
        (boot,) = demo.boots_of(self.parse("--delay-ms", "0", "--runs", "user"))
        self.assertNotIn("--swap-wrap", boot.words(0))

    def test_wrong_usage(self):
        for words in (["--runs", "user,user"], ["--runs", "quick"], ["--pages", "0"],
                      ["--kernel", "5.10"], ["--nonsense"], ["--seconds", "0"],
                      ["--file-visits", "101"], ["--request", "0"], ["--lab-cpus", "0"]):
            err = io.StringIO()
            with contextlib.redirect_stderr(err), self.assertRaises(SystemExit) as end:
                self.parse(*words)
            self.assertEqual(end.exception.code, 2, words)
            self.assertRegex(err.getvalue(), r"^asyncpf: wrong usage: tools/demo-linux: [^\n]*\n$")

    def test_the_table(self):
        block, user = demo.boots_of(self.parse("--runs", "block,user"))
        outcomes = [demo.outcome_of(result_of(block)),
                    demo.outcome_of(result_of(user, visits_per_s=400.0))]
        rows = self.table(outcomes).splitlines()[-2:]
        self.assertEqual(rows[0].split(), ["block", "50.0", "1.00", "0.10", "25.00", "61.00",
                                           "698", "697", "40", "25%", "250", "700", "yes"])
        self.assertEqual(rows[1].split()[:3], ["user", "400.0", "8.00"])
        self.assertIn("a file of 128 pages each, to which 10 % of their visits go",
                      self.table(outcomes))

    def test_whose_clock_it_is(self):
        self.assertIn("runs 4 times slower than this machine's\n", self.table([]))
        self.assertIn("runs as fast as this machine's\n", self.table([], "--slow", "1"))

    def test_the_kernel_tells_no_counts_of_its_own(self):
        (boot,) = demo.boots_of(self.parse("--runs", "kernel"))
        row = self.table([demo.outcome_of(result_of(boot))]).splitlines()[-1]
        self.assertEqual(row.split()[2], "-") # no block to compare with
        self.assertEqual(row.split()[6:], ["-", "-", "-", "-", "-", "700", "yes"])

    def test_not_verified(self):
        (boot,) = demo.boots_of(self.parse("--runs", "user"))
        failed = result_of(boot)
        failed.status = 1
        for result in (result_of(boot, bad=1), result_of(boot, well=False), failed):
            self.assertTrue(self.table([demo.outcome_of(result)]).endswith("  NO\n"))

    def test_a_guest_that_did_not_end(self):
        (boot,) = demo.boots_of(self.parse("--runs", "user"))
        result = result_of(boot)
        result.reports.pop()
        self.assertIsNone(demo.outcome_of(result))
        result = result_of(boot)
        result.counters.pop()
        self.assertIsNone(demo.outcome_of(result))

    def test_json(self):
        (boot,) = demo.boots_of(self.parse("--runs", "user"))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "out.json")
            demo.write_json(self.parse("--json", str(path)), [demo.outcome_of(result_of(boot))])
            data = json.loads(path.read_text(encoding="utf-8"))
        self.assertEqual(data["resident"], 96)
        self.assertEqual(data["runs"][0]["late_us"]["p99"], 25000)
        self.assertEqual(data["runs"][0]["stall_kernel_mode_ns"], 250_000_000)


if __name__ == "__main__":
    unittest.main()
