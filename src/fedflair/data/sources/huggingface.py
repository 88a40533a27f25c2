"""FLAIR as the hub holds it: parquet files, in a checkout, a download or a plain folder."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.sources.apple import RELATION_FILE, read_relation
from fedflair.data.sources.files import count_others
from fedflair.data.sources.records import PARTITION_NAMES, Record, Source, parse_image_id, shown
from fedflair.data.store.packed import is_text
from fedflair.errors import DataError
from fedflair.system.json_text import parse_json

COLUMNS = ("user_id", "image_id", "labels", "fine_grained_labels", "image")

# The key of a file's metadata under which ``convert`` leaves a store's lists of labels, as JSON.
STORE_LABELS = b"fedflair"

_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.parquet")
_VISIBLE = "[!.]*.parquet"
# What the hub and its tools put beside the data.
_BESIDE = frozenset({RELATION_FILE, "ATTRIBUTION.txt", "README.md", "LICENSE", "LICENSE.txt", ".gitattributes"})
_DICTIONARY_BYTES = 1 << 30
# How many times a page can grow at most, of the forms that are bounded.
_MOST_GROWTH = {"UNCOMPRESSED": 1, "SNAPPY": 22}
_LFS_POINTER = b"version https://git-lfs"
# About 3 MB of FLAIR's images; a batch is the unit in which a row group of any size is read.
_ROWS_PER_BATCH = 256
_READ_AHEAD_BYTES = 1 << 20


def find_parquet(path: Path) -> list[Path]:
    """The parquet files of a dataset, sorted: ``path`` itself, or those in ``data/``, in it, or two folders down."""
    if path.is_file():
        return [path]
    for pattern in (f"data/{_VISIBLE}", _VISIBLE, f"[!.]*/{_VISIBLE}", f"[!.]*/[!.]*/{_VISIBLE}"):
        found = sorted(filter(Path.is_file, path.glob(pattern)))
        if found:
            return found
    return []


def open_huggingface(path: Path, limits: Limits = DEFAULT) -> Source:
    """The dataset in the folder, or the single parquet file, ``path``.

    Columns may come in any order; ``image_id`` may be an integer or its digits as text; where there is no column
    ``partition``, the start of the file's name or its folder's name (``train-00000-of-00010.parquet``) says it.
    ``image`` is a struct with a field ``bytes``, or the bytes themselves; a path inside the data is never opened.

    Raises DataError where a file is missing, empty, damaged or lacks a column. All files are opened for that here,
    their rows are read later.
    """
    files = find_parquet(path)
    if not files:
        check_saved(path)
        raise DataError(f"{path}: no parquet files in it; 'fedflair download --from huggingface' fetches them")
    if path.is_dir():
        _check_shards(files)
    num_rows = sum(_num_rows(file, limits) for file in files)
    folders = [path, files[0].parent, files[0].parent.parent] if path.is_dir() else [path.parent, path.parent.parent]
    relation = next((f / RELATION_FILE for f in folders if (f / RELATION_FILE).is_file()), None)

    ignored: Counter[str] = Counter()

    def records() -> Iterator[Record]:
        ignored.clear()
        if path.is_dir():
            for folder in sorted({file.parent for file in files}):
                ignored.update(count_others(folder, (file.name for file in files), _BESIDE))
        for file in files:
            yield from _records(file)

    of_store = _store_labels(files)
    labels, fine, fine_to_coarse = of_store or (None, None, read_relation(relation) if relation else {})
    prepared = of_store is not None
    return Source("huggingface", path, records, fine_to_coarse, num_rows, labels, fine, prepared, ignored=ignored)


def _store_labels(files: list[Path]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]] | None:
    """The labels of the store that all files were made of: coarse and fine ones, and their relation; else None."""
    found: set[bytes] = set()
    for file in files:
        with _open(file) as parquet:
            found.add((parquet.schema_arrow.metadata or {}).get(STORE_LABELS, b""))
    if b"" in found or len(found) > 1:
        return None
    damaged = f"{files[0]}: the labels in its metadata are damaged ({{}}); make the file again"
    try:
        value = parse_json(found.pop().decode())
    except ValueError as error:
        raise DataError(damaged.format(error)) from error
    lists = [value.get(name) if isinstance(value, dict) else None for name in ("labels", "fine_grained_labels")]
    relation = value.get("fine_to_coarse") if isinstance(value, dict) else None
    if not all(isinstance(names, list) and all(map(is_text, names)) for names in lists):
        raise DataError(damaged.format("they are no lists of texts"))
    if not isinstance(relation, dict) or not all(map(is_text, [*relation, *relation.values()])):
        raise DataError(damaged.format("fine_to_coarse does not lead from text to text"))
    return tuple(lists[0] or ()), tuple(lists[1] or ()), relation


def check_saved(path: Path) -> None:
    """Raises DataError where ``path`` is what ``save_to_disk`` of the library ``datasets`` makes, with the way out."""
    load = f"datasets.load_from_disk({str(path)!r})"
    if (path / "dataset_dict.json").is_file():
        write = (
            f"[part.to_parquet({str(path)!r} + f'/{{name}}-00000-of-00001.parquet') for name, part in {load}.items()]"
        )
    elif (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        write = f"d = {load}; d.to_parquet({str(path)!r} + f'/{{d.split or \"train\"}}-00000-of-00001.parquet')"
    else:
        return
    raise DataError(
        f"{path}: was made by save_to_disk, whose Arrow files are not read; this makes parquet files of it: "
        f"python -c {shlex.quote('import datasets; ' + write)}"
    )


def _check_shards(files: list[Path]) -> None:
    present: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        match = _SHARD.fullmatch(file.name)
        if match:
            present.setdefault((file.parent, match[1], int(match[3])), set()).add(int(match[2]))
    for (folder, name, total), numbers in present.items():
        missing = sorted(set(range(total)) - numbers)
        if missing:
            first = folder / f"{name}-{missing[0]:05d}-of-{total:05d}.parquet"
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{first}: missing{more}; download it again into the same folder")


def _num_rows(file: Path, limits: Limits) -> int:
    with _open(file) as parquet:
        names = parquet.schema_arrow.names
        for column in COLUMNS:
            if column not in names:
                raise DataError(
                    f"{file}: no column {column!r}; it has {shown(names)}; rename it, or download the file again"
                )
        if "partition" not in names:
            _partition_from_name(file)
        num_rows = int(parquet.metadata.num_rows)
        _check_growth(file, parquet.metadata, limits)
    if num_rows == 0:
        raise DataError(f"{file}: holds no rows; download it again, or remove it if it is meant to be empty")
    return num_rows


def _check_growth(file: Path, metadata: pq.FileMetaData, limits: Limits) -> None:
    for part, column in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns)):
        chunk = metadata.row_group(part).column(column)
        if chunk.total_uncompressed_size > limits.unpacked(chunk.total_compressed_size):
            raise DataError(
                f"{file}: column {chunk.path_in_schema!r} unpacks to {chunk.total_uncompressed_size:,} bytes, which "
                "FLAIR's never do; download it again, or see --max_archive_growth"
            )


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Rows of a batch: fewer where values are kept once and named by number, so that each may be as large as all."""
    chunks = [
        metadata.row_group(part).column(column)
        for part, column in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns))
    ]
    largest = max((_dictionary_bytes(chunk) for chunk in chunks if chunk.has_dictionary_page), default=0)
    return max(1, min(_ROWS_PER_BATCH, _DICTIONARY_BYTES // max(largest, 1)))


def _dictionary_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """What the values that are kept once can take at most: all of the column, or what their page can grow to."""
    growth = _MOST_GROWTH.get(chunk.compression)
    if growth is None:
        return int(chunk.total_uncompressed_size)
    return int(min(chunk.total_uncompressed_size, growth * (chunk.data_page_offset - chunk.dictionary_page_offset)))


def _open(file: Path) -> pq.ParquetFile:
    try:
        with file.open("rb") as handle:
            if handle.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise DataError(f"{file}: a Git LFS pointer, not the file itself; run 'git lfs pull' in the checkout")
        # Without pre-buffering, pages come in as they are needed, so that a row group of any size stays out of memory.
        return pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cut short or not a parquet file ({_one_line(error)}); download it again") from error


def _partition_from_name(file: Path) -> str:
    for name in (re.split(r"[-._]", file.name)[0], file.parent.name):
        if name in PARTITION_NAMES:
            return name
    raise DataError(
        f"{file}: no column 'partition', and the file's name does not start with one; rename it to "
        "train-..., val-... or test-..."
    )


def _records(file: Path) -> Iterator[Record]:
    row = 0
    with _open(file) as parquet:
        has_partition = "partition" in parquet.schema_arrow.names
        columns = [*COLUMNS, "partition"] if has_partition else list(COLUMNS)
        named = "" if has_partition else _partition_from_name(file)
        try:
            for batch in parquet.iter_batches(batch_size=_rows_at_once(parquet.metadata), columns=columns):
                yield from _batch_records(file, row, batch, named)
                row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: damaged after row {row} ({_one_line(error)}); download it again") from error


def _batch_records(file: Path, first_row: int, batch: pa.RecordBatch, named: str) -> Iterator[Record]:
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns["image"] = _image_bytes(file, columns["image"])
    values = {name: column.to_pylist() for name, column in columns.items()}
    if named:
        values["partition"] = [named] * batch.num_rows
    # Whole columns are checked by their types; rows are looked at one by one only where that finds something.
    if not all(_is_clean(name, column) for name, column in columns.items()):
        for row in range(batch.num_rows):
            _check_row({name: values[name][row] for name in values}, f"{file}: row {first_row + row + 1}")
    rows = zip(*(values[name] for name in (*COLUMNS, "partition")))
    for number, (user_id, image_id, labels, fine, image, partition) in enumerate(rows, start=first_row + 1):
        where = f"{file}: row {number}"
        yield Record(user_id, parse_image_id(image_id, where), partition, tuple(labels), tuple(fine), image, where)


def _is_clean(name: str, column: pa.Array) -> bool:
    if name in ("labels", "fine_grained_labels"):
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or column.null_count:
            return False
        column = column.flatten()
    if name not in ("image_id", "image") and not pa.types.is_string(column.type):
        return False
    return int(column.null_count) == 0


def _check_row(row: dict[str, Any], where: str) -> None:
    for name in ("user_id", "partition"):
        if not isinstance(row[name], str):
            raise DataError(f"{where}: {name} is {shown(row[name])}, not text; correct the row or remove it")
    for name in ("labels", "fine_grained_labels"):
        if not isinstance(row[name], list) or not all(isinstance(label, str) for label in row[name]):
            raise DataError(f"{where}: {name} is {shown(row[name])}, not a list of names; correct the row or remove it")
    if row["image"] is None:
        raise DataError(f"{where}: no image bytes (a path alone is not followed); embed the image in the file")


def _image_bytes(file: Path, column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        # flatten() takes the struct's own nulls into its fields, field() does not.
        column = column.flatten()[kind.get_field_index("bytes")]
        kind = column.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{file}: column 'image' is of type {kind}, not a struct with a field 'bytes'")
    return column


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
