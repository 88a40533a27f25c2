"""Which labels a model learns, dense and sparse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedflair.data.store.labels import label_space
from fedflair.data.store.packed import open_store


@pytest.mark.parametrize("options", [{}, {"subset": ("plant", "animal")}, {"binary_label": "food"}])
def test_sparse_targets_are_the_dense_ones(tiny_store: Path, options: dict[str, object]) -> None:
    store = open_store(tiny_store)
    partition, labels = store.partitions["val"], label_space(store, fine=False, **options)  # type: ignore[arg-type]
    for images in (range(partition.num_images), range(2, 7), range(4, 4)):
        dense = labels.targets(partition, images)
        offsets, indices = labels.sparse_targets(partition, images)
        rebuilt = np.zeros_like(dense)
        rebuilt[np.repeat(np.arange(len(images)), np.diff(offsets)), indices] = 1
        assert rebuilt.tolist() == dense.tolist()
        assert len(indices) == dense.sum()
