"""The store as parquet files and as webdataset's shards, read by others and by prepare again."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedflair.commands.convert import convert as command
from fedflair.data.images.decode import decode_rgb
from fedflair.data.preparation import folders
from fedflair.data.preparation.convert import convert
from fedflair.data.preparation.packing import pack
from fedflair.data.store.packed import Store, open_store
from fedflair.errors import ConfigError, DataError
from tests.data.preparation.test_prepare import source_of
from tests.data.releases import contents, records, write_hub


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With a label that no image carries, and an order of labels of its own."""
    declared = ("plant", "never", "animal", "food", "outdoor")
    pack(source_of(records(), labels=declared), tmp_path / "store.hdf5")
    return open_store(tmp_path / "store.hdf5")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parquet_and_back_is_the_same_store(tmp_path: Path, store: Store) -> None:
    convert(store.path, tmp_path / "hub", layout="parquet")
    assert sorted(files_of(tmp_path / "hub")) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/val-00000-of-00001.parquet",
        "label_relationship.txt",
    ]
    row = pq.read_table(tmp_path / "hub" / "data" / "val-00000-of-00001.parquet").to_pylist()[0]
    image_id = int(store.partitions["val"].columns.image_ids[0])
    user, partition, labels, fine, image = contents(store)[image_id]
    assert row == {
        "user_id": user,
        "image_id": image_id,
        "labels": list(labels),
        "partition": partition,
        "fine_grained_labels": list(fine),
        "image": {"bytes": image, "path": f"{image_id}.jpg"},
    }
    convert(tmp_path / "hub", tmp_path / "back.hdf5", layout="packed")
    assert open_store(tmp_path / "back.hdf5").fingerprint == store.fingerprint


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_equal_stores_give_equal_files_and_nothing_is_written_over(tmp_path: Path, store: Store, layout: Any) -> None:
    convert(store.path, tmp_path / "one", layout=layout)
    convert(store.path, tmp_path / "two", layout=layout)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    with pytest.raises(DataError, match="one: exists already; remove it or choose another"):
        convert(store.path, tmp_path / "one", layout=layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "store.hdf5", "two"]


def test_a_release_goes_straight_to_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(write_hub(tmp_path / "hub", records()), tmp_path / "shards", layout="webdataset")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'shards'}: ") and lines[0].endswith(" from huggingface")
    assert lines[-1].endswith(" MB in the layout webdataset; images are kept byte for byte")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "shards"]


def samples_of(tar: Path) -> list[dict[str, bytes]]:
    """As webdataset groups them: neighbours of one name up to the first dot are a sample, by what follows it."""
    samples: list[dict[str, bytes]] = []
    with tarfile.open(tar) as archive:
        for member in archive:
            key, _, ending = member.name.partition(".")
            if not samples or samples[-1]["__key__"] != key.encode():
                samples.append({"__key__": key.encode()})
            content = archive.extractfile(member)
            assert content is not None and member.isreg()
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
            samples[-1][ending] = content.read()
    return samples


def test_shards_hold_every_photograph_with_its_labels(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "PHOTOGRAPHS_PER_SHARD", 4)
    convert(store.path, tmp_path / "shards", layout="webdataset")
    assert sorted(files_of(tmp_path / "shards")) == [
        "labels.json", "test-000000.tar", "train-000000.tar", "train-000001.tar", "val-000000.tar",
    ]  # fmt: skip
    found = {}
    for tar in sorted((tmp_path / "shards").glob("*.tar")):
        samples = samples_of(tar)
        assert len(samples) == {"train-000000": 4}.get(tar.stem, 2)
        for sample in samples:
            assert list(sample) == ["__key__", "jpg", "json"]
            told = json.loads(sample["json"])
            assert tar.name.startswith(told["partition"]) and sample["__key__"] == str(told["image_id"]).encode()
            labels = (tuple(told["labels"]), tuple(told["fine_grained_labels"]))
            found[told["image_id"]] = (told["user_id"], told["partition"], *labels, sample["jpg"])
    assert found == contents(store)
    lists = json.loads((tmp_path / "shards" / "labels.json").read_text())
    assert lists["labels"] == ["plant", "never", "animal", "food", "outdoor"]
    assert lists["fine_to_coarse"] == store.metadata.fine_to_coarse


@pytest.mark.parametrize(("layout", "pattern"), [("parquet", "data/train-*.parquet"), ("webdataset", "train-*.tar")])
def test_hugging_faces_library_reads_both(tmp_path: Path, store: Store, layout: Any, pattern: str) -> None:
    import datasets

    convert(store.path, tmp_path / "out", layout=layout)
    table = datasets.load_dataset(
        layout, data_files={"train": str(tmp_path / "out" / pattern)}, cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert len(table) == 6
    row = table[1]
    told = row if layout == "parquet" else row["json"]
    image = row["image" if layout == "parquet" else "jpg"]
    of = contents(store)[told["image_id"]]
    assert (told["user_id"], tuple(told["labels"]), tuple(told["fine_grained_labels"])) == (of[0], of[2], of[3])
    np.testing.assert_array_equal(np.asarray(image), decode_rgb(np.frombuffer(of[4], dtype=np.uint8)))


def test_pixels_come_back_as_jpeg_where_that_is_asked_for(tmp_path: Path, store: Store) -> None:
    convert(store.path, tmp_path / "pfl.hdf5", layout="pfl")
    convert(tmp_path / "pfl.hdf5", tmp_path / "png.hdf5", layout="packed")
    convert(tmp_path / "pfl.hdf5", tmp_path / "jpeg.hdf5", layout="packed", image_encoding="jpeg")
    convert(tmp_path / "png.hdf5", tmp_path / "later.hdf5", layout="packed", image_encoding="jpeg")
    convert(tmp_path / "png.hdf5", tmp_path / "shards", layout="webdataset", image_encoding="jpeg")
    convert(tmp_path / "png.hdf5", tmp_path / "as_png", layout="webdataset")
    lossless, lossy, later = (contents(open_store(tmp_path / f"{name}.hdf5")) for name in ("png", "jpeg", "later"))
    assert later == lossy
    for image_id, (*_, image) in lossless.items():
        assert image.startswith(b"\x89PNG") and lossy[image_id][4].startswith(b"\xff\xd8")
        before, after = (
            decode_rgb(np.frombuffer(encoded, dtype=np.uint8)).astype(int) for encoded in (image, lossy[image_id][4])
        )
        assert 0 < np.abs(before - after).mean() < 2
    with tarfile.open(tmp_path / "shards" / "val-000000.tar") as archive:
        content = archive.extractfile("4.jpg")
        assert content is not None and content.read() == lossy[4][4]
    with tarfile.open(tmp_path / "as_png" / "val-000000.tar") as archive:
        content = archive.extractfile("4.png")
        assert content is not None and content.read() == lossless[4][4]
    with pytest.raises(ConfigError, match="image_encoding: png has no effect on layout pfl, which has bare pixels"):
        convert(store.path, tmp_path / "x.hdf5", layout="pfl", image_encoding="png")


def test_lists_of_labels_in_a_file_are_not_trusted(tmp_path: Path, store: Store) -> None:
    convert(store.path, tmp_path / "hub", layout="parquet")
    path = tmp_path / "hub" / "data" / "val-00000-of-00001.parquet"
    table = pq.read_table(path)
    for metadata, message in (
        (b"{", "the labels in its metadata are damaged .*not JSON.*make the file again"),
        (b"[]", "they are no lists of texts"),
        (b'{"labels": ["a"], "fine_grained_labels": ["b"], "fine_to_coarse": {"b": 1}}', "does not lead from text"),
    ):
        for file in (tmp_path / "hub" / "data").iterdir():
            of_file = pq.read_table(file)
            buffer = io.BytesIO()
            pq.write_table(of_file.replace_schema_metadata({b"fedflair": metadata}), buffer)
            file.write_bytes(buffer.getvalue())
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "hub", tmp_path / "back.hdf5", layout="packed")
    # Of one file alone, the lists say nothing of the others' labels: the dataset is then as any other.
    for file in (tmp_path / "hub" / "data").iterdir():
        pq.write_table(pq.read_table(file).replace_schema_metadata({}), file)
    pq.write_table(table, path)
    convert(tmp_path / "hub", tmp_path / "back.hdf5", layout="packed")
    assert open_store(tmp_path / "back.hdf5").metadata.labels == ("animal", "food", "outdoor", "plant")
