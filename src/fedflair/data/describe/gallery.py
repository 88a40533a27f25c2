"""A bounded sample of a store's images for the page of ``fedflair describe``: thumbnails by user and by label."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from fedflair.data.describe.statistics import Statistics, most_frequent
from fedflair.data.store.packed import IntArray, PartitionColumns, Store
from fedflair.sampling import stream

# Together at most some 1,400 thumbnails of about 3 KB: a page of a few megabytes whatever the dataset's size.
USERS = 48
IMAGES_PER_USER = 12
COARSE_LABELS, FINE_LABELS = 30, 40
IMAGES_PER_LABEL = 12
SIDE = 128  # pixels
QUALITY = 72


def gallery(store: Store, everything: PartitionColumns, statistics: Statistics) -> dict[str, Any]:
    """What the page's script shows, as plain data, given the store's partitions joined and their statistics.

    ``images``: a list of [thumbnail as base64 JPEG or None, user id, partition, image id, coarse names, fine names].
    ``users``: [user id, partition, number of images, positions in ``images``], largest user first.
    ``labels``: [name, kind, number of images, positions in ``images``], coarse first, most frequent first.
    """
    partitions = list(store.partitions.values())
    sizes = np.diff(everything.user_offsets)
    users = spread_over_sizes(sizes, USERS)
    by_user = [_images_of_user(everything, int(user)) for user in users]
    kinds = (("coarse", statistics.coarse, COARSE_LABELS), ("fine", statistics.fine, FINE_LABELS))
    labels = [
        (kind, label, of_kind, _images_with_label(everything, label, fine=kind == "fine"))
        for kind, of_kind, most in kinds
        for label in most_frequent(of_kind, most).tolist()
    ]
    chosen = np.unique(np.concatenate([*by_user, *[images for *_, images in labels], np.empty(0, np.int64)]))
    partition_starts = np.cumsum([0, *[partition.num_users for partition in partitions]])
    partition_of = np.searchsorted(partition_starts, np.arange(everything.num_users), side="right") - 1
    return {
        "images": [_image(store, int(image)) for image in chosen],
        "users": [
            [everything.user_ids[user], partitions[in_partition].name, size, np.searchsorted(chosen, own).tolist()]
            for user, in_partition, size, own in zip(users, partition_of[users], sizes[users].tolist(), by_user)
        ],
        "labels": [
            [of_kind.names[label], kind, int(of_kind.images[label]), np.searchsorted(chosen, images).tolist()]
            for kind, label, of_kind, images in labels
        ],
        "num_users": everything.num_users,
        "num_labels": [len(statistics.coarse.names), len(statistics.fine.names)],
    }


def spread_over_sizes(sizes: IntArray, number: int) -> IntArray:
    """Positions of at most ``number`` users whose sizes are spread evenly on a logarithmic scale, largest first.

    Half of FLAIR's users have one or two images: users taken evenly would nearly all look the same.
    """
    shuffled = stream(0, "gallery users").permutation(len(sizes))
    order = shuffled[np.argsort(sizes[shuffled], kind="stable")]
    if len(order) > number:
        wanted = np.geomspace(sizes[order[0]], sizes[order[-1]], number)
        places = np.searchsorted(sizes[order], wanted)
        # Each place is moved up past the one before it, then down to leave room for those that follow.
        places = np.maximum.accumulate(places - np.arange(number)) + np.arange(number)
        places = np.minimum(places, len(order) - number + np.arange(number))
        order = order[places]
    chosen: IntArray = order[::-1]
    return chosen


def thumbnail(encoded: bytes) -> str | None:
    """A small JPEG of an encoded image as base64, or None where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _images_of_user(columns: PartitionColumns, user: int) -> IntArray:
    """Evenly spaced images of one user."""
    start, stop = int(columns.user_offsets[user]), int(columns.user_offsets[user + 1])
    number = min(stop - start, IMAGES_PER_USER)
    return start + np.arange(number, dtype=np.int64) * (stop - start) // max(number, 1)


def _images_with_label(columns: PartitionColumns, label: int, *, fine: bool) -> IntArray:
    """Random images with a label, of as many different users as there are, ascending."""
    offsets, indices = (
        (columns.fine_label_offsets, columns.fine_label_indices)
        if fine
        else (columns.label_offsets, columns.label_indices)
    )
    images = np.searchsorted(offsets, np.flatnonzero(indices == label), side="right") - 1
    shuffled = stream(0, "gallery images", client=f"{fine} {label}").permutation(images)
    owners = np.searchsorted(columns.user_offsets, shuffled, side="right") - 1
    first_of_owner = np.zeros(len(shuffled), dtype=bool)
    first_of_owner[np.unique(owners, return_index=True)[1]] = True
    chosen: IntArray = np.concatenate([shuffled[first_of_owner], shuffled[~first_of_owner]])[:IMAGES_PER_LABEL]
    return np.sort(chosen)


def _image(store: Store, image: int) -> list[Any]:
    """One entry of ``images``; ``image`` counts through the partitions in the store's order."""
    for partition in store.partitions.values():
        if image < partition.num_images:
            break
        image -= partition.num_images
    user = int(np.searchsorted(partition.columns.user_offsets, image, side="right")) - 1
    names = [
        [store.label_names(fine=fine)[label] for label in partition.label_indices(image, fine=fine).tolist()]
        for fine in (False, True)
    ]
    small = thumbnail(partition.encoded(image).tobytes())
    # As text: a script's numbers have 53 bits, and ids 64.
    return [small, partition.user_ids[user], partition.name, str(partition.columns.image_ids[image]), *names]
