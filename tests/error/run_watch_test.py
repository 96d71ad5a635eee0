#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf run` of a guest that does not do what one expects: told once, and in `status`.

usage: run_watch_test.py PATH_OF_ASYNCPF PATH_OF_MULTIBOOT_KERNEL
"""
import json
import os
import struct
import subprocess
import time

from run_support import LIMIT_S, RunTest, asyncpf, main

BASE = 1 << 20
HEADER_BYTES = 32
HALT = bytes.fromhex("faf4ebfc")      # cli; hlt; again
IDLE = bytes.fromhex("fbf4ebfc")      # sti; hlt; again
# mov $text, %esi; mov $0x3f8, %dx; lodsb; test %al, %al; jz 1f; out %al, (%dx); jmp 0b; 1:
PRINT_BYTES = 5 + 4 + 8


def image(text, then):
    """A multiboot kernel that prints a text, and then this."""
    at = BASE + HEADER_BYTES + PRINT_BYTES + len(then)
    code = b"\xbe" + struct.pack("<I", at) + bytes.fromhex("66baf803" "ac84c07403eeebf8") + then
    code += text + b"\0"
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                       BASE, BASE + HEADER_BYTES + len(code), 0, BASE + HEADER_BYTES) + code


class Watch(RunTest):
    def start(self, name, *words):
        process = subprocess.Popen(
            [asyncpf(), *words, "--control", f"{name}.s"], cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        return process

    def begin(self, name, text, then, *words):
        """A guest and its control socket, both called `name`."""
        self.file(name, image(text, then))
        return self.start(name, "run", "--kernel", name, "--memory", "16M", *words)

    def restored(self, name, of):
        """What `of` is by now, as another VM."""
        self.verb("snapshot", of, name)
        return self.start(name, "restore", name)

    def told(self, process, pattern):
        self.assertRegex(process.stderr.readline(), rf"\Aasyncpf: note: {pattern}\n\Z")

    def verb(self, verb, name, *words):
        end = time.monotonic() + LIMIT_S
        while not os.path.exists(self.folder / f"{name}.s"):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        subprocess.run([asyncpf(), verb, "--control", f"{name}.s", *words], cwd=self.folder,
                       check=True, capture_output=True, timeout=LIMIT_S)

    def note(self, name):
        done = subprocess.run([asyncpf(), "status", "--control", f"{name}.s", "--json"],
                              cwd=self.folder, capture_output=True, check=True, timeout=LIMIT_S)
        return json.loads(done.stdout)["note"]

    def test_all(self):
        """Side by side, since each takes its time."""
        began = time.monotonic()
        well = self.begin("well", b"here\n", IDLE)
        halted = self.begin("halted", b"first\nlast words\n", HALT, "--exit-port")
        several = self.begin("several", b"alone", HALT, "--cpus", "3")
        panicked = self.begin("panicked", b"[ 1.0] Kernel panic - not syncing: for a test\n", IDLE)
        silent = self.begin("silent", b"", IDLE)
        quiet = self.begin("quiet", b"x\n", HALT, "--quiet")
        paused = self.begin("paused", b"", IDLE)
        self.verb("pause", "paused")
        restored = self.restored("restored", "paused")
        self.told(halted, "the guest has halted, with interrupts off; it last printed: last words")
        self.assertIn("the guest has halted", self.note("halted"))
        self.told(several, r"the guest has halted, with interrupts off \(what ends by port 0xf4 "
                           r"needs --exit-port\); it last printed: alone")
        self.told(panicked, r"the guest has panicked, and does not end by itself: \[ 1.0\] Kernel "
                            "panic - not syncing: for a test")
        self.told(silent, r"the guest has printed nothing to the console for 30 s: that is the "
                          r"first serial port, 0x3f8 \(Xen: console=com1 com1=115200 in "
                          r"--cmdline\)")
        self.assertGreater(time.monotonic() - began, 29)
        # Nor is the time of a guest counted that stands still.
        self.assertEqual((self.note("well"), self.note("paused")), (None, None))
        # What a restored guest has printed before is not known.
        self.assertIsNone(self.note("restored"))
        self.assertIn("the guest has halted", self.note("quiet"))
        # Each was told once, and those that are well or quiet were not.
        for process in (well, quiet, paused, restored, halted, several, silent, panicked):
            process.terminate()
            self.assertEqual(process.communicate(timeout=LIMIT_S)[1], "")


if __name__ == "__main__":
    main()
