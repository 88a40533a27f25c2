"""Multi-label metrics as mergeable counts and as scores over a whole partition.

AP is the step-wise area under the precision-recall curve, sum over distinct thresholds of (R_k - R_{k-1}) P_k, as in
scikit-learn's ``average_precision_score``; equal scores share a threshold. Precision, recall, F1 and accuracy take a
label as predicted where its logit is above 0 (probability above 0.5); a ratio without a denominator counts as 0.
Macro values are means over the labels that have at least one positive example; ``num_labels_without_positives``
says how many were left out. Loss is the mean binary cross-entropy over examples and labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LocalMetrics:
    """Sums over the examples of local training; adding two merges them."""

    loss_sum: float = 0.0
    num_examples: int = 0
    num_steps: int = 0

    def __add__(self, other: LocalMetrics) -> LocalMetrics:
        return LocalMetrics(
            self.loss_sum + other.loss_sum, self.num_examples + other.num_examples, self.num_steps + other.num_steps
        )

    @property
    def loss(self) -> float:
        return self.loss_sum / self.num_examples if self.num_examples else float("nan")


def average_precision(scores: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> float:
    """AP of one label. scores: float [n], higher is surer; targets: 0/1 [n]. NaN where no target is 1."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order], dtype=np.int64)
    if len(hits) == 0 or hits[-1] == 0:
        return float("nan")
    sorted_scores = scores[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(sorted_scores)), len(hits) - 1)
    hits = hits[last_of_tie]
    precision = hits / (last_of_tie + 1)
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(recall_steps * precision))


def per_label_average_precision(scores: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> FloatArray:
    """AP of each label: float64 [L], NaN for labels without positives. scores, targets: [n, L]."""
    labels = range(scores.shape[1])
    return np.array([average_precision(scores[:, k], targets[:, k]) for k in labels], dtype=np.float64)


def multi_label_metrics(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> dict[str, float]:
    """All metrics of a partition by name (``macro_ap``, ``micro_f1``, ``loss``, ...).

    logits: float32 [n, L]; targets: 0/1 uint8 [n, L].
    """
    predicted = logits > 0
    actual = targets.astype(bool)
    true_positives = np.sum(predicted & actual, axis=0)
    num_predicted, num_actual = predicted.sum(axis=0), actual.sum(axis=0)
    correct = np.mean(predicted == actual, axis=0)
    scored = num_actual > 0
    precision = _ratio(true_positives, num_predicted)
    recall = _ratio(true_positives, num_actual)
    f1 = _ratio(2 * true_positives, num_predicted + num_actual)
    label_ap = per_label_average_precision(logits, targets)
    micro = [np.atleast_1d(v.sum()) for v in (true_positives, num_predicted, num_actual)]
    return {
        "macro_ap": _mean(label_ap[scored]),
        "micro_ap": average_precision(logits.ravel(), targets.ravel()),
        "macro_precision": _mean(precision[scored]),
        "micro_precision": float(_ratio(micro[0], micro[1])[0]),
        "macro_recall": _mean(recall[scored]),
        "micro_recall": float(_ratio(micro[0], micro[2])[0]),
        "macro_f1": _mean(f1[scored]),
        "micro_f1": float(_ratio(2 * micro[0], micro[1] + micro[2])[0]),
        "macro_accuracy": _mean(correct[scored]),
        "micro_accuracy": _mean(correct),
        "loss": _cross_entropy(logits, targets),
        "mean_prevalence": _mean(num_actual[scored] / max(len(targets), 1)),
        "num_labels_without_positives": float(np.sum(~scored)),
        "num_examples": float(len(targets)),
    }


def named_label_average_precision(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8], names: tuple[str, ...]
) -> Mapping[str, float | None]:
    """AP by label name; None for labels without positives."""
    values = per_label_average_precision(logits, targets)
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values)}


def _cross_entropy(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> float:
    if logits.size == 0:
        return float("nan")
    # log(1 + e^z) - y z, summed a row at a time so that no float64 copy of all scores is made.
    total = sum(float(np.sum(np.logaddexp(0.0, z.astype(np.float64)) - y * z)) for z, y in zip(logits, targets))
    return total / logits.size


def _ratio(numerator: npt.NDArray[np.integer], denominator: npt.NDArray[np.integer]) -> FloatArray:
    result: FloatArray = np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)
    return result


def _mean(values: npt.NDArray[np.floating]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
