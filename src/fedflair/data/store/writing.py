"""How a packed store comes to be: written under a temporary name, fsynced and renamed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fedflair.data.store import fingerprint
from fedflair.data.store.new_file import replacing, write_all
from fedflair.data.store.packed import (
    FORMAT,
    INDEX_COLUMNS,
    INT_COLUMNS,
    SCHEMA_VERSION,
    PartitionColumns,
    StoreMetadata,
    digest_of_columns,
)
from fedflair.errors import DataError


@dataclass
class _Written:
    """A partition under construction. digest: of the first ``position`` bytes of its images."""

    columns: PartitionColumns
    images: h5py.Dataset
    digest: Any = field(default_factory=hashlib.sha256)
    position: int = 0


@dataclass(frozen=True)
class StoreWriter:
    """Hands out the places to write to while a store is under construction; see :func:`create`."""

    file: h5py.File
    path: Path
    _partitions: dict[str, _Written] = field(default_factory=dict)

    def partition(self, name: str, columns: PartitionColumns) -> h5py.Dataset:
        """Writes the columns of a partition and returns its empty ``images`` dataset, uint8 [bytes], to fill."""
        encoded_ids = [user_id.encode() for user_id in columns.user_ids]
        width = max((len(user_id) for user_id in encoded_ids), default=1)
        group = self.file.create_group(name)
        group.create_dataset("user_ids", data=np.array(encoded_ids, dtype=f"S{width}"))
        for column in INT_COLUMNS:
            group.create_dataset(column, data=np.asarray(getattr(columns, column), dtype=np.int64))
        for column in INDEX_COLUMNS:
            group.create_dataset(column, data=np.asarray(getattr(columns, column), dtype=np.uint16))
        num_bytes = int(columns.image_offsets[-1])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        # Space is set aside at once and not filled with zeros first, so the byte column is written exactly once.
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plist.set_obj_track_times(False)
        h5py.h5d.create(group.id, b"images", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((num_bytes,)), plist)
        self._partitions[name] = _Written(columns, group["images"])
        return group["images"]

    def write_images(self, images: h5py.Dataset, position: int, encoded: list[bytes]) -> int:
        """Puts up to 1,024 images at byte ``position`` of an ``images`` dataset of this store, past HDF5.

        Returns the position after them. Raises DataError where they do not fit.
        """
        end = position + sum(map(len, encoded))
        if end > images.shape[0]:
            raise DataError(f"{self.path}: image bytes up to {end} do not fit into {images.shape[0]}")
        written = next(of for of in self._partitions.values() if of.images == images)
        hashing = threading.Thread(target=_hash, args=(written, position, encoded))
        hashing.start()
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek((images.id.get_offset() or 0) + position)
                write_all(file.fileno(), encoded)
        finally:
            hashing.join()
        return end

    def metadata(self, metadata: StoreMetadata) -> None:
        """Writes the metadata and the digests of the partitions, all of whose images must have been written."""
        columns = {name: written.columns for name, written in self._partitions.items()}
        digests = {
            "columns": digest_of_columns(metadata, columns),
            "images": {name: _images_digest(written) for name, written in self._partitions.items()},
        }
        content = json.dumps({**asdict(metadata), "digests": digests}).encode()
        self.file.attrs["format"] = FORMAT
        self.file.attrs["schema_version"] = SCHEMA_VERSION
        # A dataset, not an attribute: the relation of 1,639 lines passes HDF5's 64 KB limit on attributes.
        self.file.create_dataset("metadata", data=np.frombuffer(content, dtype=np.uint8))


def _hash(written: _Written, position: int, encoded: list[bytes]) -> None:
    if position == written.position:
        for image in encoded:
            written.digest.update(image)
            written.position += len(image)


def _images_digest(written: _Written) -> str:
    """Of what was written in order it is known; anything else is read back."""
    size = int(written.images.shape[0])
    if written.position == size:
        return str(written.digest.hexdigest())
    return fingerprint.images_digest(size, lambda start, stop: written.images[start:stop].tobytes())


@contextmanager
def create(path: Path) -> Iterator[StoreWriter]:
    """A new store at ``path``: complete under that name when the block ends well, absent when it does not."""
    # HDF5's own lock would run into the one that is already held on the temporary file.
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest", locking=False) as file:
        yield StoreWriter(file, temporary)
