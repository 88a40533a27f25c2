"""Downloads into a folder that has something of another revision or mirror, or of its own that was changed since."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedflair.errors import DataError
from tests.data.download.fault_server import Fault, serving
from tests.data.download.small_hub import LATER, USERS, Hub, download, resolved, shard

TRAIN = "data/train-00000-of-00002.parquet"


def release_later(hub: Hub) -> None:
    """Another commit, of files of the same names and, for the text, of the same size."""
    users = [f"train-{k}@N0{k}" for k in range(6)]
    hub.repository |= {TRAIN: shard("train", users, 90), "ATTRIBUTION.txt": b"anyone\n"}
    hub.files.content |= {resolved(name, LATER): data for name, data in hub.repository.items()}
    hub.head = LATER


def images(folder: Path, pattern: str = "data/*.parquet") -> set[int]:
    tables = [pq.read_table(path, columns=["image_id"]) for path in folder.glob(pattern)]
    return set(pa.concat_tables(tables).column("image_id").to_pylist())


def images_of(hub: Hub) -> set[int]:
    shards = [data for name, data in hub.repository.items() if name.endswith(".parquet")]
    return {image for data in shards for image in pq.read_table(io.BytesIO(data)).column("image_id").to_pylist()}


def gets(hub: Hub) -> list[str]:
    return [path for method, path, *_ in hub.files.log if method == "GET" and "/resolve/" in path]


def test_another_revision_replaces_the_files_of_the_first(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url)
    release_later(hub)
    download(output=tmp_path, endpoint=hub.files.url, revision="main")
    for name, content in hub.repository.items():
        assert name.startswith(".") or (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("options", [{"labels_only": True}, {"num_users": 9}, {"num_users": 20}])
def test_another_revision_replaces_the_labels_and_rows_of_the_first(
    hub: Hub, tmp_path: Path, options: dict[str, Any], stopped: bool
) -> None:
    """Of a first run that was stopped too, some shards of which are done."""
    if stopped:
        hub.files.always[resolved("data/val-00000-of-00001.parquet")] = Fault(status=404)
        with pytest.raises(DataError, match="404"):
            download(output=tmp_path, endpoint=hub.files.url, num_connections=1, **options)
    else:
        download(output=tmp_path, endpoint=hub.files.url, **options)
    release_later(hub)
    download(output=tmp_path, endpoint=hub.files.url, revision="main", **options)
    found = images(tmp_path, "labels/*.parquet")
    assert found == images_of(hub)
    if options.get("num_users") == sum(USERS.values()):
        assert images(tmp_path) == images_of(hub)
    elif "num_users" in options:
        assert images(tmp_path) < images_of(hub)


def stop_before_the_last_rows(hub: Hub, folder: Path) -> None:
    """A download of 20 users that has the labels of all shards, and the rows of all but the last."""
    last = resolved("data/test-00000-of-00001.parquet")
    done = folder / ".parts/users-train-00000-of-00002.parquet"
    real = hub.files.routes
    hub.files.routes = lambda method, path: (404, {}, b"") if path == last and done.exists() else real(method, path)
    with pytest.raises(DataError, match="404"):
        download(output=folder, endpoint=hub.files.url, num_users=20, num_connections=1)
    hub.files.routes = real


def test_rows_of_a_stopped_run_of_another_revision_are_not_mixed_in(hub: Hub, tmp_path: Path) -> None:
    stop_before_the_last_rows(hub, tmp_path)
    assert (tmp_path / ".parts/users-train-00000-of-00002.parquet").is_file()
    release_later(hub)
    download(output=tmp_path, endpoint=hub.files.url, num_users=20, revision="main")
    assert images(tmp_path) == images_of(hub)


@pytest.mark.parametrize("options", [{"labels_only": True}, {"num_users": 20}])
def test_a_stopped_run_of_the_same_revision_goes_on(hub: Hub, tmp_path: Path, options: dict[str, Any]) -> None:
    lacking = resolved("data/test-00000-of-00001.parquet")
    hub.files.always[lacking] = Fault(status=404)
    with pytest.raises(DataError, match="404"):
        download(output=tmp_path, endpoint=hub.files.url, num_connections=1, **options)
    del hub.files.always[lacking]
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url, num_connections=1, **options)
    if "labels_only" in options:
        assert set(gets(hub)) == {lacking}
    assert images(tmp_path, "labels/*.parquet") == images_of(hub)


def test_another_mirrors_files_are_checked_before_they_are_kept(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url)
    spoilt = bytearray((tmp_path / TRAIN).read_bytes())
    spoilt[1000] ^= 1
    (tmp_path / TRAIN).write_bytes(spoilt)
    # Of the same mirror, size and record suffice; a person who doubts them removes the record.
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url)
    assert gets(hub) == []
    mirror = Hub(hub.repository)
    with serving(mirror.files):
        download(output=tmp_path, endpoint=mirror.files.url)
    assert gets(mirror) == [resolved(TRAIN)]
    assert (tmp_path / TRAIN).read_bytes() == hub.repository[TRAIN]


@pytest.mark.parametrize("options", [{}, {"labels_only": True}, {"num_users": 20}])
@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_file_that_lost_or_gained_a_byte_is_fetched_again(
    hub: Hub, tmp_path: Path, options: dict[str, Any], change: str
) -> None:
    download(output=tmp_path, endpoint=hub.files.url, **options)
    folder = "labels" if "labels_only" in options else "data"
    path = min(tmp_path.glob(f"{folder}/*.parquet"))
    whole = path.read_bytes()
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url, **options)
    assert [name for name in gets(hub) if name.endswith(".parquet")] == []
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if change == "shorter" else whole + b"x")
    download(output=tmp_path, endpoint=hub.files.url, **options)
    assert path.read_bytes() == whole


def test_a_file_that_has_another_size_on_the_server_by_now_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    download(output=tmp_path, endpoint=hub.files.url)
    hub.repository["ATTRIBUTION.txt"] = hub.files.content[resolved("ATTRIBUTION.txt")] = b"somebody else\n"
    hub.files.log.clear()
    download(output=tmp_path, endpoint=hub.files.url)
    assert gets(hub) == [resolved("ATTRIBUTION.txt")]
    assert (tmp_path / "ATTRIBUTION.txt").read_bytes() == b"somebody else\n"


def table(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def test_labels_of_another_number_of_rows(hub: Hub, tmp_path: Path) -> None:
    """Rows that do not fit would take other people's images for the chosen ones'."""
    stop_before_the_last_rows(hub, tmp_path)
    path = tmp_path / "labels/test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    record = json.loads((tmp_path / "download.json").read_text())
    record["files"]["labels/test-00000-of-00001.parquet"]["size"] = path.stat().st_size
    (tmp_path / "download.json").write_text(json.dumps(record))
    with pytest.raises(
        DataError, match=r"has 24 rows, .*labels/test.*\.parquet has 23; remove that file and run again"
    ):
        download(output=tmp_path, endpoint=hub.files.url, num_users=20)


ROW = {
    "user_id": "a@N01",
    "image_id": 1,
    "labels": ["x"],
    "partition": "train",
    "fine_grained_labels": ["y"],
    "image": b"z",
}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{k: v for k, v in ROW.items() if k != "user_id"}], "no column 'user_id', so users cannot be chosen"),
        ([{k: v for k, v in ROW.items() if k != "partition"}], "no column 'partition', so users cannot be chosen"),
        ([ROW, ROW | {"user_id": None}], "column 'user_id' is not of text in every row"),
        ([ROW | {"partition": 3}], "column 'partition' is not of text in every row"),
        ([ROW | {"user_id": ["a"]}], "column 'user_id' is not of text in every row"),
    ],
)
def test_shards_of_which_no_users_can_be_chosen(
    hub: Hub, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    hub.repository[TRAIN] = hub.files.content[resolved(TRAIN)] = table(rows)
    with pytest.raises(DataError, match=message):
        download(output=tmp_path, endpoint=hub.files.url, num_users=3)


@pytest.mark.parametrize("options", [{"labels_only": True}, {"num_users": 3}])
@pytest.mark.parametrize("where", ["start", "footer", "middle", "all"])
def test_shards_that_are_no_sound_parquet(hub: Hub, tmp_path: Path, options: dict[str, Any], where: str) -> None:
    content = bytearray(hub.repository[TRAIN])
    places = {"start": slice(0, 4), "footer": slice(-900, -8), "middle": slice(4, -2000), "all": slice(None)}
    content[places[where]] = b"\xff" * len(content[places[where]])
    hub.repository[TRAIN] = hub.files.content[resolved(TRAIN)] = bytes(content)
    if where == "start":
        download(output=tmp_path, endpoint=hub.files.url, **options)
        return
    with pytest.raises(DataError, match=f"{resolved(TRAIN)}: not a sound parquet file") as raised:
        download(output=tmp_path, endpoint=hub.files.url, **options)
    assert str(raised.value).isprintable()


def test_rows_beyond_what_flair_has(hub: Hub, tmp_path: Path) -> None:
    many = pa.table({name: pa.repeat(value, 10_000_001) for name, value in (("user_id", "a"), ("partition", "train"))})
    buffer = io.BytesIO()
    pq.write_table(many, buffer, compression="zstd")
    hub.repository[TRAIN] = hub.files.content[resolved(TRAIN)] = buffer.getvalue()
    with pytest.raises(DataError, match=r"10,000,001 rows, more than the 10,000,000 that FLAIR can have"):
        download(output=tmp_path, endpoint=hub.files.url, labels_only=True)
