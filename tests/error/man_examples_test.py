#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every example of the man pages does what it is said to: each line of theirs that is a command
is run, in a folder that has the files which it names, beside a VM where it names a socket.

What is booted is a kernel that powers off; where the command line is the lab's, as the KVM here
is slow or not there, the lab's tool is one that takes any.

usage: man_examples_test.py PATH_OF_ASYNCPF SOURCE_FOLDER MULTIBOOT_KERNEL CONFORMANCE_KERNEL
"""
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile

from readme_test import SECONDS, running_vm, shell

# Beside commands, which begin so:
FORMS = ("asyncpf: ",)
TOOL = "#!/bin/sh\nexit 0\n"
# grep finds nothing where all is well; others have to succeed.
ENDS = {"grep": (0, 1)}
# Another hypervisor's; one that waits for what may never happen; one that goes on for ever.
LEFT_OUT = {"qemu-system-x86_64": "another hypervisor's", "asyncpf events": "it waits for trouble",
            "asyncpf pager": "it serves until it is stopped",
            "asyncpf restore": "the guest goes on; lab-snapshot restores one"}
BASE, HEADER_BYTES = 1 << 20, 32


def powers_off():
    """A multiboot kernel: mov $0x3400, %ax; mov $0x604, %dx; out %ax, (%dx); hlt."""
    code = bytes.fromhex("66b80034" "66ba0406" "66ef" "f4")
    return struct.pack("<8I", 0x1badb002, 1 << 16, -(0x1badb002 + (1 << 16)) & 0xffffffff, BASE,
                       BASE, BASE + HEADER_BYTES + len(code), 0, BASE + HEADER_BYTES) + code


def examples(source):
    for page in sorted((source / "docs/man").glob("*.1")):
        for line in re.findall(r"^\.Dl (.*)$", page.read_text(encoding="utf-8"), re.M):
            if not line.startswith(FORMS):
                yield page.name, line


def failure(line, folder):
    """What is wrong with it, or None."""
    programs = [part.split()[0] for part in line.split(" | ")]
    missing = [name for name in programs if name != "asyncpf" and not shutil.which(name)]
    if missing:
        print(f"SKIP: no {missing[0]}: {line}")
        return None
    try:
        code, said = shell(line, folder, SECONDS)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    if code in ENDS.get(programs[-1], (0,)):
        return None
    return f"exit code {code}\n{said}"


def main(argv):
    asyncpf, source, kernel, conformance = (pathlib.Path(w).resolve() for w in argv[:4])
    has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    bad = count = 0
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tool = folder / "tool"
        tool.write_text(TOOL, encoding="utf-8")
        tool.chmod(0o755)
        os.environ["ASYNCPF_LAB_TOOL"] = str(tool)
        os.environ["PATH"] = f"{asyncpf.parent}:{os.environ['PATH']}"
        for name, content in (("vmlinuz", powers_off()), ("initrd.img", b"initrd"),
                              ("conformance.elf", conformance.read_bytes()),
                              ("root.img", bytes(1 << 20)), ("data.img", bytes(1 << 20)),
                              ("mem", conformance.read_bytes() + bytes(1 << 20))):
            (folder / name).write_bytes(content)
        started = False
        for page, line in examples(source):
            count += 1
            if not has_kvm and "run" not in shlex.split(line):
                print(f"SKIP: no /dev/kvm: {line}")
                continue
            left_out = [why for words, why in LEFT_OUT.items() if line.startswith(words)]
            if left_out:
                print(f"SKIP: {left_out[0]}: {line}")
                continue
            if "vm.sock" in line and not started:
                stack.enter_context(running_vm(str(asyncpf), str(kernel), folder))
                started = True
            why = failure(line, folder)
            print(f"{'FAILED' if why else 'ok'}: {page}: {line}{': ' + why if why else ''}")
            bad += why is not None
    return 1 if bad or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
