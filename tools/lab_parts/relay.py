# SPDX-License-Identifier: Apache-2.0
"""A UNIX socket of the host that leads to one in the lab, and is there while that one is.

All connections share one virtio port, in frames: type (1 byte), connection (1 byte), length
(2 bytes, little-endian), then as many bytes: up to 4096 in DATA, none in the others. The lab
sends READY, for connection 0 and once, when its socket is there. Each side sends END when no
more will come from it; after both ENDs the number is free, and only then may it be opened
again. The host numbers the connections, 0 to 31. The other end is src/cli/lab/cmd_lab_relay.c, on
relay_proto.h; it gives up on a host that breaks these rules.

Neither side waits for one connection: what is not taken in time is thrown away with it.
"""
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import time

from lab_parts import LabError, Refused

HEAD = struct.Struct("<BBH")
OPEN, DATA, END, READY = 1, 2, 3, 4
CONNECTIONS_MAX = 32  # more than the server has places: it turns those away itself
FRAME_MAX = 4096
LOCK_TRIES, LOCK_PAUSE_S = 100, 0.01  # as asyncpf's own servers
PENDING_MAX = 1 << 16  # for the lab: then no client is read; for a client: then it is dropped


def check_stale(path):
    """What stands there: nothing that answers, or Refused, in the words of asyncpf's own servers
    (src/vmm/control/control_socket.c)."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Refused(f"control socket: {path}: something is there that is no socket; remove it, "
                      "or name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass  # so many wait for an answer
        except OSError as e:
            raise Refused(f"control socket: {path}: a socket is there, and whose cannot be told: "
                          f"{e.strerror}; remove it, or name another") from e
    raise Refused(f"control socket: {path}: a running server answers there; stop it, or name "
                  "another")


@contextlib.contextmanager
def folder_lock(path):
    """What asyncpf's own servers do (docs/control.md): of two that start, one wins. Any process
    may lock a folder, and keep it: then BlockingIOError. Refused: there is no such folder."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise Refused(f"control socket: {path}: its folder: {e.strerror}; make it, or name "
                      "another") from e
    try:
        for tries in range(LOCK_TRIES + 1):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if tries == LOCK_TRIES:
                    raise
            time.sleep(LOCK_PAUSE_S)
        yield
    finally:
        os.close(fd)


def listen_at(sock, path):
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            raise
        check_stale(path)
        os.unlink(path)
        sock.bind(path)
    finally:
        os.umask(mask)
    sock.listen(CONNECTIONS_MAX)


@contextlib.contextmanager
def listening(path):
    """A listening socket at `path` that only its owner can connect to; gone afterwards."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with folder_lock(path):
            listen_at(sock, path)
            made = os.lstat(path)
    except BlockingIOError as e:
        sock.close()
        raise Refused(f"control socket: {path}: cannot lock its folder: {e.strerror}; use a "
                      "folder of your own") from e
    except Refused:
        sock.close()
        raise
    except OSError as e:
        sock.close()
        raise Refused(f"control socket: {path}: {e.strerror or e}; name another") from e
    try:
        yield sock
    finally:
        sock.close()
        with contextlib.suppress(OSError, Refused), folder_lock(path):
            if os.path.samestat(made, os.lstat(path)):
                os.unlink(path)


class Client:
    def __init__(self, sock):
        self.sock = sock       # None: hung up; what still comes from the lab is nobody's
        self.pending = bytearray()
        self.we_ended = False  # END was sent to the lab
        self.lab_ended = False


class Relay:
    def __init__(self, path, lab, on_failure=lambda e: None):
        """on_failure(LabError): the socket cannot be made; from run()'s thread."""
        self.path = path
        self.on_failure = on_failure
        self.listener = None  # until the lab is ready
        self.socket_file = contextlib.ExitStack()
        self.lab = lab
        self.lab.setblocking(False)
        self.to_lab = bytearray()
        self.from_lab = bytearray()
        self.clients = {}

    def run(self):
        """Until the lab ends. For a thread of its own."""
        try:
            while self.step():
                pass
        except LabError as e:
            self.on_failure(e)
        # First the file: who hears us hang up may start the next VM at the same path.
        self.socket_file.close()
        for n in self.clients:
            self.hang_up(n)

    def step(self):
        clients = {c.sock: n for n, c in self.clients.items() if c.sock}
        readers, writers = [self.lab], [s for s, n in clients.items() if self.clients[n].pending]
        if len(self.to_lab) < PENDING_MAX:
            readers += [s for s, n in clients.items() if not self.clients[n].we_ended]
            if self.listener and len(self.clients) < CONNECTIONS_MAX:
                readers.append(self.listener)
        if self.to_lab:
            writers.append(self.lab)
        readers, writers, _ = select.select(readers, writers, [])
        try:
            for sock in readers:
                if sock is self.lab:
                    self.read_lab()
                elif sock is self.listener:
                    self.accept()
                else:
                    self.read_client(clients[sock])
            for sock in writers:
                if sock is self.lab:
                    del self.to_lab[:self.lab.send(self.to_lab)]
                else:
                    self.flush(clients[sock])
        except (EOFError, ConnectionError):
            return False
        self.clients = {n: c for n, c in self.clients.items()
                        if c.sock or not (c.we_ended and c.lab_ended)}
        return True

    def send(self, kind, n, data=b""):
        self.to_lab += HEAD.pack(kind, n, len(data)) + data

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return  # it is gone again
        sock.setblocking(False)
        n = min(set(range(CONNECTIONS_MAX)) - set(self.clients))
        self.clients[n] = Client(sock)
        self.send(OPEN, n)

    def read_client(self, n):
        client = self.clients[n]
        if not client.sock:
            return  # hung up since select() returned
        try:
            data = client.sock.recv(FRAME_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.send(DATA, n, data)
        else:
            self.end(n)

    def end(self, n):
        client = self.clients[n]
        if not client.we_ended:
            client.we_ended = True
            self.send(END, n)

    def hang_up(self, n):
        client = self.clients[n]
        if client.sock:
            client.sock.close()
            client.sock = None
        self.end(n)

    def flush(self, n):
        """As much as the client takes; hangs up once all is out and no more will come."""
        client = self.clients[n]
        if not client.sock:
            return
        try:
            del client.pending[:client.sock.send(client.pending)]
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up(n)
        if client.lab_ended and not client.pending or len(client.pending) > PENDING_MAX:
            self.hang_up(n)

    def read_lab(self):
        data = self.lab.recv(1 << 16)
        if not data:
            raise EOFError
        self.from_lab += data
        while len(self.from_lab) >= HEAD.size:
            kind, n, length = HEAD.unpack_from(self.from_lab)
            if len(self.from_lab) < HEAD.size + length:
                return
            body = bytes(self.from_lab[HEAD.size:HEAD.size + length])
            del self.from_lab[:HEAD.size + length]
            if kind == READY:
                self.listener = self.socket_file.enter_context(listening(self.path))
            elif n in self.clients:
                self.take(kind, n, body)

    def take(self, kind, n, body):
        self.clients[n].lab_ended |= kind == END
        self.clients[n].pending += body
        self.flush(n)
