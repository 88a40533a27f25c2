"""Whether the columns of a partition fit together, so that no reader runs past an end later; vectorised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedflair.errors import DataError

Numbers = npt.NDArray[Any]


class Columns(Protocol):
    """As ``packed.PartitionColumns``, which is not imported, since it is checked with what is here."""

    @property
    def user_ids(self) -> Sequence[str]: ...
    @property
    def user_offsets(self) -> Numbers: ...
    @property
    def image_ids(self) -> Numbers: ...
    @property
    def image_offsets(self) -> Numbers: ...
    @property
    def label_offsets(self) -> Numbers: ...
    @property
    def label_indices(self) -> Numbers: ...
    @property
    def fine_label_offsets(self) -> Numbers: ...
    @property
    def fine_label_indices(self) -> Numbers: ...


def check_columns(where: str, columns: Columns, num_labels: int, num_fine_labels: int) -> None:
    """Raises DataError, naming the column, where an offset or an index leads out of what it points into."""
    num_images = len(columns.image_ids)
    for name, offsets, entries, end in (
        ("user_offsets", columns.user_offsets, len(columns.user_ids), num_images),
        ("image_offsets", columns.image_offsets, num_images, None),
        ("label_offsets", columns.label_offsets, num_images, len(columns.label_indices)),
        ("fine_label_offsets", columns.fine_label_offsets, num_images, len(columns.fine_label_indices)),
    ):
        ascending = len(offsets) == entries + 1 and offsets[0] == 0 and bool((offsets[1:] >= offsets[:-1]).all())
        if not ascending or (end is not None and offsets[-1] != end):
            raise DataError(f"{where}: damaged: its {name} do not fit; prepare it again")
    for name, indices, offsets, number in (
        ("label_indices", columns.label_indices, columns.label_offsets, num_labels),
        ("fine_label_indices", columns.fine_label_indices, columns.fine_label_offsets, num_fine_labels),
    ):
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < number:
            image = int(np.searchsorted(offsets, np.argmax((indices < 0) | (indices >= number)), side="right")) - 1
            raise DataError(
                f"{where}: damaged: its {name} name a label that is none of the {number}, first at image "
                f"{columns.image_ids[image]}; prepare it again"
            )
        falls = np.flatnonzero(indices[1:] <= indices[:-1]) + 1
        if not np.isin(falls, offsets).all():
            raise DataError(f"{where}: damaged: its {name} do not ascend within an image; prepare it again")
    if len(set(columns.user_ids)) != len(columns.user_ids):
        raise DataError(f"{where}: damaged: its user_ids hold one twice; prepare it again")
