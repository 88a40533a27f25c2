"""The packed store in the forms that are folders: parquet files as on the hub, and webdataset's tar shards.

    parquet      ``data/train-00000-of-00010.parquet`` ..., with the hub's columns, and ``label_relationship.txt`` where
                 the store has a relation. prepare makes the same store of them again, to its fingerprint: the lists of
                 labels travel in each file's metadata, which other readers pass over.
    webdataset   ``train-000000.tar`` ... of up to 10,000 photographs, for each ``ID.jpg`` (or ``ID.png``) and after it
                 ``ID.json`` with its user, image id, partition and labels; ``labels.json`` has the lists of labels in
                 order. A user's photographs are neighbours; loaders have to shuffle. There is no way back.

Image bytes are kept as they are. Equal stores give equal files.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fedflair.data.preparation.packing import PrepareSummary
from fedflair.data.sources.hdf5_layouts import open_hdf5
from fedflair.data.sources.records import Record
from fedflair.data.sources.release_formats import Sink, image_name, new_folder, write_parquet
from fedflair.data.store.new_file import check_space
from fedflair.data.store.packed import Store, open_store

FolderLayout = Literal["parquet", "webdataset"]

PHOTOGRAPHS_PER_SHARD = 10_000
# A sample's members have a header each, and are filled up to 512 bytes.
_BYTES_BESIDE = 4096


def write_folder(store: Store, output: Path, layout: FolderLayout) -> None:
    """Writes a store's photographs and labels into the new folder ``output``.

    Memory does not grow with the store. Raises DataError where something has that name already, or the disk is full.
    """
    with new_folder(output) as folder:
        _write(store, output, folder, layout)


def write_folder_through_store(
    output: Path, layout: FolderLayout, pack: Callable[[Path], PrepareSummary]
) -> PrepareSummary:
    """Writes ``output`` from a store that ``pack`` makes at the path it is given, and that is then removed."""
    path = output.with_name(f".{output.name}.store")
    with new_folder(output) as folder:
        try:
            summary = pack(path)
            _write(open_store(path), output, folder, layout)
        finally:
            path.unlink(missing_ok=True)
    num_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return replace(summary, output=output, num_bytes=num_bytes)


def _write(store: Store, output: Path, folder: Path, layout: FolderLayout) -> None:
    partitions = store.partitions.values()
    check_space(output, sum(len(part.images) + _BYTES_BESIDE * part.num_images for part in partitions))
    with _WRITERS[layout](folder, store) as sink:
        for record in open_hdf5(store.path).records():
            sink(record)


def _label_lists(store: Store) -> dict[str, Any]:
    return {
        "labels": store.metadata.labels,
        "fine_grained_labels": store.metadata.fine_grained_labels,
        "fine_to_coarse": store.metadata.fine_to_coarse,
    }


def _parquet(folder: Path, store: Store) -> AbstractContextManager[Sink]:
    return write_parquet(folder, store.metadata.fine_to_coarse, _label_lists(store))


@contextmanager
def _webdataset(folder: Path, store: Store) -> Iterator[Sink]:
    lists = json.dumps(_label_lists(store), ensure_ascii=False, indent=1)
    (folder / "labels.json").write_text(lists + "\n", encoding="utf-8")
    counts: dict[str, int] = {}
    with ExitStack() as shards:
        tar: tarfile.TarFile | None = None

        def sink(record: Record) -> None:
            nonlocal tar
            number = counts.get(record.partition, 0)
            counts[record.partition] = number + 1
            if tar is None or number % PHOTOGRAPHS_PER_SHARD == 0:
                shards.close()
                path = folder / f"{record.partition}-{number // PHOTOGRAPHS_PER_SHARD:06d}.tar"
                tar = shards.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
            _add(tar, image_name(record), record.image)
            told = {
                "user_id": record.user_id,
                "image_id": record.image_id,
                "partition": record.partition,
                "labels": record.labels,
                "fine_grained_labels": record.fine_grained_labels,
            }
            _add(tar, f"{record.image_id}.json", json.dumps(told, ensure_ascii=False).encode())

        yield sink


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """With no time and no owner, so that equal content gives equal archives."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


_WRITERS: dict[FolderLayout, Callable[[Path, Store], AbstractContextManager[Sink]]] = {
    "parquet": _parquet,
    "webdataset": _webdataset,
}
