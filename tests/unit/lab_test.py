#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/lab without a network and without QEMU: the archive it writes, what it reads from
other programs' output, what it takes for a complaint of the kernel, the machine it asks for,
what it makes of standard input, its command line.

usage: lab_test.py SOURCE_FOLDER
"""
import argparse
import contextlib
import io
import math
import os
import pathlib
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time
import unittest
from unittest import mock

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
import lab_parts
from lab_parts import LabError, command, cpio, fetch, initramfs, machine, session, terminal, watch


def read_cpio(data):
    """[(name, mode, content)], by the kernel's Documentation/driver-api/early-userspace."""
    entries, at = [], 0
    while True:
        assert data[at:at + 6] == b"070701", at
        f = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + f[11] - 1].decode()
        assert data[at + 110 + f[11] - 1] == 0
        body = (at + 110 + f[11] + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries.append((name, f[1], data[body:body + f[6]]))
        at = (body + f[6] + 3) & ~3


class Archive(unittest.TestCase):
    def test_names_of_every_length_and_content_of_every_length(self):
        archive = cpio.Cpio()
        for n in range(1, 10):
            archive.file("x" * n, b"y" * n, 0o640)
        entries = read_cpio(archive.finish())
        self.assertEqual(entries, [("x" * n, stat.S_IFREG | 0o640, b"y" * n)
                                   for n in range(1, 10)])

    def test_folders_come_first_and_once(self):
        archive = cpio.Cpio()
        archive.file("/lib64/a/b", b"1")
        archive.file("lib64/a/c", b"2")
        archive.folder("lib64")
        archive.device("dev/console", 5, 1)
        names = [(name, stat.S_IFMT(mode)) for name, mode, _ in read_cpio(archive.finish())]
        self.assertEqual(names, [("lib64", stat.S_IFDIR), ("lib64/a", stat.S_IFDIR),
                                 ("lib64/a/b", stat.S_IFREG), ("lib64/a/c", stat.S_IFREG),
                                 ("dev", stat.S_IFDIR), ("dev/console", stat.S_IFCHR)])

    def test_a_name_is_taken_once(self):
        archive = cpio.Cpio()
        archive.file("lib/libc.so.6", b"first")
        archive.file("lib/libc.so.6", b"second")
        self.assertEqual(read_cpio(archive.finish())[-1][2], b"first")


class Reading(unittest.TestCase):
    def test_ldd(self):
        text = ("\tlinux-vdso.so.1 (0x00007ffd1b3f6000)\n"
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1c5b000000)\n"
                "\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c5b3a1000)\n")
        self.assertEqual(initramfs.libraries_of(text, "p"), ["/lib/x86_64-linux-gnu/libc.so.6",
                                                       "/lib64/ld-linux-x86-64.so.2"])
        self.assertEqual(initramfs.libraries_of("\tnot a dynamic executable\n", "p"), [])
        self.assertEqual(initramfs.libraries_of("\tstatically linked\n", "p"), [])

    def test_ldd_says_what_is_missing(self):
        with self.assertRaisesRegex(LabError, r"^cannot start: p: its library libx\.so\.1 "):
            initramfs.libraries_of("\tlibx.so.1 => not found\n", "p")

    def test_a_real_program_and_a_script(self):
        self.assertTrue(any("libc.so" in path for path in initramfs.ldd("/bin/sh")))
        self.assertEqual(initramfs.ldd(str(SOURCE / "tools/setup")), [])

    def test_plan_of_apt(self):
        plan = ("Reading package lists...\nInst libfdt1 (1.6.1-4+b1 Debian:12/oldstable [amd64])\n"
                "Inst qemu-system-x86 [1:7.2] (1:10.0.2+ds-2 Backports:x [amd64]) []\n"
                "Conf libfdt1 (1.6.1-4+b1 Debian:12/oldstable [amd64])\n")
        self.assertEqual(fetch.installs_of(plan), ["libfdt1=1.6.1-4+b1",
                                                 "qemu-system-x86=1:10.0.2+ds-2"])

    def test_archive_is_the_machines_own(self):
        targets = ("scheme://one/other|bookworm|contrib\nscheme://two/debian|bookworm|main\n"
                   "scheme://three/security|bookworm-security|main\n")
        self.assertEqual(fetch.archive_of(targets), "scheme://two/debian")
        with self.assertRaisesRegex(LabError, "Debian 12"):
            fetch.archive_of("scheme://one|noble|main\n")

    def test_what_a_module_needs(self):
        image = b"\x7fELF..license=GPL\0depends=kvm,ccp\0name=kvm_amd\0"
        self.assertEqual(initramfs.module_depends(image), ["kvm", "ccp"])
        self.assertEqual(initramfs.module_depends(b"a\0depends=\0b"), [])

    def test_last_words_of_qemu(self):
        noise = b"qemu: warning: TCG doesn't support requested feature: CPUID...\n"
        self.assertEqual(machine.qemu_words(b"qemu: no such bus\n" + noise, 1),
                         "qemu: no such bus")
        self.assertEqual(machine.qemu_words(noise, 0), "it ended without a word")
        self.assertEqual(machine.qemu_words(noise, -9), "it was ended by signal 9")


class Holder(unittest.TestCase):
    def test_it_is_a_program_that_ends_only_by_a_signal(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "vm-holder")
            path.write_bytes(initramfs.vm_holder())
            path.chmod(0o755)
            # Without a /dev/kvm its calls fail, and it sleeps all the same.
            with subprocess.Popen([path], stdin=subprocess.DEVNULL) as proc:
                with self.assertRaises(subprocess.TimeoutExpired):
                    proc.wait(0.2)
                proc.kill()
                self.assertEqual(proc.wait(10), -9)


class Pulse(unittest.TestCase):
    def test_it_beats_until_the_lab_ends(self):
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # nobody reads: soon full
        beating = threading.Thread(target=session.pulse, args=[ours, 0.0001], daemon=True)
        beating.start()
        beating.join(0.2)
        self.assertTrue(beating.is_alive())
        self.assertEqual(theirs.recv(1), b"\0")
        theirs.close()
        beating.join(10)
        self.assertFalse(beating.is_alive())


class Watching(unittest.TestCase):
    def watch(self, timeout=10):
        return watch.Watch(
            argparse.Namespace(verbose=False, verb="run", timeout=timeout, log="log"))

    def complaint(self, *lines):
        watch = self.watch()
        watch.console(("\n".join(lines) + "\n").encode())
        return watch.complaint

    def test_complaints(self):
        for line in ("WARNING: CPU: 1 PID: 80 at arch/x86/kvm/x86.c:1 f+0x1/0x2 [kvm]",
                     "BUG: unable to handle page fault for address: 00", "Kernel panic - not",
                     "INFO: task asyncpf:80 blocked for more than 120 seconds.",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU",
                     "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                     "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [asyncpf:80]",
                     "Oops: general protection fault, maybe for address 0x0: 0000 [#1]"):
            self.assertEqual(self.complaint("[    1.0] fine", f"[    3.141592] {line}"), line)

    def test_no_complaints(self):
        for line in ("AMD Zen1 DIV0 bug detected. Disable SMT for full protection.",
                     "asyncpf[80]: segfault at 0 ip 0 sp 0 error 4",
                     "rcu: Preemptible hierarchical RCU implementation.",
                     "mtrr: your CPUs had inconsistent fixed MTRR settings"):
            self.assertIsNone(self.complaint(f"[    3.141592] {line}"), line)

    def test_cut_here_gives_way_to_what_it_announces(self):
        self.assertEqual(self.complaint("[  1.0] ------------[ cut here ]------------",
                                        "[  1.0] WARNING: CPU: 1", "[  1.0] WARNING: CPU: 2"),
                         "WARNING: CPU: 1")

    def test_a_line_in_two_parts(self):
        watch = self.watch()
        watch.console(b"[  1.0] WARN")
        self.assertIsNone(watch.complaint)
        watch.console(b"ING: x\n")
        self.assertEqual(watch.complaint, "WARNING: x")

    def test_what_ends_a_run(self):
        watch = self.watch(timeout=1000)
        self.assertIsInstance(watch.deadline()[1], LabError)
        watch.answer(b"rea")
        self.assertIsNone(watch.ready_s)
        watch.answer(b"dy\n")
        self.assertIsInstance(watch.deadline()[1], TimeoutError)
        watch.console(b"BUG: x\n")
        self.assertIsNone(watch.deadline()[1])


    def test_a_run_without_limit(self):
        watching = self.watch(timeout=0)
        watching.answer(b"ready\n")
        self.assertEqual(watching.deadline(), (math.inf, None))

    def test_ready_is_told_once(self):
        told = []
        watching = watch.Watch(argparse.Namespace(verbose=False), lambda: told.append(1))
        watching.answer(b"ready\n")
        watching.answer(b"status 0\n")
        self.assertEqual(told, [1])


class Machine(unittest.TestCase):
    def words(self, verb="run", disk=(), net=False, forward=(), **fds):
        o = argparse.Namespace(verb=verb, cpus=3, memory=700, kernel="6.12", verbose=False,
                               disk=disk, vfio=False, net=net, forward=forward)
        with mock.patch.object(machine, "kernel_image", lambda _: "/k"):
            return machine.qemu_command(o, {"initrd": 10, "log": 11, **fds})

    def after(self, words, option):
        return [b for a, b in zip(words, words[1:]) if a == option]

    def test_ports_are_those_that_init_opens(self):
        words = self.words(out=12, input=13, relay=14)
        self.assertEqual(self.after(words, "-chardev"), [
            "file,id=log,path=/proc/self/fd/11", "file,id=out,path=/proc/self/fd/12",
            "socket,id=input,fd=13", "socket,id=relay,fd=14"])
        self.assertEqual(self.after(words, "-device"), [
            "virtio-serial-pci", "virtserialport,nr=1,chardev=out",
            "virtserialport,nr=4,chardev=input", "virtserialport,nr=5,chardev=relay"])
        for text in (initramfs.MAIN_RUN, *initramfs.COMMAND.values(), initramfs.RELAY,
                     initramfs.INIT):
            for port in re.findall(r"/dev/vport0p(\d)", text):
                self.assertIn(int(port), machine.PORTS.values())

    def test_a_terminal_is_a_console(self):
        self.assertIn("virtconsole,chardev=terminal", self.words(terminal=12))
        self.assertIn("virtconsole,chardev=terminal", self.words(verb="shell"))
        self.assertNotIn("virtconsole,chardev=terminal", self.words())

    def test_a_network_is_there_when_asked_for(self):
        self.assertEqual(self.after(self.words(), "-netdev"), [])
        words = self.words(net=True, forward=[("tcp", "127.0.0.1", 80), ("udp", "0.0.0.0", 53)])
        self.assertEqual(self.after(words, "-netdev"), [
            "user,id=net,hostfwd=tcp:127.0.0.1:80-:80,hostfwd=udp:0.0.0.0:53-:53"])
        self.assertIn("virtio-net-pci,netdev=net,romfile=", words)

    def test_it_can_start_nothing_else(self):
        words = self.words()
        denied = words[words.index("-sandbox") + 1].split(",")
        self.assertEqual(denied, ["on", "obsolete=deny", "elevateprivileges=deny", "spawn=deny",
                                  "resourcecontrol=deny"])

    def test_size(self):
        words = self.words()
        self.assertEqual((self.after(words, "-smp"), self.after(words, "-m")), (["3"], ["700M"]))

    def test_disks(self):
        with tempfile.TemporaryDirectory() as folder:
            odd, whole = pathlib.Path(folder, "a,b"), pathlib.Path(folder, "c")
            odd.write_bytes(bytes(1300))
            whole.write_bytes(bytes(2048))
            words = self.words(disk=[(str(odd), True), (str(whole), False)])
            self.assertEqual(self.after(words, "-drive"), [
                f"file={folder}/a,,b,format=raw,if=none,id=disk0,readonly=on,werror=report,"
                "rerror=report,size=1024",
                f"file={folder}/c,format=raw,if=none,id=disk1,readonly=off,werror=report,"
                "rerror=report"])
            for n in range(2):
                self.assertIn(f"virtio-blk-pci,drive=disk{n},logical_block_size=512", words)


class Init(unittest.TestCase):
    def main(self, **values):
        o = {"input": "none", "socket": None, "get": [], **values}
        return initramfs.main_run(argparse.Namespace(**o))

    def test_what_the_command_reads(self):
        self.assertIn("\nsh /command </dev/null >/run/out", self.main())
        self.assertIn("\nsh /command </dev/vport0p4 >/run/out", self.main(input="stream"))
        self.assertIn("\nsetsid -c sh /command </dev/hvc0 >", self.main(input="terminal"))

    def test_words_are_quoted(self):
        text = self.main(socket=("s", "/run/a b"), get=[("c d", "x")])
        self.assertIn("./asyncpf lab-relay '/run/a b' <>/dev/vport0p5", text)
        self.assertIn("tar c -f - 'c d' >&9", text)
        self.assertNotIn("lab-relay", self.main())

    def test_what_is_fetched_has_left_the_port(self):
        """More writes follow than the port's queue has places, of what tar passes over."""
        lines = self.main(get=[("a", "x")]).splitlines()
        after = lines[lines.index("tar c -f - a >&9 2>/dev/null") + 1]
        count = re.fullmatch(r"dd if=/dev/zero bs=512 count=(\d+) 2>/dev/null >&9", after)
        self.assertGreaterEqual(int(count[1]), 2 * 128)
        self.assertNotIn("dd ", self.main())


class Input(unittest.TestCase):
    def test_escape(self):
        for typed, found in ((b"\x01x", True), (b"a\x01xb", True), (b"\x01\x01x", False),
                             (b"\x01ax", False), (b"x", False), (b"\x01\x01\x01x", True)):
            self.assertEqual(terminal.Escape().typed_in(typed), found, typed)
        escape = terminal.Escape()
        self.assertFalse(escape.typed_in(b"\x01"))
        self.assertTrue(escape.typed_in(b"x"))

    def test_a_stream_with_its_end(self):
        ours, theirs = socket.socketpair()
        r, w = os.pipe()
        with ours, theirs:
            terminal.start_feeding(terminal.Terminal(r), ours)
            os.write(w, b"\x01x\0\xff")
            os.close(w)
            with theirs.makefile("rb") as stream:
                self.assertEqual(stream.read(), b"\x01x\0\xff")
        os.close(r)

    def test_a_terminal_is_raw_for_a_while(self):
        pid, fd = pty.fork()
        if pid == 0:  # here standard input is a terminal of our own
            before = termios.tcgetattr(0)
            ours = terminal.Terminal(0)
            ours.start()
            flags = termios.tcgetattr(0)
            ours.restore()
            ours.restore()
            good = (ours.usable and not flags[3] & (termios.ECHO | termios.ISIG)
                    and flags[1] == before[1] and termios.tcgetattr(0) == before)
            os._exit(0 if good else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(fd)

    def test_job_control(self):
        """Stopped, in the background, back: what a shell does with a job."""
        pid, fd = pty.fork()
        if pid == 0:
            os._exit(0 if self.shell() else 1)
        status = 0
        with contextlib.suppress(OSError):
            os.write(fd, b"k")
            while os.read(fd, 100):
                pass
        status = os.waitpid(pid, 0)[1]
        os.close(fd)
        self.assertEqual(status, 0)

    def shell(self):
        """The shell's part; the job says over a pipe how it finds its terminal."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        before = termios.tcgetattr(0)
        r, w = os.pipe()
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            self.job(w)

        def raw():
            return not termios.tcgetattr(0)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)

        def until(condition):
            end = time.monotonic() + 20
            while not condition():
                if time.monotonic() > end:
                    raise AssertionError("too late")
                time.sleep(0.01)

        try:
            assert os.read(r, 1) == b"u" and termios.tcgetattr(0) == before
            os.tcsetpgrp(0, job)  # and no signal, as a shell's fg of what runs
            until(raw)
            assert os.read(r, 1) == b"k"
            os.kill(job, signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(job, os.WUNTRACED)[1])
            assert termios.tcgetattr(0) == before
            os.tcsetpgrp(0, os.getpgrp())
            os.kill(job, signal.SIGCONT)
            assert os.read(r, 1) == b"c" and termios.tcgetattr(0) == before
            os.tcsetpgrp(0, job)
            until(raw)
            os.kill(job, signal.SIGTERM)
            assert os.waitpid(job, os.WUNTRACED)[1] == 0
            return termios.tcgetattr(0) == before
        except BaseException as e:
            print(f"{e!r}\r")
            os.kill(job, signal.SIGKILL)
            return False

    @staticmethod
    def job(w):
        def ended(*_):
            ours.restore()
            os._exit(0)

        ours = terminal.Terminal(0)
        ours.start()
        threading.Thread(target=lambda: os.write(w, ours.read()), daemon=True).start()
        stop = ours.stop

        def stopped(*_):
            stop()
            os.write(w, b"c")
            signal.signal(signal.SIGTSTP, stopped)

        signal.signal(signal.SIGTSTP, stopped)
        signal.signal(signal.SIGTERM, ended)
        os.write(w, b"u")
        while True:
            ours.look()
            time.sleep(0.02)

    def test_no_terminal(self):
        r, w = os.pipe()
        other = terminal.Terminal(r)
        other.start()
        other.restore()
        self.assertFalse(other.usable)
        os.close(r)
        os.close(w)


class Cache(unittest.TestCase):
    def test_of_the_source_tree(self):
        with mock.patch.dict(os.environ):
            os.environ.pop("ASYNCPF_LAB_CACHE", None)
            self.assertEqual(lab_parts.cache_folder(), SOURCE / "cache/lab")

    def test_of_an_installed_one(self):
        with tempfile.TemporaryDirectory() as folder:
            there = pathlib.Path(folder, "asyncpf/lab_parts/__init__.py")
            with mock.patch.object(lab_parts, "__file__", str(there)), \
                    mock.patch.dict(os.environ, HOME="/h", XDG_CACHE_HOME="/x"):
                os.environ.pop("ASYNCPF_LAB_CACHE", None)
                self.assertEqual(str(lab_parts.cache_folder()), "/x/asyncpf/lab")
                del os.environ["XDG_CACHE_HOME"]
                self.assertEqual(str(lab_parts.cache_folder()), "/h/.cache/asyncpf/lab")
                os.environ["ASYNCPF_LAB_CACHE"] = "/named"
                self.assertEqual(str(lab_parts.cache_folder()), "/named")


class Results(unittest.TestCase):
    def result(self, control, get=(), complaint=None):
        o = argparse.Namespace(verbose=False, get=get, log="log")
        watching = watch.Watch(o)
        watching.answer(control)
        watching.complaint = complaint
        return session.result(o, watching, "its words")

    def test_statuses(self):
        self.assertEqual(self.result(b"ready\nstatus 7\n"), 7)
        with self.assertRaisesRegex(LabError, "^cannot start: QEMU: its words; "):
            self.result(b"")
        with self.assertRaisesRegex(LabError, "^the lab ended: .*: its words; "):
            self.result(b"ready\n")
        with self.assertRaisesRegex(LabError, "^the lab's kernel complains: BUG: x; "):
            self.result(b"ready\nstatus 0\n", complaint="BUG: x")

    def test_a_missing_file_matters_when_all_went_well(self):
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w").close()
        get = [("a", "/dev/null")]
        with self.assertRaisesRegex(LabError, "^cannot get: a: "):
            self.result(b"ready\nstatus 0\n" + empty.getvalue(), get)
        self.assertEqual(self.result(b"ready\nstatus 5\n" + empty.getvalue(), get), 5)


class Getting(unittest.TestCase):
    def archive(self, **files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def test_a_file_and_one_that_is_not_there(self):
        with tempfile.TemporaryDirectory() as folder:
            o = argparse.Namespace(get=[("a", f"{folder}/got")])
            session.save_gets(o, self.archive(a=b"content"))
            self.assertEqual(pathlib.Path(folder, "got").read_bytes(), b"content")
            with self.assertRaisesRegex(LabError, "^cannot get: a: "):
                session.save_gets(o, self.archive(b=b""))
            o.get = [("a", f"{folder}/none/got")]
            with self.assertRaisesRegex(LabError, "^cannot write: "):
                session.save_gets(o, self.archive(a=b"content"))
            with self.assertRaisesRegex(LabError, "^cannot write: "):
                session.check_gets(o)


class CommandLine(unittest.TestCase):
    def refused(self, *words):
        done = subprocess.run([SOURCE / "tools/lab", *words], capture_output=True, text=True,
                              check=False, timeout=30)
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("asyncpf: wrong usage: tools/lab: "), done.stderr)
        return done.stderr

    def test_refusals(self):
        self.assertIn("no command", self.refused("run"))
        self.assertIn("no command", self.refused("run", "--cpus", "2", "--"))
        self.assertIn("for run", self.refused("shell", "--", "true"))
        self.assertIn("for run", self.refused("fetch", "--get", "a:b"))
        self.assertIn("'0' is not a number from 1", self.refused("run", "--cpus", "0", "--", "x"))
        self.assertIn("'1G' is not", self.refused("run", "--memory", "1G", "--", "x"))
        self.assertIn("NAME within", self.refused("run", "--file", "a:../b", "--", "x"))
        self.assertIn("NAME within", self.refused("run", "--file", ":b", "--", "x"))
        self.assertIn("NAME:LOCAL", self.refused("run", "--get", "a", "--", "x"))
        self.assertIn("'7.0'", self.refused("run", "--kernel", "7.0", "--", "x"))
        self.assertIn("'fly'", self.refused("fly"))
        self.assertIn("'/none' is not there", self.refused("run", "--disk", "/none,ro", "--", "x"))
        self.assertIn("LOCAL:NAME", self.refused("run", "--socket", "a:", "--", "x"))
        self.assertIn("--file asyncpf", self.refused("run", "--socket", "a:b", "--", "x"))
        self.assertIn("for run", self.refused("shell", "--stdin"))
        self.assertIn("LIBRARY:N", self.refused("run", "--slow", "/none:4", "--", "x"))
        self.assertIn("from 1 to 64", self.refused("run", "--slow", "/bin/sh:65", "--", "x"))
        self.assertIn("give --net", self.refused("run", "--forward", "tcp:1.2.3.4:5", "--", "x"))
        for forward in ("tcp", "sctp:1.2.3.4:5", "tcp:1.2.3:5", "tcp:1.2.3.256:5",
                        "tcp:1.2.3.x:5"):
            self.assertIn("ADDRESS:PORT", self.refused("run", "--net", "--forward", forward,
                                                       "--", "x"))
        self.assertIn("--fast", self.refused("run", "--fast", "--", "x"))

    def test_a_system_without_apt(self):
        """One line says where the lab can be had."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, SOURCE / "tools/lab", "kernel"], text=True,
                                  capture_output=True, check=False, timeout=30,
                                  env={"PATH": folder, "ASYNCPF_LAB_CACHE": f"{folder}/cache"})
            self.assertEqual(done.returncode, 125)
            self.assertRegex(done.stderr, r"\Afetching for the lab: .*\nasyncpf: [^\n]*apt-get: No "
                                          r"such file or directory; [^\n]*Debian 12[^\n]*\n\Z")
            self.assertEqual(os.listdir(f"{folder}/cache"), ["lock"])

    def test_words(self):
        o = command.parse(["run", "--file", "d/p", "--file", "d/p:q/r", "--get", "a:b:c", "--",
                           "sh", "-c", "--", "x"])
        self.assertEqual(o.file, [("d/p", "p"), ("d/p", "q/r")])
        self.assertEqual(o.get, [("a", "b:c")])
        self.assertEqual(o.command, ["sh", "-c", "--", "x"])
        self.assertEqual((o.cpus, o.memory, o.timeout), (1, 1024, command.TIMEOUT_S))
        self.assertEqual(command.parse(["run", "--slow", "/bin/sh:4", "--", "x"]).slow,
                         ("/bin/sh", 4))
        self.assertTrue(command.parse(["run", "--vfio", "--", "x"]).vfio)
        o = command.parse(["run", "--net", "--forward", "udp:127.0.0.1:5", "--library", "l", "--",
                           "x"])
        self.assertEqual((o.net, o.forward, o.library), (True, [("udp", "127.0.0.1", 5)], ["l"]))
        self.assertEqual((command.parse([]).verb, command.parse([]).vfio), ("shell", False))
        o = command.parse(["run", "--disk", "/dev/null", "--disk", "/dev/zero,ro", "--timeout", "0",
                           "--file", "x/asyncpf", "--socket", "a:b:/c", "--", "x"])
        self.assertEqual(o.disk, [("/dev/null", False), ("/dev/zero", True)])
        self.assertEqual((o.timeout, o.socket), (0, ("a:b", "/c")))

    def test_help(self):
        done = subprocess.run([SOURCE / "tools/lab", "--help"], capture_output=True, text=True,
                              check=True, timeout=30)
        self.assertIn("usage: tools/lab", done.stdout)


if __name__ == "__main__":
    unittest.main()
