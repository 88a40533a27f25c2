"""Files of a dataset's folder: only regular ones are opened, and what is left out is counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedflair.errors import DataError
from fedflair.system.files import why

HIDDEN = "hidden files"
FOREIGN = "other files"
UNLISTED = "images that the labels do not list"


def read_regular(path: Path, most: int, option: str) -> bytes:
    """The content of a regular file of at most ``most`` bytes; ``option`` raises that.

    Raises DataError for anything else, without waiting for whoever should write to a named pipe.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path}: is no regular file; remove it or put the file itself there")
            check_size(path, status.st_size, most, option)
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {why(error)}") from error


def check_size(path: Path, size: int, most: int, option: str) -> None:
    """Raises DataError where a file is larger than what is read."""
    if size > most:
        raise DataError(f"{path}: has {size:,} bytes, more than the {most:,} that are read; see --{option}")


def is_hidden(name: str) -> bool:
    """Whether a file bears a hidden name, as copies by other systems leave beside the real ones (``._name``)."""
    return name.rsplit("/", 1)[-1].startswith(".")


def count_others(folder: Path, used: Iterable[str], known: frozenset[str] = frozenset()) -> Counter[str]:
    """The files of a folder that are not read, by why; ``known`` names those that belong to a dataset anyway."""
    read = {*used, *known}
    return Counter(
        HIDDEN if is_hidden(entry.name) else FOREIGN
        for entry in entries(folder)
        if entry.name not in read and not entry.is_dir(follow_symlinks=False)
    )


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, in no order. Raises DataError where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {why(error)}") from error
