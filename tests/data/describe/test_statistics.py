"""The numbers that ``describe`` shows, against numbers worked out by hand on five images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedflair.data.describe import statistics
from fedflair.data.store.packed import PartitionColumns, Store, StoreMetadata, open_store
from fedflair.data.store.writing import create

LABELS = ("animal", "food", "plant")
FINE_LABELS = ("cat", "dog", "fern", "soup")

# partition -> user -> images as (coarse indices, fine indices)
Images = dict[str, dict[str, list[tuple[list[int], list[int]]]]]
SMALL: Images = {
    "train": {"ann": [([0], [0]), ([0, 2], [1, 2]), ([0], [0, 1])], "bob": [([1], [3])]},
    "val": {"cid": [([1, 2], [2, 3])]},
}


def columns(users: dict[str, list[tuple[list[int], list[int]]]], bytes_per_image: int) -> PartitionColumns:
    images = [image for user in users.values() for image in user]
    return PartitionColumns(
        user_ids=list(users),
        user_offsets=np.cumsum([0, *[len(user) for user in users.values()]]),
        image_ids=np.arange(len(images)) + 100,
        image_offsets=np.arange(len(images) + 1) * bytes_per_image,
        label_offsets=np.cumsum([0, *[len(coarse) for coarse, _ in images]]),
        label_indices=np.array([label for coarse, _ in images for label in coarse], dtype=np.uint16),
        fine_label_offsets=np.cumsum([0, *[len(fine) for _, fine in images]]),
        fine_label_indices=np.array([label for _, fine in images for label in fine], dtype=np.uint16),
    )


def write_store(
    path: Path, content: Images, labels: tuple[str, ...] = LABELS, jpeg: bytes = b"\xff\xd8\xff\xd9", **provenance: str
) -> Path:
    """A store of the given users, every image being ``jpeg``."""
    with create(path) as writer:
        for name, users in content.items():
            partition = columns(users, len(jpeg))
            writer.partition(name, partition)[...] = np.frombuffer(jpeg * partition.num_images, dtype=np.uint8)
        writer.metadata(StoreMetadata(labels, FINE_LABELS, {}, provenance))
    return path


# Most of FLAIR's coarse labels and no others: FLAIR's published values stand beside such a store's.
FLAIR_LABELS = (*LABELS, "art", "equipment", "liquid", "material", "outdoor", "structure")


@pytest.fixture
def small(tmp_path: Path) -> Store:
    return open_store(write_store(tmp_path / "small.hdf5", SMALL))


def test_counts_of_each_partition_and_of_all(small: Store) -> None:
    by_partition = statistics.store_statistics(small)
    assert list(by_partition) == ["train", "val", "all"]
    assert [(s.num_users, s.num_images, s.image_bytes) for s in by_partition.values()] == [
        (2, 4, 16),
        (1, 1, 4),
        (3, 5, 20),
    ]
    assert by_partition["train"].coarse.images.tolist() == [3, 1, 1]
    assert by_partition["val"].coarse.images.tolist() == [0, 1, 1]
    assert by_partition["all"].coarse.images.tolist() == [3, 2, 2]
    assert by_partition["all"].coarse.users.tolist() == [1, 2, 2]
    assert by_partition["all"].fine.images.tolist() == [2, 2, 2, 2]
    assert by_partition["all"].fine.users.tolist() == [1, 1, 2, 2]


def test_distributions(small: Store) -> None:
    everything = statistics.store_statistics(small)["all"]
    assert everything.images_per_user == statistics.Distribution(
        mean=5 / 3, std=pytest.approx(np.sqrt(8) / 3), min=1, q25=1, median=1, q75=2, max=3
    )
    assert everything.coarse.per_image.mean == 7 / 5
    assert everything.fine.per_image.mean == 8 / 5
    # ann has animal and plant, bob food, cid food and plant.
    assert everything.coarse.per_user.mean == pytest.approx(5 / 3)
    assert everything.fine.per_user.mean == pytest.approx(6 / 3)
    assert everything.fine.per_user.max == 3


def test_divergence_by_hand() -> None:
    # Users 0 and 1 share no label: p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4).
    users, labels, counts = np.array([0, 1]), np.array([0, 1]), np.array([4, 4])
    expected = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert statistics.divergence_from_population(users, labels, counts, 2, 2) == pytest.approx([expected] * 2)


def test_divergence_of_equal_users_is_zero() -> None:
    users, labels, counts = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([3, 1, 6, 2])
    assert statistics.divergence_from_population(users, labels, counts, 2, 2) == pytest.approx([0, 0], abs=1e-12)


def test_divergence_is_higher_than_if_images_were_dealt_at_random(tmp_path: Path) -> None:
    users = {f"u{i:02}": [([i % 3], [i % 4])] * 20 for i in range(30)}
    store = open_store(write_store(tmp_path / "s.hdf5", {"train": users}))
    coarse = statistics.store_statistics(store)["all"].coarse
    assert coarse.divergence.min > 0.4
    assert coarse.divergence_if_iid.max < 0.2


def test_co_occurrence(small: Store) -> None:
    train = small.partitions["train"].columns
    counts = statistics.co_occurrence(train.label_offsets, train.label_indices, np.array([2, 0]))
    assert counts.tolist() == [[1, 1], [1, 3]]


def test_co_occurrence_over_several_chunks() -> None:
    offsets = np.arange(250_001) * 2
    indices = np.tile(np.array([0, 1, 1, 2], dtype=np.uint16), 125_000)
    counts = statistics.co_occurrence(offsets, indices, np.array([0, 1, 2]))
    assert counts.tolist() == [[125_000, 125_000, 0], [125_000, 250_000, 125_000], [0, 125_000, 125_000]]


def test_most_frequent_leaves_out_labels_without_images(small: Store) -> None:
    by_partition = statistics.store_statistics(small)
    assert statistics.most_frequent(by_partition["all"].coarse, 2).tolist() == [0, 1]
    assert statistics.most_frequent(by_partition["val"].coarse, 3).tolist() == [1, 2]


def test_an_empty_partition(tmp_path: Path) -> None:
    store = open_store(write_store(tmp_path / "s.hdf5", {"train": SMALL["train"], "test": {}}))
    empty = statistics.store_statistics(store)["test"]
    assert (empty.num_users, empty.num_images) == (0, 0)
    assert np.isnan(empty.images_per_user.mean)
    assert empty.coarse.images.tolist() == [0, 0, 0]
