#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf doctor` on this machine, whatever it offers: form, consistency, exit code.

usage: doctor_test.py PATH_OF_ASYNCPF
"""
import json
import re
import subprocess
import sys
import unittest

ASYNCPF = sys.argv.pop(1) if len(sys.argv) > 1 else "build/asyncpf"


def doctor(*words):
    return subprocess.run([ASYNCPF, "doctor", *words], capture_output=True, text=True,
                          check=False, timeout=60)


class Doctor(unittest.TestCase):
    def test_json(self):
        done = doctor("--json")
        self.assertEqual(done.stderr, "")
        report = json.loads(done.stdout)
        checks = {c["name"]: c for c in report["checks"]}
        self.assertEqual(len(checks), len(report["checks"]), "names are unique")
        for name in ("kvm.device", "kvm.irqchip", "kvm.user_space_msr", "kvm.msr_filter",
                     "kvm.exception_payload", "kvm.sync_regs", "kvm.signal_msi", "kvm.async_pf",
                     "kvm.async_pf_int", "uffd.open", "uffd.poison", "uffd.minor_shmem",
                     "uffd.missing_shmem", "io_uring", "memfd", "memory", "cpus", "kernel",
                     "guest.cpl0", "guest.touch", "guest.served", "uffd.wp_async",
                     "pagemap.scan", "memory.cgroup", "memory.overcommit", "limits",
                     "user_namespace", "seccomp", "security_module", "sandbox"):
            self.assertIn(name, checks)
        for check in checks.values():
            self.assertIn(check["verdict"], ("ok", "limited", "no"))
            self.assertTrue(check["means"])
            if check["verdict"] == "no":
                self.assertTrue(check["fix"], check["name"])
            if check["verdict"] == "ok":
                self.assertIsNone(check["fix"], check["name"])
        ways = {w["name"]: w for w in report["faults"]}
        self.assertEqual(list(ways), ["block", "stall", "kernel", "user"])
        for way in ways.values():
            self.assertEqual(way["works"], not way["missing"])
            for name in way["missing"]:
                self.assertEqual(checks[name]["verdict"], "no")
        self.assertEqual(done.returncode, 0 if ways["user"]["works"] else 1)
        self.assertEqual(report["evict"], not report["evict_missing"])
        if not any(way["works"] for way in ways.values()):
            self.assertFalse(report["evict"])

    def test_text_says_the_same(self):
        done = doctor()
        report = json.loads(doctor("--json").stdout)
        self.assertEqual(done.stderr, "")
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)
        # What goes on in another line is indented.
        lines = re.sub(r"\n +", " ", done.stdout).splitlines()
        for check, line in zip(report["checks"], lines):
            self.assertEqual(line.split()[:2], [check["verdict"], check["name"]])
            if check["fix"]:
                self.assertIn(f" to fix: {check['fix']}", line)
        for way in report["faults"]:
            line = [x for x in lines if f"--faults {way['name']}" in x][0]
            self.assertEqual(line.split()[0], "ok" if way["works"] else "no")
            for name in way["missing"]:
                self.assertIn(name, line)
        line = [x for x in lines if "--resident-max, evict" in x][0]
        self.assertEqual(line.split()[0], "ok" if report["evict"] else "no")
        for name in report["evict_missing"]:
            self.assertIn(name, line)


if __name__ == "__main__":
    unittest.main()
