#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An HTTP server for what no good one does: it serves one file, and goes wrong as told.

usage: odd_http.py PORT FILE CONTROL

CONTROL is a file with one word, looked at for each request; "word N": for N requests from then on,
after which all is well again.

  well        206, as it should be
  reset       half of the body, then the connection is reset
  short       half of the body, and a clean end
  less        a well-formed answer that has half of the range; more: a byte more than it
  caps        the same with 64 KiB at most; turns: and has another ETag behind the first of them
  crumbs      the same with one byte
  lies        half of the bytes that it says
  other       the right length, of another place
  loris       a byte at a time, for ever
  mute        no answer
  whole       200 and everything
  moved       302 to where the same file is; loop: to itself; away: to ftp
  expired     403 to four at a time: those with the key OLD, or at the place of `moved`;
              token: 400 as stores say it
  garbage     an answer that is no HTTP; weird: nor one of a version that there is
  changed     another ETag
  resized     another total
  weak        neither a strong ETag nor a time
  gzip        a Content-Encoding
  huge        a total that no object has
  elsewhere   301 as S3 has it for a bucket of another region
  404, 500, … that status; "503 N later": with Retry-After: 1
"""
import http.server
import os
import socket
import struct
import sys
import threading
import time

PORT, FILE, CONTROL = int(sys.argv[1]), sys.argv[2], sys.argv[3]
FOUR = threading.Barrier(4)


def order():
    """The word that counts now; a number behind it is counted down."""
    with open(CONTROL, encoding="ascii") as f:
        words = f.read().split() or ["well"]
    if len(words) > 1:
        left = int(words[1]) - 1
        text = " ".join([words[0], str(left), *words[2:]]) if left > 0 else "well"
        with open(CONTROL + ".new", "w", encoding="ascii") as f:
            f.write(text)
        os.replace(CONTROL + ".new", CONTROL)
    return words


class Odd(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        sys.stderr.write(f"{self.command} {self.path} {self.headers.get('Range')} {args} "
                         f"{self.headers.get('Authorization')} "
                         f"{self.headers.get('X-Amz-Security-Token')}\n")
        sys.stderr.flush()

    def plain(self, status, *more, body=b"no\n"):
        self.send_response(status)
        for name, value in more:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def partial(self, word, data, first, last):
        total = 1 << 63 if word == "huge" else len(data) + (word == "resized")
        shift = 4096 if word == "other" else 0
        if word == "less":
            last = first + (last - first) // 2
        if word in ("caps", "turns"):
            last = min(last, first + 65535)
        if word == "crumbs":
            last = first
        if word == "more":
            last += 1
        body = data[first:last + 1]
        if word == "lies":
            body = body[:len(body) // 2]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{total}")
        self.send_header("Content-Length", str(len(body)))
        if word == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if word == "weak":
            self.send_header("ETag", 'W/"1"')
        else:
            two = word == "changed" or (word == "turns" and first >= 65536)
            self.send_header("ETag", '"two"' if two else '"one"')
        self.end_headers()
        self.body(word, body)

    def body(self, word, body):
        if word in ("reset", "short"):
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            if word == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                           struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif word == "loris":
            try:
                for i in range(len(body)):
                    self.wfile.write(body[i:i + 1])
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:
                self.close_connection = True
        else:
            self.wfile.write(body)

    def do_GET(self):  # pylint: disable=invalid-name
        words = order()
        word = words[0]
        with open(FILE, "rb") as f:
            data = f.read()
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        if word.isdigit():
            self.plain(int(word), *([("Retry-After", "1")] if "later" in words else []))
        elif word in ("expired", "token") and (
                self.path.startswith("/here") or
                "=OLD/" in self.headers.get("Authorization", "")):
            FOUR.wait(10)
            if word == "expired":
                self.plain(403)
            else:
                self.plain(400, body=b"<Error><Code>ExpiredToken</Code></Error>")
        elif word in ("garbage", "weird"):
            self.wfile.write(b"what?\r\n\r\n" if word == "garbage" else b"HTTP/9 what\r\n\r\n")
            self.close_connection = True
        elif word == "moved" and self.path == "/moved":
            self.plain(302, ("Location", "/here?secret=2"))
        elif word == "loop":
            self.plain(302, ("Location", self.path))
        elif word == "away":
            self.plain(302, ("Location", "ftp://127.0.0.1/image"))
        elif word == "elsewhere":
            self.plain(301, ("X-Amz-Bucket-Region", "eu-north-7"))
        elif word == "mute":
            self.connection.recv(1)  # until the other side gives up
            self.close_connection = True
        elif word == "whole":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True
        else:
            self.partial(word, data, first, last)


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Odd).serve_forever()
