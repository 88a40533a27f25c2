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

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fedflair.data.store import fingerprint, plain_hdf5
from fedflair.data.store.checks import check_columns
from fedflair.data.store.image_bytes import ImageBytes, OpenFile
from fedflair.errors import DataError
from fedflair.system.json_text import parse_json

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


class EncodedImage(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """The bytes of an image, uint8 [bytes], and where they come from, so that whatever fails on them can name it."""

    origin: tuple[Partition, int] | None = None

    @property
    def place(self) -> str:
        return "an image" if self.origin is None else self.origin[0].place(self.origin[1])


@dataclass(frozen=True)
class Partition:
    """One partition of an open store: columns in memory, image bytes in the file."""

    name: str
    columns: PartitionColumns
    images: ImageBytes

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

    def encoded(self, image: int) -> ByteArray:
        """The encoded JPEG of image ``image``: uint8 [bytes], read from the file here and now.

        Raises DataError where the file no longer has it.
        """
        offsets = self.columns.image_offsets
        content = self.images.read(int(offsets[image]), int(offsets[image + 1]))
        encoded = np.frombuffer(content, dtype=np.uint8).view(EncodedImage)
        encoded.origin = (self, image)
        return encoded

    def place(self, image: int) -> str:
        """Which image this is, for messages: the store, partition, image id and user."""
        user = int(np.searchsorted(self.columns.user_offsets, image, side="right")) - 1
        image_id = self.columns.image_ids[image]
        return f"{self.images.path}: image {image_id} of user {self.user_ids[user]!r} in partition {self.name!r}"

    def prefetch(self, images: npt.NDArray[np.integer[Any]] | range) -> None:
        """Asks the system to read the bytes of these images, ascending, at once and in the background.

        Without it each waits for the disk on its own, which for a user's images is twenty times slower.
        """
        if len(images):
            whole = int(images[-1]) - int(images[0]) == len(images) - 1
            runs = [(images[0], images[-1])] if whole else [(image, image) for image in images]
            offsets = self.columns.image_offsets
            for first, last in runs:
                self.images.prefetch(int(offsets[first]), int(offsets[last + 1]))

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
    """An open packed store, which keeps its file open; safe to use from several threads and forked processes."""

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
        parts = [(len(part.images), part.images.read) for part in self.partitions.values()]
        return fingerprint.sampled(self.digests.columns, parts)

    def label_names(self, *, fine: bool) -> tuple[str, ...]:
        return self.metadata.fine_grained_labels if fine else self.metadata.labels


INT_COLUMNS = ("user_offsets", "image_ids", "image_offsets", "label_offsets", "fine_label_offsets")
INDEX_COLUMNS = ("label_indices", "fine_label_indices")


def is_store(path: Path) -> bool:
    """Whether the file at ``path`` says that it is a packed store; False where it is no HDF5 file or is not there."""
    if not path.is_file():
        return False
    try:
        with plain_hdf5.opened(path, "") as file:
            return plain_hdf5.attribute(file, "format") == FORMAT
    except DataError:
        return False


def open_store(path: str | Path) -> Store:
    """Opens a packed store for reading, and checks every index in it; no image is read.

    Raises DataError where the file is missing, cut short, damaged, of another format or of a newer schema, or leads out
    of itself (links, external storage).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such store; make one with 'fedflair prepare' or 'fedflair synthesize'")
    try:
        file = OpenFile(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the permissions") from error
    with plain_hdf5.opened(path, "prepare it again") as hdf5:
        if plain_hdf5.attribute(hdf5, "format") != FORMAT:
            raise DataError(f"{path}: not a fedflair store; convert it with 'fedflair prepare --source {path}'")
        version = plain_hdf5.attribute(hdf5, "schema_version")
        if not isinstance(version, int):
            raise DataError(f"{path}: damaged: its schema version is {version!r}, no number; prepare it again")
        if version > SCHEMA_VERSION:
            raise DataError(f"{path}: schema version {version} is newer than this fedflair reads; upgrade fedflair")
        raw = _json(path, hdf5)
        metadata = _metadata(path, raw)
        names = [name for name in PARTITIONS if plain_hdf5.has(hdf5, name)]
        partitions = {name: _read_partition(path, file, hdf5, name, metadata) for name in names}
        digests = _digests(path, raw, metadata, partitions)
    return Store(path, metadata, partitions, digests)


def _json(path: Path, file: h5py.File) -> dict[str, Any]:
    content = plain_hdf5.dataset(file, "metadata", str(path), "bytes", 1)[()].tobytes()
    try:
        raw = parse_json(content.decode())
    except ValueError as error:
        raise DataError(f"{path}: damaged: its metadata is no JSON ({error}); prepare it again") from error
    if not isinstance(raw, dict):
        raise DataError(f"{path}: damaged: its metadata is no JSON object; prepare it again")
    return raw


def _metadata(path: Path, raw: Mapping[str, Any]) -> StoreMetadata:
    """Raises DataError where the names are no texts, or one of them comes twice."""
    damaged = f"{path}: damaged: {{}} of its metadata {{}}; prepare it again"
    for name in ("labels", "fine_grained_labels"):
        names = raw.get(name)
        if not isinstance(names, list) or not all(map(is_text, names)):
            raise DataError(damaged.format(name, "are not a list of texts"))
        if len(set(names)) != len(names):
            raise DataError(damaged.format(name, "have a name twice"))
    relation, provenance = raw.get("fine_to_coarse"), raw.get("provenance")
    if not isinstance(relation, dict) or not all(map(is_text, [*relation, *relation.values()])):
        raise DataError(damaged.format("fine_to_coarse", "does not lead from text to text"))
    if not isinstance(provenance, dict):
        raise DataError(damaged.format("provenance", "is no object"))
    return StoreMetadata(tuple(raw["labels"]), tuple(raw["fine_grained_labels"]), relation, provenance)


def is_text(value: object) -> bool:
    """Whether a value is text that can be written as UTF-8; JSON can hold halves of characters that cannot."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _digests(
    path: Path, raw: Mapping[str, Any], metadata: StoreMetadata, partitions: Mapping[str, Partition]
) -> StoreDigests:
    """Raises DataError where the columns are not those that were written."""
    columns = digest_of_columns(metadata, {name: partition.columns for name, partition in partitions.items()})
    if "digests" not in raw:
        return StoreDigests(columns, None)
    recorded = raw["digests"] if isinstance(raw["digests"], dict) else {}
    images = recorded.get("images")
    if recorded.get("columns") != columns or not isinstance(images, dict) or set(images) != set(partitions):
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


def _read_partition(path: Path, file: OpenFile, hdf5: h5py.File, name: str, metadata: StoreMetadata) -> Partition:
    where = f"{path}: partition {name!r}"
    group = plain_hdf5.group(hdf5, name, str(path))
    user_ids = plain_hdf5.column(group, "user_ids", where, "text")
    indices = {field: plain_hdf5.column(group, field, where, "whole numbers") for field in INT_COLUMNS + INDEX_COLUMNS}
    columns = PartitionColumns(user_ids=[plain_hdf5.text(user, where) for user in user_ids.tolist()], **indices)
    check_columns(where, columns, len(metadata.labels), len(metadata.fine_grained_labels))
    num_bytes = int(columns.image_offsets[-1])
    images = plain_hdf5.dataset(group, "images", where, "bytes", 1, max_bytes=None)
    if images.shape != (num_bytes,):
        raise DataError(f"{where} holds {images.shape[0]} image bytes, its index says {num_bytes}; prepare it again")
    offset = images.id.get_offset() if num_bytes else 0
    if offset is None or offset + num_bytes > file.size:
        raise DataError(f"{path}: cut short inside the images of partition {name!r}; prepare it again")
    return Partition(name, columns, ImageBytes(path, file, offset, num_bytes))
