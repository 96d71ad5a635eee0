#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sandbox of `asyncpf run`, seen from outside: what each thread has left, what becomes of a
forbidden call, whose rights are left, and what a host does that lacks a part of it. That everything
works under it is what the other tests of `run` show, since it is the default.

usage: sandbox_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL PATH_OF_SHIM PATH_OF_REFUSE
"""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

MIB = 1 << 20
SHIM, REFUSE = (str(pathlib.Path(word).resolve()) for word in sys.argv[3:5])
CLI_SANDBOX = 6
NOBODY = 65534
DAC_OVERRIDE = 1 << 1
# x86-64
SECCOMP, LANDLOCK, CAPSET, PRCTL = 317, 444, 126, 157
NEEDS_ROOT = unittest.skipUnless(os.geteuid() == 0, "only root sees into the process")


def fields(path):
    """A file of /proc in lines of "name: value"."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def tasks(pid):
    """{name of a thread: [its status]}, without those of the kernel's own."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text(encoding="ascii").strip()
        if name.startswith(("kvm-", "iou-")):
            continue
        found.setdefault(name, []).append(fields(task / "status"))
    return found


class SandboxTest(RunTest):
    def asks(self, verb, *words):
        done = subprocess.run([asyncpf(), verb, "--control", "c", *words], cwd=self.folder,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stderr), (0, ""), verb)
        return done.stdout

    def spins(self, *words, **options):
        """A guest that runs: every thread is there, and bound."""
        process = self.start("--cmdline", "spin", "--local", *words, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        while "spin" not in (line := process.stdout.readline()):
            self.assertTrue(line, process.stderr.read() if not line else "")
        return process

    def stops(self, process):
        process.terminate()
        _, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, err), (-signal.SIGTERM, ""))


@NEEDS_ROOT
class Threads(SandboxTest):
    WORDS = ("--cpus", "2", "--disk", "d", "--swap", "swap", "--resident-max", "8M",
             "--control", "c", "--json", "json", "--trace", "trace", "--sandbox", "strict")
    NAMES = {"asyncpf": 4, "asyncpf-evict": 1, "vcpu00": 1, "vcpu01": 1, "blk0": 1, "rng": 1,
             "trace": 1}

    def test_what_each_has_left(self):
        self.file("d", bytes(MIB))
        process = self.spins(*self.WORDS)
        # Main, signals, control, the library's; those that have no name of their own.
        found = tasks(process.pid)
        self.assertEqual({name: len(list_) for name, list_ in found.items()}, self.NAMES)
        main_id = str(process.pid)
        for name, list_ in found.items():
            for status in list_:
                self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), (["1"], ["2"]), name)
                self.assertEqual(status["Seccomp_filters"], ["1"], name)
                # It removes the control socket, in whosever folder that is.
                keeps = DAC_OVERRIDE if status["Pid"] == [main_id] else 0
                for kind in ("CapEff", "CapPrm"):
                    self.assertIn(int(status[kind][0], 16), (0, keeps), name)
                self.assertEqual(int(status["CapInh"][0], 16), 0)
        self.assertEqual(json.loads(self.asks("status", "--json"))["state"], "running")
        self.asks("pause")
        self.asks("resume")
        self.asks("pause")
        # A KVM that emulates the guest's kernel mode could not go on after it.
        self.asks("evict", "--all")
        self.asks("stop")
        self.assertEqual(process.wait(LIMIT_S), 5)
        self.assertFalse((self.folder / "c").exists())
        self.assertEqual(json.loads((self.folder / "json").read_text())["end"], "stop")

    def test_the_process(self):
        process = self.spins("--disk", self.file("d", bytes(20 * MIB)))
        limits = (pathlib.Path("/proc", str(process.pid), "limits")).read_text(encoding="ascii")
        soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
        self.assertEqual(soft["Max core file size"], "0")
        self.assertEqual(soft["Max file size"], str(20 * MIB))
        self.assertLess(int(soft["Max open files"]), 100)
        self.stops(process)

    def test_what_is_printed_may_grow(self):
        with open(self.folder / "out", "ab") as out:
            out.truncate(32 * MIB)
            process = self.start("--cmdline", "off", "--local", stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.PIPE, text=True)
            _, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, err), (0, ""))
        self.assertGreater((self.folder / "out").stat().st_size, 32 * MIB)

    def test_off(self):
        process = self.spins("--sandbox", "off")
        for name, list_ in tasks(process.pid).items():
            for status in list_:
                self.assertEqual(status["NoNewPrivs"], ["0"], name)
        self.stops(process)

    def test_descriptors(self):
        """What we were started with is closed, and what was named once it has been opened."""
        self.file("d", b"disk" * 4096)
        self.file("secret", b"secret")
        with open(self.folder / "d", "rb") as disk, open(self.folder / "secret", "rb") as secret:
            process = self.spins("--disk", f"/dev/fd/{disk.fileno()}",
                                 pass_fds=(disk.fileno(), secret.fileno()))
        folder = pathlib.Path("/proc", str(process.pid), "fd")
        targets = [os.readlink(fd) for fd in folder.iterdir()]
        self.assertEqual([t for t in targets if t.endswith("secret")], [])
        self.assertEqual(len([t for t in targets if t.endswith("/d")]), 1)
        self.stops(process)

    def test_one_that_is_not_there(self):
        """It would be one of the command's own by then."""
        self.file("d", bytes(MIB))
        for number in (3, 9, 2147483647, 4294967295):
            done = self.run_it("--kernel", kernel(), "--disk", "d", "--disk",
                               f"/proc/self/fd/{number}")
            self.assertEqual(done.returncode, 3)
            self.assertRegex(done.stderr, r"\Aasyncpf: [^\n]*\n\Z")

    def test_they_stay_without(self):
        self.file("secret", b"secret")
        with open(self.folder / "secret", "rb") as secret:
            process = self.spins("--sandbox", "off", pass_fds=(secret.fileno(),))
        folder = pathlib.Path("/proc", str(process.pid), "fd")
        self.assertTrue(any(os.readlink(fd).endswith("secret") for fd in folder.iterdir()))
        self.stops(process)


class Forbidden(SandboxTest):
    """A library that makes another call than those of the table, in the middle of a role's work."""
    LINE = (r"\Aasyncpf: sandbox: a {role} thread made system call 41, socket\(0x1, 0x1, \.\.\.\), "
            r"which it may not; the guest is ended, by a fault of asyncpf's or an attack: report "
            r"it\n\Z")

    def test_each(self):
        self.file("d", bytes(65536))
        for role, call in (("device", "pwritev"), ("vCPU", "ioctl:0xae80")):
            with self.subTest(role=role):
                env = {**os.environ, "LD_PRELOAD": SHIM, "SHIM_FAIL": f"{call} 1 1 5",
                       "SHIM_FORBIDDEN": "1"}
                words = ("--kernel", kernel(), "--disk", "d,werror=report", "--cmdline",
                         "fill=4+8 off")
                done = self.run_it(*words, env=env)
                self.assertRegex(done.stderr, self.LINE.format(role=role))
                self.assertEqual(done.returncode, CLI_SANDBOX)
                done = self.run_it(*words, "--sandbox", "off", env=env, timeout=LIMIT_S)
                self.assertNotEqual(done.returncode, CLI_SANDBOX)

    def test_nothing_is_left(self):
        """The swap file and its lock go with the process, and the next run has the socket."""
        self.file("d", bytes(65536))
        env = {**os.environ, "LD_PRELOAD": SHIM, "SHIM_FAIL": "pwritev 1 1 5",
               "SHIM_FORBIDDEN": "1"}
        words = ("--kernel", kernel(), "--disk", "d", "--swap", "swap", "--control", "c",
                 "--cmdline")
        done = self.run_it(*words, "fill=4+8 off", env=env)
        self.assertEqual(done.returncode, CLI_SANDBOX)
        self.assertEqual(sorted(os.listdir(self.folder)), ["c", "d"])
        done = self.run_it(*words, "fill=4+8 off")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(os.listdir(self.folder), ["d"])


@unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
class Users(SandboxTest):
    def expect(self, words, uid, gid):
        self.file("d", bytes(MIB))
        os.chmod(self.folder / "d", 0o600)
        process = self.spins("--user", words, "--disk", "d", "--swap", "swap", "--resident-max",
                             "8M", "--json", "json")
        for name, list_ in tasks(process.pid).items():
            for status in list_:
                self.assertEqual(status["Uid"], [str(uid)] * 4, name)
                self.assertEqual(status["Gid"], [str(gid)] * 4, name)
                self.assertEqual(status["Groups"], [], name)
                self.assertEqual(int(status["CapPrm"][0], 16), 0, name)
        self.stops(process)
        self.assertEqual(json.loads((self.folder / "json").read_text())["end"], "signal")

    def test_everything_is_open_before(self):
        """Files of root's, in a folder of root's."""
        os.chmod(self.folder, 0o700)
        self.expect("nobody", NOBODY, NOBODY)
        self.expect("12345:54321", 12345, 54321)

    def test_the_guest_works(self):
        self.file("d", bytes(MIB))
        done = self.run_it("--kernel", kernel(), "--user", "nobody", "--disk", "d", "--cmdline",
                           "fill=4+20 off", "--swap", "swap", "--resident-max", "4M")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("filled: 20 requests, the last with status 0, flush 0\n", done.stdout)

    def test_a_control_socket(self):
        """Steered by who started it; it goes where the other user may write."""
        for mode, left in ((0o777, False), (0o755, True)):
            os.chmod(self.folder, mode)
            process = self.spins("--user", "nobody", "--swap", "swap", "--control", "c")
            self.asks("pause")
            self.asks("resume")
            self.asks("pause")
            self.asks("evict", "--all")
            self.asks("stop")
            self.assertEqual(process.wait(LIMIT_S), 5)
            self.assertEqual((self.folder / "c").exists(), left)
        process = self.spins("--control", "c")
        self.asks("stop")
        self.assertEqual(process.wait(LIMIT_S), 5)

    def test_who_may_not(self):
        # Where it can be reached, whatever the rights on the build folder.
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            program, guest = (shutil.copy(path, folder) for path in (asyncpf(), kernel()))
            done = subprocess.run([program, "run", "--local", "--kernel", guest, "--user",
                                   "12345:1"], capture_output=True, text=True, check=False,
                                  timeout=LIMIT_S, user=NOBODY, group=NOBODY, extra_groups=[],
                                  stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (
            3, "", "asyncpf: cannot become user 12345: this is user 65534, and only root may; "
            "leave --user out\n"))


class Words(SandboxTest):
    def test_usage(self):
        for words, pattern in (
                (("--user", "no-such-user"), "bad value: --user no-such-user: there is no such "
                                             "user; name one, or give a number"),
                (("--user", "0:wheel"), "bad value: --user 0:wheel: NAME or a number, and .*"),
                (("--user", "3999999999"), "bad value: --user 3999999999: that user has no entry, "
                                           "so that the group is unknown; write --user "
                                           "3999999999:GID"),
                (("--user", "root", "--sandbox", "off"), "conflicting options: --user and "
                                                         "--sandbox off: .*; leave one out"),
                (("--sandbox", "none"), "bad value: --sandbox none: .*")):
            done = self.run_it("--kernel", kernel(), *words)
            self.assertRegex(done.stderr, rf"\Aasyncpf: {pattern}\n\Z")
            self.assertEqual((done.returncode, done.stdout), (2, ""))


class Hosts(SandboxTest):
    """What a host may lack, by a filter that refuses it as an older kernel would."""

    def refusing(self, call, code, *words):
        return subprocess.run([REFUSE, str(call), str(code), asyncpf(), "run", "--memory", "16M",
                               "--kernel", kernel(), "--cmdline", "off", *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)

    def test_without_filters_it_is_told(self):
        for code, why in ((38, "Function not implemented"), (1, "Operation not permitted")):
            done = self.refusing(SECCOMP, code)
            self.assertEqual((done.returncode, done.stderr), (
                0, f"asyncpf: note: the sandbox is weak: system calls cannot be filtered here "
                f"({why}); see 'asyncpf doctor'\n"))
            done = self.refusing(SECCOMP, code, "--quiet")
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_without_the_others_doctor_tells(self):
        for call, code, refusal in ((LANDLOCK, 95, "switched off at boot"),
                                    (LANDLOCK, 38, "not built in"),
                                    (CAPSET, 1, "filtered by seccomp")):
            with self.subTest(call=call):
                done = self.refusing(call, code)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                report = subprocess.run([REFUSE, str(call), str(code), asyncpf(), "doctor",
                                         "--json"], capture_output=True, text=True, check=False,
                                        timeout=LIMIT_S)
                check = {c["name"]: c for c in json.loads(report.stdout)["checks"]}["sandbox"]
                self.assertEqual((check["verdict"], check["refusal"]), ("limited", refusal))

    def test_without_no_new_privs(self):
        done = self.refusing(PRCTL, 1)
        self.assertEqual(done.returncode, 0)
        self.assertIn("the sandbox is weak", done.stderr)

    def test_strict(self):
        for call, code, what in ((SECCOMP, 38, "seccomp: Function not implemented"),
                                 (LANDLOCK, 95, "Landlock: Operation not supported"),
                                 (CAPSET, 1, "capset: Operation not permitted")):
            done = self.refusing(call, code, "--sandbox", "strict")
            self.assertEqual((done.returncode, done.stdout, done.stderr), (
                3, "", f"asyncpf: --sandbox strict: the host has no {what}; see 'asyncpf doctor', "
                "or leave the option out\n"))


@unittest.skipUnless(os.geteuid() == 0, "only root makes the devices")
class OrdinaryUser(SandboxTest):
    """Nothing but the two devices; a folder of the user's own."""

    def node(self, name):
        number = os.stat(f"/dev/{name}").st_rdev
        return f"mknod -m 666 /dev/{name} c {os.major(number)} {os.minor(number)}; "

    def test_all_of_it(self):
        program, guest = (shutil.copy(path, self.folder) for path in (asyncpf(), kernel()))
        work = self.folder / "work"
        work.mkdir()
        os.chmod(self.folder, 0o755)
        os.chown(work, NOBODY, NOBODY)
        (work / "d").write_bytes(bytes(MIB))
        os.chown(work / "d", NOBODY, NOBODY)
        script = (f"mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; "
                  f"{self.node('kvm')}{self.node('userfaultfd')}"
                  f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "
                  f"--inh-caps=-all --bounding-set=-all {program} run --local --sandbox strict "
                  f"--kernel {guest} --memory 16M --resident-max 8M --swap swap --disk d "
                  "--control c --json json --cmdline 'fill=4+20 off'")
        done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], cwd=work,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("filled: 20 requests, the last with status 0, flush 0\n", done.stdout)
        self.assertEqual(sorted(os.listdir(work)), ["d", "json"])
        self.assertEqual(json.loads((work / "json").read_text())["end"], "power-off")


def has_sanitizer():
    """Then there is none by default."""
    done = subprocess.run(["nm", "-D", asyncpf()], capture_output=True, text=True, check=False)
    return re.search(r"__[at]san_init", done.stdout) is not None


if __name__ == "__main__":
    if has_sanitizer():
        print("SKIP: a sanitizer makes calls of its own")
        sys.exit(77)
    # A core file would be in the way of what is left, should there be one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
    main()
