"""The rows of all images in memory, some 50 bytes each, and how they become the columns of a store's partition."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data.sources.records import Record, Source
from fedflair.data.store.packed import PARTITIONS, IntArray, PartitionColumns, is_text
from fedflair.errors import DataError

MAX_LABELS = 1 << 16


@dataclass(frozen=True)
class Rows:
    """The rows of all images in source order, as growing columns, and what was noticed on the way.

    user_numbers: user id -> number in order of first sight; user_partition: position in PARTITIONS by user number.
    labels, fine: numbers in order of first sight, those of an image together; their counts are per image.
    """

    user_numbers: dict[str, int] = field(default_factory=dict)
    user_partition: array[int] = field(default_factory=lambda: array("b"))
    label_numbers: dict[str, int] = field(default_factory=dict)
    fine_numbers: dict[str, int] = field(default_factory=dict)
    users: array[int] = field(default_factory=lambda: array("I"))
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    label_counts: array[int] = field(default_factory=lambda: array("H"))
    labels: array[int] = field(default_factory=lambda: array("H"))
    fine_counts: array[int] = field(default_factory=lambda: array("H"))
    fine: array[int] = field(default_factory=lambda: array("H"))
    reencoded: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


def append_labels(
    record: Record, names: tuple[str, ...], numbers: dict[str, int], column: array[int], counts: array[int]
) -> None:
    try:
        image_numbers = {numbers[name] for name in names}
    except KeyError:
        for name in names:
            numbers.setdefault(name, len(numbers))
        if "" in numbers or len(numbers) > MAX_LABELS:
            raise DataError(
                f"{record.where}: a label is empty, or the {MAX_LABELS + 1}th; correct the labels"
            ) from None
        for name in names:
            if not is_text(name):
                raise DataError(f"{record.where}: label {name!r} is not valid Unicode; correct it") from None
        image_numbers = {numbers[name] for name in names}
    column.extend(image_numbers)
    counts.append(len(image_numbers))


def label_order(
    source: Source, numbers: dict[str, int], declared: tuple[str, ...] | None
) -> tuple[tuple[str, ...], IntArray]:
    """The label list of the store (as declared, else sorted), and number of first sight -> index in it."""
    names = declared if declared is not None else tuple(sorted(numbers))
    index = {name: k for k, name in enumerate(names)}
    unknown = [name for name in numbers if name not in index]
    if unknown:
        raise DataError(
            f"{source.path}: label {unknown[0]!r} is not in the file's own label list; correct the label or the list"
        )
    return names, np.array([index[name] for name in numbers], dtype=np.int64)


def columns_of(
    rows: Rows, partition: str, numbers: IntArray, fine_numbers: IntArray
) -> tuple[PartitionColumns, IntArray]:
    """The columns of one partition, and the rows of its images in their order in the store."""
    by_user_id = sorted(rows.user_numbers)
    rank = np.empty(len(by_user_id), dtype=np.int64)
    rank[[rows.user_numbers[user_id] for user_id in by_user_id]] = np.arange(len(by_user_id))
    users = np.frombuffer(rows.users, dtype=np.uint32)
    image_ids = np.frombuffer(rows.image_ids, dtype=np.int64)
    lengths = np.frombuffer(rows.lengths, dtype=np.uint32)
    in_partition = np.frombuffer(rows.user_partition, dtype=np.int8)[users] == PARTITIONS.index(partition)
    ours = np.flatnonzero(in_partition)
    order = ours[np.lexsort((image_ids[ours], rank[users[ours]]))]
    present, first = np.unique(rank[users[order]], return_index=True)
    label_offsets, label_indices = _sorted_labels(rows.labels, rows.label_counts, numbers, order)
    fine_offsets, fine_indices = _sorted_labels(rows.fine, rows.fine_counts, fine_numbers, order)
    columns = PartitionColumns(
        user_ids=[by_user_id[k] for k in present.tolist()],
        user_offsets=np.append(first, len(order)).astype(np.int64),
        image_ids=image_ids[order],
        image_offsets=_offsets(lengths[order]),
        label_offsets=label_offsets,
        label_indices=label_indices,
        fine_label_offsets=fine_offsets,
        fine_label_indices=fine_indices,
    )
    return columns, order


def _offsets(lengths: npt.NDArray[np.integer[Any]]) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _sorted_labels(
    labels: array[int], counts: array[int], numbers: IntArray, order: IntArray
) -> tuple[IntArray, npt.NDArray[np.uint16]]:
    """CSR columns of the images ``order``: offsets, and label indices that ascend within each image."""
    all_counts = np.frombuffer(counts, dtype=np.uint16)
    starts = _offsets(all_counts)[:-1][order]
    offsets = _offsets(all_counts[order])
    image = np.repeat(np.arange(len(order)), np.diff(offsets))
    place = np.arange(offsets[-1]) - offsets[image] + starts[image]
    indices = numbers[np.frombuffer(labels, dtype=np.uint16)[place]]
    return offsets, np.sort(image * MAX_LABELS + indices).astype(np.uint64).astype(np.uint16)
