# SPDX-License-Identifier: Apache-2.0
"""A client of several Redis servers, for tools/demo_restore.py: one connection to each, each asks
for the next key when it has its answer, and looks at every byte of that.

Which keys are asked for depends on the seed alone, so that runs are alike.
Test: tests/unit/demo_restore_test.py.
"""
import random
import selectors
import socket
import threading
import time

VALUE_BYTES = 1024
AGAIN_S = 0.05  # after a connection that was refused


def value_of(key):
    """What `DEBUG POPULATE` has made of it."""
    return f"value:{key}".encode().ljust(VALUE_BYTES, b"\0")


def reply_of(key):
    return b"$%d\r\n%s\r\n" % (VALUE_BYTES, value_of(key))


class Asker:
    """One connection, opened again when it breaks."""

    def __init__(self, address, keys, rng):
        self.address, self.keys, self.rng = address, keys, rng
        self.sock = None
        self.key = rng.randrange(keys)
        self.asked_at = None  # when the question was first wanted to be asked
        self.retry_at = 0.0
        self.got = b""
        self.sent = False

    def open(self, selector, now):
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(self.address)
        self.got, self.sent = b"", False
        self.asked_at = self.asked_at or now
        selector.register(self.sock, selectors.EVENT_WRITE, self)

    def close(self, selector, now):
        selector.unregister(self.sock)
        self.sock.close()
        self.sock = None
        self.retry_at = now + AGAIN_S

    def ready(self, selector, now, answered):
        """answered(asked at, right) for an answer."""
        try:
            if not self.sent:
                self.sock.send(b"GET key:%d\r\n" % self.key)
                self.sent = True
                selector.modify(self.sock, selectors.EVENT_READ, self)
                return
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(selector, now)
            return
        self.got += data
        want = reply_of(self.key)
        if len(self.got) < len(want) and want.startswith(self.got):
            return
        answered(self.asked_at, self.got == want)
        self.asked_at, self.got, self.sent = now, b"", False
        self.key = self.rng.randrange(self.keys)
        selector.modify(self.sock, selectors.EVENT_WRITE, self)


class Client(threading.Thread):
    """Asks from start() to stop(). .answers: (asked at, answered at) each, by time.monotonic();
    .wrong: how many were not what the servers hold; .open: since when the others wait."""

    def __init__(self, ports, keys, seed):
        super().__init__(daemon=True)
        self.askers = [Asker(("127.0.0.1", port), keys, random.Random(f"{seed} {n}"))
                       for n, port in enumerate(ports)]
        self.over = threading.Event()
        self.answers, self.wrong, self.open = [], 0, []

    def run(self):
        with selectors.DefaultSelector() as selector:
            while not self.over.is_set():
                now = time.monotonic()
                for asker in self.askers:
                    if asker.sock is None and now >= asker.retry_at:
                        asker.open(selector, now)
                for key, _ in selector.select(AGAIN_S):
                    key.data.ready(selector, time.monotonic(), self.answered)
            for asker in self.askers:
                if asker.sock:
                    asker.close(selector, 0)
        self.open = [asker.asked_at for asker in self.askers if asker.asked_at]

    def answered(self, asked_at, right):
        self.answers.append((asked_at, time.monotonic()))
        self.wrong += not right

    def stop(self):
        self.over.set()
        self.join()
