from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedflair.commands.train import parse_train_config
from fedflair.data.images.crops import decode
from fedflair.data.preparation.convert import convert
from fedflair.data.preparation.layouts import write_layout
from fedflair.data.preparation.packing import pack
from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import Store, open_store
from fedflair.errors import DataError
from fedflair.runs.folder import RunFolder, read_rows
from fedflair.training.train import train
from tests.conftest import jpeg
from tests.data.preparation.test_prepare import source_of
from tests.data.releases import contents, expected, record, records, write_hub

LAYOUTS = ("pfl", "ml-flair", "ml-flair-central")
ODD = [
    record("..", 101, "test", ["cat"], jpeg(101)),
    record("%2F/ü", 102, "test", ["dog", "tree"], jpeg(102)),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    pack(source_of([*records(), *ODD]), tmp_path / "store.hdf5")
    return open_store(tmp_path / "store.hdf5")


def assert_same_but_for_the_encoding(one: Store, other: Store) -> None:
    assert (one.metadata.labels, one.metadata.fine_grained_labels) == (
        other.metadata.labels,
        other.metadata.fine_grained_labels,
    )
    assert one.metadata.fine_to_coarse == other.metadata.fine_to_coarse
    assert list(one.partitions) == list(other.partitions)
    for name, partition in one.partitions.items():
        found = other.partitions[name]
        for field, value in vars(partition.columns).items():
            if field != "image_offsets":
                np.testing.assert_array_equal(value, getattr(found.columns, field))
        for image in range(partition.num_images):
            assert torch.equal(decode([partition.encoded(image)])[0], decode([found.encoded(image)])[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_the_pixels_are_bit_identical(tmp_path: Path, store: Store, layout: Any):
    convert(store.path, tmp_path / "other.hdf5", layout=layout)
    convert(tmp_path / "other.hdf5", tmp_path / "back.hdf5", layout="packed")
    back = open_store(tmp_path / "back.hdf5")
    assert_same_but_for_the_encoding(store, back)
    # From PNG on nothing changes any more, neither through another layout nor from store to store.
    convert(back.path, tmp_path / "again.hdf5", layout="packed")
    assert contents(open_store(tmp_path / "again.hdf5")) == contents(back)


def test_a_packed_store_converts_to_itself_byte_for_byte(tmp_path: Path, store: Store):
    convert(store.path, tmp_path / "copy.hdf5", layout="packed")
    assert contents(open_store(tmp_path / "copy.hdf5")) == expected([*records(), *ODD])


def test_from_one_foreign_layout_to_another_and_straight_from_a_release(tmp_path: Path, store: Store):
    convert(store.path, tmp_path / "pfl.hdf5", layout="pfl")
    convert(tmp_path / "pfl.hdf5", tmp_path / "ml.hdf5", layout="ml-flair")
    convert(write_hub(tmp_path / "hub", [*records(), *ODD]), tmp_path / "direct.hdf5", layout="ml-flair")
    with h5py.File(tmp_path / "ml.hdf5") as one, h5py.File(tmp_path / "direct.hdf5") as other:
        names: list[str] = []
        one.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) == 7 * 4 + 3
        for name in names:
            np.testing.assert_array_equal(one[name][()], other[name][()])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["direct.hdf5", "hub", "ml.hdf5", "pfl.hdf5", "store.hdf5"]


def test_pfl_s_layout_is_as_documented(tmp_path: Path, store: Store):
    convert(store.path, tmp_path / "pfl.hdf5", layout="pfl")
    with h5py.File(tmp_path / "pfl.hdf5") as file:
        user = file["/train/b@N01"]
        assert (user["images"].shape, user["images"].dtype) == ((3, 256, 256, 3), np.uint8)
        assert user["image_ids"][()].tolist() == [b"7", b"30", b"42400000000"]
        types = {name: user[name].dtype for name in user if name.endswith(("row", "col"))}
        assert types == {
            "labels_row": np.uint16,
            "labels_col": np.uint8,
            "fine_grained_labels_row": np.uint16,
            "fine_grained_labels_col": np.uint16,
        }
        mapping = json.loads(file["/metadata/label_mapping"][()])
        assert mapping == {"animal": 0, "food": 1, "outdoor": 2, "plant": 3}
        assert json.loads(file["/metadata/fine_grained_label_mapping"][()])["tree"] == 4
        pixels = decode([np.frombuffer(jpeg(7), np.uint8)])[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(user["images"][0], pixels)
        assert sorted(file["test"]) == ["%252F%2Fü", "%2E%2E", "z@N04"]


def test_ml_flair_s_layouts_are_as_documented(tmp_path: Path, store: Store):
    convert(store.path, tmp_path / "ml.hdf5", layout="ml-flair")
    convert(store.path, tmp_path / "central.hdf5", layout="ml-flair-central")
    with h5py.File(tmp_path / "ml.hdf5") as file:
        user = file["/test/%252F%2Fü"]
        assert user["labels"][()].tolist() == [b"animal|plant"]
        assert user["fine_grained_labels"][()].tolist() == [b"dog|tree"]
        assert json.loads(file["/metadata/fine_grained_label_counter"][()])["tree"] == sum(
            "tree" in r.fine_grained_labels for r in [*records(), *ODD]
        )
    with h5py.File(tmp_path / "central.hdf5") as file:
        image = file["/test/102"]
        assert image["user_id"][()].decode() == "%2F/ü"
        assert (image["labels"][()], image["image"].shape) == (b"animal|plant", (256, 256, 3))


def test_not_group_data_by_user_writes_the_central_layout(tmp_path: Path):
    source = write_hub(tmp_path / "hub", records())
    summary = prepare(source=source, output=tmp_path / "out" / "c.hdf5", not_group_data_by_user=True)
    assert summary.num_bytes == (tmp_path / "out" / "c.hdf5").stat().st_size > 10 * 256 * 256 * 3
    with h5py.File(tmp_path / "out" / "c.hdf5") as file:
        assert sorted(file["train"]) == ["11", "3", "30", "42400000000", "7", "9"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c.hdf5"]


def test_what_a_layout_cannot_hold_is_refused(tmp_path: Path, store: Store):
    def with_labels(*labels: str) -> Store:
        return replace(store, metadata=replace(store.metadata, labels=labels))

    for labels, layout, message in (
        (tuple(f"{k:03}" for k in range(257)), "pfl", "pfl's layout holds 256 labels, not 257"),
        (("a|b", "c", "d", "e"), "ml-flair", "which label 'a|b' holds"),
        (("b", "a", "c", "d"), "ml-flair-central", "do not keep the order of labels"),
    ):
        with pytest.raises(DataError, match=message.replace("|", r"\|")):
            write_layout(with_labels(*labels), tmp_path / "other.hdf5", layout)
    assert [path.name for path in tmp_path.iterdir()] == ["store.hdf5"]


def test_a_user_with_more_images_than_pfl_can_number(tmp_path: Path, store: Store):
    train = store.partitions["train"]
    columns = replace(train.columns, user_offsets=np.array([0, 1, 65_538, 65_539]))
    big = replace(store, partitions={"train": replace(train, columns=columns)})
    with pytest.raises(DataError, match="'b@N01' has 65,537 images, pfl's layout holds 65,536"):
        write_layout(big, tmp_path / "other.hdf5", "pfl")


def test_labels_that_no_image_carries_survive(tmp_path: Path):
    declared = ("animal", "food", "never", "outdoor", "plant")
    pack(source_of(records(), labels=declared), tmp_path / "s.hdf5")
    for layout in LAYOUTS:
        write_layout(open_store(tmp_path / "s.hdf5"), tmp_path / "other.hdf5", layout)
        convert(tmp_path / "other.hdf5", tmp_path / "back.hdf5", layout="packed")
        assert open_store(tmp_path / "back.hdf5").metadata.labels == declared


def test_the_source_is_not_overwritten_and_a_failure_leaves_nothing(tmp_path: Path, store: Store):
    with pytest.raises(DataError, match="is the source itself"):
        convert(store.path, store.path, layout="pfl")
    with pytest.raises(DataError, match="no such file or folder"):
        convert(tmp_path / "none", tmp_path / "other.hdf5", layout="pfl")
    assert [path.name for path in tmp_path.iterdir()] == ["store.hdf5"]


def read_as_pfl_does(path: Path, user_id: str, *, fine: bool) -> tuple[Any, Any]:
    """Pixels and multi-hot labels of a training user, read as pfl-research's FLAIR benchmark does."""
    prefix = "fine_grained_label" if fine else "label"
    with h5py.File(path, "r") as file:
        num_labels = len(json.loads(file[f"/metadata/{prefix}_mapping"][()]))
        inputs = np.array(file[f"/train/{user_id}/images"])
        rows, columns = (np.array(file[f"/train/{user_id}/{prefix}s_{kind}"]) for kind in ("row", "col"))
    targets = np.zeros((len(inputs), num_labels), dtype=np.float32)
    targets[rows, columns] = 1
    return inputs, targets


def sizes_as_pfl_counts_them(path: Path) -> dict[str, int]:
    with h5py.File(path, "r") as file:
        return {user_id: file[f"/train/{user_id}/image_ids"].shape[0] for user_id in file["/train"]}


def assert_is_user(store: Store, key: str, inputs: Any, targets: Any, *, fine: bool) -> None:
    train = store.partitions["train"]
    images = train.user_slice(train.user_ids.index(key.replace("%2F", "/")))
    np.testing.assert_array_equal(targets, train.multi_hot(images, len(store.label_names(fine=fine)), fine=fine))
    for pixels, image in zip(inputs, images):
        np.testing.assert_array_equal(pixels, decode([train.encoded(image)])[0].permute(1, 2, 0).numpy())


needs_pfl = pytest.mark.skipif(sys.version_info >= (3, 13), reason="pfl has no release for Python 3.13")


@needs_pfl
@pytest.mark.parametrize("fine", [False, True])
def test_pfl_s_own_federated_dataset_reads_the_file(tmp_path: Path, store: Store, fine: bool):
    import pfl.model.pytorch  # noqa: F401 - pfl settles on one framework for a process's whole life
    from pfl.data import FederatedDataset
    from pfl.data.dataset import Dataset
    from pfl.data.sampling import get_user_sampler

    convert(store.path, tmp_path / "pfl.hdf5", layout="pfl")
    sizes = sizes_as_pfl_counts_them(tmp_path / "pfl.hdf5")
    assert sizes == {"a@N01": 1, "b@N01": 3, "c%2Fd@N02": 2}

    def make_dataset(user_id: str) -> Any:
        raw_data = list(read_as_pfl_does(tmp_path / "pfl.hdf5", user_id, fine=fine))
        return Dataset(raw_data=raw_data, train_kwargs={"eval": False}, eval_kwargs={"eval": True}, user_id=user_id)

    sampler = get_user_sampler("minimize_reuse", sorted(sizes))
    federated = FederatedDataset(make_dataset, sampler, user_id_to_weight=sizes)
    users = [user for user, _seed in federated.get_cohort(3)]
    assert {user.user_id: len(user) for user in users} == sizes
    for user in users:
        assert_is_user(store, user.user_id, *user.raw_data, fine=fine)


@needs_pfl
def test_pfl_s_own_pytorch_dataset_reads_the_file(tmp_path: Path, store: Store):
    import pfl.model.pytorch  # noqa: F401
    from pfl.data.pytorch import PyTorchFederatedDataset
    from pfl.data.sampling import get_user_sampler

    convert(store.path, tmp_path / "pfl.hdf5", layout="pfl")
    sizes = sizes_as_pfl_counts_them(tmp_path / "pfl.hdf5")

    class Users(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """Indexed by user id, as pfl wants it."""

        def __len__(self) -> int:
            return len(sizes)

        def __getitem__(self, user_id: str) -> Any:
            return [torch.as_tensor(part) for part in read_as_pfl_does(tmp_path / "pfl.hdf5", user_id, fine=False)]

    sampler = get_user_sampler("minimize_reuse", sorted(sizes))
    federated = PyTorchFederatedDataset(Users(), sampler, user_id_to_weight=sizes)
    for user_id, (user, _seed) in zip(sorted(sizes), federated.get_cohort(3)):
        inputs, targets = user.raw_data
        assert_is_user(store, user_id, inputs.numpy(), targets.numpy(), fine=False)


def test_training_on_either_side_of_a_conversion_is_bit_identical(tmp_path: Path, tiny_store: Path):
    convert(tiny_store, tmp_path / "pfl.hdf5", layout="pfl")
    convert(tmp_path / "pfl.hdf5", tmp_path / "back.hdf5", layout="packed")
    options = (
        "--model small_cnn --image_size 32 --pretrained false --cohort_size 3 --central_num_iterations 2 "
        "--evaluation_frequency 1 --device cpu"
    )
    parameters, metrics = [], []
    for name, store in (("packed", tiny_store), ("back", tmp_path / "back.hdf5")):
        words = [*options.split(), "--data_path", str(store), "--run", str(tmp_path / name)]
        folder = RunFolder(train(parse_train_config(words)))
        parameters.append(load_file(folder.last)["parameters"])
        metrics.append([{k: v for k, v in row.items() if "/" in k and "second" not in k} for row in read_rows(folder)])
    assert torch.equal(*parameters)
    assert metrics[0] == metrics[1] and len(metrics[0]) == 2 and "val/macro_ap" in metrics[0][1]
