"""Metrics against scikit-learn and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss

from fedflair.metrics import LocalMetrics, average_precision, multi_label_metrics, named_label_average_precision


def test_average_precision_by_hand() -> None:
    # Ranked: hit, miss, hit -> 1/2 * 1/1 + 1/2 * 2/3.
    scores = np.array([0.9, 0.5, 0.1], dtype=np.float32)
    assert average_precision(scores, np.array([1, 0, 1], dtype=np.uint8)) == pytest.approx(5 / 6)


def test_tied_scores_share_a_threshold() -> None:
    # One threshold for all four: precision 1/4 at recall 1.
    assert average_precision(np.zeros(4, np.float32), np.array([0, 0, 0, 1], np.uint8)) == pytest.approx(0.25)


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=60).filter(
        lambda pairs: any(hit for _, hit in pairs)
    )
)
def test_average_precision_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([s for s, _ in pairs], dtype=np.float32)
    targets = np.array([t for _, t in pairs], dtype=np.uint8)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), abs=1e-6)


def test_all_metrics_against_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    logits = np.round(generator.normal(size=(300, 6)), 1).astype(np.float32)
    targets = (generator.random((300, 6)) < 0.3).astype(np.uint8)
    got = multi_label_metrics(logits, targets)
    assert got["macro_ap"] == pytest.approx(average_precision_score(targets, logits, average="macro"), abs=1e-6)
    assert got["micro_ap"] == pytest.approx(average_precision_score(targets, logits, average="micro"), abs=1e-6)
    predicted = (logits > 0).astype(int)
    assert got["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert got["micro_f1"] == pytest.approx(f1_score(targets, predicted, average="micro"))
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.mean([log_loss(targets[:, k], probabilities[:, k]) for k in range(6)])
    assert got["loss"] == pytest.approx(expected, rel=1e-6)


def test_labels_without_positives_are_left_out_and_counted() -> None:
    logits = np.array([[1.0, 3.0], [-1.0, 2.0]], dtype=np.float32)
    targets = np.array([[1, 0], [0, 0]], dtype=np.uint8)
    got = multi_label_metrics(logits, targets)
    assert got["macro_ap"] == 1.0
    assert got["num_labels_without_positives"] == 1
    assert named_label_average_precision(logits, targets, ("a", "b")) == {"a": 1.0, "b": None}


def test_local_metrics_merge() -> None:
    merged = LocalMetrics(3.0, 2, 1) + LocalMetrics(1.0, 2, 1)
    assert merged == LocalMetrics(4.0, 4, 2)
    assert merged.loss == 1.0
