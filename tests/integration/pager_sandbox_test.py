#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sandbox of `asyncpf pager`: what each thread has left, which files and servers rules that
come later may name, what becomes of a forbidden call, and whose rights are left. That VMs are
served under it is what pager_test.py shows, since it is the default.

usage: pager_sandbox_test.py PATH_OF_ASYNCPF PATH_OF_STANDIN_VMM PATH_OF_SHIM
"""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from pager_support import ASYNCPF, LIMIT_S, PAGE, Pager, PagerCase, make_image, until

SHIM = str(pathlib.Path(sys.argv[3]).resolve())
CLI_SANDBOX = 6
NOBODY = 65534
DAC_OVERRIDE = 1 << 1
NEEDS_ROOT = unittest.skipUnless(os.geteuid() == 0, "only root sees into the process")


def tasks(pid):
    """{name of a thread: [its status]}, without those of the kernel's own."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text(encoding="ascii").strip()
            lines = (task / "status").read_text(encoding="ascii").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if not name.startswith("iou-"):
            found.setdefault(name, []).append(
                {key: value.split() for key, _, value in (line.partition(":") for line in lines)})
    return found


class SandboxCase(PagerCase):
    def rule(self, name, source):
        return "serve " + json.dumps({"listen": str(name), "source": str(source)})

    def serves(self, name, source, image=None):
        """A rule that comes later; VMs are served by it."""
        self.assertEqual(self.ask(self.rule(name, source)), "ok")
        self.check("threads=2", path=name, image=image)

    def refuses(self, name, source, why):
        self.assertRegex(self.ask(self.rule(name, source)), f"^error {why}$")

    def seen(self, process):
        """Each thread's, after it has begun: those that wait for work have bound themselves."""
        until("all are bound", lambda: all(
            status["Seccomp"] == ["2"] for list_ in tasks(process.pid).values()
            for status in list_))
        return tasks(process.pid)

    def folder_of(self, name, mode=0o700):
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)
        return folder


@NEEDS_ROOT
class Threads(SandboxCase):
    def test_what_each_has_left(self):
        _, uri = self.serve_image()
        p = self.pager(uri, "--sandbox", "strict")
        self.need_network(p.process.poll(), p.log)
        found = self.seen(p.process)
        # Main, signals, control: those that have no name of their own.
        self.assertEqual((len(found["asyncpf"]), len(found["asyncpf-net"])), (3, 1))
        self.assertGreaterEqual(len(found["asyncpf-work"]), 1)
        overrides = 0
        for name, list_ in found.items():
            for status in list_:
                self.assertEqual((status["NoNewPrivs"], status["Seccomp_filters"]),
                                 (["1"], ["1"]), name)
                left = {int(status[kind][0], 16) for kind in ("CapEff", "CapPrm", "CapInh")}
                overrides += left == {0, DAC_OVERRIDE}
                self.assertIn(left, ({0}, {0, DAC_OVERRIDE}), name)
        # The loop removes sockets, control makes them and opens sources, in whosever folder.
        self.assertEqual(overrides, 2)
        self.check("balloon=300", "threads=8")
        self.assertEqual(set(self.seen(p.process)) - set(found), set())

    def test_threads_in_the_place_of_io_uring(self):
        p = self.pager(None, "--io=threads", "--sandbox=strict")
        self.assertIn("asyncpf-read", self.seen(p.process))
        self.check("threads=8")

    @staticmethod
    def soft_limits(process):
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        return {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}

    def test_the_process(self):
        p = self.pager()
        soft = self.soft_limits(p.process)
        self.assertEqual(soft["Max core file size"], "0")
        self.assertEqual(soft["Max file size"], str(2048 * PAGE))

    def test_descriptors_of_sources(self):
        """All connections of as many sources over a network as there may be, each with two."""
        _, uri = self.serve_image()
        p = self.pager(uri)
        self.need_network(p.process.poll(), p.log)
        own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertGreaterEqual(int(self.soft_limits(p.process)["Max open files"]),
                                min(own, 256 * 64 * 2))

    def test_off(self):
        p = self.pager(None, "--sandbox", "off")
        for list_ in tasks(p.process.pid).values():
            for status in list_:
                self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), (["0"], ["0"]))
        self.check()

    def test_descriptors(self):
        """What it was started with is closed, but for what an option names, until it is open."""
        secret = self.folder / "secret"
        secret.write_bytes(b"secret")
        with open(self.image, "rb") as image, open(secret, "rb") as other:
            p = Pager(self, "--listen", self.path, "--source", f"/dev/fd/{image.fileno()}",
                      pass_fds=(image.fileno(), other.fileno()))
        folder = pathlib.Path(f"/proc/{p.process.pid}/fd")
        targets = [os.readlink(fd) for fd in folder.iterdir()]
        self.assertEqual((targets.count(str(secret)), targets.count(str(self.image))), (0, 1))
        self.check()

    def test_a_descriptor_that_is_not_open(self):
        """It would come to be one of the pager's own."""
        done = subprocess.run([ASYNCPF, "pager", "--listen", self.path, "--source", "/dev/fd/77"],
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        self.assertRegex(done.stderr, r"\Aasyncpf: descriptor 77: an option names it, and it was "
                                      r"not open .*\n\Z")
        self.assertEqual((done.returncode, done.stdout), (3, ""))

    def test_standard_error_stays_open(self):
        p = self.pager(None, "--json", "/dev/fd/2")
        self.check()
        until("a word on it", lambda: p.said("VM .*: came"))


class LaterRules(SandboxCase):
    """Rules on the control socket: which files, sockets and servers they may name."""
    NOT_THERE = "it is in no folder that the pager was started with; start it with --allow"

    def setUp(self):
        super().setUp()
        # What was named is below self.folder.
        self.other = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-test-"))
        self.addCleanup(shutil.rmtree, self.other, ignore_errors=True)
        self.there = self.other / "image"
        make_image(self.there, 512, 2)
        (self.folder / "images").mkdir()
        self.image = self.image.rename(self.folder / "images" / "image")

    def test_neighbours_of_what_was_named(self):
        self.pager()
        beside = self.image.parent / "beside"
        make_image(beside, 512, 3)
        self.serves(self.folder / "2.sock", beside, beside)
        self.serves(self.folder / "2.sock", f"delay+file:{self.image}?us=1")
        below = self.image.parent / "below"
        below.mkdir()
        self.serves(self.folder / "2.sock", shutil.copy(beside, below), beside)

    def test_others_are_refused(self):
        self.pager()
        self.refuses(self.folder / "2.sock", self.there,
                     rf"not allowed: the file \S+: {self.NOT_THERE} DIR")
        self.refuses(self.folder / "2.sock", "zst:/etc/passwd",
                     rf"not allowed: the file /etc/passwd: {self.NOT_THERE} DIR")
        self.refuses(self.other / "2.sock", self.image,
                     rf"not allowed: the socket \S+: {self.NOT_THERE} socket:DIR")
        self.refuses(self.folder / "2.sock", "http://127.0.0.1:9/x",
                     "not allowed: a source over a network; start the pager with --allow network")
        self.refuses(self.folder / "2.sock",
                     f"cache+file:{self.image}?cache-dir={self.other}&cache-key=1",
                     rf"not allowed: the cache in \S+: {self.NOT_THERE} cache:DIR")
        self.assertEqual(os.listdir(self.other), ["image"])
        self.assertFalse((self.folder / "2.sock").exists())
        # A folder whose name begins as that of one which is allowed.
        like = self.image.parent.with_name(self.image.parent.name + "-2")
        like.mkdir()
        self.refuses(self.folder / "2.sock", shutil.copy(self.image, like),
                     rf"not allowed: the file \S+: {self.NOT_THERE} DIR")
        # A link that leads elsewhere, and a way back up.
        link = self.image.parent / "link"
        link.symlink_to(self.there)
        self.refuses(self.folder / "2.sock", link,
                     rf"not allowed: the file \S+: {self.NOT_THERE} DIR")
        up = self.image.parent / "../../.." / self.there.relative_to("/")
        self.refuses(self.folder / "2.sock", up,
                     rf"not allowed: the file \S+: {self.NOT_THERE} DIR")
        self.refuses(self.folder / "2.sock", self.image.parent / "../none/image",
                     r"open \S+: No such file or directory")
        self.check()

    def test_what_is_allowed(self):
        _, uri = self.serve_image()
        sockets, cache = self.other / "sockets", self.other / "cache"
        sockets.mkdir()
        cache.mkdir()
        p = self.pager(None, "--allow", self.other, "--allow", f"socket:{sockets}", "--allow",
                       f"cache:{cache}", "--allow", "network")
        self.need_network(p.process.poll(), p.log)
        self.serves(self.folder / "2.sock", self.there, self.there)
        self.serves(sockets / "3.sock", self.there, self.there)
        self.serves(sockets / "4.sock", uri)
        for _ in range(2):
            self.serves(sockets / "5.sock", f"cache+{uri}&cache-dir={cache}&cache-key=1&"
                                            "cache-size=16M")
        self.assertGreater(self.status()["cache_hits"], 0)
        packed = self.other / "image.zst"
        subprocess.run([ASYNCPF, "image", "pack", "--quiet", "--manifest", f"{packed}.manifest",
                        self.image, packed], check=True, timeout=LIMIT_S)
        self.serves(sockets / "6.sock", f"zst:{packed}?manifest={packed}.manifest")
        p.process.terminate()
        self.assertEqual(p.process.wait(LIMIT_S), -signal.SIGTERM)
        self.assertEqual(os.listdir(sockets), [])

    def test_servers_with_names_and_certificates(self):
        """What libcurl, libnbd, TLS and the resolver do, by threads that are bound."""
        for program in ("nginx", "nbdkit", "openssl"):
            if not shutil.which(program):
                self.skipTest(f"no {program}")
        certificate, key = self.make_certificate()
        (self.other / "psk").write_text(f"alice:{'5a' * 32}\n", encoding="ascii")
        p = self.pager(None, "--allow", "network", "--allow", self.other)
        self.need_network(p.process.poll(), p.log)
        port = self.start_nginx(certificate, key)
        self.serves(self.folder / "2.sock",
                    f"https://localhost:{port}/image#http-ca={certificate}")
        port = self.start_nbdkit()
        self.serves(self.folder / "2.sock", f"nbd://localhost:{port}/")
        port = self.start_nbdkit("--tls=require", f"--tls-psk={self.other}/psk")
        self.serves(self.folder / "2.sock",
                    f"nbds://alice@localhost:{port}/?tls-psk-file={self.other}/psk")
        self.refuses(self.folder / "2.sock", "nbd://nosuch.invalid/", r"open nbd://nosuch\S+ .*")

    def test_authorities_of_the_environment(self):
        """Files that no URI names."""
        for program in ("nginx", "openssl"):
            if not shutil.which(program):
                self.skipTest(f"no {program}")
        certificate, key = self.make_certificate()
        uri = f"https://localhost:{self.start_nginx(certificate, key)}/image"
        names = ("CURL_CA_BUNDLE", "SSL_CERT_FILE")
        others = {name: value for name, value in os.environ.items() if name not in names}
        for i, name in enumerate(names):
            with self.subTest(name):
                path = self.folder / f"{i}.sock"
                p = Pager(self, "--listen", path, "--source", uri,
                          env={**others, name: str(certificate)})
                self.need_network(p.process.poll(), p.log)
                self.check(path=path)

    def make_certificate(self):
        certificate, key = self.other / "ca-cert.pem", self.other / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", key, "-out", certificate],
                       check=True, stderr=subprocess.DEVNULL, timeout=LIMIT_S)
        return certificate, key

    def start_server(self, port, *command):
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        until("a server", lambda: self.answers(port))
        return port

    @staticmethod
    def answers(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    @staticmethod
    def free_port():
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def start_nbdkit(self, *options):
        port = self.free_port()
        return self.start_server(port, "nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", str(port),
                                 *options, "file", self.image)

    def start_nginx(self, certificate, key):
        port, conf, d = self.free_port(), self.other / "nginx.conf", self.other
        conf.write_text(
            f"daemon off; master_process off; pid {d}/pid; events {{ worker_connections 64; }}\n"
            f"http {{ access_log off; client_body_temp_path {d}/t1; proxy_temp_path {d}/t2;\n"
            f"fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;\n"
            f"server {{ listen 127.0.0.1:{port} ssl; root {self.image.parent};\n"
            f"ssl_certificate {certificate}; ssl_certificate_key {key}; }} }}\n",
            encoding="ascii")
        return self.start_server(port, "nginx", "-p", str(d), "-e", "log", "-c", str(conf))

    def test_a_dead_socket_is_replaced(self):
        self.pager()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(str(self.folder / "2.sock"))
        self.serves(self.folder / "2.sock", self.image)

    def test_without_a_sandbox_everything_may_be_named(self):
        self.pager(None, "--sandbox", "off")
        self.serves(self.other / "2.sock", self.there, self.there)

    def test_words(self):
        for words, code, pattern in (
                (("--allow", self.folder / "none"), 3, r"--allow \S+: No such file.*"),
                (("--allow", self.there), 3, r"--allow \S+: it is no folder; .*"),
                (("--user", "no-such-user"), 2, "bad value: --user no-such-user: .*"),
                (("--user", "root", "--sandbox", "off"), 2, "conflicting options: --user and "
                                                            "--sandbox off: .*"),
                (("--sandbox", "none"), 2, "bad value: --sandbox none: .*")):
            done = subprocess.run([ASYNCPF, "pager", "--control", self.control, *words],
                                  capture_output=True, text=True, check=False, timeout=LIMIT_S)
            self.assertRegex(done.stderr, rf"\Aasyncpf: {pattern}\n\Z")
            self.assertEqual((done.returncode, done.stdout), (code, ""))


class Forbidden(SandboxCase):
    """A library that makes another call than those of the table, in the middle of a role's work."""
    LINE = (r"asyncpf: sandbox: a {role} thread made system call {call}\(.*\), which it may not; "
            r"the pager ends, and its VMs wait for memory for ever, by a fault of asyncpf's or an "
            r"attack: report it")

    def ends(self, p, role, call):
        self.assertEqual(p.process.wait(LIMIT_S), CLI_SANDBOX)
        p.reader.join()
        self.assertRegex(p.log[-1], rf"\A{self.LINE.format(role=role, call=call)}\Z")

    def test_the_loop(self):
        copy = 0xc028aa03  # UFFDIO_COPY
        p = self.pager(env={**os.environ, "LD_PRELOAD": SHIM, "SHIM_FORBIDDEN": "1",
                            "SHIM_FAIL": f"ioctl:{copy:#x} 1 1 5"})
        vmm = self.standin("threads=1")
        self.ends(p, "pager", r"41, socket")
        vmm.kill()


@unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
class Users(SandboxCase):
    def test_another_user(self):
        """Files and folders of root's at first; later his alone."""
        self.folder.chmod(0o711)
        his = self.folder_of("his")
        image = shutil.copy(self.image, his)
        os.chown(his, NOBODY, NOBODY)
        os.chown(image, NOBODY, NOBODY)
        secret = shutil.copy(self.image, his / "secret")
        os.chmod(secret, 0o600)
        os.chmod(self.image, 0o600)
        out = self.folder / "json"
        p = self.pager(None, "--user", "nobody", "--allow", his, "--allow", f"socket:{his}",
                       "--json", out)
        for list_ in self.seen(p.process).values():
            for status in list_:
                self.assertEqual(status["Uid"], [str(NOBODY)] * 4)
                self.assertEqual((status["Groups"], int(status["CapPrm"][0], 16)), ([], 0))
        self.check("balloon=300")
        self.serves(his / "2.sock", image)
        self.refuses(his / "3.sock", secret, r".*Permission denied.*")
        p.process.terminate()
        p.process.wait(LIMIT_S)
        self.assertEqual(json.loads(out.read_text(encoding="ascii"))["end"], "signal")
        # His folder's sockets are gone; those of root's folder stay for the next one.
        self.assertEqual(sorted(os.listdir(his)), ["image", "secret"])
        self.pager()
        self.check()

    def test_an_ordinary_user_with_nothing(self):
        """No device, no right: the VMM has them."""
        self.folder.chmod(0o755)
        his = self.folder_of("his")
        program = shutil.copy(ASYNCPF, self.folder)
        image = shutil.copy(self.image, his)
        path, control = his / "fc.sock", his / "c.sock"
        for name in (his, image):
            os.chown(name, NOBODY, NOBODY)
        script = ("mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; "
                  f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "
                  f"--inh-caps=-all --bounding-set=-all {program} pager --sandbox strict "
                  f"--listen {path} --source {image} --control {control} --json {his}/json")
        self.path, self.control = path, control
        p = Pager(self, command=["unshare", "--mount", "sh", "-ec", script])
        self.check("balloon=300", "threads=8", image=image)
        self.serves(his / "2.sock", image, image)
        p.process.terminate()
        self.assertEqual((p.process.wait(LIMIT_S), p.said("sandbox|cannot")),
                         (-signal.SIGTERM, []))
        self.assertEqual(sorted(os.listdir(his)), ["image", "json"])


def has_sanitizer():
    """Then there is none by default."""
    done = subprocess.run(["nm", "-D", ASYNCPF], capture_output=True, text=True, check=False)
    return re.search(r"__[at]san_init", done.stdout) is not None


if __name__ == "__main__":
    if has_sanitizer():
        print("SKIP: a sanitizer makes calls of its own")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
