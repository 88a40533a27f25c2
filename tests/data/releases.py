"""Small datasets of real JPEGs, as records and as the files that FLAIR is released in."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fedflair.data.sources.records import Record
from fedflair.data.store.packed import Store
from tests.conftest import jpeg

RELATION = {"cat": "animal", "dog": "animal", "bread": "food", "sky": "outdoor", "tree": "plant", "unused": "music"}
FINE = ("cat", "dog", "bread", "sky", "tree")
# partition -> user -> image ids; users and ids are neither sorted nor adjacent once interleaved.
USERS = {
    "train": {"b@N01": (30, 7, 42_400_000_000), "a@N01": (9,), "c/d@N02": (3, 11)},
    "val": {"ü@N03": (5, 4)},
    "test": {"z@N04": (8, 6)},
}


def record(user_id: str, image_id: int, partition: str, fine: Sequence[str], image: bytes) -> Record:
    labels = tuple(sorted({RELATION[name] for name in fine}))
    return Record(user_id, image_id, partition, labels, tuple(fine), image, "")


_jpeg = functools.cache(jpeg)


def records() -> list[Record]:
    """10 images of 5 users, users interleaved within their partition."""
    made = [
        record(user, image_id, partition, [FINE[image_id % 5], FINE[(image_id + 2) % 5]], _jpeg(image_id % 1000))
        for partition, users in USERS.items()
        for user, ids in users.items()
        for image_id in ids
    ]
    return sorted(made, key=lambda r: (list(USERS).index(r.partition), r.image_id % 10))


def changed(position: int, **fields: Any) -> list[Record]:
    """The records with some fields of one of them replaced."""
    made = records()
    made[position] = replace(made[position], **fields)
    return made


def row(r: Record) -> dict[str, Any]:
    return {
        "user_id": r.user_id,
        "image_id": r.image_id,
        "labels": list(r.labels),
        "partition": r.partition,
        "fine_grained_labels": list(r.fine_grained_labels),
        "image": {"bytes": r.image, "path": f"{r.image_id}.jpg"},
    }


SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "image_id": pa.int64(),
        "labels": pa.list_(pa.string()),
        "partition": pa.string(),
        "fine_grained_labels": pa.list_(pa.string()),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    }
)


def write_relation(folder: Path) -> Path:
    path = folder / "label_relationship.txt"
    path.write_text("".join(f"{fine} -> {coarse}\n" for fine, coarse in RELATION.items()))
    return path


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=3)
    return path


def write_hub(folder: Path, made: Iterable[Record]) -> Path:
    """A hub checkout: two train shards, one of val, one of test."""
    made = list(made)
    by_partition = {name: [r for r in made if r.partition == name] for name in ("train", "val", "test")}
    train = by_partition.pop("train")
    for shard, rows in enumerate((train[:3], train[3:])):
        write_rows(folder / "data" / f"train-0000{shard}-of-00002.parquet", [row(r) for r in rows])
    for name, rows in by_partition.items():
        write_rows(folder / "data" / f"{name}-00000-of-00001.parquet", [row(r) for r in rows])
    write_relation(folder)
    return folder


def write_labels(folder: Path, made: Iterable[Record], *, ids_as_text: bool = True) -> Path:
    entries = []
    for r in made:
        entry = row(r)
        del entry["image"]
        entries.append({**entry, "image_id": str(r.image_id)} if ids_as_text else entry)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels_and_metadata.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    write_relation(folder)
    return folder / "labels_and_metadata.json"


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(r: Record) -> tuple[str, bytes]:
    return f"small_images/{r.image_id}.jpg", r.image


def write_apple(folder: Path, made: Iterable[Record]) -> Path:
    """Apple's release with two archives."""
    made = list(made)
    write_labels(folder, made)
    for number, part in enumerate((made[:4], made[4:])):
        write_archive(folder / f"small_images-0{number}.tar.gz", [member(r) for r in part])
    return folder


def write_apple_folder(folder: Path, made: Iterable[Record]) -> Path:
    """Apple's release with the images unpacked."""
    made = list(made)
    write_labels(folder, made)
    (folder / "small_images").mkdir()
    for r in made:
        (folder / "small_images" / f"{r.image_id}.jpg").write_bytes(r.image)
    return folder


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def contents(store: Store) -> dict[int, tuple[str, str, tuple[str, ...], tuple[str, ...], bytes]]:
    """Image id -> (user, partition, labels, fine labels, bytes) of everything in a store."""
    found = {}
    for name, partition in store.partitions.items():
        for user, user_id in enumerate(partition.user_ids):
            for image in partition.user_slice(user):
                names = [
                    tuple(store.label_names(fine=fine)[k] for k in partition.label_indices(image, fine=fine))
                    for fine in (False, True)
                ]
                image_id = int(partition.columns.image_ids[image])
                found[image_id] = (user_id, name, names[0], names[1], partition.encoded(image).tobytes())
    return found


def expected(made: Iterable[Record]) -> dict[int, tuple[str, str, tuple[str, ...], tuple[str, ...], bytes]]:
    return {
        r.image_id: (r.user_id, r.partition, tuple(sorted(r.labels)), tuple(sorted(r.fine_grained_labels)), r.image)
        for r in made
    }
