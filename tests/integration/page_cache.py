# SPDX-License-Identifier: Apache-2.0
"""What of a file is in the host's page cache, by the kernel's own word, for tests that compare."""
import ctypes
import mmap
import os

SYS_CACHESTAT = 451  # Linux 6.5
libc = ctypes.CDLL(None, use_errno=True)


def _cachestat(file):
    """Pages, or None."""
    span, now = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
    failed = libc.syscall(SYS_CACHESTAT, file.fileno(), span, now, 0)
    return None if failed else now[0]


def is_told(file):
    return _cachestat(file) is not None


def bytes_of(file):
    return _cachestat(file) * mmap.PAGESIZE


def drop(file):
    """Takes all of it out. False: the file system has it nowhere else."""
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return bytes_of(file) == 0


def beside(file, ask):
    """What ask() tells, and the bytes that were in all the while: a host may take pages out by
    itself (DAMON), however much memory is free."""
    for _ in range(100):
        before, told = bytes_of(file), ask()
        if bytes_of(file) == before:
            return told, before
    raise AssertionError("what the page cache has of a file changes all the time")


def read(file, offset, length):
    """Brings that range in, and nothing around it."""
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    for at in range(offset, offset + length, mmap.PAGESIZE):
        os.pread(file.fileno(), mmap.PAGESIZE, at)
