#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""--trace of `asyncpf demo` and `asyncpf run`: it is JSON, every slice has its end, it has every
fault that the counters have, and a file that cannot be written is told.

usage: trace_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL
"""
import collections
import json
import os
import subprocess
import sys
import tempfile
import unittest

ASYNCPF, KERNEL = (os.path.abspath(a) for a in sys.argv[1:3])


def run(*words):
    return subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=100)


class Trace(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "trace.json")
        self.json = os.path.join(folder.name, "result.json")

    def events(self):
        with open(self.path, encoding="utf-8") as f:
            return json.load(f)

    def check_slices(self, events):
        """Asynchronous slices by their names and ids, which are of one VM; slices of a track by
        order; times do not go back."""
        begun, ids = {}, set()
        depth = collections.Counter()
        last = collections.Counter()
        for e in events:
            where = e["pid"], e["tid"]
            self.assertGreaterEqual(e["ts"], last[where] if e["ph"] != "M" else 0)
            if e["ph"] == "b":
                self.assertFalse((e["cat"], e["id"]) in ids, e)
                ids.add((e["cat"], e["id"]))
                begun[e["cat"], e["id"]] = e["pid"], e["name"]
            elif e["ph"] == "e":
                self.assertEqual(begun.pop((e["cat"], e["id"])), (e["pid"], e["name"]))
            elif e["ph"] in "BE":
                depth[where] += 1 if e["ph"] == "B" else -1
                self.assertIn(depth[where], (0, 1), e)
            if e["ph"] != "M":
                last[where] = e["ts"]
        return len(begun), sum(depth.values())

    def count(self, events, **what):
        return sum(all(e.get(k) == v for k, v in what.items()) for e in events)

    def test_demo(self):
        done = run("demo", "--quiet", "--runs", "stall,user:int,user:legacy", "--pages", "256",
                   "--vcpus", "2", "--tasks", "16", "--trace", self.path, "--json", self.json)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = self.events()
        self.assertEqual(self.check_slices(events), (0, 0))
        with open(self.json, encoding="utf-8") as f:
            runs = json.load(f)["runs"]
        for pid, r in enumerate(runs, 1):
            mine = [e for e in events if e["pid"] == pid]
            self.assertEqual(self.count(mine, ph="M", name="process_name"), 1)
            self.assertEqual(self.count(mine, ph="b", cat="read"), r["host"]["reads"])
            self.assertEqual(self.count(mine, ph="n", name="told") -
                             self.count(mine, ph="n", name="withdrawn"), r["missing_events"])
            self.assertEqual(self.count(mine, ph="n", name="halted"), r["stalls"])
            self.assertEqual(self.count(mine, ph="i", name="page ready"), r["ready_events"])
            touches = self.count(mine, ph="b", cat="fault")
            self.assertGreaterEqual(touches, 256)
            self.assertEqual(touches, self.count(mine, ph="e", cat="fault"))
        self.assertGreater(self.count(events, name="told"), 200)
        self.assertGreater(self.count(events, name="halted"), 200)

    def test_reads_ahead(self):
        done = run("demo", "--quiet", "--runs", "stall,user:int", "--pages", "256",
                   "--read-ahead", "64K", "--trace", self.path)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = self.events()
        self.assertEqual(self.check_slices(events), (0, 0))
        self.assertGreater(self.count(events, ph="e", cat="read", name="read ahead"), 0)

    def test_a_source_that_does_not_answer(self):
        done = run("demo", "--quiet", "--runs", "user:int", "--pages", "64",
                   "--source-timeout-ms", "100", "--source-wrap",
                   "fault?fault-hang-at=5&fault-hang-ms=400", "--trace", self.path)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = self.events()
        self.assertEqual(self.check_slices(events), (0, 0))
        paused = [i for i, e in enumerate(events) if e.get("name") == "paused"]
        self.assertEqual(len(paused), 1)
        end = next(e for e in events[paused[0]:] if e["ph"] == "E" and e["tid"] == 1)
        self.assertGreater(end["ts"] - events[paused[0]]["ts"], 100_000)

    def test_run(self):
        done = run("run", "--local", "--kernel", KERNEL, "--memory", "16M", "--cmdline", "off",
                   "--trace", self.path)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = self.events()
        self.assertEqual(self.count(events, name="process_name"), 1)
        self.assertEqual(self.check_slices(events)[1], 0)

    def test_what_cannot_be_written(self):
        done = run("demo", "--quiet", "--runs", "user:int", "--pages", "16",
                   "--trace", "/nowhere/x")
        self.assertEqual(done.returncode, 3)
        self.assertIn("/nowhere/x: No such file or directory", done.stderr)
        done = run("demo", "--quiet", "--runs", "user:int", "--pages", "64", "--trace",
                   "/dev/full")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("/dev/full: No space left on device", done.stderr)
        for words in (("demo",), ("run", "--kernel", KERNEL), ("restore", "/nowhere")):
            done = run(*words, "--trace", "-")
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertRegex(done.stderr, r"\Aasyncpf: bad value: --trace -: standard output has "
                                          r"[^\n]*; give --trace a file\n\Z")
        disk = self.path + ".disk"
        with open(disk, "wb") as f:
            f.truncate(1 << 20)
        done = run("run", "--local", "--kernel", KERNEL, "--memory", "16M", "--disk", disk,
                   "--trace", disk)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(disk, done.stderr)
        self.assertEqual(os.path.getsize(disk), 1 << 20)


if __name__ == "__main__":
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("SKIP: /dev/kvm: no access")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
