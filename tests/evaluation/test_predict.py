"""Predictions of a store's images are what evaluation scores, bit for bit; those of files, what a store would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedflair.backends.threads import thread_backend
from fedflair.data.preparation.prepare import prepare
from fedflair.data.store.packed import open_store
from fedflair.evaluation.opened import Model, open_run
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.predict import Files, Photographs, Prediction, Stored, Unread, predict
from fedflair.federated.setup import make_evaluation_setup
from fedflair.training.train import train
from tests.conftest import jpeg, write_tiny_store
from tests.small_runs import small_config

# More than two batches of 16, the last of them cut short.
SIZES = {"train": (1, 2, 3, 5, 9, 4), "val": (3, 6), "test": (4, 30, 5)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("store") / "store.hdf5", SIZES)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"model": "small_cnn", "central_num_iterations": 2, "learning_rate": 0.5}
    return train(small_config(store, run=tmp_path_factory.mktemp("runs") / "run", **options))


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return open_run(run, "best").model()


def probabilities(model: Model, photographs: Photographs) -> npt.NDArray[np.float32]:
    found = list(predict(model, photographs))
    assert all(isinstance(one, Prediction) for one in found)
    return np.stack([one.probabilities for one in found if isinstance(one, Prediction)])


def evaluated(run: Path, partition: str, store: Path | None = None) -> npt.NDArray[np.float32]:
    """The sigmoid of the logits that ``fedflair evaluate`` scores."""
    opened = open_run(run, "best")
    config = opened.config if store is None else opened.config.changed(data_path=store)
    setup = make_evaluation_setup(config, partition, opened.fixed, opened.labels, opened.kernels)
    with thread_backend(setup) as backend:
        scores = score_partition(opened.parameters, partition, setup=setup, backend=backend)
    found: npt.NDArray[np.float32] = torch.from_numpy(scores.logits).sigmoid().numpy()
    return found


def test_of_a_partition_they_are_the_sigmoid_of_evaluation_s_logits(run: Path, store: Path, model: Model) -> None:
    partition = open_store(store).partitions["test"]
    found = list(predict(model, Stored(partition)))
    assert np.array_equal(np.stack([one.probabilities for one in found]), evaluated(run, "test"))  # type: ignore[union-attr]
    users = [user for user, size in zip(partition.user_ids, SIZES["test"]) for _ in range(size)]
    assert [one.name for one in found] == [f"{u}/{i}" for u, i in zip(users, partition.columns.image_ids.tolist())]


def test_files_of_the_same_images_give_the_same(run: Path, store: Path, model: Model, tmp_path: Path) -> None:
    partition = open_store(store).partitions["test"]
    paths = []
    for position in range(partition.num_images):
        paths.append(tmp_path / f"{position:02d}.jpg")
        paths[-1].write_bytes(partition.encoded(position).tobytes())
    assert np.array_equal(probabilities(model, Files(tuple(paths))), evaluated(run, "test"))


def test_others_are_seen_as_the_store_that_prepare_makes_of_them_has_them(
    run: Path, store: Path, model: Model, tmp_path: Path
) -> None:
    """Up to the JPEG that prepare writes."""
    folder = tmp_path / "release"
    (folder / "images").mkdir(parents=True)
    paths = tuple(folder / "images" / f"{k}.jpg" for k in range(3))
    for position, path in enumerate(paths):
        path.write_bytes(jpeg(position, side=300 + 500 * position))
    sizes = {"train": (1,), "val": (1,), "test": (3,)}
    images = [jpeg(9), jpeg(9), *(path.read_bytes() for path in paths)]
    write_tiny_store(tmp_path / "raw.hdf5", sizes, encode=lambda number: images[number])
    prepare(source=tmp_path / "raw.hdf5", output=tmp_path / "prepared.hdf5", image_encoding="png")
    there = evaluated(run, "test", tmp_path / "prepared.hdf5")
    assert np.abs(probabilities(model, Files(paths)) - there).max() < 2e-3


def test_a_broken_one_among_many_is_named_and_the_others_are_done(
    run: Path, store: Path, model: Model, tmp_path: Path
) -> None:
    partition = open_store(store).partitions["test"]
    paths = []
    for position in range(20):
        paths.append(tmp_path / f"{position:02d}.jpg")
        paths[-1].write_bytes(partition.encoded(position).tobytes() if position not in (3, 19) else b"no image")
    found = list(predict(model, Files(tuple(paths)), keep=5))
    assert [k for k, one in enumerate(found) if isinstance(one, Unread)] == [3, 19]
    assert found[3] == Unread(str(paths[3]), f"{paths[3]}: cannot be decoded: not an image of a known format")
    whole = evaluated(run, "test")
    for position, one in enumerate(found):
        assert one.name == str(paths[position])
        if isinstance(one, Prediction):
            np.testing.assert_allclose(one.probabilities, whole[position], atol=1e-6)
            assert (one.photograph is not None) == (position < 5)


def test_a_broken_image_of_a_store_is_named_with_its_place(model: Model, tmp_path: Path) -> None:
    broken = write_tiny_store(tmp_path / "s.hdf5", SIZES, encode=lambda number: jpeg(number) if number != 35 else b"no")
    found = list(predict(model, Stored(open_store(broken).partitions["test"])))
    (why,) = [one.why for one in found if isinstance(one, Unread)]
    assert "image 35 of user" in why
    assert len(found) == 39


def test_nothing_to_look_at(model: Model) -> None:
    assert list(predict(model, Files(()))) == []


def test_a_head_on_frozen_features_predicts_as_the_whole_network(store: Path, tmp_path: Path) -> None:
    options = {"model": "small_cnn", "trainable": "head", "local_augmentation": "none", "central_num_iterations": 1}
    run = train(small_config(store, run=tmp_path / "run", **options))
    found = probabilities(open_run(run, "best").model(), Stored(open_store(store).partitions["test"]))
    assert np.array_equal(found, evaluated(run, "test"))
