#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf pager` with a stand-in VMM that does Firecracker's side of the handshake, touches its
memory by several threads, gives some of it back, and compares each byte.

usage: pager_test.py PATH_OF_ASYNCPF PATH_OF_STANDIN_VMM PATH_OF_REFUSE
"""
import array
import ctypes
import errno
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import page_cache as cache
from pager_support import (ASYNCPF, LIMIT_S, PAGE, REFUSED, Pager, PagerCase, make_image, until)

REFUSE = str(pathlib.Path(sys.argv[3]).resolve())
SYS_EPOLL_CTL = 233  # x86-64, as the shim has it
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}[os.uname().machine]


class PagerTest(PagerCase):
    # ---- bytes ----
    def test_every_version_says_it_its_way(self):
        self.pager()
        for version in ("1.5", "1.7", "1.12", "e2b"):
            for more in (("regions=3",), ("order=even", "pieces=5"), ("balloon=500",)):
                with self.subTest(version=version, more=more):
                    self.check(f"version={version}", *more)

    def test_memory_that_is_given_back_is_zeroes(self):
        self.pager()
        for seed in range(4):
            with self.subTest(seed=seed):
                self.check("balloon=3000", "threads=8", f"seed={seed}", "touches=3000",
                           "regions=2")

    def test_slow_source(self):
        self.pager(f"delay+file:{self.image}?ms=3&jitter-us=3000")
        self.check("balloon=1000", "threads=16", "touches=300")

    def test_more_touches_at_once_than_there_are_places(self):
        """A VM has a quarter of the fetches, and 256 touches that wait for one."""
        self.pager(f"delay+file:{self.image}?ms=300", "--read-ahead=0")
        self.check("threads=1000", "touches=1")

    def test_threads_in_the_place_of_io_uring(self):
        self.pager(None, "--io=threads")
        self.check("balloon=300", "threads=8")

    def test_without_reading_ahead(self):
        self.pager(None, "--read-ahead=0")
        self.check("order=even")
        self.assertEqual(self.status()["read_ahead"], 0)

    def test_reading_ahead_spares_touches(self):
        self.pager()
        self.check("order=even", "threads=1")
        s = self.status()
        self.assertGreater(s["read_ahead"], 1000)
        self.assertLess(s["faults_total"], 500)

    def test_huge_pages(self):
        info = pathlib.Path("/proc/meminfo").read_text(encoding="ascii")
        if int(re.search(r"HugePages_Free:\s+(\d+)", info).group(1)) < 4:
            self.skipTest("no four free huge pages of 2 MiB")
        self.pager()
        self.check("huge=1", "balloon=20")

    def test_zst_image(self):
        packed = self.folder / "image.zst"
        subprocess.run([ASYNCPF, "image", "pack", "--quiet", self.image, packed], check=True,
                       timeout=LIMIT_S)
        self.pager(f"zst:{packed}")
        self.check("balloon=300")

    # ---- a network ----
    def test_source_over_a_network(self):
        _, uri = self.serve_image()
        p = self.pager(uri)
        self.need_network(p.process.poll(), p.log)
        self.check("balloon=300", "threads=8")
        self.assertEqual(self.ask("serve " + json.dumps({"listen": str(self.path),
                                                         "source": uri})), "ok")
        self.check("threads=8", "regions=2")

    def test_others_are_served_while_a_server_is_waited_for(self):
        p = self.pager(None, "--allow", "network")
        if p.process.poll() is not None:
            self.skipTest(f"no network: {p.log}")
        # It takes connections and says nothing.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
            silent.bind(str(self.folder / "silent.sock"))
            silent.listen()
            rule = {"listen": str(self.folder / "late.sock"),
                    "source": f"nbd+unix:///?socket={self.folder}/silent.sock"}
            answers = []
            asker = threading.Thread(target=lambda: answers.append(
                self.ask("serve " + json.dumps(rule))))
            asker.start()
            self.addCleanup(asker.join)
            until("a word", lambda: answers or select.select([silent], [], [], 0)[0])
            if answers:
                self.skipTest(f"no network: {answers}")
            connection, _ = silent.accept()
            with connection:
                self.check()
                self.assertEqual(answers, [])
                p.process.send_signal(signal.SIGTERM)
                connection.close()
                p.process.wait(LIMIT_S)
        asker.join()
        self.assertFalse((self.folder / "late.sock").exists())

    def refused(self, says, *options, under=()):
        done = subprocess.run([*under, ASYNCPF, "pager", *options], cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=LIMIT_S)
        self.assertEqual((done.returncode, done.stdout), (REFUSED, ""), done)
        self.assertRegex(done.stderr, rf"\Aasyncpf: [^\n]*{says}[^\n]*\n\Z")

    def test_a_file_given_twice(self):
        before = self.image.read_bytes()
        twice = "one would destroy the other; name two"
        for options in (("--listen", "s", "--source", "image", "--json", "s"),
                        ("--listen", "s", "--source", "image", "--control", "./s"),
                        ("--listen", "s", "--source", "image", "--json", "./image"),
                        ("--listen", "image", "--source", "image"),
                        ("--map", "image", "--json", "image")):
            self.refused(twice, *options)
        self.assertEqual(self.image.read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["image"])

    def test_a_source_s_file_given_twice(self):
        """However a URI names it, and whoever names the URI."""
        before = self.image.read_bytes()
        (self.folder / "other").write_text("words", encoding="ascii")
        uris = ("file:image", f"delay+file:{self.image}?ms=1", "file:./ima%67e?direct=1",
                "zst:other?manifest=image", "qemu:image", "layers:image")
        for uri in uris:
            map_ = self.folder / "map"
            map_.write_text(json.dumps([{"listen": "s", "source": uri}]), encoding="ascii")
            for source in (("--listen", "s", "--source", uri), ("--map", "map")):
                for option in ("--json", "--control"):
                    with self.subTest(uri=uri, source=source, option=option):
                        self.refused("same file: --source .*; name two", *source, option, "image")
        (self.folder / "map").write_text('[{"listen": "j", "source": "image"}]', encoding="ascii")
        self.refused("same file: --listen j and --json j", "--map", "map", "--json", "j")
        self.assertEqual(self.image.read_bytes(), before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["image", "map", "other"])

    def test_what_a_pager_does_for_nobody(self):
        """Who asks it hears of a pager, not of options that a VM has."""
        self.pager()
        for words in (("pause",), ("resume",), ("evict", "--all"), ("resize", "--no-limit"),
                      ("balloon", "--to", "64M"), ("balloon", "--to", "64M", "--no-wait"),
                      ("snapshot", self.folder / "snap")):
            done = subprocess.run([ASYNCPF, *words, "--control", self.control], text=True,
                                  capture_output=True, check=False, timeout=LIMIT_S)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done)
            self.assertRegex(done.stderr, r"\Aasyncpf: cannot [^\n]*: a pager [^\n;]*; [^\n]*\n\Z")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("snap")])

    def test_who_follows_hears_of_its_end(self):
        p = self.pager()
        with subprocess.Popen([ASYNCPF, "events", "--control", self.control], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as events:
            self.assertEqual(json.loads(events.stdout.readline())["event"], "following")
            p.process.terminate()
            out, said = events.communicate(timeout=LIMIT_S)
        self.assertEqual((events.returncode, said), (0, ""))
        last = json.loads(out.splitlines()[-1])
        self.assertEqual((last["event"], last["text"]), ("ended", "signal"))

    def test_json_may_be_a_device(self):
        """Whose first word takes a system call more, which its sandbox has not."""
        for name, says in (
                ("/dev/null", ""),
                ("/dev/full", r"asyncpf: cannot write: /dev/full: No space left[^\n]*\n"),
                ("-", r"asyncpf: cannot write: standard output: No space left[^\n]*\n")):
            with open("/dev/full", "wb") as full, self.subTest(name=name):
                p = subprocess.Popen([ASYNCPF, "pager", "--listen", "s", "--source", "image",
                                      "--json", name], cwd=self.folder, stdout=full,
                                     stderr=subprocess.PIPE, text=True)
                self.assertEqual(p.stderr.readline(), "asyncpf: serving\n")
                p.terminate()
                said = p.communicate(timeout=LIMIT_S)[1]
                self.assertEqual(p.returncode, -signal.SIGTERM, said)
                self.assertRegex(said, rf"\A{says}\Z")
                self.assertEqual(os.listdir(self.folder), ["image"])

    def test_a_host_without_room_for_another_socket(self):
        """A limit of the user's, of what all his programs watch: fs.epoll.max_user_watches."""
        call = (REFUSE, str(SYS_EPOLL_CTL), str(errno.ENOSPC))
        self.refused("pager: epoll: No space left", "--listen", "s", "--source", "image",
                     under=call)

    def test_maps_that_are_none(self):
        """Nothing is waited for without an end, least of all with signals blocked."""
        os.mkfifo(self.folder / "fifo")
        self.refused("fifo: a pipe that nobody writes to; start its writer first", "--map", "fifo")
        self.refused("/dev/zero: larger than 1 MiB", "--map", "/dev/zero")
        self.refused("image: larger than 1 MiB", "--map", "image")
        (self.folder / "words").write_text("no rules", encoding="ascii")
        self.refused("map words: it is no JSON array of rules", "--map", "words")
        self.refused("Is a directory", "--map", ".")
        process = subprocess.Popen([ASYNCPF, "pager", "--map", self.folder / "fifo"],
                                   stderr=subprocess.PIPE)
        writer = os.open(self.folder / "fifo", os.O_WRONLY)  # once it has opened its end
        process.terminate()
        self.assertEqual((process.communicate(timeout=LIMIT_S)[1], process.returncode),
                         (b"", -signal.SIGTERM))
        os.close(writer)
        rule = json.dumps([{"listen": str(self.path), "source": str(self.image)}])
        with subprocess.Popen(["sh", "-c", f"sleep 1; echo '{rule}' >{self.folder}/fifo"]):
            Pager(self, "--map", self.folder / "fifo")
        self.finish(self.standin())

    # ---- many ----
    def test_a_source_of_a_server_for_each_rule(self):
        """More than the 64 that there once were room for."""
        _, uri = self.serve_image()
        rules = [{"listen": str(self.folder / f"{i}.sock"), "source": uri} for i in range(100)]
        (self.folder / "map").write_text(json.dumps(rules), encoding="ascii")
        pager = Pager(self, "--map", self.folder / "map", "--control", self.control)
        self.need_network(pager.process.poll(), pager.log)
        self.check(path=self.folder / "99.sock")

    def test_each_socket_has_its_source(self):
        images = []
        for i in range(3):
            images.append(self.folder / f"image{i}")
            make_image(images[i], 512, 10 + i)
        rules = [{"listen": str(self.folder / f"{i}.sock"), "source": str(images[i])}
                 for i in range(2)]
        (self.folder / "map").write_text(json.dumps(rules), encoding="ascii")
        Pager(self, "--map", self.folder / "map", "--control", self.control)
        rule = {"listen": str(self.folder / "2.sock"), "source": str(images[2])}
        self.assertEqual(self.ask("serve " + json.dumps(rule)), "ok")
        vmms = [self.standin(path=self.folder / f"{i % 3}.sock", image=images[i % 3])
                for i in range(9)]
        for vmm in vmms:
            self.finish(vmm)
        # Another image from now on; those who came before keep theirs.
        old = self.standin("go=0", path=self.folder / "2.sock", image=images[2])
        until("ready", lambda: old.stdout.readline() == "ready\n")
        until("came", lambda: self.status()["served"])
        rule["source"] = str(images[0])
        self.assertEqual(self.ask("serve " + json.dumps(rule)), "ok")
        self.check(path=self.folder / "2.sock", image=images[0])
        self.finish(old)

    def test_a_rule_that_makes_no_sense_is_refused(self):
        self.pager()
        for rule, why in (
                ("{", "does not end"), ("[]", "a rule is an object"),
                ('{"listen": "x"}', "needs listen and source"),
                ('{"listen": "x", "source": "y", "z": 1}', "no member 'z'"),
                ('{"listen": "x", "source": "nosuch:y"}', "no scheme 'nosuch'"),
                (json.dumps({"listen": str(self.path), "source": "/nosuch"}), "No such file")):
            with self.subTest(rule=rule):
                answer = self.ask("serve " + rule)
                self.assertTrue(answer.startswith("error "), answer)
                self.assertIn(why, answer)
        self.check()

    # ---- trouble ----
    def test_a_killed_vmm_leaves_nothing(self):
        p = self.pager(f"delay+file:{self.image}?ms=20")
        other = self.standin("go=0")
        until("ready", lambda: other.stdout.readline() == "ready\n")
        until("came", lambda: self.status()["served"])
        before = p.fds()
        # 1.5 hangs up at once: its process is watched.
        for version in ("1.12", "1.5"):
            vmm = self.standin("threads=32", f"version={version}")
            until("touches", lambda: self.status()["reads_in_flight"] > 0)
            vmm.kill()
            vmm.wait()
            until("gone", lambda: len(self.status()["served"]) == 1)
            until("descriptors", lambda: p.fds() <= before)
        self.assertEqual(len(p.said(r"ended: \d+ touches")), 2)
        self.finish(other)

    def test_a_source_that_fails_is_asked_again(self):
        p = self.pager(f"fault+file:{self.image}?fault-error-at=5&fault-error-count=3")
        self.check("order=random")
        self.assertTrue(p.said("cannot read its memory: .*Input/output error.*it waits"))
        s = self.status()
        self.assertEqual((s["read_errors"], s["why"]), (3, None))
        self.assertEqual((s["pid"], s["protocol"]), (p.process.pid, 1))

    def test_reading_ahead_that_fails_loses_nothing(self):
        """What nobody waited for is the source's still, and read when it is touched."""
        self.pager(f"fault+file:{self.image}?fault-error-at=5&fault-error-count=8")
        self.check("threads=1", "order=even")
        s = self.status()
        self.assertGreater(s["read_errors"], s["read_retries"])

    def test_the_longest_wait_stays(self):
        """That of the first touch, whose read fails three times, is no less than the pauses of
        100, 200 and 400 ms after that; those that come later are shorter."""
        self.pager(f"fault+file:{self.image}?fault-error-at=1&fault-error-count=3")
        self.check("threads=1", "order=even")
        s = self.status()
        self.assertEqual(s["read_errors"], 3)
        self.assertGreaterEqual(s["wait_max_ns"], 700e6)
        self.assertGreater(s["wait_max_ns"], s["wait_p50_ns"])

    def test_of_a_few_waits_the_longest_is_the_99th_of_100(self):
        self.pager(f"fault+file:{self.image}?fault-error-at=1&fault-error-count=3")
        self.check("threads=1", "touches=10")
        s = self.status()
        self.assertGreater(s["wait_p99_ns"], s["wait_p50_ns"])

    def test_what_is_counted(self):
        self.pager(f"fault+file:{self.image}?fault-hang-at=1", "--read-ahead=0")
        vmm = self.standin("threads=1", "order=even", "asked=1")
        until("a read", lambda: self.status()["reads_in_flight"] == 1)
        self.assertEqual(self.status()["faults_outstanding"], 1)
        vmm.stdin.write("0\n")  # another thread touches that page
        vmm.stdin.flush()
        until("joined", lambda: self.status()["joined"] == 1)
        vmm.kill()
        until("gone", lambda: not self.status()["served"])
        vmm = self.standin("hold=1", "balloon=20000", "threads=8", "regions=3")
        self.assertEqual(vmm.stdout.readline()[:3], "ok ")
        s = self.status()
        served, = s["served"]
        self.assertGreater(served["removed_bytes"], 0)
        self.assertEqual((s["memory_bytes"], served["memory_bytes"]), (2048 * PAGE,) * 2)
        # All is touched at the end; some was given back before it was ever placed, or twice.
        self.assertEqual(s["resident_bytes"], s["memory_bytes"])
        self.assertEqual(s["absent_bytes"], 0)

    def test_each_source_is_counted(self):
        other = self.folder / "other.sock"
        self.pager(f"delay+file:{self.image}?ms=20", "--read-ahead=0")
        slow = json.dumps({"listen": str(other), "source":
                           f"fault+file:{self.image}?fault-error-at=2&fault-error-count=3"})
        self.assertEqual(self.ask("serve " + slow), "ok")
        self.check("threads=16")
        self.standin("go=0")
        self.check("threads=1", "order=even", path=other)
        until("came", lambda: len(self.status()["served"]) == 1)
        s = self.status()
        failing, late = s["sources"]
        self.assertEqual((failing["name"], late["name"]), ("other.sock.2", "fc.sock.1"))
        self.assertEqual((failing["vms"], late["vms"]), (0, 1))
        self.assertEqual((failing["read_errors"], failing["read_retries"]), (3, 3))
        self.assertEqual((late["read_errors"], late["read_retries"]), (0, 0))
        for one in failing, late:
            self.assertEqual(one["read_bytes"], one["reads"] * PAGE)
        self.assertGreaterEqual(late["read_ns"], late["reads"] * 20 * 10**6)
        self.assertGreaterEqual(late["read_max_ns"], 20 * 10**6)
        for key in "reads", "read_bytes", "read_ns":
            self.assertEqual(failing[key] + late[key], s["source_" + key], key)
        # Who is there keeps his source, who comes has another.
        self.assertEqual(self.ask("serve " + json.dumps(
            {"listen": str(self.path), "source": str(self.image)})), "ok")
        self.assertEqual([one["name"] for one in self.status()["sources"]],
                         ["fc.sock.3", "other.sock.2", "fc.sock.1"])
        out = subprocess.run([ASYNCPF, "status", "--prometheus", "--control", self.control],
                             stdout=subprocess.PIPE, check=True, timeout=LIMIT_S, text=True)
        self.assertIn('\nasyncpf_pager_source_read_errors_total{vm="",source="other.sock.2"} 3\n',
                      out.stdout)
        self.assertRegex(out.stdout, r'\nasyncpf_served_pid\{vm="",served="fc\.sock\.\d+"\} \d')

    def test_a_source_that_nobody_has_is_closed(self):
        """That of a rule which another takes the place of, or whose socket cannot be made."""
        p = self.pager()
        before = p.fds()
        serve = {"listen": str(self.path), "source": str(self.image)}
        self.assertEqual(self.ask("serve " + json.dumps(serve)), "ok")
        until("closed", lambda: [one["name"] for one in self.status()["sources"]] == ["fc.sock.2"])
        self.assertRegex(self.ask("serve " + json.dumps({**serve, "listen": str(self.image)})),
                         "^error .*something is there that is no socket")
        until("closed", lambda: len(self.status()["sources"]) == 1)
        until("descriptors", lambda: p.fds() <= before)
        self.check()

    def test_what_the_page_cache_has_of_a_source(self):
        with open(self.image, "rb") as image:
            if not cache.is_told(image):
                self.skipTest("this kernel does not say it (Linux 6.5)")
            os.fsync(image.fileno())
            size = os.fstat(image.fileno()).st_size
            self.pager(f"delay+file:{self.image}?us=1")
            for name, source in (("direct", f"file:{self.image}?direct=1"),
                                 ("zero", "zero:?size=1M")):
                self.assertEqual(self.ask("serve " + json.dumps(
                    {"listen": str(self.folder / name), "source": source})), "ok")
            if not cache.drop(image):
                self.skipTest("this file system keeps all of a file in memory")
            for at in 0, size // 2:
                cache.read(image, at, size // 2)
                s, inside = cache.beside(image, self.status)
                self.assertGreater(inside, at)
                self.assertEqual([(one["name"], one["shared_bytes"]) for one in s["sources"]],
                                 [("zero.3", None), ("direct.2", 0), ("fc.sock.1", inside)])
                self.assertIsNone(s["shared_bytes"])

    def test_as_many_sockets_as_there_may_be(self):
        rules = [{"listen": str(self.folder / f"{i}.sock"), "source": "zero:?size=1M"}
                 for i in range(257)]
        (self.folder / "map").write_text(json.dumps(rules[:256]), encoding="ascii")
        Pager(self, "--map", self.folder / "map", "--control", self.control)
        self.assertTrue((self.folder / "255.sock").is_socket())
        self.assertEqual(self.ask("serve " + json.dumps(rules[256])),
                         "error more than 256 sockets")
        # Another source for one of them is no other socket.
        self.assertEqual(self.ask("serve " + json.dumps(rules[0])), "ok")

    def test_what_a_pager_does_not_do_is_refused(self):
        self.pager()
        for request in ("pause", "resume", "evict 0", "limit 0"):
            with self.subTest(request=request):
                self.assertRegex(self.ask(request), "^error a pager ")

    def test_a_source_that_is_away_is_told(self):
        self.pager(f"fault+file:{self.image}?fault-error-after=5", "--read-ahead=0")
        vmm = self.standin()
        until("told", lambda: "Input/output error" in (self.status()["why"] or ""))
        self.assertEqual(vmm.poll(), None)

    def test_stop_and_json(self):
        out = self.folder / "out.json"
        p = self.pager(None, "--json", out, "--stats")
        self.check()
        subprocess.run([ASYNCPF, "stop", "--control", self.control], check=True,
                       timeout=LIMIT_S, stdout=subprocess.DEVNULL)
        self.assertEqual(p.end(), 0)
        told = json.loads(out.read_text(encoding="ascii"))
        self.assertEqual(told["end"], "stop")
        self.assertGreaterEqual(told["stats"]["read_bytes"], 2048 * PAGE)
        self.assertTrue(p.said(r"^fetched "))
        self.assertTrue(p.said(r"^fc\.sock\.1 +0 +\d"))
        self.assertEqual(told["sources"][0]["read_bytes"], told["stats"]["source_read_bytes"])
        self.assertFalse(self.path.exists())
        self.assertFalse(self.control.exists())

    def test_a_signal_ends_it_with_vms_there(self):
        p = self.pager(f"delay+file:{self.image}?ms=50")
        self.standin("threads=16")
        until("touches", lambda: self.status()["reads_in_flight"] > 0)
        p.process.send_signal(signal.SIGTERM)
        self.assertEqual(p.process.wait(timeout=LIMIT_S), -signal.SIGTERM)
        self.assertFalse(self.path.exists())


def new_uffd(set_up):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | 1)
    if fd < 0:
        raise unittest.SkipTest("userfaultfd is refused")
    if set_up:
        api = array.array("Q", [0xaa, 0, 0])
        ctypes.CDLL(None).ioctl(fd, ctypes.c_ulong(0xc018aa3f),
                                ctypes.c_void_p(api.buffer_info()[0]))
    return fd


def region(**change):
    r = {"base_host_virt_addr": 0x7f0000000000, "size": 2 << 20, "offset": 0, "page_size": 4096,
         "page_size_kib": 4096}
    r.update(change)
    return json.dumps([{k: v for k, v in r.items() if v is not None}]).encode()


class HostileTest(PagerCase):
    """Whatever comes is refused in a line, and the VM beside it is served on."""

    def send(self, text, fds=()):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(s.close)
        s.connect(str(self.path))
        s.settimeout(LIMIT_S)
        if fds:
            socket.send_fds(s, [text], list(fds))
        else:
            s.sendall(text)
        return s

    def test_what_is_no_handshake(self):
        p = self.pager()
        beside = self.standin("go=0")
        until("ready", lambda: beside.stdout.readline() == "ready\n")
        until("came", lambda: p.said("came"))
        uffd = new_uffd(True)
        self.addCleanup(os.close, uffd)
        null = os.open("/dev/null", os.O_RDONLY)
        self.addCleanup(os.close, null)
        before = p.fds()
        cases = (
            (b"GET / HTTP/1.1\r\n\r\n", (uffd,), "does not begin with a JSON array"),
            (b"[]", (uffd,), "no region"),
            (b"[1]", (uffd,), "region 0: no JSON object"),
            (b"[{}]", (uffd,), "base_host_virt_addr, size and offset are needed"),
            (b"[" * 100, (uffd,), "region 0: no JSON object"),
            (region(size=0), (uffd,), "not whole pages"),
            (region(size=4097), (uffd,), "not whole pages"),
            (region(page_size=3), (uffd,), "page size 3"),
            (region(page_size=1 << 30), (uffd,), "page size 1073741824"),
            (region(page_size=None, page_size_kib=8), (uffd,), "page size 8"),
            (region(base_host_virt_addr=(1 << 64) - 4096), (uffd,), "beyond what there can be"),
            (region(size=1 << 62), (uffd,), "beyond what there can be"),
            (region(offset=1 << 63), (uffd,), "beyond what there can be"),
            (region(offset=4096 * 2048), (uffd,), "it is not this VM's"),
            (region(size=-4096), (uffd,), "no JSON object of whole numbers"),
            (region(size=1e3), (uffd,), "no JSON object of whole numbers"),
            (region(size=1 << 64), (uffd,), "no JSON object of whole numbers"),
            (region(is_guest_memfd=True), (uffd,), "guest_memfd is not served"),
            (b'[{"size":4096,"size":8192}]', (uffd,), "each once"),
            (region()[:-1] + b"," + region()[1:], (uffd,), "regions 0 and 1 overlap"),
            (b"[" + b",".join([region()[1:-1]] * 200) + b"]", (uffd,), "overlap"),
            (b"[" + b" " * 20000, (uffd,), "too long"),
            (region(), (null,), "no userfaultfd"),
            (region(), (uffd,) * 4, "more than three descriptors"),
            (region(), (uffd,) * 100, "more than three descriptors"),
        )
        for text, fds, why in cases:
            with self.subTest(why=why, text=text[:60]):
                count = len(p.said("refused"))
                s = self.send(text, fds)
                try:
                    self.assertEqual(s.recv(1), b"")
                except ConnectionResetError:
                    pass  # it did not read all of it
                line = until("refused", lambda: p.said("refused")[count:])[0]
                self.assertIn(why, line)
        until("descriptors", lambda: p.fds() <= before)
        self.finish(beside)

    def test_who_says_nothing_or_half(self):
        p = self.pager(None, "--handshake-timeout=1")
        uffd = new_uffd(True)
        self.addCleanup(os.close, uffd)
        silent, half, bare = self.send(b""), self.send(region()[:20], (uffd,)), self.send(region())
        for s in (silent, half, bare):
            self.assertEqual(s.recv(1), b"")
        self.assertEqual(len(until("three", lambda: len(p.said("refused")) == 3 and
                                   p.said("refused"))), 3)
        self.assertTrue(p.said("it said nothing"))
        self.assertTrue(p.said("did not say all of it"))
        self.assertTrue(p.said("no userfaultfd came"))
        self.check()

    def test_who_hangs_up(self):
        p = self.pager()
        for text in (b"", region()[:20], region()):
            count = len(p.said("refused"))
            self.send(text).close()
            until("refused", lambda: len(p.said("refused")) > count)
        self.assertIn("; 3 connections refused", self.status()["note"])
        self.check()

    def test_a_hundred_that_say_nothing_keep_nobody_out(self):
        p = self.pager()
        idle = [self.send(b"") for _ in range(100)]
        self.check()
        self.assertTrue(p.said("too many that say nothing"))
        for s in idle:
            s.close()

    def test_a_userfaultfd_that_is_not_set_up(self):
        p = self.pager()
        uffd = new_uffd(False)
        self.send(region(), (uffd,))
        until("given up", lambda: p.said("given up: its userfaultfd cannot be read"))
        os.close(uffd)
        self.check()


if __name__ == "__main__":
    sys.argv[1:4] = []
    unittest.main(verbosity=2)
