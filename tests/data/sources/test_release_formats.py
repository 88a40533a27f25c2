"""What the writers write, the readers read: every record, unchanged."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedflair.data.sources import open_source, release_formats
from fedflair.data.sources.records import Record
from fedflair.data.sources.release_formats import RELEASES, new_folder, write_apple, write_huggingface
from fedflair.errors import DataError
from tests.data.releases import RELATION, records
from tests.data.writes import recorded_writes


def order(row: Record) -> str:
    """Partitions in the order of their files' names."""
    return row.partition


def write(kind: str, folder: Path, rows: Sequence[Record]) -> Path:
    with new_folder(folder) as partial, RELEASES[kind](partial, RELATION, len(rows)) as sink:
        for row in rows:
            sink(row)
    return folder


@pytest.mark.parametrize("kind", RELEASES)
def test_what_is_written_is_read_back(tmp_path: Path, kind: str) -> None:
    source = open_source(write(kind, tmp_path / "release", records()))
    assert source.name == kind
    assert source.fine_to_coarse == RELATION
    assert sorted((replace(row, where="") for row in source.records()), key=order) == sorted(records(), key=order)


@pytest.mark.parametrize("kind", RELEASES)
def test_equal_records_give_equal_files(tmp_path: Path, kind: str) -> None:
    first, second = (write(kind, tmp_path / name, records()) for name in ("first", "second"))
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(second) for file in second.rglob("*") if file.is_file())
    assert len(files) >= 3
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_shards_are_named_and_numbered_as_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_formats, "ROWS_PER_SHARD", {"train": 3, "val": 3, "test": 2})
    folder = write("huggingface", tmp_path / "release", records())
    files = sorted((folder / "data").iterdir())
    assert {file.name: pq.read_metadata(file).num_rows for file in files} == {
        "train-00000-of-00002.parquet": 3,
        "train-00001-of-00002.parquet": 3,
        "val-00000-of-00001.parquet": 2,
        "test-00000-of-00001.parquet": 2,
    }
    assert [replace(row, where="") for row in open_source(folder).records()] == sorted(records(), key=order)


def test_full_scale_makes_the_hubs_shards() -> None:
    images = {"train": 345_879, "val": 39_239, "test": 43_960}
    shards = {name: -(-count // release_formats.ROWS_PER_SHARD[name]) for name, count in images.items()}
    assert shards == {"train": 10, "val": 2, "test": 2}


def test_parquet_carries_the_features_of_the_datasets_library(tmp_path: Path) -> None:
    folder = write("huggingface", tmp_path / "release", records())
    schema = pq.read_schema(folder / "data" / "val-00000-of-00001.parquet")
    assert schema.names == ["user_id", "image_id", "labels", "partition", "fine_grained_labels", "image"]
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert (folder / "ATTRIBUTION.txt").read_text().startswith("Every image of this dataset was drawn")


def test_apples_release_has_its_names(tmp_path: Path) -> None:
    folder = write("apple", tmp_path / "release", records())
    listing = json.loads((folder / "labels" / "labels_and_metadata.json").read_text())
    assert len(listing) == 10
    assert set(listing[0]) == {"user_id", "image_id", "labels", "fine_grained_labels", "partition"}
    archives = sorted((folder / "images" / "small").iterdir())
    # Of 43 archives the ten images fill each fourth or fifth.
    assert [archive.name[13:15] for archive in archives] == ["00", "04", "08", "12", "17", "21", "25", "30", "34", "38"]
    with tarfile.open(archives[0]) as archive:
        assert archive.getnames() == [f"small_images/{listing[0]['image_id']}.jpg"]


def test_apples_release_without_images_is_valid_json(tmp_path: Path) -> None:
    folder = write("apple", tmp_path / "release", [])
    assert json.loads((folder / "labels" / "labels_and_metadata.json").read_text()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"release: exists already; remove it or choose another --output"):
        write("apple", tmp_path / "release", records())
    assert (tmp_path / "release" / "mine.txt").read_text() == "keep"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    assert len(list(open_source(write("apple", tmp_path / "release", records())).records())) == 10


@pytest.mark.parametrize("writer", [write_huggingface, write_apple])
def test_what_fails_leaves_nothing(tmp_path: Path, writer: type) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "release") as partial, writer(partial, RELATION, 10) as sink:
            sink(records()[0])
            raise DataError("the source is bad")

    with pytest.raises(DataError, match="the source is bad"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_of_one_release_is_refused_and_the_first_unharmed(tmp_path: Path) -> None:
    release = tmp_path / "release"
    with new_folder(release) as partial, write_apple(partial, RELATION, 10) as sink:
        for row in records()[:5]:
            sink(row)
        with pytest.raises(DataError, match=r"release: another process is writing it; wait for it or choose"):
            write("apple", release, records())
        for row in records()[5:]:
            sink(row)
    assert len(list(open_source(release).records())) == 10
    assert list(tmp_path.iterdir()) == [release]


@pytest.mark.parametrize("planted", ["link", "dangling", "file", "folder"])
def test_what_stands_under_the_temporary_name_is_not_written_through(tmp_path: Path, planted: str) -> None:
    victim, temporary = tmp_path / "victim", tmp_path / ".release.partial"
    victim.mkdir()
    (victim / "dear").write_text("dear")
    if planted == "link":
        temporary.symlink_to(victim)
    elif planted == "dangling":
        temporary.symlink_to(tmp_path / "nowhere")
    elif planted == "file":
        temporary.write_text("left")
    else:
        (temporary / "data").mkdir(parents=True)
        (temporary / "link").symlink_to(victim)
    assert len(list(open_source(write("huggingface", tmp_path / "release", records())).records())) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "victim"]
    assert [path.name for path in victim.iterdir()] == ["dear"]
    assert not (tmp_path / "release" / "link").is_symlink()


@pytest.mark.parametrize("kind", RELEASES)
def test_a_release_takes_its_name_only_when_it_is_on_the_disk(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_writes(monkeypatch) as order_of_writes:
        folder = write(kind, tmp_path / "release", records())
    *before, rename, after = order_of_writes
    assert (rename, after) == ("rename .release.partial release", f"fsync {tmp_path.name}")
    names = [path.name for path in folder.rglob("*")]
    assert sorted(line for line in before if line.startswith("fsync")) == sorted(
        f"fsync {name}" for name in [*names, ".release.partial"]
    )
