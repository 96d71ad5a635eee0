#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/vmlinux.py: images of both compressors, packed here, and damaged ones.

usage: vmlinux_test.py SOURCE_FOLDER
"""
import ctypes
import pathlib
import struct
import sys
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tools"))
import vmlinux

# More than one piece of LZ4, and not a round number of them.
ELF = b"\x7fELF" + bytes(range(256)) * 40000


def packed_zstd(data):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_compress.restype = ctypes.c_size_t
    lib.ZSTD_compress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p,
                                  ctypes.c_size_t, ctypes.c_int]
    out = ctypes.create_string_buffer(len(data) + 1024)
    length = lib.ZSTD_compress(out, len(out), data, len(data), 1)
    return out.raw[:length]


def packed_lz4(data):
    lib = ctypes.CDLL("liblz4.so.1")
    text = vmlinux.LZ4
    for at in range(0, len(data), vmlinux.LZ4_PIECE):
        piece = data[at:at + vmlinux.LZ4_PIECE]
        out = ctypes.create_string_buffer(len(piece) + len(piece) // 255 + 64)
        length = lib.LZ4_compress_default(piece, out, len(piece), len(out))
        text += struct.pack("<I", length) + out.raw[:length]
    return text


def image_of(payload, size=len(ELF), sectors=3):
    """As much of a bzImage as matters: header, real-mode part, payload, size, rest."""
    payload += struct.pack("<I", size)
    head = bytearray((sectors + 1) * 512)
    head[0x1f1] = sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + b"\x90" * 100 + payload + b"rest"


class Unpack(unittest.TestCase):
    def test_zstd(self):
        self.assertEqual(vmlinux.unpack(image_of(packed_zstd(ELF))), ELF)

    def test_lz4(self):
        self.assertEqual(vmlinux.unpack(image_of(packed_lz4(ELF))), ELF)

    def test_what_is_no_bzimage(self):
        for image in (b"", ELF, image_of(b"x").replace(b"HdrS", b"HdrT")):
            with self.assertRaisesRegex(vmlinux.VmlinuxError, "it is no bzImage; "):
                vmlinux.unpack(image)

    def test_an_unknown_compressor(self):
        with self.assertRaisesRegex(vmlinux.VmlinuxError, "begins with fd377a58, "):
            vmlinux.unpack(image_of(b"\xfd7zXZ\0"))

    def test_damaged_ones(self):
        for pack in (packed_zstd, packed_lz4):
            payload = pack(ELF)
            cut = image_of(payload)[:-len(payload) // 2]
            for image in (image_of(payload, size=len(ELF) + 1), image_of(payload[:-9]), cut,
                          image_of(pack(b"no" + ELF), size=len(ELF) + 2)):
                with self.assertRaisesRegex(vmlinux.VmlinuxError, "; fetch it again$"):
                    vmlinux.unpack(image)


if __name__ == "__main__":
    unittest.main()
