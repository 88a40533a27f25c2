"""Tar archives from elsewhere: checked by reading them through, and unpacked so that nothing leaves its folder."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.errors import DataError

_READ = 1 << 20
_DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError)


def verify(path: Path) -> None:
    """Reads a ``.tar.gz`` to its end. Raises DataError where it is cut short, its checksum is wrong or it is no tar."""
    for _member, content in members(path):
        for _piece in content or ():
            pass


def unpack(path: Path, folder: Path, keep: Callable[[str], bool] = lambda name: True) -> int:
    """Unpacks the regular files of a ``.tar.gz`` under ``folder`` for which ``keep(name)`` holds; returns their number.

    Folders are made as files need them; modes, owners and times of the archive are not taken over.
    Raises DataError, before anything is written for that member, where a member has an absolute name, ``..`` in it,
    is a link or a device, or would pass through a link on disk; also where the archive is damaged or the disk full.
    """
    root = folder.resolve()
    number = 0
    for member, content in members(path):
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


def members(path: Path, limits: Limits = DEFAULT) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes] | None]]:
    """Each member with its content in pieces, None where it is no regular file; the whole file is read and checked.

    Raises DataError where the archive is damaged, or unpacks to more than ``limits`` allow.
    """
    last = "its start"
    try:
        most = limits.unpacked(path.stat().st_size)
        with gzip.open(path) as packed:
            stream = _Bounded(cast("IO[bytes]", packed), path, most)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_READ) as tar:
                for member in tar:
                    last = f"member {member.name!r}"
                    # The zeros of a sparse member are nowhere in the archive, so that nothing bounds them.
                    plain = member.isreg() and not member.issparse()
                    yield member, _pieces(path, tar, member) if plain else None
                    # tarfile remembers every member it has seen, which would grow with the archive.
                    tar.members = []  # type: ignore[attr-defined]
            while stream.read(_READ):  # what follows the last member still counts for gzip's checksum
                pass
    except _DAMAGE as error:
        raise _damaged(path, last, error) from error


@dataclass
class _Bounded:
    """The unpacked bytes of ``path``, of which at most ``most`` are read."""

    stream: IO[bytes]
    path: Path
    most: int
    count: int = 0

    def read(self, size: int) -> bytes:
        piece = self.stream.read(size)
        self.count += len(piece)
        if self.count > self.most:
            raise DataError(
                f"{self.path}: unpacks to more than {self.most:,} bytes, which photographs never do; download it again "
                ""
                "or see --max_archive_growth"
            )
        return piece


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
