"""The packed store in the HDF5 layouts of other tools; ``sources/hdf5_layouts.py`` reads them.

What a direction keeps, besides users, partitions, image ids and both kinds of labels with their indices:

    to packed              pixels exactly (bare pixels become PNG); JPEGs byte for byte
    to pfl, ml-flair,      pixels exactly as training decodes them; the JPEG bytes themselves are not kept, so
    ml-flair-central       converting back gives PNG images of the same pixels, on which training is bit-identical

The label relation travels in ``/metadata/fine_to_coarse``, which other tools pass over. What a layout cannot hold (256
labels in pfl, ``|`` in a label and a label order of one's own in ml-flair) is an error, never dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import numpy.typing as npt

from fedflair.data.images.jpeg import SIDE
from fedflair.data.preparation.packing import PrepareSummary
from fedflair.data.sources.hdf5_layouts import IMAGES_AT_ONCE, RELATION, group_name
from fedflair.data.store.new_file import check_space, replacing
from fedflair.data.store.packed import Partition, Store, open_store
from fedflair.errors import DataError
from fedflair.system.cores import num_cores
from fedflair.system.threads import pool

Hdf5Layout = Literal["pfl", "ml-flair", "ml-flair-central"]

_IMAGE_BYTES = SIDE * SIDE * 3
_PFL_MAX_LABELS = 1 << 8
_PFL_MAX_USER_IMAGES = 1 << 16


def write_through_store(output: Path, layout: Hdf5Layout, pack: Callable[[Path], PrepareSummary]) -> PrepareSummary:
    """Writes ``output`` from a store that ``pack`` makes at the path it is given, and that is then removed."""
    path = output.with_name(f".{output.name}.store")
    with replacing(output) as temporary:
        try:
            summary = pack(path)
            _write(open_store(path), output, temporary, layout)
        finally:
            path.unlink(missing_ok=True)
    return replace(summary, output=output, num_bytes=output.stat().st_size)


def write_layout(store: Store, output: Path, layout: Hdf5Layout) -> None:
    """Writes a store's users, images (decoded) and labels to ``output`` in another tool's layout.

    Memory does not grow with the store. Raises DataError where the layout cannot hold what the store holds, or the
    disk cannot hold the pixels (196,608 bytes an image).
    """
    with replacing(output) as temporary:
        _write(store, output, temporary, layout)


def _write(store: Store, output: Path, temporary: Path, layout: Hdf5Layout) -> None:
    writers: dict[str, Callable[[h5py.File, Store, ThreadPoolExecutor], None]] = {
        "pfl": _write_pfl,
        "ml-flair": _write_ml_flair,
        "ml-flair-central": _write_central,
    }
    _CHECKS[layout](store)
    check_space(output, _IMAGE_BYTES * sum(partition.num_images for partition in store.partitions.values()))
    with h5py.File(temporary, "w", locking=False) as file, pool(num_cores(), "image") as threads:
        writers[layout](file, store, threads)
        # Where there is none too: it is by this that prepare knows what was made of a store.
        file[f"metadata/{RELATION}"] = json.dumps(store.metadata.fine_to_coarse)


def _check_pfl(store: Store) -> None:
    if len(store.metadata.labels) > _PFL_MAX_LABELS:
        raise DataError(f"{store.path}: pfl's layout holds {_PFL_MAX_LABELS} labels, not {len(store.metadata.labels)}")
    for partition in store.partitions.values():
        sizes = np.diff(partition.columns.user_offsets)
        if len(sizes) and sizes.max() > _PFL_MAX_USER_IMAGES:
            user_id = partition.user_ids[int(sizes.argmax())]
            raise DataError(
                f"{store.path}: {user_id!r} has {sizes.max():,} images, pfl's layout holds {_PFL_MAX_USER_IMAGES:,}"
            )


def _check_ml_flair(store: Store) -> None:
    for names in (store.metadata.labels, store.metadata.fine_grained_labels):
        for name in names:
            if "|" in name:
                raise DataError(f"{store.path}: ml-flair's layouts join labels with '|', which label {name!r} holds")
        if list(names) != sorted(names):
            raise DataError(
                f"{store.path}: ml-flair's layouts do not keep the order of labels, and this store's is not the sorted "
                "one; choose --layout pfl, which does"
            )


_CHECKS: dict[str, Callable[[Store], None]] = {
    "pfl": _check_pfl,
    "ml-flair": _check_ml_flair,
    "ml-flair-central": _check_ml_flair,
}


def _write_pfl(file: h5py.File, store: Store, pool: ThreadPoolExecutor) -> None:
    for partition, images, group in _user_groups(file, store):
        _write_user_images(group, partition, images, pool)
        for fine, prefix, dtype in ((False, "labels", np.uint8), (True, "fine_grained_labels", np.uint16)):
            indices = [partition.label_indices(image, fine=fine) for image in images]
            counts = [len(of_image) for of_image in indices]
            group[f"{prefix}_row"] = np.repeat(np.arange(len(images)), counts).astype(np.uint16)
            group[f"{prefix}_col"] = np.concatenate(indices).astype(dtype)
    for name, labels in _label_lists(store):
        file[f"metadata/{name}_mapping"] = json.dumps({label: index for index, label in enumerate(labels)})


def _write_ml_flair(file: h5py.File, store: Store, pool: ThreadPoolExecutor) -> None:
    for partition, images, group in _user_groups(file, store):
        _write_user_images(group, partition, images, pool)
        for fine, name in ((False, "labels"), (True, "fine_grained_labels")):
            group[name] = np.array([_joined(store, partition, image, fine=fine).encode() for image in images])
    _write_counters(file, store)


def _write_central(file: h5py.File, store: Store, pool: ThreadPoolExecutor) -> None:
    for name, partition in store.partitions.items():
        for user, user_id in enumerate(partition.user_ids):
            images = partition.user_slice(user)
            for image, pixels in zip(images, _pixels(partition, images, pool)):
                group = file.create_group(f"{name}/{partition.columns.image_ids[image]}")
                group["image"] = pixels
                group["labels"] = _joined(store, partition, image, fine=False)
                group["fine_grained_labels"] = _joined(store, partition, image, fine=True)
                group["user_id"] = user_id
    _write_counters(file, store)


def _user_groups(file: h5py.File, store: Store) -> Iterator[tuple[Partition, range, h5py.Group]]:
    for name, partition in store.partitions.items():
        file.create_group(name)
        for user, user_id in enumerate(partition.user_ids):
            yield partition, partition.user_slice(user), file.create_group(f"{name}/{group_name(user_id)}")


def _write_user_images(group: h5py.Group, partition: Partition, images: range, pool: ThreadPoolExecutor) -> None:
    dataset = group.create_dataset("images", (len(images), SIDE, SIDE, 3), dtype=np.uint8)
    for position, pixels in enumerate(_pixels(partition, images, pool)):
        dataset[position] = pixels
    image_ids = partition.columns.image_ids[images.start : images.stop].tolist()
    group["image_ids"] = np.array([str(image_id).encode() for image_id in image_ids])


def _pixels(partition: Partition, images: range, pool: ThreadPoolExecutor) -> Iterator[npt.NDArray[np.uint8]]:
    """The pixels of each image as training decodes them: uint8 [256, 256, 3]."""
    # Here, because it loads torch, which preparing a store does without.
    from fedflair.data.images.crops import decode

    def decoded(image: int) -> npt.NDArray[np.uint8]:
        pixels: npt.NDArray[np.uint8] = decode([partition.encoded(image)])[0].permute(1, 2, 0).numpy()
        return pixels

    for first in range(0, len(images), IMAGES_AT_ONCE):
        yield from pool.map(decoded, images[first : first + IMAGES_AT_ONCE])


def _joined(store: Store, partition: Partition, image: int, *, fine: bool) -> str:
    names = store.label_names(fine=fine)
    return "|".join(names[index] for index in partition.label_indices(image, fine=fine))


def _write_counters(file: h5py.File, store: Store) -> None:
    """Images per label, labels that no image carries included, so that they survive."""
    for name, labels in _label_lists(store):
        counts = np.zeros(len(labels), dtype=np.int64)
        for partition in store.partitions.values():
            columns = partition.columns
            indices = columns.label_indices if name == "label" else columns.fine_label_indices
            counts += np.bincount(indices, minlength=len(labels))
        file[f"metadata/{name}_counter"] = json.dumps(dict(zip(labels, counts.tolist())))


def _label_lists(store: Store) -> list[tuple[str, tuple[str, ...]]]:
    return [("label", store.metadata.labels), ("fine_grained_label", store.metadata.fine_grained_labels)]
