# SPDX-License-Identifier: Apache-2.0
"""Writes the initramfs of the stock Linux guest: one static program as /init.

usage: tools/guest-initramfs OUTPUT INIT [NAME=FILE]...

Each NAME=FILE puts a further file into it. For the step `kexec` the guest needs
next/kernel and next/initrd. guests/linux/README.md lists the steps.
"""
import pathlib
import sys

from lab_parts.cpio import Cpio


def main(argv):
    if len(argv) < 2 or any("=" not in word for word in argv[2:]):
        print("asyncpf: wrong usage: tools/guest-initramfs: it takes OUTPUT INIT [NAME=FILE]...; "
              "see its head", file=sys.stderr)
        return 2
    cpio = Cpio()
    for folder in ("dev", "proc", "sys"):
        cpio.folder(folder)
    cpio.device("dev/console", 5, 1)
    try:
        cpio.file("init", pathlib.Path(argv[1]).read_bytes())
        for word in argv[2:]:
            name, _, path = word.partition("=")
            cpio.file(name, pathlib.Path(path).read_bytes())
        pathlib.Path(argv[0]).write_bytes(cpio.finish())
    except OSError as e:
        print(f"asyncpf: cannot write: {argv[0]}: {e.filename}: {e.strerror}; check the paths",
              file=sys.stderr)
        return 1
    return 0
