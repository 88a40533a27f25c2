"""Tar archives from elsewhere: checked by reading them through, and unpacked so that nothing leaves its folder."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.errors import DataError

_READ = 1 << 20
_LONGEST_HEADER = 1 << 20
_DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError)


def verify(path: Path, most: int | None = None) -> None:
    """Reads a ``.tar.gz`` to its end. Raises DataError where it is cut short, its checksum is wrong or it is no tar.

    most: bytes that it may unpack to, see ``unpack``.
    """
    for _member, content in members(path, most=most):
        for _piece in content or ():
            pass


def unpack(path: Path, folder: Path, keep: Callable[[str], bool] = lambda name: True, most: int | None = None) -> int:
    """Unpacks the regular files of a ``.tar.gz`` under ``folder`` for which ``keep(name)`` holds; returns their number.

    Folders are made as files need them; modes, owners and times of the archive are not taken over.
    Raises DataError, before anything is written for that member, where a member has an absolute name, ``..`` in it,
    is a link or a device, or would pass through a link on disk; also where the archive is damaged or the disk full, or
    where it would unpack to more than ``most`` bytes.
    """
    root = folder.resolve()
    number = 0
    for member, content in members(path, most=most):
        name = safe_name(member.name, f"{path}: member {member.name!r}")
        if member.isdir():
            continue
        if content is None:
            raise DataError(f"{path}: member {member.name!r} is a link or a device; do not trust this archive")
        if keep(member.name):
            _write(root / name, content, f"{path}: member {member.name!r}")
            number += 1
    return number


def safe_name(name: str, where: str) -> PurePosixPath:
    """A name from an archive or a server as a relative path. Raises DataError where it could lead out of a folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise DataError(f"{where}: its name leads out of the folder; do not trust where it comes from")
    return path


def _write(target: Path, content: Iterator[bytes], where: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.resolve() != target.parent:
            raise DataError(f"{where} would pass through a link to {target.parent.resolve()}; remove the link")
        # A file or link that is already there is replaced, not written through.
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            for piece in content:
                file.write(piece)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); make room and run again") from error


def members(
    path: Path, limits: Limits = DEFAULT, *, most: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes] | None]]:
    """Each member with its content in pieces, None where it is no regular file; the whole file is read and checked.

    Raises DataError where the archive is damaged, or unpacks to more than ``most`` bytes; None is what ``limits`` allow
    for its size.
    """
    last, declared = "its start", 0
    try:
        option = "--max_archive_growth" if most is None else "--raise_limits TIMES"
        bound = limits.unpacked(path.stat().st_size) if most is None else most
        with gzip.open(path) as packed:
            stream = _Counted(path, packed, bound, option)
            # Anything with ``read`` will do for a stream; the stub asks for a whole file.
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_READ, tarinfo=_Member) as tar:  # type: ignore[call-overload]
                for member in tar:
                    last = f"member {member.name!r}"
                    # The zeros of a sparse member are nowhere in the archive, so that nothing else bounds them.
                    declared += member.size
                    stream.check(declared)
                    plain = member.isreg() and not member.issparse()
                    yield member, _pieces(path, tar, member) if plain else None
                    # tarfile remembers every member it has seen, which would grow with the archive.
                    tar.members = []
            while stream.read(_READ):  # what follows the last member still counts for gzip's checksum
                pass
    except _DAMAGE as error:
        raise _damaged(path, last, error) from error


class _Member(tarfile.TarInfo):
    """A header whose long name or attributes, which tarfile reads into memory, are no longer than such things are."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        kinds = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
        if self.type in kinds and not 0 <= self.size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        # Where tarfile reads a header on, which no stub knows.
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class _Counted:
    """An unpacked stream that ends in DataError after ``most`` bytes. option: what raises the bound."""

    def __init__(self, path: Path, stream: Any, most: int, option: str) -> None:
        self._path, self._stream, self._most, self._option = path, stream, most, option
        self._came = 0

    def read(self, size: int) -> bytes:
        piece: bytes = self._stream.read(size)
        self._came += len(piece)
        self.check(self._came)
        return piece

    def check(self, number: int) -> None:
        if number > self._most:
            raise DataError(
                f"{self._path}: unpacks to more than {self._most:,} bytes, more than FLAIR's archives can; do not "
                f"trust where it comes from, download it again, or see {self._option}"
            )


def _pieces(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The content of a regular member; damage is raised as DataError here, apart from failures to write elsewhere."""
    left = member.size
    try:
        content = tar.extractfile(member)
        while content is not None and (piece := content.read(_READ)):
            left -= len(piece)
            yield piece
        if left:
            raise EOFError("the archive ends inside a member")
    except _DAMAGE as error:
        raise _damaged(path, f"member {member.name!r}", error) from error


def _damaged(path: Path, last: str, error: Exception) -> DataError:
    return DataError(f"{path}: cut short or damaged at {last} ({' '.join(str(error).split())}); download it again")
