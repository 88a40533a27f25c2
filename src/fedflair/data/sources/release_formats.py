"""Writers of the two forms in which FLAIR is released: the hub's parquet files, and Apple's labels and archives.

Each is a context manager that creates its folder and gives a function to hand the records to, one at a time; the
partitions must come one after another. Memory does not grow with the dataset. Equal records give equal files.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedflair.data.sources.apple import LABELS_FILE, RELATION_FILE
from fedflair.data.sources.huggingface import STORE_LABELS
from fedflair.data.sources.records import Record
from fedflair.errors import DataError
from fedflair.system import locks
from fedflair.system.files import disk_errors, sync_folder

Sink = Callable[[Record], None]

NUM_ARCHIVES = 43
ROWS_PER_SHARD = {"train": 34_588, "val": 19_620, "test": 21_980}
"""Rows of a shard of each partition: at full scale this makes the hub's 10, 2 and 2 shards."""
_ROWS_PER_GROUP = 1000
_JPEG = b"\xff\xd8"

_ATTRIBUTION = (
    "Every image of this dataset was drawn by the program fedflair; no photograph and no photographer is behind it.\n"
)

_FEATURES = {
    "user_id": {"dtype": "string", "_type": "Value"},
    "image_id": {"dtype": "int64", "_type": "Value"},
    "labels": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
    "partition": {"dtype": "string", "_type": "Value"},
    "fine_grained_labels": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
    "image": {"_type": "Image"},
}
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "image_id": pa.int64(),
        "labels": pa.list_(pa.string()),
        "partition": pa.string(),
        "fine_grained_labels": pa.list_(pa.string()),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    },
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, locked: it takes that name when the block ends well, its files synced to the
    disk before, and is removed when it does not.

    Raises DataError where ``path`` exists and is not an empty folder, where another process is writing it, or where it
    cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: exists already; remove it or choose another --output")
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _locked(partial)
        except locks.Held as error:
            raise DataError(f"{path}: another process is writing it; wait for it or choose another name") from error
        try:
            yield partial
            _sync_all(partial)
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            locks.let_go(lock)


def _locked(partial: Path) -> int:
    """A descriptor of the folder, emptied and locked; what else has its name, a planted link too, is removed."""
    while True:
        if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
            partial.unlink()
        with suppress(FileExistsError):
            partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if not locks.take(descriptor):
                raise locks.Held(partial, None)
            # Between the opening and the lock the former holder may have renamed or removed the folder.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), partial.lstat()):
                    for left in partial.iterdir():
                        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with (Path(place) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


@contextmanager
def write_huggingface(folder: Path, fine_to_coarse: dict[str, str], num_images: int) -> Iterator[Sink]:
    """The hub's form: ``data/train-00000-of-00010.parquet`` and so on, the relation and the attribution."""
    del num_images
    with write_parquet(folder, fine_to_coarse) as sink:
        (folder / "ATTRIBUTION.txt").write_text(_ATTRIBUTION)
        yield sink


@contextmanager
def write_parquet(folder: Path, fine_to_coarse: dict[str, str], lists: dict[str, Any] | None = None) -> Iterator[Sink]:
    """The hub's parquet files under ``data/``, and the relation where there is one.

    lists: a store's labels and their relation, which each file then carries, so that prepare makes the same store of
    them. How many shards there are is known at the end only, so that is when they get their names.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    if fine_to_coarse:
        _write_relation(folder, fine_to_coarse)
    schema = SCHEMA
    if lists is not None:
        schema = SCHEMA.with_metadata({**SCHEMA.metadata, STORE_LABELS: json.dumps(lists)})
    waiting: list[dict[str, Any]] = []
    written: dict[str, list[int]] = {}
    writer: pq.ParquetWriter | None = None

    def flush(partition: str) -> None:
        nonlocal writer
        rows = written.setdefault(partition, [])
        if not rows or rows[-1] >= ROWS_PER_SHARD[partition]:
            if writer is not None:
                writer.close()
            rows.append(0)
            writer = pq.ParquetWriter(data / f"{partition}-{len(rows) - 1:05d}.parquet", schema, compression="none")
        if writer is not None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
        rows[-1] += len(waiting)
        waiting.clear()

    def sink(record: Record) -> None:
        if waiting and waiting[0]["partition"] != record.partition:
            flush(waiting[0]["partition"])
        waiting.append(
            {
                "user_id": record.user_id,
                "image_id": record.image_id,
                "labels": list(record.labels),
                "partition": record.partition,
                "fine_grained_labels": list(record.fine_grained_labels),
                "image": {"bytes": record.image, "path": image_name(record)},
            }
        )
        rows = written.get(record.partition, [0])
        room = ROWS_PER_SHARD[record.partition] - rows[-1] % ROWS_PER_SHARD[record.partition]
        if len(waiting) >= min(_ROWS_PER_GROUP, room):
            flush(record.partition)

    yield sink
    if waiting:
        flush(waiting[0]["partition"])
    if writer is not None:
        writer.close()
    for partition, rows in written.items():
        for number in range(len(rows)):
            name = f"{partition}-{number:05d}"
            (data / f"{name}.parquet").rename(data / f"{name}-of-{len(rows):05d}.parquet")


def image_name(record: Record) -> str:
    """A name for the file of a record's image, which is a JPEG or PNG."""
    return f"{record.image_id}.{'jpg' if record.image.startswith(_JPEG) else 'png'}"


@contextmanager
def write_apple(folder: Path, fine_to_coarse: dict[str, str], num_images: int) -> Iterator[Sink]:
    """Apple's form: the labels JSON, the relation, and ``images/small/small_images-00.tar.gz`` to ``-42.tar.gz``."""
    labels, images = folder / "labels", folder / "images" / "small"
    labels.mkdir(parents=True)
    images.mkdir(parents=True)
    _write_relation(labels, fine_to_coarse)
    count = 0
    archive: AbstractContextManager[tarfile.TarFile] | None = None
    tar: tarfile.TarFile | None = None
    number = -1
    with (labels / LABELS_FILE).open("w", encoding="utf-8") as listing:

        def sink(record: Record) -> None:
            nonlocal count, archive, tar, number
            if tar is None or count * NUM_ARCHIVES // num_images > number:
                if archive is not None:
                    archive.__exit__(None, None, None)
                number = count * NUM_ARCHIVES // num_images
                archive = _archive(images / f"small_images-{number:02d}.tar.gz")
                tar = archive.__enter__()
            listing.write("[\n" if count == 0 else ",\n")
            listing.write(
                json.dumps(
                    {
                        "user_id": record.user_id,
                        "image_id": str(record.image_id),
                        "labels": list(record.labels),
                        "fine_grained_labels": list(record.fine_grained_labels),
                        "partition": record.partition,
                    },
                    ensure_ascii=False,
                )
            )
            member = tarfile.TarInfo(f"small_images/{record.image_id}.jpg")
            member.size = len(record.image)
            tar.addfile(member, io.BytesIO(record.image))
            count += 1

        try:
            yield sink
        finally:
            if archive is not None:
                archive.__exit__(None, None, None)
        listing.write("\n]\n" if count else "[]\n")


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    """A gzipped tar to add to, at the quickest level since JPEGs hardly shrink, and with no time in its header."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        yield tar


def _write_relation(folder: Path, fine_to_coarse: dict[str, str]) -> None:
    lines = [f"{fine} -> {coarse}\n" for fine, coarse in fine_to_coarse.items()]
    (folder / RELATION_FILE).write_text("".join(lines), encoding="utf-8")


RELEASES: dict[str, Callable[[Path, dict[str, str], int], AbstractContextManager[Sink]]] = {
    "huggingface": write_huggingface,
    "apple": write_apple,
}
"""Name of a release format -> its writer: (new folder, fine -> coarse relation, number of images to come)."""
