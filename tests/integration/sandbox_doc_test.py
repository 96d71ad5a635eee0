#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/embedding.md lists the system calls of the library's threads as src/sandbox allows them,
and what is allowed is what the sources can do: each ioctl that they make has a row, or is made
before a guest runs.

usage: sandbox_doc_test.py SANDBOX_TEST SOURCE_FOLDER [--write]
"""
import pathlib
import re
import subprocess
import sys

BEGIN = "| thread | system calls |"
FOLDERS = ["src/kvm", "src/mem", "src/io", "src/lib", "src/vmm"]
# Before any thread is bound, by whoever makes the VM.
AT_START = {"BLKGETSIZE64", "BLKROGET", "BLKSSZGET", "BLKPBSZGET",
            "KVM_CHECK_EXTENSION", "KVM_CREATE_IRQCHIP", "KVM_CREATE_PIT2",
            "KVM_CREATE_VCPU", "KVM_CREATE_VM", "KVM_ENABLE_CAP",
            "KVM_GET_API_VERSION", "KVM_GET_SUPPORTED_CPUID", "KVM_GET_TSC_KHZ", "KVM_SET_CPUID2",
            "KVM_SET_CLOCK", "KVM_SET_IRQCHIP", "KVM_SET_PIT2", "KVM_SET_TSC_KHZ",
            "KVM_SET_TSS_ADDR", "KVM_SET_XSAVE", "KVM_SET_USER_MEMORY_REGION",
            "KVM_X86_SET_MSR_FILTER", "TUNSETIFF", "TUNSETVNETHDRSZ",
            "UFFDIO_API", "USERFAULTFD_IOC_NEW"}
IOCTL = re.compile(r"\b(?:ioctl|KVMP_IOCTL|KVMP_CALL)\(\s*[^,;]+,\s*([A-Z][A-Z0-9_]+)")


def ioctls(source):
    for folder in FOLDERS:
        for file in sorted(pathlib.Path(source, folder).rglob("*.[ch]")):
            for name in IOCTL.findall(file.read_text(encoding="utf-8")):
                yield file, name


def main(program, source, *options):
    page = pathlib.Path(source, "docs/embedding.md")
    text = page.read_text(encoding="utf-8")
    table = subprocess.run([program, "--markdown"], capture_output=True, text=True,
                           check=True).stdout
    start = text.index(BEGIN)
    end = text.index("\n\n", start) + 1
    calls = pathlib.Path(source, "src/sandbox/calls.c").read_text(encoding="utf-8")
    have = set(re.findall(r"IOCTL\((\w+)", calls))
    seen = set()
    bad = 0
    for file, name in ioctls(source):
        seen.add(name)
        if name not in have | AT_START:
            print(f"{file}: {name} is not in src/sandbox/calls.c")
            bad += 1
    if not {"KVM_RUN", "UFFDIO_CONTINUE", "PAGEMAP_SCAN", "KVM_IRQ_LINE"} <= seen:
        print(f"ioctls are not found where they are: {sorted(seen)}")
        bad += 1
    for name in sorted(AT_START - seen):
        print(f"{name} is not made anywhere")
        bad += 1
    if text[start:end] != table and options == ("--write",):
        page.write_text(text[:start] + table + text[end:], encoding="utf-8")
    elif text[start:end] != table:
        print("docs/embedding.md: its list is not that of src/sandbox/calls.c; "
              f"run {' '.join(sys.argv)} --write")
        bad += 1
    return bad > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
