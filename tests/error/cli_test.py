#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the command promises about usage: exit code and text, on the right stream.

usage: cli_test.py PATH_OF_ASYNCPF
"""
import re
import subprocess
import sys
import unittest

ASYNCPF = sys.argv.pop(1) if len(sys.argv) > 1 else "build/asyncpf"


def run(*words, **options):
    return subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=60, **options)


def verbs():
    listing = run("--help").stdout.split("Verbs:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listing.splitlines()]


class Usage(unittest.TestCase):
    def refused(self, words, text):
        """Exit code 2, nothing on stdout, exactly this one line on stderr."""
        done = run(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (2, "", f"asyncpf: {text}\n"))

    def test_no_verb(self):
        self.refused([], "missing verb: command line: nothing to do; see 'asyncpf --help'")

    def test_unknown_verb_with_suggestion(self):
        self.refused(["docter"], "unknown verb: docter: there is no such verb; "
                                 "did you mean 'doctor'?")

    def test_what_is_no_verb_with_suggestion(self):
        for word, meant in (("hlep", "help"), ("version", "--version"), ("--hepl", "--help"),
                            ("-help", "--help"), ("--Version", "--version")):
            what, why = (("option", "a verb comes first") if word[0] == "-" else
                         ("verb", "there is no such verb"))
            self.refused([word], f"unknown {what}: {word}: {why}; did you mean '{meant}'?")

    def test_unknown_verb_without_suggestion(self):
        self.refused(["frobnicate"], "unknown verb: frobnicate: there is no such verb; "
                                     "see 'asyncpf --help'")

    def test_option_before_the_verb(self):
        self.refused(["--json", "doctor"],
                     "unknown option: --json: a verb comes first; see 'asyncpf --help'")

    def test_unknown_option(self):
        self.refused(["doctor", "--jsn"], "unknown option: --jsn: 'asyncpf doctor' does not "
                                          "have it; did you mean '--json'?")

    def test_what_is_empty(self):
        """It is shown as what it is."""
        self.refused([""], "unknown verb: '': there is no such verb; see 'asyncpf --help'")
        self.refused(["demo", "--runs", "block,,stall"],
                     "bad value: --runs '': there is no such run; see 'asyncpf demo --help'")
        self.refused(["evict", "--control", "s", "--to", ""], "bad value: --to '': not a size such "
                     "as 4096, 64K, 512M or 2G; see 'asyncpf evict --help'")
        for words in (("restore", ""), ("report", ""), ("image", "pack", "", "x"),
                      ("image", "info", ""), ("snapshot", "--control", "s", "")):
            self.refused(words, "bad operand: '': it must not be empty; see 'asyncpf "
                                f"{words[0]} --help'")

    def test_zeroes_in_front(self):
        zeroes = "0" * 40
        for size in (f"{zeroes}4M", zeroes):
            self.refused(["evict", "--control", "s", "--all", "--to", size], "too many options: "
                         "--all, --to: they exclude each other; see 'asyncpf evict --help'")

    def test_help_about_help(self):
        for option in ("--help", "-h"):
            done = run("help", option)
            self.assertEqual((done.returncode, done.stdout), (0, run("--help").stdout))
        self.refused(["help", "run", "x"], "unexpected operand: x: 'asyncpf help' takes one verb; "
                                           "see 'asyncpf --help'")

    def test_one_dash(self):
        self.refused(["run", "-kernel", "x"], "unknown option: -kernel: 'asyncpf run' does not "
                                              "have it; did you mean '--kernel'?")
        self.refused(["run", "-k", "x"], "unknown option: -k: 'asyncpf run' does not have it; "
                                         "see 'asyncpf run --help'")

    def test_run_of_the_demo(self):
        self.refused(["demo", "--runs", "block,user:itn"],
                     "bad value: --runs user:itn: there is no such run; did you mean 'user:int'?")

    def test_sizes_are_told_as_they_are_typed(self):
        self.refused(["run", "--kernel", "k", "--memory", "4095M"],
                     "bad value: --memory 4095M: not a multiple of 2M; use 4G")
        self.refused(["run", "--kernel", "k", "--memory", "100G"],
                     "bad value: --memory 100G: it must lie between 2M and 64G; see "
                     "'asyncpf run --help'")
        self.refused(["evict", "--control", "s", "--to", "99999999999T"],
                     "bad value: --to 99999999999T: too large; see 'asyncpf evict --help'")

    def test_unexpected_operand(self):
        self.refused(["doctor", "x"], "unexpected operand: x: 'asyncpf doctor' takes none; "
                                      "see 'asyncpf doctor --help'")

    def test_value_for_a_flag(self):
        self.refused(["doctor", "--json=1"], "unexpected value: --json=1: the option takes "
                                             "none; see 'asyncpf doctor --help'")

    def test_error_stays_one_line(self):
        self.refused(["a\nb\x1b[31m"], "unknown verb: a?b?[31m: there is no such verb; "
                                       "see 'asyncpf --help'")

    @unittest.skipUnless("demo" in verbs(), "no verb demo in this build")
    def test_demo_refuses_bad_values(self):
        self.refused(["demo", "--vcpus", "0"], "bad value: --vcpus 0: it must lie between 1 "
                                               "and 8; see 'asyncpf demo --help'")
        self.refused(["demo", "--runs", "block,fast"],
                     "bad value: --runs fast: there is no such run; see 'asyncpf demo --help'")
        self.refused(["demo", "--block-bytes", "12K"],
                     "bad value: --block-bytes 12K: not a power of two; "
                     "use 4K, 64K, 2M or the like")
        self.refused(["demo", "--tasks", "1", "--vcpus", "2"],
                     "bad value: --tasks 1: fewer than --vcpus 2; give every vCPU a task")
        self.refused(["demo", "--pages", "0"],
                     "bad value: --pages 0: there is no image to take the number from; "
                     "name one with --image")


    def test_check_refuses_bad_values(self):
        self.refused(["check", "--abi", "int", "--delay-us", "0"],
                     "bad value: --delay-us 0: it must lie between 1000 and 1000000; see "
                     "'asyncpf check --help'")
        self.refused(["check", "--faults", "kernel", "--abi", "pf2"],
                     "bad value: --abi pf2: --faults kernel speaks int only; leave --abi out "
                     "or use --faults user")
        self.refused(["check", "--only", "x" * 101],
                     "bad value: --only xxxxxxxxxxxxxxxxxxxx...: longer than 100 characters; "
                     "name a group, such as 'ready.'")


class Help(unittest.TestCase):
    def test_help_lists_verbs(self):
        done = run("--help")
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("usage: asyncpf VERB", done.stdout)
        self.assertIn("doctor", verbs())
        self.assertEqual(run("-h").stdout, done.stdout)

    def test_help_as_a_verb(self):
        self.assertEqual(run("help").stdout, run("--help").stdout)
        self.assertEqual(run("help", "run").stdout, run("run", "--help").stdout)
        done = run("help", "rnu")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("did you mean 'run'?", done.stderr)

    def test_every_verb_has_help_and_version(self):
        for verb in verbs():
            for flag in ("--help", "-h"):
                done = run(verb, flag)
                self.assertEqual((done.returncode, done.stderr), (0, ""), verb)
                self.assertTrue(done.stdout.startswith(f"usage: asyncpf {verb} [OPTION]..."))
                self.assertIn("--help", done.stdout)
                self.assertIn("--version", done.stdout)
                self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)
            self.assertEqual(run(verb, "--version").stdout, run("--version").stdout)

    def test_version(self):
        done = run("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, re.compile(r"\Aasyncpf \d+\.\d+\.\d+\n\Z"))

    def test_output_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([ASYNCPF, "--help"], stdout=full, stderr=subprocess.PIPE,
                                  text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "asyncpf: cannot write: standard output: No space left "
                                      "on device; free space or redirect it elsewhere\n")


if __name__ == "__main__":
    unittest.main()
