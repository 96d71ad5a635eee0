# SPDX-License-Identifier: Apache-2.0
"""The machine: QEMU, which ends when we do, whatever ends us."""
import ctypes
import fcntl
import os
import signal
import stat
import subprocess

from lab_parts import CACHE, LabError
from lab_parts.fetch import kernel_image


# Virtio ports, /dev/vport0pN in the lab. Files take only what comes out of the lab.
PORTS = {"out": 1, "control": 2, "err": 3, "input": 4, "relay": 5, "pulse": 6}
STREAMS = {"input", "relay", "pulse", "terminal"}


def qemu_command(o, fds):
    """fds: "initrd", "log", and those ports and the "terminal" that are in use."""
    share = CACHE / "qemu/usr/share"
    kernel_log = "loglevel=7" if o.verbose else "loglevel=5"
    command = [
        str(CACHE / "qemu/usr/bin/qemu-system-x86_64"), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-L", str(share / "qemu"), "-L", str(share / "seabios"),
        "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC",
        "-smp", str(o.cpus), "-m", f"{o.memory}M",
        "-kernel", str(kernel_image(o.kernel)), "-initrd", f"/proc/self/fd/{fds['initrd']}",
        # The emulated TSC is the host's: it needs no watching. Mitigations cost much here.
        "-append", f"console=ttyS0 {kernel_log} panic=-1 mitigations=off tsc=reliable "
                   "no_timer_check random.trust_cpu=on" +
                   (" intel_iommu=on" if o.vfio else "")]
    if o.vfio:
        # The IOMMU comes before what is behind it. edu: a device that copies at command.
        command += ["-device", "intel-iommu", "-device", "edu"]
    # Nothing that it does needs another process, user or priority.
    command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
                            "resourcecontrol=deny"]
    command += ["-device", "virtio-serial-pci"]
    for name, fd in fds.items():
        if name in STREAMS:
            command += ["-chardev", f"socket,id={name},fd={fd}"]
        elif name != "initrd":
            command += ["-chardev", f"file,id={name},path=/proc/self/fd/{fd}"]
        if name in PORTS:
            command += ["-device", f"virtserialport,nr={PORTS[name]},chardev={name}"]
    command += ["-serial", "chardev:log"]
    if o.verb == "shell":
        command += ["-chardev", "stdio,id=terminal,mux=on,signal=off"]
    if o.verb == "shell" or "terminal" in fds:
        command += ["-device", "virtconsole,chardev=terminal"]
    if o.net:
        forwards = "".join(f",hostfwd={protocol}:{address}:{port}-:{port}"
                           for protocol, address, port in o.forward)
        command += ["-netdev", f"user,id=net{forwards}",
                    "-device", "virtio-net-pci,netdev=net,romfile="]
    for n, (path, read_only) in enumerate(o.disk):
        command += disk_words(n, path, read_only)
    return command


BLKSSZGET = 0x1268
SECTOR_BYTES = 512


def disk_words(n, path, read_only):
    """What the host fails is told in the lab, where whoever uses the disk decides. Its blocks are
    as large as the device's, and a file's end that is no whole sector is not there."""
    block, size = SECTOR_BYTES, ""
    st = os.stat(path)
    if stat.S_ISBLK(st.st_mode):
        with open(path, "rb") as device:
            answer = fcntl.ioctl(device, BLKSSZGET, bytes(4))
        block = int.from_bytes(answer, "little")
    elif st.st_size % SECTOR_BYTES:
        size = f",size={st.st_size - st.st_size % SECTOR_BYTES}"
    return ["-drive", f"file={path.replace(',', ',,')},format=raw,if=none,id=disk{n},"
                      f"readonly={'on' if read_only else 'off'},werror=report,rerror=report{size}",
            "-device", f"virtio-blk-pci,drive=disk{n},logical_block_size={block}"]


def die_with(parent):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # too late for the signal


def qemu_start(o, fds):
    """fds as for qemu_command(). They are closed here."""
    libraries = [str(CACHE / "qemu" / d / "x86_64-linux-gnu") for d in ("usr/lib", "lib")]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    library, times = o.slow
    if library:
        env |= {"LD_PRELOAD": library, "ASYNCPF_SLOW_CLOCK": str(times)}
    batch = o.verb == "run"
    parent = os.getpid()
    try:
        return subprocess.Popen(
            qemu_command(o, fds), env=env, pass_fds=fds.values(),
            preexec_fn=lambda: die_with(parent), stdin=subprocess.DEVNULL if batch else None,
            stderr=subprocess.PIPE, start_new_session=batch)
    except OSError as e:
        raise LabError(f"cannot start: QEMU: {e.strerror}; remove {CACHE} and run again") from e
    finally:
        for fd in fds.values():
            os.close(fd)


def in_memory(data):
    fd = os.memfd_create("initramfs")
    with open(fd, "wb", closefd=False) as f:
        f.write(data)
    return fd


def qemu_words(text, status):
    """Which signal ended it, or its last line that is no complaint about a CPU feature."""
    if status < 0:
        return f"it was ended by signal {-status}"
    lines = [line for line in text.decode(errors="replace").splitlines()
             if "TCG doesn't support" not in line]
    return lines[-1] if lines else "it ended without a word"
