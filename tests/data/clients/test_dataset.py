"""The Python API: users, photographs, selections, and what goes to other processes."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import fedflair.data
from fedflair.data.clients.dataset import Dataset, _reopen
from fedflair.data.images.crops import decode
from fedflair.data.store.packed import open_store
from fedflair.errors import ConfigError, DataError
from tests.conftest import FINE_LABELS, LABELS


@pytest.fixture
def dataset(tiny_store: Path) -> Dataset:
    return fedflair.data.open(tiny_store)


def sizes(dataset: Dataset, partition: str = "train") -> list[int]:
    return [len(dataset.client(user_id)) for user_id in dataset.users[partition]]


def test_users_and_their_photographs(dataset: Dataset, tiny_store: Path) -> None:
    assert dataset.users["train"] == tuple(f"train-{k}@N0{k}" for k in range(6))
    assert [len(of_partition) for of_partition in dataset.users.values()] == [6, 2, 2]
    assert sizes(dataset) == [1, 2, 3, 5, 9, 4]
    assert [dataset.num_images(name) for name in ("train", "val", "test")] == [24, 9, 9]
    assert dataset.label_names == LABELS

    client = dataset.client("train-2@N02")
    partition = open_store(tiny_store).partitions["train"]
    # Images 3, 4, 5 of the partition; image i has labels {i mod 4, (i i + 1) mod 4}.
    assert client.targets().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]]
    assert client.image_ids().tolist() == [3, 4, 5]
    image, target = client[1]
    assert torch.equal(image, decode([partition.encoded(4)])[0])
    assert (image.dtype, tuple(image.shape), target.dtype) == (torch.uint8, (3, 256, 256), torch.float32)
    assert target.tolist() == [1, 1, 0, 0]
    assert client.encoded(2).tobytes() == partition.encoded(5).tobytes()
    assert client.label_counts() == {"animal": 1, "food": 2, "outdoor": 2, "plant": 1}
    assert client.names(fine=False)[0] == ("outdoor", "plant")
    assert client.names(fine=True)[0] == ("cat", "sky")
    assert torch.equal(client[-1][0], client[2][0])
    with pytest.raises(IndexError):
        client[3]


@pytest.mark.parametrize("position", [0, 4])
def test_all_pixels_of_a_user_at_once(dataset: Dataset, position: int) -> None:
    client = dataset.client(f"train-{position}@N0{position}")
    one_by_one = np.stack([image.permute(1, 2, 0).numpy() for image, _ in (client[k] for k in range(len(client)))])
    assert client.pixels().dtype == np.uint8
    np.testing.assert_array_equal(client.pixels(), one_by_one)


def test_bytes_are_those_of_the_file(dataset: Dataset) -> None:
    encoded = dataset.client("train-4@N04").encoded(0)
    assert encoded[:2].tobytes() == b"\xff\xd8" and not encoded.flags.writeable
    for client in (dataset.client("train-4@N04"), dataset.cap_images(3, seed=0).client("train-4@N04")):
        one_by_one = [client.encoded(position).tobytes() for position in range(len(client))]
        assert [image.tobytes() for image in client.encoded_images()] == one_by_one


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_central_dataset_goes_through_a_data_loader(dataset: Dataset, num_workers: int) -> None:
    central = dataset.central("train", transform=_first_pixel)
    loader = DataLoader(central, batch_size=7, num_workers=num_workers)
    batches = list(loader)
    assert [len(pixels) for pixels, _ in batches] == [7, 7, 7, 3]
    pixels, targets = (torch.cat(parts) for parts in zip(*batches))
    assert torch.equal(targets, torch.from_numpy(central.targets()))
    assert torch.equal(pixels, torch.stack([dataset.central("train")[k][0][:, 0, 0] for k in range(24)]))


def _first_pixel(image: torch.Tensor) -> torch.Tensor:
    return image[:, 0, 0]


def test_what_is_sent_to_a_worker_is_small_and_opens_the_store_there(dataset: Dataset, tmp_path: Path) -> None:
    for part in (dataset.client("val-1@N01"), dataset.central("train"), dataset.fine_grained().central("test")):
        sent = pickle.dumps(part)
        assert len(sent) < 800
        arrived = pickle.loads(sent)
        assert torch.equal(arrived[0][0], part[0][0]) and torch.equal(arrived[0][1], part[0][1])
    capped = dataset.cap_images(2, seed=0).central("train")
    assert len(pickle.dumps(capped)) < 800 + 8 * len(capped)


def test_a_relative_name_is_good_after_a_change_of_folder(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_store.parent)
    client = fedflair.data.open(tiny_store.name).client("val-0@N00")
    monkeypatch.chdir(tmp_path)
    assert len(pickle.loads(pickle.dumps(client)).pixels()) == 3


def test_a_store_that_has_changed_is_not_mixed_with_its_index(tiny_store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiny_store, tmp_path / "store.hdf5"))
    client = fedflair.data.open(copy).client("val-0@N00")
    old = client.encoded(0).tobytes()
    replacement = Path(shutil.copy(tiny_store, tmp_path / "new.hdf5"))
    os.utime(replacement, ns=(1, 1))
    replacement.replace(copy)
    # What is open stays open; a process that opens it now is told.
    assert client.encoded(0).tobytes() == old
    _reopen.cache_clear()
    with pytest.raises(DataError, match=r"store\.hdf5: has changed since it was opened; open it again"):
        client.encoded(0)
    copy.unlink()
    with pytest.raises(DataError, match=r"store\.hdf5: no such store"):
        client.encoded(0)


def test_filters(dataset: Dataset) -> None:
    assert sizes(dataset.filter_users(min_images=4)) == [5, 9, 4]
    assert dataset.filter_users(min_images=5).users["val"] == ("val-1@N01",)
    named = dataset.filter_users(lambda user: user.user_id.endswith("3") and user.partition == "train")
    assert named.users == {"train": ("train-3@N03",), "val": (), "test": ()}
    assert named.num_images("val") == 0 and len(named.central("val")) == 0
    # Image 0 has animal and food, images 1 and 2 food and outdoor.
    animals = dataset.filter_users(lambda user: user.label_counts()["animal"] > 0)
    assert animals.users["train"] == tuple(f"train-{k}@N0{k}" for k in (0, 2, 3, 4, 5))
    assert sizes(dataset) == [1, 2, 3, 5, 9, 4]
    central = dataset.filter_users(min_images=4).central("train")
    assert central.image_ids().tolist() == list(range(6, 24))
    apart = dataset.filter_users(lambda user: len(user) in (1, 3)).central("train")
    assert apart.image_ids().tolist() == [0, 3, 4, 5]


def test_samples_of_users_are_repeatable_and_nested(dataset: Dataset) -> None:
    half = dataset.sample_users(0.5, seed=3)
    assert [len(users) for users in half.users.values()] == [3, 1, 1]
    assert half.users == dataset.sample_users(0.5, seed=3).users
    assert set(half.users["train"]) < set(dataset.sample_users(0.8, seed=3).users["train"])
    assert len({dataset.sample_users(0.5, seed=seed).users["train"] for seed in range(20)}) > 5
    assert [len(users) for users in dataset.sample_users(0.001, seed=0).users.values()] == [1, 1, 1]
    assert dataset.sample_users(1, seed=0).users == dataset.users
    assert half.filter_users(min_images=100).sample_users(0.5, seed=0).users["train"] == ()


def test_caps_choose_a_subset_once(dataset: Dataset) -> None:
    capped = dataset.cap_images(3, seed=1)
    assert sizes(capped) == [1, 2, 3, 3, 3, 3]
    ids = capped.client("train-4@N04").image_ids().tolist()
    assert ids == sorted(ids) and set(ids) < set(range(11, 20))
    assert ids == dataset.cap_images(3, seed=1).client("train-4@N04").image_ids().tolist()
    chosen = [tuple(dataset.cap_images(3, seed=seed).client("train-4@N04").image_ids()) for seed in range(20)]
    assert len(set(chosen)) > 10
    assert capped.cap_images(1, seed=0).num_images("train") == 6


def test_label_selections(dataset: Dataset) -> None:
    two = dataset.select_labels(["plant", "animal"])
    assert two.label_names == ("plant", "animal")
    assert two.client("train-2@N02").targets().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert two.client("train-2@N02")[0][1].tolist() == [1, 0]
    assert two.client("train-2@N02").label_counts() == {"plant": 1, "animal": 1}
    assert two.client("train-2@N02").names(fine=False) == [("plant",), ("animal",), ()]
    assert two.client("train-2@N02").names(fine=True)[1] == ("dog", "tree")
    assert dataset.binary_label("food").client("train-2@N02").targets().tolist() == [[0], [1], [1]]
    fine = dataset.fine_grained()
    assert fine.label_names == FINE_LABELS
    assert fine.client("train-2@N02").targets().tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]
    assert fine.select_labels(["sky"]).select_labels(["sky"]).client("train-2@N02").targets().tolist() == [
        [1],
        [0],
        [0],
    ]


def test_what_is_not_there_is_named(dataset: Dataset, tmp_path: Path) -> None:
    for call, message in (
        (lambda: dataset.client("nobody"), "user_id 'nobody' is not among the users"),
        (lambda: dataset.central("dev"), "partition 'dev' is not in this dataset; it has train, val, test"),
        (lambda: dataset.select_labels(["sky"]), "has no coarse label 'sky'; e.g. animal"),
        (lambda: dataset.fine_grained().binary_label("food"), "has no fine label 'food'"),
        (lambda: dataset.select_labels([]), "name at least one"),
        (lambda: dataset.select_labels(["food", "food"]), "each once"),
        (lambda: dataset.sample_users(0, seed=0), r"share 0 is out of range"),
        (lambda: dataset.sample_users(1.5, seed=0), r"share 1\.5 is out of range"),
        (lambda: dataset.cap_images(0, seed=0), "max_images 0 is out of range"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=r"none\.hdf5: no such store .*fedflair prepare"):
        fedflair.data.open(tmp_path / "none.hdf5")
    with pytest.raises(DataError, match="no such store"):
        fedflair.data.open(tmp_path)
