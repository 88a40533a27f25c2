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

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np

from fedflair.data.images.jpeg import pixels_as_ppm
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.sources.records import PARTITION_NAMES, Record, Source, parse_image_id
from fedflair.data.store import plain_hdf5
from fedflair.data.store.packed import FORMAT, is_text, open_store
from fedflair.errors import DataError
from fedflair.system.json_text import parse_json

# Not part of the other tools' layouts, whose readers pass it over: the label relation, so that it is not lost.
RELATION = "fine_to_coarse"
# Images of a user that are read or written at a time: 12 MB of pixels, however many the user has.
IMAGES_AT_ONCE = 64
_BYTES_AT_ONCE = 1 << 26
_REMEDY = "make it again"
_ESCAPED = re.compile(r"%(?:2F|2E|25|00)", re.IGNORECASE)


def group_name(user_id: str) -> str:
    """The user id as the name of an HDF5 group: ``/`` becomes ``%2F``, a lone ``.`` or ``..`` ``%2E`` or ``%2E%2E``,
    and ``%`` itself ``%25`` where it would read as one of these."""
    name = _ESCAPED.sub(lambda match: "%25" + match[0][1:], user_id).replace("/", "%2F")
    return name.replace(".", "%2E") if name in (".", "..") else name


def user_id_of(name: str) -> str:
    """The user id whose :func:`group_name` is ``name``."""
    return _ESCAPED.sub(lambda match: unquote(match[0]), name)


def open_hdf5(path: Path, limits: Limits = DEFAULT) -> Source:
    """The dataset in the HDF5 file ``path``, its layout recognised from what it holds.

    Raises DataError where the file is damaged, of no layout known here, or leads out of itself.
    """
    layout = recognise_layout(path)
    if layout == "packed":
        return _open_packed(path)
    readers: dict[str, Callable[[Path, h5py.File, Limits], Iterator[Record]]] = {
        "pfl": _pfl_records,
        "ml-flair": _ml_flair_records,
        "ml-flair-central": _central_records,
    }
    labels: tuple[str, ...] | None
    fine: tuple[str, ...] | None
    with plain_hdf5.opened(path, _REMEDY) as file:
        if layout == "pfl":
            labels, fine = (_mapping(path, file, name) for name in ("label_mapping", "fine_grained_label_mapping"))
        else:
            labels, fine = (_counter(path, file, name) for name in ("label_counter", "fine_grained_label_counter"))
        prepared = _has_metadata(path, file, RELATION)
        relation = _json(path, file, RELATION) if prepared else {}
        others = Counter(
            {"groups that are no partition": sum(name not in (*PARTITION_NAMES, "metadata") for name in file)}
        )
    if not all(map(is_text, relation.values())):
        raise DataError(f"{path}: /metadata/{RELATION} does not lead from text to text; make the file again")

    def records() -> Iterator[Record]:
        with plain_hdf5.opened(path, _REMEDY) as file:
            yield from readers[layout](path, file, limits)

    return Source(layout, path, records, relation, None, labels, fine, prepared=prepared, ignored=+others)


def recognise_layout(path: Path) -> str:
    """``packed``, ``pfl``, ``ml-flair`` or ``ml-flair-central``. Raises DataError where it is none of them."""
    with plain_hdf5.opened(path, _REMEDY) as file:
        if plain_hdf5.attribute(file, "format") == FORMAT:
            return "packed"
        for partition in PARTITION_NAMES:
            if not plain_hdf5.has(file, partition) or not plain_hdf5.is_group(file, partition, str(path)):
                continue
            group = plain_hdf5.group(file, partition, str(path))
            first = next(iter(group), None)
            if first is None or not plain_hdf5.is_group(group, first, f"{path}: /{partition}"):
                continue
            names = set(plain_hdf5.group(group, first, f"{path}: /{partition}"))
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


def _has_metadata(path: Path, file: h5py.File, name: str) -> bool:
    return plain_hdf5.has(file, "metadata") and plain_hdf5.has(plain_hdf5.group(file, "metadata", str(path)), name)


def _json(path: Path, file: h5py.File, name: str) -> dict[str, Any]:
    where = f"{path}: /metadata/{name}"
    if not _has_metadata(path, file, name):
        raise DataError(f"{where} is missing; make the file again")
    content = plain_hdf5.scalar_text(plain_hdf5.group(file, "metadata", str(path)), name, f"{path}: /metadata")
    try:
        value = parse_json(content)
    except ValueError as error:
        raise DataError(f"{where} is damaged ({error}); make the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} is not a JSON object; make the file again")
    if not all(map(is_text, value)):
        raise DataError(f"{where} holds a name that is not valid Unicode; make the file again")
    return value


def _mapping(path: Path, file: h5py.File, name: str) -> tuple[str, ...]:
    """The label names of pfl's mapping in the order of their indices, which must be 0, 1, 2, ..."""
    mapping = _json(path, file, name)
    by_index = {index: label for label, index in mapping.items() if isinstance(index, int)}
    if len(by_index) != len(mapping) or set(by_index) != set(range(len(mapping))):
        raise DataError(f"{path}: /metadata/{name} does not number its labels 0, 1, 2, ...; make the file again")
    return tuple(by_index[index] for index in range(len(mapping)))


def _counter(path: Path, file: h5py.File, name: str) -> tuple[str, ...] | None:
    """The label names that ml-flair counted, sorted; None where the file, as those of its successor, has no counts."""
    return tuple(sorted(_json(path, file, name))) if _has_metadata(path, file, name) else None


def _pfl_records(path: Path, file: h5py.File, limits: Limits) -> Iterator[Record]:
    names = _mapping(path, file, "label_mapping"), _mapping(path, file, "fine_grained_label_mapping")
    for partition, key, user in _groups(path, file):
        where = f"{path}: /{partition}/{key}"
        images = _images(user, where, limits)
        labels, fine = (
            _labels_of_rows(user, prefix, len(images), of, where)
            for prefix, of in zip(("labels", "fine_grained_labels"), names)
        )
        for k, image_id, image in _user_images(user, images, where):
            yield Record(user_id_of(key), image_id, partition, labels[k], fine[k], image, f"{where}: image {k}")


def _labels_of_rows(
    user: h5py.Group, prefix: str, num_images: int, names: tuple[str, ...], where: str
) -> list[tuple[str, ...]]:
    rows, columns = (plain_hdf5.column(user, f"{prefix}_{of}", where, "whole numbers") for of in ("row", "col"))
    if len(rows) != len(columns):
        raise DataError(f"{where}: {prefix}_row and {prefix}_col differ in length; make the file again")
    # Negative ones would count from the end.
    wrong = np.flatnonzero((rows < 0) | (rows >= num_images) | (columns < 0) | (columns >= len(names)))
    if len(wrong):
        row, column = rows[wrong[0]], columns[wrong[0]]
        raise DataError(
            f"{where}: {prefix} name image {row} and label {column}, which do not exist; make the file again"
        )
    labels: list[list[str]] = [[] for _ in range(num_images)]
    for row, column in zip(rows.tolist(), columns.tolist()):
        labels[row].append(names[column])
    return [tuple(of_image) for of_image in labels]


def _ml_flair_records(path: Path, file: h5py.File, limits: Limits) -> Iterator[Record]:
    for partition, key, user in _groups(path, file):
        where = f"{path}: /{partition}/{key}"
        images = _images(user, where, limits)
        labels, fine = (
            [_split(plain_hdf5.text(value, f"{where}: {name}")) for value in column.tolist()]
            for name in ("labels", "fine_grained_labels")
            for column in [plain_hdf5.column(user, name, where, "text")]
        )
        if not len(labels) == len(fine) == len(images):
            raise DataError(f"{where}: as many labels as images were expected; make the file again")
        for k, image_id, image in _user_images(user, images, where):
            yield Record(user_id_of(key), image_id, partition, labels[k], fine[k], image, f"{where}: image {k}")


def _central_records(path: Path, file: h5py.File, limits: Limits) -> Iterator[Record]:
    for partition, key, group in _groups(path, file):
        where = f"{path}: /{partition}/{key}"
        labels, fine = (
            _split(plain_hdf5.scalar_text(group, name, where)) for name in ("labels", "fine_grained_labels")
        )
        user_id = plain_hdf5.scalar_text(group, "user_id", where)
        pixels = plain_hdf5.dataset(group, "image", where, "bytes", 3, max_bytes=None)
        _check_pixels(pixels.shape, where, limits)
        image = pixels_as_ppm(pixels[()])
        yield Record(user_id, parse_image_id(key, where), partition, labels, fine, image, where)


def _groups(path: Path, file: h5py.File) -> Iterator[tuple[str, str, h5py.Group]]:
    """(partition, name, group) of each user or image; a partition's names come one at a time."""
    for partition in file:
        if partition not in PARTITION_NAMES:
            continue
        members = plain_hdf5.group(file, partition, str(path))
        for name in members:
            yield partition, name, plain_hdf5.group(members, name, f"{path}: /{partition}")


def _images(user: h5py.Group, where: str, limits: Limits) -> h5py.Dataset:
    images = plain_hdf5.dataset(user, "images", where, "bytes", 4, max_bytes=None)
    _check_pixels(images.shape[1:], where, limits)
    return images


def _check_pixels(shape: tuple[int, int, int], where: str, limits: Limits) -> None:
    """Before memory is taken for them."""
    height, width, channels = shape
    if channels != 3:
        raise DataError(f"{where}: pixels are uint8 {list(shape)}, not uint8 [height, width, 3]; make the file again")
    if height * width > limits.image_pixels:
        raise DataError(f"{where}: {width:,}x{height:,} pixels are more than an image may have; see --max_image_pixels")


def _user_images(user: h5py.Group, images: h5py.Dataset, where: str) -> Iterator[tuple[int, int, bytes]]:
    image_ids = plain_hdf5.column(user, "image_ids", where, "whole numbers or text").tolist()
    if len(image_ids) != len(images):
        raise DataError(f"{where}: {len(image_ids)} image ids for {len(images)} images; make the file again")
    at_once = max(1, min(IMAGES_AT_ONCE, _BYTES_AT_ONCE // max(1, math.prod(images.shape[1:]))))
    for first in range(0, len(images), at_once):
        for k, pixels in enumerate(images[first : first + at_once], start=first):
            name = f"{where}: image {k}"
            image_id = image_ids[k] if isinstance(image_ids[k], int) else plain_hdf5.text(image_ids[k], name)
            yield k, parse_image_id(image_id, name), pixels_as_ppm(pixels)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()


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
