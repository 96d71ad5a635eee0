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
# Of --web: its network card, which answers.
WEB_MODULES = ["virtio-net"]
WEB_INIT = r"""
ip link set lo up
if ip link set eth0 up 2>/dev/null &&
    udhcpc -q -n -t 10 -i eth0 -s /etc/leased >/dev/null 2>&1; then
    nginx && echo "nginx answers at $(cat /tmp/address)."
else
    echo "There is no network card that gets an address: --net user gives it one."
fi
"""
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
@WEB@
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


def web_files():
    """name -> content: nginx and its libraries, what it needs to know."""
    unpacked = CACHE / "nginx"
    libraries = {p.name: p for p in unpacked.rglob("*.so*") if p.is_file()}
    wanted = ["ld-linux-x86-64.so.2", "libc.so.6", "libcrypt.so.1", "libpcre2-8.so.0",
              "libssl.so.3", "libcrypto.so.3", "libz.so.1"]
    missing = [name for name in wanted if name not in libraries]
    program = unpacked / "usr/sbin/nginx"
    if missing or not program.is_file():
        raise LabError(f"cannot start: {unpacked}: {' '.join(missing) or program.name} is not "
                       "there; remove the folder and run again")
    files = {"bin/nginx": program.read_bytes(), "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
             "etc/group": b"root:x:0:\n", "etc/nginx/nginx.conf": NGINX_CONF.encode()}
    for name in wanted:
        folder = "lib64" if name.startswith("ld-") else "lib/x86_64-linux-gnu"
        files[f"{folder}/{name}"] = libraries[name].read_bytes()
    return files


def add_web(cpio):
    """nginx, a page of its own, what it takes to get an address."""
    for folder in ("var/lib/nginx", "var/log/nginx"):
        cpio.folder(folder)
    for name, content in {**web_files(), "etc/leased": LEASED.encode(),
                          "www/index.html": b"Hello from a guest of asyncpf.\n"}.items():
        cpio.file(name, content)


def initrd(kernel, web=False):
    cpio = Cpio()
    modules = load_modules(kernel, MODULES + (WEB_MODULES if web else []))
    for folder in ("bin", "dev", "proc", "sys", "tmp", "root"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    cpio.file("bin/busybox", only_file("busybox/**/busybox", "busybox").read_bytes())
    cpio.file("bin/fill", FILL.encode())
    for name, image in modules.items():
        cpio.file(f"modules/{name}", image)
    cpio.file("modules/order", "\n".join(modules).encode())
    if web:
        add_web(cpio)
    cpio.file("init", INIT.replace("@WEB@", WEB_INIT if web else "").encode())
    return cpio.finish()


def write_guest(kernel, folder, web=False):
    """folder/vmlinuz and folder/initrd.img."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel_image(kernel), folder / "vmlinuz")
        pathlib.Path(folder, "initrd.img").write_bytes(initrd(kernel, web))
    except OSError as e:
        raise LabError(f"cannot write: {e.filename or folder}: {e.strerror}; name another "
                       "folder") from e
