# SPDX-License-Identifier: Apache-2.0
"""The kernel inside a bzImage, as the ELF file that it was made of: it boots by its PVH entry,
without the seconds that unpacking takes under emulation. Test: tests/unit/vmlinux_test.py.

The two compressors that Debian uses are those that its apt is linked with, so that their
libraries are there.
"""
import ctypes
import struct

ZSTD = b"\x28\xb5\x2f\xfd"
LZ4 = b"\x02\x21\x4c\x18" # its older format: pieces of 8 MiB, each with its packed size
LZ4_PIECE = 8 << 20
# Offsets in the header of a bzImage, by the kernel's Documentation/arch/x86/boot.rst.
SETUP_SECTS, MAGIC, PAYLOAD = 0x1f1, 0x202, 0x248


class VmlinuxError(Exception):
    """what failed: why; what to do"""


def library(name):
    try:
        return ctypes.CDLL(name)
    except OSError as e:
        raise VmlinuxError(f"cannot unpack the kernel: {name}: {e}; install its package") from e


def unpack_zstd(packed, size):
    lib = library("libzstd.so.1")
    lib.ZSTD_decompress.restype = ctypes.c_size_t
    lib.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p,
                                    ctypes.c_size_t]
    out = ctypes.create_string_buffer(size)
    return out.raw if lib.ZSTD_decompress(out, size, packed, len(packed)) == size else b""


def unpack_lz4(packed, size):
    lib = library("liblz4.so.1")
    piece = ctypes.create_string_buffer(LZ4_PIECE)
    out, at = bytearray(), len(LZ4)
    while at + 4 <= len(packed) and len(out) < size:
        (length,) = struct.unpack_from("<I", packed, at)
        got = lib.LZ4_decompress_safe(packed[at + 4:at + 4 + length], piece, length, LZ4_PIECE)
        if got <= 0:
            break
        out += piece.raw[:got]
        at += 4 + length
    return bytes(out)


def unpack(image):
    """bzImage -> ELF. The payload ends with the size of what is in it."""
    if len(image) < PAYLOAD + 8 or image[MAGIC:MAGIC + 4] != b"HdrS":
        raise VmlinuxError("cannot unpack the kernel: it is no bzImage; give it another file")
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = (image[SETUP_SECTS] + 1) * 512 + offset
    payload, tail = image[start:start + length - 4], image[start + length - 4:start + length]
    if length < 8 or len(tail) < 4:
        raise VmlinuxError("cannot unpack the kernel: it is cut short; fetch it again")
    (size,) = struct.unpack("<I", tail)
    unpackers = {ZSTD: unpack_zstd, LZ4: unpack_lz4}
    if payload[:4] not in unpackers:
        raise VmlinuxError(f"cannot unpack the kernel: its payload begins with "
                           f"{payload[:4].hex()}, which is neither zstd nor LZ4; boot it as it is")
    elf = unpackers[payload[:4]](payload, size)
    if len(elf) != size or elf[:4] != b"\x7fELF":
        raise VmlinuxError("cannot unpack the kernel: its payload is damaged; fetch it again")
    return elf
