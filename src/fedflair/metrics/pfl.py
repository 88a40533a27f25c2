"""The metrics of pfl-research's FLAIR benchmark, so that a curve can be laid over a published one.

Two things set them apart from the exact ones (``multi_label.py``). AP is that of scores in steps: a probability p is in
bucket max(0, ceil(199 p) - 1), all scores of a bucket share a threshold, and what the order within it would tell is
lost, which is much for rare labels, whose scores lie in the first buckets. And macro values are means over all labels,
those without positives among them with AP, precision and recall 0. There is no F1.

Probabilities and their buckets are computed in float32, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedflair.metrics.multi_label import BLOCK_SCORES, CountArray, FloatArray, LabelCounts, MultiLabelMetrics, Targets

NAME = "pfl-research's (AP over 200 thresholds; macro values over all labels, 0 for those without positives)"
NUM_THRESHOLDS = 200


@dataclass(frozen=True)
class BucketCounts:
    """Images of each label in each bucket of scores, lowest first; adding two merges them.

    positives, all_images: int64 [L, 200].
    """

    positives: CountArray
    all_images: CountArray

    def __add__(self, other: BucketCounts) -> BucketCounts:
        return BucketCounts(self.positives + other.positives, self.all_images + other.all_images)

    def label_ap(self) -> FloatArray:
        """AP of each label: float64 [L], 0 where it has no positives."""
        return _average_precision(self.positives, self.all_images)

    def average_precision(self) -> dict[str, float]:
        """``macro_ap`` and ``micro_ap``."""
        pooled = _average_precision(self.positives.sum(0), self.all_images.sum(0))
        return {"macro_ap": float(np.mean(self.label_ap())), "micro_ap": float(pooled)}


def bucket_counts(logits: npt.NDArray[np.float32], targets: Targets) -> BucketCounts:
    """The counts of a partition's scores. logits: float32 [n, L]."""
    num_examples, num_labels = logits.shape
    all_images = np.zeros(num_labels * NUM_THRESHOLDS, dtype=np.int64)
    rows = max(1, BLOCK_SCORES // max(num_labels, 1))
    for start in range(0, num_examples, rows):
        block = _buckets(logits[start : start + rows]) + NUM_THRESHOLDS * np.arange(num_labels)
        all_images += np.bincount(block.ravel(), minlength=len(all_images))
    examples = np.repeat(np.arange(targets.num_examples), np.diff(targets.offsets))
    own = _buckets(logits[examples, targets.indices]) + NUM_THRESHOLDS * targets.indices.astype(np.int64)
    positives = np.bincount(own, minlength=len(all_images)).astype(np.int64)
    return BucketCounts(positives.reshape(num_labels, -1), all_images.reshape(num_labels, -1))


def pfl_values(buckets: BucketCounts, exact: MultiLabelMetrics) -> dict[str, float]:
    """The metrics by name. exact: of the same scores, whose counts and losses are theirs too."""
    same, counts = exact.values(), exact.counts
    return {
        **buckets.average_precision(),
        **_macro(counts),
        **{name: same[name] for name in ("micro_precision", "micro_recall")},
        # Every label has all images, so that the mean over labels is the mean over everything.
        **{f"{average}_accuracy": same["micro_accuracy"] for average in ("macro", "micro")},
        **{f"{average}_loss": same["loss"] for average in ("macro", "micro")},
        **{name: same[name] for name in ("num_labels_without_positives", "num_examples")},
    }


def _macro(counts: LabelCounts) -> dict[str, float]:
    hits = counts.true_positives
    return {
        "macro_precision": float(np.mean(hits / np.maximum(counts.num_predicted, 1))),
        "macro_recall": float(np.mean(hits / np.maximum(counts.num_actual, 1))),
    }


def _average_precision(positives: CountArray, all_images: CountArray) -> FloatArray:
    """The mean over the positives of the precision at their bucket's threshold: int64 [..., 200] to float64 [...]."""
    precision = _reached(positives) / np.maximum(_reached(all_images), 1)
    result: FloatArray = (positives * precision).sum(-1) / np.maximum(positives.sum(-1), 1)
    return result


def _reached(counts: CountArray) -> CountArray:
    """How many are in each bucket or a higher one."""
    reached: CountArray = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return reached


def _buckets(logits: npt.NDArray[np.float32]) -> CountArray:
    probabilities: npt.NDArray[np.float32] = torch.sigmoid(torch.from_numpy(logits)).numpy()
    buckets: CountArray = np.maximum(np.ceil(probabilities * np.float32(NUM_THRESHOLDS - 1)) - 1, 0).astype(np.int64)
    return buckets
