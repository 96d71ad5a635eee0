# SPDX-License-Identifier: Apache-2.0
"""One start of the lab: `run` with a command, `shell` with somebody at the terminal."""
import contextlib
import io
import os
import pathlib
import re
import socket
import tarfile
import termios
import threading
import time

from lab_parts import EXIT_LAB, LabError
from lab_parts.initramfs import build_initramfs
from lab_parts.machine import in_memory, qemu_start, qemu_words
from lab_parts.relay import Relay, listening
from lab_parts.terminal import Terminal, start_feeding
from lab_parts.watch import Watch, watch_run


def save_log(o, log):
    with contextlib.suppress(OSError):
        o.log.write_bytes(log)


def check_socket(o):
    """One that cannot be is found before the run, too; it is made once there is one in the lab."""
    if o.socket:
        with listening(o.socket[0]):
            pass


def check_gets(o):
    """A file that cannot be written is found before the run."""
    for _, local in o.get:
        try:
            with open(local, "ab"):
                pass
        except OSError as e:
            raise LabError(f"cannot write: {local}: {e.strerror}; check --get") from e


def save_gets(o, archive):
    """The files that --get asked for."""
    if not o.get:
        return
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


PULSE_S = 0.1  # by the lab's clock


def pulse(sock, pause_s):
    """Interrupts the lab's CPU now and then, until the lab ends. For a thread of its own.

    QEMU 10.0.2 can lose an interrupt (docs/lab.md), and the timer's comes only once: without
    another one the lab would stand still."""
    with sock, contextlib.suppress(ConnectionError):
        while True:
            with contextlib.suppress(BlockingIOError):  # so many were not read yet
                sock.send(b"\0", socket.MSG_DONTWAIT)
            time.sleep(pause_s)


class Wires:
    """Pipes and sockets between us and QEMU: `theirs` by name, our ends as attributes."""

    def __init__(self, o, terminal):
        self.theirs = {"initrd": in_memory(build_initramfs(o))}
        self.log = self.pipe("log")
        self.pulse = self.pair("pulse")
        if o.verb == "run":
            self.out, self.err, self.control = map(self.pipe, ("out", "err", "control"))
            self.input = self.pair("terminal" if terminal.usable else "input") if o.stdin else None
            self.relay = self.pair("relay") if o.socket else None

    def pipe(self, name):
        ours, self.theirs[name] = os.pipe()
        return ours

    def pair(self, name):
        ours, theirs = socket.socketpair()
        self.theirs[name] = theirs.detach()
        return ours


def start(o, wires):
    proc = qemu_start(o, wires.theirs)
    pause_s = PULSE_S * o.slow[1]
    threading.Thread(target=pulse, args=[wires.pulse, pause_s], daemon=True).start()
    return proc


def run(o):
    """Returns the command's exit status."""
    terminal = Terminal(0)
    o.input = "none" if not o.stdin else "terminal" if terminal.usable else "stream"
    with contextlib.ExitStack() as stack:
        stack.callback(terminal.restore)
        check_socket(o)
        check_gets(o)
        wires = Wires(o, terminal)

        def on_ready():
            terminal.start()
            if o.stdin:
                start_feeding(terminal, wires.input)

        watch = Watch(o, on_ready)
        proc = start(o, wires)
        handlers = {wires.log: watch.console, wires.out: watch.output, wires.err: watch.errors,
                    wires.control: watch.answer}
        if o.input == "terminal":
            handlers[wires.input.fileno()] = watch.output  # its echo, while it has one
        relay = start_relay(o, wires, watch, proc) if o.socket else None
        try:
            watch_run(proc, watch, handlers)
        except BaseException:
            proc.kill()
            raise
        finally:
            words = proc.communicate()[1]
            save_log(o, watch.log)
            if relay:
                relay.join()  # it has the lab's end, and takes the socket away
    return result(o, watch, qemu_words(words, proc.returncode))


def start_relay(o, wires, watch, proc):
    def give_up(error):
        watch.failure = error
        proc.kill()

    relay = threading.Thread(target=Relay(o.socket[0], wires.relay, give_up).run, daemon=True)
    relay.start()
    return relay


def result(o, watch, words):
    """What the machine came to: the command's exit status, or a LabError with QEMU's words."""
    if watch.failure:
        raise watch.failure
    if watch.complaint:
        raise LabError(f"the lab's kernel complains: {watch.complaint}; see {o.log}")
    found = re.match(rb"ready\nstatus (\d+)\n", watch.control)
    if not found and watch.ready_s is None:
        raise LabError(f"cannot start: QEMU: {words}; see {o.log}")
    if not found:
        raise LabError(f"the lab ended: before the command did: {words}; see {o.log}")
    status = int(found.group(1))
    try:
        save_gets(o, bytes(watch.control[found.end():]))
    except LabError:
        if status == 0:
            raise
        # A command that failed has its reason; that it made no file is part of it.
    return status


def shell(o):
    terminal = Terminal(0)
    wires = Wires(o, terminal)
    watch = Watch(o)
    saved = termios.tcgetattr(0) if os.isatty(0) else None
    proc = start(o, wires)
    try:
        while data := os.read(wires.log, 65536):
            watch.console(data)
        words = proc.communicate()[1]
    finally:
        proc.kill()
        save_log(o, watch.log)
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
    if proc.returncode:
        raise LabError(f"cannot start: QEMU: {qemu_words(words, proc.returncode)}; see "
                       f"{o.log}")
    return EXIT_LAB if watch.complaint else 0
