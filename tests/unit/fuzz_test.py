#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/fuzz: its lines and exit codes, with entries of the test's own that print what
libFuzzer would.

usage: fuzz_test.py SOURCE_FOLDER
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
GOOD = """#!/bin/sh
printf '#2\\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 30Mb\\n'
printf '#90\\tREDUCE cov: 11 ft: 12 corp: 5/9b lim: 4 exec/s: 0 rss: 30Mb L: 2/2 MS: 1\\n'
printf '#100\\tDONE   cov: 12 ft: 13 corp: 6/10b lim: 4 exec/s: 3 rss: 30Mb\\n'
echo 'stat::number_of_executed_units: 100'
"""
IDLE = """#!/bin/sh
echo 'stat::number_of_executed_units: 0'
"""
BAD = """#!/bin/sh
for word in "$@"; do
    case $word in
    -artifact_prefix=*) prefix=${word#-artifact_prefix=} ;;
    esac
done
printf '#9\\tNEW    cov: 3 ft: 4 corp: 2/2b lim: 4 exec/s: 0 rss: 30Mb L: 1/1 MS: 1\\n'
echo 'SUMMARY: AddressSanitizer: heap-buffer-overflow x.c:3 in f'
echo "artifact_prefix='$prefix'; Test unit written to ${prefix}crash-1"
exit 77
"""


class Fuzz(unittest.TestCase):
    def run_with(self, entries, *words):
        with tempfile.TemporaryDirectory() as folder:
            programs = pathlib.Path(folder, "tests/fuzz")
            programs.mkdir(parents=True)
            for name, text in entries.items():
                path = programs / f"{name}_fuzz"
                path.write_text(text, encoding="ascii")
                path.chmod(0o755)
            done = subprocess.run([SOURCE / "tools/fuzz", "--seconds", "3", folder, *words],
                                  capture_output=True, text=True, check=False)
            self.kept = sorted(p.name for p in pathlib.Path(folder).glob("fuzz/*"))
            return done.returncode, done.stdout.replace(folder, "B").splitlines(), done.stderr

    def test_one_line_for_each(self):
        code, lines, _ = self.run_with({"a": GOOD, "b": GOOD})
        self.assertEqual(code, 0)
        self.assertEqual(sorted(lines[:-1]),
                         [f"{n}: 100 executions, 6 inputs, 12 edges, 3 s" for n in "ab"])
        self.assertEqual(lines[-1], "2 entries without a finding, 0 with")
        self.assertEqual(self.kept, ["a", "a.log", "b", "b.log"])

    def test_a_finding(self):
        code, lines, _ = self.run_with({"a": BAD, "b": GOOD})
        self.assertEqual(code, 1)
        self.assertIn("a: 9 executions, 2 inputs, 3 edges, 3 s", lines)
        self.assertIn("a: found: AddressSanitizer: heap-buffer-overflow x.c:3 in f", lines)
        self.assertIn("a: replay: B/tests/fuzz/a_fuzz B/fuzz/a/crash-1", lines)
        self.assertEqual(lines[-1], "1 entries without a finding, 1 with")

    def test_no_execution_is_a_failure(self):
        for text in (IDLE, "#!/bin/sh\nexit 0\n"):
            code, lines, _ = self.run_with({"a": text})
            self.assertEqual(code, 1)
            self.assertIn("a: nothing was executed", lines)

    def test_chosen_entries(self):
        code, lines, _ = self.run_with({"a": GOOD, "b": BAD}, "a")
        self.assertEqual((code, len(lines)), (0, 2))
        for entries in ({"a": GOOD}, {}):
            code, lines, said = self.run_with(entries, "c")
            self.assertEqual((code, lines), (1, []))
            self.assertIn("there is no such entry", said)


if __name__ == "__main__":
    unittest.main()
