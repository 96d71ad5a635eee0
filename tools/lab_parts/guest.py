# SPDX-License-Identifier: Apache-2.0
"""A Linux to boot as a guest: the lab's own kernel, and a shell on the serial console."""
import pathlib
import shutil

from lab_parts import LabError
from lab_parts.cpio import Cpio
from lab_parts.fetch import kernel_image, only_file
from lab_parts.initramfs import load_modules

MODULES = ["virtio-mmio", "virtio-blk", "virtio-rng"]

# The shell reads the console until it ends; so does whoever types ahead.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PS1='guest # '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
for module in $(cat /modules/order); do insmod "/modules/$module"; done
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


def initrd(kernel):
    cpio = Cpio()
    modules = load_modules(kernel, MODULES)
    for folder in ("bin", "dev", "proc", "sys", "tmp", "root"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    cpio.file("bin/busybox", only_file("busybox/**/busybox", "busybox").read_bytes())
    cpio.file("bin/fill", FILL.encode())
    for name, image in modules.items():
        cpio.file(f"modules/{name}", image)
    cpio.file("modules/order", "\n".join(modules).encode())
    cpio.file("init", INIT.encode())
    return cpio.finish()


def write_guest(kernel, folder):
    """folder/vmlinuz and folder/initrd.img."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel_image(kernel), folder / "vmlinuz")
        pathlib.Path(folder, "initrd.img").write_bytes(initrd(kernel))
    except OSError as e:
        raise LabError(f"cannot write: {e.filename or folder}: {e.strerror}; name another "
                       "folder") from e
