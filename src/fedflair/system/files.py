"""Files that are whole or absent after a crash, and one line for whatever a disk refuses.

Bytes go to a temporary name beside the final one, are synced, and take the final name in one step; then the folder is
synced, so that the name survives too. A temporary name is never a link that somebody planted there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fedflair.errors import DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replaces ``path`` by ``content`` (text as UTF-8), whole or not at all. Raises DataError where it cannot."""
    with replacing(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A new file that takes the name ``path`` when the block ends well, synced; else it is removed.

    mode: its permissions, less the process's umask. Raises DataError, naming ``path`` and what to do, where the disk
    refuses; the folder is made where it is missing.
    """
    if not path.name:
        raise DataError(f"{path}: a folder, and no name of a file; name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(_new(temporary, mode), "wb")
    try:
        with disk_errors(path):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _new(path: Path, mode: int) -> int:
    """A descriptor of a new file; what a killed process left under the name is removed, a planted link as well."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileExistsError):
        return os.open(path, flags, mode)
    path.unlink()
    return os.open(path, flags, mode)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a crash of the machine, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder."""
    # The second is what the library that writes checkpoints calls its own.
    for pattern in (".*.partial", ".tmp*"):
        for path in folder.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError, from wherever inside the block, into one line that names ``path`` and a remedy (DataError)."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {why(error)}") from error


def why(error: OSError) -> str:
    """What went wrong with a file, and what to do."""
    text = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return f"cannot be written ({text}): free some space, or raise the limit on files' sizes"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not permitted ({text}): check the permissions, or choose another place"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{text}: a file stands where a folder should be, or the other way round; choose another name"
    if error.errno == errno.ELOOP:
        return f"{text}: a link leads round in circles, or stands where a file should be; remove it"
    if error.errno == errno.ENAMETOOLONG:
        return f"{text}: choose a shorter name"
    return f"{text}; check the disk, or choose another place"
