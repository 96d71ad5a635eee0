# SPDX-License-Identifier: Apache-2.0
"""A copy of the source tree and a build of it, in which one file at a time is mutated and the
tests that concern it are run: what tools/mutants needs outside the simulator.

The copy is kept: what a later run builds is what has changed since, and for each mutant its file
and the programs of its tests. Warnings are errors there, so that a mutant that a compiler
warns of is none. Test: tests/sim/mutants_test.py.
"""
import json
import os
import pathlib
import signal
import subprocess
import time

SKIPPED = 77
# A mutant may hang: it gets as much longer than the unchanged test took, and no less than that.
TIMES_LONGER = 5
SECONDS_MIN = 60


class Tree:
    """The copy below `folder`; one user at a time."""

    def __init__(self, root, folder, cc, jobs):
        self.source, self.build = folder / "tree", folder / "build"
        self.jobs = jobs
        self.sync(root)
        if not (self.build / "build.ninja").is_file():
            self.run(["meson", "setup", self.build, self.source, "-Dwerror=true"],
                     {**os.environ, "CC": cc})
        # Told again after meson's own changes of its files.
        self.run(["ninja", "-C", self.build, "build.ninja"])
        targets = {t["id"]: t["filename"] for t in self.introspect("--targets")}
        self.tests = {}
        for test in self.introspect("--tests"):
            files = [f for d in test["depends"] for f in targets[d]]
            test["files"] = [os.path.relpath(f, self.build.resolve()) for f in files]
            # Two folders may have tests of one name: then both are meant.
            self.tests.setdefault(test["name"], []).append(test)
        self.limits = {}

    @staticmethod
    def run(command, env=None):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env,
                              check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def introspect(self, what):
        return json.loads(self.run(["meson", "introspect", what, self.build]))

    def sync(self, root):
        """Writes what differs, and leaves the rest with its time. Also what a mutant left."""
        listed = self.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"])
        for name in filter(None, listed.split("\0")):
            old, new = root / name, self.source / name
            if not old.is_file():
                continue
            content = old.read_bytes()
            if not new.is_file() or new.read_bytes() != content:
                new.parent.mkdir(parents=True, exist_ok=True)
                new.write_bytes(content)
                new.chmod(old.stat().st_mode)

    def compile(self, tests):
        """What the compiler said if it did not work, or None."""
        files = sorted({f for t in tests for one in self.tests[t] for f in one["files"]})
        done = subprocess.run(["ninja", "-C", self.build, f"-j{self.jobs}", *files],
                              capture_output=True, text=True, check=False)
        return done.stdout if done.returncode else None

    def check(self, name):
        """(exit code, output) of the first test of that name that fails, or of the last."""
        for test in self.tests[name]:
            code, out = self.check_one(test, self.limits.get(name, test["timeout"]))
            if code not in (0, SKIPPED):
                break
        return code, out

    def check_one(self, test, seconds):
        """(exit code, output) of a test, in a group of its own; None for the code: no end."""
        env = {**os.environ, **test["env"], "MALLOC_PERTURB_": "85"}
        with subprocess.Popen(test["cmd"], env=env, cwd=test["workdir"] or self.build,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace",
                              start_new_session=True) as proc:
            try:
                out, _ = proc.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(proc.pid, signal.SIGKILL)
                return None, proc.communicate()[0]
        return proc.returncode, out

    def check_unchanged(self, names):
        """The tests pass as things are, and how long they take."""
        unknown = names - set(self.tests)
        if unknown:
            raise SystemExit(f"no such test: {', '.join(sorted(unknown))}")
        said = self.compile(names)
        if said:
            raise SystemExit(f"the unchanged tree does not build:\n{said}")
        for name in sorted(names):
            start = time.monotonic()
            code, out = self.check(name)
            if code == SKIPPED:
                print(f"{name} is skipped here: it finds nothing")
            elif code != 0:
                raise SystemExit(f"the unchanged code does not pass {name}: mutants would prove "
                                 f"nothing\n{out}")
            self.limits[name] = max(SECONDS_MIN, TIMES_LONGER * (time.monotonic() - start))

    def hunt(self, file, text, names):
        """(the first of the tests that fails with that text in the file, a line of what it says);
        or (None, '')."""
        path = pathlib.Path(self.source) / file
        before = path.read_bytes()
        path.write_text(text, encoding="utf-8")
        try:
            said = self.compile(names)
            if said:
                return None, f"the compiler finds it by itself: {error_line(said)}"
            for name in names:
                code, out = self.check(name)
                if code is None:
                    return name, "it does not end"
                if code not in (0, SKIPPED):
                    return name, error_line(out)
            return None, ""
        finally:
            path.write_bytes(before)


def error_line(text):
    """The first line that looks like the reason."""
    for line in text.splitlines():
        if any(word in line for word in ("ERROR", "error:", "FAIL", "failed", "Assertion",
                                         "assertion")):
            return line.strip()[:100]
    return ""
