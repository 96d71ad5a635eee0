#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The userfaultfd of `asyncpf run` is lost before the guest's memory is to be taken away: the VM is
paused, nobody spins, and whatever ends it ends it soon and leaves nothing behind.

usage: run_lost_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL PATH_OF_SHIM
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from run_support import LIMIT_S, RunTest, asyncpf, main, toucher

SHIM = str(pathlib.Path(sys.argv[3]).resolve())
STOPPED = 5
SOON_S = 10  # without what hangs, a twentieth of a second


class Lost(RunTest):
    def ask(self, verb, *words):
        return subprocess.run([asyncpf(), verb, "--control", "s", *words], check=False, text=True,
                              cwd=self.folder, capture_output=True, timeout=LIMIT_S)

    def wait_until(self, process, condition):
        end = time.monotonic() + LIMIT_S
        while True:
            done = self.ask("status", "--json")
            if done.returncode == 0 and condition(json.loads(done.stdout)):
                return
            if process.poll() is not None:
                self.fail(f"ended: {process.returncode}: {process.stderr.read()}")
            self.assertLess(time.monotonic(), end, done)
            time.sleep(0.01)

    @staticmethod
    def cpu_s(pid):
        words = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1]
        return sum(map(int, words.split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def test_every_end(self):
        self.file("guest", toucher())
        for faults, end, code in (("user", signal.SIGTERM, -signal.SIGTERM),
                                  ("user", None, STOPPED),
                                  ("stall", signal.SIGINT, -signal.SIGINT),
                                  ("block", signal.SIGHUP, -signal.SIGHUP),
                                  ("kernel", signal.SIGTERM, -signal.SIGTERM)):
            with self.subTest(faults=faults, end=end):
                self.lose(faults, end, code)

    def lose(self, faults, end, code):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        process = subprocess.Popen(
            [asyncpf(), "run", "--local", "--kernel", "guest", "--memory", "96M",
             "--resident-max", "24M", "--swap", "swap", "--control", "s", "--faults", faults],
            cwd=self.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": SHIM, "SHIM_LOSE_UFFD": str(fifo)})
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        self.wait_until(process, lambda s: s["state"] == "running")
        os.close(os.open(fifo, os.O_WRONLY))
        process.stdin.write("x")
        process.stdin.flush()
        self.wait_until(process, lambda s: s["state"] == "paused")
        before = self.cpu_s(process.pid)
        time.sleep(0.5)  # that nobody spins takes time to see
        self.assertLess(self.cpu_s(process.pid) - before, 0.2)
        began = time.monotonic()
        if end:
            process.send_signal(end)
        else:
            self.assertEqual(self.ask("stop").returncode, 0)
        _, said = process.communicate(timeout=LIMIT_S)
        self.assertLess(time.monotonic() - began, SOON_S)
        self.assertEqual(process.returncode, code)
        self.assertRegex(said, r"\Aasyncpf: the VM is paused: memory at guest address \S+: "
                               r"userfaultfd: [^\n]*: Bad file descriptor [^\n]*\n\Z")
        fifo.unlink()
        self.assertEqual(os.listdir(self.folder), ["guest"])


def has_sanitizer():
    done = subprocess.run(["nm", "-D", asyncpf()], capture_output=True, text=True, check=False)
    return "san_init" in done.stdout


if __name__ == "__main__":
    if has_sanitizer():
        print("SKIP: a sanitizer's library wants to be loaded first")
        sys.exit(77)
    main()
