"""Multi-label metrics of a partition, from its scores and sparse targets, a block of labels at a time.

AP is exact (``average_precision.py``). Precision, recall, F1 and accuracy take a label as predicted where its logit is
above 0 (probability above 0.5); a ratio without a denominator counts as 0. Macro values are means over the labels that
have at least one positive example; ``num_labels_without_positives`` says how many were left out. ``loss`` is the mean
binary cross-entropy over examples and labels (the micro value), ``macro_loss`` its mean over the labels with positives.

Beside the scores, memory holds one block of about four million of them and a few numbers for each positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.metrics.average_precision import mean_precision, num_at_least

FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.int64]

BLOCK_SCORES = 4_000_000


@dataclass(frozen=True)
class Targets:
    """Which labels each example has, as CSR: example i has indices[offsets[i] : offsets[i + 1]], none twice.

    offsets: int64 [n + 1]. indices: integers in [0, num_labels).
    """

    offsets: CountArray
    indices: npt.NDArray[np.integer[Any]]
    num_labels: int

    @classmethod
    def from_dense(cls, targets: npt.NDArray[Any]) -> Targets:
        """The same from 0/1 [n, num_labels]."""
        _, indices = np.nonzero(targets)
        offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(targets, axis=1))]).astype(np.int64)
        return cls(offsets, indices, targets.shape[1])

    @property
    def num_examples(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class LabelCounts:
    """Sums over examples for each label; adding two merges them.

    true_positives, num_predicted, num_actual: int64 [L]. loss_sum: binary cross-entropy, float64 [L].
    """

    num_examples: int
    true_positives: CountArray
    num_predicted: CountArray
    num_actual: CountArray
    loss_sum: FloatArray

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.num_examples + other.num_examples,
            self.true_positives + other.true_positives,
            self.num_predicted + other.num_predicted,
            self.num_actual + other.num_actual,
            self.loss_sum + other.loss_sum,
        )


@dataclass(frozen=True)
class MultiLabelMetrics:
    """All metrics of a partition. label_ap: float64 [L], NaN for labels without positives."""

    counts: LabelCounts
    label_ap: FloatArray
    micro_ap: float

    def values(self) -> dict[str, float]:
        """The metrics by name (``macro_ap``, ``micro_f1``, ``loss``, ...)."""
        counts = self.counts
        true_positives, num_predicted, num_actual = counts.true_positives, counts.num_predicted, counts.num_actual
        num_examples = max(counts.num_examples, 1)
        accuracy = 1 - (num_predicted + num_actual - 2 * true_positives) / num_examples
        loss = counts.loss_sum / num_examples
        scored = num_actual > 0
        micro = [np.atleast_1d(v.sum()) for v in (true_positives, num_predicted, num_actual)]
        return {
            "macro_ap": _mean(self.label_ap[scored]),
            "micro_ap": self.micro_ap,
            "macro_precision": _mean(_ratio(true_positives, num_predicted)[scored]),
            "micro_precision": float(_ratio(micro[0], micro[1])[0]),
            "macro_recall": _mean(_ratio(true_positives, num_actual)[scored]),
            "micro_recall": float(_ratio(micro[0], micro[2])[0]),
            "macro_f1": _mean(_ratio(2 * true_positives, num_predicted + num_actual)[scored]),
            "micro_f1": float(_ratio(2 * micro[0], micro[1] + micro[2])[0]),
            "macro_accuracy": _mean(accuracy[scored]),
            "micro_accuracy": _mean(accuracy),
            "loss": _mean(loss) if counts.num_examples else float("nan"),
            "macro_loss": _mean(loss[scored]),
            "mean_prevalence": _mean(num_actual[scored] / num_examples),
            "num_labels_without_positives": float(np.sum(~scored)),
            "num_examples": float(counts.num_examples),
        }

    def label_ap_by_name(self, names: tuple[str, ...]) -> Mapping[str, float | None]:
        """AP by label name; None for labels without positives."""
        return {name: None if np.isnan(ap) else float(ap) for name, ap in zip(names, self.label_ap, strict=True)}


def multi_label_metrics(
    logits: npt.NDArray[np.float32], targets: Targets, *, block_scores: int = BLOCK_SCORES
) -> MultiLabelMetrics:
    """The metrics of a partition. logits: float32 [n, L]. block_scores: scores that are copied and sorted at once.

    The thresholds of micro AP are the scores of all positives; how many scores reach each of them is counted block by
    block, which gives the integers that one sort of everything would give.
    """
    num_examples, num_labels = logits.shape
    positives, starts = _positives_by_label(logits, targets)
    thresholds = np.sort(positives)
    num_predicted_at = np.zeros(len(thresholds), dtype=np.int64)
    num_predicted, true_positives = np.zeros(num_labels, np.int64), np.zeros(num_labels, np.int64)
    loss_sum, label_ap = np.zeros(num_labels), np.full(num_labels, np.nan)
    for first, block in _label_blocks(logits, max(1, block_scores // max(num_examples, 1))):
        labels = slice(first, first + len(block))
        num_predicted[labels] = np.count_nonzero(block > 0, axis=1)
        loss_sum[labels] = _softplus_sum(block)
        block.sort(axis=1)
        for label, ordered in enumerate(block, first):
            own = np.sort(positives[starts[label] : starts[label + 1]])
            true_positives[label] = np.count_nonzero(own > 0)
            loss_sum[label] -= own.sum(dtype=np.float64)
            label_ap[label] = mean_precision(own, num_at_least(ordered, own))
        num_predicted_at += num_at_least(np.sort(block, axis=None), thresholds)
    counts = LabelCounts(num_examples, true_positives, num_predicted, np.diff(starts), loss_sum)
    return MultiLabelMetrics(counts, label_ap, mean_precision(thresholds, num_predicted_at))


def _positives_by_label(
    logits: npt.NDArray[np.float32], targets: Targets
) -> tuple[npt.NDArray[np.float32], CountArray]:
    """The scores of the positives, label after label, and where each label's begin: float32 [p], int64 [L + 1]."""
    examples = np.repeat(np.arange(targets.num_examples), np.diff(targets.offsets))
    scores = logits[examples, targets.indices]
    starts = np.zeros(targets.num_labels + 1, dtype=np.int64)
    np.cumsum(np.bincount(targets.indices, minlength=targets.num_labels), out=starts[1:])
    return scores[np.argsort(targets.indices, kind="stable")], starts


def _label_blocks(logits: npt.NDArray[np.float32], width: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(first label, copy of the scores of up to ``width`` labels: float32 [width, n])."""
    for first in range(0, logits.shape[1], width):
        yield first, logits[:, first : first + width].T.copy(order="C")


def _softplus_sum(scores: npt.NDArray[np.float32]) -> FloatArray:
    """Sum over each row of log(1 + e^z); its linear part apart, so that losses near 0 keep their digits."""
    curved = np.log1p(np.exp(-np.abs(scores))).sum(axis=1, dtype=np.float64)
    linear = np.maximum(scores, 0).sum(axis=1, dtype=np.float64)
    total: FloatArray = curved + linear
    return total


def _ratio(numerator: npt.NDArray[np.integer[Any]], denominator: npt.NDArray[np.integer[Any]]) -> FloatArray:
    result: FloatArray = np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)
    return result


def _mean(values: npt.NDArray[np.floating[Any]]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
