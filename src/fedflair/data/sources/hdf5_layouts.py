"""FLAIR in HDF5 files: pfl-research's layout, ml-flair's two layouts, and this project's own store, as sources.

    pfl               /{partition}/{user_id}/images uint8 [n,256,256,3], labels_row, labels_col,
                      fine_grained_labels_row, fine_grained_labels_col, image_ids;
                      /metadata/label_mapping, fine_grained_label_mapping
    ml-flair          the same groups with labels and fine_grained_labels as names joined with |;
                      /metadata/label_counter, fine_grained_label_counter
    ml-flair-central  /{partition}/{image_id}/image, labels, fine_grained_labels, user_id; /metadata as ml-flair

An HDF5 group cannot bear every user id as its name: those are percent-encoded, see :func:`group_name`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np

from fedflair.data.images.jpeg import pixels_as_ppm
from fedflair.data.sources.records import PARTITION_NAMES, Record, Source, parse_image_id
from fedflair.data.store.packed import FORMAT, open_store
from fedflair.errors import DataError

# Not part of the other tools' layouts, whose readers pass it over: the label relation, so that it is not lost.
RELATION = "fine_to_coarse"
# Images of a user that are read or written at a time: 12 MB of pixels, however many the user has.
IMAGES_AT_ONCE = 64
_ESCAPED = re.compile(r"%(?:2F|2E|25|00)", re.IGNORECASE)


def group_name(user_id: str) -> str:
    """The user id as the name of an HDF5 group: ``/`` becomes ``%2F``, a lone ``.`` or ``..`` ``%2E`` or ``%2E%2E``,
    and ``%`` itself ``%25`` where it would read as one of these."""
    name = _ESCAPED.sub(lambda match: "%25" + match[0][1:], user_id).replace("/", "%2F")
    return name.replace(".", "%2E") if name in (".", "..") else name


def user_id_of(name: str) -> str:
    """The user id whose :func:`group_name` is ``name``."""
    return _ESCAPED.sub(lambda match: unquote(match[0]), name)


def open_hdf5(path: Path) -> Source:
    """The dataset in the HDF5 file ``path``, its layout recognised from what it holds.

    Raises DataError where the file is damaged or of no layout known here.
    """
    layout = recognise_layout(path)
    if layout == "packed":
        return _open_packed(path)
    readers: dict[str, Callable[[Path, h5py.File], Iterator[Record]]] = {
        "pfl": _pfl_records,
        "ml-flair": _ml_flair_records,
        "ml-flair-central": _central_records,
    }
    labels: tuple[str, ...] | None
    fine: tuple[str, ...] | None
    with _open(path) as file:
        if layout == "pfl":
            labels, fine = (_mapping(path, file, name) for name in ("label_mapping", "fine_grained_label_mapping"))
        else:
            labels, fine = (_counter(path, file, name) for name in ("label_counter", "fine_grained_label_counter"))
        relation = _json(path, file, RELATION) if f"metadata/{RELATION}" in file else {}

    def records() -> Iterator[Record]:
        with _open(path) as file:
            try:
                yield from readers[layout](path, file)
            except (OSError, KeyError, RuntimeError) as error:
                raise DataError(f"{path}: damaged ({_one_line(error)}); make it again") from error

    return Source(layout, path, records, relation, None, labels, fine, prepared=bool(relation))


def recognise_layout(path: Path) -> str:
    """``packed``, ``pfl``, ``ml-flair`` or ``ml-flair-central``. Raises DataError where it is none of them."""
    with _open(path) as file:
        if file.attrs.get("format") == FORMAT:
            return "packed"
        for partition in PARTITION_NAMES:
            group = file.get(partition)
            if not isinstance(group, h5py.Group) or not len(group):
                continue
            members = group[next(iter(group))]
            names = set(members) if isinstance(members, h5py.Group) else set()
            if {"images", "labels_row", "labels_col"} <= names:
                return "pfl"
            if {"images", "labels"} <= names:
                return "ml-flair"
            if {"image", "labels"} <= names:
                return "ml-flair-central"
        raise DataError(
            f"{path}: an HDF5 file of another tool (it holds {', '.join(map(repr, list(file)[:5])) or 'nothing'}); "
            "looked for /train, /val or /test in the layout of pfl-research, ml-flair or fedflair"
        )


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: cut short or not an HDF5 file ({_one_line(error)}); make it again") from error


def _json(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    try:
        value = json.loads(file["metadata"][name][()])
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"{path}: /metadata/{name} is missing or damaged ({_one_line(error)}); make it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: /metadata/{name} is not a JSON object; make the file again")
    return value


def _mapping(path: Path, file: h5py.File, name: str) -> tuple[str, ...]:
    """The label names of pfl's mapping in the order of their indices, which must be 0, 1, 2, ..."""
    mapping = _json(path, file, name)
    by_index = {index: label for label, index in mapping.items()}
    if set(by_index) != set(range(len(mapping))):
        raise DataError(f"{path}: /metadata/{name} does not number its labels 0, 1, 2, ...; make the file again")
    return tuple(by_index[index] for index in range(len(mapping)))


def _counter(path: Path, file: h5py.File, name: str) -> tuple[str, ...] | None:
    """The label names that ml-flair counted, sorted; None where the file, as those of its successor, has no counts."""
    return tuple(sorted(_json(path, file, name))) if f"metadata/{name}" in file else None


def _pfl_records(path: Path, file: h5py.File) -> Iterator[Record]:
    names = _mapping(path, file, "label_mapping"), _mapping(path, file, "fine_grained_label_mapping")
    for partition, key, user in _groups(file):
        where = f"{path}: /{partition}/{key}"
        num_images = len(user["images"])
        labels, fine = (
            _labels_of_rows(user, prefix, num_images, of, where)
            for prefix, of in zip(("labels", "fine_grained_labels"), names)
        )
        for k, image_id, image in _user_images(user, where):
            yield Record(user_id_of(key), image_id, partition, labels[k], fine[k], image, f"{where}: image {k}")


def _labels_of_rows(
    user: h5py.Group, prefix: str, num_images: int, names: tuple[str, ...], where: str
) -> list[tuple[str, ...]]:
    rows, columns = user[f"{prefix}_row"][()].tolist(), user[f"{prefix}_col"][()].tolist()
    if len(rows) != len(columns):
        raise DataError(f"{where}: {prefix}_row and {prefix}_col differ in length; make the file again")
    labels: list[list[str]] = [[] for _ in range(num_images)]
    for row, column in zip(rows, columns):
        if row >= num_images or column >= len(names):
            raise DataError(f"{where}: {prefix} name image {row} and label {column}, which do not exist")
        labels[row].append(names[column])
    return [tuple(of_image) for of_image in labels]


def _ml_flair_records(path: Path, file: h5py.File) -> Iterator[Record]:
    for partition, key, user in _groups(file):
        where = f"{path}: /{partition}/{key}"
        labels, fine = (
            [_split(value) for value in user[name][()].tolist()] for name in ("labels", "fine_grained_labels")
        )
        if not len(labels) == len(fine) == len(user["images"]):
            raise DataError(f"{where}: as many labels as images were expected; make the file again")
        for k, image_id, image in _user_images(user, where):
            yield Record(user_id_of(key), image_id, partition, labels[k], fine[k], image, f"{where}: image {k}")


def _central_records(path: Path, file: h5py.File) -> Iterator[Record]:
    for partition, key, group in _groups(file):
        where = f"{path}: /{partition}/{key}"
        labels, fine = (_split(group[name][()]) for name in ("labels", "fine_grained_labels"))
        user_id = _text(group["user_id"][()])
        image = _as_image(group["image"][()], where)
        yield Record(user_id, parse_image_id(key, where), partition, labels, fine, image, where)


def _groups(file: h5py.File) -> Iterator[tuple[str, str, h5py.Group]]:
    """(partition, name, group) of each user or image; a partition's names come one at a time."""
    for partition in file:
        if partition not in PARTITION_NAMES:
            continue
        for name in file[partition]:
            yield partition, name, file[partition][name]


def _user_images(user: h5py.Group, where: str) -> Iterator[tuple[int, int, bytes]]:
    images, image_ids = user["images"], user["image_ids"][()].tolist()
    if len(image_ids) != len(images):
        raise DataError(f"{where}: {len(image_ids)} image ids for {len(images)} images; make the file again")
    for first in range(0, len(images), IMAGES_AT_ONCE):
        for k, pixels in enumerate(images[first : first + IMAGES_AT_ONCE], start=first):
            image_id = image_ids[k].decode() if isinstance(image_ids[k], bytes) else image_ids[k]
            yield k, parse_image_id(image_id, f"{where}: image {k}"), _as_image(pixels, f"{where}: image {k}")


def _as_image(pixels: Any, where: str) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"{where}: pixels are {pixels.dtype} {list(pixels.shape)}, not uint8 [height, width, 3]")
    return pixels_as_ppm(pixels)


def _split(value: Any) -> tuple[str, ...]:
    text = _text(value)
    return tuple(text.split("|")) if text else ()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _open_packed(path: Path) -> Source:
    store = open_store(path)
    metadata = store.metadata

    def records() -> Iterator[Record]:
        for name, partition in store.partitions.items():
            for user, user_id in enumerate(partition.user_ids):
                for image in partition.user_slice(user):
                    yield Record(
                        user_id=user_id,
                        image_id=int(partition.columns.image_ids[image]),
                        partition=name,
                        labels=tuple(metadata.labels[k] for k in partition.label_indices(image, fine=False)),
                        fine_grained_labels=tuple(
                            metadata.fine_grained_labels[k] for k in partition.label_indices(image, fine=True)
                        ),
                        image=partition.encoded(image).tobytes(),
                        where=f"{path}: partition {name!r}: image {image}",
                    )

    num_images = sum(partition.num_images for partition in store.partitions.values())
    return Source(
        "packed",
        path,
        records,
        metadata.fine_to_coarse,
        num_images,
        metadata.labels,
        metadata.fine_grained_labels,
        prepared=True,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
