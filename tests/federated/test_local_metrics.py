"""Merging what clients measured is what measuring them together would give."""

from __future__ import annotations

from fedflair.federated.local_metrics import LocalMetrics
from fedflair.metrics.per_user import UserAverages

REST = {"micro_ap": 1.0, "micro_accuracy": 0.25, "loss": 2.0}


def test_local_metrics_merge() -> None:
    user = UserAverages.of_user(dict.fromkeys(("micro_precision", "micro_recall", "micro_f1"), 0.5) | REST, 2)
    merged = LocalMetrics(3.0, 2, 1, before=user) + LocalMetrics(1.0, 2, 1, after=user)
    assert merged == LocalMetrics(4.0, 4, 2, before=user, after=user)
    assert merged.loss == 1.0
