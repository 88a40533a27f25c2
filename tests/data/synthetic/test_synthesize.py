"""The synthetic twin end to end: the same dataset in every form, whatever the number of processes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fedflair.data.preparation.packing import pack
from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import Store, open_store
from fedflair.data.synthetic.synthesize import synthesize, synthetic_source
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_TO_COARSE
from fedflair.errors import ConfigError, DataError

USERS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("synthetic") / "flair.hdf5"
    synthesize(output=path, num_users=USERS, seed=4, processes=1)
    return open_store(path)


def assert_equal(first: Store, second: Store) -> None:
    """Equal but for the provenance."""
    assert first.metadata.labels == second.metadata.labels
    assert first.metadata.fine_grained_labels == second.metadata.fine_grained_labels
    assert first.metadata.fine_to_coarse == second.metadata.fine_to_coarse
    assert list(first.partitions) == list(second.partitions)
    for name, partition in first.partitions.items():
        other = second.partitions[name]
        assert partition.user_ids == other.user_ids
        assert partition.images.read(0, len(partition.images)) == other.images.read(0, len(other.images))
        for field in ("user_offsets", "image_ids", "image_offsets", "label_indices", "fine_label_indices"):
            assert np.array_equal(getattr(partition.columns, field), getattr(other.columns, field))


def test_the_store_has_users_images_and_labels(store: Store) -> None:
    assert {name: part.num_users for name, part in store.partitions.items()} == {"train": 16, "val": 2, "test": 2}
    # 429,078 images of 51,414 users, times 20.
    assert sum(part.num_images for part in store.partitions.values()) == 167
    assert store.metadata.labels == COARSE_LABELS
    assert store.metadata.fine_to_coarse == FINE_TO_COARSE
    assert store.metadata.provenance["source"] == "synthetic"
    assert store.metadata.provenance["reencoded"] == {}
    for part in store.partitions.values():
        assert part.user_ids == sorted(part.user_ids)
        present = part.multi_hot(range(part.num_images), 17, fine=False)
        assert (present.sum(axis=0) >= 1).all()


def test_the_number_of_processes_changes_nothing(store: Store, tmp_path: Path) -> None:
    synthesize(output=tmp_path / "two.hdf5", num_users=USERS, seed=4, processes=2)
    assert_equal(store, open_store(tmp_path / "two.hdf5"))


def test_another_seed_gives_another_dataset(store: Store) -> None:
    source = synthetic_source("mini", 5, num_users=USERS, processes=1)
    first = next(source.records())
    part = store.partitions["train"]
    assert first.user_id not in part.user_ids
    assert first.image != part.encoded(0).tobytes()


def test_all_formats_hold_the_same_dataset(store: Store, tmp_path: Path) -> None:
    synthesize(output=tmp_path / "twin", num_users=USERS, seed=4, format="all", processes=1)
    assert sorted(path.name for path in (tmp_path / "twin").iterdir()) == ["apple", "flair.hdf5", "huggingface"]
    assert_equal(store, open_store(tmp_path / "twin" / "flair.hdf5"))
    for release in ("apple", "huggingface"):
        prepare(source=tmp_path / "twin" / release, output=tmp_path / f"{release}.hdf5")
        assert_equal(store, open_store(tmp_path / f"{release}.hdf5"))


def test_a_release_format_alone_is_the_folder_itself(tmp_path: Path) -> None:
    made = synthesize(output=tmp_path / "hub", num_users=10, format="huggingface", processes=1)
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "ATTRIBUTION.txt",
        "data",
        "label_relationship.txt",
    ]
    assert len((tmp_path / "hub" / "label_relationship.txt").read_text().splitlines()) == 1_639
    assert (made.num_images, made.packed) == (83, None)


def test_mixed_records_are_the_same_records_in_the_order_of_a_release(store: Store, tmp_path: Path) -> None:
    source = synthetic_source("mini", 4, num_users=USERS, processes=1, mixed=True)
    rows = [(record.partition, record.user_id) for record in source.records() if record.partition == "train"]
    changes = sum(first != second for first, second in pairwise(rows))
    assert changes > store.partitions["train"].num_users
    pack(source, tmp_path / "mixed.hdf5")
    assert_equal(store, open_store(tmp_path / "mixed.hdf5"))


def test_a_source_tells_its_size_and_can_be_read_twice() -> None:
    source = synthetic_source("full", 1, num_users=10, processes=1)
    first, second = list(source.records()), list(source.records())
    assert source.num_records == len(first) == 83
    assert first == second
    assert source.fine_grained_labels is not None
    assert {name for record in first for name in record.fine_grained_labels} == set(source.fine_grained_labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 9}, "num_users 9 is out of range; it must be from 10 to 51414"),
        ({"num_users": 51_415}, "num_users 51415 is out of range; it must be from 10 to 51414"),
        ({"scale": "huge"}, "scale 'huge' is unknown; choose one of mini, full"),
        ({"format": "zip"}, "format 'zip' is unknown; choose packed, huggingface, apple or all"),
        ({"processes": 0}, "processes 0 is out of range; it must be at least 1"),
    ],
)
def test_an_impossible_option_is_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthesize(output=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_place_for_a_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give the name of the file to write"):
        synthesize(output=tmp_path, num_users=10, processes=1)
