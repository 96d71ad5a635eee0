#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`asyncpf image`: what it makes is what the zstd tool reads, what others make by the format's
description is read, and whatever goes wrong is told of and leaves nothing behind.

usage: image_test.py PATH_OF_ASYNCPF SOURCE_FOLDER
"""
import ctypes
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

ASYNCPF, SOURCE = (str(pathlib.Path(sys.argv.pop(1)).resolve()) for _ in range(2))
LIMIT_S = 120
SANITIZED = re.search(b"__[at]san_init", pathlib.Path(ASYNCPF).read_bytes()) is not None
OK, FAILED, USAGE, REFUSED = 0, 1, 2, 3
K, M = 1 << 10, 1 << 20
FRAME = 64 * K
CLONE_NEWNS = 0x20000
TABLE_MAGIC, END_MAGIC = 0x184d2a5e, 0x8f92eab1


def content(size, seed=1):
    """Half of it compresses; a part is zero."""
    r = random.Random(seed)
    parts, n = [], 0
    while n < size:
        kind = r.randrange(4)
        length = min(size - n, r.randrange(1, 40 * K))
        parts.append(bytes(length) if kind == 0 else r.randbytes(length) if kind < 3 else
                     (b"%08x some text " % r.randrange(1 << 32) * (length // 18 + 1))[:length])
        n += length
    return b"".join(parts)


def xxhash_library():
    lib = ctypes.CDLL("libxxhash.so.0")
    lib.XXH64.restype = ctypes.c_uint64
    lib.XXH64.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return lib


def table(entries, checksums=True):
    """(packed, plain, checksum) of each frame, by the format's description."""
    body = b"".join(struct.pack("<III" if checksums else "<II", *entry[:3 if checksums else 2])
                    for entry in entries)
    foot = struct.pack("<IBI", len(entries), 0x80 if checksums else 0, END_MAGIC)
    return struct.pack("<II", TABLE_MAGIC, len(body) + len(foot)) + body + foot


def entries_of(data):
    """The same, read back: offset and length of each frame in the file, offset in the content."""
    frames, flags, magic = struct.unpack("<IBI", data[-9:])
    assert magic == END_MAGIC and flags == 0x80
    found, packed, plain = [], 0, 0
    for i in range(frames):
        at = len(data) - 9 - 12 * (frames - i)
        p, c, _ = struct.unpack("<III", data[at:at + 12])
        found.append((packed, p, plain, c))
        packed, plain = packed + p, plain + c
    return found


def zstd(*words, data=b""):
    return subprocess.run(["zstd", "-q", *words], input=data, capture_output=True, check=True,
                          timeout=LIMIT_S).stdout


class Bed(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return str(self.folder / name)

    def write(self, name, data):
        (self.folder / name).write_bytes(data)
        return self.path(name)

    def read(self, name):
        return (self.folder / name).read_bytes()

    def run_it(self, *words, data=None, **options):
        return subprocess.run([ASYNCPF, "image", *map(str, words)], input=data or b"",
                              capture_output=True, check=False, timeout=LIMIT_S, cwd=self.folder,
                              **options)

    def ok(self, *words, **options):
        done = self.run_it(*words, **options)
        self.assertEqual((done.returncode, done.stderr), (OK, b""), words)
        return done.stdout.decode()

    def fails(self, code, says, *words, **options):
        done = self.run_it(*words, **options)
        lines = done.stderr.decode().splitlines()
        self.assertEqual((done.returncode, len(lines)), (code, 1), done)
        self.assertTrue(lines[0].startswith("asyncpf: "), lines)
        self.assertIn(says, lines[0])
        return done.stdout.decode()

    def left(self, *names):
        """Nothing else is in the folder."""
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(names))


class Packing(Bed):
    def test_the_zstd_tool_reads_it(self):
        for size in (1, 4096, FRAME, FRAME + 1, 3 * M + 17):
            data = content(size, size)
            self.write("in", data)
            self.ok("pack", "in", "out", "--force")
            self.assertEqual(zstd("-dc", self.path("out")), data)
            self.assertEqual(zstd("-t", self.path("out")), b"")

    def test_the_same_bytes_for_any_number_of_threads(self):
        data = content(5 * M)
        self.write("in", data)
        for words in ((), ("--level", "1"), ("--level", "9"), ("--frame-bytes", "4K"),
                      ("--frame-bytes", "1M")):
            found = set()
            for threads in (1, 2, 7):
                self.ok("pack", "in", "out", "--manifest", "m", "--threads", threads, "--force",
                        *words)
                found.add((self.read("out"), self.read("m")))
            self.assertEqual(len(found), 1, words)
            self.assertEqual(zstd("-dc", self.path("out")), data)

    def test_frames_are_as_large_as_was_said(self):
        self.write("in", content(M))
        for size in (4 * K, 128 * K, 16 * M):
            self.ok("pack", "in", "out", "--frame-bytes", size, "--force")
            sizes = [plain for _, _, _, plain in entries_of(self.read("out"))]
            self.assertEqual(sizes, [min(size, M)] * max(1, M // size))

    def test_zeroes_are_zeroes_however_they_came(self):
        """A hole that is never read, zeroes that are there, zeroes through a pipe."""
        data = bytes(7 * FRAME) + content(FRAME) + bytes(3 * FRAME + 100)
        self.write("full", data)
        with open(self.path("sparse"), "wb") as f:
            f.seek(7 * FRAME)
            f.write(content(FRAME))
            f.truncate(len(data))
        said = [self.ok("pack", name, name + ".zst") for name in ("full", "sparse")]
        said.append(self.ok("pack", "-", "pipe.zst", data=data))
        self.assertEqual(self.read("full.zst"), self.read("sparse.zst"))
        self.assertEqual(self.read("full.zst"), self.read("pipe.zst"))
        for text in said:
            self.assertIn("in 12 frames, 10 of them zero", text)
        self.assertEqual(zstd("-dc", self.path("full.zst")), data)

    def test_a_hole_costs_next_to_nothing(self):
        with open(self.path("in"), "wb") as f:
            f.truncate(64 << 30)
            f.seek(33 << 30)
            f.write(b"x")
        self.ok("pack", "in", "out", "--frame-bytes", "16M")
        self.assertLess(os.path.getsize(self.path("out")), 4 * M)
        self.assertIn("4096 frames", self.ok("verify", "out"))
        self.ok("unpack", "out", "back")
        self.assertEqual(os.path.getsize(self.path("back")), 64 << 30)
        with open(self.path("back"), "rb") as f:
            f.seek(33 << 30)
            self.assertEqual(f.read(4096), b"x" + bytes(4095))
        self.assertLess(os.stat(self.path("back")).st_blocks * 512, 17 * M)

    def test_permissions_are_those_of_the_memory(self):
        self.write("in", b"secret")
        os.chmod(self.path("in"), 0o640)
        self.ok("pack", "in", "out", "--manifest", "m")
        self.ok("unpack", "out", "back")
        for name in ("out", "m", "back"):
            self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, 0o640, name)
        self.ok("pack", "-", "pipe", data=b"secret")
        self.assertEqual(os.stat(self.path("pipe")).st_mode & 0o777, 0o600)

    def test_standard_input_from_where_it_is(self):
        data = content(M)
        self.write("in", data)
        with open(self.path("in"), "rb") as f:
            f.seek(1000)
            done = subprocess.run([ASYNCPF, "image", "pack", "-", self.path("out")], stdin=f,
                                  capture_output=True, check=False, timeout=LIMIT_S)
        self.assertEqual(done.returncode, OK, done)
        self.assertEqual(zstd("-dc", self.path("out")), data[1000:])

    def test_quiet(self):
        self.write("in", content(FRAME))
        self.assertEqual(self.ok("pack", "in", "out", "--quiet"), "")
        self.assertEqual(self.ok("unpack", "out", "back", "--quiet"), "")
        self.assertEqual(self.ok("verify", "out", "--quiet"), "")


class Manifest(Bed):
    def test_it_has_the_hashes(self):
        data = content(5 * FRAME + 10)
        self.write("in", data)
        self.ok("pack", "in", "out", "--manifest", "m")
        self.assertEqual(json.loads(self.read("m")), {
            "manifest": "asyncpf-image", "version": 1, "size": len(data), "frame_bytes": FRAME,
            "hash": "sha256",
            "frames": [hashlib.sha256(data[i:i + FRAME]).hexdigest()
                       for i in range(0, len(data), FRAME)]})
        self.assertIn("by the manifest", self.ok("verify", "out", "--manifest", "m"))
        self.ok("unpack", "out", "back", "--manifest", "m")
        self.assertEqual(self.read("back"), data)

    def test_other_content_is_found(self):
        """Whole, with right checksums, and another image's."""
        data = content(5 * FRAME)
        self.write("in", data)
        self.write("other", data[:3 * FRAME] + bytes(10) + data[3 * FRAME + 10:])
        self.ok("pack", "in", "out", "--manifest", "m")
        self.ok("pack", "other", "o2")
        self.ok("verify", "o2")
        said = self.fails(FAILED, "1 of 5 frames are broken", "verify", "o2", "--manifest", "m")
        self.assertRegex(said, r"\Aframe 3: .*SHA-256")
        self.fails(FAILED, "SHA-256", "unpack", "o2", "back", "--manifest", "m")
        self.left("in", "other", "out", "m", "o2")

    def test_what_is_not_its_manifest(self):
        self.write("in", content(5 * FRAME))
        self.write("short", content(4 * FRAME))
        self.ok("pack", "in", "out", "--manifest", "m")
        self.ok("pack", "short", "o2")
        self.ok("pack", "in", "o3", "--frame-bytes", "128K")
        self.fails(FAILED, "of an image of 327680 bytes, and this one has 262144", "verify", "o2",
                   "--manifest", "m")
        self.fails(REFUSED, "5 frames, and the image 3", "unpack", "o3", "back", "--manifest", "m")
        self.fails(FAILED, "no manifest", "verify", "out", "--manifest", "in")
        self.fails(REFUSED, "No such file", "verify", "out", "--manifest", "none")


class Unpacking(Bed):
    def test_flat_and_sparse(self):
        data = bytes(M) + content(M) + bytes(10 * M + 5)
        self.write("in", data)
        self.ok("pack", "in", "out")
        for threads in (1, 2, 7):
            self.ok("unpack", "out", "back", "--threads", threads, "--force")
            self.assertEqual(self.read("back"), data)
        self.assertLess(os.stat(self.path("back")).st_blocks * 512, 2 * M)

    def test_what_others_make(self):
        """Without checksums in the table, frames of any size, empty and skippable ones: as t2sz
        and the format's own tools write them."""
        data = content(M)
        cuts = [0, 1, 1, 5000, 5000 + 200 * K, M]
        packed = [zstd("-c", data=data[a:b]) for a, b in zip(cuts, cuts[1:])]
        packed.insert(2, struct.pack("<II", 0x184d2a53, 5) + b"hello")
        sizes = [b - a for a, b in zip(cuts, cuts[1:])]
        sizes.insert(2, 0)
        plains = [data[a:b] for a, b in zip(cuts, cuts[1:])]
        plains.insert(2, b"")
        hash64 = xxhash_library().XXH64
        rows = [(len(p), s, hash64(c, len(c), 0) & 0xffffffff)
                for p, s, c in zip(packed, sizes, plains)]
        for checksums in (False, True):
            self.write("out", b"".join(packed) + table(rows, checksums))
            self.ok("verify", "out")
            self.ok("unpack", "out", "back", "--force")
            self.assertEqual(self.read("back"), data)
            info = json.loads(self.ok("info", "out", "--json"))
            self.assertEqual((info["frames"], info["checksums"]), (6, checksums))

    def test_what_is_no_image(self):
        self.write("short", b"x")
        self.write("plain", content(M))
        self.write("zstd", zstd("-c", data=content(M)))
        self.fails(REFUSED, "too short for a seek table", "unpack", "short", "back")
        for name in ("plain", "zstd"):
            self.fails(REFUSED, "does not end with a seek table; 'asyncpf image pack'", "unpack",
                       name, "back")
            self.fails(REFUSED, "does not end with a seek table", "info", name)
            self.fails(FAILED, "does not end with a seek table", "verify", name)
        self.fails(REFUSED, "No such file or directory", "unpack", "none", "back")
        self.fails(REFUSED, "its end is read first", "unpack", ".", "back")
        self.left("short", "plain", "zstd")


class Verifying(Bed):
    def setUp(self):
        super().setUp()
        self.data = content(40 * FRAME)
        self.write("in", self.data)
        self.ok("pack", "in", "out")
        self.frames = entries_of(self.read("out"))

    def break_at(self, *places):
        data = bytearray(self.read("out"))
        for place in places:
            data[place] ^= 0x10
        self.write("bad", data)

    def test_the_broken_frame_is_named(self):
        for number in (0, 17, 39):
            at, length, plain, size = self.frames[number]
            self.break_at(at + length // 2)
            said = self.fails(FAILED, "asyncpf: bad: 1 of 40 frames are broken", "verify", "bad")
            self.assertRegex(said, rf"\Aframe {number}: file bytes {at} to {at + length - 1}, "
                                   rf"content bytes {plain} to {plain + size - 1}: .+\n\Z")
            self.fails(FAILED, f"frame {number} (bytes {at} to {at + length - 1} of the file) is "
                       "broken", "unpack", "bad", "back")
        self.left("in", "out", "bad")

    def test_all_of_them_up_to_a_limit(self):
        self.break_at(*[at + length - 1 for at, length, _, _ in self.frames[3:33]])
        for words, shown in (((), 10), (("--errors", 5), 5), (("--errors", 100), 30)):
            said = self.fails(FAILED, "30 of 40 frames are broken", "verify", "bad", "--threads", 3,
                              *words)
            self.assertEqual(re.findall(r"^frame (\d+): ", said, re.M),
                             [str(i) for i in range(3, 3 + shown)])

    def test_a_checksum_in_the_table_alone(self):
        size = os.path.getsize(self.path("out"))
        self.break_at(size - 9 - 12 * 40 + 12 * 7 + 8)
        self.assertRegex(self.fails(FAILED, "1 of 40", "verify", "bad"),
                         r"\Aframe 7: .*checksum [0-9a-f]{8}, and the seek table says [0-9a-f]{8}")

    def test_zero_frames_are_looked_at_each(self):
        """Those of the same bytes are decompressed once; what is said of each counts all the
        same."""
        self.write("in", bytes(40 * FRAME))
        self.ok("pack", "in", "out", "--force", "--manifest", "m")
        self.break_at(os.path.getsize(self.path("out")) - 9 - 12 * 40 + 12 * 17 + 8)
        said = self.fails(FAILED, "1 of 40", "verify", "bad", "--threads", "1")
        self.assertRegex(said, r"\Aframe 17: .*the seek table says")
        at, length, _, _ = entries_of(self.read("out"))[30]
        self.break_at(at + length - 1)
        said = self.fails(FAILED, "1 of 40", "verify", "bad", "--threads", "1")
        self.assertRegex(said, r"\Aframe 30: ")
        text = self.read("m").decode()
        digits = re.findall(r'"([0-9a-f]{64})"', text)[0]
        parts = text.split(digits)
        wrong = digits.join(parts[:12]) + "0" * 64 + digits.join(parts[12:])
        self.write("wrong", wrong.encode())
        said = self.fails(FAILED, "1 of 40", "verify", "out", "--manifest", "wrong")
        self.assertRegex(said, r"\Aframe 11: .*the manifest says 0000000000000000")

    def test_two_frames_that_changed_places(self):
        """Each is whole; the table knows."""
        data = bytearray(self.read("out"))
        (a, n, _, _), (b, m, _, _) = self.frames[5], self.frames[6]
        data[a:b + m] = data[b:b + m] + data[a:a + n]
        for i, length in ((5, m), (6, n)):
            struct.pack_into("<I", data, len(data) - 9 - 12 * (40 - i), length)
        self.write("bad", data)
        self.fails(FAILED, "2 of 40 frames are broken", "verify", "bad")


class Info(Bed):
    def test_text_and_json(self):
        self.write("in", bytes(2 * FRAME) + content(3 * FRAME) + b"tail")
        self.ok("pack", "in", "out")
        size = os.path.getsize(self.path("out"))
        info = json.loads(self.ok("info", "out", "--json"))
        self.assertAlmostEqual(info.pop("ratio"), (5 * FRAME + 4) / size, places=5)
        zero = sum(not any(self.read("in")[i:i + FRAME]) for i in range(0, 5 * FRAME, FRAME))
        self.assertEqual(info, {"bytes": 5 * FRAME + 4, "packed_bytes": size, "frames": 6,
                                "frame_bytes_max": FRAME, "checksums": True, "zero_frames": zero})
        text = self.ok("info", "out")
        self.assertIn("frames         6\n", text)
        self.assertIn("largest frame  64K\n", text)

    def test_zero_frames_are_not_known_without_checksums(self):
        packed = zstd("-c", data=bytes(FRAME))
        self.write("out", packed + table([(len(packed), FRAME)], False))
        self.assertIsNone(json.loads(self.ok("info", "out", "--json"))["zero_frames"])
        self.assertIn("zero frames    not known", self.ok("info", "out"))


def mapped_ram(blocks):
    """QEMU's migration file with mapped-ram, by its description: [(name, pages or None)]."""
    total = sum(4096 * len(pages) for _, pages in blocks)
    data = bytearray(struct.pack(">IIBI", 0x5145564d, 3, 7, 10) + b"pc-q35-9.0")
    data += struct.pack(">BIB", 1, 2, 3) + b"ram" + struct.pack(">IIQ", 0, 4, total | 4)
    for name, pages in blocks:
        data += struct.pack(">B", len(name)) + name.encode() + struct.pack(">Q", 4096 * len(pages))
        bitmap_at = len(data) + 28
        bitmap = bytearray((len(pages) + 63) // 64 * 8)
        pages_at = (bitmap_at + len(bitmap) + M - 1) // M * M
        data += struct.pack(">IQQQ", 1, 4096, bitmap_at, pages_at)
        for i, page in enumerate(pages):
            if page:
                bitmap[i // 8] |= 1 << i % 8
        data += bitmap
        # What the file had there before is no content where the bitmap says zero.
        data += b"\xee" * (pages_at - len(data)) + b"".join(page or b"\xee" * 4096
                                                            for page in pages)
    return bytes(data + struct.pack(">QBI", 0x10, 0x7e, 2) + b"\0")


class Formats(Bed):
    def setUp(self):
        super().setUp()
        r = random.Random(4)
        self.ram = [r.randbytes(100) * 40 + bytes(96) if r.randrange(3) else None
                    for _ in range(1000)]
        self.vram = [b"v" * 4096] * 16

    def flat(self, pages):
        return b"".join(page or bytes(4096) for page in pages)

    def test_qemu(self):
        self.write("in", mapped_ram([("vga.vram", self.vram), ("pc.ram", self.ram)]))
        for words, pages, name in (((), self.ram, "pc.ram"),
                                   (("--block", "vga.vram"), self.vram, "vga.vram"),
                                   (("--format", "qemu", "--block", "pc.ram"), self.ram, "pc.ram")):
            said = self.ok("pack", "in", "out", "--force", *words)
            self.assertIn(f"RAM block {name}\n", said)
            self.assertEqual(zstd("-dc", self.path("out")), self.flat(pages))
        # As the same memory in a flat file is packed.
        self.write("flat", self.flat(self.ram))
        self.ok("pack", "in", "out", "--force")
        self.ok("pack", "flat", "out2")
        self.assertEqual(self.read("out"), self.read("out2"))

    def test_qemu_s_pages_that_were_not_stored_are_not_read(self):
        """Whole frames of them count as holes: they are zero, whatever lies there."""
        self.write("in", mapped_ram([("pc.ram", self.ram[:16] + [None] * 160 + self.ram[:16])]))
        self.assertIn("in 12 frames, 10 of them zero", self.ok("pack", "in", "out"))

    def test_what_qemu_s_is_not(self):
        self.write("in", mapped_ram([("pc.ram", self.ram)]))
        self.write("flat", self.flat(self.ram))
        self.fails(REFUSED, "no RAM block x; there are pc.ram", "pack", "in", "out", "--block", "x")
        self.fails(REFUSED, "does not begin as a migration", "pack", "flat", "out", "--format",
                   "qemu")
        self.fails(REFUSED, "--block is for a migration file", "pack", "flat", "out", "--block",
                   "x")
        self.fails(REFUSED, "name the file", "pack", "-", "out", "--format", "qemu",
                   data=self.read("in"))
        data = self.read("in")
        self.write("cut", data[:-M])
        self.fails(REFUSED, "beyond its end", "pack", "cut", "out")
        self.write("stream", data[:25] + bytes(1000))
        self.fails(REFUSED, "whose RAM is not found; migrate with the capability mapped-ram",
                   "pack", "stream", "out")
        # Taken as it is, if that is what is wanted.
        self.ok("pack", "cut", "out", "--format", "flat")
        self.assertEqual(zstd("-dc", self.path("out")), data[:-M])

    def test_cloud_hypervisor(self):
        os.mkdir(self.path("snapshot"))
        self.fails(REFUSED, "without memory-ranges", "pack", "snapshot", "out")
        self.write("snapshot/memory-ranges", self.flat(self.ram))
        for name in ("snapshot", "snapshot/memory-ranges"):
            for words in ((), ("--format", "cloud-hypervisor")):
                self.ok("pack", name, "out", "--force", *words)
                self.assertEqual(zstd("-dc", self.path("out")), self.flat(self.ram))

    def test_firecracker(self):
        self.write("mem", self.flat(self.ram))
        self.ok("pack", "mem", "out", "--format", "firecracker")
        self.assertEqual(zstd("-dc", self.path("out")), self.flat(self.ram))

    def test_a_block_device(self):
        if os.geteuid() != 0 or not shutil.which("losetup"):
            self.skipTest("needs root and losetup")
        self.write("in", content(2 * M))
        done = subprocess.run(["losetup", "-f", "--show", "-r", self.path("in")],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no loop device: {done.stderr.strip()}")
        device = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=False)
        self.ok("pack", device, "out")
        self.assertEqual(zstd("-dc", self.path("out")), self.read("in"))


class Usage(Bed):
    def test_wrong_usage(self):
        for words, says in (((), "missing operand: "),
                            (("pakc", "a", "b"), "did you mean 'pack'?"),
                            (("x" * 20,), "unknown action: xxxx"),
                            (("pack",), "missing operand: 'asyncpf image pack' takes IN OUT"),
                            (("pack", "a"), "takes IN OUT"),
                            (("verify", "a", "b"), "unexpected operand: 'asyncpf image verify'"),
                            (("info", "a", "--level", "3"), "unexpected option: --level"),
                            (("unpack", "a", "b", "--json"), "unexpected option: --json"),
                            (("pack", "a", "b", "--frame-bytes", "5000"), "no power of two"),
                            (("pack", "a", "b", "--frame-bytes", "2K"), "between 4K and 16M"),
                            (("pack", "a", "b", "--level", "23"), "between 1 and 22"),
                            (("pack", "a", "b", "--threads", "0"), "between 1 and 256"),
                            (("pack", "a", "-"), "needs a file for OUT"),
                            (("unpack", "a", "-", "--force"), "needs a file for OUT"),
                            (("pack", "a", "b", "--manifest", "-"), "a file for --manifest"),
                            (("verify", "a", "--manifest", "-"), "a file for --manifest"),
                            (("unpack", "-", "b"), "needs a file for IN,"),
                            (("verify", "-"), "needs a file for FILE"),
                            (("info", "-"), "needs a file for FILE"),
                            (("pack", "a", "b", "--format", "raw"), "one of auto, flat,")):
            self.fails(USAGE, says, *words)
        self.left()


class Trouble(Bed):
    """Nothing is left behind, and the reason is told."""

    def setUp(self):
        super().setUp()
        self.write("in", content(2 * M))
        self.ok("pack", "in", "packed")

    def test_outputs_that_exist(self):
        self.write("there", b"kept")
        for words in (("pack", "in", "there"), ("unpack", "packed", "there"),
                      ("pack", "in", "out", "--manifest", "there")):
            self.fails(REFUSED, "there: it exists; --force replaces it", *words)
        self.assertEqual(self.read("there"), b"kept")
        for words in (("pack", "in", "."), ("unpack", "packed", "/dev/null", "--force")):
            self.fails(REFUSED, "no regular file", *words)
        self.fails(REFUSED, "No such file", "pack", "in", "none/out")
        self.left("in", "packed", "there")
        self.ok("unpack", "packed", "there", "--force")
        self.assertEqual(self.read("there"), self.read("in"))

    def test_inputs_that_cannot_be_read(self):
        self.fails(REFUSED, "none: No such file or directory; check the path", "pack", "none",
                   "out")
        self.write("empty", b"")
        self.fails(REFUSED, "empty: it is empty", "pack", "empty", "out")
        self.fails(FAILED, "standard input: it is empty", "pack", "-", "out")
        self.left("in", "packed", "empty")

    def test_a_file_given_twice(self):
        """By any name; nothing is written, with --force either."""
        os.link(self.path("in"), self.path("hard"))
        os.symlink("packed", self.path("soft"))
        for words in (("pack", "in", "./in", "--force"), ("pack", "in", "hard", "--force"),
                      ("pack", "in", "new", "--manifest", "./new"),
                      ("pack", "in", "new", "--manifest", "in", "--force"),
                      ("unpack", "packed", "soft", "--force"),
                      ("unpack", "packed", "in", "--manifest", "hard", "--force")):
            before = self.read("in"), self.read("packed")
            self.fails(REFUSED, "one would destroy the other; name two", *words)
            self.assertEqual((self.read("in"), self.read("packed")), before)
        self.left("in", "packed", "hard", "soft")

    def test_what_is_neither_file_nor_disk(self):
        """Nothing waits for ever; a FIFO's writer may come a little later than we."""
        os.mkfifo(self.path("fifo"))
        self.fails(REFUSED, "fifo: a FIFO that nobody writes to; start its writer first", "pack",
                   "fifo", "out")
        for words in (("unpack", "fifo", "out"), ("verify", "fifo"), ("info", "fifo")):
            self.fails(REFUSED, "fifo: its end is read first, and it has none", *words)
        self.fails(REFUSED, "fifo: no manifest", "unpack", "packed", "out", "--manifest", "fifo")
        self.fails(FAILED, "fifo: no manifest", "verify", "packed", "--manifest", "fifo")
        self.fails(REFUSED, "/dev/zero: a character device", "pack", "/dev/zero", "out")
        with subprocess.Popen(["sh", "-c", "sleep 1; cat in >fifo"], cwd=self.folder):
            self.ok("pack", "fifo", "out")
        self.ok("unpack", "out", "back")
        self.assertEqual(self.read("back"), self.read("in"))
        self.left("in", "packed", "fifo", "out", "back")

    def test_somebody_who_may_not(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to become somebody else")
        os.chmod(self.folder, 0o755)
        os.chmod(self.path("in"), 0o600)
        nobody = {"user": 65534, "group": 65534}
        self.fails(REFUSED, "in: Permission denied", "pack", "in", "/dev/shm/asyncpf-none",
                   **nobody)
        os.chmod(self.path("in"), 0o644)
        self.fails(REFUSED, "out: a file in .: Permission denied", "pack", "in", "out", **nobody)
        self.left("in", "packed")

    def test_a_file_size_limit(self):
        def small():
            resource.setrlimit(resource.RLIMIT_FSIZE, (256 * K, 256 * K))

        self.fails(FAILED, "out: File too large", "pack", "in", "out", preexec_fn=small)
        self.fails(REFUSED, "back: File too large", "unpack", "packed", "back", preexec_fn=small)
        self.left("in", "packed")

    @unittest.skipIf(SANITIZED, "a sanitizer needs more itself")
    def test_little_memory(self):
        def little():
            resource.setrlimit(resource.RLIMIT_AS, (64 * M, 64 * M))

        self.fails(REFUSED, "Cannot allocate memory; free memory", "pack", "in", "out",
                   "--frame-bytes", "16M", "--threads", "16", preexec_fn=little)
        self.left("in", "packed")

    def test_a_full_disk(self):
        """A file system of half a megabyte, in a mount namespace of its own."""
        if os.geteuid() != 0:
            self.skipTest("needs root, to mount")
        libc = ctypes.CDLL(None, use_errno=True)
        os.mkdir(self.path("small"))
        target = self.path("small").encode()

        def mount():
            # MS_REC | MS_PRIVATE: what is mounted here is nobody else's.
            if (libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, 0x44000, None) or
                    libc.mount(b"none", target, b"tmpfs", 0, b"size=512k")):
                os._exit(77)

        script = ('"$0" image "$@"; code=$?; ls -A small | sed s/^/left:/; exit $code')
        for words in (("pack", "in", "small/out", "--frame-bytes", "4K"),
                      ("unpack", "packed", "small/back")):
            done = subprocess.run(["sh", "-c", script, ASYNCPF, *words], capture_output=True,
                                  text=True, check=False, timeout=LIMIT_S, cwd=self.folder,
                                  preexec_fn=mount)
            if done.returncode == 77:
                self.skipTest("no mount namespace here")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""), done)
            self.assertIn("No space left on device; free space there", done.stderr)
        os.rmdir(self.path("small"))
        self.left("in", "packed")

    def test_an_input_that_shrinks(self):
        """A slow level gives time for it."""
        size = 256 * M
        with open(self.path("big"), "wb") as f:
            block = random.Random(3).randbytes(M)
            for _ in range(size // M):
                f.write(block)
        with subprocess.Popen([ASYNCPF, "image", "pack", "big", "out", "--level", "19",
                               "--threads", "1"], cwd=self.folder, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            self.wait_for_frames(process)
            os.truncate(self.path("big"), 10 * M)
            said = process.communicate(timeout=LIMIT_S)[1]
        self.assertEqual(process.returncode, FAILED)
        self.assertRegex(said, r"\Aasyncpf: cannot read big: it ended at byte \d+ while it was ")
        os.unlink(self.path("big"))
        self.left("in", "packed")

    def wait_for_frames(self, process):
        """Until something of the output is there."""
        end = time.monotonic() + LIMIT_S
        while not any(name.startswith(".asyncpf-") and os.path.getsize(self.path(name)) > 0
                      for name in os.listdir(self.folder)):
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)

    def test_an_input_that_is_written_to(self):
        with open(self.path("in"), "rb") as data, subprocess.Popen(
                [ASYNCPF, "image", "pack", "/dev/stdin", "out"], cwd=self.folder, stdin=data,
                stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, OK)
        os.unlink(self.path("out"))
        with open(self.path("big"), "wb") as f:
            f.truncate(8 << 30)
        with subprocess.Popen([ASYNCPF, "image", "pack", "big", "out", "--frame-bytes", "4K",
                               "--threads", "1"], cwd=self.folder, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            self.wait_for_frames(process)
            with open(self.path("big"), "r+b") as f:
                f.write(b"x")
            said = process.communicate(timeout=LIMIT_S)[1]
        self.assertEqual(process.returncode, FAILED, said)
        self.assertIn("cannot pack big: it was written to meanwhile", said)
        os.unlink(self.path("big"))
        self.left("in", "packed")

    def test_signals(self):
        with open(self.path("big"), "wb") as f:
            f.truncate(1 << 40)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.ended_by(number, ["pack", "big", "out", "--frame-bytes", "4K", "--manifest", "m"])
        os.unlink(self.path("big"))
        self.left("in", "packed")

    def ended_by(self, number, words, **options):
        with subprocess.Popen([ASYNCPF, "image", *words], cwd=self.folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
                              **options) as process:
            self.wait_for_frames(process)
            process.send_signal(number)
            self.assertEqual(process.wait(LIMIT_S), -number)
            self.assertEqual(process.stderr.read(), b"")

    def test_a_signal_while_nothing_comes(self):
        """It waits for a pipe that has an open end and is silent."""
        read, write = os.pipe()
        os.write(write, content(3 * M)[:60 * K])
        with subprocess.Popen([ASYNCPF, "image", "pack", "-", "out"], cwd=self.folder, stdin=read,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                               signal.SIG_DFL)) as process:
            end = time.monotonic() + LIMIT_S
            while not any(name.startswith(".asyncpf-") for name in os.listdir(self.folder)):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(LIMIT_S), -signal.SIGINT)
        os.close(read)
        os.close(write)
        self.left("in", "packed")

    def test_an_output_that_somebody_makes_meanwhile(self):
        read, write = os.pipe()
        with subprocess.Popen([ASYNCPF, "image", "pack", "-", "out", "--manifest", "m"],
                              cwd=self.folder, stdin=read, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            os.close(read)
            end = time.monotonic() + LIMIT_S
            while sum(name.startswith(".asyncpf-") for name in os.listdir(self.folder)) < 2:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.005)
            self.write("out", b"theirs")
            os.write(write, b"x")
            os.close(write)
            said = process.communicate(timeout=LIMIT_S)[1]
        self.assertEqual(process.returncode, FAILED)
        self.assertIn("somebody has made it meanwhile; --force replaces it", said)
        self.assertEqual(self.read("out"), b"theirs")
        self.left("in", "packed", "out")


class Documents(Bed):
    def test_the_example(self):
        text = pathlib.Path(SOURCE, "docs/sources.md").read_text(encoding="utf-8")
        commands = re.search(r"```sh\n(asyncpf image pack.*?)```", text, re.S)[1]
        self.write("mem", content(M))
        os.mkdir(self.path("bin"))
        os.symlink(ASYNCPF, self.path("bin/asyncpf"))
        done = subprocess.run(["sh", "-euc", commands], cwd=self.folder, capture_output=True,
                              text=True, check=False, timeout=LIMIT_S,
                              env={"PATH": f"{self.path('bin')}:{os.environ['PATH']}"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("by the manifest", done.stdout)


class Progress(Bed):
    def seen(self, size, columns=None, **environment):
        """What a terminal gets."""
        with open(self.path("in"), "wb") as f:
            f.truncate(size)
            f.seek(size // 2)
            f.write(content(M))
        ours, theirs = pty.openpty()
        if columns is not None:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        with subprocess.Popen([ASYNCPF, "image", "pack", "in", "out", "--frame-bytes", "4K"],
                              cwd=self.folder, stdout=subprocess.DEVNULL, stderr=theirs,
                              env={**os.environ, "TERM": "xterm", **environment}) as process:
            os.close(theirs)
            seen = b""
            while select.select([ours], [], [], LIMIT_S)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError: # the other end is closed
                    break
                seen += part
            self.assertEqual(process.wait(LIMIT_S), OK)
        os.close(ours)
        os.unlink(self.path("out"))
        return seen.decode()

    def test_a_narrow_terminal(self):
        """What does not fit could not be cleared; one that does not say how wide it is has 80."""
        for columns, fits in ((20, 20), (1, 1), (0, 80), (200, 80)):
            lines = self.seen(64 * M, columns).split("\r\033[K")
            self.assertEqual((lines[0], lines[-1]), ("", ""))
            self.assertLess(max(map(len, lines)), fits)

    def test_a_terminal_that_clears_nothing(self):
        self.assertEqual(self.seen(8 * M, TERM="dumb"), "")

    def test_on_a_terminal_alone(self):
        lines = self.seen(1 << 30).split("\r\033[K")
        self.assertEqual((lines[0], lines[-1]), ("", ""))
        for line in lines[1:-1]:
            self.assertRegex(line, r"\Apacking \[#*-*\] +\d+ %")
            self.assertLess(len(line), 80)
        self.assertRegex(lines[-2], r"100 %")


if __name__ == "__main__":
    unittest.main()
