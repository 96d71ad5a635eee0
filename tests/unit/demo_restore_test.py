#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo-restore without a lab: its command line, its client against a server that speaks
Redis, and what it makes of results.

usage: demo_restore_test.py SOURCE_FOLDER
"""
import contextlib
import io
import json
import pathlib
import re
import socketserver
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
import xml.etree.ElementTree

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
import demo_restore as demo
import restore_client
import restore_plot
from restore_servers import free_ports

LIMIT_S = 60


class Store(socketserver.ThreadingTCPServer):
    """GET alone, answers in two pieces; closes the first connection, and lies about one key."""
    allow_reuse_address = daemon_threads = True

    def __init__(self, port, wrong_key=None):
        super().__init__(("127.0.0.1", port), Answer)
        self.wrong_key, self.closed = wrong_key, False
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        if not self.server.closed:
            self.server.closed = True
            return
        with contextlib.suppress(ConnectionError):
            self.answer()

    def answer(self):
        for line in self.rfile:
            key = int(line.decode().split("key:")[1])
            reply = restore_client.reply_of(key)
            if key == self.server.wrong_key:
                reply = reply.replace(b"value", b"wrong")
            self.wfile.write(reply[:100])
            self.wfile.flush()
            self.wfile.write(reply[100:])


def run_of(way="user", answers=((10.0, 10.5), (10.5, 10.75), (10.75, 12.0)), slow=1):
    run = demo.Run(way, "file", 10)
    run.began, run.ended, run.code = 10.0, 10.0 + 4 * slow, 5
    run.status = {"read_bytes": 3 << 20}
    run.client = restore_client.Client([], 1, 1)
    run.client.answers = [(10 + (a - 10) * slow, 10 + (b - 10) * slow) for a, b in answers]
    run.client.open = [10.0 + 3 * slow]
    return run


class Demo(unittest.TestCase):
    def parse(self, *words):
        return demo.parse(["build", *words])

    def ask(self, count, wrong_key=None):
        """A client of one server until it has so many answers."""
        port, = free_ports(1)
        client = restore_client.Client([port], 4, 1)
        client.start()  # before anybody listens
        with Store(port, wrong_key) as store:
            until = time.monotonic() + LIMIT_S
            while len(client.answers) < count and time.monotonic() < until:
                time.sleep(0.01)
            client.stop()
            store.shutdown()
        self.assertGreaterEqual(len(client.answers), count)
        return client

    def test_the_client_asks_again_and_looks_at_every_byte(self):
        client = self.ask(20)
        self.assertEqual(client.wrong, 0)
        self.assertTrue(all(asked <= got for asked, got in client.answers))
        # It has waited for the server since it was started.
        first = client.answers[0]
        self.assertGreater(first[1], first[0])
        self.assertGreater(self.ask(40, wrong_key=2).wrong, 0)

    def test_the_same_keys_each_time(self):
        def keys(seed):
            asker = restore_client.Client([1, 2], 1000, seed).askers[1]
            return [asker.rng.randrange(1000) for _ in range(20)]

        self.assertEqual(keys(7), keys(7))
        self.assertNotEqual(keys(7), keys(8))

    def test_the_runs(self):
        o = self.parse("--ways", "eager,prefetch", "--sources", "nbd,zst", "--delays", "5")
        runs = demo.runs_of(o)
        self.assertEqual([(r.way, r.source) for r in runs],
                         [("record", "file"), ("eager", "nbd"), ("prefetch", "nbd"),
                          ("eager", "zst"), ("prefetch", "zst")])
        script = demo.script_of(o, runs, "{}:{}".format, [7000, 7001], False)
        self.assertIn("run 0 'lazy' '--faults' 'user' '--record' 'set'", script)
        self.assertIn("run 1 'eager' '--faults' 'user' '--fill' '--source' 'nbd:5'", script)
        self.assertIn("from=7000", script)
        self.assertNotIn("\nsave\n", script)
        self.assertIn("\nsave\n", demo.script_of(o, runs, "{}{}".format, [7000], True))
        self.assertEqual(demo.runs_of(self.parse("--ways", "user"))[0].way, "user")

    def test_what_a_run_came_to(self):
        for slow in (1, 4):
            r = demo.outcome_of(run_of(slow=slow), slow)
            self.assertEqual((r["answers"], r["first_answer_s"], r["seconds"]), (3, 0.5, 4.0))
            self.assertEqual((r["p50_s"], r["max_s"], r["unanswered_s"]), (0.5, 1.25, 1.0))
            self.assertEqual(r["answers_per_s"], [0, 4, 0, 0, 2, 0, 0, 0])
            self.assertTrue(r["verified"])

    def test_what_is_not_well(self):
        for change in ({"code": 1}, {"code": None}):
            run = run_of()
            vars(run).update(change)
            self.assertFalse(demo.outcome_of(run, 1)["verified"])
        run = run_of()
        run.client.wrong = 1
        self.assertFalse(demo.outcome_of(run, 1)["verified"])
        silent = demo.outcome_of(run_of(answers=()), 1)
        self.assertFalse(silent["verified"])
        self.assertIsNone(silent["first_answer_s"])

    def test_what_is_under_way_is_for_terminals(self):
        for terminal, quiet in ((True, False), (True, True), (False, False)):
            with unittest.mock.patch.object(sys, "stderr", io.StringIO()) as said:
                said.isatty = lambda terminal=terminal: terminal
                progress = demo.Progress(quiet, "there: ")
                progress.say("it begins")
                progress.complain("it breaks")
            self.assertEqual(re.sub(r"[0-9]", "0", said.getvalue()),
                             ("[   0 s] it begins\n" if terminal and not quiet else "") +
                             "asyncpf: there: it breaks\n")

    def test_the_lines_of_the_lab(self):
        said = []

        class Progress:
            say = staticmethod(lambda text: None)
            complain = staticmethod(said.append)

        run, long_enough = demo.Run("user", "file", 10), threading.Event()
        o = self.parse("--seconds", "1", "--slow", "1")
        port, = free_ports(1)
        with Store(port) as store:
            reader = demo.Reader(o, [run], [port], Progress, long_enough.set)
            for line in ("@@ saved", "@@ 0 begin", "@@ 0 goes"):
                reader.take(line)
            self.assertTrue(long_enough.wait(LIMIT_S))
            self.assertTrue(run.client.answers)
            for line in ('@@ 0 status {"read_bytes": 4096}', "@@ 0 end 5", "0| odd", ""):
                reader.take(line)
            store.shutdown()
        self.assertEqual((run.code, run.status), (5, {"read_bytes": 4096}))
        self.assertLessEqual(run.began, run.ended)
        self.assertEqual(said, ["0| odd"])

    def test_table_and_files(self):
        outcomes = [demo.outcome_of(run_of(way), 1) for way in ("eager", "user")]
        outcomes.append(demo.outcome_of(run_of("block", answers=()), 1))
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            o = self.parse("--json", str(folder / "json"), "--svg", str(folder / "svg"),
                           "--folder", name)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                demo.print_table(o, outcomes)
            demo.write_json(o, outcomes)
            demo.draw_first(o, outcomes)
            self.assertEqual(len(json.loads((folder / "json").read_text())["runs"]), 3)
            tree = xml.etree.ElementTree.fromstring((folder / "svg").read_text())
        lines = out.getvalue().splitlines()
        self.assertTrue(all(len(line) <= 80 for line in lines), out.getvalue())
        self.assertRegex(out.getvalue(), r"(?m)^user +file +10 +0\.50 +3 +500\.0 +1250\.0 +1250\.0 "
                                         r"+3\.0  yes$")
        self.assertRegex(out.getvalue(), r"(?m)^block .* NO$")
        drawn = [e for e in tree if e.tag.endswith("polyline")]
        self.assertEqual(len(drawn), 3)

    def test_labels_do_not_lie_on_each_other(self):
        placed = sorted(restore_plot.apart([(100, "a"), (101, "b"), (102, "c")]).values())
        self.assertTrue(all(b - a >= 14 for a, b in zip(placed, placed[1:])))
        self.assertEqual([restore_plot.step_of(n) for n in (1, 8, 12, 40, 130)],
                         [1, 2, 2, 10, 50])

    def test_wrong_usage(self):
        for words in (["--ways", "user,user"], ["--ways", "fast"], ["--sources", "tape"],
                      ["--delays", "x"], ["--servers", "17"], ["--slow", "0"]):
            err = io.StringIO()
            with self.assertRaises(SystemExit) as e, contextlib.redirect_stderr(err):
                self.parse(*words)
            self.assertEqual(e.exception.code, 2)
            self.assertIn("wrong usage: tools/demo-restore", err.getvalue())


if __name__ == "__main__":
    unittest.main()
