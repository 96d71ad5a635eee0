#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf run` under a shell's job control: raw in the foreground, the shell's terminal
anywhere else, and never stopped by its own doing. Two shells: bash, whose `fg` of a job that
runs sends no signal, and dash, which leaves a terminal as a job left it.

usage: run_job_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import os
import pathlib
import pty
import select
import shlex
import shutil
import signal
import subprocess
import termios
import time

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

RAW_LACKS = termios.ICANON | termios.ECHO | termios.ISIG


class Shell:
    """An interactive one, on a terminal of its own."""

    def __init__(self, words, folder):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update({"PS1": "ready> ", "TERM": "dumb"})
            os.environ.pop("ENV", None)
            os.execvp(words[0], words)
        self.expect(b"ready> ")

    def expect(self, text):
        """Reads on until the output has `text`, behind what an earlier call has found."""
        end = time.monotonic() + LIMIT_S
        while text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.fd, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.fd, text.encode())

    def says(self, command):
        """What a command prints. What is echoed of it must not look like that."""
        self.type(f"echo 'fr''om'; {command}; echo 't''o here'\r")
        self.expect(b"from\r\n")
        said = self.expect(b"to here\r\n").decode().strip()
        self.expect(b"ready> ")
        return said

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & RAW_LACKS

    def kill(self):
        for action in (lambda: os.kill(self.pid, signal.SIGKILL), lambda: os.close(self.fd),
                       lambda: os.waitpid(self.pid, 0)):
            try:
                action()
            except OSError:
                pass


class Jobs:
    """For each shell; `words` start it."""
    words = []

    def setUp(self):
        super().setUp()
        if not shutil.which(self.words[0]):
            self.skipTest(f"there is no {self.words[0]}")
        self.shell = Shell(self.words, self.folder)
        self.addCleanup(self.shell.kill)
        self.vm = None
        self.addCleanup(self.end_vm)

    def end_vm(self):
        if self.vm:
            try:
                os.kill(self.vm, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def until(self, condition, what):
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not within {LIMIT_S} s: {what}; {self.shell.seen}")
            time.sleep(0.01)

    def start(self, cmdline, *more):
        """Its process id is what the shell's child becomes."""
        words = [asyncpf(), "run", "--kernel", kernel(), "--memory", "16M", "--control", "c",
                 "--cmdline", cmdline]
        self.shell.type(f"sh -c 'echo $$ >pid; exec \"$@\"' - {shlex.join(words)} "
                        f"{' '.join(more)}\r")
        self.shell.expect(f"argument 1: {cmdline.split()[0]}\r\n".encode())
        self.vm = int((self.folder / "pid").read_text())

    def guest_is(self, state):
        done = subprocess.run([asyncpf(), "status", "--control", "c"], cwd=self.folder,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        return f"state     {state}" in done.stdout

    def process_is(self, letters):
        """Its state as ps(1) has it."""
        stat = pathlib.Path(f"/proc/{self.vm}/stat").read_text(encoding="ascii")
        return stat.rpartition(") ")[2][0] in letters

    def goes_on(self):
        """It runs, also some time after it was made to: nothing stops it again."""
        self.until(lambda: self.process_is("SR"), "a process that runs")
        self.assertEqual(self.shell.says("sleep 0.3"), "")
        self.assertTrue(self.process_is("SR"))
        self.assertTrue(self.guest_is("running"))

    def modes(self):
        """The terminal's; a shell may have something to say of its jobs after them."""
        return self.shell.says("stty -g").splitlines()[0]

    def raw(self):
        self.until(self.shell.is_raw, "a raw terminal")

    def stop(self, signum):
        os.kill(self.vm, signum)
        self.until(lambda: self.process_is("T"), "a process that is stopped")
        self.shell.expect(b"ready> ")

    def ends(self):
        """The guest reads a line, which has what a terminal that is not raw would keep."""
        self.shell.type("typed\x03\x1a\r")
        self.shell.expect(b"typed\x03\x1a\r")
        self.shell.expect(b"ready> ")
        self.vm = None

    def test_stopped_and_to_the_background_and_back(self):
        modes = self.modes()
        self.start("echo off")
        self.raw()
        self.stop(signal.SIGTSTP)
        self.assertEqual(self.modes(), modes)
        self.shell.type("bg\r")
        self.goes_on()
        self.assertEqual(self.modes(), modes)
        self.shell.type("fg\r")
        self.raw()
        self.ends()
        self.assertEqual(self.modes(), modes)

    def test_started_in_the_background(self):
        modes = self.modes()
        self.start("echo echo off", "&")
        self.goes_on()
        self.assertEqual(self.modes(), modes)
        self.shell.type("fg\r")
        self.raw()
        self.shell.type("first\r")
        self.shell.expect(b"first\r")
        self.stop(signal.SIGTSTP)
        self.shell.type("fg\r")
        self.raw()
        self.ends()
        self.assertEqual(self.modes(), modes)

    def test_stopped_without_a_word(self):
        """SIGSTOP leaves nobody time to see to the terminal; SIGCONT does."""
        self.start("echo off")
        self.raw()
        self.stop(signal.SIGSTOP)
        self.shell.type("stty sane\n")  # dash is still at a raw terminal: no "\r" ends a line
        self.shell.expect(b"ready> ")
        self.shell.type("fg\r")
        self.raw()
        self.ends()
        self.assertRegex(self.shell.says("stty -a").replace("\r\n", " "), r" isig icanon .* echo ")

    def stop_verb(self):
        """It says so; the shell may say something of its job as well."""
        said = self.shell.says(f"{asyncpf()} stop --control c; echo $?").splitlines()
        self.assertEqual((said[0], said[-1]), ("ended", "0"))
        self.gone()

    def gone(self):
        self.until(lambda: not os.path.exists(f"/proc/{self.vm}") or self.process_is("Z"),
                   "its end")
        self.vm = None

    def test_it_ends_in_the_background(self):
        modes = self.modes()
        self.start("spin", "&")
        self.stop_verb()
        self.assertEqual(self.modes(), modes)
        self.start("spin", "&")
        os.kill(self.vm, signal.SIGKILL)
        self.gone()
        self.assertEqual(self.modes(), modes)

    def test_it_is_killed_in_the_foreground(self):
        modes = self.modes()
        self.start("spin")
        self.raw()
        os.kill(self.vm, signal.SIGKILL)
        self.shell.expect(b"ready> ")
        self.vm = None
        # Who puts them back may come later than the shell; what is typed before is never a line.
        self.until(lambda: not self.shell.is_raw(), "a terminal that is not raw")
        self.assertEqual(self.modes(), modes)

    def test_it_is_killed_while_stopped(self):
        modes = self.modes()
        self.start("spin")
        self.raw()
        self.stop(signal.SIGTSTP)
        os.kill(self.vm, signal.SIGKILL)
        self.gone()
        self.assertEqual(self.modes(), modes)

    def test_a_paused_guest_is_stopped_too(self):
        """`stop` ends what is in the background, after a pause as well."""
        self.start("spin", "&")
        said = self.shell.says(f"{asyncpf()} pause --control c")
        self.assertEqual(said, "paused")
        self.shell.type("fg\r")
        self.raw()
        self.stop(signal.SIGTSTP)
        self.shell.type("bg\r")
        self.stop_verb()


class Bash(Jobs, RunTest):
    words = ["bash", "--norc", "--noprofile", "--noediting", "-i"]


class BashThatEditsLines(Jobs, RunTest):
    words = ["bash", "--norc", "--noprofile", "-i"]


class Dash(Jobs, RunTest):
    words = ["dash", "-i"]

if __name__ == "__main__":
    main()
