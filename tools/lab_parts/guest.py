# SPDX-License-Identifier: Apache-2.0
"""A Linux to boot as a guest: the lab's own kernel, and a shell on the serial console."""
import pathlib
import shutil

from lab_parts import CACHE, LabError
from lab_parts.cpio import Cpio
from lab_parts.fetch import kernel_image, only_file
from lab_parts.initramfs import load_modules

MODULES = ["virtio-mmio", "virtio-blk", "virtio-rng"]

# The shell reads the console until it ends; so does whoever types ahead.
# Of --web and --redis: its network card, which answers.
SERVICE_MODULES = ["virtio-net"]
SERVICE_INIT = r"""
ip link set lo up
if ip link set eth0 up 2>/dev/null &&
    udhcpc -q -n -t 10 -i eth0 -s /etc/leased >/dev/null 2>&1; then
    @START@
else
    echo "There is no network card that gets an address: --net user gives it one."
fi
"""
# Of redis: the kernel's command line says redis_servers=N redis_mib=N, of which each holds so many.
STARTS = {
    "nginx": 'nginx && echo "nginx answers at $(cat /tmp/address)."',
    "redis": r"""n=0
    while [ "$n" -lt "${redis_servers:-1}" ]; do
        port=$((6379 + n))
        redis-server --port "$port" --bind 0.0.0.0 --protected-mode no --save '' \
            --enable-debug-command local --daemonize yes --dir /tmp >/dev/null
        until redis-cli -p "$port" ping 2>/dev/null | grep -q PONG; do sleep 0.2; done
        redis-cli -p "$port" debug populate $((${redis_mib:-8} * 1024)) key 1024 >/dev/null
        n=$((n + 1))
    done
    echo "redis answers at $(cat /tmp/address)."
""".strip(),
}
LEASED = r"""#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/24" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
echo "$ip" >/tmp/address
"""
NGINX_CONF = """user root;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/null;
events { worker_connections 256; }
http {
    access_log off;
    sendfile on;
    server { listen 80; root /www; }
}
"""

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PS1='guest # '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
for module in $(cat /modules/order); do insmod "/modules/$module"; done
@SERVICE@
cd /root
echo
echo "This is Linux $(uname -r), a guest of asyncpf. Page-ready events so far:"
grep HYP /proc/interrupts
echo "'fill 64' writes 64 MiB and reads them back; 'exit' or Ctrl-A x ends the guest."
setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1
poweroff -f
"""

# In user mode, where a guest can be told of what has left: an array, written and read back.
FILL = r"""#!/bin/sh
mib=${1:-64}
awk -v n=$((mib * 3000)) 'BEGIN {
    text = sprintf("%200s", "x")
    for (i = 0; i < n; i++) held[i] = text i
    print "written; reading it back"
    for (i = 0; i < n; i++) if (held[i] != text i) bad++
    print bad + 0, "of", n, "are wrong"
    exit bad > 0
}'
grep HYP /proc/interrupts
"""


# What goes into the guest of each, beside its libraries: where from, where to.
PROGRAMS = {
    "nginx": {"usr/sbin/nginx": "bin/nginx"},
    "redis": {"usr/bin/redis-check-rdb": "bin/redis-server", "usr/bin/redis-cli": "bin/redis-cli"},
}
LIBRARIES = {
    "nginx": ["ld-linux-x86-64.so.2", "libc.so.6", "libcrypt.so.1", "libpcre2-8.so.0",
              "libssl.so.3", "libcrypto.so.3", "libz.so.1"],
    "redis": ["ld-linux-x86-64.so.2", "libatomic.so.1", "libc.so.6", "libcap.so.2",
              "libcrypto.so.3", "libgcc_s.so.1", "libgcrypt.so.20", "libgpg-error.so.0",
              "libjemalloc.so.2", "liblz4.so.1", "liblzf.so.1", "liblzma.so.5", "libm.so.6",
              "libssl.so.3", "libstdc++.so.6", "libsystemd.so.0", "libzstd.so.1"],
}


def service_files(service):
    """name -> content: its programs and their libraries, what it needs to know."""
    unpacked = CACHE / service
    found = {p.name: p for p in unpacked.rglob("*.so*") if p.is_file()}
    paths = {to: unpacked / path for path, to in PROGRAMS[service].items()}
    missing = [name for name in LIBRARIES[service] if name not in found]
    missing += [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise LabError(f"cannot start: {unpacked}: {' '.join(missing)} is not there; remove the "
                       "folder and run again")
    for name in LIBRARIES[service]:
        folder = "lib64" if name.startswith("ld-") else "lib/x86_64-linux-gnu"
        paths[f"{folder}/{name}"] = found[name]
    return {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n",
            "etc/leased": LEASED.encode(),
            **{name: path.read_bytes() for name, path in paths.items()}}


def add_service(cpio, service):
    """The service, and what it takes to get an address; nginx has a page of its own."""
    files = service_files(service)
    if service == "nginx":
        for folder in ("var/lib/nginx", "var/log/nginx"):
            cpio.folder(folder)
        files["etc/nginx/nginx.conf"] = NGINX_CONF.encode()
        files["www/index.html"] = b"Hello from a guest of asyncpf.\n"
    for name, content in files.items():
        cpio.file(name, content)


def initrd(kernel, service=""):
    cpio = Cpio()
    modules = load_modules(kernel, MODULES + (SERVICE_MODULES if service else []))
    start = SERVICE_INIT.replace("@START@", STARTS[service]) if service else ""
    for folder in ("bin", "dev", "proc", "sys", "tmp", "root"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    cpio.file("bin/busybox", only_file("busybox/**/busybox", "busybox").read_bytes())
    cpio.file("bin/fill", FILL.encode())
    for name, image in modules.items():
        cpio.file(f"modules/{name}", image)
    cpio.file("modules/order", "\n".join(modules).encode())
    if service:
        add_service(cpio, service)
    cpio.file("init", INIT.replace("@SERVICE@", start).encode())
    return cpio.finish()


def write_guest(kernel, folder, service=""):
    """folder/vmlinuz and folder/initrd.img."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel_image(kernel), folder / "vmlinuz")
        pathlib.Path(folder, "initrd.img").write_bytes(initrd(kernel, service))
    except OSError as e:
        raise LabError(f"cannot write: {e.filename or folder}: {e.strerror}; name another "
                       "folder") from e
