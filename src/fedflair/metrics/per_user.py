"""Metrics of one user, and their averages over users.

Half of FLAIR's users have one or two images, which leaves no label-wise AP to speak of: with one image every label that
is present has AP 1. A user's AP is therefore the micro AP over the user's images x labels, which is meaningful from one
image on: there it asks whether the labels that are present score above those that are not. Precision, recall, F1,
accuracy and loss are the micro values over the same pairs. A model that knows nothing but the labels' frequencies
already ranks well by this measure: compare models, not the value with 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.metrics.average_precision import average_precision

USER_METRICS = ("micro_ap", "micro_precision", "micro_recall", "micro_f1", "micro_accuracy", "loss")


def user_metrics(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> dict[str, float]:
    """The user's metrics by the names of ``USER_METRICS``. logits: float32 [n, L]; targets: 0/1 uint8 [n, L]; n >= 1.

    ``micro_ap`` is NaN for a user without a single positive, as can be where only some labels are learnt.
    """
    predicted, actual = logits > 0, targets > 0
    hits, num_predicted, num_actual = int((predicted & actual).sum()), int(predicted.sum()), int(actual.sum())
    scores = logits.astype(np.float64)
    loss = np.logaddexp(0, np.where(actual, -scores, scores)).mean()
    return {
        "micro_ap": average_precision(logits.ravel(), targets.ravel()),
        "micro_precision": _ratio(hits, num_predicted),
        "micro_recall": _ratio(hits, num_actual),
        "micro_f1": _ratio(2 * hits, num_predicted + num_actual),
        "micro_accuracy": float((predicted == actual).mean()),
        "loss": float(loss),
    }


@dataclass(frozen=True)
class UserAverages:
    """Sums over users of each of ``USER_METRICS``; adding two merges them.

    num_scored: users with at least one positive, the ones that count in AP; num_scored_images: their images.
    sums: each metric. weighted_sums: each metric times the user's images.
    """

    num_users: int = 0
    num_images: int = 0
    num_scored: int = 0
    num_scored_images: int = 0
    sums: tuple[float, ...] = (0.0,) * len(USER_METRICS)
    weighted_sums: tuple[float, ...] = (0.0,) * len(USER_METRICS)

    @classmethod
    def of_user(cls, metrics: Mapping[str, float], num_images: int) -> UserAverages:
        """The averages of one user."""
        scored = not np.isnan(metrics["micro_ap"])
        values = tuple(metrics[name] if scored or name != "micro_ap" else 0.0 for name in USER_METRICS)
        weighted = tuple(value * num_images for value in values)
        return cls(1, num_images, int(scored), num_images if scored else 0, values, weighted)

    def __add__(self, other: UserAverages) -> UserAverages:
        return UserAverages(
            self.num_users + other.num_users,
            self.num_images + other.num_images,
            self.num_scored + other.num_scored,
            self.num_scored_images + other.num_scored_images,
            tuple(a + b for a, b in zip(self.sums, other.sums)),
            tuple(a + b for a, b in zip(self.weighted_sums, other.weighted_sums)),
        )

    def means(self) -> dict[str, float]:
        """Mean over users of each metric, every user counting alike; NaN without users."""
        return self._divided(self.sums, self.num_users, self.num_scored)

    def image_weighted_means(self) -> dict[str, float]:
        """Mean over users of each metric, a user counting as often as it has images; NaN without users."""
        return self._divided(self.weighted_sums, self.num_images, self.num_scored_images)

    def _divided(self, sums: tuple[float, ...], total: int, scored_total: int) -> dict[str, float]:
        totals = [scored_total if name == "micro_ap" else total for name in USER_METRICS]
        return {n: value / t if t else float("nan") for n, value, t in zip(USER_METRICS, sums, totals)}


def _ratio(numerator: Any, denominator: Any) -> float:
    return float(numerator / denominator) if denominator else 0.0
