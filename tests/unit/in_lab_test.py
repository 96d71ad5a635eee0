#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/lab/in_lab.py without a lab: the script it has run there, and what it makes of the
output. A shell on this host plays the lab's.

usage: in_lab_test.py SOURCE_FOLDER
"""
import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tests/lab"))
import in_lab

PROGRAMS = {
    "good": "echo fine; echo \"$1\"",
    "bad": "echo wrong >&2; exit 3",
    "skips": "echo 'SKIP: no such thing'; exit 77",
    "no-newline": "printf 'half a line'",
    "dies": "kill -9 $$",
}


class Script(unittest.TestCase):
    def run_commands(self, *commands, until=None):
        """(exit code, outcomes, all that was printed); `until`: the lab ends with this line."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in PROGRAMS.items():
                path = pathlib.Path(folder, name)
                path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
                path.chmod(0o755)
            script = in_lab.script_of([(60, in_lab.inside(words)) for words in commands])
            done = subprocess.run(["sh", "-c", script], cwd=folder,
                                  capture_output=True, text=True, check=False, timeout=60)
        lines = done.stdout.splitlines()
        if until:
            lines = lines[:lines.index(until) + 1]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            outcomes = in_lab.outcomes_of(lines, commands)
            code = in_lab.report(outcomes, commands)
        return code, [o for o, _, _ in outcomes], out.getvalue()

    def test_all_good(self):
        code, outcomes, text = self.run_commands(["/x/good", "a b"], ["no-newline"], ["skips"])
        self.assertEqual((code, outcomes), (0, ["passed", "passed", "skipped"]))
        self.assertRegex(text, "passed: good 'a b': \\d+ s\n")
        self.assertIn("half a line\n", text)
        self.assertNotIn(in_lab.MARK, text)

    def test_one_bad_does_not_stop_the_rest(self):
        code, outcomes, text = self.run_commands(["bad"], ["dies"], ["good"])
        self.assertEqual((code, outcomes), (1, ["failed", "failed", "passed"]))
        self.assertIn("failed: bad: exit code 3\n", text)
        self.assertIn("failed: dies: killed", text)
        # Once more at the end, for who keeps no more.
        self.assertIn("--- last of bad\nfailed: wrong\n", text)

    def test_nothing_passed_is_a_failure(self):
        self.assertEqual(self.run_commands(["skips"])[0], 1)
        self.assertEqual(self.run_commands()[0], 1)

    def test_the_lab_ends_early(self):
        code, outcomes, text = self.run_commands(["good"], ["bad"], ["good"], until="wrong")
        self.assertEqual((code, outcomes), (1, ["passed", "failed", "not run"]))
        self.assertIn("failed: bad: the lab ended in it\n", text)


class Words(unittest.TestCase):
    def test_options_and_commands(self):
        self.assertEqual(in_lab.split_words(["--cpus", "4", "--", "p", "x", "--", "q"]),
                         (["--cpus", "4"], [["p", "x"], ["q"]]))
        self.assertEqual(in_lab.split_words([]), ([], []))


if __name__ == "__main__":
    unittest.main()
