"""Keeps glibc from handing memory back to the kernel between training steps."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from functools import cache

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# The largest threshold that glibc takes.
_MAPPED = 32 * 2**20


def keep_freed_memory() -> None:
    """Tells glibc to reuse freed blocks, from any thread, instead of unmapping them.

    A training step frees and asks again for hundreds of megabytes of activations and gradients. By default each of
    those blocks is mapped anew and zeroed page by page by the kernel, which took a third of a small round's time. Now
    a round maps nothing once the largest clients have trained. Whole vectors of parameters stay out of this, in a pool
    of their own (``models/vector.py``): among activations they would leave gaps that nothing fits into. Does nothing
    where the C library is another one. Must be called before worker threads start.
    """
    libc = _glibc()
    if libc is None:
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@cache
def _glibc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    if name is None or not hasattr(libc := ctypes.CDLL(name), "gnu_get_libc_version"):
        return None
    return libc
