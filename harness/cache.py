# SPDX-License-Identifier: MIT
"""The page cache: dropping a file from it, and checking that it is gone."""

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_MAP_FAILED = ctypes.c_void_p(-1).value


def resident_pages(path):
    """How many pages of a file are in the page cache (mincore(2))."""
    size = os.path.getsize(path)
    if size == 0:
        return 0
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    vector = (ctypes.c_ubyte * pages)()
    fd = os.open(path, os.O_RDONLY)
    try:
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), f"mmap of {path}")
        failed = _libc.mincore(address, size, vector)
        error = ctypes.get_errno()
        _libc.munmap(address, size)
        if failed:
            raise OSError(error, f"mincore of {path}")
    finally:
        os.close(fd)
    return sum(byte & 1 for byte in bytes(vector))


def drop_from_cache(path):
    """Drops a file from the page cache; raises RuntimeError if some of it stays there."""
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(5):
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            left = resident_pages(path)
            if left == 0:
                return
    finally:
        os.close(fd)
    raise RuntimeError(f"{path}: {left} pages stay in the page cache (tmpfs, or in use?)")
