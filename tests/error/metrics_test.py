#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf status --prometheus`: Prometheus' own tool has nothing to say against it, and it has
what --json has, in Prometheus' units. The server is the shipped one, in a process without a VM.

usage: metrics_test.py PATH_OF_ASYNCPF PATH_OF_CONTROL_VM
"""
import json
import re
import shutil
import subprocess
import sys
import unittest

import control_support
from control_support import LIMIT_S, ControlTest, Vm

SERIES = re.compile(r'^([a-z0-9_]+)\{((?:[a-z]+="[^"]*",?)*)\} ([0-9.]+)$')


class Metrics(ControlTest):
    def setUp(self):
        super().setUp()
        vm = Vm(sys.argv[2], self.path)
        self.addCleanup(vm.kill)
        vm.order("evicted 3")

    def text(self):
        done = self.ask("status", "--prometheus")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def series(self):
        """{(name, labels): value}; each name has its HELP and TYPE once, right before it."""
        found, types, name = {}, {}, None
        for line in self.text().splitlines():
            if line.startswith("# HELP "):
                name = line.split()[2]
                self.assertNotIn(name, types)
            elif line.startswith("# TYPE "):
                self.assertEqual(line.split()[2], name)
                types[name] = line.split()[3]
            else:
                m = SERIES.match(line)
                self.assertTrue(m, line)
                self.assertEqual(m[1], name)
                self.assertNotIn((m[1], m[2]), found)
                found[m[1], m[2]] = float(m[3])
                self.assertEqual(types[name] == "counter", name.endswith("_total"))
        return found

    def test_the_same_as_json(self):
        have = self.series()
        status = json.loads(self.ask("status", "--json").stdout)
        names = {name for name, _ in have}
        for key, value in status.items():
            if not isinstance(value, int):
                continue
            stem = key[:-3] + "_seconds" if key.endswith("_ns") else key
            mine = [n for n in names
                    if n in (f"asyncpf_{stem}{unit}{total}" for unit in ("", "_blocks")
                             for total in ("", "_total"))]
            self.assertEqual(len(mine), 1, key)
            if not key.endswith("_ns"):
                self.assertEqual(have[mine[0], 'vm=""'], value, key)
        for i, vcpu in enumerate(status["vcpus"]):
            self.assertEqual(have["asyncpf_vcpu_stalls_total", f'vm="",vcpu="{i}"'],
                             vcpu["stalls"])
        self.assertEqual(have["asyncpf_evicted_blocks_total", 'vm=""'], 3)
        self.assertEqual(have["asyncpf_state", 'vm="",state="running"'], 1)

    @unittest.skipUnless(shutil.which("promtool"), "promtool (Debian's prometheus) is not there")
    def test_promtool(self):
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text(), text=True,
                              capture_output=True, check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


if __name__ == "__main__":
    sys.exit(control_support.main())
