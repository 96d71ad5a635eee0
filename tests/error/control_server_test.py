#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The verbs that speak to a running VM against the shipped server, in a process without a
VM (control_vm.c).

usage: control_server_test.py PATH_OF_ASYNCPF PATH_OF_CONTROL_VM
"""
import json
import os
import pty
import signal
import subprocess
import sys

import control_support
from control_support import LIMIT_S, ControlTest, Vm, program

MEMORY = 512 << 20


class ServerTest(ControlTest):
    def setUp(self):
        super().setUp()
        self.vm = Vm(sys.argv[2], self.path)
        self.addCleanup(self.vm.kill)

    def answers(self, done, text):
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, text, ""))

    def status(self):
        done = self.ask("status", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.count("\n"), 1)
        return json.loads(done.stdout)

    def background(self, verb, *words, **options):
        child = subprocess.Popen([program(), verb, "--control", str(self.path), *words],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, **options)
        self.addCleanup(lambda: (child.kill(), child.communicate()))
        return child


class Verbs(ServerTest):
    def test_status(self):
        s = self.status()
        self.assertEqual((s["state"], s["why"], s["faults"], s["memory_bytes"]),
                         ("running", None, "user", MEMORY))
        self.assertEqual([v["stalls"] for v in s["vcpus"]], [0, 7])
        text = self.ask("status").stdout
        self.assertIn("state     running\n", text)
        self.assertIn("memory    512 MiB: resident 512 MiB, absent 0 bytes", text)

    def test_pause_and_resume(self):
        self.answers(self.ask("pause"), "paused\n")
        self.assertEqual(self.status()["state"], "paused")
        self.answers(self.ask("pause"), "paused\n")
        self.answers(self.ask("resume"), "running\n")
        self.assertEqual(self.status()["state"], "running")

    def test_trouble(self):
        why = "cannot write: swap.img: No space left on device"
        self.vm.order(f"trouble {why}")
        self.assertIn(f"state     paused: {why}\n", self.ask("status").stdout)
        self.assertEqual(self.status()["why"], why)
        self.failed(self.ask("resume"), f"cannot resume: {self.path}: the VM is paused: {why}")

    def test_evict(self):
        done = self.run_verb("evict", "--control", str(self.path), "--to", "64M")
        self.answers(done, "resident: 64 MiB of 512 MiB\n")
        self.answers(self.ask("evict"), "resident: 0 bytes of 512 MiB\n")
        self.assertEqual(self.status()["resident_bytes"], 0)

    def test_evict_that_falls_short(self):
        self.vm.order(f"pin {69 << 20}")
        self.failed(self.run_verb("evict", "--control", str(self.path), "--to", "64M"),
                    f"cannot evict: {self.path}: 69M stay resident, at most 64M were asked for: "
                    "the guest fetched it back meanwhile, or it is pinned; pause the VM first, or "
                    "leave it more")
        self.answers(self.ask("evict"), "resident: 69 MiB of 512 MiB\n")

    def test_balloon(self):
        self.answers(self.ask("balloon"), "the guest has 64 MiB of 512 MiB\n")
        self.assertEqual(self.status()["balloon_bytes"], 448 << 20)
        self.assertIn("balloon   448 MiB of 448 MiB;", self.ask("status").stdout)
        done = self.run_verb("balloon", "--control", str(self.path), "--to", "1T")
        self.answers(done, "the guest has 512 MiB of 512 MiB\n")

    def test_balloon_without_waiting(self):
        self.vm.order("hold")
        done = self.run_verb("balloon", "--control", str(self.path), "--to", "64M", "--no-wait")
        self.answers(done, "the guest has 512 MiB of 512 MiB\n")
        self.assertEqual(self.status()["balloon_target_bytes"], 448 << 20)

    def test_failures(self):
        self.vm.order("fail it is broken; mend it")
        for verb in ("pause", "resume", "evict", "balloon", "stop"):
            self.failed(self.ask(verb), f"cannot {control_support.WHAT[verb]}: {self.path}: "
                                        "it is broken; mend it")
        self.assertEqual(self.status()["state"], "running")

    def test_longer_than_the_silence_allowed(self):
        """An eviction may take: the server's word each second is enough."""
        self.vm.order("hold")
        child = self.background("evict", "--all", "--timeout", "4")
        self.vm.expect("evicting")
        self.failed(self.ask("evict"), f"cannot evict: {self.path}: an eviction is under way; "
                                       "try again when it is done")
        with self.assertRaises(subprocess.TimeoutExpired):
            child.wait(6)
        self.assertEqual(self.status()["resident_bytes"], MEMORY)

    def test_ctrl_c_ends_an_eviction(self):
        self.vm.order("hold")
        child = self.background("evict", "--all")
        self.vm.expect("evicting")
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(LIMIT_S), -signal.SIGINT)
        self.vm.expect("cancelled")
        self.assertEqual(self.status()["resident_bytes"], MEMORY)

    def test_killed_meanwhile(self):
        self.vm.order("hold")
        child = self.background("evict", "--all")
        self.vm.expect("evicting")
        self.vm.kill()
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, out, err),
                         (1, "", f"asyncpf: cannot evict: {self.path}: the VM ended before it "
                                 "answered\n"))
        self.all_fail("nobody answers; the VM has ended without removing it",
                      verbs=["status"])
        # What it left is no obstacle.
        self.vm = Vm(sys.argv[2], self.path)
        self.addCleanup(self.vm.kill)
        self.assertEqual(self.status()["state"], "running")

    def test_stop_waits_for_the_end(self):
        child = self.background("stop")
        self.vm.expect("stop")
        self.assertIsNone(child.poll())
        self.assertEqual(self.status()["state"], "running")
        self.assertEqual(self.vm.end(), 0)
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, out, err), (0, "ended\n", ""))
        self.assertFalse(os.path.lexists(self.path))

    def test_stop_that_takes_too_long(self):
        self.failed(self.ask("stop", "--timeout", "1"),
                    f"cannot stop: {self.path}: the VM was told to, and has not ended within 1 s; "
                    "it may yet, or wait longer with --timeout")

    def test_second_server(self):
        done = subprocess.run([sys.argv[2], str(self.path)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"control socket: {self.path}: a running server answers there; "
                             "stop it, or name another\n"))
        self.assertEqual(self.status()["state"], "running")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([program(), "status", "--watch", "1", "--control",
                                   str(self.path)], stdout=full, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=LIMIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "asyncpf: cannot write: standard output: No space left "
                                      "on device; free space or redirect it elsewhere\n")


class Resize(ServerTest):
    def test_resize(self):
        self.answers(self.run_verb("resize", "--control", str(self.path), "--resident-max", "64M"),
                     "resident: 512 MiB, at most 64 MiB from now on\n")
        self.assertEqual(self.status()["resident_max_bytes"], 64 << 20)
        self.answers(self.ask("resize"), "resident: 512 MiB, without a limit from now on\n")
        self.assertEqual(self.status()["resident_max_bytes"], 0)

    def test_refused(self):
        self.vm.order("fail too little")
        self.failed(self.ask("resize"), f"cannot resize: {self.path}: too little")


class Events(ServerTest):
    def follow(self):
        child = self.background("events")
        first = self.next(child)
        self.assertEqual((first["event"], first["resident_bytes"], first["text"]),
                         ("following", MEMORY, "running"))
        return child

    def next(self, child):
        return json.loads(child.stdout.readline())

    def test_what_happens(self):
        child = self.follow()
        for verb, event in (("pause", "paused"), ("resume", "resumed"), ("evict", "evicted"),
                            ("resize", "limit")):
            self.assertEqual(self.ask(verb).returncode, 0)
            self.assertEqual(self.next(child)["event"], event)
        self.vm.expect("evicting")
        self.vm.order("evicted 3")
        told = self.next(child)
        self.assertEqual((told["event"], told["evicted"]), ("memory", 3))
        self.vm.order("trouble cannot write: a\"b")
        told = self.next(child)
        self.assertEqual((told["event"], told["text"]), ("trouble", 'cannot write: a"b'))
        self.vm.order("ended power-off")
        told = self.next(child)
        self.assertEqual((told["event"], told["text"]), ("ended", "power-off"))
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, out, err), (0, "", ""))

    def test_of_a_vm_that_goes_away(self):
        child = self.follow()
        self.vm.kill()
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, out, err),
                         (1, "", f"asyncpf: cannot follow: {self.path}: the VM hung up without "
                                 "having ended\n"))

    def test_nobody_reads(self):
        child = self.follow()
        child.stdout.close()
        child.stdout = None
        self.ask("pause")
        _, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, err), (-signal.SIGPIPE, ""))


class Watch(ServerTest):
    def test_watch_json(self):
        child = self.background("status", "--json", "--watch", "1")
        for state in ("running", "paused", "running"):
            self.assertEqual(json.loads(child.stdout.readline())["state"], state)
            self.ask("pause" if state == "running" else "resume")
        child.send_signal(signal.SIGINT)
        rest, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, err), (-signal.SIGINT, ""))
        for line in rest.splitlines():
            json.loads(line)

    def test_watch_ends_with_the_vm(self):
        child = self.background("status", "--watch", "1")
        self.assertEqual(child.stdout.readline(), "state     running\n")
        self.vm.end()
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, err), (0, ""))
        self.assertTrue(out.endswith("ended\n"), out)
        self.assertNotIn("\033", out)

    def test_watch_json_ends_with_the_vm(self):
        child = self.background("status", "--json", "--watch", "1")
        child.stdout.readline()
        self.vm.end()
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, err), (0, ""))
        for line in out.splitlines():
            json.loads(line)

    def test_watch_of_a_vm_that_is_killed(self):
        child = self.background("status", "--watch", "1")
        child.stdout.readline()
        self.vm.kill()
        out, err = child.communicate(timeout=LIMIT_S)
        self.assertEqual((child.returncode, err),
                         (1, f"asyncpf: cannot show the status: {self.path}: nobody answers; the "
                             "VM has ended without removing it\n"))
        self.assertNotIn("ended", out)

    def test_watch_on_a_terminal(self):
        """Each sample is drawn over the last."""
        reader, writer = pty.openpty()
        self.addCleanup(os.close, reader)
        child = subprocess.Popen([program(), "status", "--watch", "1", "--control",
                                  str(self.path)], stdin=subprocess.DEVNULL, stdout=writer)
        os.close(writer)
        text = b""
        while text.count(b"\033[H\033[Jstate     running") < 2:
            text += os.read(reader, 4096)
        child.terminate()
        self.assertEqual(child.wait(LIMIT_S), -signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(control_support.main())
