"""The benchmark's own metrics: by hand, by their definition threshold for threshold, and by pfl's metric values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.metrics.multi_label import Targets, multi_label_metrics
from fedflair.metrics.pfl import BucketCounts, bucket_counts, pfl_values
from tests.metrics.test_multi_label import dense, drawn


def values_of(logits: npt.NDArray[np.float32], targets: Targets) -> dict[str, float]:
    return pfl_values(bucket_counts(logits, targets), multi_label_metrics(logits, targets))


def logits_of(probabilities: list[list[float]]) -> npt.NDArray[np.float32]:
    p = np.array(probabilities)
    return np.log(p / (1 - p)).astype(np.float32)


def test_by_hand() -> None:
    """Three labels: one whose two best images share a bucket, a rare one whose images all do, one without positives."""
    # Times 199: 139.3 and 139.1 are bucket 139, 99.5 is bucket 99, 39.8 bucket 39; all below 1/199 are bucket 0.
    logits = logits_of([[0.7, 0.004, 0.2], [0.699, 0.003, 0.2], [0.5, 0.002, 0.2], [0.2, 0.001, 0.6]])
    hot = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    targets = Targets.from_dense(hot)
    counts = bucket_counts(logits, targets)
    assert [np.flatnonzero(row).tolist() for row in counts.all_images] == [[39, 99, 139], [0], [39, 119]]
    # The first positive ties with a negative: precision 1/2; the second: 2 of 3. Exact: 1 and 2/3.
    # The rare positive, first of four in its bucket: 1/4; exact: 1.
    assert counts.label_ap() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 4, 0.0])
    exact = multi_label_metrics(logits, targets)
    assert exact.label_ap[:2] == pytest.approx([(1 + 2 / 3) / 2, 1.0])
    found = values_of(logits, targets)
    assert found["macro_ap"] == pytest.approx((7 / 12 + 1 / 4) / 3)
    # All pairs: 139 has one of 2, 119 none of 1, 99 one of 1, 39 none of 4, 0 one of 4: 1/2, 2/4, 3/12.
    assert found["micro_ap"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    # Predicted above 0.5: both of label 0's first two (one right), label 2's last (wrong).
    assert (found["macro_precision"], found["micro_precision"]) == pytest.approx((1 / 2 / 3, 1 / 3))
    assert (found["macro_recall"], found["micro_recall"]) == pytest.approx((1 / 2 / 3, 1 / 3))
    assert found["num_labels_without_positives"] == 1
    assert "macro_f1" not in found


def by_thresholds(probabilities: npt.NDArray[np.float32], hot: npt.NDArray[np.uint8]) -> float:
    """AP as it is defined: precision and recall at each of the 200 thresholds, and the area of their steps."""
    thresholds = [-1e-7, *(k / 199 for k in range(1, 199)), 1 + 1e-7]
    total = int(hot.sum())
    points = []
    for threshold in thresholds:
        predicted = probabilities > threshold
        hits = int((predicted & (hot > 0)).sum())
        points.append((hits / total if total else 0.0, hits / predicted.sum() if predicted.any() else 0.0))
    return sum((recall - after) * precision for (recall, precision), (after, _) in itertools.pairwise(points))


@given(seed=st.integers(0, 10**6), num_examples=st.integers(1, 40), num_labels=st.integers(1, 5))
def test_ap_is_that_of_200_thresholds(seed: int, num_examples: int, num_labels: int) -> None:
    logits, targets = drawn(seed, num_examples, num_labels, decimals=3)
    probabilities, hot = 1 / (1 + np.exp(-logits.astype(np.float64))), dense(targets)
    # A probability at a threshold to within a float32's rounding is on either side of it.
    if np.any(np.abs(probabilities * 199 - np.round(probabilities * 199)) < 1e-4):
        return
    found = bucket_counts(logits, targets)
    expected = [by_thresholds(probabilities[:, k], hot[:, k]) for k in range(num_labels)]
    assert found.label_ap() == pytest.approx(expected)
    assert found.average_precision()["macro_ap"] == pytest.approx(np.mean(expected))
    assert found.average_precision()["micro_ap"] == pytest.approx(by_thresholds(probabilities, hot))


def test_counts_of_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = drawn(3, 50, 4, decimals=2)
    whole, hot = bucket_counts(logits, targets), dense(targets)
    parts = [bucket_counts(logits[s], Targets.from_dense(hot[s])) for s in (slice(0, 20), slice(20, 50))]
    together = parts[0] + parts[1]
    monkeypatch.setattr("fedflair.metrics.pfl.BLOCK_SCORES", 12)
    for found in (together, bucket_counts(logits, targets)):
        np.testing.assert_array_equal(found.positives, whole.positives)
        np.testing.assert_array_equal(found.all_images, whole.all_images)
    assert whole.positives.sum() == hot.sum()
    assert isinstance(together, BucketCounts)


def test_the_rest_against_pfl() -> None:
    """pfl's ratios: ``Weighted`` for micro values, and of each label for macro ones, where 0 / 0 is 0."""
    metrics = pytest.importorskip("pfl.metrics", reason="the pfl package is not installed; make setup installs it")
    logits, targets = drawn(5, 60, 6, decimals=2)
    hot = dense(targets)
    hot[:, 2] = 0
    logits[:, 4] = -np.abs(logits[:, 4]) - 0.1
    targets = Targets.from_dense(hot)
    found = values_of(logits, targets)
    predicted, actual = logits > 0, hot > 0
    hits = (predicted & actual).sum(0)

    def ratio(value: float, weight: float) -> float:
        return float(metrics.Weighted(float(value), float(weight)).overall_value)

    for name, weights in (("precision", predicted.sum(0)), ("recall", actual.sum(0))):
        assert found[f"micro_{name}"] == pytest.approx(ratio(hits.sum(), weights.sum()))
        assert found[f"macro_{name}"] == pytest.approx(np.mean([ratio(*pair) for pair in zip(hits, weights)]))
    correct = (predicted == actual).sum(0)
    losses = np.logaddexp(0, logits.astype(np.float64)) - logits * hot
    for average in ("macro", "micro"):
        assert found[f"{average}_accuracy"] == pytest.approx(ratio(correct.sum(), 60 * 6))
        assert found[f"{average}_loss"] == pytest.approx(ratio(losses.sum(), 60 * 6), rel=1e-6)
    assert math.isclose(found["num_labels_without_positives"], 1)
