"""Which labels a model learns: all coarse or all fine ones, some of them, or a single one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data.store.packed import ByteArray, Partition, Store
from fedflair.errors import ConfigError, DataError


@dataclass(frozen=True)
class LabelSpace:
    """names: the labels, one for each output of the model. fine: whether they are fine-grained labels.

    columns: their indices among all coarse or fine labels of the store, int64 [L]; None where they are all of them.
    """

    names: tuple[str, ...]
    fine: bool
    columns: npt.NDArray[np.int64] | None = None
    num_in_store: int = 0

    @property
    def num_labels(self) -> int:
        return len(self.names)

    def targets(self, partition: Partition, images: npt.NDArray[np.integer[Any]] | range) -> ByteArray:
        """Labels of several images as 0/1: uint8 [len(images), num_labels]."""
        if self.columns is None:
            return partition.multi_hot(images, self.num_labels, fine=self.fine)
        hot: ByteArray = partition.multi_hot(images, self.num_in_store, fine=self.fine)[:, self.columns]
        return np.ascontiguousarray(hot)

    def sparse_targets(
        self, partition: Partition, images: range
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.integer[Any]]]:
        """Labels of neighbouring images as CSR: (offsets int64 [len(images) + 1], indices), none twice in an image."""
        columns = partition.columns
        offsets = (columns.fine_label_offsets if self.fine else columns.label_offsets)[images.start : images.stop + 1]
        indices = (columns.fine_label_indices if self.fine else columns.label_indices)[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        if self.columns is None:
            return offsets, indices
        position = np.full(self.num_in_store, -1, dtype=np.int64)
        position[self.columns] = np.arange(self.num_labels)
        mapped = position[indices]
        num_before = np.concatenate([[0], np.cumsum(mapped >= 0)])
        return num_before[offsets], mapped[mapped >= 0]


def label_space(
    store: Store, *, fine: bool, subset: Sequence[str] | None = None, binary_label: str | None = None
) -> LabelSpace:
    """All labels of the store, or those of ``subset`` in its order, or ``binary_label`` alone.

    Raises ConfigError, naming the nearest label, where the store has no such label, or none of the kind at all.
    """
    names = store.label_names(fine=fine)
    if not names:
        raise ConfigError(
            f"use_fine_grained_labels: {store.path} has no {'fine' if fine else 'coarse'} labels, the other kind only; "
            "choose that, or prepare the store with such labels"
        )
    if subset is None and binary_label is None:
        return LabelSpace(names, fine, None, len(names))
    option, wanted = ("binary_label", (binary_label,)) if binary_label is not None else ("label_subset", subset or ())
    index = {name: k for k, name in enumerate(names)}
    columns = []
    for name in wanted:
        if name not in index:
            close = difflib.get_close_matches(str(name), names, n=1)
            kind = "fine" if fine else "coarse"
            hint = f"did you mean {close[0]}?" if close else f"e.g. {names[0]}"
            raise ConfigError(f"{option}: {store.path} has no {kind} label {name!r}; {hint}")
        columns.append(index[name])
    return LabelSpace(tuple(names[k] for k in columns), fine, np.array(columns, dtype=np.int64), len(names))


def named_labels(store: Store, names: Sequence[str], *, fine: bool, all_of_them: bool) -> LabelSpace:
    """The labels ``names`` of a model, found in the store by name, in whatever order the store has them.

    all_of_them: the model knows every label that its own store had, so this store may have no further ones.
    Raises DataError, naming the first ones, where the store lacks labels of the model's or has further ones.
    """
    found = store.label_names(fine=fine)
    if tuple(names) == found:
        return LabelSpace(found, fine, None, len(found))
    index = {name: column for column, name in enumerate(found)}
    kind = "fine" if fine else "coarse"
    missing = [name for name in names if name not in index]
    if missing:
        raise DataError(
            f"{store.path}: lacks {len(missing)} of the {len(names)} {kind} labels that the model learned "
            f"({_first(missing)}); name a store that has them"
        )
    further = sorted(index.keys() - set(names))
    if further and all_of_them:
        raise DataError(
            f"{store.path}: has {len(further)} {kind} labels that the model never learned ({_first(further)}); name a "
            "store with the labels of the run's own"
        )
    return LabelSpace(tuple(names), fine, np.array([index[name] for name in names], dtype=np.int64), len(found))


def _first(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
