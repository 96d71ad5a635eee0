#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/kvm-unit-tests with kernels of our own under the suite's names: what passes, fails,
skips, hangs or is not there, each with its line.

usage: kvm_unit_tests_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL SOURCE_FOLDER
"""
import pathlib
import shutil
import struct
import subprocess
import sys

from run_support import LIMIT_S, RunTest, asyncpf, kernel, main

BASE = 1 << 20
HEADER_BYTES = 32


def image(code):
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                       BASE, BASE + HEADER_BYTES + len(code), 0, BASE + HEADER_BYTES) + code


def ends_with(value):
    """mov $value, %al; out %al, $0xf4; hlt"""
    return image(bytes([0xb0, value, 0xe6, 0xf4, 0xf4]))


HANGS = image(bytes.fromhex("fbf4ebfc"))  # sti; hlt; again


class Suite(RunTest):
    def tool(self, *words):
        return subprocess.run([pathlib.Path(sys.argv[3], "tools/kvm-unit-tests"), asyncpf(),
                               self.folder, "--here", *words], capture_output=True, text=True,
                              check=False, timeout=LIMIT_S)

    def test_outcomes(self):
        shutil.copy(kernel(), self.folder / "setjmp.elf")
        self.file("smptest.flat", ends_with(0))
        self.file("umip.flat", ends_with(1))
        self.file("pcid.flat", ends_with(77))
        self.file("tsc.flat", HANGS)
        self.file("nobody.flat", ends_with(0))
        done = self.tool("--timeout", "3", "--", "--faults", "stall")
        lines = done.stdout.splitlines()
        for line in ("passed: setjmp", "passed: smptest", "passed: smptest3", "failed: umip",
                     "skipped: pcid", "failed: tsc (it did not end in time)"):
            self.assertIn(line, lines)
        self.assertRegex(lines[-1], r"\A3 passed, 2 failed, 1 skipped; not there: idt_test ")
        self.assertNotIn("nobody", done.stdout)
        self.assertEqual((done.returncode, done.stderr), (1, ""))

    def test_all_pass(self):
        self.file("setjmp.flat", ends_with(0))
        done = self.tool("--only", "setjmp")
        self.assertEqual((done.returncode, done.stdout),
                         (0, "passed: setjmp\n1 passed, 0 failed, 0 skipped\n"))

    def test_what_they_ask_for(self):
        """Processors and memory by fw_cfg, the test device, the exit port."""
        done = self.run_it("--kernel", kernel(), "--memory", "32M", "--cpus", "3", "--exit-port",
                           "--cmdline", "fwcfg testdev exit=0")
        self.assertEqual(done.returncode, 160)
        self.assertIn("fw_cfg: 3 processors, memory 0x0000000002000000\n", done.stdout)
        self.assertIn("test device: 0x78ab3412, memory 0x0000cafe, line 01\n", done.stdout)
        # The device is for who ends by the exit port.
        done = self.run_it("--kernel", kernel(), "--cmdline", "fwcfg testdev off")
        self.assertIn("fw_cfg: 1 processors, memory 0x0000000001000000\n", done.stdout)
        self.assertIn("test device: 0xffffffff, memory 0xffffffff, line 00\n", done.stdout)

    def test_nothing_there(self):
        done = self.tool()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"\Aasyncpf: no tests: .*; build kvm-unit-tests and name its "
                                      r"folder x86\n\Z")


if __name__ == "__main__":
    main()
