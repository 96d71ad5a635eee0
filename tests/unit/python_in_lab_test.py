#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/lab/python_in_lab.py without a lab: which tests it takes, how they are called, and what is
in the root that they get.

usage: python_in_lab_test.py SOURCE_FOLDER
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tests/lab"))
import python_in_lab


def told(name, suite, *words, **more):
    """A test as meson tells it."""
    return {"name": name, "suite": [f"asyncpf:{suite}"], "cmd": [*words], "env": {},
            "workdir": None, "timeout": 30, **more}


TOLD = [told("run", "error", "/any/python3", "/b/../tests/run_test.py", "./asyncpf"),
        told("snapshot", "integration", "/s/snapshot_test.py", "./asyncpf"),
        told("lib_test", "integration", "/b/lib_test", "x.py", "y.py"),
        told("lab-run", "lab", "/any/python3", "/s/lab_run_test.py"),
        told("install", "integration", "/s/install_test.py")]


class Choice(unittest.TestCase):
    def names(self, *wanted):
        return [test["name"] for test in python_in_lab.chosen(TOLD, wanted)]

    def test_all(self):
        self.assertEqual(self.names(), ["run", "snapshot"])

    def test_those_that_are_named(self):
        self.assertEqual(self.names("snapshot"), ["snapshot"])
        self.assertEqual(self.names("install"), ["install"])

    def test_one_that_is_none(self):
        for name in ("lib_test", "lab-run", "rum"):
            with self.assertRaisesRegex(python_in_lab.Failure, name):
                self.names("run", name)


class Benchmarks(unittest.TestCase):
    told = [told(name, "", f"/b/{name}", "--check") for name in ("engine", "views", "net")]

    def names(self, *wanted):
        return [test["name"] for test in python_in_lab.chosen_benchmarks(self.told, wanted)]

    def test_those_with_a_guest(self):
        self.assertEqual(self.names(), ["views", "net"])

    def test_those_that_are_named(self):
        self.assertEqual(self.names("engine"), ["engine"])

    def test_one_that_is_none(self):
        with self.assertRaisesRegex(python_in_lab.Failure, "vievs"):
            self.names("vievs", "views")

    def test_a_program_is_called_as_it_is(self):
        _, words = python_in_lab.command_of(self.told[1], pathlib.Path("/b"), "/usr/bin/python3")
        self.assertEqual(words, ["env", "-C", "/b", "/b/views", "--check"])


class Command(unittest.TestCase):
    def test_words_and_environment(self):
        for test in (told("a", "error", "/any/python3", "/b/../s/a_test.py", "./x"),
                     told("a", "error", "/s/a_test.py", "./x")):
            limit_s, words = python_in_lab.command_of({**test, "env": {"A": "b c"}},
                                                      pathlib.Path("/b"), "/usr/bin/python3")
            self.assertEqual(limit_s, 30 * python_in_lab.LIMIT_TIMES)
            self.assertEqual(words[:5], ["env", "-C", "/b", "A=b c", "/usr/bin/python3"])
            self.assertEqual(words[-2:], ["/s/a_test.py", "./x"])

    def test_it_runs_as_if_called_by_itself(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "beside.py").write_text("LIMIT_S = 7\n", encoding="utf-8")
            script = pathlib.Path(folder, "a_test.py")
            script.write_text("import os, sys, unittest, beside\n"
                              "class A(unittest.TestCase):\n"
                              "    def test_a(self):\n"
                              "        self.assertEqual(sys.argv, [__file__, 'b c'])\n"
                              "        self.assertEqual(os.environ['A'], '7')\n"
                              "        self.skipTest('the reason')\n"
                              "if __name__ == '__main__':\n"
                              "    unittest.main(argv=sys.argv[:1])\n", encoding="utf-8")
            test = told("a", "error", str(script), "b c", env={"A": "7"})
            _, words = python_in_lab.command_of(test, pathlib.Path(folder), sys.executable)
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        # Each test by its name, and why it was left out.
        self.assertIn("test_a", done.stderr)
        self.assertIn("the reason", done.stderr)


class RootFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.here = pathlib.Path(self.folder.name, "here").resolve()
        self.here.mkdir()
        there = pathlib.Path(self.folder.name, "there")
        there.mkdir()
        self.root = python_in_lab.Root(there)

    def test_a_folder_and_what_its_links_lead_to(self):
        (self.here / "a/sub").mkdir(parents=True)
        (self.here / "a/sub/file").write_text("x", encoding="utf-8")
        (self.here / "a/left.o").write_text("y", encoding="utf-8")
        (self.here / "other").write_text("z", encoding="utf-8")
        (self.here / "a/link").symlink_to("../other")
        (self.here / "a/sub/file").chmod(0o755)
        self.root.add(self.here / "a", python_in_lab.NOT_OF_BUILD)
        place = self.root.place(self.here)
        self.assertEqual(sorted(str(p.relative_to(place)) for p in place.rglob("*")),
                         ["a", "a/link", "a/sub", "a/sub/file", "other"])
        self.assertEqual((place / "a/sub/file").stat().st_mode & 0o777, 0o755)
        self.assertEqual(os.readlink(place / "a/link"), "../other")

    def test_a_part_of_a_folder_first(self):
        for name in "ab":
            (self.here / name).write_text(name, encoding="utf-8")
        self.root.add(self.here / "a")
        self.root.add(self.here)
        self.assertTrue((self.root.place(self.here) / "b").exists())

    def test_a_program_runs_with_its_libraries(self):
        self.root.add(sys.executable)
        self.root.add_libraries()
        for library in ("libc.so.6", "libm.so.6"):
            found = [p for p in self.root.folder.rglob(library) if p.exists()]
            self.assertEqual(len(found), 1, library)


if __name__ == "__main__":
    unittest.main()
