# SPDX-License-Identifier: Apache-2.0
"""Where the memory of tools/demo_restore.py's guest is: nbdkit and nginx on this machine, each
later by what is asked for, and files of the lab's. One server for each delay, started when it is
first asked for.
"""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

HERE = "10.0.2.2"  # this machine, seen from the lab
START_S = 20
NGINX_CONF = """daemon off;
{user}pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def free_ports(count):
    """Ports in a row that nobody listens on."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for n in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + n))
            except (OSError, OverflowError):
                continue
        return list(range(port, port + count))


class Servers(contextlib.ExitStack):
    """late: how much slower the lab's clock is, by which delays are told."""

    def __init__(self, memory, late, build):
        super().__init__()
        self.memory, self.late, self.build = memory, late, build
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="asyncpf-demo-servers-"))
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.nginx_port = None
        self.ports = {}  # of each source and delay

    def start(self, port, *words):
        process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL,
                                   stderr=open(self.folder / "stderr", "ab"))
        self.callback(lambda: (process.kill(), process.wait()))
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if time.monotonic() > until or process.poll() is not None:
                raise OSError(0, (self.folder / "stderr").read_text(errors="replace")[-300:],
                              str(words[0]))
            time.sleep(0.05)

    def nbd(self, delay_ms):
        port, = free_ports(1)
        self.start(port, "nbdkit", "-f", "-r", "-t", 64, "-i", "127.0.0.1", "-p", port,
                   "--filter=delay", "file", self.memory, f"rdelay={delay_ms * self.late}ms")
        return port

    def http(self, delay_ms):
        if self.nginx_port is None:
            self.nginx_port, = free_ports(1)
            conf = self.folder / "nginx.conf"
            conf.write_text(NGINX_CONF.format(
                folder=self.folder, port=self.nginx_port, root=self.memory.parent,
                # Its workers read what is ours alone.
                user="user root;\n" if os.geteuid() == 0 else ""), encoding="utf-8")
            self.start(self.nginx_port, "nginx", "-p", self.folder, "-c", conf)
        port, = free_ports(1)
        self.start(port, self.build / "tests/integration/late-relay", port, self.nginx_port,
                   delay_ms * self.late)
        return port

    def uri(self, source, delay_ms):
        """As the lab reaches it."""
        if source == "file":
            return f"delay+file:/dev/vda?ms={delay_ms}"
        if source == "zst":
            return f"zst+delay+file:memory.zst?ms={delay_ms}"
        if (source, delay_ms) not in self.ports:
            self.ports[source, delay_ms] = getattr(self, source)(delay_ms)
        port = self.ports[source, delay_ms]
        return f"nbd://{HERE}:{port}/" if source == "nbd" else f"http://{HERE}:{port}/memory"
