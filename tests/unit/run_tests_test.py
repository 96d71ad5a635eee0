#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/run-tests: last line, exit code, reasons and logs, with a `meson` of the test's own.

usage: run_tests_test.py SOURCE_FOLDER
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
MESON = """#!/bin/sh
echo ' 1/1 progress'
echo 'Ok: 1'
cp {records} {log}
"""


class RunTests(unittest.TestCase):
    def run_with(self, records, *options, log="testlog.json"):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            logs = root / "build/meson-logs"
            logs.mkdir(parents=True)
            lines = [json.dumps({"stdout": "", "returncode": 0, "duration": 0.1, **r})
                     for r in records]
            (root / "records").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (root / "meson").write_text(MESON.format(records=root / "records", log=logs / log),
                                        encoding="utf-8")
            (root / "meson").chmod(0o755)
            return subprocess.run(
                [SOURCE / "tools/run-tests", root / "build", *options], capture_output=True,
                text=True, check=False,
                env={**os.environ, "PATH": f"{root}:{os.environ['PATH']}"})

    def test_all_pass(self):
        done = self.run_with([{"name": "a", "result": "OK"}, {"name": "b", "result": "OK"}])
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]), (0, "2 passed, 0 failed"))
        self.assertEqual(done.stdout.splitlines()[0], " 1/1 progress")

    def test_failures_show_their_log(self):
        for result in ("FAIL", "TIMEOUT", "ERROR", "UNEXPECTEDPASS"):
            done = self.run_with([{"name": "a", "result": "OK"},
                                  {"name": "b", "result": result, "stdout": "what went wrong"}])
            self.assertEqual(done.returncode, 1)
            self.assertIn("    what went wrong\n", done.stdout)
            self.assertEqual(done.stdout.splitlines()[-1], "1 passed, 1 failed")

    def test_reasons_stand_at_the_end(self):
        reasons = ["[  ERROR   ] --- 0 != 1", "failed: y_test: exit code 1"]
        output = "\n".join(["passed: x_test", *reasons, "failure-free words",
                            *(f"passed: {n}" for n in range(300))])
        done = self.run_with([{"name": "b", "result": "FAIL", "stdout": output}])
        self.assertEqual(done.stdout.splitlines()[-4:],
                         ["failed: b", *(f"    {reason}" for reason in reasons),
                          "0 passed, 1 failed"])

    def test_skips_give_their_reason(self):
        done = self.run_with([{"name": "a", "result": "OK", "stdout": "SKIP: one part\n"},
                              {"name": "b", "result": "SKIP", "stdout": "SKIP: x\nSKIP: no KVM\n"},
                              {"name": "c", "result": "SKIP"}])
        self.assertEqual(done.returncode, 0)
        self.assertIn("skipped: b: no KVM\n", done.stdout)
        self.assertIn("skipped: c: no reason given\n", done.stdout)
        self.assertIn("passed, but left out: a: one part\n", done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], "1 passed, 0 failed, 2 skipped")

    def test_nothing_ran(self):
        for records in ([], [{"name": "a", "result": "SKIP", "stdout": "SKIP: no KVM"}]):
            done = self.run_with(records, log="testlog.json" if records else "other")
            self.assertEqual(done.returncode, 1)
            self.assertIn("no test ran\n", done.stdout)

    def test_wrapper_has_its_own_log(self):
        done = self.run_with([{"name": "a", "result": "OK"}], "--wrapper", "/usr/bin/valgrind -q",
                             log="testlog-valgrind.json")
        self.assertEqual(done.stdout.splitlines()[-1], "1 passed, 0 failed")

    def test_benchmarks_by_meson(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "meson.build").write_text(
                "project('x')\nbenchmark('b', find_program('true'))\n", encoding="utf-8")
            subprocess.run(["meson", "setup", root / "build", root], capture_output=True,
                           check=True)
            done = subprocess.run([SOURCE / "tools/run-tests", root / "build", "--benchmark"],
                                  capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout.splitlines()[-1]),
                             (0, "1 passed, 0 failed"), done.stdout)


if __name__ == "__main__":
    unittest.main()
