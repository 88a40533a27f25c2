"""``fedflair describe`` as a program reads it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from fedflair.commands.describe import describe
from fedflair.data import published as flair
from fedflair.data.describe import comparison
from fedflair.data.store.packed import open_store
from fedflair.errors import ConfigError, DataError
from tests.data.describe.test_statistics import FLAIR_LABELS, SMALL, write_store


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", SMALL), json=True)
    printed = json.loads(capsys.readouterr().out)["partitions"]
    assert list(printed) == ["train", "val", "all"]
    assert (printed["train"]["users"], printed["train"]["images"]) == (2, 4)
    assert printed["train"]["labels"]["images_per_label"] == {"animal": 3, "food": 1, "plant": 1}
    assert printed["all"]["fine_grained_labels"]["users_per_label"] == {"cat": 1, "dog": 1, "fern": 2, "soup": 2}
    assert printed["all"]["images_per_user"]["max"] == 3
    assert printed["all"]["labels"]["in_use"] == 3


def test_json_of_an_empty_partition_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", {**SMALL, "test": {}}), json=True)
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text)["partitions"]["test"]["images_per_user"]["mean"] is None


def test_json_holds_the_published_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", SMALL, FLAIR_LABELS), json=True)
    published = json.loads(capsys.readouterr().out)["published"]
    assert published["val"] == {"users": 5141, "images": 39239}
    assert published["all"]["images_per_user"] == {
        "mean": 8.35, "std": 51.28, "min": 1, "q25": 1, "median": 2, "q75": 5, "max": 4151,
    }  # fmt: skip
    assert published["all"]["labels"]["images_per_label"]["religion"] == 866
    assert published["all"]["fine_grained_labels"]["in_use"] == 1628
    describe(write_store(tmp_path / "own.hdf5", SMALL), json=True)
    assert json.loads(capsys.readouterr().out)["published"] is None


def test_published_values_have_the_shape_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(write_store(tmp_path / "s.hdf5", SMALL), json=True)
    everything = json.loads(capsys.readouterr().out)["partitions"]["all"]

    def check(published: object, own: object) -> None:
        if isinstance(published, dict) and isinstance(own, dict):
            for key, value in published.items():
                if value not in (flair.COARSE_COUNTS, flair.FINE_HEAD_COUNTS):
                    check(value, own[key])

    check(comparison.PUBLISHED["all"], everything)


def test_what_is_not_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.hdf5: no such store"):
        describe(tmp_path / "missing.hdf5")


def test_output_that_is_a_file_is_left_alone(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.hdf5", SMALL)
    (tmp_path / "page").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        describe(store, output=tmp_path / "page")
    assert (tmp_path / "page").read_text() == "mine"


def test_every_image_is_read_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_store(tmp_path / "s.hdf5", SMALL)
    describe(path, verify=True)
    assert f"{open_store(path).fingerprint}, every image as it was written" in capsys.readouterr().out
    describe(path, json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["fingerprint"], found["verified"]) == (open_store(path).fingerprint, False)
    with h5py.File(path, "r+") as file:
        file["train/images"][0] ^= 1
    describe(path)
    assert "as it was written" not in capsys.readouterr().out
    with pytest.raises(DataError, match="the images of partition 'train' are not those that were written"):
        describe(path, verify=True)
