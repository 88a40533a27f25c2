"""The bytes of a partition's images, read as they are asked for."""

from __future__ import annotations

import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path

from fedflair.errors import DataError


class OpenFile:
    """A file open for reading for as long as this object lives. Raises OSError where it is no regular file."""

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK the opening of a named pipe would wait for somebody to write to it.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, self.descriptor)
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise OSError("not a regular file")

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size


@dataclass(frozen=True)
class ImageBytes:
    """Bytes ``offset`` to ``offset + size`` of a file, by reading and not by mapping.

    A page of a mapping that cannot be read, since the file was cut short or the disk failed, kills the process without
    a word. One call for each image costs no more than the page faults of a mapping do.
    """

    path: Path
    file: OpenFile
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``. Raises DataError where the file no longer has them."""
        pieces: list[bytes] = []
        position, end = self.offset + start, self.offset + stop
        try:
            while position < end:
                piece = os.pread(self.file.descriptor, end - position, position)
                if not piece:
                    raise DataError(
                        f"{self.path}: was cut short while it was in use ({self.file.size:,} bytes are left); "
                        "put the whole store back, then go on"
                    )
                pieces.append(piece)
                position += len(piece)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check the disk") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def prefetch(self, start: int, stop: int) -> None:
        """Asks the system to read these bytes at once and in the background, where it can."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.descriptor, self.offset + start, stop - start, os.POSIX_FADV_WILLNEED)
