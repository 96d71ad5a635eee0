#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/lab and `asyncpf run --lab` for real: what goes in and what comes out, a Linux guest
with a terminal, a disk and a control socket, and that nothing is left when it is killed.

usage: lab_run_test.py PATH_OF_ASYNCPF MULTIBOOT_KERNEL SOURCE_FOLDER
"""
import contextlib
import json
import os
import pathlib
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import termios
import time
import unittest

ASYNCPF, MULTIBOOT, SOURCE = (str(pathlib.Path(sys.argv.pop(1)).resolve()) for _ in range(3))
LAB = f"{SOURCE}/tools/lab"
sys.dont_write_bytecode = True
sys.path.insert(0, f"{SOURCE}/tools")
from lab_parts.cpio import Cpio
from lab_parts.fetch import kernel_image, only_file
from lab_parts.initramfs import load_modules

SKIPPED = 77
KERNEL = "6.12"
WAIT_S = 240  # a hang is a failure, whatever the machine's speed

# The guest's: a shell on the console, with a disk.
INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
echo guest is up
exec setsid sh -c 'exec sh -i </dev/ttyS0 >/dev/ttyS0 2>&1'
"""


def guest_initramfs():
    cpio = Cpio()
    modules = load_modules(KERNEL, ["virtio-mmio", "virtio-blk"])
    for folder in ("bin", "dev", "proc"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    cpio.file("bin/busybox", only_file("busybox/**/busybox", "busybox").read_bytes())
    for name, image in modules.items():
        cpio.file(f"modules/{name}", image)
    cpio.file("modules/order", "\n".join(modules).encode())
    cpio.file("init", INIT)
    return cpio.finish()


def children(pid):
    """All below pid that are still there."""
    below = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            below += [int(stat.parent.name), *children(int(stat.parent.name))]
    return below


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(
            encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Bed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def file(self, name, content):
        path = pathlib.Path(self.folder, name)
        path.write_bytes(content)
        return str(path)

    def wait_until(self, true, what):
        end = time.monotonic() + WAIT_S
        while not true():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)


class Tool(Bed):
    def test_in_and_out(self):
        disk = self.file("disk,1", bytes(1 << 20))
        other = self.file("other", b"read me!" + bytes((1 << 20) - 8))
        data = os.urandom(100000)
        script = ("cat >got; echo to-err >&2; head -c 8 /dev/vdb; echo; "
                  "echo written | dd of=/dev/vda bs=512 seek=3 conv=fsync 2>/dev/null; "
                  "dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null || echo refused; "
                  "cat name/x; exit 7")
        done = subprocess.run(
            [LAB, "run", "--stdin", "--disk", disk, "--disk", f"{other},ro",
             "--file", f"{self.file('in', b'carried')}:name/x", "--get", f"got:{self.folder}/got",
             "--", "sh", "-c", script],
            input=data, capture_output=True, check=False, timeout=WAIT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (7, b"read me!\nrefused\ncarried", b"to-err\n"))
        self.assertEqual(pathlib.Path(self.folder, "got").read_bytes(), data)
        self.assertEqual(pathlib.Path(disk).read_bytes()[1536:1544], b"written\n")
        self.assertEqual(pathlib.Path(other).read_bytes()[:8], b"read me!")

    def test_its_idle_cpu_is_interrupted(self):
        script = ("count() { awk '/virtio.*virtqueues/ {print $2}' /proc/interrupts; }; "
                  "before=$(count); sleep 2; after=$(count); echo $((after - before))")
        done = subprocess.run([LAB, "run", "--", "sh", "-c", script], capture_output=True,
                              check=True, timeout=WAIT_S)
        self.assertGreater(int(done.stdout), 3)

    def test_a_slow_clock(self):
        library = f"{pathlib.Path(ASYNCPF).parent}/slow_clock.so"
        script = "cat /proc/uptime; sleep 2; cat /proc/uptime"
        uptimes, seen = [], []
        with subprocess.Popen([LAB, "run", "--slow", f"{library}:3", "--", "sh", "-c", script],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as proc:
            for line in proc.stdout:
                uptimes.append(float(line.split()[0]))
                seen.append(time.monotonic())
        self.assertEqual(proc.returncode, 0)
        # 3, but that a line may be seen some time after it was written.
        self.assertGreater((seen[1] - seen[0]) / (uptimes[1] - uptimes[0]), 2)

    def killed_by(self, number):
        with subprocess.Popen([LAB, "run", "--", "sleep", "1000"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as proc:
            self.wait_until(lambda: any("qemu" in os.readlink(f"/proc/{c}/exe")
                                        for c in children(proc.pid)), "no QEMU")
            below = children(proc.pid)
            proc.send_signal(number)
            status = proc.wait(WAIT_S)
            self.wait_until(lambda: all(map(is_gone, below)), "QEMU is left")
        return status

    def test_qemu_is_killed(self):
        with subprocess.Popen([LAB, "run", "--", "sleep", "1000"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as proc:
            self.wait_until(lambda: any("qemu" in os.readlink(f"/proc/{c}/exe")
                                        for c in children(proc.pid)), "no QEMU")
            for child in children(proc.pid):
                os.kill(child, signal.SIGKILL)
            self.assertIn(b"it was ended by signal 9", proc.stderr.read())
            self.assertEqual(proc.wait(WAIT_S), 125)

    def test_nothing_is_left(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self.assertEqual(self.killed_by(number), -number)


class Run(Bed):
    def test_a_multiboot_kernel(self):
        out, trace = f"{self.folder}/out.json", f"{self.folder}/trace.json"
        done = subprocess.run([ASYNCPF, "run", "--lab", "--kernel", MULTIBOOT, "--memory=64M",
                               "--cmdline", "one two exit=7", "--exit-port", "--json", out,
                               "--trace", trace],
                              stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=WAIT_S)
        self.assertEqual(done.stderr, "")
        told = json.loads(pathlib.Path(out).read_text(encoding="utf-8"))
        self.assertIn("argument 1: one", done.stdout)
        self.assertIn("argument 2: two", done.stdout)
        self.assertEqual((told["end"], told["exit_port_value"]), ("exit-port", 7))
        self.assertEqual(told["memory_bytes"], 64 << 20)
        self.assertEqual(json.loads(pathlib.Path(trace).read_text(encoding="utf-8"))[0]["name"],
                         "process_name")
        self.assertEqual(done.returncode, 160 + 7)


class Typing:
    """`asyncpf run --lab` at a terminal of its own."""

    def __init__(self, words):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(words[0], words)

    def expect(self, text):
        """Reads on until the output has `text`, behind what an earlier call has found."""
        end = time.monotonic() + WAIT_S
        while text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.fd, 65536)
        self.seen = self.seen.partition(text)[2]

    def type(self, data):
        os.write(self.fd, data)

    def kill(self):
        """Where a test has failed before its end."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def mode(self):
        return termios.tcgetattr(self.fd)

    def end(self):
        """(exit status, mode of the terminal after it). Reads on, or it could not end."""
        pid, status = 0, 0
        while pid == 0:
            if select.select([self.fd], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # EIO: nobody has it open any more
                    os.read(self.fd, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        self.pid = None
        mode = self.mode()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), mode


class Escape(Bed):
    def test_a_command_that_does_not_end_for_it(self):
        run = Typing([str(LAB), "run", "--stdin", "--", "sh", "-c", "echo sle''eps; sleep 1000"])
        self.addCleanup(run.kill)
        before = run.mode()
        run.expect(b"sleeps")
        run.type(b"\x01x")
        self.assertEqual(run.end(), (5, before))


class Linux(Bed):
    def test_terminal_disk_and_swap(self):
        disk = self.file("disk", bytes(1 << 20))
        trace = f"{self.folder}/trace.json"
        out = f"{self.folder}/out.json"
        run = Typing([ASYNCPF, "run", "--lab", "--kernel", str(kernel_image(KERNEL)),
                      "--initrd", self.file("initrd", guest_initramfs()), "--memory=192M",
                      "--cmdline", "console=ttyS0 panic=-1 quiet", "--disk", disk,
                      "--resident-max=128M", "--swap", f"{self.folder}/swap", "--json", out,
                      "--trace", trace,
                      "--control", f"{self.folder}/control"])
        self.addCleanup(run.kill)
        before = run.mode()
        run.expect(b"guest is up")
        self.assertFalse(run.mode()[3] & termios.ICANON)
        # Typed in two halves: what is echoed is not yet what is asked for.
        run.type(b"echo an''swer | dd of=/dev/vda conv=fsync 2>/dev/null; echo do''ne\r")
        run.expect(b"done")
        self.assertEqual(pathlib.Path(disk).read_bytes()[:7], b"answer\n")
        self.control_works(f"{self.folder}/control")
        # A Ctrl-C that comes before its shell's next command has begun must not be lost.
        run.type(b"trap 'echo inter\"\"rupted' INT; echo sl''eeping; "
                 b"while :; do sleep 1; done\r")
        run.expect(b"sleeping")
        run.type(b"\x03")  # the guest's
        run.expect(b"interrupted")
        run.type(b"\x01x")
        self.assertEqual(run.end(), (5, before))
        told = json.loads(pathlib.Path(out).read_text(encoding="utf-8"))
        events = json.loads(pathlib.Path(trace).read_text(encoding="utf-8"))
        self.assertEqual(events[0]["name"], "process_name")
        self.assertEqual(told["end"], "escape")
        self.assertFalse(os.path.exists(f"{self.folder}/swap"))
        self.assertFalse(os.path.exists(f"{self.folder}/control"))

    def control_works(self, path):
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        for verb in ("status", "pause", "status", "resume"):
            done = subprocess.run([ASYNCPF, verb, "--control", path], text=True, check=False,
                                  capture_output=True, timeout=WAIT_S)
            self.assertEqual(done.returncode, 0, done)
        told = subprocess.run([ASYNCPF, "status", "--control", path, "--json"], check=True,
                              capture_output=True, timeout=WAIT_S)
        self.assertEqual(json.loads(told.stdout)["memory_bytes"], 192 << 20)
        self.assertIn("too many clients: try again when one has gone", self.seventeenth(path))

    @staticmethod
    def seventeenth(path):
        """What `status` says beside sixteen others who keep their connections."""
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.settimeout(WAIT_S)
                client.connect(path)
                client.recv(100)  # its greeting: it has a place
            return subprocess.run([ASYNCPF, "status", "--control", path], check=False,
                                  capture_output=True, text=True, timeout=WAIT_S).stderr


def main():
    fetched = subprocess.run([LAB, "fetch"], capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        print(f"SKIP: there is no lab here: {fetched.stderr.strip().splitlines()[-1]}")
        return SKIPPED
    unittest.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
