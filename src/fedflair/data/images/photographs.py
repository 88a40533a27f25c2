"""People's own photographs, of any size and format that Pillow reads: found, and made what a store would hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedflair.data.images.decode import decode_rgb, decoders_words
from fedflair.data.images.jpeg import ImageEncoding, encode, inspect, squared
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.errors import DataError
from fedflair.system.files import disk_errors, why

_JPEG = b"\xff\xd8"
# What telephones take photographs in.
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc")
# Pillow has other programs read the first ones, and knows the others by name only.
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


@dataclass(frozen=True)
class Photograph:
    """encoded: 256x256 pixels as a store holds them, uint8 [bytes]. aspect: width over height of the whole picture."""

    encoded: npt.NDArray[np.uint8]
    aspect: float = 1.0


def read_photograph(path: Path, limits: Limits = DEFAULT) -> Photograph:
    """The photograph in a file. A JPEG of 256x256 stays byte for byte, as ``fedflair prepare`` has it.

    Others are made upright and RGB, and both sides are resized to 256, as FLAIR's own small photographs were; nothing
    is lost to an encoding after that.
    Raises DataError, naming the file, where it is no photograph or beyond the limits.
    """
    if not path.is_file():
        wrong = "a folder without photographs" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {wrong}")
    with disk_errors(path):
        size = path.stat().st_size
        if size > limits.image_bytes:
            raise DataError(f"{path}: {size:,} bytes are more than an image may have; see --max_image_bytes")
        data = path.read_bytes()
    try:
        with _any_decoder():
            return _photograph(data, limits)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def stored(data: bytes, encoding: ImageEncoding, limits: Limits = DEFAULT) -> bytes:
    """As ``jpeg.reencode``, of a photograph in any format that Pillow reads by itself; raises what that does."""
    with _any_decoder():
        return encode(_squared(data, limits)[0], encoding)


@contextmanager
def _any_decoder() -> Iterator[None]:
    """Decoders of dozens of formats raise whatever they like: as DataError."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"cannot be decoded: {type(error).__name__}: {decoders_words(error)}") from error


def find_photographs(places: Sequence[Path]) -> list[Path]:
    """Files as they are named, and of folders what lies in them, however deep, and is named like a photograph.

    In a folder's order of names, hidden ones left out. What cannot be found, and a folder that has none, is itself in
    the list, so that whoever reads it says so. Raises DataError where a folder cannot be read.
    """
    found: list[Path] = []
    for place in places:
        found += (list(_in_folder(place)) or [place]) if place.is_dir() else [place]
    return found


def is_named_like_one(name: str) -> bool:
    """Whether a file's name ends like a photograph's of a format that is read."""
    return Path(name).suffix.lower() in _endings()


def checked(encoded: npt.NDArray[np.uint8], aspect: float = 1.0) -> Photograph:
    """A photograph as a store holds it. Raises DataError where its pixels cannot be decoded."""
    decode_rgb(encoded)
    return Photograph(encoded, aspect)


def _photograph(data: bytes, limits: Limits) -> Photograph:
    if not data:
        raise DataError("no image data at all")
    if not data.startswith(_JPEG) or inspect(data, limits) is not None:
        image, aspect = _squared(data, limits)
        return Photograph(np.frombuffer(encode(image, "png"), dtype=np.uint8), aspect)
    try:
        return checked(np.frombuffer(data, dtype=np.uint8))
    except DataError as error:
        # Its remedy is that of a store.
        raise DataError(f"cannot be decoded: {decoders_words(error.__cause__ or error)}") from error


def _squared(data: bytes, limits: Limits) -> tuple[Image.Image, float]:
    if data[4:12] in _HEIC and "HEIF" not in _formats():
        raise DataError("a HEIC photograph, which Pillow does not read by itself; convert it to JPEG")
    return squared(data, limits, _formats())


def _in_folder(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {why(error)}") from error

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and is_named_like_one(name):
                yield Path(where, name)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_READ))


@cache
def _endings() -> frozenset[str]:
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in _formats())
