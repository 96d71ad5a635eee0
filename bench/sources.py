#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Page sources by themselves (bench/source.c), each beside its peer or beside itself, by turns.

nginx in order   1 GiB from nginx on the loopback, beside `curl` to a file
zstd in order    a packed image of 512 MiB, half of which compresses, on two CPUs, beside `zstd -d
                 -T2` of the same content; these two by CPU time, and by the clock where others use
                 at most a tenth of the machine
cached           reads of 4 KiB at random through cache+, all of which it has, beside the file
                 itself: told only, as what is promised is of faults (bench/promises, "cached")
trouble          reads of 4 KiB at random from nginx, then from nbdkit, 10 ms away, of which 5 %
                 fail, stand still for 2 s or come short, through retry+, beside the same server
                 without trouble: the 99th percentile, and no wrong byte
idle             32 sources that are open and not read: who wakes up in a second, memory of each

Files are in memory (/dev/shm), so that no disk is measured.

usage: bench/sources.py [--check] [--rounds N] [--only WORD]
                        ASYNCPF BENCH_SOURCE LATE_RELAY NET_MODULE
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import image as bench_image  # memory's content, programs' times, who else is at work

MIB = 1 << 20
TROUBLE_PERCENT = 5  # a third fails, a third stands still, a third comes short


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(words, port):
    """A server, from when it listens to its end."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          start_new_session=True) as server:
        try:
            for _ in range(500):
                if server.poll() is not None:
                    sys.exit(f"{words[0]}: {server.stderr.read().decode()}")
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield
        finally:
            os.killpg(server.pid, signal.SIGKILL)


@contextlib.contextmanager
def nginx(folder):
    """Serves the folder; its port."""
    port = free_port()
    places = "".join(f"{name}_temp_path {folder}/t/{name};" for name in
                     ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    os.makedirs(f"{folder}/t", exist_ok=True)
    with open(f"{folder}/nginx.conf", "w", encoding="utf-8") as f:
        f.write(f"daemon off; master_process off; pid {folder}/pid;"
                "events { worker_connections 512; }"
                f"http {{ access_log off; {places} keepalive_requests 1000000; sendfile on;"
                f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}")
    with serving(["nginx", "-p", folder, "-e", "stderr", "-c", f"{folder}/nginx.conf"], port):
        yield port


@contextlib.contextmanager
def nbdkit(path, errors="0"):
    """Serves the file, of which so many reads fail; its port."""
    port = free_port()
    with serving(["nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", str(port), "--filter=error",
                  "file", path, "error-pread=EIO", f"error-pread-rate={errors}"], port):
        yield port


class Bench:
    def __init__(self, o, folder):
        self.o = o
        self.folder = folder
        self.broken = 0

    def source(self, *words):
        done = subprocess.run([self.o.bench_source, *map(str, words)], capture_output=True,
                              text=True, check=False, timeout=300)
        if done.returncode:
            sys.exit(f"bench-source {words}: {done.stderr}")
        out = json.loads(done.stdout)
        if out.get("wrong") or out.get("failed"):
            sys.exit(f"bench-source {words}: {out}\n{done.stderr}")
        return out

    def pairs(self, ours, theirs, value):
        """Ratios of both, who goes first by turns, after a round that warms up."""
        ratios = []
        for turn in range(self.o.rounds + 1):
            first, second = (ours, theirs) if turn % 2 else (theirs, ours)
            one = first()
            two = second()
            own, peer = (one, two) if turn % 2 else (two, one)
            if turn > 0:
                ratios.append(value(own, peer))
                print(f"#   {own} {peer}: {ratios[-1]}", flush=True)
        return sorted(ratios)

    def tell(self, what, values, bound, at_least):
        median = statistics.median(values)
        if bound is None:
            print(f"       {what}: {median:.3f} ({values[0]:.3f} to {values[-1]:.3f})", flush=True)
            return
        kept = median >= bound if at_least else median <= bound
        self.broken += not kept
        print(f"{'kept  ' if kept else 'BROKEN'} {what}: {median:.3f} ({values[0]:.3f} to "
              f"{values[-1]:.3f}), promised {'at least' if at_least else 'at most'} {bound}",
              flush=True)

    def beside(self, what, tool, ours, theirs):
        """By the CPU time that both take, and by the clock, unless others are at work."""
        def own():
            out = self.source(*ours)
            return out["wall_s"], out["cpu_s"]
        before, used = bench_image.machine(), []

        def value(own, peer):
            used.append(own[1] + peer[1])
            return peer[0] / own[0], peer[1] / own[1]
        ratios = self.pairs(own, lambda: bench_image.run(theirs), value)
        after = bench_image.machine()
        busy = (after[0] - before[0] - sum(used)) / (after[1] - before[1])
        self.tell(f"{what}, CPU time of {tool} over ours", sorted(r[1] for r in ratios),
                  0.8, True)
        self.tell(f"{what}, rate over that of {tool}, others using {busy:.0%} of the machine",
                  sorted(r[0] for r in ratios), None if busy > 0.1 else 0.8, True)

    def image(self, name, mib):
        path = f"{self.folder}/{name}"
        if not os.path.exists(path):
            bench_image.make(path, mib)
        return path

    def nginx_in_order(self):
        part = self.image("part", 64)
        whole = f"{self.folder}/whole"
        with open(part, "rb") as f, open(whole, "wb") as to:
            content = f.read()
            for _ in range(16):
                to.write(content)
        with nginx(self.folder) as port:
            url = f"http://127.0.0.1:{port}/whole"
            self.beside("nginx in order", "curl", ["seq", url, whole],
                        ["curl", "-s", "-o", f"{self.folder}/got", url])
        os.unlink(f"{self.folder}/got")
        os.unlink(whole)

    def zstd_in_order(self):
        flat = self.image("flat", 512)
        ours, theirs, back = (f"{self.folder}/{name}" for name in ("i.zst", "t.zst", "back"))
        cpus = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, cpus)
        subprocess.run([self.o.asyncpf, "image", "pack", flat, ours, "--force"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["zstd", "-q", "-f", "-3", "-T2", flat, "-o", theirs], check=True)
        self.beside("zstd in order", "zstd -d -T2", ["seq", f"zst:{ours}", flat],
                    ["zstd", "-q", "-f", "-d", "-T2", theirs, "-o", back])
        os.unlink(back)

    def cached(self):
        part = self.image("part", 64)
        cache = (f"cache+file:{part}?cache-dir={self.folder}/cache&cache-size=256M&cache-key=1")
        for depth in (1, 32):
            self.source("seq", cache, part)
            ratios = self.pairs(
                lambda: self.source("random", cache, part, 40000, depth)["wall_s"],
                lambda: self.source("random", f"file:{part}", part, 40000, depth)["wall_s"],
                lambda own, peer: own / peer)
            self.tell(f"cached, {depth} at a time, time over file:'s", ratios, None, False)

    def trouble(self):
        part = self.image("part", 64)
        with nginx(self.folder) as port:
            self.beside_trouble("nginx", "retry+http://127.0.0.1:{}/part#net-stall-ms=8000",
                                (port, port), 2)
        # What fails there is said by nbdkit itself. Told only: docs/caveats.md.
        with nbdkit(part) as good, nbdkit(part, f"{TROUBLE_PERCENT / 3}%") as bad:
            self.beside_trouble("nbdkit", "retry+nbd://127.0.0.1:{}/?net-stall-ms=8000",
                                (good, bad), None)

    def beside_trouble(self, name, uri, ports, bound):
        """uri: with a place for the port; ports: of servers, to be made late, and worse."""
        part = self.image("part", 64)
        late, worse = free_port(), free_port()

        def p99(at):
            return self.source("random", uri.format(at), part, 4000, 8)["p99_us"]
        with serving([self.o.late_relay, str(late), str(ports[0]), "10"], late), \
             serving([self.o.late_relay, str(worse), str(ports[1]), "10",
                      str(TROUBLE_PERCENT)], worse):
            ratios = self.pairs(lambda: p99(worse), lambda: p99(late),
                                lambda own, peer: own / peer)
        self.tell(f"trouble, {name}, 99th percentile over that without", ratios, bound, False)

    def idle(self):
        part = self.image("part", 64)
        with nginx(self.folder) as port:
            for name, uri in (("http", f"http://127.0.0.1:{port}/part"),
                              ("retry+http", f"retry+http://127.0.0.1:{port}/part"),
                              ("file", f"file:{part}")):
                out = self.source("idle", uri, 32)
                self.tell(f"idle, {name}: wake-ups in a second", [out["woken"]], 0, False)
                self.tell(f"idle, {name}: MiB of a source", [out["bytes_each"] / MIB], 1, False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="a broken promise is a failure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only those whose name contains this")
    for name in ("asyncpf", "bench_source", "late_relay", "net_module"):
        parser.add_argument(name)
    o = parser.parse_args()
    missing = [name for name in ("nginx", "nbdkit", "curl", "zstd") if not shutil.which(name)]
    if missing:
        print(f"SKIP: not installed: {', '.join(missing)}")
        return 77
    os.environ["ASYNCPF_NET_MODULE"] = o.net_module
    os.environ["no_proxy"] = "*"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chmod(folder, 0o755)
        bench = Bench(o, folder)
        for run in (bench.nginx_in_order, bench.cached, bench.trouble, bench.idle,
                    bench.zstd_in_order):
            if o.only in run.__name__:
                run()
    return 1 if o.check and bench.broken else 0


if __name__ == "__main__":
    sys.exit(main())
