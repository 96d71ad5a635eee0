# SPDX-License-Identifier: Apache-2.0
"""Standard input, for the command in the lab: a terminal goes there as a terminal, anything
else as a stream of bytes.
"""
import contextlib
import os
import signal
import socket
import termios
import threading

ESCAPE = b"\x01"  # Ctrl-A; then x ends
# How long the command may take to end after Ctrl-A x before we end the lab.
ESCAPE_GRACE_S = 10
ESCAPE_SIGNAL = signal.SIGUSR1  # to the main thread, that it has not


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


class Terminal:
    """fd, if it is a terminal and we are in its foreground."""

    def __init__(self, fd):
        self.fd = fd
        self.saved = None
        try:
            self.usable = os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
        except OSError:
            self.usable = False

    def make_raw(self):
        """For what is typed; what is printed keeps its line ends."""
        if not self.usable:
            return
        self.saved = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)
        mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP |
                     termios.IXON)
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)

    def restore(self):
        if self.saved:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.fd, termios.TCSADRAIN, self.saved)
            self.saved = None


def give_up(*_):
    raise Escaped


def feed(fd, sock, escape):
    """Everything from fd into sock, then its end."""
    try:
        while data := os.read(fd, 4096):
            sock.sendall(data)
            if escape and escape.typed_in(data):
                timer = threading.Timer(ESCAPE_GRACE_S, os.kill, (os.getpid(), ESCAPE_SIGNAL))
                timer.daemon = True
                timer.start()
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # fd cannot be read, or the lab has ended: nothing more will come


def start_feeding(terminal, sock):
    escape = Escape() if terminal.usable else None
    signal.signal(ESCAPE_SIGNAL, give_up)
    threading.Thread(target=feed, args=(terminal.fd, sock, escape), daemon=True).start()
