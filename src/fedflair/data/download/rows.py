"""Some rows or columns of the hub's parquet files: the rest of each file is never fetched."""

from __future__ import annotations

import itertools
import os
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

from fedflair.data.download.plan import Item, Request, Tools, choose_users
from fedflair.data.download.ranges import RangeFile
from fedflair.errors import DataError

IMAGE = "image"
WORK_FOLDER = ".parts"
_DONE = "data"  # the manifest's entry for the users' rows
_ROWS = 128  # at a time: under two megabytes of FLAIR's images


def fetch_labels(shards: list[Item], request: Request, tools: Tools) -> list[Path]:
    """Every column but the images of each shard, as ``labels/SHARD``; returns the files in the shards' order."""
    targets = [request.output / "labels" / Path(shard.name).name for shard in shards]

    def fetch(number: int) -> None:
        if not targets[number].is_file():
            with _open_remote(shards[number], request, tools) as (parquet, report):
                columns = [name for name in parquet.schema_arrow.names if name != IMAGE]
                every = range(parquet.num_row_groups)
                _write(targets[number], _batches(parquet, every, columns, report), _schema(parquet, columns))

    _each(fetch, len(shards), request, tools)
    return targets


def fetch_users(shards: list[Item], request: Request, tools: Tools) -> None:
    """All rows of ``request.num_users`` users, as ``data/PARTITION-00000-of-00001.parquet``.

    Of a shard, only the row groups in which one of the users has a row are fetched.
    """
    done = tools.manifest.entry(_DONE)
    if done is not None and all((request.output / name).is_file() for name in done["files"]):
        return
    labels = fetch_labels(shards, request, tools)
    users = _chosen(labels, request)
    work = request.output / WORK_FOLDER
    parts = [work / f"users-{Path(shard.name).name}" for shard in shards]

    def fetch(number: int) -> None:
        if not parts[number].is_file():
            with _open_remote(shards[number], request, tools) as (parquet, report):
                wanted = _row_groups(parquet, labels[number], users, shards[number].url)
                batches = _batches(parquet, wanted, parquet.schema_arrow.names, report)
                _write(parts[number], (_of_users(batch, users) for batch in batches), parquet.schema_arrow)

    _each(fetch, len(shards), request, tools)
    files = _merge(parts, request.output)
    size = sum((request.output / name).stat().st_size for name in files)
    tools.manifest.add(_DONE, {"size": size, "files": files, "users": len(users)})
    shutil.rmtree(work)


@contextmanager
def _open_remote(shard: Item, request: Request, tools: Tools) -> Iterator[tuple[pq.ParquetFile, Callable[[], None]]]:
    """A remote shard, and what to call to show how much of it has come."""
    stem = request.output / WORK_FOLDER / Path(shard.name).name
    size = shard.size or 0
    show = tools.bar(shard.name, size)
    with RangeFile(
        shard.url, size, stem, headers=dict(shard.headers), patience=tools.patience, stop=tools.stop
    ) as remote:
        try:
            parquet = pq.ParquetFile(remote, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
            yield parquet, lambda: show(remote.fetched)
            show(size)
        except pa.ArrowException as error:
            raise DataError(f"{shard.url}: not a sound parquet file ({' '.join(str(error).split())[:200]})") from error


def _batches(
    parquet: pq.ParquetFile, row_groups: Iterable[int], columns: list[str], report: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    for row_group in row_groups:
        # One row group after another, because the threads of a reader would ask for parts out of order.
        for batch in parquet.iter_batches(_ROWS, [row_group], columns, use_threads=False):
            report()
            yield batch


def _schema(parquet: pq.ParquetFile, columns: list[str]) -> pa.Schema:
    schema = parquet.schema_arrow
    # Without the hub's own description of the columns, which would speak of images that are not there.
    return pa.schema([schema.field(name) for name in columns])


def _row_groups(parquet: pq.ParquetFile, labels: Path, users: set[str], where: str) -> list[int]:
    """The row groups with a row of one of the users."""
    owners = pq.read_table(labels, columns=["user_id"]).column("user_id")
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
        table = pq.read_table(path)
        missing = {"user_id", "partition"} - set(table.column_names)
        if missing:
            raise DataError(
                f"{path}: no column {sorted(missing)[0]!r}, so users cannot be chosen; leave out --num_users"
            )
        pairs = table.select(["user_id", "partition"]).group_by(["user_id", "partition"]).aggregate([])
        for row in pairs.to_pylist():
            partition_of.setdefault(row["user_id"], row["partition"])
    return choose_users(partition_of, request.num_users or 0, request.seed)


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
    """A parquet file that bears its name only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".partial")
    with pq.ParquetWriter(temporary, schema) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch.cast(schema))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


def _each(call: Callable[[int], Any], number: int, request: Request, tools: Tools) -> None:
    """Several at once; the first failure stops the others, which keep what they have."""
    with ThreadPoolExecutor(request.num_connections) as pool:
        try:
            for _ in pool.map(call, range(number)):
                pass
        except BaseException:
            tools.stop.set()
            raise
