"""Metrics of a partition against scikit-learn and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score

from fedflair.metrics.multi_label import Targets, multi_label_metrics
from tests.properties import examples


def drawn(seed: int, num_examples: int, num_labels: int, decimals: int) -> tuple[npt.NDArray[np.float32], Targets]:
    """Scores with ties, and targets among which some labels may have no positive."""
    generator = np.random.default_rng(seed)
    logits = np.round(generator.normal(size=(num_examples, num_labels)) * 3, decimals).astype(np.float32)
    dense = (generator.random((num_examples, num_labels)) < 0.3).astype(np.uint8)
    return logits, Targets.from_dense(dense)


def dense(targets: Targets) -> npt.NDArray[np.uint8]:
    hot = np.zeros((targets.num_examples, targets.num_labels), dtype=np.uint8)
    for row in range(targets.num_examples):
        hot[row, targets.indices[targets.offsets[row] : targets.offsets[row + 1]]] = 1
    return hot


def test_all_metrics_against_scikit_learn() -> None:
    logits, targets = drawn(0, 300, 6, decimals=1)
    got, hot = multi_label_metrics(logits, targets).values(), dense(targets)
    predicted = (logits > 0).astype(int)
    for average in ("macro", "micro"):
        assert got[f"{average}_ap"] == pytest.approx(average_precision_score(hot, logits, average=average), abs=1e-6)
        assert got[f"{average}_f1"] == pytest.approx(f1_score(hot, predicted, average=average))
        assert got[f"{average}_precision"] == pytest.approx(precision_score(hot, predicted, average=average))
        assert got[f"{average}_recall"] == pytest.approx(recall_score(hot, predicted, average=average))
        assert got[f"{average}_accuracy"] == pytest.approx(np.mean(hot == predicted))
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.mean([log_loss(hot[:, k], probabilities[:, k]) for k in range(6)])
    assert got["loss"] == pytest.approx(expected, rel=1e-6)
    assert got["macro_loss"] == pytest.approx(expected, rel=1e-6)


@examples(50)
@given(
    seed=st.integers(0, 10**6),
    num_examples=st.integers(1, 40),
    num_labels=st.integers(1, 7),
    decimals=st.integers(-1, 3),
    block_scores=st.integers(1, 120),
)
def test_blocks_change_nothing_and_average_precision_equals_scikit_learn(
    seed: int, num_examples: int, num_labels: int, decimals: int, block_scores: int
) -> None:
    logits, targets = drawn(seed, num_examples, num_labels, decimals)
    got, hot = multi_label_metrics(logits, targets, block_scores=block_scores), dense(targets)
    if targets.indices.size:
        assert got.micro_ap == pytest.approx(average_precision_score(hot.ravel(), logits.ravel()), abs=1e-6)
    for label in range(num_labels):
        if hot[:, label].any():
            assert got.label_ap[label] == pytest.approx(
                average_precision_score(hot[:, label], logits[:, label]), abs=1e-6
            )
        else:
            assert np.isnan(got.label_ap[label])
    whole = multi_label_metrics(logits, targets)
    np.testing.assert_array_equal(got.label_ap, whole.label_ap)
    np.testing.assert_array_equal(got.counts.loss_sum, whole.counts.loss_sum)
    np.testing.assert_equal(got.values(), whole.values())


def test_losses_near_zero_keep_their_digits() -> None:
    logits = np.array([[30.0, -30.0]], dtype=np.float32)
    got = multi_label_metrics(logits, Targets.from_dense(np.array([[1, 0]])))
    assert got.counts.loss_sum == pytest.approx([np.exp(-30)] * 2, rel=1e-5)


def test_labels_without_positives_are_left_out_and_counted() -> None:
    logits = np.array([[1.0, 3.0], [-1.0, 2.0]], dtype=np.float32)
    got = multi_label_metrics(logits, Targets.from_dense(np.array([[1, 0], [0, 0]])))
    values = got.values()
    assert values["macro_ap"] == 1.0
    assert values["num_labels_without_positives"] == 1
    # Label 0 alone: log(1 + e^-1) for each of the two.
    assert values["macro_loss"] == pytest.approx(np.log1p(np.exp(-1)))
    assert got.label_ap_by_name(("a", "b")) == {"a": 1.0, "b": None}


def test_counts_of_two_halves_merge() -> None:
    logits, targets = drawn(1, 40, 5, decimals=1)
    hot = dense(targets)
    halves = [multi_label_metrics(logits[k::2], Targets.from_dense(hot[k::2])).counts for k in (0, 1)]
    whole, merged = multi_label_metrics(logits, targets).counts, halves[0] + halves[1]
    assert merged.num_examples == 40
    assert merged.true_positives.tolist() == whole.true_positives.tolist()
    assert merged.num_predicted.tolist() == whole.num_predicted.tolist()
    assert merged.num_actual.tolist() == whole.num_actual.tolist()
    assert merged.loss_sum == pytest.approx(whole.loss_sum, rel=1e-12)
