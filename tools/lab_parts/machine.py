# SPDX-License-Identifier: Apache-2.0
"""The machine: QEMU, which ends when we do, whatever ends us."""
import ctypes
import os
import signal
import subprocess

from lab_parts import CACHE, LabError
from lab_parts.fetch import kernel_image


def qemu_command(o, initrd_fd, log_fd, *port_fds):
    share = CACHE / "qemu/usr/share"
    kernel_log = "loglevel=7" if o.verbose else "loglevel=5"
    command = [
        str(CACHE / "qemu/usr/bin/qemu-system-x86_64"), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-L", str(share / "qemu"), "-L", str(share / "seabios"),
        "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC",
        "-smp", str(o.cpus), "-m", f"{o.memory}M",
        "-kernel", str(kernel_image(o.kernel)), "-initrd", f"/proc/self/fd/{initrd_fd}",
        # The emulated TSC is the host's: it needs no watching. Mitigations cost much here.
        "-append", f"console=ttyS0 {kernel_log} panic=-1 mitigations=off tsc=reliable "
                   "no_timer_check random.trust_cpu=on",
        "-chardev", f"file,id=log,path=/proc/self/fd/{log_fd}", "-serial", "chardev:log",
        "-device", "virtio-serial-pci"]
    for n, fd in enumerate(port_fds, 1):
        command += ["-chardev", f"file,id=port{n},path=/proc/self/fd/{fd}",
                    "-device", f"virtserialport,nr={n},chardev=port{n}"]
    if o.verb == "shell":
        command += ["-chardev", "stdio,id=term,mux=on,signal=off",
                    "-device", "virtconsole,chardev=term"]
    return command


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def qemu_start(o, *fds):
    """fds: the initramfs, and where the log and the ports go."""
    libraries = [str(CACHE / "qemu" / d / "x86_64-linux-gnu") for d in ("usr/lib", "lib")]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    batch = o.verb == "run"
    try:
        return subprocess.Popen(
            qemu_command(o, *fds), env=env, pass_fds=fds, preexec_fn=die_with_parent,
            stdin=subprocess.DEVNULL if batch else None, stderr=subprocess.PIPE,
            start_new_session=batch)
    except OSError as e:
        raise LabError(f"cannot start: QEMU: {e.strerror}; remove {CACHE} and run again") from e


def in_memory(data):
    fd = os.memfd_create("initramfs")
    with open(fd, "wb", closefd=False) as f:
        f.write(data)
    return fd


def qemu_words(text):
    """The last line of QEMU's that is no complaint about a CPU feature."""
    lines = [line for line in text.decode(errors="replace").splitlines()
             if "TCG doesn't support" not in line]
    return lines[-1] if lines else "it ended without a word"
