#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf doctor` where devices are missing or refused. The conditions are real: a /dev
of its own in a mount namespace, and a user without rights. Needs root.

usage: doctor_refusal_test.py PATH_OF_ASYNCPF
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ASYNCPF = sys.argv.pop(1) if len(sys.argv) > 1 else "build/asyncpf"
NOBODY = "exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all " \
         "--bounding-set=-all "
OWN_DEV = "mount -t tmpfs none /dev"


def in_namespace(script):
    return subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True,
                          text=True, check=False, timeout=60)


def unprivileged_userfaultfd():
    path = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")
    return path.exists() and path.read_text(encoding="ascii").strip() == "1"


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Where the other user can reach it, whatever the rights on the build folder.
        cls.folder = tempfile.mkdtemp()
        os.chmod(cls.folder, 0o755)
        cls.program = shutil.copy(ASYNCPF, cls.folder)
        os.chmod(cls.program, 0o755)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def report(self, script):
        """The JSON report under `script`, which must find that `user` does not work."""
        done = in_namespace(f"{script}{self.program} doctor --json")
        self.assertEqual((done.returncode, done.stderr), (1, ""), done.stdout)
        report = json.loads(done.stdout)
        # Nothing can be taken away from a VM that cannot be served.
        if not any(way["works"] for way in report["faults"]):
            self.assertFalse(report["evict"])
            self.assertTrue(report["evict_missing"])
        return ({c["name"]: c for c in report["checks"]},
                {w["name"]: w for w in report["faults"]})

    def test_no_device(self):
        checks, ways = self.report(f"{OWN_DEV}; exec ")
        kvm = checks["kvm.device"]
        self.assertFalse(any(way["works"] for way in ways.values()))
        self.assertEqual((kvm["verdict"], kvm["means"]),
                         ("no", "/dev/kvm: No such file or directory"))
        self.assertIn("modprobe kvm_intel", kvm["fix"])
        self.assertEqual(checks["kvm.irqchip"]["fix"], "see kvm.device")
        for way in ways.values():
            self.assertIn("kvm.device", way["missing"])

    def test_device_refused(self):
        checks, _ = self.report(f"{OWN_DEV}; touch /dev/kvm; chmod 0 /dev/kvm; {NOBODY}")
        kvm = checks["kvm.device"]
        self.assertEqual((kvm["verdict"], kvm["means"]), ("no", "/dev/kvm: Permission denied"))
        self.assertIn("usermod -aG kvm $USER", kvm["fix"])
        self.assertIn("setfacl -m u:$USER:rw /dev/kvm", kvm["fix"])

    def test_device_is_something_else(self):
        checks, _ = self.report(f"{OWN_DEV}; touch /dev/kvm; exec ")
        self.assertIn("/dev/kvm is not KVM", checks["kvm.device"]["means"])

    @unittest.skipIf(unprivileged_userfaultfd(), "vm.unprivileged_userfaultfd is 1 here")
    def test_userfaultfd_refused(self):
        checks, ways = self.report(
            f"{OWN_DEV}; touch /dev/userfaultfd; chmod 0 /dev/userfaultfd; {NOBODY}")
        uffd = checks["uffd.open"]
        self.assertEqual(uffd["verdict"], "no")
        self.assertIn("userfaultfd(2): Operation not permitted", uffd["means"])
        self.assertIn("/dev/userfaultfd: Permission denied", uffd["means"])
        for way_out in ("vm.unprivileged_userfaultfd", "CAP_SYS_PTRACE", "/dev/userfaultfd"):
            self.assertIn(way_out, uffd["fix"])
        self.assertEqual(checks["uffd.poison"]["fix"], "see uffd.open")
        self.assertIn("uffd.open", ways["user"]["missing"])

    @unittest.skipIf(unprivileged_userfaultfd(), "vm.unprivileged_userfaultfd is 1 here")
    def test_userfaultfd_by_device(self):
        if not pathlib.Path("/dev/userfaultfd").exists():
            self.skipTest("no /dev/userfaultfd here")
        major_minor = os.stat("/dev/userfaultfd").st_rdev
        checks, _ = self.report(
            f"{OWN_DEV}; "
            f"mknod -m 666 /dev/userfaultfd c {os.major(major_minor)} {os.minor(major_minor)}; "
            f"{NOBODY}")
        self.assertEqual(checks["uffd.open"]["verdict"], "ok")
        self.assertIn("/dev/userfaultfd", checks["uffd.open"]["means"])
        self.assertEqual(checks["uffd.poison"]["verdict"], "ok")


def main():
    if os.geteuid() != 0:
        print("SKIP: needs root, for a mount namespace and another user")
        return 77
    if in_namespace(OWN_DEV).returncode != 0 or not shutil.which("setpriv"):
        print("SKIP: mount namespaces or setpriv are not available here")
        return 77
    run = unittest.main(exit=False)
    for case, reason in run.result.skipped:
        print(f"SKIP: {case.id().rsplit('.', 1)[1]}: {reason}")
    return 0 if run.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
