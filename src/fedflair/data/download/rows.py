"""Some rows or columns of the hub's parquet files: the rest of each file is never fetched."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedflair.data.download.bounds import check_bound
from fedflair.data.download.plan import Item, Request, Tools, choose_users
from fedflair.data.download.ranges import RangeFile
from fedflair.errors import DataError
from fedflair.system.files import replacing
from fedflair.system.terminal import one_line

IMAGE = "image"
WORK_FOLDER = ".parts"
_DONE = "data"  # the manifest's entry for the users' rows
_ROWS = 128  # at a time: under two megabytes of FLAIR's images


def fetch_labels(shards: list[Item], request: Request, tools: Tools) -> list[Path]:
    """Every column but the images of each shard, as ``labels/SHARD``; returns the files in the shards' order."""
    targets = [request.output / "labels" / Path(shard.name).name for shard in shards]

    def fetch(number: int) -> None:
        name = targets[number].relative_to(request.output).as_posix()
        if tools.manifest.holds(name):
            return
        with _open_remote(shards[number], request, tools) as (parquet, report):
            columns = [name for name in parquet.schema_arrow.names if name != IMAGE]
            every = range(parquet.num_row_groups)
            batches = _batches(parquet, every, columns, report, shards[number].url)
            _write(targets[number], batches, _schema(parquet, columns))
        tools.manifest.add(name, {"size": targets[number].stat().st_size})

    _each(fetch, len(shards), request, tools)
    return targets


def fetch_users(shards: list[Item], request: Request, tools: Tools) -> None:
    """All rows of ``request.num_users`` users, as ``data/PARTITION-00000-of-00001.parquet``.

    Of a shard, only the row groups in which one of the users has a row are fetched.
    """
    done = tools.manifest.entry(_DONE)
    if done is not None and _size(done.get("files"), request.output) == done["size"]:
        return
    labels = fetch_labels(shards, request, tools)
    users = _chosen(labels, request)
    work = request.output / WORK_FOLDER
    parts = [work / f"users-{Path(shard.name).name}" for shard in shards]

    def fetch(number: int) -> None:
        name = parts[number].relative_to(request.output).as_posix()
        if tools.manifest.holds(name):
            return
        with _open_remote(shards[number], request, tools) as (parquet, report):
            wanted = _row_groups(parquet, labels[number], users, shards[number].url)
            batches = _batches(parquet, wanted, parquet.schema_arrow.names, report, shards[number].url)
            _write(parts[number], (_of_users(batch, users) for batch in batches), parquet.schema_arrow)
        tools.manifest.add(name, {"size": parts[number].stat().st_size})

    _each(fetch, len(shards), request, tools)
    with _sound(work, "remove it and run again"):
        files = _merge(parts, request.output)
    tools.manifest.add(_DONE, {"size": _size(files, request.output), "files": files, "users": len(users)})
    shutil.rmtree(work)


def _size(names: Any, output: Path) -> int | None:
    """Bytes of the files together; None where one is missing."""
    paths = [output / str(name) for name in names] if isinstance(names, list) else []
    if not paths or not all(path.is_file() for path in paths):
        return None
    return sum(path.stat().st_size for path in paths)


@contextmanager
def _open_remote(shard: Item, request: Request, tools: Tools) -> Iterator[tuple[pq.ParquetFile, Callable[[], None]]]:
    """A remote shard, and what to call to show how much of it has come."""
    stem = request.output / WORK_FOLDER / Path(shard.name).name
    size = shard.size or 0
    show = tools.bar(shard.name, size)
    with (
        RangeFile(
            shard.url, size, stem, headers=dict(shard.headers), patience=tools.patience, stop=tools.stop
        ) as remote,
        _sound(shard.url),
    ):
        parquet = pq.ParquetFile(remote, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
        _check_bounds(parquet.metadata, tools, shard.url)
        yield parquet, lambda: show(remote.fetched)
        show(size)


def _check_bounds(metadata: pq.FileMetaData, tools: Tools, where: str) -> None:
    check_bound(metadata.num_rows, tools.bounds.rows, where, "rows")
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    check_bound(max((group.total_byte_size for group in groups), default=0), tools.bounds.row_group, where, "bytes")


@contextmanager
def _sound(where: object, remedy: str = "try again later, or elsewhere") -> Iterator[None]:
    """What pyarrow says of a parquet file becomes one line; what it cannot read is an OSError too."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: not a sound parquet file ({one_line(str(error))[:200]}); {remedy}") from error


def _batches(
    parquet: pq.ParquetFile, row_groups: Iterable[int], columns: list[str], report: Callable[[], None], where: str
) -> Iterator[pa.RecordBatch]:
    for row_group in row_groups:
        # One row group after another, because the threads of a reader would ask for parts out of order.
        batches = parquet.iter_batches(_ROWS, [row_group], columns, use_threads=False)
        while True:
            # Here, so that what the remote file lacks is not taken for a fault of the one that is written.
            with _sound(where):
                batch = next(batches, None)
            if batch is None:
                break
            report()
            yield batch


def _schema(parquet: pq.ParquetFile, columns: list[str]) -> pa.Schema:
    schema = parquet.schema_arrow
    # Without the hub's own description of the columns, which would speak of images that are not there.
    return pa.schema([schema.field(name) for name in columns])


def _row_groups(parquet: pq.ParquetFile, labels: Path, users: set[str], where: str) -> list[int]:
    """The row groups with a row of one of the users."""
    owners = _read(labels, ["user_id"]).column("user_id")
    wanted = np.asarray(pc.is_in(owners, value_set=pa.array(sorted(users))))
    lengths = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
    if sum(lengths) != len(wanted):
        raise DataError(f"{where}: has {sum(lengths)} rows, {labels} has {len(wanted)}; remove that file and run again")
    starts = np.cumsum([0, *lengths])
    return [number for number, (a, b) in enumerate(itertools.pairwise(starts)) if wanted[a:b].any()]


def _of_users(batch: pa.RecordBatch, users: set[str]) -> pa.RecordBatch:
    return batch.filter(pc.is_in(batch.column("user_id"), value_set=pa.array(sorted(users))))


def _chosen(labels: list[Path], request: Request) -> set[str]:
    partition_of: dict[str, str] = {}
    for path in labels:
        pairs = _read(path, ["user_id", "partition"]).group_by(["user_id", "partition"]).aggregate([])
        for row in pairs.to_pylist():
            partition_of.setdefault(row["user_id"], row["partition"])
    return choose_users(partition_of, request.num_users or 0, request.seed)


def _read(path: Path, columns: list[str]) -> pa.Table:
    """Columns of text from a file of labels."""
    with _sound(path, "remove it and run again"):
        table = pq.read_table(path)
        for name in columns:
            if name not in table.column_names:
                raise DataError(f"{path}: no column {name!r}, so users cannot be chosen; leave out --num_users")
            column = table.column(name)
            if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise DataError(f"{path}: column {name!r} is not of text in every row; leave out --num_users")
        table = table.select(columns)
        table.validate(full=True)
        return table


def _merge(parts: list[Path], output: Path) -> list[str]:
    """The users' rows of all shards of a partition in one file, since a shard may well have none; the files' names."""
    by_partition: dict[str, list[Path]] = {}
    for part in parts:
        with pq.ParquetFile(part) as parquet:
            if parquet.metadata.num_rows:
                by_partition.setdefault(part.name.split("-")[1], []).append(part)
    names = []
    for partition, own in by_partition.items():
        name = f"data/{partition}-00000-of-00001.parquet"
        with pq.ParquetFile(own[0]) as first:
            schema = first.schema_arrow
        _write(output / name, _all_batches(own), schema)
        names.append(name)
    return names


def _all_batches(parts: list[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as parquet:
            yield from parquet.iter_batches(_ROWS)


def _write(target: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """A parquet file that bears its name only when it is whole and on disk."""
    with replacing(target) as file, pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(_fitting(batch, schema, target))


def _fitting(batch: pa.RecordBatch, schema: pa.Schema, target: Path) -> pa.RecordBatch:
    with _sound(target, "its parts have different columns; leave out --num_users and --only"):
        return batch.cast(schema)


def _each(call: Callable[[int], Any], number: int, request: Request, tools: Tools) -> None:
    """Several at once; the first failure stops the others, which keep what they have."""
    with ThreadPoolExecutor(request.num_connections) as pool:
        try:
            for _ in pool.map(call, range(number)):
                pass
        except BaseException:
            tools.stop.set()
            raise
