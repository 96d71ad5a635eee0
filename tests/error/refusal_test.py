#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is refused by the system is explained in the same words by every verb that needs it, with
the right that is missing and the one command that gives it; and the command gives it.

The conditions are real: a /dev of its own in a mount namespace, another user, a user namespace,
seccomp filters (shim/refuse.c), sysctls. Needs root.

usage: refusal_test.py PATH_OF_ASYNCPF PATH_OF_REFUSE MULTIBOOT_KERNEL
"""
import errno
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

ASYNCPF, REFUSE, KERNEL = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:4])
NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all "
USER_NAMESPACE = "unshare --user --map-root-user "
PROFILE = "in the seccomp profile of the container or service"
# x86-64
CALLS = {"userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426,
         "io_uring_register": 427, "memfd_create": 319}
PROBES = {"userfaultfd": "uffd.open", "memfd_create": "memfd"}
IO_URING = [call for call in CALLS if call.startswith("io_uring")]
BY_THREADS = "; pages are read by threads instead, 16 at a time"
ALL_OF_IO_URING = "io_uring_setup, io_uring_enter and io_uring_register"
VERBS = {
    "run": "run --local --kernel {kernel} --memory 16M --cmdline off",
    "demo": "demo --quiet --pages 16 --tasks 4 --delay-us 500 --runs user:int",
    "check": "check --only enable.",
}


def node(name, mode="666"):
    number = os.stat(f"/dev/{name}").st_rdev
    return f"mknod -m {mode} /dev/{name} c {os.major(number)} {os.minor(number)}; "


class Names(unittest.TestCase):
    """Who may not put a file into its place in one step does it in two."""

    def refused(self, folder, call, code, *words, **options):
        return subprocess.run([REFUSE, str(call), str(code), ASYNCPF, *words], cwd=folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=60, **options)

    def test_renameat2(self):
        for code in (errno.ENOSYS, errno.EPERM):
            with self.subTest(code=code), tempfile.TemporaryDirectory() as folder:
                pathlib.Path(folder, "mem").write_bytes(bytes(8192))
                done = self.refused(folder, 316, code, "image", "pack", "mem", "out")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                with subprocess.Popen(
                        [ASYNCPF, "run", "--local", "--kernel", KERNEL, "--memory", "16M",
                         "--cmdline", "spin", "--control", "vm"], cwd=folder,
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as vm:
                    vm.stdout.readline()
                    done = self.refused(folder, 316, code, "snapshot", "--control", "vm", "snap")
                    vm.kill()
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(sorted(os.listdir(folder)), ["mem", "out", "snap", "vm"])


class Host(unittest.TestCase):
    """self.dev: what makes the devices; self.around: what stands before the program."""
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        # Where another user can reach them, whatever the rights on the build folder.
        cls.folder = tempfile.mkdtemp()
        os.chmod(cls.folder, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.program, cls.refuse, cls.kernel = (
            shutil.copy(path, cls.folder) for path in (ASYNCPF, REFUSE, KERNEL))
        os.chmod(cls.program, 0o755)

    def sh(self, words, dev, around="", before=""):
        script = f"mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; {dev}{before} "
        return subprocess.run(["unshare", "--mount", "sh", "-ec",
                               f"{script} {around}{self.program} {words}"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=60)

    def doctor(self, dev, around="", before=""):
        """(checks, ways) by name; that user does or does not work is told by the exit code, too."""
        done = self.sh("doctor --json", dev, around, before)
        self.assertEqual(done.stderr, "")
        report = json.loads(done.stdout)
        ways = {w["name"]: w for w in report["faults"]}
        self.assertEqual(done.returncode, 0 if ways["user"]["works"] else 1)
        # Nothing can be taken away from a VM that cannot be served.
        if not any(way["works"] for way in ways.values()):
            self.assertFalse(report["evict"])
            self.assertTrue(report["evict_missing"])
        return {c["name"]: c for c in report["checks"]}, ways

    def works(self, dev, around="", before=""):
        _, ways = self.doctor(dev, around, before)
        self.assertTrue(all(way["works"] for way in ways.values()), ways)
        for verb, words in VERBS.items():
            done = self.sh(words.format(kernel=self.kernel), dev, around, before)
            self.assertEqual((done.returncode, done.stderr), (0, ""), (verb, done.stdout))

    def refused(self, probe, kind, means, fix, dev, around="", before=""):
        """By doctor under that name, and with the same words by every verb."""
        checks, ways = self.doctor(dev, around, before)
        check = checks[probe]
        self.assertEqual([check[k] for k in ("verdict", "refusal", "means", "fix")],
                         ["no", kind, means, fix])
        self.assertIn(probe, ways["user"]["missing"])
        for verb, words in VERBS.items():
            done = self.sh(words.format(kernel=self.kernel), dev, around, before)
            said = f"run failed: user:int: {means}" if verb == "demo" else means
            self.assertEqual((done.returncode, done.stdout, done.stderr),
                             (3, "", f"asyncpf: {said}; {fix}\n"), verb)
        return fix


class Devices(Host):
    def test_no_kvm_in_this_container(self):
        checks, _ = self.doctor("")
        self.refused("kvm.device", "not permitted here",
                     "/dev/kvm: No such file or directory: this kernel has KVM, but its device is "
                     "not here", "give the container the device: docker run --device /dev/kvm", "")
        self.assertEqual(checks["kvm.irqchip"]["fix"], "see kvm.device")
        # As asyncpf-run(1) has it.
        said = " ".join(self.sh("doctor", "").stdout.split())
        self.assertIn("stock Linux guest misses kvm.device; 'asyncpf run' uses the lab", said)

    def test_kvm_without_a_driver(self):
        """The node is there, and nothing behind it."""
        checks, _ = self.doctor("mknod -m 666 /dev/kvm c 10 253; ")
        self.assertRegex(checks["kvm.device"]["means"], "^/dev/kvm: No such device")

    def test_kvm_is_something_else(self):
        checks, _ = self.doctor("touch /dev/kvm; ")
        self.assertIn("/dev/kvm is not KVM", checks["kvm.device"]["means"])

    def test_kvm_of_root_alone(self):
        """There is no group to join."""
        self.refused("kvm.device", "not permitted here",
                     "/dev/kvm: Permission denied: its mode does not let this user in",
                     "as root: setfacl -m u:nobody:rw /dev/kvm",
                     node("kvm", "600") + node("userfaultfd"), NOBODY)

    def test_kvm_of_a_group(self):
        """Whatever it is called."""
        self.refused("kvm.device", "not permitted here",
                     "/dev/kvm: Permission denied: its mode does not let this user in",
                     "as root: usermod -aG man nobody; then log in again",
                     node("kvm", "660") + "chgrp man /dev/kvm; " + node("userfaultfd"), NOBODY)

    def test_both_devices_are_enough(self):
        self.works(node("kvm") + node("userfaultfd"), NOBODY)

    @unittest.skipUnless(shutil.which("setfacl"), "no setfacl here")
    def test_the_command_gives_the_right(self):
        dev = node("kvm") + node("userfaultfd", "600")
        checks, _ = self.doctor(dev, NOBODY)
        where, _, command = checks["uffd.open"]["fix"].partition(": ")
        self.assertEqual(where, "as root")
        self.works(dev, NOBODY, before=f"{command}; ")


def everybody_may_use_userfaultfd():
    path = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")
    return not path.exists() or path.read_text(encoding="ascii") != "0\n"


@unittest.skipIf(everybody_may_use_userfaultfd(), "everybody may use userfaultfd here")
class Userfaultfd(Host):
    REFUSED = "userfaultfd(2): Operation not permitted, /dev/userfaultfd: "
    RIGHT = ": faults of the kernel's, as KVM's are, need a right"
    INSIDE = ": no capability in here counts for it"

    def test_no_right(self):
        self.refused("uffd.open", "not permitted here",
                     f"{self.REFUSED}Permission denied{self.RIGHT}",
                     "as root: setfacl -m u:nobody:rw /dev/userfaultfd",
                     node("kvm") + node("userfaultfd", "600"), NOBODY)

    def test_no_right_and_no_device(self):
        self.refused("uffd.open", "not permitted here",
                     f"{self.REFUSED}No such file or directory{self.RIGHT}",
                     "give the container the device: docker run --device /dev/userfaultfd",
                     node("kvm"), NOBODY)

    def test_root_of_a_user_namespace(self):
        """To run as root is no advice for who is root already, and may not."""
        self.refused("uffd.open", "not permitted in this user namespace",
                     f"{self.REFUSED}Permission denied{self.INSIDE}",
                     "outside of this user namespace, as root: setfacl -m u:65534:rw "
                     "/dev/userfaultfd",
                     node("kvm") + node("userfaultfd", "600"), NOBODY + USER_NAMESPACE)
        checks, _ = self.doctor(node("kvm"), NOBODY + USER_NAMESPACE)
        self.assertEqual(checks["user_namespace"]["verdict"], "limited")
        self.assertIn("user 0 in here is user 65534 outside", checks["user_namespace"]["means"])

    def test_devices_are_enough_in_a_user_namespace(self):
        self.works(node("kvm") + node("userfaultfd"), NOBODY + USER_NAMESPACE)


class Filters(Host):
    """A filter answers what it likes: ENOSYS is not the kernel's word, nor is EPERM the user's."""

    def filtered(self, call, code, around=""):
        return f"{around}{self.refuse} {CALLS[call]} {code} "

    def test_calls(self):
        dev = node("kvm") + node("userfaultfd")
        for call in CALLS:
            if call == "userfaultfd" or call in IO_URING:
                continue
            for code, why in ((errno.ENOSYS, "this kernel has it, a seccomp filter hides it"),
                              (errno.EPERM, "a seccomp filter refuses it")):
                with self.subTest(call=call, code=code):
                    self.refused(PROBES[call], "filtered by seccomp",
                                 f"{call}: {os.strerror(code)}: {why}",
                                 f"allow {call} {PROFILE}", dev, self.filtered(call, code))

    def test_threads_do_the_work_of_io_uring(self):
        """Everything works, and doctor says by what and why."""
        dev = node("kvm") + node("userfaultfd")
        for call in IO_URING:
            calls = ALL_OF_IO_URING if call == "io_uring_setup" else call
            for code, why in ((errno.ENOSYS, "this kernel has it, a seccomp filter hides it"),
                              (errno.EPERM, "a seccomp filter refuses it")):
                with self.subTest(call=call, code=code):
                    around = self.filtered(call, code)
                    self.works(dev, around)
                    checks, _ = self.doctor(dev, around)
                    check = checks["io_uring"]
                    self.assertEqual([check[k] for k in ("verdict", "refusal", "means", "fix")],
                                     ["limited", "filtered by seccomp",
                                      f"{call}: {os.strerror(code)}: {why}{BY_THREADS}",
                                      f"allow {calls} {PROFILE}"])
                    done = self.sh(VERBS["demo"] + " --json -", dev, around)
                    self.assertEqual(json.loads(done.stdout)["runs"][0]["io"], "threads")

    def test_io_uring_alone_is_refused_where_it_is(self):
        """Whoever asks for it is told why not."""
        done = self.sh(VERBS["demo"] + " --io uring", node("kvm") + node("userfaultfd"),
                       self.filtered("io_uring_setup", errno.EPERM))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (
            3, "", "asyncpf: run failed: user:int: io_uring_setup: Operation not permitted: a "
            f"seccomp filter refuses it; allow {ALL_OF_IO_URING} {PROFILE}\n"))

    def test_userfaultfd_has_its_device_left(self):
        for code in (errno.ENOSYS, errno.EPERM):
            for around in ("", NOBODY):
                self.works(node("kvm") + node("userfaultfd"),
                           self.filtered("userfaultfd", code, around))

    def test_userfaultfd_without_its_device(self):
        for code, why in ((errno.ENOSYS, "this kernel has it, a seccomp filter hides it"),
                          (errno.EPERM, "a seccomp filter refuses it")):
            self.refused("uffd.open", "filtered by seccomp",
                         f"userfaultfd(2): {os.strerror(code)}, /dev/userfaultfd: No such file or "
                         f"directory: {why}", f"allow userfaultfd {PROFILE}", node("kvm"),
                         self.filtered("userfaultfd", code))

    def test_a_device_that_is_closed_is_nearer_than_the_filter(self):
        self.refused("uffd.open", "filtered by seccomp",
                     "userfaultfd(2): Function not implemented, /dev/userfaultfd: Permission "
                     "denied: this kernel has it, a seccomp filter hides it",
                     "as root: setfacl -m u:nobody:rw /dev/userfaultfd",
                     node("kvm") + node("userfaultfd", "600"),
                     self.filtered("userfaultfd", errno.ENOSYS, NOBODY))

    def test_that_there_is_one_is_told(self):
        checks, _ = self.doctor(node("kvm"), self.filtered("userfaultfd", errno.EPERM))
        self.assertEqual(checks["seccomp"]["verdict"], "limited")


class Sysctls(Host):
    def test_memory_that_must_not_be_executed(self):
        """Nothing is wanted of it but to be written: it works."""
        if not os.path.exists("/proc/sys/vm/memfd_noexec"):
            self.skipTest("no vm.memfd_noexec here")
        script = "sysctl -q -w vm.memfd_noexec=2; exec \"$@\""
        self.works(node("kvm") + node("userfaultfd"),
                   f"unshare --pid --fork --mount-proc sh -c {shlex.quote(script)} sh ")


def main():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        print("SKIP: needs root and setpriv, for a mount namespace and another user")
        return 77
    if not os.path.exists("/dev/kvm") or not os.path.exists("/dev/userfaultfd"):
        print("SKIP: /dev/kvm or /dev/userfaultfd is not here")
        return 77
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/dev"],
                      check=False).returncode != 0:
        print("SKIP: no mount namespaces here")
        return 77
    if subprocess.run([ASYNCPF, "doctor"], stdout=subprocess.DEVNULL, check=False).returncode:
        print("SKIP: this host cannot serve guests itself")
        return 77
    run = unittest.main(argv=sys.argv[:1], exit=False)
    for case, reason in run.result.skipped:
        print(f"SKIP: {case.id().rsplit('.', 1)[1]}: {reason}")
    return 0 if run.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
