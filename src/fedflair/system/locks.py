"""Locks on files: held by one process, let go of by the kernel however it ends, and inherited by no child.

File systems without locks (some network file systems) pass unnoticed: a lock that cannot be had for another reason than
being held is passed over, so that nobody is kept from working where locks do not exist.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Another process holds the lock. pid: its process id, as far as it is known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path}: held by {'another process' if pid is None else f'process {pid}'}")
        self.pid = pid


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Holds an exclusive lock on ``path``, made where it is missing and left in place; yields its descriptor.

    The file names the process that holds it. Raises Held, or with ``wait`` waits; OSError where the file itself
    cannot be opened. Never follows a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        if not take(descriptor, wait=wait):
            raise Held(path, owner(descriptor))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int, *, wait: bool = False) -> bool:
    """Takes the lock on an open file: False where another process holds it. True also where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        # ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS, EIO, ...: this file system has none, or its server is away.
        return True
    return True


def owner(descriptor: int) -> int | None:
    """The process that the locked file names."""
    text = os.pread(descriptor, 20, 0).decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() else None
