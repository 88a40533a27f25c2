"""HDF5 from elsewhere, of which only plain data inside the file itself is read.

The format can make a dataset of another file's bytes (external storage, external links, virtual datasets), run
code that lies elsewhere (filters), declare more than there is, and hold references and links in circles. No dataset
needs any of it, so it is refused, and what is declared is checked before memory is taken for it.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from fedflair.errors import DataError

Kind = Literal["bytes", "whole numbers", "text", "whole numbers or text"]

# Deflate, shuffle, Fletcher's checksum, szip, n-bit and scale-offset belong to HDF5, LZF to h5py.
_BUILT_IN_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})
_MAX_BYTES = 1 << 30
_MAX_CHUNK_BYTES = 1 << 28
_LOCKED = (errno.EAGAIN, errno.EACCES, errno.EPERM, errno.ENOLCK, errno.EIO, errno.ESTALE)


@contextmanager
def opened(path: Path, remedy: str) -> Iterator[h5py.File]:
    """The file, open for reading and without a lock, which readers need none of.

    Raises DataError for whatever HDF5 finds wrong with it inside the block; ``remedy`` is then what to do.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in _LOCKED:
            raise DataError(
                f"{path}: cannot be read now ({error.strerror or _one_line(error)}); "
                "check the permissions and who else has it open"
            ) from error
        raise DataError(f"{path}: damaged, cut short or not an HDF5 file ({_one_line(error)}); {remedy}") from error


def attribute(file: h5py.File, name: str) -> str | int | None:
    """An attribute of the file that is a text or a whole number; None where there is no such."""
    value = file.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str) else None


def group(parent: h5py.Group, name: str, where: str) -> h5py.Group:
    """The group ``name``. Raises DataError where it is something else, or a link; ``where`` names the parent."""
    found = _member(parent, name, where)
    if not isinstance(found, h5py.Group):
        raise DataError(f"{where}: {name!r} is no group, as the layout has it; make the file again")
    return found


def is_group(parent: h5py.Group, name: str, where: str) -> bool:
    """Whether ``name`` is a group. Raises DataError where it is a link or not there."""
    return isinstance(_member(parent, name, where), h5py.Group)


def has(parent: h5py.Group, name: str) -> bool:
    return parent.get(name, getlink=True) is not None


def dataset(
    parent: h5py.Group, name: str, where: str, kind: Kind, ndim: int, *, max_bytes: int | None = _MAX_BYTES
) -> h5py.Dataset:
    """The dataset ``name``, of which nothing is read yet, of ``ndim`` dimensions and entries of a kind.

    max_bytes: what it may take in memory. Raises DataError where it is something else or not wholly inside the file.
    """
    found = _member(parent, name, where)
    where = f"{where}: {name!r}"
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{where} is a group, not an array; make the file again")
    properties = found.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise DataError(f"{where} is made of other files' bytes; copy the data into this file")
    for number in range(properties.get_nfilters()):
        if properties.get_filter(number)[0] not in _BUILT_IN_FILTERS:
            raise DataError(f"{where} is packed with a plug-in; repack it with gzip or with none ('h5repack')")
    if not _is(found.dtype, kind):
        raise DataError(f"{where} holds {found.dtype}, not {kind}; make the file again")
    if found.shape is None or len(found.shape) != ndim:
        raise DataError(f"{where} has the shape {found.shape}, not one of {ndim} dimensions; make the file again")
    size = math.prod(found.shape) * found.dtype.itemsize
    if max_bytes is not None and size > max_bytes:
        raise DataError(
            f"{where} declares {size:,} bytes, more than the {max_bytes:,} that are read; make the file again"
        )
    _check_storage(found, size, where)
    return found


def scalar_text(parent: h5py.Group, name: str, where: str) -> str:
    """The one text, in UTF-8, that a dataset holds."""
    return text(dataset(parent, name, where, "text", 0)[()], f"{where}: {name!r}")


def text(value: Any, where: str) -> str:
    """An entry of a dataset of text. Raises DataError where it is not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text; make the file again") from error


def column(parent: h5py.Group, name: str, where: str, kind: Kind) -> npt.NDArray[Any]:
    """All of a dataset of one dimension."""
    values: npt.NDArray[Any] = dataset(parent, name, where, kind, 1)[()]
    return values


def _member(parent: h5py.Group, name: str, where: str) -> Any:
    link = parent.get(name, getlink=True)
    if link is None:
        raise DataError(f"{where}: holds no {name!r}; make the file again")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{where}: {name!r} is a link to data elsewhere; copy the data into this file")
    return parent[name]


def _is(dtype: np.dtype[Any], kind: Kind) -> bool:
    is_text = h5py.check_string_dtype(dtype) is not None
    if kind == "bytes":
        return dtype == np.uint8
    if kind == "text":
        return is_text
    return dtype.kind in "ui" or (is_text and kind == "whole numbers or text")


def _check_storage(found: h5py.Dataset, size: int, where: str) -> None:
    """What was declared and never written would be read as zeros, which are black images."""
    if found.chunks is None:
        whole = found.id.get_storage_size() >= size
    else:
        if math.prod(found.chunks) * found.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(f"{where} is cut into chunks of over {_MAX_CHUNK_BYTES:,} bytes; repack it ('h5repack')")
        needed = math.prod(-(-length // chunk) for length, chunk in zip(found.shape, found.chunks))
        whole = found.id.get_num_chunks() >= needed
    if not whole:
        raise DataError(f"{where} was not wholly written; make the file again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
