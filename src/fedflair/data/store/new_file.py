"""A new file that many writes make, some of them by libraries that want a name: whole under its name, or absent."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedflair.errors import DataError, DiskError, FedflairError
from fedflair.system import locks
from fedflair.system.files import errno_of, sync_folder, why


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty temporary file beside ``path``, locked: it takes that name when the block ends well, else it is removed.

    What a killed process left there is reused; a link or anything else that stands there is removed, not written
    through. Raises DataError where another process is writing to ``path`` (on a file system without locks this goes
    unnoticed), or where the block's own writing fails, say on a full disk.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(temporary)
    except locks.Held as error:
        raise DataError(f"{path}: another process is writing it; wait for it or choose another name") from error
    except OSError as error:
        raise DiskError(f"{path}: {why(error)}") from error
    try:
        yield temporary
        os.fsync(lock)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(FileNotFoundError):
            temporary.unlink()
        if not isinstance(error, FedflairError) and errno_of(error) is not None:
            raise DiskError(f"{path}: {why(error)}") from error
        raise
    finally:
        locks.let_go(lock)


def _locked(temporary: Path) -> int:
    """A descriptor of the file, emptied and exclusively locked. Raises locks.Held where somebody else holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            descriptor = os.open(temporary, flags, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise
            temporary.unlink(missing_ok=True)
            continue
        try:
            status = os.fstat(descriptor)
            # A second name of the file would be written to as well.
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                temporary.unlink(missing_ok=True)
            elif not locks.take(descriptor):
                raise locks.Held(temporary, None)
            else:
                # Between the opening and the lock the former holder may have renamed the file to its final name.
                with suppress(FileNotFoundError):
                    if os.path.samestat(status, temporary.lstat()):
                        os.ftruncate(descriptor, 0)
                        return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def check_space(output: Path, needed: int) -> None:
    """Raises DataError where the disk of ``output`` has not ``needed`` bytes left."""
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise DataError(f"{output}: needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB; free some space")


def write_all(descriptor: int, pieces: list[bytes]) -> None:
    """Writes up to 1,024 pieces at the file's current place with one system call, or more where it stops short."""
    if not pieces:
        return
    written = os.writev(descriptor, pieces)
    if written < sum(map(len, pieces)):
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]
