"""Features of a store's images, computed once and kept beside it: what a network makes of them before its head.

In the folder ``STORE.features/KEY/``, per partition:

    train.features    the rows, one an image in the store's order, as plain numbers of one type
    train.json        how many rows of how many numbers, and the digest of the rows; written last
    train.pieces      while they are being computed: the digest of each piece that is on the disk, a line each

What is being computed is as good as it is whole: pieces that a stopped process left are read back, and those whose
digest is not right are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedflair.data.store.image_bytes import ImageBytes, OpenFile
from fedflair.errors import DataError, DiskError
from fedflair.system.files import disk_errors, write_atomically
from fedflair.system.json_text import read_json
from fedflair.system.locks import Held, locked

FeatureType = Literal["float32", "float16"]
# Rows of a piece: some seconds of work, and a megabyte or two.
PIECE = 512


@dataclass(frozen=True)
class Features:
    """The features of one partition. digest: of all rows, SHA-256 of the pieces' digests, hexadecimal."""

    rows: ImageBytes
    num_images: int
    dimension: int
    kind: FeatureType
    digest: str

    def of(self, images: range | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Rows of the images at these positions, in their order: float32 [n, D].

        Raises DataError where the file was cut short.
        """
        size = self.dimension * np.dtype(self.kind).itemsize
        if len(images) and (isinstance(images, range) or bool((np.diff(images) == 1).all())):
            # A user's images lie side by side.
            content = self.rows.read(int(images[0]) * size, (int(images[-1]) + 1) * size)
        else:
            content = b"".join(self.rows.read(int(image) * size, (int(image) + 1) * size) for image in images)
        stored = np.frombuffer(content, dtype=self.kind).reshape(-1, self.dimension)
        return stored.astype(np.float32)


@dataclass(frozen=True)
class FeatureFiles:
    """Where the features of one partition are."""

    folder: Path
    partition: str

    @property
    def rows(self) -> Path:
        return self.folder / f"{self.partition}.features"

    @property
    def facts(self) -> Path:
        return self.folder / f"{self.partition}.json"

    @property
    def pieces(self) -> Path:
        return self.folder / f"{self.partition}.pieces"


def features_folder(store: Path, key: str) -> Path:
    """Where features of the store with that key are kept, or are to be."""
    return store.parent / f"{store.stem}.features" / key


def open_features(files: FeatureFiles, num_images: int, *, verify: bool = True) -> Features | None:
    """The features of a partition of ``num_images`` images, or None where they are not there whole.

    verify: read all of them, and compare with their digest. Raises DataError where they are damaged.
    """
    if not files.facts.is_file():
        return None
    remedy = f"remove {files.folder}, and it is made again"
    facts = read_json(files.facts, remedy)
    try:
        dimension, kind, digest = int(facts["dimension"]), str(facts["type"]), str(facts["digest"])
        if kind not in ("float32", "float16") or dimension < 1 or facts["num_images"] != num_images:
            raise ValueError("other images")
        file = OpenFile(files.rows)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{files.facts}: damaged ({type(error).__name__}); {remedy}") from error
    size = num_images * dimension * np.dtype(kind).itemsize
    found = Features(ImageBytes(files.rows, file, 0, size), num_images, dimension, _kind(kind), digest)
    if file.size != size or (verify and _digest(found) != digest):
        raise DataError(f"{files.rows}: damaged (not what was computed); {remedy}")
    return found


@dataclass(frozen=True)
class FeatureWriter:
    """Rows on their way to the disk. missing: pieces that are not there yet, as ranges of images."""

    files: FeatureFiles
    num_images: int
    dimension: int
    kind: FeatureType
    missing: list[range]
    put: Callable[[range, npt.NDArray[np.float32]], None]
    finish: Callable[[], None]


@contextmanager
def writing_features(
    files: FeatureFiles, num_images: int, dimension: int, kind: FeatureType
) -> Iterator[FeatureWriter]:
    """Writes the features of a partition, going on with what a stopped process left.

    Raises DataError where another process is at it, or the disk is full.
    """
    try:
        with disk_errors(files.folder):
            files.folder.mkdir(parents=True, exist_ok=True)
        with (
            disk_errors(files.rows),
            locked(files.folder / ".lock"),
            files.rows.open("r+b" if files.rows.exists() else "w+b") as rows,
            files.pieces.open("a+", encoding="ascii") as journal,
        ):
            yield _writer(files, num_images, dimension, kind, rows, journal)
    except Held as error:
        raise DataError(
            f"{files.folder}: another process{f' ({error.pid})' if error.pid else ''} computes these features; "
            "wait for it to end"
        ) from error
    except DiskError as error:
        raise DiskError(f"{error}; or keep no features, with --frozen_features off") from error


def _writer(
    files: FeatureFiles, num_images: int, dimension: int, kind: FeatureType, rows: Any, journal: Any
) -> FeatureWriter:
    size = dimension * np.dtype(kind).itemsize
    pieces = [range(start, min(start + PIECE, num_images)) for start in range(0, num_images, PIECE)]
    found = _journal(journal)
    digests = {piece: _digest_on_disk(rows, piece, size) for piece in pieces if piece.start in found}
    done = {piece: digest for piece, digest in digests.items() if digest == found[piece.start]}

    def put(piece: range, values: npt.NDArray[np.float32]) -> None:
        content = values.astype(kind).tobytes()
        rows.seek(piece.start * size)
        rows.write(content)
        rows.flush()
        done[piece] = hashlib.sha256(content).hexdigest()
        # A line may reach the disk before its rows do; its digest then tells.
        journal.write(f"{piece.start} {done[piece]}\n")
        journal.flush()

    def finish() -> None:
        rows.truncate(num_images * size)
        rows.flush()
        os.fsync(rows.fileno())
        total = hashlib.sha256("".join(done[piece] for piece in pieces).encode()).hexdigest()
        facts = {"num_images": num_images, "dimension": dimension, "type": kind, "digest": total}
        write_atomically(files.facts, json.dumps(facts, indent=2) + "\n")
        files.pieces.unlink()

    missing = [piece for piece in pieces if piece not in done]
    return FeatureWriter(files, num_images, dimension, kind, missing, put, finish)


def _journal(journal: Any) -> dict[int, str]:
    """Start of a piece -> digest, as the lines say; one that was cut short says nothing."""
    journal.seek(0)
    words = [line.split() for line in journal if line.endswith("\n")]
    return {int(line[0]): line[1] for line in words if len(line) == 2 and line[0].isdigit()}


def _digest_on_disk(rows: Any, piece: range, size: int) -> str:
    rows.seek(piece.start * size)
    return hashlib.sha256(rows.read(len(piece) * size)).hexdigest()


def _digest(features: Features) -> str:
    size = features.dimension * np.dtype(features.kind).itemsize
    starts = range(0, features.num_images, PIECE)
    ends = [min(start + PIECE, features.num_images) for start in starts]
    digests = (hashlib.sha256(features.rows.read(start * size, end * size)) for start, end in zip(starts, ends))
    return hashlib.sha256("".join(digest.hexdigest() for digest in digests).encode()).hexdigest()


def _kind(name: str) -> FeatureType:
    return "float16" if name == "float16" else "float32"
