#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory that the host refuses a running VM: it is paused, says why, and goes on later.

With vm.overcommit_memory=2 the kernel keeps a reserve from each process that grows with its
addresses (vm.user_reserve_kbytes): a process with many is refused memory while no other one is.
Needs root.

usage: run_memory_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL PATH_OF_SHIM
"""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest

from run_support import LIMIT_S, RunTest, asyncpf, main, toucher

DONE = 160  # --exit-port, and 0
SHIM = str(pathlib.Path(sys.argv[3]).resolve())
SYSCTLS = pathlib.Path("/proc/sys/vm")
# In kB: more than anybody uses, and a reserve that only few addresses can have.
LIMIT, RESERVE = 1 << 30, 1 << 31


@contextlib.contextmanager
def refused_memory():
    names = ("overcommit_memory", "user_reserve_kbytes", "overcommit_ratio", "overcommit_kbytes")
    before = {name: (SYSCTLS / name).read_text(encoding="ascii") for name in names}
    # Of the last two one is 0, and to write the other one makes it so.
    if before["overcommit_kbytes"].strip() == "0":
        del before["overcommit_kbytes"]
    else:
        del before["overcommit_ratio"]
    try:
        (SYSCTLS / "user_reserve_kbytes").write_text(str(RESERVE), encoding="ascii")
        (SYSCTLS / "overcommit_kbytes").write_text(str(LIMIT), encoding="ascii")
        (SYSCTLS / "overcommit_memory").write_text("2", encoding="ascii")
        yield
    finally:
        for name, value in before.items():
            (SYSCTLS / name).write_text(value, encoding="ascii")


class Memory(RunTest):
    def status(self):
        done = subprocess.run([asyncpf(), "status", "--control", "s", "--json"], check=False,
                              cwd=self.folder, capture_output=True, timeout=LIMIT_S)
        if done.returncode != 0:
            return {"state": "none", "said": done.stderr.decode()}
        return json.loads(done.stdout)

    def wait_until(self, state):
        end = time.monotonic() + LIMIT_S
        while (status := self.status())["state"] != state:
            self.assertLess(time.monotonic(), end, f"not {state}: {status}")
            time.sleep(0.01)
        return status

    def test_refused_then_given(self):
        self.file("guest", toucher())
        vm = subprocess.Popen(
            [asyncpf(), "run", "--local", "--kernel", "guest", "--memory", "96M", "--exit-port",
             "--control", "s"], cwd=self.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": SHIM, "SHIM_ADDRESSES": "1"}, text=True)
        self.addCleanup(lambda: (vm.kill(), vm.communicate()))
        self.wait_until("running")
        with refused_memory():
            vm.stdin.write("x")
            vm.stdin.flush()
            why = self.wait_until("paused")["why"]
            self.assertRegex(why, r"no room for \S+ more, or may not promise it "
                                  r"\(vm\.overcommit_memory=2\)")
        subprocess.run([asyncpf(), "resume", "--control", "s"], cwd=self.folder, check=True,
                       capture_output=True, timeout=LIMIT_S)
        _, said = vm.communicate(timeout=LIMIT_S)
        self.assertEqual(vm.returncode, DONE, said)
        self.assertIn("vm.overcommit_memory=2", said)
        self.assertEqual(os.listdir(self.folder), ["guest"])


if __name__ == "__main__":
    if os.geteuid() != 0 or not os.access(SYSCTLS / "overcommit_memory", os.W_OK):
        print("SKIP: the host's memory is root's to limit")
        sys.exit(77)
    if "asan" in asyncpf() or "tsan" in asyncpf():
        print("SKIP: a sanitizer has too many addresses of its own")
        sys.exit(77)
    main()
