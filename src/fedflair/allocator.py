"""Keeps glibc from handing memory back to the kernel between training steps."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Tells glibc to reuse freed blocks, of any size and from any thread, instead of unmapping them.

    A training step frees and asks again for tens of megabytes of gradients. By default each of those blocks is mapped
    anew and zeroed page by page by the kernel, which took a third of a small round's time. Does nothing where the C
    library is another one. Must be called before worker threads start.
    """
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    if name is None or not hasattr(libc := ctypes.CDLL(name), "gnu_get_libc_version"):
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
