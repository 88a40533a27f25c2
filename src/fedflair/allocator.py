"""Keeps glibc from handing memory back to the kernel between training steps."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from functools import cache
from pathlib import Path

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# The largest threshold that glibc takes.
_MAPPED = 32 * 2**20


# Resident bytes above which freed memory goes back to the kernel between rounds.
_KEPT = 1_500_000_000


def keep_freed_memory() -> None:
    """Tells glibc to reuse freed blocks of up to 32 MB, from any thread, instead of unmapping them.

    A training step frees and asks again for tens of megabytes of gradients. By default each of those blocks is mapped
    anew and zeroed page by page by the kernel, which took a third of a small round's time. Larger blocks, whole vectors
    of parameters, are still mapped: there are a few a client, and among the others they would leave gaps that nothing
    fits into, some hundred megabytes in the end. Does nothing where the C library is another one. Must be called
    before worker threads start.
    """
    libc = _glibc()
    if libc is None:
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> bool:
    """Hands freed memory back where the process has grown large; True where it did. For the pause between rounds.

    Blocks that are never unmapped lie scattered in the end, and each round then finds no gap for some of its vectors.
    """
    libc = _glibc()
    if libc is None or _resident_bytes() < _KEPT:
        return False
    libc.malloc_trim(0)
    return True


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@cache
def _glibc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    if name is None or not hasattr(libc := ctypes.CDLL(name), "gnu_get_libc_version"):
        return None
    return libc
