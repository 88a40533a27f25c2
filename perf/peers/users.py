"""A store whose users are what a comparison needs: FLAIR's sizes, or a fixed number of images each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fedflair.data.preparation.layouts import write_layout
from fedflair.data.store import writing
from fedflair.data.store.packed import PartitionColumns, Store, StoreMetadata, open_store
from fedflair.data.synthetic.images import render
from fedflair.data.synthetic.users import sizes_by_partition

NUM_LABELS = 17
_SOURCE_IMAGES = 64


def flair_sizes(num_users: int, seed: int, largest: int) -> list[int]:
    """Images of ``num_users`` training users drawn at random from FLAIR's 41,131, at most ``largest`` each."""
    sizes = sizes_by_partition(51_414, 0)["train"]
    drawn = np.random.default_rng(seed).choice(sizes, num_users, replace=False)
    return [int(size) for size in np.minimum(drawn, largest)]


def pictures(count: int) -> list[bytes]:
    """JPEGs of the synthetic twin's."""
    return [render(0, f"photographer-{k}", k, ("sky", "tree", "food")) for k in range(count)]


def write_users(folder: Path, sizes: list[int], val_sizes: list[int] | None = None) -> tuple[Store, Path]:
    """A packed store with these users to train on and to score, and the same in pfl's layout.

    User k is called ``user-k``; the photographs are a few dozen of the synthetic twin's, repeated.
    """
    path, pfl_path = folder / "users.hdf5", folder / "users_pfl.hdf5"
    _write_store(path, {"train": sizes, "val": val_sizes or [8], "test": [8]}, pictures(_SOURCE_IMAGES))
    store = open_store(path)
    write_layout(store, pfl_path, "pfl")
    return store, pfl_path


def write_tiny_users(folder: Path, num_users: int) -> Path:
    """A packed store of ``num_users`` training users with one image of 16 pixels' side each, and eight more users."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 60)).save(buffer, "JPEG")
    path = folder / f"tiny-{num_users}.hdf5"
    _write_store(path, {"train": [1] * num_users, "val": [1] * 4, "test": [1] * 4}, [buffer.getvalue()])
    return path


def _write_store(path: Path, sizes: dict[str, list[int]], images_in_turn: list[bytes]) -> None:
    with writing.create(path) as writer:
        for partition, counts in sizes.items():
            total = sum(counts)
            images = [images_in_turn[k % len(images_in_turn)] for k in range(total)]
            labels = np.stack([np.arange(total) % NUM_LABELS, (np.arange(total) + 5) % NUM_LABELS], axis=1)
            offsets, indices = np.arange(total + 1) * 2, np.sort(labels, axis=1).ravel().astype(np.uint16)
            columns = PartitionColumns(
                user_ids=[f"user-{k:05d}" for k in range(len(counts))],
                user_offsets=np.cumsum([0, *counts]),
                image_ids=np.arange(total),
                image_offsets=np.cumsum([0, *map(len, images)]),
                label_offsets=offsets,
                label_indices=indices,
                fine_label_offsets=offsets,
                fine_label_indices=indices,
            )
            writer.partition(partition, columns)[:] = np.frombuffer(b"".join(images), dtype=np.uint8)
        names = tuple(f"label{k:02d}" for k in range(NUM_LABELS))
        writer.metadata(StoreMetadata(names, names, {}, {"source": "perf"}))
