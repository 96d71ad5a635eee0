#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every verb under small RLIMITs: it works, or one line says what is missing and what to do, soon;
no signal, no hang. What doctor says to work, works.

usage: limits_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL
"""
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import unittest

ASYNCPF, KERNEL = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
LIMIT_S = 60
KIB, MIB = 1 << 10, 1 << 20
OK, FAILED, REFUSED = 0, 1, 3
RUN = ("run", "--local", "--kernel", KERNEL, "--memory", "16M", "--cmdline", "off")
VERBS = {
    "doctor": ("doctor",),
    "demo": ("demo", "--quiet", "--pages", "16", "--tasks", "4", "--runs", "user:int,kernel"),
    "check": ("check", "--only", "enable."),
    "run": RUN,
    "run and more": (*RUN, "--resident-max", "8M", "--swap", "swap", "--control", "vm.sock",
                     "--json", "out"),
    "sim": ("sim", "--seeds", "20"),
    "status": ("status", "--control", "none"),
}
LIMITS = {
    "NOFILE": (4, 6, 8, 10, 12, 16, 24, 48),
    "AS": tuple(n * MIB for n in (8, 16, 32, 64, 96, 128, 192, 512)),
    "DATA": tuple(n * MIB for n in (1, 4, 16, 64)),
    "FSIZE": (0, 4 * KIB, 16 * KIB, MIB, 64 * MIB),
    "SIGPENDING": (0,),
    "MEMLOCK": (0,),
    "STACK": (256 * KIB,),
}


def works_here():
    return subprocess.run([ASYNCPF, "doctor"], stdout=subprocess.DEVNULL,
                          check=False).returncode == 0


class Limits(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def limited(self, words, name, value, user=None):
        def limit():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)

        return subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S, cwd=self.folder.name,
                              preexec_fn=limit)

    def judge(self, verb, done):
        """Returns whether it worked; None: not even the loader did."""
        if "error while loading shared libraries" in done.stderr or "Sanitizer" in done.stderr:
            return None
        if verb == "doctor":
            self.assertIn(done.returncode, (OK, FAILED))
            self.assertEqual(done.stderr, "")
            self.assertIn("What will work here:", done.stdout)
        elif verb == "status":
            self.assertEqual(done.returncode, REFUSED)
        if done.returncode != OK and verb != "doctor":
            self.assertEqual(done.returncode, REFUSED, done)
            # One line; a second one where what was to be written about it cannot be, either.
            self.assertRegex(done.stderr, r"\A(asyncpf: [^\n]+: [^\n]+; [^\n]+\n){1,2}\Z")
        return done.returncode == OK

    def test_every_limit(self):
        for name, values in LIMITS.items():
            for value in values:
                told = None
                for verb, words in VERBS.items():
                    with self.subTest(limit=name, value=value, verb=verb):
                        worked = self.judge(verb, self.limited(words, name, value))
                        told = worked if verb == "doctor" else told
                        # What a guest takes beside its memory differs by a few descriptors.
                        if told and name != "NOFILE" and verb in ("demo", "run"):
                            self.assertTrue(worked, "doctor said that it works")

    def test_a_limit_that_is_in_the_way_is_named(self):
        for name, value, words in (("AS", 64 * MIB, "ulimit -v"), ("FSIZE", MIB, "ulimit -f"),
                                   ("NOFILE", 16, "ulimit -n")):
            done = self.limited(("doctor", "--json"), name, value)
            if "shared libraries" in done.stderr or "Sanitizer" in done.stderr:
                continue
            checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
            self.assertEqual(checks["limits"]["verdict"], "limited")
            self.assertIn(words, checks["limits"]["fix"])

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_no_more_processes(self):
        """RLIMIT_NPROC counts for users beside root, who may lack the devices; sim needs none."""
        fd = os.open(ASYNCPF, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.chmod(self.folder.name, 0o755)

        def limit():
            resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
            os.setgroups([])
            # Of whom nobody else has processes.
            os.setgid(50000 + os.getpid() % 10000)
            os.setuid(50000 + os.getpid() % 10000)

        done = subprocess.run([f"/proc/self/fd/{fd}", "sim", "--seeds", "20", "--jobs", "2"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=LIMIT_S, preexec_fn=limit, pass_fds=[fd])
        self.assertIs(self.judge("sim", done), False)
        self.assertIn("ulimit -u", done.stderr)


if __name__ == "__main__":
    # A shell has what it puts into the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not works_here():
        print("SKIP: this host cannot serve guests itself")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
