# SPDX-License-Identifier: Apache-2.0
"""Standard input, for the command in the lab: a terminal goes there as a terminal, anything
else as a stream of bytes.
"""
import contextlib
import errno
import os
import select
import signal
import socket
import termios
import threading
import time

ESCAPE = b"\x01"  # Ctrl-A; then x ends
# How long the command may take to end after Ctrl-A x before we end the lab.
ESCAPE_GRACE_S = 10
ESCAPE_SIGNAL = signal.SIGUSR1  # to the main thread, that it has not
# How often one looks who is in the background.
LOOK_S = 0.2


class Escaped(BaseException):
    """Ctrl-A x was typed, and the command did not end for it."""


class Escape:
    """Finds Ctrl-A x in what is typed; Ctrl-A Ctrl-A is one Ctrl-A, and no start of it."""

    def __init__(self):
        self.escaped = False

    def typed_in(self, data):
        for n in range(len(data)):
            byte = data[n:n + 1]
            if self.escaped and byte == b"x":
                return True
            self.escaped = byte == ESCAPE and not self.escaped
        return False


@contextlib.contextmanager
def blocked(number):
    """A signal that would stop us; what we were about to do then fails, or is done, instead."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Terminal:
    """fd, if it is our terminal: raw while we are in its foreground, and as it was otherwise.

    Whether we are is asked each time, as src/vmm/console/terminal.h does: a shell's `fg` of
    a job that runs tells nobody."""

    def __init__(self, fd):
        self.fd = fd
        self.saved = self.ours = None  # both None: nothing is to be put back
        self.in_use = self.away = False
        self.lock = threading.RLock()  # a handler of signals may come within
        self.usable = self.foreground() is not None

    def foreground(self):
        """None: there is no terminal of ours."""
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError:
            return None

    def start(self):
        """For what is typed from now on."""
        if not self.usable:
            return
        self.in_use = True
        self.look()
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self.stop)
        signal.signal(signal.SIGCONT, lambda *_: self.look())

    def look(self):
        """Decides anew. True: what is typed is ours to read."""
        with self.lock:
            if self.in_use and not self.away and self.foreground():
                self.make_raw()
                return True
            self.put_back()
            return False

    def stop(self, *_):
        """SIGTSTP. QEMU, which is no job of that shell, goes on."""
        self.away = True
        self.look()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.stop)
        self.away = False
        self.look()

    def make_raw(self):
        """What is printed keeps its line ends."""
        mode = termios.tcgetattr(self.fd)
        if mode == self.ours:
            return
        self.saved = termios.tcgetattr(self.fd)
        mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP |
                     termios.IXON)
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        self.set(mode)
        self.ours = termios.tcgetattr(self.fd)

    def put_back(self):
        """Not over what somebody else has set while we are in the background."""
        with contextlib.suppress(termios.error):
            if self.saved and (self.foreground() or termios.tcgetattr(self.fd) == self.ours):
                self.set(self.saved)
        self.saved = self.ours = None

    def set(self, mode):
        with blocked(signal.SIGTTOU):
            termios.tcsetattr(self.fd, termios.TCSANOW, mode)

    def restore(self):
        """For good."""
        self.in_use = False
        self.look()

    def read(self):
        """Typed bytes, or none at the end. Waits, in the background too."""
        while True:
            if self.usable and not self.look():
                time.sleep(LOOK_S)
                continue
            # Who waited in read() would take from the background, too.
            select.select([self.fd], [], [])
            if self.usable and not self.look():
                continue
            try:
                with blocked(signal.SIGTTIN):
                    return os.read(self.fd, 4096)
            except OSError as e:
                if e.errno != errno.EIO or self.foreground() is not False:
                    raise


def give_up(*_):
    raise Escaped


def feed(terminal, sock, escape):
    """All that is typed into sock, then its end."""
    try:
        while data := terminal.read():
            sock.sendall(data)
            if escape and escape.typed_in(data):
                timer = threading.Timer(ESCAPE_GRACE_S, os.kill, (os.getpid(), ESCAPE_SIGNAL))
                timer.daemon = True
                timer.start()
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it cannot be read, or the lab has ended: nothing more will come


def start_feeding(terminal, sock):
    escape = Escape() if terminal.usable else None
    signal.signal(ESCAPE_SIGNAL, give_up)
    threading.Thread(target=feed, args=(terminal, sock, escape), daemon=True).start()
