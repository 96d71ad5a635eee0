# SPDX-License-Identifier: Apache-2.0
"""What the tests of `asyncpf demo` share: running it with a time limit, in a folder of its
own that must be empty again, and reading its one-line errors."""
import contextlib
import functools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import foreground

LIMIT_S = 30  # for one call of the command, on a slow and busy machine
STOP_S = 3    # promised: from the signal to the end
PAGE = 4096
SMALL = ("--quiet", "--pages", "64", "--tasks", "8", "--delay-us", "2000")
KINDS = ("block", "stall", "kernel", "user:int")


def program():
    return str(pathlib.Path(sys.argv[1]).resolve())


@functools.lru_cache(maxsize=None)
def broken_ways():
    """{way: checks that failed}, as `asyncpf doctor` sees this host."""
    done = subprocess.run([program(), "doctor", "--json"], capture_output=True, text=True,
                          check=False, timeout=LIMIT_S)
    return {w["name"]: w["missing"] for w in json.loads(done.stdout)["faults"]
            if not w["works"]}


def need(case, *kinds):
    """Skips the test where this host cannot run these kinds at all."""
    for kind in kinds:
        missing = broken_ways().get(kind.split(":")[0])
        if missing:
            case.skipTest(f"{kind} does not work here: {', '.join(missing)}")


class Running:
    """A demo in the background; what it writes to stderr arrives in .err."""

    def __init__(self, folder, words, terminal=False, env=None):
        self.err = ""
        if terminal:
            self.reader, writer = os.openpty()
        else:
            self.reader, writer = os.pipe()
        self.process = subprocess.Popen(  # closed by finish()
            [program(), "demo", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=writer, cwd=folder, env={**os.environ, "TMPDIR": str(folder), **(env or {})})
        os.close(writer)

    def _read(self, timeout):
        """False at the end of the stream or of the time."""
        if not select.select([self.reader], [], [], max(timeout, 0))[0]:
            return False
        try:
            data = os.read(self.reader, 65536)
        except OSError:  # a terminal whose other side is closed
            return False
        self.err += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, pattern, timeout=LIMIT_S):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.err):
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"no {pattern!r} within {timeout} s in {self.err!r}")

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(
            encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def alive(self):
        return self.process.poll() is None

    def send(self, signum):
        self.process.send_signal(signum)

    def finish(self, timeout=LIMIT_S):
        """(exit code, stdout, seconds it took)."""
        start = time.monotonic()
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"still running after {timeout} s; stderr so far: "
                                 f"{self.err!r}") from late
        took = time.monotonic() - start
        while self._read(0):
            pass
        return self.process.returncode, out.decode(), took

    def close(self):
        if self.alive():
            self.process.kill()
            self.process.communicate()
        self.process.stdout.close()
        os.close(self.reader)


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.temporary = self.folder / "tmp"  # the demo's, must stay empty
        self.temporary.mkdir(mode=0o777)
        os.chmod(self.temporary, 0o777)

    def check_clean(self):
        self.assertEqual(os.listdir(self.temporary), [], "files were left behind")

    def file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def command(self, words, env=None, **options):
        """Runs any command; afterwards nothing may be left."""
        options.setdefault("stdout", subprocess.PIPE)
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
            timeout=LIMIT_S, cwd=self.folder, errors="replace",
            env={**os.environ, "TMPDIR": str(self.temporary), **(env or {})}, **options)
        self.check_clean()
        return done

    def demo(self, *words, **options):
        return self.command([program(), "demo", *words], **options)

    def failed(self, done, pattern, code=1):
        """Exit code, and one line on stderr that matches as a whole."""
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, rf"\Aasyncpf: {pattern}\n\Z")
        return done

    def refused(self, done, pattern, code=3):
        """The same, and no results: by default, of what could not begin."""
        self.assertEqual(self.failed(done, pattern, code).stdout, "")

    def verified(self, done, *kinds):
        """Exit code 0, nothing on stderr, and one verified row per kind, in order."""
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.rows(done.stdout), list(kinds))

    def rows(self, stdout):
        found = re.findall(r"^(block|stall|kernel|user:\S+) .* (yes|NO)$", stdout, re.M)
        self.assertNotIn("NO", [word for _, word in found])
        return [kind for kind, _ in found]

    @contextlib.contextmanager
    def running(self, *words, terminal=False, env=None):
        demo = Running(self.temporary, words, terminal, env)
        try:
            yield demo
        finally:
            demo.close()
        self.check_clean()

    def stopped(self, demo, pattern, signum=signal.SIGINT):
        """After a signal: soon, by that signal, and the last line on stderr says so."""
        seen = len(demo.err)
        demo.send(signum)
        code, out, took = demo.finish()
        self.assertLess(took, STOP_S)
        self.assertEqual(code, -signum, demo.err)
        self.assertRegex(demo.err[seen:], rf"\Aasyncpf: {pattern}\n\Z")
        return out


def main():
    """Runs the tests of the calling module; 77 if every one of them was skipped."""
    foreground.restore()
    run = unittest.main(module="__main__", argv=sys.argv[:1], exit=False)
    for case, reason in run.result.skipped:
        print(f"SKIP: {case.id().rsplit('.', 1)[1]}: {reason}")
    if run.result.skipped and len(run.result.skipped) == run.result.testsRun:
        return 77
    return 0 if run.result.wasSuccessful() else 1
