from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedflair.data.images.limits import Limits
from fedflair.data.preparation.prepare import prepare
from fedflair.data.sources import huggingface, open_source
from fedflair.errors import DataError
from tests.conftest import jpeg
from tests.data.releases import RELATION, SCHEMA, records, row, write_hub, write_rows

ROWS = [row(r) for r in records()]


def read(path: Path) -> list[dict[str, Any]]:
    return [row(r) for r in open_source(path).records()]


def one(tmp_path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    return write_rows(tmp_path / "hub" / "train-00000-of-00001.parquet", rows, schema).parent


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_hub_checkout(tmp_path: Path):
    source = open_source(write_hub(tmp_path / "hub", records()))
    assert (source.name, source.num_records, source.fine_to_coarse) == ("huggingface", 10, RELATION)
    found = list(source.records())
    assert sorted(r.image_id for r in found) == sorted(r["image_id"] for r in ROWS)
    assert [r.where.rpartition("/")[2] for r in found[:7]] == [
        "test-00000-of-00001.parquet: row 1",
        "test-00000-of-00001.parquet: row 2",
        "train-00000-of-00002.parquet: row 1",
        "train-00000-of-00002.parquet: row 2",
        "train-00000-of-00002.parquet: row 3",
        "train-00001-of-00002.parquet: row 1",
        "train-00001-of-00002.parquet: row 2",
    ]
    assert len(list(source.records())) == 10  # a pass can be started again


@pytest.mark.parametrize("place", ["data", ".", "default/train", "train"])
def test_where_the_files_may_lie(tmp_path: Path, place: str):
    write_rows(tmp_path / "hub" / place / "train.parquet", ROWS)
    assert len(read(tmp_path / "hub")) == 10


def test_a_single_file_is_read_alone(tmp_path: Path):
    folder = write_hub(tmp_path / "hub", records()) / "data"
    source = open_source(folder / "train-00000-of-00002.parquet")
    assert [row(r) for r in source.records()] == ROWS[:3]
    assert source.fine_to_coarse == RELATION


def test_columns_in_another_order_and_of_other_types(tmp_path: Path):
    large = pa.schema(
        {
            "image": pa.struct({"path": pa.string(), "bytes": pa.large_binary()}),
            "extra": pa.int8(),
            "fine_grained_labels": pa.large_list(pa.large_string()),
            "labels": pa.large_list(pa.string()),
            "image_id": pa.string(),
            "partition": pa.dictionary(pa.int32(), pa.string()),
            "user_id": pa.large_string(),
        }
    )
    rows = [{**r, "image_id": str(r["image_id"]), "extra": 1} for r in ROWS]
    assert read(one(tmp_path, rows, large)) == ROWS


def test_bare_image_bytes(tmp_path: Path):
    schema = SCHEMA.set(5, pa.field("image", pa.binary()))
    assert read(one(tmp_path, [{**r, "image": r["image"]["bytes"]} for r in ROWS], schema)) == ROWS


def test_the_hub_s_metadata_is_not_needed(tmp_path: Path):
    path = one(tmp_path, ROWS)
    assert b"huggingface" not in (pq.read_schema(path / "train-00000-of-00001.parquet").metadata or {})
    assert read(path) == ROWS


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("train-00000-of-00001", "train"),
        ("validation", "validation"),
        ("dev.all", "dev"),
        ("test_1", "test"),
        ("val/0000", "val"),
    ],
)
def test_the_partition_from_the_name(tmp_path: Path, name: str, partition: str):
    write_rows(tmp_path / "hub" / f"{name}.parquet", ROWS, SCHEMA.remove(3))
    assert {r["partition"] for r in read(tmp_path / "hub")} == {partition}


def test_no_partition_anywhere(tmp_path: Path):
    write_rows(tmp_path / "hub" / "part-0.parquet", ROWS, SCHEMA.remove(3))
    assert "part-0.parquet: no column 'partition', and the file's name" in error_of(tmp_path / "hub")


@pytest.mark.parametrize("column", ["user_id", "image_id", "labels", "fine_grained_labels", "image"])
def test_a_missing_column(tmp_path: Path, column: str):
    message = error_of(one(tmp_path, ROWS, SCHEMA.remove(SCHEMA.get_field_index(column))))
    assert f"train-00000-of-00001.parquet: no column '{column}'; it has " in message


def test_missing_shards(tmp_path: Path):
    for shard in (0, 2, 3, 9):
        write_rows(tmp_path / f"train-{shard:05d}-of-00010.parquet", ROWS)
    assert f"{tmp_path}/train-00001-of-00010.parquet: missing and 5 more; download it again" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("user_id", None, "row 5: user_id is None"),
        ("image_id", None, "row 5: image_id is None"),
        ("image_id", -1, "row 5: image_id is -1"),
        ("partition", None, "row 5: partition is None"),
        ("labels", None, "row 5: labels is None"),
        ("fine_grained_labels", ["cat", None], "row 5: fine_grained_labels is ['cat', None]"),
        ("image", None, "row 5: no image bytes"),
    ],
)
def test_nulls_name_the_row(tmp_path: Path, field: str, value: Any, message: str):
    rows = [{**r, field: value} if k == 4 else r for k, r in enumerate(ROWS)]
    assert f"train-00000-of-00001.parquet: {message}" in error_of(one(tmp_path, rows))


def test_text_ids_that_are_no_numbers(tmp_path: Path):
    schema = SCHEMA.set(1, pa.field("image_id", pa.string()))
    for value in ("12a", "", "١٢", "1_0", " 12"):
        message = error_of(one(tmp_path, [{**ROWS[0], "image_id": value}], schema))
        assert f"row 1: image_id is {value!r}, not a whole number" in message


def test_a_path_in_the_data_is_never_opened(tmp_path: Path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    rows = [{**ROWS[0], "image": {"bytes": None, "path": str(tmp_path / "secret.jpg")}}]
    assert "row 1: no image bytes (a path alone is not followed)" in error_of(one(tmp_path, rows))


def test_an_image_column_of_another_type(tmp_path: Path):
    schema = SCHEMA.set(5, pa.field("image", pa.string()))
    message = error_of(one(tmp_path, [{**ROWS[0], "image": "a.jpg"}], schema))
    assert "column 'image' is of type string" in message


def test_damaged_files(tmp_path: Path):
    path = one(tmp_path, ROWS) / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    assert f"{path}: cut short or not a parquet file" in error_of(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}: cut short or not a parquet file" in error_of(path)
    path.write_bytes(b"")
    assert f"{path}: cut short or not a parquet file" in error_of(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 460000000\n")
    assert f"{path}: a Git LFS pointer" in error_of(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:4] + b"\xff" * middle + whole[4 + middle :])
    assert f"{path}: damaged after row 0" in error_of(path)


def test_a_file_without_rows(tmp_path: Path):
    assert "train-00000-of-00001.parquet: holds no rows" in error_of(one(tmp_path, []))


def test_an_empty_or_missing_folder(tmp_path: Path):
    assert f"{tmp_path}: no FLAIR dataset in this folder; looked for data/*.parquet" in error_of(tmp_path)
    assert f"{tmp_path}/none: no such file or folder" in error_of(tmp_path / "none")
    (tmp_path / "file.txt").write_text("x")
    assert "file.txt: neither a .parquet file nor an HDF5 file" in error_of(tmp_path / "file.txt")
    with pytest.raises(DataError, match="format 'tar' is unknown; choose one of huggingface, apple, apple-raw, hdf5"):
        open_source(tmp_path, "tar")
    with pytest.raises(DataError, match="no parquet files in it"):
        open_source(tmp_path, "huggingface")


PEAK = """
import sys
from pathlib import Path
from fedflair.data.sources.huggingface import open_huggingface
total = sum(len(record.image) for record in open_huggingface(Path(sys.argv[1])).records())
status = Path("/proc/self/status").read_text().splitlines()
print(total, next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_a_row_group(tmp_path: Path):
    peaks = {}
    for num_rows in (200, 2400):
        image = {"bytes": jpeg(1) + bytes(64_000), "path": None}
        table = pa.Table.from_pylist([{**ROWS[0], "image": image, "image_id": k} for k in range(num_rows)], SCHEMA)
        path = tmp_path / f"train-{num_rows}.parquet"
        # One row group, as files of other writers come, in pages of 2 MB, and uncompressed: its size is what it says.
        options = {"compression": "none", "use_dictionary": False, "row_group_size": num_rows, "write_batch_size": 32}
        pq.write_table(table, path, **options)
        done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        total, peaks[num_rows] = map(int, done.stdout.split())
        assert total > num_rows * 64_000
    assert peaks[2400] - peaks[200] < 115_000  # kB, of 154 MB in the row group


def test_hidden_and_foreign_files_are_no_data_and_counted(tmp_path: Path):
    hub = write_hub(tmp_path / "hub", records())
    (hub / "data" / "._train-00000-of-00002.parquet").write_bytes(b"\x00\x05\x16\x07")
    (hub / "data" / ".train-00001-of-00002.parquet.icloud").write_bytes(b"x")
    (hub / "data" / "notes.txt").write_bytes(b"x")
    (hub / "data" / "train-00002-of-00002.parquet").symlink_to("train-00002-of-00002.parquet")
    os.mkfifo(hub / "data" / "val-pipe.parquet")
    summary = prepare(source=hub, output=tmp_path / "s.hdf5")
    assert summary.ignored == {"hidden files": 2, "other files": 3}
    assert summary.images == {"train": 6, "val": 2, "test": 2}


def test_a_folder_of_hidden_files_only_holds_no_dataset(tmp_path: Path):
    write_rows(tmp_path / "hub" / "._train.parquet", ROWS)
    with pytest.raises(DataError, match="no FLAIR dataset in this folder"):
        open_source(tmp_path / "hub")
    with pytest.raises(DataError, match="no parquet files in it"):
        open_source(tmp_path / "hub", "huggingface")


@pytest.mark.parametrize("form", ["all", "one"])
def test_what_save_to_disk_made_is_named_with_the_line_that_converts_it(tmp_path: Path, form: str):
    datasets = pytest.importorskip("datasets")
    hub = write_hub(tmp_path / "hub", records())
    files = {name: [str(file) for file in sorted(hub.glob(f"data/{name}-*"))] for name in ("train", "val", "test")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    saved = tmp_path / "a folder's name"
    (loaded if form == "all" else loaded["val"]).save_to_disk(saved)
    for name in (None, "huggingface"):
        with pytest.raises(DataError, match=r"made by save_to_disk.*makes parquet files of it: python -c ") as caught:
            open_source(saved, name)
    line = str(caught.value).split("of it: python ")[1]
    subprocess.run([sys.executable, *shlex.split(line)], check=True, capture_output=True)
    expected_rows = [r for r in ROWS if form == "all" or r["partition"] == "val"]
    by_id = {r["image_id"]: r for r in read(saved)}
    assert by_id == {r["image_id"]: r for r in expected_rows}


def test_a_column_that_unpacks_without_limit_is_refused_before_it_is_read(tmp_path: Path):
    rows = [dict(r, image={"bytes": bytes(25_000_000), "path": None}) for r in ROWS[:3]]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"column 'image\.bytes' unpacks to 75,.*--max_archive_growth"):
        open_source(path, limits=Limits(archive_growth=100))
    open_source(path, limits=Limits(archive_growth=100_000))


def test_values_that_are_kept_once_and_named_often_are_read_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [dict(ROWS[0], image_id=k, image={"bytes": bytes(range(256)) * 400, "path": None}) for k in range(200)]
    path = tmp_path / "train.parquet"
    for once, most in ((True, 10), (False, 256)):
        pq.write_table(
            pa.Table.from_pylist(rows, schema=SCHEMA), path, use_dictionary=["image.bytes"] if once else False
        )
        assert (path.stat().st_size < 200_000) == once
        monkeypatch.setattr(huggingface, "_DICTIONARY_BYTES", 1 << 20)
        with pq.ParquetFile(path) as parquet:
            assert huggingface._rows_at_once(parquet.metadata) <= most
            assert once or huggingface._rows_at_once(parquet.metadata) == most


def test_a_missing_column_has_a_remedy(tmp_path: Path):
    schema = pa.schema([field for field in SCHEMA if field.name != "labels"])
    assert "no column 'labels'; it has ['user_id'" in error_of(one(tmp_path, ROWS, schema))
    assert "; rename it, or download the file again" in error_of(tmp_path / "hub")
