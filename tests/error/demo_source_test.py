#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf demo` when its page source fails, hangs or is late, and when it is told to stop.

usage: demo_source_test.py PATH_OF_ASYNCPF
"""
import json
import os
import re
import signal
import sys
import time

sys.dont_write_bytecode = True
from demo_support import KINDS, SMALL, STOP_S, DemoTest, main, need  # noqa: E402

AT = "memory at guest address 0x1[0-9a-f]{8}"
WAITING = "; waiting for it, Ctrl-C ends the run\n"
SLOW = ("--pages", "64", "--tasks", "8", "--delay-us", "300000")
STILL_S = 0.4       # how long a paused VM is watched
STILL_CPU_S = 0.05  # and what it may use meanwhile
ALL_KINDS = (*KINDS, "user:legacy", "user:pf2", "user:pf2-strict")


class Source(DemoTest):
    def each(self, kinds=KINDS):
        for kind in kinds:
            need(self, kind)
            with self.subTest(kind=kind):
                yield kind

    def results(self, path):
        with open(path, encoding="ascii") as f:
            return json.load(f)["runs"]

    def test_errors_for_a_while_are_retried(self):
        path = str(self.folder / "json")
        for kind in self.each():
            self.verified(self.demo(*SMALL, "--runs", kind, "--json", path, "--source-wrap",
                                    "fault?fault-error-at=5&fault-error-count=3"), kind)
            run, = self.results(path)
            host = run["host"]
            self.assertEqual((run["verified"], host["read_retries"], host["read_errors"],
                              host["read_timeouts"]), (True, 3, 3, 0))
            self.assertEqual(host["reads"], 64 + 3)

    def test_a_read_that_ends_early_is_retried(self):
        for kind in self.each(("block", "user:int")):
            self.verified(self.demo(*SMALL, "--runs", kind, "--source-wrap",
                                    "fault?fault-short-at=5"), kind)

    def still(self, demo):
        """It waits, and does nothing else."""
        before = demo.cpu_s()
        time.sleep(STILL_S)
        self.assertTrue(demo.alive(), demo.err)
        self.assertLessEqual(demo.cpu_s() - before, STILL_CPU_S)

    def test_errors_for_ever_pause_the_vm(self):
        for i, kind in enumerate(self.each()):
            with self.running(*SMALL, "--runs", kind, "--source-wrap",
                              "fault?fault-error-after=5&errno=ENETUNREACH") as demo:
                demo.wait_for("\n")
                self.assertRegex(
                    demo.err, rf"\Aasyncpf: paused: {kind}: {AT}: injected fault: read [0-9]+, "
                    rf"at byte [0-9]+: Network is unreachable \(tried 5 times\){WAITING}\Z")
                self.still(demo)
                self.assertEqual(demo.err.count("\n"), 1, "one pause, one line")
                out = self.stopped(
                    demo, f"run stopped: {kind}: by a signal, while it was paused for want of "
                    "[0-9]+ blocks?; see why above", (signal.SIGINT, signal.SIGTERM)[i % 2])
                self.assertEqual(out, "")

    def test_no_answer_pauses_the_vm(self):
        for i, kind in enumerate(self.each()):
            with self.running(*SMALL, "--runs", kind, "--source-timeout-ms", "300",
                              "--source-wrap", "fault?fault-hang-at=5") as demo:
                demo.wait_for("\n")
                self.assertRegex(demo.err, rf"\Aasyncpf: paused: {kind}: {AT}: the source has "
                                 rf"not answered for 300 ms{WAITING}\Z")
                self.still(demo)
                out = self.stopped(
                    demo, f"run stopped: {kind}: by a signal, while it was paused for want of "
                    "1 block; see why above", (signal.SIGTERM, signal.SIGINT)[i % 2])
                self.assertEqual(out, "")

    def test_a_late_answer_goes_on(self):
        path = str(self.folder / "json")
        for kind in self.each():
            done = self.demo(*SMALL, "--runs", kind, "--json", path, "--source-timeout-ms",
                             "300", "--source-wrap", "fault?fault-hang-at=5&fault-hang-ms=800")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stderr,
                             rf"\Aasyncpf: paused: {kind}: {AT}: the source has not answered "
                             rf"for 300 ms{WAITING}"
                             rf"asyncpf: going on: {kind}: memory is being served again\n\Z")
            self.assertEqual(self.rows(done.stdout), [kind])
            run, = self.results(path)
            self.assertEqual((run["verified"], run["host"]["read_timeouts"]), (True, 1))
            self.assertGreaterEqual(run["wall_s"], 0.8)

    def test_no_timeout_waits_in_silence(self):
        for kind in self.each(("user:int",)):
            self.verified(self.demo(*SMALL, "--runs", kind, "--source-timeout-ms", "0",
                                    "--source-wrap",
                                    "fault?fault-hang-at=5&fault-hang-ms=400"), kind)

    def test_wrong_wrapper_is_wrong_usage(self):
        for wrap, why in (
                ("fault?fault-error-when=1", "source URI: nobody here takes the key "
                 "'fault-error-when'; there are us, .*, fault-hang-ms, direct"),
                ("fault?fault-error-at=0", "source URI: fault-error-at=0: not a number from 1 to "
                 "4294967295; see docs/sources.md"),
                ("fault", "source URI: fault injects nothing: .*; see docs/sources.md"),
                ("tape", r"source URI: no scheme 'tape'; there are file:, zero:, delay\+, "
                 r"fault\+, zst:, .* qemu:, retry\+, cache\+, rate\+, layers: "
                 r"\(a file with ':' in its name is written "
                 r"\./NAME\)"),
                ("delay?ms=1", "the demo delays every fetch itself; use --delay-us 0 with a "
                               "delay of your own")):
            self.refused(self.demo(*SMALL, "--source-wrap", wrap),
                         f"bad value: --source-wrap {re.escape(wrap)}: {why}", code=2)
        self.refused(self.demo(*SMALL, "--source-wrap", "fault?fault-error-at=" + "1" * 9000),
                     r"bad value: --source-wrap fault\?fault-error-at=1+\.\.\.: it and the "
                     "image's name are too long; use a shorter path", code=2)


class Stop(DemoTest):
    """Ctrl-C and kill in the middle of a run that would go on for seconds. Standard error is
    a terminal: what it shows at the end is what a person sees."""

    def screen(self, text):
        """The lines that stay after carriage returns and clearing."""
        lines = [line.split("\r\x1b[K")[-1].rstrip("\r") for line in text.split("\n")]
        self.assertEqual(lines.pop(), "", f"a line was left half-written: {text!r}")
        return lines

    def interrupted(self, kind, *signals, pause_s=0.0):
        with self.running(*SLOW, "--runs", kind, terminal=True) as demo:
            demo.wait_for(f"{kind} .* [0-9]+ %")
            for signum in signals:
                demo.send(signum)
                time.sleep(pause_s)
            code, out, took = demo.finish()
            self.assertLess(took, STOP_S)
            self.assertEqual((code, out), (-signals[0], ""), demo.err)
            self.assertEqual(self.screen(demo.err),
                             [f"asyncpf: run stopped: {kind}: by a signal; its result is left "
                              "out"])

    def test_interrupted(self):
        for kind in ALL_KINDS:
            need(self, kind)
            with self.subTest(kind=kind):
                self.interrupted(kind, signal.SIGINT)

    def test_interrupted_twice(self):
        for kind in KINDS:
            need(self, kind)
            with self.subTest(kind=kind):
                self.interrupted(kind, signal.SIGINT, signal.SIGINT)
        self.interrupted("user:int", signal.SIGINT, signal.SIGINT, pause_s=0.003)

    def test_other_signals(self):
        need(self, "user:int")
        for signum in (signal.SIGTERM, signal.SIGHUP):
            self.interrupted("user:int", signum)

    def test_earlier_results_are_kept(self):
        need(self, "user:int", "block")
        path = str(self.folder / "json")
        with self.running(*SLOW[:-1], "20000", "--runs", "user:int,block,stall", "--json", path,
                          terminal=True) as demo:
            demo.wait_for("block .* [0-9]+ %")
            demo.send(signal.SIGINT)
            code, out, _ = demo.finish()
        self.assertEqual((code, self.rows(out)), (-signal.SIGINT, ["user:int"]))
        self.assertEqual(self.screen(demo.err), ["asyncpf: run stopped: block: by a signal; its "
                                                 "result is left out"])
        with open(path, encoding="ascii") as f:
            self.assertEqual([(r["faults"], r["verified"]) for r in json.load(f)["runs"]],
                             [("user", True)])

    def test_many_vcpus(self):
        need(self, "user:int")
        with self.running(*SLOW, "--quiet", "--vcpus", "4", "--runs", "user:int") as demo:
            time.sleep(0.4)
            self.stopped(demo, "run stopped: user:int: by a signal; its result is left out")

    def test_signal_that_was_ignored_before(self):
        """As nohup and shells leave it: SIGHUP ignored. The demo still ends on SIGINT."""
        need(self, "user:int")
        old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with self.running(*SLOW, "--quiet", "--runs", "user:int") as demo:
                time.sleep(0.4)
                demo.send(signal.SIGHUP)
                time.sleep(0.3)
                self.assertTrue(demo.alive(), "nohup must keep it running")
                self.stopped(demo, "run stopped: user:int: by a signal; its result is left out")
        finally:
            signal.signal(signal.SIGHUP, old)

    def test_reader_goes_away(self):
        """A pipe whose reader has gone: an end by SIGPIPE, not a hang."""
        need(self, "user:int")
        reader, writer = os.pipe()
        os.close(reader)
        done = self.demo(*SMALL, "--runs", "user:int", stdout=writer)
        os.close(writer)
        self.assertIn(done.returncode, (1, -signal.SIGPIPE))


if __name__ == "__main__":
    sys.exit(main())
