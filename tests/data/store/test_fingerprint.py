"""A store is known by what it holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedflair.data.preparation.packing import pack
from fedflair.data.preparation.prepare import prepare
from fedflair.data.sources.records import Source
from fedflair.data.store import fingerprint
from fedflair.data.store.packed import open_store
from fedflair.data.store.verify import verify
from fedflair.data.store.writing import create
from fedflair.errors import DataError
from tests.conftest import jpeg, write_tiny_store
from tests.data.releases import RELATION, changed, records, write_apple, write_hub


def packed(path: Path, made: list) -> Path:
    pack(Source("test", Path("folder"), lambda: iter(made), RELATION), path)
    return path


def without_digests(path: Path) -> Path:
    """The store as older versions of fedflair wrote it."""
    with h5py.File(path, "r+") as file:
        metadata = json.loads(file["metadata"][()].tobytes())
        del metadata["digests"], file["metadata"]
        file["metadata"] = np.frombuffer(json.dumps(metadata).encode(), dtype=np.uint8)
    return path


def test_equal_content_has_one_fingerprint_wherever_it_came_from(tmp_path: Path) -> None:
    prepare(source=write_hub(tmp_path / "hub", records()), output=tmp_path / "hub.hdf5")
    prepare(source=write_apple(tmp_path / "apple", records()), output=tmp_path / "apple.hdf5")
    one, other = open_store(tmp_path / "hub.hdf5"), open_store(tmp_path / "apple.hdf5")
    assert one.metadata.provenance != other.metadata.provenance
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint.startswith("sha256:") and len(one.fingerprint) == 71


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "another@N01"},
        {"image_id": 999},
        {"labels": ("animal",), "fine_grained_labels": ("cat",)},
        {"image": jpeg(999)},
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_any_other_content_has_another(tmp_path: Path, fields: dict, old: bool) -> None:
    paths = [packed(tmp_path / "a.hdf5", records()), packed(tmp_path / "b.hdf5", changed(0, **fields))]
    if old:
        paths = [without_digests(path) for path in paths]
    one, other = (open_store(path).fingerprint for path in paths)
    assert one != other


def test_images_written_in_any_way_have_the_same_fingerprint(
    tmp_path: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was not written in order is read back, in several pieces.
    monkeypatch.setattr(fingerprint, "_READ_BYTES", 1000)
    store = open_store(tiny_store)
    metadata = replace(store.metadata, provenance={})
    with create(tmp_path / "backwards.hdf5") as writer:
        for name, partition in store.partitions.items():
            images = writer.partition(name, partition.columns)
            for k in reversed(range(partition.num_images)):
                start = int(partition.columns.image_offsets[k])
                writer.write_images(images, start, [partition.encoded(k).tobytes()])
        writer.metadata(metadata)
    assert open_store(tmp_path / "backwards.hdf5").fingerprint == store.fingerprint


def test_an_index_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = write_tiny_store(tmp_path / "s.hdf5")
    with h5py.File(path, "r+") as file:
        file["train/image_ids"][3] = 12345
    with pytest.raises(DataError, match=r"s\.hdf5: damaged: its index is not the one that was written; prepare it"):
        open_store(path)
    # Older stores have nothing to compare with.
    assert open_store(without_digests(path)).partitions["train"].columns.image_ids[3] == 12345


def test_a_store_of_an_older_version_opens_and_has_one_too(tmp_path: Path) -> None:
    path = without_digests(write_tiny_store(tmp_path / "s.hdf5"))
    found = open_store(path).fingerprint
    assert found.startswith("sample:") and found == open_store(path).fingerprint
    with h5py.File(path, "r+") as file:
        file["test/images"][-1] ^= 1
    assert open_store(path).fingerprint != found


def test_opening_reads_no_image(tmp_path: Path) -> None:
    path = write_tiny_store(tmp_path / "s.hdf5")
    before = open_store(path)
    with h5py.File(path, "r+") as file:
        file["test/images"][5] ^= 1
    assert open_store(path).fingerprint == before.fingerprint
    verify(open_store(write_tiny_store(tmp_path / "whole.hdf5")))
    with pytest.raises(DataError, match=r"s\.hdf5: damaged: the images of partition 'test' are not those that were"):
        verify(open_store(path))
    with pytest.raises(DataError, match=r"recorded no digest of its images.*--layout packed"):
        verify(open_store(without_digests(path)))


def test_one_bit_of_one_image_makes_another_fingerprint(tmp_path: Path, tiny_store: Path) -> None:
    def flipped(image: int) -> bytes:
        content = bytearray(jpeg(image))
        content[len(content) // 2] ^= image == 7
        return bytes(content)

    one, other = open_store(tiny_store), open_store(write_tiny_store(tmp_path / "s.hdf5", encode=flipped))
    assert one.digests.columns == other.digests.columns
    assert one.fingerprint != other.fingerprint
