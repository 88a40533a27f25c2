"""A run's model on another store: labels are found by name, whatever order they stand in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedflair.data.store import writing
from fedflair.data.store.packed import open_store
from fedflair.errors import DataError
from fedflair.evaluation.run import score_run, score_users_of_run
from fedflair.training.train import train
from tests.conftest import FINE_LABELS, LABELS
from tests.small_runs import small_config

SMALL = {"model": "small_cnn", "central_num_iterations": 2, "num_threads": 1}


def with_labels(store: Path, path: Path, coarse: Sequence[str], fine: Sequence[str] = FINE_LABELS) -> Path:
    """The same photographs with the labels in another order; those that are not among them are taken off."""
    opened = open_store(store)

    def mapped(offsets: Any, indices: Any, before: Sequence[str], after: Sequence[str]) -> tuple[Any, Any]:
        images = [
            sorted(after.index(before[k]) for k in indices[start:stop] if before[k] in after)
            for start, stop in itertools.pairwise(offsets)
        ]
        return np.cumsum([0, *map(len, images)]), np.array([k for image in images for k in image], dtype=np.uint16)

    with writing.create(path) as writer:
        for name, partition in opened.partitions.items():
            columns = partition.columns
            offsets, indices = mapped(columns.label_offsets, columns.label_indices, LABELS, coarse)
            fine_offsets, fine_indices = mapped(
                columns.fine_label_offsets, columns.fine_label_indices, FINE_LABELS, fine
            )
            columns = replace(
                columns,
                label_offsets=offsets,
                label_indices=indices,
                fine_label_offsets=fine_offsets,
                fine_label_indices=fine_indices,
            )
            images = np.concatenate([partition.encoded(k) for k in range(partition.num_images)])
            writer.partition(name, columns)[:] = images
        writer.metadata(replace(opened.metadata, labels=tuple(coarse), fine_grained_labels=tuple(fine)))
    return path


OPTIONS: dict[str, dict[str, Any]] = {
    "coarse": {},
    "fine": {"use_fine_grained_labels": True},
    "some": {"label_subset": ("plant", "animal")},
    "one": {"binary_label": "food"},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_labels_in_another_order_score_the_same(tiny_store: Path, tmp_path: Path, kind: str) -> None:
    run = train(small_config(tiny_store, run=tmp_path / "run", **SMALL, **OPTIONS[kind]))
    other = with_labels(tiny_store, tmp_path / "other.hdf5", ("plant", "outdoor", "animal", "food"), FINE_LABELS[::-1])
    here, there = score_run(run, "test", "best"), score_run(run, "test", "best", other)
    assert here.label_ap == there.label_ap
    assert dict(here.metrics) == pytest.approx(dict(there.metrics), rel=1e-6)
    users = [score_users_of_run(run, "val", "best", path)["distribution"] for path in (None, other)]
    assert users[0] == users[1]


def test_labels_that_are_missing_or_further_are_named(tiny_store: Path, tmp_path: Path) -> None:
    run = train(small_config(tiny_store, run=tmp_path / "run", **SMALL))
    fewer = with_labels(tiny_store, tmp_path / "fewer.hdf5", ("food", "plant"))
    with pytest.raises(DataError) as caught:
        score_run(run, "test", "best", fewer)
    assert str(caught.value) == (
        f"{fewer}: lacks 2 of the 4 coarse labels that the model learned ('animal', 'outdoor'); "
        "name a store that has them"
    )
    more = with_labels(tiny_store, tmp_path / "more.hdf5", (*LABELS, "vehicle", "art"))
    with pytest.raises(DataError, match=re.escape("has 2 coarse labels that the model never learned ('art', 'vehic")):
        score_run(run, "test", "best", more)
    # As many, and one of them another.
    renamed = with_labels(tiny_store, tmp_path / "renamed.hdf5", ("animal", "food", "outdoor", "flora"))
    with pytest.raises(DataError, match=re.escape("lacks 1 of the 4 coarse labels that the model learned ('plant')")):
        score_run(run, "test", "best", renamed)


def test_a_model_of_some_labels_needs_those_only(tiny_store: Path, tmp_path: Path) -> None:
    run = train(small_config(tiny_store, run=tmp_path / "run", label_subset=("plant", "animal"), **SMALL))
    here = score_run(run, "test", "best")
    fewer = with_labels(tiny_store, tmp_path / "fewer.hdf5", ("plant", "animal"))
    assert score_run(run, "test", "best", fewer).label_ap == here.label_ap
    more = with_labels(tiny_store, tmp_path / "more.hdf5", ("art", *LABELS))
    assert score_run(run, "test", "best", more).label_ap == here.label_ap
