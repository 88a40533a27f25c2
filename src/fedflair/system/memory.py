"""What a want of memory looks like: libraries say it in a dozen ways, and threads die of it without a word."""

from __future__ import annotations

import errno

REMEDY = "raise the limit (ulimit -v and -u, the container's), close other programs, or use a machine with more"

# Of libraries that raise errors of their own kinds: the loader, torch, Arrow, HDF5, Pillow.
_WORDS = (
    "allocate memory",
    "unable to allocate",
    "start new thread",
    "launch worker thread",
    "failed to map segment",
    "bad_alloc",
    "bad allocation",
    "memory allocation failed",
    "can't malloc",
    "codec configuration error",
)


def shortage(error: BaseException | None) -> BaseException | None:
    """The want of memory, or of threads, that an error is or was caused by; None where it was caused by another."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return error
        if any(words in str(error).lower() for words in _WORDS):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def words_of(error: BaseException) -> str:
    """A want of memory in one line, with what to do."""
    detail = str(error) or type(error).__name__
    return f"out of memory ({' '.join(detail.split())[:200]}): {REMEDY}"
