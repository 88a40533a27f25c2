"""The packed store: the one HDF5 file training reads, and the only file that knows its schema.

Per partition, as contiguous columns with each user's images adjacent (n images, u users):

    images               uint8  [bytes]   the encoded JPEGs, concatenated
    image_offsets        int64  [n + 1]   image i is images[image_offsets[i] : image_offsets[i + 1]]
    image_ids            int64  [n]
    user_ids             S      [u]       UTF-8, in sorted order of the text
    user_offsets         int64  [u + 1]   user k has images user_offsets[k] : user_offsets[k + 1]
    label_offsets        int64  [n + 1]   CSR over label_indices
    label_indices        uint16 [..]      ascending within an image; indices into metadata "labels"
    fine_label_offsets   int64  [n + 1]
    fine_label_indices   uint16 [..]

The file's attributes hold ``format``, ``schema_version`` and ``metadata`` (JSON: label lists, fine -> coarse relation,
provenance, and ``digests``: of the columns, and of the images' bytes of each partition; see ``fingerprint.py``).
``writing.py`` makes stores.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fedflair.data.store import fingerprint
from fedflair.errors import DataError

FORMAT = "fedflair-packed-store"
SCHEMA_VERSION = 1
PARTITIONS = ("train", "val", "test")

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class StoreMetadata:
    """What a store says of itself.

    labels, fine_grained_labels: names in index order.
    fine_to_coarse: fine name -> coarse name; may hold names that no image carries, or be empty.
    provenance: source name and path, date, counts and tool version, as written by ``prepare``.
    """

    labels: tuple[str, ...]
    fine_grained_labels: tuple[str, ...]
    fine_to_coarse: dict[str, str]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class PartitionColumns:
    """Everything of one partition but the image bytes; dtypes and shapes as in the module's docstring."""

    user_ids: list[str]
    user_offsets: IntArray
    image_ids: IntArray
    image_offsets: IntArray
    label_offsets: IntArray
    label_indices: IndexArray
    fine_label_offsets: IntArray
    fine_label_indices: IndexArray

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_images(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True)
class Partition:
    """One partition of an open store: columns in memory, image bytes mapped from the file."""

    name: str
    columns: PartitionColumns
    images: ByteArray

    @property
    def user_ids(self) -> list[str]:
        return self.columns.user_ids

    @property
    def num_users(self) -> int:
        return self.columns.num_users

    @property
    def num_images(self) -> int:
        return self.columns.num_images

    def user_slice(self, user: int) -> range:
        """Image indices of the user at position ``user``."""
        offsets = self.columns.user_offsets
        return range(int(offsets[user]), int(offsets[user + 1]))

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` of the images."""
        return self.images[start:stop].tobytes()

    def encoded(self, image: int) -> ByteArray:
        """The encoded JPEG of image ``image``: uint8 [bytes], a view of the mapped file."""
        offsets = self.columns.image_offsets
        return self.images[offsets[image] : offsets[image + 1]]

    def prefetch(self, images: npt.NDArray[np.integer[Any]] | range) -> None:
        """Asks the system to read the bytes of these images, ascending, at once and in the background.

        Without it each page waits for the disk on its own, which for a user's images is twenty times slower.
        """
        mapped = self.images.base
        if len(images) and isinstance(mapped, mmap.mmap):
            whole = int(images[-1]) - int(images[0]) == len(images) - 1
            runs = [(images[0], images[-1])] if whole else [(image, image) for image in images]
            # The array starts within the first page of the mapping, since mappings start at a multiple of a page.
            shift = len(mapped) - len(self.images)
            for first, last in runs:
                start, stop = (int(self.columns.image_offsets[k]) + shift for k in (first, last + 1))
                page = start - start % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, page, stop - page)

    def drop_pages(self) -> None:
        """Takes what was read of the mapped file out of this process's memory; the system's cache keeps it."""
        mapped = self.images.base
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def label_indices(self, image: int, *, fine: bool) -> IndexArray:
        """The image's label indices, ascending: uint16 [k]."""
        columns = self.columns
        if fine:
            offsets, indices = columns.fine_label_offsets, columns.fine_label_indices
        else:
            offsets, indices = columns.label_offsets, columns.label_indices
        return indices[offsets[image] : offsets[image + 1]]

    def multi_hot(self, images: npt.NDArray[np.integer[Any]] | range, num_labels: int, *, fine: bool) -> ByteArray:
        """Labels of several images as 0/1: uint8 [len(images), num_labels]."""
        hot = np.zeros((len(images), num_labels), dtype=np.uint8)
        for row, image in enumerate(images):
            hot[row, self.label_indices(int(image), fine=fine)] = 1
        return hot


@dataclass(frozen=True)
class StoreDigests:
    """SHA-256 in hex. columns: of labels and columns as they were read. images: partition -> of its images' bytes, as
    recorded; None in stores of older versions."""

    columns: str
    images: dict[str, str] | None


@dataclass(frozen=True)
class Store:
    """An open packed store. Holds no file handle besides the memory maps; safe to use from several threads."""

    path: Path
    metadata: StoreMetadata
    partitions: dict[str, Partition]
    digests: StoreDigests = StoreDigests("", None)

    @cached_property
    def fingerprint(self) -> str:
        """What the store holds, as a text of some 70 characters; see ``fingerprint.py``.

        Beginning with ``sha256:`` where the store recorded it, else with ``sample:``.
        """
        images = self.digests.images
        if images is not None:
            return fingerprint.recorded(self.digests.columns, images)
        parts = [(len(part.images), part.read) for part in self.partitions.values()]
        return fingerprint.sampled(self.digests.columns, parts)

    def drop_pages(self) -> None:
        """As :meth:`Partition.drop_pages`, of all partitions; between rounds, so that they do not pile up."""
        for partition in self.partitions.values():
            partition.drop_pages()

    def label_names(self, *, fine: bool) -> tuple[str, ...]:
        return self.metadata.fine_grained_labels if fine else self.metadata.labels


INT_COLUMNS = ("user_offsets", "image_ids", "image_offsets", "label_offsets", "fine_label_offsets")
INDEX_COLUMNS = ("label_indices", "fine_label_indices")


def is_store(path: Path) -> bool:
    """Whether the file at ``path`` says that it is a packed store; False where it is no HDF5 file or is not there."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except OSError:
        return False


def open_store(path: str | Path) -> Store:
    """Opens a packed store for reading.

    Raises DataError where the file is missing, cut short, of another format or of a newer schema.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such store; make one with 'fedflair prepare' or 'fedflair synthesize'")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path}: not a fedflair store; convert it with 'fedflair prepare --source {path}'")
            version = int(file.attrs["schema_version"])
            if version > SCHEMA_VERSION:
                raise DataError(f"{path}: schema version {version} is newer than this fedflair reads; upgrade fedflair")
            raw: Mapping[str, Any] = json.loads(file["metadata"][()].tobytes())
            metadata = _metadata(raw)
            partitions = {name: _read_partition(path, file, name) for name in PARTITIONS if name in file}
            digests = _digests(path, raw, metadata, partitions)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: damaged or not a fedflair store ({_one_line(error)}); prepare it again") from error
    return Store(path, metadata, partitions, digests)


def _metadata(raw: Mapping[str, Any]) -> StoreMetadata:
    return StoreMetadata(
        labels=tuple(raw["labels"]),
        fine_grained_labels=tuple(raw["fine_grained_labels"]),
        fine_to_coarse=dict(raw["fine_to_coarse"]),
        provenance=dict(raw["provenance"]),
    )


def _digests(
    path: Path, raw: Mapping[str, Any], metadata: StoreMetadata, partitions: Mapping[str, Partition]
) -> StoreDigests:
    """Raises DataError where the columns are not those that were written."""
    columns = digest_of_columns(metadata, {name: partition.columns for name, partition in partitions.items()})
    if "digests" not in raw:
        return StoreDigests(columns, None)
    images = {str(name): str(digest) for name, digest in raw["digests"]["images"].items()}
    if raw["digests"]["columns"] != columns or set(images) != set(partitions):
        raise DataError(f"{path}: damaged: its index is not the one that was written; prepare it again")
    return StoreDigests(columns, images)


def digest_of_columns(metadata: StoreMetadata, partitions: Mapping[str, PartitionColumns]) -> str:
    """Of all that a store holds but the images' bytes and where it came from."""
    labels = {
        "labels": list(metadata.labels),
        "fine_grained_labels": list(metadata.fine_grained_labels),
        "fine_to_coarse": metadata.fine_to_coarse,
    }
    columns: dict[str, dict[str, fingerprint.Column]] = {
        name: {
            "user_ids": of.user_ids,
            **{field: np.asarray(getattr(of, field), dtype=np.int64) for field in INT_COLUMNS},
            **{field: np.asarray(getattr(of, field), dtype=np.uint16) for field in INDEX_COLUMNS},
        }
        for name, of in partitions.items()
    }
    return fingerprint.columns_digest(labels, columns)


def _read_partition(path: Path, file: h5py.File, name: str) -> Partition:
    group = file[name]
    columns = PartitionColumns(
        user_ids=[user_id.decode() for user_id in group["user_ids"][()].tolist()],
        **{field: group[field][()] for field in INT_COLUMNS + INDEX_COLUMNS},
    )
    _check_columns(path, name, columns)
    num_bytes = int(columns.image_offsets[-1])
    dataset = group["images"]
    if dataset.shape != (num_bytes,):
        raise DataError(f"{path}: partition {name!r} holds {dataset.shape[0]} image bytes, its index says {num_bytes}")
    if num_bytes == 0:
        return Partition(name, columns, np.empty(0, dtype=np.uint8))
    offset = dataset.id.get_offset()
    if offset is None or offset + num_bytes > path.stat().st_size:
        raise DataError(f"{path}: cut short inside the images of partition {name!r}; prepare it again")
    return Partition(name, columns, np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=(num_bytes,)))


def _check_columns(path: Path, name: str, columns: PartitionColumns) -> None:
    """Raises DataError where the columns do not fit together, so that no reader runs past an end later."""
    for field, entries, end in (
        ("user_offsets", columns.num_users, columns.num_images),
        ("image_offsets", columns.num_images, None),
        ("label_offsets", columns.num_images, len(columns.label_indices)),
        ("fine_label_offsets", columns.num_images, len(columns.fine_label_indices)),
    ):
        offsets = getattr(columns, field)
        whole = offsets.shape == (entries + 1,) and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
        if not whole or (end is not None and offsets[-1] != end):
            raise DataError(f"{path}: damaged: {field} of partition {name!r} does not fit; prepare it again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
