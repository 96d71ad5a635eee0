#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The network card of `asyncpf run --net user` beside QEMU's virtio-net on its own user network,
both in one lab: the same Debian kernel and initramfs with nginx, one vCPU and 256 MiB each, nothing
evicted, both guests up at once. ApacheBench asks one and the other by turns through a forwarded
port; each figure is the median of rounds. QEMU's machine is microvm, which has its card on
virtio-mmio as ours is.

Promises: of what QEMU reaches, at least 0.7 of the requests per second, each by a connection of its
own and over connections that stay, and at least 0.7 of the bytes per second, either way.

What it measures: asking, VMM and guest share one emulated CPU, on which an exit of the guest's
costs tens of microseconds and a byte that is copied next to nothing. It therefore compares how many
exits, interrupts, wake-ups and system calls a packet costs; it tells nothing of any hardware's
throughput.

usage: bench/qemu_net.py [--check] [--rounds N] [--seconds S] BUILD_FOLDER
"""
import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tools"))
from lab_parts import CACHE
from lab_parts.cpio import Cpio
from lab_parts.fetch import fetch
from lab_parts.guest import NGINX_CONF, write_guest

LEAST = 0.7
KERNEL = "6.12"
DATA_BYTES = 1 << 20
WAIT_S = 300
FIRMWARE = ["seabios/bios-microvm.bin", "qemu/linuxboot_dma.bin", "qemu/pvh.bin",
            "qemu/kvmvapic.bin"]
# What is asked, ab's words for it, and which of its figures counts.
KINDS = {
    "requests/s, a connection each": ("-c 8", "index.html", "requests"),
    "requests/s, 8 connections that stay": ("-k -c 8", "index.html", "requests"),
    "MB/s out of the guest, files of 1 MiB": ("-k -c 2", "data", "received"),
    "MB/s into the guest, files of 1 MiB": ("-k -c 2 -u data -T application/octet-stream", "up/x",
                                            "sent"),
}
# What takes a file of the client's.
CONF = NGINX_CONF.replace("server {", "client_body_temp_path /www/temp; client_max_body_size 8m;"
                          "\n    keepalive_requests 1000000;\n    server {").replace(
    "root /www; }", "root /www; location /up/ { dav_methods PUT; } }")
CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"
PORTS = {"asyncpf": 8080, "qemu": 8081}

SCRIPT = r"""
# up WHO COMMAND...: one is up before the other begins
up() {
    who=$1 left=@WAIT_S@
    shift
    : >$who.out
    "$@" </dev/null >>$who.out 2>&1 &
    until grep -q 'nginx answers' $who.out; do
        sleep 1
        left=$((left - 1))
        [ $left -gt 0 ] || { tail -n 5 $who.out; exit 1; }
    done
}
up asyncpf ./asyncpf run --local --kernel vmlinuz --initrd initrd --memory 256M \
    --cmdline "@CMDLINE@" --net user,fwd=tcp:8080:80 --control c
up qemu ./qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -L firmware \
    -M microvm,acpi=on -accel kvm -cpu host -m 256M -kernel vmlinuz -initrd initrd \
    -append "@CMDLINE@" -chardev stdio,id=console,signal=off -serial chardev:console \
    -netdev user,id=net,hostfwd=tcp:127.0.0.1:8081-:80 -device virtio-net-device,netdev=net
for who in asyncpf:8080 qemu:8081; do
    wget -q -O got http://127.0.0.1:${who#*:}/data && cmp got data || exit 1
done
# ask WHO PORT KIND PATH WORDS...
ask() {
    who=$1 port=$2 kind=$3 path=$4
    shift 4
    ab -q -t @SECONDS@ -n 200000 "$@" http://127.0.0.1:$port/$path >ab.out 2>&1 ||
        { tail -n 3 ab.out; exit 1; }
    awk -v head="@@ $who $kind" '
        /^Requests per second/ { requests = $4 }
        /^Transfer rate/ { received = $3 }
        / kb\/s sent/ { sent = $1 }
        /^Complete requests/ { complete = $3 }
        /^Failed requests/ { failed = $3 }
        /^Non-2xx/ { failed += $3 }
        END { print head, requests, received, sent + 0, complete, failed + 0 }' ab.out
}
"""


def in_lab(o):
    """The script: kinds are numbered, and who comes first changes with the round."""
    script = SCRIPT
    for word, value in {"CMDLINE": CMDLINE, "WAIT_S": WAIT_S, "SECONDS": o.seconds}.items():
        script = script.replace(f"@{word}@", str(value))
    for turn in range(1 + o.rounds):
        for n, (words, path, _) in enumerate(KINDS.values()):
            for who in sorted(PORTS, reverse=turn % 2 == 1):
                # The first round is for warming up.
                script += f"ask {who if turn else 'warm-up'} {PORTS[who]} {n} {path} {words}\n"
    return script


def prepare(folder):
    """The guest, with a file to have and a place to put one; QEMU's firmware."""
    fetch(KERNEL, "nginx")
    write_guest(KERNEL, folder, "nginx")
    more = Cpio()
    data = random.Random(1).randbytes(DATA_BYTES)
    more.file("www/data", data)
    more.file("etc/nginx/nginx.conf", CONF.encode())
    for name in ("www/up", "www/temp"):
        more.folder(name)
    initrd = (folder / "initrd.img").read_bytes()
    (folder / "initrd").write_bytes(initrd + b"\0" * (-len(initrd) % 4) + more.finish())
    (folder / "data").write_bytes(data)
    return [folder / name for name in ("vmlinuz", "initrd", "data")]


def run(o):
    """{(who, kind): [(figure, …)]}"""
    found = {}
    libraries = [str(CACHE / "qemu" / d / "x86_64-linux-gnu") for d in ("usr/lib", "lib")]
    with tempfile.TemporaryDirectory() as name:
        files = prepare(pathlib.Path(name))
        files += [o.build / "asyncpf", CACHE / "qemu/usr/bin/qemu-system-x86_64"]
        words = [w for path in files for w in ("--file", str(path))]
        for path in FIRMWARE:
            words += ["--file", f"{CACHE}/qemu/usr/share/{path}:firmware/{os.path.basename(path)}"]
        limit = 2 * WAIT_S + 4 * o.seconds * (1 + o.rounds) * len(KINDS) * len(PORTS)
        command = [ROOT / "tools/lab", "run", "--memory", "1536", "--timeout", str(limit),
                   "--log", str(o.build / "qemu_net.log"),
                   "--library", "libslirp.so.0", *words, "--file", "/usr/bin/ab:bin/ab", "--",
                   "sh", "-c", "PATH=$PATH:$PWD/bin\n" + in_lab(o)]
        # Where QEMU's own libraries are: tools/lab takes those along that a program needs.
        env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as lab:
            for line in lab.stdout:
                if not line.startswith("@@ ") or o.verbose:
                    sys.stderr.write(line)
                if not line.startswith("@@ "):
                    continue
                _, who, kind, *figures = line.split()
                found.setdefault((who, int(kind)), []).append(tuple(map(float, figures)))
    if lab.returncode != 0:
        sys.exit(f"bench/qemu_net.py: the lab ended with exit code {lab.returncode}")
    return found


def show(o, found):
    """One line for each kind; whether all is as promised."""
    column = {"requests": (0, 1), "received": (1, 1024 / 1e6), "sent": (2, 1024 / 1e6)}
    well = True
    print(f"{'':40} {'asyncpf':>9} {'QEMU':>9} {'ratio':>6}  ratios of {o.rounds} rounds")
    for n, (what, (_, _, figure)) in enumerate(KINDS.items()):
        at, scale = column[figure]
        ours, theirs = ([row[at] * scale for row in found[who, n]] for who in ("asyncpf", "qemu"))
        ratios = [a / b for a, b in zip(ours, theirs)]
        failed = sum(row[4] for who in PORTS for row in found[who, n])
        ratio = statistics.median(ratios)
        print(f"{what:40} {statistics.median(ours):9.1f} {statistics.median(theirs):9.1f} "
              f"{ratio:6.2f}  {min(ratios):.2f} to {max(ratios):.2f}"
              f"{f'; {failed:.0f} requests failed' if failed else ''}")
        well &= ratio >= LEAST and not failed
    return well


def main():
    parser = argparse.ArgumentParser(usage=__doc__.rpartition("usage: ")[2])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="what the lab says, as it comes")
    parser.add_argument("build", type=pathlib.Path)
    o = parser.parse_args()
    well = show(o, run(o))
    if o.check and not well:
        print(f"FAILED: less than {LEAST} of QEMU's, or requests that failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
