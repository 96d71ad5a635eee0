# SPDX-License-Identifier: Apache-2.0
"""One start of the lab: `run` with a command, `shell` with somebody at the terminal."""
import contextlib
import io
import os
import pathlib
import re
import sys
import tarfile
import termios
import time

from lab_parts import EXIT_LAB, KERNEL_LOG, LabError
from lab_parts.initramfs import build_initramfs
from lab_parts.machine import in_memory, qemu_start, qemu_words
from lab_parts.watch import Watch, watch_run


def save_log(log):
    with contextlib.suppress(OSError):
        KERNEL_LOG.write_bytes(log)


def save_gets(o, archive):
    """The files that --get asked for."""
    with tarfile.open(fileobj=io.BytesIO(archive), ignore_zeros=True) as tar:
        members = {m.name.strip("/"): m for m in tar.getmembers()}
        for name, local in o.get:
            member = members.get(name.strip("/"))
            data = tar.extractfile(member) if member and member.isfile() else None
            if data is None:
                raise LabError(f"cannot get: {name}: there is no such file in the lab; check "
                               "--get")
            try:
                pathlib.Path(local).write_bytes(data.read())
            except OSError as e:
                raise LabError(f"cannot write: {local}: {e.strerror}; check --get") from e


def run(o):
    began = time.monotonic()
    initrd = in_memory(build_initramfs(o))
    log_r, log_w = os.pipe()
    out_r, out_w = os.pipe()
    control_r, control_w = os.pipe()
    watch = Watch(o, began)
    proc = qemu_start(o, initrd, log_w, out_w, control_w)
    for fd in (initrd, log_w, out_w, control_w):
        os.close(fd)
    try:
        watch_run(proc, watch, (log_r, out_r, control_r))
    finally:
        proc.kill()
        words = proc.communicate()[1]
        save_log(watch.log)
    if watch.complaint:
        raise LabError(f"the lab's kernel complains: {watch.complaint}; see {KERNEL_LOG}")
    found = re.match(rb"ready\nstatus (\d+)\n", watch.control)
    if not found and watch.ready_s is None:
        raise LabError(f"cannot start: QEMU: {qemu_words(words)}; see {KERNEL_LOG}")
    if not found:
        raise LabError(f"the lab ended: before the command did: see {KERNEL_LOG}")
    if o.get:
        save_gets(o, bytes(watch.control[found.end():]))
    return int(found.group(1))


def shell(o):
    initrd = in_memory(build_initramfs(o))
    log_r, log_w = os.pipe()
    watch = Watch(o, time.monotonic())
    terminal = termios.tcgetattr(0) if os.isatty(0) else None
    proc = qemu_start(o, initrd, log_w)
    os.close(initrd)
    os.close(log_w)
    try:
        while data := os.read(log_r, 65536):
            watch.console(data)
        words = proc.communicate()[1]
    finally:
        proc.kill()
        save_log(watch.log)
        if terminal:
            termios.tcsetattr(0, termios.TCSADRAIN, terminal)
    if proc.returncode:
        raise LabError(f"cannot start: QEMU: {qemu_words(words)}; see {KERNEL_LOG}")
    return EXIT_LAB if watch.complaint else 0
