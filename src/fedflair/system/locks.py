"""Locks on files: held by one process, let go of by the kernel however it ends, and inherited by no child.

File systems without locks (some network file systems) pass unnoticed: a lock that cannot be had for another reason than
being held is passed over, so that nobody is kept from working where locks do not exist.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Locked descriptors of this process, with the file that each was opened on. A forked child would hold the locks too,
# for as long as it lives: it closes them first thing.
_held: dict[int, tuple[int, int]] = {}
# Those that this process had from its parent, and has closed.
_inherited: set[int] = set()


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
        name_owner(descriptor, os.getpid())
        yield descriptor
    finally:
        let_go(descriptor)


def take(descriptor: int, *, wait: bool = False) -> bool:
    """Takes the lock on an open file: False where another process holds it. True also where there are no locks.

    ``let_go`` gives it back.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        # ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS, EIO, ...: this file system has none, or its server is away.
        return True
    _inherited.discard(descriptor)
    _held[descriptor] = _file_of(descriptor)
    return True


def let_go(descriptor: int) -> None:
    """Closes the descriptor, and so gives its lock back; in a forked child, which has closed it already, nothing."""
    if descriptor in _inherited:
        _inherited.discard(descriptor)
        return
    if _held.pop(descriptor, None) is not None:
        # A child that was just forked may not have closed it yet.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def owner(descriptor: int) -> int | None:
    """The process that the locked file names."""
    text = os.pread(descriptor, 20, 0).decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() else None


def name_owner(descriptor: int, pid: int) -> None:
    """Writes down which process is at work under the lock."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def _file_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _inherit_nothing() -> None:
    for descriptor, file in _held.items():
        with suppress(OSError):
            if _file_of(descriptor) == file:
                os.close(descriptor)
                _inherited.add(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_inherit_nothing)
