#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf demo`: its results, on standard output and as JSON, and where they cannot go.

usage: demo_output_test.py PATH_OF_ASYNCPF
"""
import json
import os
import sys

sys.dont_write_bytecode = True
from demo_support import KINDS, SMALL, DemoTest, main, need, program  # noqa: E402

ORDER = ("user:int", "block", "user:pf2", "kernel", "user:legacy", "stall", "user:pf2-strict")
COUNTS = ("pages", "pages_bad", "missing_events", "ready_events", "wake_alls")
SECONDS = ("wall_s", "guest_s", "pages_per_s", "still_s", "machine_cpu_s", "vcpu_cpu_s")
HOST_COUNTS = ("faults_total", "redundant", "joined", "graced", "blocked", "missing_events",
               "ready_events", "wake_alls", "stalls_kernel_mode", "stalls_irqs_off",
               "stalls_slot_busy", "stalls_other", "reads", "read_errors", "read_retries",
               "read_timeouts", "read_bytes", "present_bytes", "overhead_bytes")
NO_STDOUT = "cannot write: standard output: {}"
FULL = NO_STDOUT.format("No space left on device; free space or redirect it elsewhere")


class Shown(DemoTest):
    def last(self, *words):
        done = self.demo(*SMALL, *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        *above, sentence = done.stdout.rstrip("\n").split("\n\n")
        return above, " ".join(sentence.split())

    def test_sentence(self):
        need(self, "block", "user:int", "stall")
        _, sentence = self.last("--runs", "block,user:int")
        self.assertRegex(sentence, r"^Shown: while a page is fetched, a guest that is told of it "
                                   r"\(user:int\) does other work, and reads \d+\.\d times as many "
                                   r"pages per second as one that stands still \(block\); every "
                                   r"byte was right\.$")
        _, sentence = self.last("--runs", "stall")
        self.assertRegex(sentence, r"^Shown: the guest read \d+ pages that were absent, \d+ per "
                                   r"second at best \(stall\); every byte was right\.$")

    def test_plot(self):
        need(self, "stall", "user:int")
        for locale, full in (("C.UTF-8", "█"), ("C", "#")):
            env = {**os.environ, "LC_ALL": locale}
            done = self.demo(*SMALL, "--plot", "--runs", "stall,user:int", env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            rows = done.stdout.split("Memory that was there, over ")[1].splitlines()[1:3]
            self.assertEqual([row.split()[0] for row in rows], ["stall", "user:int"])
            for row in rows:
                self.assertEqual(row.split()[-3][-1], full)
                self.assertLessEqual(len(row), 80)
            # The one that takes longest takes all of the width.
            self.assertEqual(max(row.rindex(full) for row in rows), 16 + 52 - 1)


class Json(DemoTest):
    def measure(self, *words):
        path = self.folder / "results.json"
        done = self.demo(*SMALL, "--json", str(path), *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(path.read_text(encoding="ascii")), done.stdout

    def check_run(self, run, kind, pages):
        """What holds for every run that went well."""
        for key in COUNTS:
            self.assertIs(type(run[key]), int, key)
        for key in SECONDS:
            self.assertGreaterEqual(run[key], 0, key)
        for key in HOST_COUNTS:
            self.assertGreaterEqual(run["host"][key], 0, key)
        self.assertIs(run["verified"], True)
        self.assertEqual((run["pages"], run["pages_bad"]), (pages, 0))
        self.assertGreater(run["wall_s"], 0.002)
        self.assertAlmostEqual(run["pages_per_s"], pages / run["wall_s"], delta=1)
        for waits in (run, run["host"]):
            self.assertLessEqual(waits["wait_p50_ns"], waits["wait_p99_ns"])
            self.assertLessEqual(waits["wait_p99_ns"], waits["wait_max_ns"])
            self.assertLess(waits["wait_max_ns"], 1e9 * run["wall_s"])
        self.assertEqual((run["faults"], run["abi"] != "off"),
                         (kind.split(":")[0], kind[0] in "uk"))
        # Nobody sleeps for ever: each announced page is announced as ready, or covered.
        host = run["host"]
        if kind == "block" or kind == "stall":
            self.assertEqual((run["missing_events"], run["ready_events"]), (0, 0))
        elif run["wake_alls"] == 0:
            self.assertEqual(run["missing_events"], run["ready_events"])
        if kind.startswith("user"):
            self.assertEqual((run["missing_events"], run["ready_events"]),
                             (host["missing_events"], host["ready_events"]))
            self.assertGreater(run["missing_events"], 0)
        self.assertIs(type(run["stalls"]), type(None) if kind == "kernel" else int)

    def test_runs_as_asked(self):
        need(self, "block", "stall", "kernel", "user")
        found, stdout = self.measure("--runs", ",".join(ORDER), "--seed", "3")
        self.assertEqual(self.rows(stdout), list(ORDER))
        self.assertEqual((found["vcpus"], found["tasks"], found["delay_us"],
                          found["block_bytes"]), (1, 8, 2000, 4096))
        self.assertRegex(found["version"], r"\A\d+\.\d+\.\d+\Z")
        names = [f"user:{r['abi']}" if r["faults"] == "user" else r["faults"]
                 for r in found["runs"]]
        self.assertEqual(names, list(ORDER))
        for run, kind in zip(found["runs"], ORDER):
            with self.subTest(kind=kind):
                self.check_run(run, kind, 64)
                self.assertGreaterEqual(run["host"]["read_bytes"], 64 * 4096)
                self.assertEqual((run["host"]["read_errors"], run["host"]["read_retries"]), (0, 0))

    def test_patterns(self):
        need(self, "user")
        for pattern, pages in (("random", 64), ("shared", 64 * 8), ("compute", 64)):
            found, _ = self.measure("--runs", "user:int", "--pattern", pattern)
            run, = found["runs"]
            with self.subTest(pattern=pattern):
                self.check_run(run, "user:int", pages)

    def test_blocks_and_vcpus(self):
        need(self, "user")
        found, _ = self.measure("--runs", "user:int", "--vcpus", "2", "--block-bytes", "64K")
        run, = found["runs"]
        self.check_run(run, "user:int", 64)
        self.assertEqual((found["vcpus"], found["block_bytes"]), (2, 65536))
        self.assertEqual(run["host"]["reads"], 4)

    def test_older_file_is_replaced(self):
        need(self, "user")
        self.file("results.json", b"x" * 100000)
        found, _ = self.measure("--runs", "user:int")
        self.assertEqual(len(found["runs"]), 1)

    def test_unwritable_is_found_before_the_work(self):
        folder = self.folder
        for path, why in ((f"{folder}/no/x", "No such file or directory"),
                          (str(folder), "Is a directory"), ("/proc/version", "[A-Z].*")):
            self.refused(self.demo(*SMALL, "--json", path),
                         f"cannot write: {path}: {why}; give --json a file that may be written")

    def test_no_space(self):
        need(self, "user")
        done = self.demo(*SMALL, "--runs", "user:int", "--json", "/dev/full")
        self.failed(done, "cannot write: /dev/full: No space left on device; free space or give "
                    "--json another file")
        self.assertEqual(self.rows(done.stdout), ["user:int"])

    def test_failure_before_the_runs_leaves_an_older_file_alone(self):
        path = self.file("results.json", b"older")
        done = self.demo(*SMALL, "--json", path, "--image", "/nonexistent")
        self.assertEqual(done.returncode, 3)
        with open(path, "rb") as f:
            self.assertEqual(f.read(), b"older")


    def test_to_standard_output(self):
        """Alone, so that it can be read by a program; and no file of that name is made."""
        need(self, "user")
        done = self.demo(*SMALL, "--runs", "user:int", "--json", "-")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIs(json.loads(done.stdout)["runs"][0]["verified"], True)
        self.assertFalse((self.folder / "-").exists())
        with open("/dev/full", "w", encoding="ascii") as full:
            done = self.demo(*SMALL, "--runs", "user:int", "--json", "-", stdout=full)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"asyncpf: {FULL}\n"))


class Same(DemoTest):
    def test_files_that_are_the_same_one(self):
        """Refused before anything is written."""
        image = self.folder / "image"
        image.write_bytes(bytes(16 * 4096))
        (self.folder / "link").symlink_to("new")
        for words in (("--image", image, "--json", image), ("--image", image, "--trace", image),
                      ("--json", self.folder / "new", "--trace", self.folder / "link")):
            done = self.demo("--pages", "16", "--tasks", "4", *map(str, words))
            self.assertEqual((done.returncode, done.stdout), (3, ""))
            self.assertRegex(done.stderr, r"\Aasyncpf: same file: --\w+ \S+ and --\w+ \S+: one "
                                          r"would destroy the other; name two\n\Z")
        self.assertEqual(image.read_bytes(), bytes(16 * 4096))
        self.assertFalse((self.folder / "new").exists())


class Stdout(DemoTest):
    def test_within_80_columns(self):
        need(self, *KINDS)
        done = self.demo(*SMALL, "--runs", ",".join((*ORDER, "collision")))
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)

    def test_full(self):
        need(self, "user")
        with open("/dev/full", "w", encoding="ascii") as full:
            done = self.demo(*SMALL, "--runs", "user:int", stdout=full)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"asyncpf: {FULL}\n"))

    def test_closed(self):
        """Nothing else may take the closed descriptor's number and get the text."""
        need(self, "user")
        words = " ".join([program(), "demo", *SMALL, "--runs", "user:int"])
        done = self.command(["sh", "-c", f"exec {words} >&-"])
        self.refused(done, NO_STDOUT.format("Bad file descriptor; redirect it to a file, "
                                            "or to /dev/null"), code=1)
        done = self.command(["sh", "-c", f"exec {words} --json json <&- >&- 2>&-"])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", ""))
        with open(self.folder / "json", encoding="ascii") as f:
            self.assertIs(json.load(f)["runs"][0]["verified"], True)

    def test_quiet_in_a_pipe(self):
        """Progress is for terminals."""
        need(self, "user")
        self.verified(self.demo(*SMALL[1:], "--runs", "user:int"), "user:int")

    def test_progress_leaves_nothing_on_a_terminal(self):
        need(self, "block")
        with self.running(*SMALL[1:], "--runs", "block", terminal=True) as demo:
            code, out, _ = demo.finish()
        self.assertEqual((code, self.rows(out)), (0, ["block"]))
        self.assertEqual(demo.err.split("\r\x1b[K")[-1], "")
        self.assertNotIn("\n", demo.err)

    def test_no_process_and_no_descriptor_is_left(self):
        """A wrapper that waits for every holder of the pipe returns with the demo."""
        need(self, "user")
        reader, writer = os.pipe()
        done = self.demo(*SMALL, "--runs", "user:int", pass_fds=(writer,))
        os.close(writer)
        self.assertEqual(os.read(reader, 1), b"")
        os.close(reader)
        self.verified(done, "user:int")


if __name__ == "__main__":
    sys.exit(main())
