#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ceph's object gateway as a real S3 server: one monitor, one OSD that keeps its objects in memory,
and radosgw in front of them, all in one folder, ended with this program.

usage: radosgw.py FOLDER PORT ACCESS_KEY SECRET_KEY

When it can be used, FOLDER/ready is there, with the seconds that the start took in it. While there
is a FOLDER/gone, the gateway is not: it is killed, and started again when that file is removed.
Ends, with all that it started, on SIGTERM, or with its parent.
"""
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
OSD_RESTARTS_MAX = 5
START_S = 120
# What a monitor and an OSD of this size need, and no more.
CONFIG = """[global]
fsid = 0b3f2f0e-9f6d-4c2b-8f4e-6f3d3c1a7e55
mon_host = v1:127.0.0.1:{mon}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {dir}
log_file = {dir}/$name.log
admin_socket = {dir}/$name.asok
pid_file =
log_to_syslog = false
crash_dir = {dir}
mon_data = {dir}/mon
mon_cluster_log_file = {dir}/cluster.log
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_osd_min_in_ratio = 0
osd_data = {dir}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 1
osd_max_object_name_len = 256
osd_max_object_namespace_len = 64
osd_heartbeat_grace = 600
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {dir}
rgw_thread_pool_size = 32
rgw_enable_ops_log = false
rgw_dns_name = localhost
rgw_run_sync_thread = false
rgw_enable_quota_threads = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
"""


def with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Gateway:
    def __init__(self, folder, port, access, secret):
        self.folder, self.port = folder, port
        self.keys = access, secret
        self.running = []
        self.restarts = 0
        (folder / "ceph.conf").write_text(CONFIG.format(dir=folder, port=port, mon=free_port()),
                                          encoding="utf-8")
        for name in ("mon", "osd"):
            (folder / name).mkdir()

    def words(self, program, *more):
        return [program, "--conf", str(self.folder / "ceph.conf"), *more]

    def run(self, program, *more):
        process = subprocess.Popen(self.words(program, *more), stdin=subprocess.DEVNULL,
                                   stdout=sys.stderr, preexec_fn=with_parent)
        end = time.monotonic() + START_S
        while process.poll() is None:
            self.alive()
            if time.monotonic() > end:
                sys.exit(f"radosgw.py: {program} takes longer than {START_S} s")
            time.sleep(0.02)
        if process.returncode != 0:
            sys.exit(f"radosgw.py: {program} ended: {process.returncode}")

    def start(self, program, *more):
        self.running.append(subprocess.Popen(self.words(program, "--foreground", *more),
                                             stdin=subprocess.DEVNULL, stdout=sys.stderr,
                                             preexec_fn=with_parent))

    def alive(self):
        """An OSD that asks its monitor before it has been told the cluster's fsid is refused
        ("wrong fsid"), and ends: Ceph's services start such a one again."""
        for n, process in enumerate(self.running):
            if process.poll() is None:
                continue
            if process.args[0] != "ceph-osd" or self.restarts == OSD_RESTARTS_MAX:
                sys.exit(f"radosgw.py: {process.args[0]} ended: {process.returncode}; its log is "
                         f"in {self.folder}")
            self.restarts += 1
            self.running[n] = subprocess.Popen(process.args, stdin=subprocess.DEVNULL,
                                               stdout=sys.stderr, preexec_fn=with_parent)

    def cluster(self):
        monmap = str(self.folder / "monmap")
        mon = next(line for line in CONFIG.splitlines() if line.startswith("fsid")).split()[-1]
        address = (self.folder / "ceph.conf").read_text("utf-8").split("mon_host = ")[1].split()[0]
        subprocess.run(["monmaptool", "--create", "--clobber", "--fsid", mon, "--addv", "a",
                        f"[{address}]", monmap], check=True, stdout=sys.stderr)
        self.run("ceph-mon", "--id", "a", "--mkfs", "--monmap", monmap)
        self.start("ceph-mon", "--id", "a")
        self.run("ceph", "osd", "new", "0f0f1a52-7f4f-4c7e-9d0e-2a5f0f7f3a11")
        self.run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid",
                 "0f0f1a52-7f4f-4c7e-9d0e-2a5f0f7f3a11")
        self.start("ceph-osd", "--id", "0")

    def user(self):
        access, secret = self.keys
        self.run("radosgw-admin", "--name", "client.rgw", "user", "create", "--uid", "test",
                 "--display-name", "test", "--access-key", access, "--secret-key", secret)

    def serve(self):
        self.start("radosgw", "--name", "client.rgw")
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            self.alive()
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        sys.exit(f"radosgw.py: radosgw does not listen; its log is in {self.folder}")

    def obey(self):
        """True: it has just begun to serve again."""
        gone, runs = (self.folder / "gone").exists(), (self.folder / "ready").exists()
        if gone and runs:
            gateway = self.running.pop()
            gateway.kill()
            gateway.wait()
            (self.folder / "ready").unlink()
        elif not gone and not runs:
            self.serve()
            return True
        return False

    def end(self):
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()


def ready(folder, began):
    new = folder / "ready.new"
    new.write_text(f"{time.monotonic() - began:.1f}\n", encoding="utf-8")
    new.rename(folder / "ready")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    port, access, secret = int(sys.argv[2]), sys.argv[3], sys.argv[4]
    with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began = time.monotonic()
    gateway = Gateway(folder, port, access, secret)
    try:
        for step in (gateway.cluster, gateway.user, gateway.serve):
            step()
            print(f"{step.__name__}: {time.monotonic() - began:.1f} s", file=sys.stderr)
        ready(folder, began)
        while True:
            gateway.alive()
            if gateway.obey():
                ready(folder, began)
            time.sleep(0.2)
    finally:
        gateway.end()


if __name__ == "__main__":
    main()
