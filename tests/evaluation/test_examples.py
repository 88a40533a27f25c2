"""The photographs in which a model is surest, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedflair.data.store.packed import open_store
from fedflair.evaluation.examples import MOST, surest
from fedflair.evaluation.partition import Scores
from fedflair.metrics.multi_label import Targets

NAMES = ("animal", "food", "outdoor")


def test_the_surest_by_kind(tiny_store: Path) -> None:
    """Nine images of two users; a label has two places in a list."""
    test = open_store(tiny_store).partitions["test"]
    logits = np.full((9, 3), -5.0, dtype=np.float32)
    there = np.zeros((9, 3), dtype=bool)
    logits[:4, 0], there[:4, 0] = (4, 3, 2, 1), True
    logits[4, 1], there[4, 1] = 0.5, True
    # Wrong: outdoor is not on image 5; missed: food is on image 6; image 8 has nan and no label.
    logits[5, 2] = 2.5
    logits[6, 1], there[6, 1] = -7, True
    logits[8] = np.nan
    found = surest(Scores(logits, Targets.from_dense(there)), NAMES, test)
    assert [(one["image"], one["label"]) for one in found["right"]] == [(0, "animal"), (1, "animal"), (4, "food")]
    assert (found["wrong"][0]["image"], found["wrong"][0]["label"], found["wrong"][0]["labels"]) == (5, "outdoor", [])
    assert [(one["image"], one["label"]) for one in found["missed"]][:2] == [(6, "food"), (4, "food")]
    assert found["right"][2]["probability"] == 1 / (1 + np.exp(-0.5))
    assert found["right"][0]["name"] == f"{test.user_ids[0]}/{test.columns.image_ids[0]}"
    assert found["missed"][0]["labels"] == ["food"]
    assert all(len(many) <= MOST for many in found.values())
    assert all(sum(one["label"] == name for one in many) <= 2 for many in found.values() for name in NAMES)


def test_logits_beyond_all_numbers_are_sure(tiny_store: Path) -> None:
    test = open_store(tiny_store).partitions["test"]
    scores = Scores(np.full((9, 3), np.inf, np.float32), Targets.from_dense(np.ones((9, 3), dtype=bool)))
    found = surest(scores, NAMES, test)
    assert [(one["image"], one["probability"]) for one in found["right"]] == [(0, 1.0), (1, 1.0)]
    assert found["wrong"] == []
