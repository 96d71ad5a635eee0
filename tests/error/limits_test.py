#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every verb under small RLIMITs: it works, or one line says what is missing and what to do, soon;
no signal, no hang. What doctor says to work, works.

usage: limits_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL
"""
import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import foreground

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
    "image pack": ("image", "pack", "--quiet", "--force", "memory", "packed"),
    "image unpack": ("image", "unpack", "--quiet", "--force", "memory.zst", "unpacked"),
    "image verify": ("image", "verify", "--quiet", "memory.zst"),
    "image info": ("image", "info", "memory.zst"),
    "pager": ("pager", "--listen", "pager.sock", "--source", "memory.zst", "--control", "c.sock"),
    "report": ("report", "trace.json"),
    "snapshot": ("snapshot", "--control", "none", "folder"),
    "restore": ("restore", "snap"),
    "restore and more": ("restore", "snap", "--resident-max", "8M", "--swap", "swap", "--control",
                         "vm.sock", "--record", "set", "--json", "out"),
    "restore and fill": ("restore", "snap", "--fill", "--io", "threads", "--trace", "trace"),
    **{verb: (verb, "--control", "none", *words) for verb, words in
       {"balloon": ("--to", "64M"), "events": (), "pause": (), "resume": (), "stop": (),
        "evict": ("--all",), "resize": ("--no-limit",)}.items()},
}
# Nobody is there to be asked.
REFUSES = ("status", "snapshot", "balloon", "events", "pause", "resume", "stop", "evict", "resize")
# They have begun when they meet the limit of what they write.
WRITES = ("image pack", "image unpack", "report")
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


def tool(*words, **options):
    subprocess.run([ASYNCPF, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   check=True, timeout=LIMIT_S, **options)


def make_snapshot(folder):
    """Of a guest that waits for a line and then ends. KVM may emulate its kernel mode, and cannot
    wait for its code then, unless the kernel serves its faults."""
    words = [ASYNCPF, *RUN[:-1], "echo off", "--faults", "kernel", "--control", "snap.sock"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          cwd=folder) as vm:
        try:
            while (line := vm.stdout.readline()) and b"echo" not in line:
                pass
            tool("snapshot", "--control", "snap.sock", "snap", cwd=folder)
        finally:
            vm.kill()


def make_inputs(folder):
    """What the verbs read: an image, a trace and a snapshot."""
    make_snapshot(folder)
    pathlib.Path(folder, "memory").write_bytes(os.urandom(MIB))
    tool("image", "pack", "memory", "memory.zst", cwd=folder)
    tool("demo", "--quiet", "--pages", "16", "--runs", "user:int", "--trace", "trace.json",
         cwd=folder)


class Limits(unittest.TestCase):
    def test_every_verb_is_tried(self):
        said = subprocess.run([ASYNCPF, "--help"], capture_output=True, text=True, check=True)
        verbs = [line.split()[0] for line in
                 said.stdout.split("Verbs:\n")[1].split("\n\n")[0].splitlines()]
        self.assertEqual(sorted({words[0] for words in VERBS.values()}), sorted(verbs))

    @classmethod
    def setUpClass(cls):
        cls.inputs = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.inputs.cleanup)
        make_inputs(cls.inputs.name)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for name in ("memory", "memory.zst", "trace.json", "snap"):
            os.symlink(f"{self.inputs.name}/{name}", f"{self.folder.name}/{name}")

    def limited(self, words, name, value, user=None):
        def limit():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)

        return self.ended([ASYNCPF, *words], preexec_fn=limit)

    def ended(self, words, **options):
        """The pager works until it is told to end, a restored guest until a line is typed."""
        line = self.line() if "restore" in words else subprocess.DEVNULL
        process = subprocess.Popen(words, stdin=line, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=self.folder.name,
                                   **options)
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        first = process.stderr.readline() if "pager" in words else ""
        serves = first == "asyncpf: serving\n"
        if serves:
            process.terminate()
        out, said = process.communicate()
        timer.cancel()
        if serves and process.returncode == -signal.SIGTERM:
            return subprocess.CompletedProcess(words, OK, out, said)
        return subprocess.CompletedProcess(words, process.returncode, out, first + said)

    def line(self):
        file = tempfile.TemporaryFile()
        self.addCleanup(file.close)
        file.write(b"typed\n")
        file.seek(0)
        return file

    def clear(self):
        """What a pager, a run and others have written; a limit may keep them from tidying."""
        for name in os.listdir(self.folder.name):
            if not os.path.islink(f"{self.folder.name}/{name}"):
                self.assertNotIn(".asyncpf", name)
                os.unlink(f"{self.folder.name}/{name}")

    def clear_links(self):
        for name in os.listdir(self.folder.name):
            if os.path.islink(f"{self.folder.name}/{name}"):
                os.unlink(f"{self.folder.name}/{name}")

    def judge(self, verb, done):
        """Returns whether it worked; None: not even the loader did."""
        if "error while loading shared libraries" in done.stderr or "Sanitizer" in done.stderr:
            return None
        if verb == "report" and "asyncpf: " not in done.stderr and done.returncode != OK:
            return None  # nor did Python
        if verb == "doctor":
            self.assertIn(done.returncode, (OK, FAILED))
            self.assertEqual(done.stderr, "")
            self.assertIn("What will work here:", done.stdout)
        elif verb in REFUSES:
            self.assertEqual(done.returncode, REFUSED, done)
        if done.returncode != OK and verb != "doctor":
            late = verb in WRITES and "File too large" in done.stderr
            self.assertIn(done.returncode, (FAILED, REFUSED) if late else (REFUSED,), done)
            # One line; a second one where what was to be written about it cannot be, either.
            self.assertRegex(done.stderr, r"\A(asyncpf: [^\n]+: [^\n]+; [^\n]+\n){1,2}\Z")
        return done.returncode == OK

    def test_every_limit(self):
        for name, values in LIMITS.items():
            for value in values:
                told = None
                for verb, words in VERBS.items():
                    with self.subTest(limit=name, value=value, verb=verb):
                        self.clear()
                        worked = self.judge(verb, self.limited(words, name, value))
                        told = worked if verb == "doctor" else told
                        # What a guest takes beside its memory differs by a few descriptors.
                        if told and name != "NOFILE" and verb in ("demo", "run", "restore"):
                            self.assertTrue(worked, "doctor said that it works")

    def test_a_small_stack(self):
        """It is raised where that is allowed; a crash would be the alternative. With 16 KiB, of
        which the environment takes some, the loader has crashed before."""
        for verb, words in VERBS.items():
            for soft, hard in ((64, 256), (64, 64)):
                with self.subTest(verb=verb, soft=soft, hard=hard):
                    done = self.ended(
                        ["prlimit", f"--stack={soft * KIB}:{hard * KIB}", ASYNCPF, *words])
                    if hard == 256:
                        self.judge(verb, done)
                        self.assertIn(done.returncode, (OK, FAILED) if verb == "doctor" else
                                      (REFUSED,) if verb in REFUSES else (OK,))
                        continue
                    self.assertEqual((done.returncode, done.stderr), (
                        REFUSED, "asyncpf: cannot start: stack: RLIMIT_STACK allows 64K, 256K are "
                                 "needed; raise it (ulimit -s)\n"))

    def test_no_more_cpu_time(self):
        """Everything is taken down, as for other signals; a hard limit's SIGKILL is the host's."""
        def limit(soft, hard):
            return lambda: resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))

        run = subprocess.run([ASYNCPF, *RUN[:-1], "spin", "--control", "s", "--json", "j"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                             timeout=LIMIT_S, cwd=self.folder.name, preexec_fn=limit(1, 30))
        self.assertEqual((run.returncode, run.stderr), (-signal.SIGXCPU, ""))
        self.clear_links()
        self.assertEqual(os.listdir(self.folder.name), ["j"])
        self.assertEqual(json.loads(pathlib.Path(self.folder.name, "j").read_text(
            encoding="utf-8"))["end"], "signal")
        for soft, hard in ((1, 1), (1, 30)):
            sim = subprocess.run([ASYNCPF, "sim", "--seeds", "100000000", "--jobs", "2"],
                                 capture_output=True, text=True, check=False, timeout=LIMIT_S,
                                 preexec_fn=limit(soft, hard))
            self.assertEqual(sim.returncode, FAILED)
            self.assertRegex(sim.stderr, r"\Aasyncpf: simulation failed: [^\n]*ulimit -t[^\n]*\n\Z")
            self.assertNotIn("seed", sim.stdout)

    def test_a_limit_that_is_in_the_way_is_named(self):
        for name, value, words in (("AS", 64 * MIB, "ulimit -v|prlimit .* --as"),
                                   ("FSIZE", MIB, "ulimit -f|prlimit .* --fsize"),
                                   ("NOFILE", 16, "ulimit -n|prlimit .* --nofile")):
            done = self.limited(("doctor", "--json"), name, value)
            if "shared libraries" in done.stderr or "Sanitizer" in done.stderr:
                continue
            checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
            self.assertEqual(checks["limits"]["verdict"], "limited")
            self.assertRegex(checks["limits"]["fix"], words)

    def test_no_limit_is_taken_for_the_kernel_s_fault(self):
        for value in LIMITS["NOFILE"]:
            done = self.limited(("doctor", "--json"), "NOFILE", value)
            if "shared libraries" not in done.stderr:
                self.advice_is_about_limits(done)

    def advice_is_about_limits(self, doctor):
        for check in json.loads(doctor.stdout)["checks"]:
            if check["verdict"] == "no":
                self.assertRegex(check["fix"], r"ulimit|see |remove that reason", check)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_the_advice_gives_the_right(self):
        """Root may raise what the user may not; what it names is the shell that ran doctor."""
        script = (f"ulimit -n 40; {ASYNCPF} doctor --json; read go; "
                  f"exec {ASYNCPF} doctor --json")

        def user():
            os.setgroups([])
            os.setgid(54321)
            os.setuid(54321)

        with self.program_for_all() as program:
            shell = subprocess.Popen(["sh", "-c", script.replace(ASYNCPF, program)], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     preexec_fn=user, pass_fds=[self.program_fd])
            decoder, text = json.JSONDecoder(), ""
            while True:
                text += shell.stdout.readline()
                try:
                    report, _ = decoder.raw_decode(text)
                    break
                except ValueError:
                    pass
            fix = {c["name"]: c for c in report["checks"]}["limits"]["fix"]
            words = fix.split("as root: ")[1].split()
            self.assertEqual(words, ["prlimit", "--pid", str(shell.pid), "--nofile=1024"])
            given = subprocess.run(words, capture_output=True, text=True, check=False)
            out, _ = shell.communicate("go\n", timeout=LIMIT_S)
        if "Operation not permitted" in given.stderr:
            self.skipTest("this root has no CAP_SYS_RESOURCE")
        checks = {c["name"]: c for c in json.loads(out)["checks"]}
        self.assertEqual(checks["limits"]["verdict"], "ok")

    @contextlib.contextmanager
    def program_for_all(self):
        """Where another user can run it, whatever the rights on the build folder."""
        self.program_fd = os.open(ASYNCPF, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{self.program_fd}"
        finally:
            os.close(self.program_fd)

    def as_user_with_devices(self, words, processes, fds=()):
        """Ends it once it says that it is paused, which must be for the limit."""
        nodes = "".join(f"mknod -m 666 /dev/{name} c {os.major(n)} {os.minor(n)}; " for name, n in
                        ((name, os.stat(f"/dev/{name}").st_rdev) for name in
                         ("null", "kvm", "userfaultfd")))
        script = ("mount -t tmpfs none /dev; " + nodes +
                  f"exec setpriv --reuid 54321 --regid 54321 --clear-groups "
                  f"prlimit --nproc={processes} "
                  f"/proc/self/fd/{self.program_fd} {' '.join(words)}")
        run = subprocess.Popen(["unshare", "--mount", "sh", "-ec", script],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, cwd=self.folder.name,
                               pass_fds=[self.program_fd, *fds])
        timer = threading.Timer(LIMIT_S, run.kill)
        timer.start()
        said = ""
        for line in run.stderr:
            said += line
            if line.startswith("asyncpf: paused:"):
                run.send_signal(signal.SIGINT)
        out = run.stdout.read()
        code = run.wait()
        hangs = not timer.is_alive()
        timer.cancel()
        self.assertFalse(hangs, f"{words} hangs with {processes} processes; it said: {said}")
        return subprocess.CompletedProcess(words, code, out, said)

    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/userfaultfd"),
                         "the devices are given to another user by root")
    def test_few_processes(self):
        """RLIMIT_NPROC, which counts the kernel's threads for the VM and for io_uring, too."""
        os.chmod(self.folder.name, 0o777)
        # io_uring reads a tmpfs by threads.
        image = os.memfd_create("image", 0)
        self.addCleanup(os.close, image)
        os.write(image, os.urandom(16 * 4096))
        kernel = pathlib.Path(self.folder.name) / "kernel"
        kernel.write_bytes(pathlib.Path(KERNEL).read_bytes())
        verbs = dict(VERBS, demo=(*VERBS["demo"], "--image", f"/proc/self/fd/{image}"))
        for verb in ("doctor", "demo", "check", "run"):
            words = [str(kernel) if word == KERNEL else word for word in verbs[verb]]
            words += ["--json"] if verb == "doctor" else []
            worked = False
            with self.program_for_all():
                for processes in range(1, 12):
                    with self.subTest(verb=verb, processes=processes):
                        done = self.as_user_with_devices(words, processes, [image])
                        if done.returncode == OK:
                            worked = True
                        elif verb == "doctor":
                            self.assertEqual((done.returncode, done.stderr), (FAILED, ""))
                            self.advice_is_about_limits(done)
                        elif "\nnot ok " in done.stdout:
                            # A guest that counts on its page's coming is told in its report.
                            self.assertEqual((verb, done.returncode), ("check", FAILED))
                            self.assertIn("a promise is not kept", done.stderr)
                        else:
                            self.assertRegex(done.stderr, r"\A(asyncpf: [^\n]+\n){1,2}\Z")
                            self.assertIn("ulimit -u", done.stderr)
            self.assertTrue(worked, f"{verb} does not work with 11 processes, either")

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
    foreground.restore()
    if not works_here():
        print("SKIP: this host cannot serve guests itself")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
