# SPDX-License-Identifier: Apache-2.0
"""What the lab boots: busybox, modules, the files of --file with their libraries, and init."""
import lzma
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess

from lab_parts import CACHE, LabError
from lab_parts.cpio import Cpio
from lab_parts.fetch import only_file

MODULES = ["kvm-amd"]


INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LANG=C TERM="${TERM:-linux}"
@LIBRARIES@
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
cat /dev/vport0p6 >/dev/null &
mkdir -p /dev/pts /dev/shm /var/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o size=75% tmpfs /tmp
mount -t tmpfs -o size=75% tmpfs /var/tmp
ln -sf /proc/self/fd /dev/fd
ip link set lo up
ulimit -l unlimited
ulimit -c 0
cd /work
for module in @MODULES@; do insmod /modules/$module.ko; done
@NET@
/vm-holder &
@MAIN@
reboot -f
"""
# The ports are machine.py's PORTS.
MAIN_RUN = r"""
exec 9>/dev/vport0p2
echo ready >&9
mkfifo /run/out /run/err
cat </run/out >/dev/vport0p1 9>&- &
readers=$!
cat </run/err >/dev/vport0p3 9>&- &
readers="$readers $!"
@RELAY@
@COMMAND@ >/run/out 2>/run/err 9>&-
status=$?
# A process left behind may hold the pipes open.
(sleep 5; kill $readers) 2>/dev/null 9>&- &
wait $readers
echo "status $status" >&9
tar c -f - @GET@ >&9 2>/dev/null
@DRAIN@
exec 9>&-
"""
# The port takes what is written before QEMU has read it, and what it has not read when the machine
# ends is lost. Its queue has 128 places: when so many writes have followed, all before them are
# read. To tar they are an empty end.
DRAIN = "dd if=/dev/zero bs=512 count=256 2>/dev/null >&9"
COMMAND = {
    "none": "sh /command </dev/null",
    "stream": "sh /command </dev/vport0p4",
    "terminal": "setsid -c sh /command </dev/hvc0",  # a session of its own: it has a foreground
}
RELAY = "./asyncpf lab-relay @SOCKET@ <>/dev/vport0p5 9>&- &"
MAIN_SHELL = r"""
stty rows @ROWS@ cols @COLUMNS@ </dev/hvc0
echo 'The lab: /dev/kvm is kvm_amd, your files are here; exit (or Ctrl-A x) ends it.' >/dev/hvc0
setsid sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1'
"""


def libraries_of(ldd_output, program):
    """The paths that `ldd` names."""
    paths = []
    for line in ldd_output.splitlines():
        found = re.match(r"\s*(?:(\S+) => )?(/\S+|not found)(?: \(0x[0-9a-f]+\))?$", line)
        if found and found.group(2) == "not found":
            raise LabError(f"cannot start: {program}: its library {found.group(1)} is not found; "
                           "install it")
        if found:
            paths.append(found.group(2))
    return paths


def ldd(path):
    with open(path, "rb") as f:
        if f.read(4) != b"\x7fELF":
            return []
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    return libraries_of(done.stdout, path) # status 1: not a dynamic executable


def module_depends(image):
    found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + image)
    return [n for n in found.group(1).decode().split(",") if n] if found else []


def load_modules(kernel, names):
    """name -> content, in the order in which they must be loaded."""
    files = {p.name.split(".ko")[0].replace("_", "-"): p
             for p in CACHE.glob(f"linux-{kernel}/lib/modules/**/*.ko*")}
    loaded = {}

    def load(name):
        name = name.replace("_", "-")
        if name in loaded:
            return
        if name not in files:
            raise LabError(f"cannot start: Linux {kernel}: it has no module {name}; check "
                           "--module")
        image = files[name].read_bytes()
        if files[name].suffix == ".xz":
            image = lzma.decompress(image)
        for needed in module_depends(image):
            load(needed)
        loaded[name] = image

    for name in names:
        load(name)
    return loaded


def vm_holder():
    """A program that makes a VM with a vCPU and sleeps.

    The first VM of a host and the last patch branches of running kernel code (the static key
    of the scheduler's preemption notifiers). Once the lab's kernel died there of an int3 that
    it had taken back, for which we suspect QEMU's threads (docs/lab.md). While one VM is held
    nothing is patched."""
    code = bytes.fromhex(
        "b802000000 488d3d3a000000 be02000000 0f05"  # open("/dev/kvm", O_RDWR)
        "89c7 be01ae0000 31d2 b810000000 0f05"       # ioctl(kvm, KVM_CREATE_VM, 0)
        "89c7 be60ae0000 b810000000 0f05"            # ioctl(vm, KVM_CREATE_IRQCHIP, 0)
        "be41ae0000 b810000000 0f05"                 # ioctl(vm, KVM_CREATE_VCPU, 0)
        "b822000000 0f05 ebf7") + b"/dev/kvm\0"      # pause() for ever
    base, head = 0x400000, 64 + 56
    size = head + len(code)
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + head, 64, 0, 0,
                      64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


def add_local(cpio, local, name, folders):
    """One --file, with its libraries."""
    path = pathlib.Path(local)
    if path.is_dir():
        for inner in sorted(p for p in path.rglob("*") if p.is_file()):
            add_local(cpio, inner, f"{name}/{inner.relative_to(path)}", folders)
        return
    try:
        cpio.file(f"work/{name}", path.read_bytes(), path.stat().st_mode & 0o777)
        needs = ldd(str(path))
    except OSError as e:
        raise LabError(f"cannot read: {local}: {e.strerror}; check --file") from e
    for library in needs:
        cpio.file(library, pathlib.Path(library).read_bytes())
        folders.add(os.path.dirname(library))


def fill(template, **values):
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def library_files(name):
    """The paths of a library and of those that it needs."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True,
                           check=False).stdout
    found = re.search(rf"^\s+{re.escape(name)} \(libc6,x86-64.*\) => (\S+)$", known, re.M)
    if not found:
        raise LabError(f"cannot start: {name}: the library is not found; install it")
    return [found.group(1), *ldd(found.group(1))]


def add_library(cpio, name, folders):
    """One --library, with those that it needs."""
    for path in library_files(name):
        cpio.file(path, pathlib.Path(path).read_bytes())
        folders.add(os.path.dirname(path))


# As QEMU's network in user space has it.
NET = """ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
mkdir -p /etc
echo nameserver 10.0.2.3 >/etc/resolv.conf"""


def main_run(o):
    relay = fill(RELAY, SOCKET=shlex.quote(o.socket[1])) if o.socket else ""
    return fill(MAIN_RUN, GET=" ".join(shlex.quote(name) for name, _ in o.get), RELAY=relay,
                DRAIN=DRAIN if o.get else "", COMMAND=COMMAND[o.input])


def build_initramfs(o):
    cpio = Cpio()
    folders = set()
    disks = ["virtio-blk"] if o.disk else []
    net = ["virtio-net"] if o.net else []
    modules = load_modules(o.kernel, MODULES + disks + net + o.module)
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "dev", "proc", "sys", "tmp", "run",
                   "root", "work"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    cpio.file("bin/busybox", only_file("busybox/**/busybox", "busybox").read_bytes())
    for name, image in modules.items():
        cpio.file(f"modules/{name}.ko", image, 0o644)
    cpio.file("vm-holder", vm_holder())
    for local, name in o.file:
        add_local(cpio, local, name, folders)
    for name in o.library:
        add_library(cpio, name, folders)
    if o.verb == "run":
        main = main_run(o)
        cpio.file("command", f"exec {shlex.join(o.command)}\n".encode(), 0o644)
    else:
        size = shutil.get_terminal_size()
        main = fill(MAIN_SHELL, ROWS=str(size.lines), COLUMNS=str(size.columns))
    # The standard folders too, or the loader would search them last.
    libraries = ":".join(sorted(folders))
    init = fill(INIT, MAIN=main, MODULES=" ".join(modules), NET=NET if o.net else "",
                LIBRARIES=f"export LD_LIBRARY_PATH={shlex.quote(libraries)}" if folders else "")
    cpio.file("init", init.encode())
    return cpio.finish()
