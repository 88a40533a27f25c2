"""Files that are whole or absent after a crash, and one line for whatever a disk refuses.

Bytes go to a temporary name beside the final one, are synced, and take the final name in one step; then the folder is
synced, so that the name survives too. A temporary name is never a link that somebody planted there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fedflair.errors import DataError, DiskError, FedflairError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of HDF5, safetensors and Arrow.
_ERRNO = re.compile(r"(?:errno = |os error |\[errno )([0-9]+)", re.IGNORECASE)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replaces ``path`` by ``content`` (text as UTF-8), whole or not at all. Raises DiskError where it cannot."""
    with replacing(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A new file that takes the name ``path`` when the block ends well, synced; else it is removed.

    mode: its permissions, less the process's umask. Raises DiskError, naming ``path`` and what to do, where the disk
    refuses; the folder is made where it is missing.
    """
    if not path.name:
        raise DataError(f"{path}: a folder, and no name of a file; name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(_new(temporary, mode), "wb")
    with disk_errors(path), removed_after(temporary):
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the name ``path`` when the block ends well; else it is removed with all that is in it.

    Raises DiskError, naming ``path``, where the disk refuses or something has that name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            sync_folder(temporary)
            # Onto an empty folder it would be taken too, which whoever asks has to refuse before.
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def readable_by_others() -> int:
    """The permissions of a new file that everybody may read, less the process's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o644 & ~mask


def _new(path: Path, mode: int) -> int:
    """A descriptor of a new file; what a killed process left under the name is removed, a planted link as well."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileExistsError):
        return os.open(path, flags, mode)
    path.unlink()
    return os.open(path, flags, mode)


def at_home(value: Any) -> Any:
    """A path, or several, with a ``~`` at the beginning made the user's home folder; anything else as it is."""
    if isinstance(value, Path):
        try:
            return value.expanduser()
        except RuntimeError:
            # There is no such home.
            return value
    return type(value)(map(at_home, value)) if isinstance(value, (list, tuple)) else value


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/fedflair``, by default under ``~/.cache``; None where the user has no home folder."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "fedflair"


def sync_file(path: Path) -> None:
    """Makes what is in a file survive a crash of the machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a crash of the machine, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Makes all that was written to a folder's file system survive a crash; for many files, instead of one by one."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None) if sys.platform == "linux" else None
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor):
            os.sync()
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
def removed_after(temporary: Path) -> Iterator[None]:
    """Removes what the block leaves under a temporary name, however it ends."""
    try:
        yield
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses inside the block into one line that names ``path`` and a remedy (DiskError)."""
    try:
        yield
    except FedflairError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and errno_of(error) is None:
            raise
        raise DiskError(f"{path}: {why(error)}") from error


def errno_of(error: BaseException) -> int | None:
    """The system's number of what went wrong; libraries that raise errors of their own have it in their words."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = _ERRNO.search(str(error))
    return int(match[1]) if match else None


def why(error: BaseException) -> str:
    """What went wrong with a file, and what to do."""
    number = errno_of(error)
    text = (error.strerror if isinstance(error, OSError) else None) or (os.strerror(number) if number else str(error))
    text = " ".join(text.split()) or type(error).__name__
    if number in _FULL:
        return f"cannot be written ({text}): free some space, or raise the limit on files' sizes"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not permitted ({text}): check the permissions, or choose another place"
    if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{text}: a file stands where a folder should be, or the other way round; choose another name"
    if number == errno.ELOOP:
        return f"{text}: a link leads round in circles, or stands where a file should be; remove it"
    if number == errno.ENAMETOOLONG:
        return f"{text}: choose a shorter name"
    return f"{text}; check the disk, or choose another place"
